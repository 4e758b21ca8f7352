/**
 * A consumer as people hold it: an async iterable of records, of one partition or of all, that outlives the nodes they come
 * from. A call that breaks off is taken up at another node behind the last record that it brought. It reads on when its
 * consumer does: what waits in memory is a few messages a partition.
 */
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js'
import {
  type ConsumeRequest,
  ConsumeRequest as ConsumeRequestType,
  type ConsumeResponse,
  From,
  type Record as WireRecord,
} from '../gen/log/v1/log.ts'
import { aborted, refused } from './call.ts'
import type { CallError } from './call-error.ts'
import type { Engine } from './engine.ts'
import { brokenOff, type Failure, statusFailure, unreachable } from './failure.ts'
import { type Partitions, type Patience, partitionKey } from './partitions.ts'
import { readRecord, type StreamRecord } from './record.ts'
import type { Decode } from './reply.ts'
import type { Streams } from './streams.ts'

/** The next offset, by partition. */
export type Positions = Readonly<Record<number, number>>

export interface ConsumeOptions {
  /**
   * Where to begin: the first record that is kept (the default), behind the last one, an offset, a time, or the positions of an
   * earlier consumer (a partition that is not among them begins with its first record).
   */
  readonly from?: 'earliest' | 'latest' | number | Date | Positions
  /** true: goes on with what is produced. Else it ends at the end, as it was known to the leaders when they were asked. */
  readonly follow?: boolean
  /** Only this one. */
  readonly partition?: number
  readonly signal?: AbortSignal
}

const name = 'CONSUME'
const limits = {
  /** Calls that one consumer has open. */
  partitionsMax: 512,
  /** Of one message. gRPC reads up to sixteen ahead. */
  messageBytes: 128 * 1024,
  /** A node that says nothing for so long, where there must be something to say, is taken for gone. */
  silenceMs: 15_000,
  /** Between two attempts, at most. */
  pauseMs: 1_000,
} as const

type Start =
  | { readonly kind: 'earliest' }
  | { readonly kind: 'offset'; readonly offset: number }
  | { readonly kind: 'time'; readonly ms: number }

export interface ConsumerOptions<Data> extends Patience {
  readonly engine: Engine
  readonly partitions: Partitions
  readonly streams: Streams
  readonly stream: string
  readonly wish: ConsumeOptions
  readonly decode: Decode<Data>
}

export class Consumer<Data> implements AsyncIterable<StreamRecord<Data>> {
  private readonly options: ConsumerOptions<Data>
  private readonly places: Record<number, number> = {}
  private readers: PartitionReader[] = []
  private began: Promise<void> | null = null
  private isIterated = false
  private isClosed = false
  /** Ends whatever is waited for. */
  private wake: () => void = () => {}
  private readonly onAbort = () => this.stop()

  /** `Client.consume` makes one. */
  constructor(options: ConsumerOptions<Data>) {
    checkWish(options.wish)
    this.options = options
  }

  /**
   * Resolves when it is known where to begin: of one that begins behind the last record, when what is acknowledged from then
   * on is certain to come. Iterating waits for it as well.
   */
  ready(): Promise<void> {
    this.began ??= this.begin()
    return this.began
  }

