/**
 * log.v1.Log: records by stream and partition, on the wire of the seeds. Without a stream it is `default`, without more
 * than an offset it is partition 0.
 */
import { setMaxListeners } from 'node:events'
import type {
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import {
  ConsumeRequest,
  From,
  GetServersRequest,
  GetServersResponse,
  LogService,
} from '../../gen/log/v1/log.ts'
import { fromUtf8, toUtf8 } from '../../lib/bytes.ts'
import { CallOrder } from '../../node/call-order.ts'
import { defaultStream } from '../../node/meta-streams.ts'
import {
  type Batch,
  type PartitionPlace,
  plainCall,
  type Session,
  type StreamService,
} from '../../node/ports.ts'
import { callLimits } from '../../peer/call-codec.ts'
import { encodeMessage, toSafeInteger } from '../../peer/proto-io.ts'
import { isExpected, statusOf } from '../../peer/status.ts'
import type { Connections } from './connections.ts'
import { Consumer, type Position, startOf } from './consumer.ts'
import {
  type ArrivedBatch,
  encodeBatchResponse,
  encodeProduced,
  encodeRecordResponse,
  produceRequestType,
} from './log-codec.ts'
import { type Arrived, fail, rawMethod, respond } from './method.ts'
import { type GrpcServerOptions, grpcLimits } from './options.ts'
import { OrderedWindow } from './ordered-window.ts'

export const logMethods = {
  produce: rawMethod(LogService.produce, produceRequestType),
  consume: rawMethod(LogService.consume, ConsumeRequest),
  consumeStream: rawMethod(LogService.consumeStream, ConsumeRequest),
  produceStream: rawMethod(LogService.produceStream, produceRequestType),
  getServers: rawMethod(LogService.getServers, GetServersRequest),
}

export const logLimits = {
  /** Of one read and one response, where a consumer does not say; and the most that he may: clients take 4 MiB by default. */
  readBytes: 512 * 1024,
  readBytesMax: 3 * 1024 * 1024,
  /** ConsumeStream calls of this node. */
  consumersMax: 10_000,
} as const

/** An answer is two small numbers: a producer need not wait to find that out. */
const windowLimits = {
  requestsMax: grpcLimits.windowRequestsMax,
  bytesMax: grpcLimits.windowBytesMax,
  answerBytes: 64,
}

type Unary<Message> = ServerUnaryCall<Arrived<Message>, Buffer>
type ProduceStream = ServerDuplexStream<Arrived<ArrivedBatch>, Buffer>
type ConsumeStream = ServerWritableStream<Arrived<ConsumeRequest>, Buffer>

export class LogHandlers {
  private readonly options: GrpcServerOptions
  private readonly connections: Connections
  private readonly streams: StreamService
  private readonly producers = new Set<OrderedWindow<Arrived<ArrivedBatch>>>()
  private readonly consumers = new Set<Consumer>()

  constructor(options: GrpcServerOptions, connections: Connections) {
    this.options = options
    this.connections = connections
    this.streams = options.service.streams
  }

  handlers(): UntypedServiceImplementation {
    return {
      produce: this.unary<ArrivedBatch>((message, call) =>
        this.streams.produce(this.batchOf(message, call, signalOf(call))).then(encodeProduced),
      ),
      consume: this.unary<ConsumeRequest>((message, call) => this.consume(message, call)),
      consumeStream: (call: ConsumeStream) => void this.consumeStream(call),
      produceStream: (stream: ProduceStream) => this.produceStream(stream),
      getServers: this.unary<GetServersRequest>(async ({ stream, partition }) => {
        // To ask who would lead `default` does not make it.
        const isDefault = (stream === '' || stream === defaultStream) && partition === 0
        if (!isDefault) await this.streams.find(stream, partition)
        return encodeMessage(GetServersResponse, {
          servers: this.streams.servers(stream, partition).map(({ nodeId, clientAddress, isLeader }) => ({
            id: nodeId,
            rpcAddr: clientAddress,
            isLeader,
          })),
        })
      }),
    }
  }

  /** Open ConsumeStream and ProduceStream calls. */
  get openStreams(): number {
    return this.producers.size + this.consumers.size
  }

  /** Producers get the answers of what they have begun; all end with SHUTTING_DOWN. */
  endStreams(): void {
    const status = errorStatus(new RoundhouseError('SHUTTING_DOWN', {}))
    for (const window of this.producers) window.finish(status)
    for (const consumer of this.consumers) consumer.end(status)
  }

  private unary<Message>(answer: (message: Message, call: Unary<Message>) => Promise<Buffer> | Buffer) {
    const { onUnexpected } = this.options
    return (call: Unary<Message>, callback: sendUnaryData<Buffer>): void => {
      const { message, error } = call.request
      const memory = this.connections.memoryOf(call)
      if (message === null) {
        fail(callback, memory, error, onUnexpected)
        return
      }
      const run = () => respond(callback, memory, onUnexpected, () => answer(message, call))
      memory.admit(this.timeoutMs(call), run, refusal => fail(callback, memory, refusal, onUnexpected))
    }
  }

  // --- Producing ----------------------------------------------------------------------------------------------------

  private batchOf(
    message: ArrivedBatch,
    call: { getDeadline(): Date | number },
    signal: AbortSignal,
    order?: CallOrder,
  ): Batch {
    const { stream, partition, records, acks } = message
    if (acks !== 0)
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `acks ${acks}`,
        accepted: '0 (ALL): a record is acknowledged when it is on the disks of a majority',
      })
    const timeoutMs = this.timeoutMs(call)
    const batch = { stream, partition, records, session: readSession(message), timeoutMs, signal }
    return order === undefined ? batch : { ...batch, order }
  }

  private produceStream(stream: ProduceStream): void {
    const abort = new AbortController()
    // Each batch of the window listens.
    setMaxListeners(0, abort.signal)
    const order = new CallOrder()
    let begun = 0
    /** The first batch that failed: what is behind it is not begun, its place would be the wrong one; what is before goes on. */
    let failedAt = Number.POSITIVE_INFINITY
    let isGone = false
    const refuse = (number: number, error: unknown): Error => {
      failedAt = Math.min(failedAt, number)
      if (!isExpected(error)) this.options.onUnexpected(error)
      return errorStatus(error)
    }
    const memory = this.connections.memoryOf(stream)
    const window = new OrderedWindow(stream, windowLimits, memory, ({ message, error }) => {
      const number = begun++
      if (message === null) return refuse(number, error)
      // The call ends with the first error.
      if (failedAt < number) return noAnswer
      const isCalledOff = () => isGone || failedAt < number
      try {
        const batch = { ...this.batchOf(message, stream, abort.signal, order), isCalledOff }
        return this.streams
          .produce(batch)
          .then(encodeProduced)
          .catch(failure => {
            abort.abort()
            return refuse(number, failure)
          })
      } catch (refusal) {
        return refuse(number, refusal)
      }
    })
    this.producers.add(window)
    stream.once('cancelled', () => {
      isGone = true
      window.abandon()
      abort.abort()
    })
    stream.once('close', () => this.producers.delete(window))
  }

  // --- Consuming ----------------------------------------------------------------------------------------------------

  /** One read. The end has no record yet, and saying so is not for a replica that may lag. */
  private async consume(message: ConsumeRequest, call: Unary<ConsumeRequest>): Promise<Buffer> {
    const place = await this.placeOf(message)
    const { streams } = this
    const from = await startOf(streams, place, this.positionOf(message))
    const bytesMax = message.batches ? readBytesOf(message) : 1
    const options = { bytesMax, timeoutMs: this.timeoutMs(call), signal: signalOf(call) }
    const { linearizable: isLinearizable } = message
    let found = await streams.read(place, from, { ...options, isLinearizable })
    if (found.kept.length === 0 && !isLinearizable)
      found = await streams.read(place, from, { ...options, isLinearizable: true })
    const { kept, start, end } = found
    if (kept.length === 0) {
      const what = `${place.stream}/${place.partition}`
      throw new RoundhouseError('OFFSET_OUT_OF_RANGE', { what, offset: from, start, end })
    }
    const around = { ...found, streamId: place.id }
    if (!message.batches) return encodeRecordResponse(kept[0]!, from, around)
    const max = toSafeInteger(message.maxRecords, 'max_records')
    return encodeBatchResponse(max === 0 ? kept : kept.slice(0, max), from, around)
  }

  private placeOf({ stream, partition, streamId }: ConsumeRequest): Promise<PartitionPlace> {
    return this.streams.find(stream, partition, toSafeInteger(streamId, 'stream_id'))
  }

  private async consumeStream(call: ConsumeStream): Promise<void> {
    const { message, error } = call.request
    const end = (cause: unknown) => {
      if (!isExpected(cause)) this.options.onUnexpected(cause)
      call.emit('error', errorStatus(cause))
    }
    if (message === null) {
      end(error)
      return
    }
    const { consumersMax } = logLimits
    if (this.consumers.size >= consumersMax) {
      end(new RoundhouseError('OVERLOADED', { what: 'consumers at this node', max: consumersMax }))
      return
    }
    const abort = new AbortController()
    // grpc-js says so at the end of every call, too.
    call.once('cancelled', () => abort.abort())
    let consumer: Consumer | null = null
    call.once('close', () => {
      if (consumer !== null) this.consumers.delete(consumer)
    })
    try {
      const made = new Consumer({
        stream: call,
        streams: this.streams,
        memory: this.connections.memoryOf(call),
        signal: abort.signal,
        find: () => this.placeOf(message),
        position: this.positionOf(message),
        bytesMax: readBytesOf(message),
        recordsMax: toSafeInteger(message.maxRecords, 'max_records') || Number.POSITIVE_INFINITY,
        idleMs: message.idleMs ?? null,
        isLinearizable: message.linearizable,
        isBatched: message.batches,
        timeoutMs: this.options.messageTimeoutMs,
      })
      consumer = made
      this.consumers.add(made)
      await made.run()
    } catch (cause) {
      if (!abort.signal.aborted) end(cause)
    }
    if (consumer !== null) this.consumers.delete(consumer)
  }

  /** A group says where to begin where the request does not. Throws INVALID_ARGUMENT. */
  private positionOf(message: ConsumeRequest): Position {
    const { group, from, offset } = message
    if (group === '' || from !== From.OFFSET || offset !== 0n) return positionOf(message)
    const { service, messageTimeoutMs } = this.options
    return {
      kind: 'committed',
      offsetOf: async ({ id, partition }) => {
        const args = [fromUtf8(group), fromUtf8(String(id))]
        const { reply } = await service.execute(plainCall('GROUP.OFFSETS', args, messageTimeoutMs))
        if (reply.kind !== 'list') return null
        const found = reply.items.find(({ key }) => toUtf8(key!) === `${id} ${partition}`)
        return found === undefined ? null : Number(toUtf8(found.value!))
      },
    }
  }

  /** What is left until the caller's deadline, at most `message_timeout`. */
  private timeoutMs(call: { getDeadline(): Date | number }): number {
    const deadline = Number(call.getDeadline())
    const max = this.options.messageTimeoutMs
    return deadline === Number.POSITIVE_INFINITY ? max : Math.max(1, Math.min(max, deadline - Date.now()))
  }
}

