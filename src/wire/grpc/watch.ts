/**
 * roundhouse.v1.Watch: one call is one watch. What it holds is bounded by what its client takes: while more than
 * `aheadBytesMax` of what was written has not left, nothing more is read from the rings. So a client that stops reading
 * costs a message or two, and is told that it was overtaken when it reads on: by the status for certain, by the message
 * with the cursor where its library gives out what came before a status. grpc-js drops what nobody took yet: such a client
 * has the cursor of the status, or that of a watch begun anew.
 */
import { setMaxListeners } from 'node:events'
import type { ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js'
import { isError, RoundhouseError } from '../../errors.ts'
import {
  type WatchChange,
  WatchChange_Kind,
  WatchService as WatchContract,
  type WatchCursor,
  WatchRequest,
  WatchResponse,
} from '../../gen/roundhouse/v1/watch.ts'
import { fromLatin1 } from '../../lib/bytes.ts'
import type { OpenWatch, WatchNews, WatchWish } from '../../node/ports.ts'
import { encodeMessage, toSafeInteger } from '../../peer/proto-io.ts'
import { isExpected, statusOf } from '../../peer/status.ts'
import type { CallMemory, Connections } from './connections.ts'
import { type Arrived, rawMethod } from './method.ts'
import type { GrpcServerOptions } from './options.ts'

export const watchMethods = { watch: rawMethod(WatchContract.watch, WatchRequest) }

export const watchWireLimits = {
  /** Of one message, about; an entry that is longer goes in several. */
  messageBytes: 512 * 1024,
  /** Written and not yet sent, of one watch: while one message is on its way, the next is read. */
  aheadBytesMax: 768 * 1024,
  progressMs: 10_000,
  progressMsMin: 100,
  progressMsMax: 600_000,
} as const

/** What a change takes in a message beside its key and value, about. */
const changeBytes = 48
const kinds = {
  set: WatchChange_Kind.SET,
  delete: WatchChange_Kind.DELETE,
  expire: WatchChange_Kind.EXPIRE,
} as const

type Stream = ServerWritableStream<Arrived<WatchRequest>, Buffer>
type Changes = Extract<WatchNews, { readonly kind: 'changes' }>

export class WatchHandlers {
  private readonly options: GrpcServerOptions
  private readonly connections: Connections
  /** Of the calls that are open: ends them with that error. */
  private readonly ends = new Set<(error: unknown) => void>()

  constructor(options: GrpcServerOptions, connections: Connections) {
    this.options = options
    this.connections = connections
  }

  /** All end with SHUTTING_DOWN. */
  endStreams(): void {
    for (const end of [...this.ends]) end(new RoundhouseError('SHUTTING_DOWN', {}))
  }

  handlers(): UntypedServiceImplementation {
    return { watch: (stream: Stream) => void this.watch(stream) }
  }

  private async watch(stream: Stream): Promise<void> {
    const abort = new AbortController()
    // A watch of all shards asks each leader.
    setMaxListeners(0, abort.signal)
    let watch: OpenWatch | null = null
    const over = () => {
      this.ends.delete(end)
      abort.abort()
      watch?.close()
    }
    const end = (cause: unknown) => {
      if (abort.signal.aborted) return
      over()
      if (!isExpected(cause)) this.options.onUnexpected(cause)
      stream.emit('error', Object.assign(new Error(), statusOf(cause)))
    }
    this.ends.add(end)
    // grpc-js says so at the end of every call, too.
    stream.once('cancelled', over)
    try {
      const { message, error } = stream.request
      if (message === null) throw error
      const progressMs = progressOf(message)
      watch = await this.options.service.watches.open({ ...wishOf(message), signal: abort.signal })
      const sending = new Sending(stream, this.connections.memoryOf(stream), abort.signal)
      if (abort.signal.aborted) return
      await new Watching(watch, sending, message.values, progressMs).run()
    } catch (cause) {
      end(cause)
    } finally {
      watch?.close()
    }
  }
}

/** From news to messages, until the call is over. */
class Watching {
  private readonly watch: OpenWatch
  private readonly sending: Sending
  private readonly hasValues: boolean
  private readonly progressMs: number
  /** The cursor as the client knows it. */
  private readonly told = new Map<number, number>()

  constructor(watch: OpenWatch, sending: Sending, hasValues: boolean, progressMs: number) {
    this.watch = watch
    this.sending = sending
    this.hasValues = hasValues
    this.progressMs = progressMs
  }

  /** Throws what the watch ends with. */
  async run(): Promise<void> {
    const { watch, sending } = this
    await sending.write({ $case: 'created', value: this.tell(watch.cursor) })
    let dueMs = performance.now() + this.progressMs
    try {
      while (!sending.isOver) {
        const news = await watch.next(watchWireLimits.messageBytes, Math.max(0, dueMs - performance.now()))
        if (sending.isOver) return
        if (news.kind === 'changes') await this.send(news)
        if (performance.now() < dueMs) continue
        dueMs = performance.now() + this.progressMs
        await sending.write({ $case: 'progress', value: this.tell(watch.cursor) })
      }
    } catch (error) {
      if (isError(error, 'COMPACTED') && !sending.isOver)
        await sending.last({ $case: 'compacted', value: this.tell(watch.cursor, true) })
      throw error
    }
  }

  private async send({ shard, changes, place }: Changes): Promise<void> {
    let part: WatchChange[] = []
    let bytes = 0
    for (const [i, { index, number, kind, key, type, timeMs, value }] of changes.entries()) {
      const isSent = this.hasValues && value !== null
      part.push({
        index: BigInt(index),
        number,
        kind: kinds[kind],
        key: fromLatin1(key) as Buffer,
        type,
        timestampMs: BigInt(timeMs),
        value: isSent ? (value as Buffer) : undefined,
      })
      bytes += changeBytes + key.length + (isSent ? value.byteLength : 0)
      const next = changes[i + 1]
      if (next === undefined || bytes < watchWireLimits.messageBytes) continue
      const isCut = next.index === index
      await this.sending.write({
        $case: 'changes',
        value: { shard, changes: part, place: BigInt(isCut ? index - 1 : index), isCut },
      })
      if (this.sending.isOver) return
      part = []
      bytes = 0
    }
    this.told.set(shard, place)
    await this.sending.write({
      $case: 'changes',
      value: { shard, changes: part, place: BigInt(place), isCut: false },
    })
  }

  /** Places that the client does not know yet, or all of them. */
  private tell(cursor: ReadonlyMap<number, number>, isWhole = false): WatchCursor {
    const places = new Map<number, bigint>()
    for (const [shard, place] of cursor) {
      if (!isWhole && this.told.get(shard) === place) continue
      this.told.set(shard, place)
      places.set(shard, BigInt(place))
    }
    return { places: Object.fromEntries(places) }
  }
}

/** Writes, and waits while the client does not take what was written. */
class Sending {
  private readonly stream: Stream
  private readonly memory: CallMemory
  private readonly signal: AbortSignal
  private unsentBytes = 0
  private isBlocked = false
  private wake: () => void = () => {}

  constructor(stream: Stream, memory: CallMemory, signal: AbortSignal) {
    this.stream = stream
    this.memory = memory
    this.signal = signal
    stream.on('drain', () => {
      this.isBlocked = false
      this.wake()
    })
    signal.addEventListener('abort', () => this.wake(), { once: true })
  }

  get isOver(): boolean {
    return this.signal.aborted
  }

  /** Resolves when it has left: a status that follows would overtake it. */
  async last(news: NonNullable<WatchResponse['news']>): Promise<void> {
    await this.write(news)
    while (!this.isOver && this.unsentBytes > 0) await this.woken()
  }

  async write(news: NonNullable<WatchResponse['news']>): Promise<void> {
    const response = encodeMessage(WatchResponse, { news })
    const bytes = response.byteLength
    this.unsentBytes += bytes
    this.memory.add(bytes)
    const isFree = this.stream.write(response, () => {
      this.unsentBytes -= bytes
      this.memory.add(-bytes)
      this.wake()
    })
    if (!isFree) this.isBlocked = true
    while (!this.isOver && (this.isBlocked || this.unsentBytes >= watchWireLimits.aheadBytesMax))
      await this.woken()
  }

  private woken(): Promise<void> {
    return new Promise(resolve => {
      this.wake = resolve
    })
  }
}

function progressOf({ progressMs }: WatchRequest): number {
  const { progressMs: byDefault, progressMsMin: min, progressMsMax: max } = watchWireLimits
  if (progressMs === 0) return byDefault
  if (progressMs >= min && progressMs <= max) return progressMs
  throw new RoundhouseError('INVALID_ARGUMENT', {
    what: `progress_ms ${progressMs}`,
    accepted: `${min} to ${max}, or 0 for ${byDefault}`,
  })
}

function wishOf({ target, cursor, revision }: WatchRequest): Omit<WatchWish, 'signal'> {
  const places = Object.entries(cursor)
  if (revision !== undefined && places.length > 0)
    throw new RoundhouseError('INVALID_ARGUMENT', { what: 'watch', accepted: 'a cursor or a revision' })
  const from =
    revision !== undefined
      ? toSafeInteger(revision, 'revision')
      : places.length === 0
        ? null
        : new Map(places.map(([shard, place]) => [Number(shard), toSafeInteger(place, 'cursor')]))
  if (target?.$case === 'key') return { key: target.value, prefix: null, from }
  return { key: null, prefix: target?.value ?? null, from }
}