  /** Behind the records that were given out, by partition: where another consumer goes on. Empty until it is ready. */
  get positions(): Positions {
    return { ...this.places }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StreamRecord<Data>, void, void> {
    if (this.isIterated)
      throw new TypeError('a consumer is iterated once; make another one from its positions')
    this.isIterated = true
    try {
      await this.ready()
      const { decode } = this.options
      while (!this.isClosed) {
        let isBusy = false
        for (const reader of this.readers) {
          const records = reader.take()
          if (records === null) continue
          isBusy = true
          for (const record of records) {
            this.check()
            if (this.isClosed) return
            this.places[reader.partition] = Number(record.offset) + 1
            yield readRecord(record, reader.partition, decode)
          }
        }
        this.check()
        if (isBusy) continue
        if (this.readers.every(reader => reader.isDone)) return
        await this.until(limits.silenceMs / 3)
      }
    } finally {
      this.close()
    }
  }

  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.stop()
    this.options.signal?.removeEventListener('abort', this.onAbort)
    this.options.engine.unwatch(this)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  private stop(): void {
    for (const reader of this.readers) reader.close()
    this.wake()
  }

  private async begin(): Promise<void> {
    const { engine, partitions, stream, wish, signal, ...options } = this.options
    if (this.isClosed || !engine.watching(this)) throw refused(name, 'CLOSED', 'the client is closed')
    signal?.addEventListener('abort', this.onAbort)
    const patience = { timeoutMs: options.timeoutMs, signal }
    const starts = new Map<number, Start>()
    const count = wish.partition === undefined ? await partitions.ask(stream, patience) : null
    if (count !== null && count > limits.partitionsMax) {
      const text = `${stream} has ${count} partitions, and ${limits.partitionsMax} are consumed at one time: name one`
      throw refused(name, 'INVALID_ARGUMENT', text)
    }
    const all = count === null ? [wish.partition!] : Array.from({ length: count }, (_, i) => i)
    const streamId = wish.from === 'latest' ? await this.findEnds(all, starts) : 0n
    if (wish.from !== 'latest') for (const each of all) starts.set(each, startOf(wish.from, each))
    this.check()
    if (this.isClosed) return
    this.readers = all.map(partition => {
      const start = starts.get(partition)!
      if (start.kind === 'offset') this.places[partition] = start.offset
      return new PartitionReader({
        ...{ engine, stream, partition, start, streamId, timeoutMs: options.timeoutMs },
        isFollowing: wish.follow === true,
        wake: () => this.wake(),
      })
    })
  }

  /**
   * The ends as they are now: a call that breaks off before anything came must not begin at a later one. Answers the id of the
   * stream.
   */
  private async findEnds(all: readonly number[], starts: Map<number, Start>): Promise<bigint> {
    const { stream, streams, timeoutMs } = this.options
    const deadlineMs = performance.now() + timeoutMs
    let known = 0
    for (;;) {
      const { id, parts } = await streams.describe(stream)
      // Ends of one that was made anew meanwhile are no places in the one before.
      if (id !== known) starts.clear()
      known = id
      for (const { partition, end } of parts)
        if (end !== null && !starts.has(partition)) starts.set(partition, { kind: 'offset', offset: end })
      const missing = all.find(each => !starts.has(each))
      if (missing === undefined) return BigInt(id)
      const found = parts.find(({ partition }) => partition === missing)
      if (found === undefined)
        throw refused(
          name,
          'NO_SUCH_PARTITION',
          `${stream} has ${parts.length} partitions, there is no ${missing}`,
        )
      if (performance.now() >= deadlineMs)
        throw refused(name, 'DEADLINE', `the end of ${stream}/${missing} is not known: ${found.error}`)
      await this.until(limits.pauseMs / 10)
      this.check()
    }
  }

  /** Throws CallError: it is aborted, or one of the readers has failed for good. */
  private check(): void {
    const { signal } = this.options
    if (signal?.aborted) throw aborted(name, signal)
    for (const { error } of this.readers) if (error !== null) throw error
  }

  /** Until something happens, or so long. */
  private until(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

interface ReaderOptions {
  readonly engine: Engine
  readonly stream: string
  readonly partition: number
  readonly start: Start
  /** Of the stream that `start` is a place in; 0: it is not known. */
  readonly streamId: bigint
  readonly isFollowing: boolean
  /** How long a node is looked for. */
  readonly timeoutMs: number
  readonly wake: () => void
}

/** One partition: one call at a time, to one node after another. */
class PartitionReader {
  readonly partition: number
  /** It is at its end, and does not follow. */
  isDone = false
  error: CallError | null = null
  private readonly options: ReaderOptions
  private next: Start
  private call: ClientReadableStream<ConsumeResponse> | null = null
  private isBegun = false
  private isClosed = false
  /** Ends the attempt or the pause. */
  private end: (failure: Failure | null) => void = () => {}
  /** Since when it waits for the node; 0: it does not. */
  private waitsSinceMs = 0
  /** When a node was last seen to do well. */
  private wellMs = performance.now()
  /** Whose offsets these are; 0: of whichever has the name. */
  private streamId: bigint

  constructor(options: ReaderOptions) {
    this.options = options
    this.partition = options.partition
    this.next = options.start
    this.streamId = options.streamId
  }

  /** What has come, and is dealt with from now on; null: nothing. It begins with the first question. */
  take(): readonly WireRecord[] | null {
    if (!this.isBegun) {
      this.isBegun = true
      void this.run()
    }
    const message = this.call?.read() as ConsumeResponse | null | undefined
    const now = performance.now()
    if (message === null || message === undefined) {
      if (this.waitsSinceMs === 0) this.waitsSinceMs = now
      // One that follows may have nothing to wait for; that its node is gone the connection finds out.
      const isSilent = !this.options.isFollowing && now - this.waitsSinceMs > limits.silenceMs
      if (isSilent && this.call !== null) this.end(brokenOff('the node', 'it fell silent'))
      return null
    }
    this.waitsSinceMs = 0
    this.wellMs = now
    const last = message.records.at(-1)
    if (last !== undefined) {
      this.next = { kind: 'offset', offset: Number(last.offset) + 1 }
      this.streamId = message.streamId
    }
    return message.records
  }

  close(): void {
    this.isClosed = true
    this.end(brokenOff('the node', 'the consumer was closed'))
  }

  /** Never rejects. */
  private async run(): Promise<void> {
    const { engine, stream, partition, isFollowing, timeoutMs, wake } = this.options
    const key = partitionKey(stream, partition)
    let address: string | null = null
    let isWell = false
    for (let attempt = 0; !this.isClosed; attempt++) {
      const link = await engine.nodeFor(key, address)
      if (this.isClosed) return
      let failure: Failure | null = unreachable('any node', 'no connection')
      if (link !== null) {
        const beganMs = performance.now()
        address = link.address
        failure = await this.attempt(link.log.consumeStream(this.request()), link.address)
        if (this.isClosed) return
        if (failure === null) {
          this.isDone = true
          wake()
          return
        }
        if (!failure.isHeard) link.suspect()
        if (this.wellMs > beganMs || performance.now() - beganMs > limits.pauseMs) {
          isWell = true
          attempt = 0
        }
      }
      const isLate = performance.now() - this.wellMs >= timeoutMs
      if (failure.retry === 'never' || (isLate && !(isFollowing && isWell))) {
        this.error = refused(name, failure.code, failure.text)
        wake()
        return
      }
      await this.pause(Math.min(limits.pauseMs, 10 * 2 ** Math.min(attempt, 10)))
    }
  }

  /** Resolves with why it is over; null: there is no more. */
  private async attempt(
    call: ClientReadableStream<ConsumeResponse>,
    address: string,
  ): Promise<Failure | null> {
    const { wake } = this.options
    this.waitsSinceMs = 0
    this.call = call
    try {
      return await new Promise<Failure | null>(resolve => {
        this.end = resolve
        call.on('readable', wake)
        call.on('error', (error: ServiceError) => resolve(statusFailure(error, address)))
        call.on('end', () => resolve(null))
        wake()
      })
    } finally {
      // What was not taken from it comes again.
      this.call = null
      this.end = () => {}
      // Never from within a callback of the connection, see Lane.
      setImmediate(() => call.cancel())
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      this.end = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  private request(): ConsumeRequest {
    const { stream, partition, isFollowing } = this.options
    const { next, streamId } = this
    return ConsumeRequestType.fromPartial({
      ...{ stream, streamId, partition, batches: true, maxBytes: limits.messageBytes },
      // Who wants all there is gets what was acknowledged before he asked; who follows gets it when it comes.
      linearizable: !isFollowing,
      ...(isFollowing ? {} : { idleMs: 0 }),
      ...(next.kind === 'offset'
        ? { offset: BigInt(next.offset) }
        : next.kind === 'time'
          ? { from: From.TIMESTAMP, timestampMs: BigInt(next.ms) }
          : { from: From.EARLIEST }),
    })
  }
}

const isOffset = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0

function checkWish({ from, partition }: ConsumeOptions): void {
  if (partition !== undefined && !isOffset(partition))
    throw new TypeError(`partition: an integer from 0 up is accepted, not ${String(partition)}`)
  const isRight =
    from === undefined ||
    from === 'earliest' ||
    from === 'latest' ||
    isOffset(from) ||
    (from instanceof Date
      ? !Number.isNaN(from.getTime()) && from.getTime() >= 0
      : typeof from === 'object' && from !== null && Object.values(from).every(isOffset))
  if (!isRight)
    throw new TypeError(
      `from: earliest, latest, an offset, a Date or a consumer's positions are accepted, not ${JSON.stringify(from)}`,
    )
}

function startOf(from: ConsumeOptions['from'], partition: number): Start {
  if (typeof from === 'number') return { kind: 'offset', offset: from }
  if (from instanceof Date) return { kind: 'time', ms: from.getTime() }
  const offset = typeof from === 'object' ? from[partition] : undefined
  return offset === undefined ? { kind: 'earliest' } : { kind: 'offset', offset }
}
