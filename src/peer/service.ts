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

/** A question is a small JSON object, and parsed before its sender is known to be a member. */
const questionBytesMax = 1024 * 1024

type FrameStream = ServerReadableStream<Buffer, Buffer>

export class PeerHandlers {
  private readonly service: PeerService
  private readonly statusOf: (error: unknown) => GrpcStatus
  private readonly callerOf: CallerOf
  private readonly ends = new Set<(error: RoundhouseError) => void>()

  /** `statusOf` reports what is unexpected and makes the status of any error. */
  constructor(service: PeerService, statusOf: (error: unknown) => GrpcStatus, callerOf: CallerOf) {
    this.service = service
    this.statusOf = statusOf
    this.callerOf = callerOf
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
    let from: string | null = null
    let isOver = false
    const end = (error: unknown) => {
      if (isOver) return
      isOver = true
      this.ends.delete(end)
      if (error === null) callback(null, Buffer.alloc(0))
      else callback(this.statusOf(error))
    }
    this.ends.add(end)
    stream.on('data', (bytes: Buffer) => {
      if (isOver) return
      try {
        if (from === null) {
          const { identity } = readHandshake(bytes)
          demandIdentity(this.callerOf(stream.metadata), identity.nodeId)
          this.service.admit(identity)
          from = identity.nodeId
          // Headers before the end of a stream that has none: they tell the sender that it was admitted.
          stream.sendMetadata(new Metadata())
        } else this.service.receive(from, decodeFrame(bytes))
      } catch (error) {
        end(error)
      }
    })
    stream.once('end', () => end(null))
    stream.once('cancelled', () => {
      isOver = true
      this.ends.delete(end)
    })
  }

  private ask({ request, metadata }: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void {
    const refuse = (error: unknown) => callback(this.statusOf(error))
    try {
      const { from, method, body } = readQuestion(request)
      demandIdentity(this.callerOf(metadata), from.nodeId)
      this.service
        .ask(identityOf(from), method, body)
        .then(answer => callback(null, encodeMessage(AskResponse, { body: answer })), refuse)
    } catch (error) {
      refuse(error)
    }
  }
}

function readQuestion(bytes: Buffer): AskRequest & { from: NonNullable<AskRequest['from']> } {
  if (bytes.length > questionBytesMax) throw malformedFrame(`a question of at most ${questionBytesMax} bytes`)
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
