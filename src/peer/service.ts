/**
 * roundhouse.v1.Peer, the server side: frames of other nodes in, after a handshake that says who sends them; questions
 * answered. A frame that can't be read ends its stream with a reason and nothing else.
 */
import {
  Metadata,
  type MethodDefinition,
  type ServerReadableStream,
  type ServerUnaryCall,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { RoundhouseError } from '../errors.ts'
import { AskRequest, AskResponse, PeerService as Contract } from '../gen/roundhouse/v1/peer.ts'
import type { Clock } from '../lib/clock.ts'
import type { PeerService } from '../node/ports.ts'
import { malformedFrame } from './byte-source.ts'
import { type CallerOf, demandIdentity } from './caller.ts'
import { decodeFrame, identityOf, readHandshake } from './frames.ts'
import { decodeMessage, encodeMessage } from './proto-io.ts'
import type { GrpcStatus } from './status.ts'

const raw = (bytes: Buffer) => bytes

/** Bytes in and out: what is broken in them is ours to answer. */
function rawMethod(method: { path: string; requestStream: boolean; responseStream: boolean }) {
  const { path, requestStream, responseStream } = method
  return {
    path,
    requestStream,
    responseStream,
    requestSerialize: raw,
    requestDeserialize: raw,
    responseSerialize: raw,
    responseDeserialize: raw,
  } satisfies MethodDefinition<Buffer, Buffer>
}

export const peerMethods = { frames: rawMethod(Contract.frames), ask: rawMethod(Contract.ask) }

/**
 * Without TLS anybody may open a stream of frames or ask, and say that he is a node. A node has one stream of each lane;
 * the rest is for those of connections that broke and were not heard to.
 */
export const peerLimits = {
  /** Streams of frames at this node. */
  streamsMax: 2_048,
  /** Of one node. Beyond it its oldest ends: what is newest is the one that it writes to. */
  streamsOfNodeMax: 8,
  /** From the beginning of a stream to its handshake. */
  handshakeMsMax: 10_000,
  /** Asked and not answered. More than may wait for records, which is what takes long. */
  questionsMax: 12_000,
  /** A question is a small JSON object, and parsed before its sender is known to be a member. */
  questionBytesMax: 1024 * 1024,
} as const

/** Counts what a call makes this node hold. */
export interface CallWeight {
  /** The requests that came until now are counted elsewhere, or gone. */
  handOver(): void
  answered(bytes: number): void
}

export interface PeerHandlersOptions {
  readonly service: PeerService
  /** Reports what is unexpected and makes the status of any error. */
  readonly statusOf: (error: unknown) => GrpcStatus
  readonly callerOf: CallerOf
  readonly clock: Clock
  readonly memoryOf: (grpcCall: unknown) => CallWeight
}

type FrameStream = ServerReadableStream<Buffer, Buffer>

type End = (error: RoundhouseError) => void

export class PeerHandlers {
  private readonly options: PeerHandlersOptions
  private readonly ends = new Set<End>()
  /** Of those that have not said who they are, and make room for who may be a node; the oldest first. */
  private readonly strangers = new Set<End>()
  /** Of the others, by node; the oldest first. */
  private readonly endsOf = new Map<string, Set<End>>()
  private questions = 0

  constructor(options: PeerHandlersOptions) {
    this.options = options
  }

  handlers(): UntypedServiceImplementation {
    return {
      frames: (stream: FrameStream, callback: sendUnaryData<Buffer>) => this.frames(stream, callback),
      ask: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) =>
        this.ask(call, callback),
    }
  }

  endStreams(): void {
    for (const end of [...this.ends]) end(new RoundhouseError('SHUTTING_DOWN', {}))
  }

  private frames(stream: FrameStream, callback: sendUnaryData<Buffer>): void {
    const { service, statusOf, callerOf, clock, memoryOf } = this.options
    const { streamsMax, handshakeMsMax } = peerLimits
    if (this.ends.size >= streamsMax) {
      const overloaded = new RoundhouseError('OVERLOADED', { what: 'streams of frames', max: streamsMax })
      const [longest] = this.strangers
      if (longest === undefined) {
        callback(statusOf(overloaded))
        return
      }
      longest(overloaded)
    }
    const memory = memoryOf(stream)
    let from: string | null = null
    let isOver = false
    const close = () => {
      isOver = true
      cancelDeadline()
      this.ends.delete(end)
      this.strangers.delete(end)
      if (from !== null) this.forget(from, end)
    }
    const end = (error: unknown) => {
      if (isOver) return
      close()
      if (error === null) callback(null, Buffer.alloc(0))
      else callback(statusOf(error))
    }
    const cancelDeadline = clock.after(handshakeMsMax, () => {
      if (from === null) end(malformedFrame(`a handshake within ${handshakeMsMax} ms`))
    })
    this.ends.add(end)
    this.strangers.add(end)
    stream.on('data', (bytes: Buffer) => {
      memory.handOver()
      if (isOver) return
      try {
        if (from === null) {
          const { identity } = readHandshake(bytes)
          demandIdentity(callerOf(stream.metadata), identity.nodeId)
          service.admit(identity)
          from = identity.nodeId
          cancelDeadline()
          this.strangers.delete(end)
          this.remember(from, end)
          // Headers before the end of a stream that has none: they tell the sender that it was admitted.
          stream.sendMetadata(new Metadata())
        } else service.receive(from, decodeFrame(bytes))
      } catch (error) {
        end(error)
      }
    })
    stream.once('end', () => end(null))
    stream.once('cancelled', close)
  }

  private remember(node: string, end: End): void {
    const ends = this.endsOf.get(node) ?? new Set()
    this.endsOf.set(node, ends.add(end))
    const max = peerLimits.streamsOfNodeMax
    const [oldest] = ends
    if (ends.size > max) oldest!(new RoundhouseError('OVERLOADED', { what: `streams of ${node}`, max }))
  }

  private forget(node: string, end: End): void {
    const ends = this.endsOf.get(node)
    ends?.delete(end)
    if (ends?.size === 0) this.endsOf.delete(node)
  }

  private ask(call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void {
    const { service, statusOf, callerOf, memoryOf } = this.options
    const memory = memoryOf(call)
    const refuse = (error: unknown) => callback(statusOf(error))
    const max = peerLimits.questionsMax
    if (this.questions >= max) {
      refuse(new RoundhouseError('OVERLOADED', { what: 'questions of other nodes', max }))
      return
    }
    try {
      const { from, method, body } = readQuestion(call.request)
      demandIdentity(callerOf(call.metadata), from.nodeId)
      this.questions++
      service
        .ask(identityOf(from), method, body)
        .finally(() => {
          this.questions--
        })
        .then(answer => {
          const bytes = encodeMessage(AskResponse, { body: answer })
          memory.answered(bytes.byteLength)
          callback(null, bytes)
        }, refuse)
    } catch (error) {
      refuse(error)
    }
  }
}

function readQuestion(bytes: Buffer): AskRequest & { from: NonNullable<AskRequest['from']> } {
  if (bytes.length > peerLimits.questionBytesMax)
    throw malformedFrame(`a question of at most ${peerLimits.questionBytesMax} bytes`)
  let question: AskRequest
  try {
    question = decodeMessage(AskRequest, bytes)
  } catch {
    throw malformedFrame('a protobuf roundhouse.v1.AskRequest')
  }
  const { from, method, body } = question
  if (from === undefined || method === '') throw malformedFrame('a question with its sender and method')
  return { from, method, body }
}