/** Stands behind an error in a window, where nothing is sent any more. */
const noAnswer = Buffer.alloc(0)

function readSession({ session: id, sequence, ackedBelow }: ArrivedBatch): Session | null {
  if (id.length === 0) return null
  const { sessionBytes } = callLimits
  const refuse = (what: string, accepted: string): never => {
    throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted })
  }
  if (id.length !== sessionBytes) refuse(`session of ${id.length} bytes`, `${sessionBytes} bytes`)
  if (sequence === 0n) refuse('sequence 0', 'an integer from 1 up')
  return {
    id,
    sequence: toSafeInteger(sequence, 'sequence'),
    ackedBelow: toSafeInteger(ackedBelow, 'acked_below'),
  }
}

function positionOf({ from, offset, timestampMs }: ConsumeRequest): Position {
  switch (from) {
    case From.OFFSET:
      return { kind: 'offset', offset: toSafeInteger(offset, 'offset') }
    case From.EARLIEST:
      return { kind: 'earliest' }
    case From.LATEST:
      return { kind: 'latest' }
    case From.TIMESTAMP:
      return { kind: 'time', timestampMs: toSafeInteger(timestampMs, 'timestamp_ms') }
    default:
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `from ${from}`,
        accepted: '0 (OFFSET), 1 (EARLIEST), 2 (LATEST) or 3 (TIMESTAMP)',
      })
  }
}

function readBytesOf({ maxBytes }: ConsumeRequest): number {
  return maxBytes === 0 ? logLimits.readBytes : Math.min(maxBytes, logLimits.readBytesMax)
}

function errorStatus(error: unknown): Error {
  return Object.assign(new Error(), statusOf(error))
}

/** Made when somebody asks: an AbortController costs a tenth of a whole call. */
function signalOf(call: Unary<unknown>): AbortSignal {
  const controller = new AbortController()
  if (call.cancelled) controller.abort()
  else call.once('cancelled', () => controller.abort())
  return controller.signal
}
