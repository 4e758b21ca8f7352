/**
 * clusterpb.ClusterNode: gRPC's way to the node's one door. Here bytes become calls and results bytes; what a command
 * means, where it runs and whether it may, is for those below.
 */
import { setMaxListeners } from 'node:events'
import type {
  ServerDuplexStream,
  ServerUnaryCall,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import {
  AtomicRequest,
  ClusterNodeService,
  CommandRequest,
  CommandResponse,
  HeartbeatRequest,
  HeartbeatResponse,
} from '../../gen/clusterpb/cluster.ts'
import { crc32 } from '../../lib/crc.ts'
import { CallOrder } from '../../node/call-order.ts'
import type { Call, Session } from '../../node/ports.ts'
import {
  encodeResponse,
  type RequestedCall,
  readRequest,
  readTransfer,
  writeChunk,
  writeErrorResponse,
} from '../../peer/call-codec.ts'
import { type Caller, type CallerOf, demandIdentity, demandNode } from '../../peer/caller.ts'
import { readMembers, writeMember } from '../../peer/member-codec.ts'
import { encodeMessage, toSafeInteger } from '../../peer/proto-io.ts'
import { factsOf, isExpected, statusOf } from '../../peer/status.ts'
import { readAtomic, writeAtomic } from './atomic.ts'
import type { Connections } from './connections.ts'
import type { DirectMethod, UnaryArrival } from './direct.ts'
import { type Answer, type Arrived, fail, rawMethod, respond } from './method.ts'
import { type GrpcServerOptions, grpcLimits } from './options.ts'
import { OrderedWindow } from './ordered-window.ts'

export const clusterNodeMethods = {
  heartbeat: rawMethod(ClusterNodeService.heartbeat, HeartbeatRequest),
  runCommand: rawMethod(ClusterNodeService.runCommand, CommandRequest),
  atomic: rawMethod(ClusterNodeService.atomic, AtomicRequest),
  // A chunk weighs in the window before it is read, so that a few large ones fill it.
  streamCommand: rawMethod(ClusterNodeService.streamCommand, CommandRequest, it => it.transfer?.length ?? 0),
}

const windowLimits = { requestsMax: grpcLimits.windowRequestsMax, bytesMax: grpcLimits.windowBytesMax }

type Unary<Message> = ServerUnaryCall<Arrived<Message>, Buffer>
type CommandStream = ServerDuplexStream<Arrived<CommandRequest>, Buffer>

export class ClusterNodeHandlers {
  private readonly options: GrpcServerOptions
  private readonly callerOf: CallerOf
  private readonly connections: Connections
  private readonly streams = new Set<OrderedWindow<Arrived<CommandRequest>>>()

  constructor(options: GrpcServerOptions, callerOf: CallerOf, connections: Connections) {
    this.options = options
    this.callerOf = callerOf
    this.connections = connections
  }

  handlers(): UntypedServiceImplementation {
    return {
      heartbeat: (call: Unary<HeartbeatRequest>, callback: sendUnaryData<Buffer>) =>
        this.heartbeat(call, callback),
      runCommand: (call: Unary<CommandRequest>, callback: sendUnaryData<Buffer>) =>
        this.runCommand(this.arrivalOf(call), callback),
      atomic: (call: Unary<AtomicRequest>, callback: sendUnaryData<Buffer>) => this.atomic(call, callback),
      streamCommand: (stream: CommandStream) => this.streamCommand(stream),
    }
  }

  /** Open StreamCommand calls. */
  get openStreams(): number {
    return this.streams.size
  }

  /** Every open stream answers what it has begun, then ends with SHUTTING_DOWN. */
  endStreams(): void {
    const status = Object.assign(new Error(), statusOf(new RoundhouseError('SHUTTING_DOWN', {})))
    for (const window of this.streams) window.finish(status)
  }

  private heartbeat(call: Unary<HeartbeatRequest>, callback: sendUnaryData<Buffer>): void {
    const { request, metadata } = call
    respond(callback, this.connections.memoryOf(call), this.options.onUnexpected, () => {
      if (request.message === null) throw request.error
      const { self, peers, clusterId, wallMs } = request.message
      demandIdentity(this.callerOf(metadata), self?.nodeId ?? '')
      const greeting = {
        clusterId,
        view: readMembers(self, peers),
        wallMs: toSafeInteger(wallMs, 'wall_ms'),
      }
      const answer = this.options.service.heartbeat(greeting)
      return encodeMessage(HeartbeatResponse, {
        clusterId: answer.clusterId,
        peers: answer.view.map(writeMember),
        wallMs: BigInt(answer.wallMs),
      })
    })
  }

  /** The way past grpc-js for the call that is made most. */
  directRunCommand(): DirectMethod<CommandRequest> {
    const { path, requestDeserialize } = clusterNodeMethods.runCommand
    return { path, deserialize: requestDeserialize, serve: (call, answer) => this.runCommand(call, answer) }
  }

  private arrivalOf(call: Unary<CommandRequest>): UnaryArrival<CommandRequest> {
    return {
      request: call.request,
      caller: this.callerOf(call.metadata),
      memory: this.connections.memoryOf(call),
      deadlineMs: Number(call.getDeadline()),
      get isCancelled() {
        return call.cancelled
      },
      onCancelled: run => void call.once('cancelled', run),
    }
  }

  private runCommand(arrival: UnaryArrival<CommandRequest>, answer: Answer): void {
    const { service, onUnexpected, isKeyed } = this.options
    const { memory, caller } = arrival
    const { message, error } = arrival.request
    if (message === null) {
      fail(answer, memory, error, onUnexpected)
      return
    }
    const run = () => {
      let call: UnaryCall | null = null
      respond(answer, memory, onUnexpected, () => {
        if (message.transfer !== undefined) throw misplacedTransfer()
        const requested = readRequest(message, isKeyed)
        demandForwarder(caller, requested)
        call = new UnaryCall(requested, this.timeoutMs(arrival.deadlineMs), arrival)
        return service.execute(call).then(result => {
          call!.isAnswered = true
          return encodeResponse(result, message.id)
        })
      })
    }
    memory.admit(this.timeoutMs(arrival.deadlineMs), run, refusal =>
      fail(answer, memory, refusal, onUnexpected),
    )
  }

  private atomic(grpcCall: Unary<AtomicRequest>, callback: sendUnaryData<Buffer>): void {
    const { service, onUnexpected, isKeyed } = this.options
    const { message, error } = grpcCall.request
    const memory = this.connections.memoryOf(grpcCall)
    if (message === null) {
      fail(callback, memory, error, onUnexpected)
      return
    }
    const timeoutMs = this.timeoutMs(Number(grpcCall.getDeadline()))
    const run = () =>
      respond(callback, memory, onUnexpected, async () => {
        const requested = await readAtomic(message, service, isKeyed)
        const call = { ...requested, read: 'linearizable', forward: true, hops: 0, shard: null } as const
        return writeAtomic(await service.execute({ ...call, timeoutMs }))
      })
    memory.admit(timeoutMs, run, refusal => fail(callback, memory, refusal, onUnexpected))
  }

  private streamCommand(stream: CommandStream): void {
    let use: 'commands' | 'bulk' | null = null
    const abort = new AbortController()
    // Each forwarded call of the window listens.
    setMaxListeners(0, abort.signal)
    const order = new CallOrder()
    const caller = this.callerOf(stream.metadata)
    const memory = this.connections.memoryOf(stream)
    const window = new OrderedWindow(stream, windowLimits, memory, ({ message, error }) => {
      if (message === null) return this.inBand(0n, error)
      use ??= message.transfer === undefined ? 'commands' : 'bulk'
      return use === 'bulk'
        ? this.chunk(message, caller)
        : this.command(message, caller, stream, abort.signal, order)
    })
    this.streams.add(window)
    stream.once('cancelled', () => {
      window.abandon()
      abort.abort()
    })
    stream.once('close', () => this.streams.delete(window))
  }

  /** Never rejects. Invoked in request order, and so is `execute`: the node keeps the order of a shard's calls from there. */
  private command(
    message: CommandRequest,
    caller: Caller | null,
    stream: CommandStream,
    signal: AbortSignal,
    order: CallOrder,
  ): Promise<Buffer> | Buffer {
    const { service, isKeyed } = this.options
    try {
      if (message.transfer !== undefined) throw misplacedTransfer()
      const requested = readRequest(message, isKeyed)
      demandForwarder(caller, requested)
      const call: Call = {
        ...requested,
        timeoutMs: this.timeoutMs(Number(stream.getDeadline())),
        signal,
        order,
      }
      return service
        .execute(call)
        .then(result => encodeResponse(result, message.id))
        .catch((error: unknown) => this.inBand(message.id, error))
    } catch (error) {
      return this.inBand(message.id, error)
    }
  }

  private chunk(message: CommandRequest, caller: Caller | null): Promise<Buffer> | Buffer {
    try {
      demandNode(caller, 'read snapshots')
      if (message.transfer === undefined) throw misplacedTransfer()
      return this.options.service
        .readChunk(readTransfer(message.transfer))
        .then(bytes => encodeMessage(CommandResponse, writeChunk(bytes, crc32(bytes))))
        .catch((error: unknown) => this.inBand(message.id, error))
    } catch (error) {
      return this.inBand(message.id, error)
    }
  }

  private inBand(id: bigint, error: unknown): Buffer {
    if (!isExpected(error)) this.options.onUnexpected(error)
    const { text, code, leader } = factsOf(error)
    return encodeMessage(
      CommandResponse,
      writeErrorResponse(id, text, code === '' ? 'INTERNAL' : code, leader),
    )
  }

  /** What is left until the caller's deadline, at most `message_timeout`. */
  private timeoutMs(deadline: number): number {
    const max = this.options.messageTimeoutMs
    return deadline === Number.POSITIVE_INFINITY ? max : Math.max(1, Math.min(max, deadline - Date.now()))
  }
}

/** What only a node that forwards may say: that the call has come a way already, and which part of it this is. */
function demandForwarder(caller: Caller | null, { hops, shard }: RequestedCall): void {
  if (hops > 0 || shard !== null) demandNode(caller, 'forward calls')
}

function misplacedTransfer(): RoundhouseError {
  return new RoundhouseError('INVALID_ARGUMENT', {
    what: 'transfer',
    accepted: 'a stream that moves nothing else, from its first message on',
  })
}

/**
 * A call with its signal made on demand: an AbortController costs a tenth of a whole call, and most end without one
 * having looked. (So copy it field by field: a spread would leave the signal behind.)
 */
class UnaryCall implements Call {
  readonly command: string
  readonly args: Call['args']
  readonly session: Session | null
  readonly read: Call['read']
  readonly forward: boolean
  readonly hops: number
  readonly shard: number | null
  readonly timeoutMs: number
  /** A stream that ends says "cancelled" at the end of every call; after an answer it means nothing. */
  isAnswered = false
  private readonly arrival: UnaryArrival<CommandRequest>
  private controller: AbortController | null = null

  constructor(requested: RequestedCall, timeoutMs: number, arrival: UnaryArrival<CommandRequest>) {
    this.command = requested.command
    this.args = requested.args
    this.session = requested.session
    this.read = requested.read
    this.forward = requested.forward
    this.hops = requested.hops
    this.shard = requested.shard
    this.timeoutMs = timeoutMs
    this.arrival = arrival
  }

  get signal(): AbortSignal {
    if (this.controller === null) {
      const controller = new AbortController()
      // Each part of a call that is scattered over shards listens.
      setMaxListeners(0, controller.signal)
      this.controller = controller
      if (this.arrival.isCancelled) controller.abort()
      else this.arrival.onCancelled(() => this.isAnswered || controller.abort())
    }
    return this.controller.signal
  }
}
