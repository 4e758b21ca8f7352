/**
 * A watch as people hold it: an async iterable of changes that outlives the nodes it comes from. A call that breaks off is
 * taken up at another node from the cursor, so nothing is missed and nothing comes twice; only what no node keeps any
 * more ends it, with CompactedError. It reads on when its consumer does.
 *
 * The cursor of that error is in the last message of the call, before the status. grpc-js hands out an error status at
 * once and drops the messages that nobody had room for yet, the last one among them for a consumer that is slow. Then the
 * cursor is that of a watch begun anew: whoever is told reads all keys again, after that one was there.
 */
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js'
import { WatchRequest, type WatchResponse } from '../gen/roundhouse/v1/watch.ts'
import { parseCursor, type WatchCursor } from '../lib/watch-cursor.ts'
import { aborted, refused } from './call.ts'
import { CallError } from './call-error.ts'
import type { Engine } from './engine.ts'
import { brokenOff, type Failure, statusFailure, unreachable } from './failure.ts'
import type { NodeLink } from './node-link.ts'
import type { Decode } from './reply.ts'
import type { Input } from './table.ts'
import { type ChangeKind, compactedText, type ReceivedChange, WatchState } from './watch-state.ts'

export interface WatchOptions {
  /**
   * Where to begin: the cursor of an earlier watch, as an object or a text; of a key also a revision that a reply told. By
   * default after all that was acknowledged before the watch is ready.
   */
  readonly from?: WatchCursor | string | number
  /** false: changes come without values, which spares the network. */
  readonly values?: boolean
  readonly signal?: AbortSignal
}

/** One key, or all keys that begin so (with an empty prefix, all). */
export type WatchTarget =
  | { readonly key: Input; readonly prefix?: never }
  | { readonly prefix: Input; readonly key?: never }

export interface WatchEvent<Data> {
  /** expire: its time was over. */
  readonly kind: ChangeKind
  readonly key: Data
  /** Of what the key holds now, or held: string, hash, list, set or zset. */
  readonly type: string
  /** What a string was set to; null where there is none, it is over 64 KiB, or the node had to let it go. */
  readonly value: Data | null
  /** Of the key after this change. Changes of one entry (MSET, an atomic batch) have the same one. */
  readonly revision: number
  /** Within the entry, from 0. */
  readonly number: number
  readonly shard: number
  /** By the shard's clock, ms since 1970. */
  readonly timestampMs: number
}

/** What came after the cursor is not kept any more: read the keys again, and watch on from `cursor`. */
export class CompactedError extends CallError {
  readonly cursor: WatchCursor

  constructor(message: string, cursor: WatchCursor) {
    super({ code: 'COMPACTED', message, outcome: 'refused', command: 'WATCH' })
    this.name = 'CompactedError'
    this.cursor = cursor
  }
}

/** Asked of the node; one that says nothing for three times as long is taken for gone. */
const progressMs = 5_000
const silenceMsMax = 3 * progressMs
/** Between two attempts, at most. */
const pauseMsMax = 1_000

export interface WatcherOptions<Data> {
  readonly engine: Engine
  readonly key: Buffer | null
  readonly prefix: Buffer | null
  readonly from: WatchCursor | number | null
  readonly hasValues: boolean
  /** Until the watch is ready for the first time. */
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
  readonly decode: Decode<Data>
}

export class Watcher<Data> implements AsyncIterable<WatchEvent<Data>> {
  private readonly options: WatcherOptions<Data>
  private state: WatchState
  /** What ended it as COMPACTED while the message with the cursor did not come; a watch begun anew tells one. */
  private overtaken: Failure | null = null
  /** A node watched, at least once. */
  private isReady = false
  private places: WatchCursor
  private readonly changes: AsyncGenerator<ReceivedChange | null, void, void>
  private first: Promise<unknown> | null = null
  private isIterated = false
  private isClosed = false
  private isOver = false
  /** Ends whatever is waited for. */
  private wake: () => void = () => {}
  private readonly onAbort = () => this.wake()

  /** `Client.watch` makes one. */
  constructor(options: WatcherOptions<Data>) {
    this.options = options
    this.state = new WatchState(typeof options.from === 'number' ? null : options.from)
    this.places = this.state.cursor
    this.changes = this.receive()
  }

  /**
   * Resolves when a node watches: what is acknowledged from then on will come. Rejects when none does within the client's
   * timeout. Iterating waits for it as well.
   */
  async ready(): Promise<void> {
    this.first ??= this.changes.next()
    await this.first
  }

  /**
   * Where to go on after the events that were given out. Of an entry with several changes all must have been: until then
   * it stands before the entry.
   */
  get cursor(): WatchCursor {
    return this.places
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<WatchEvent<Data>, void, void> {
    if (this.isIterated) throw new TypeError('a watch is iterated once; make another one from its cursor')
    this.isIterated = true
    try {
      await this.ready()
      for (;;) {
        const { value: change, done } = await this.changes.next()
        if (done === true) return
        if (change === null) continue
        const { shard, place, index, key, value, kind, type, number, timestampMs } = change as ReceivedChange
        if (place !== null) this.places = { ...this.places, [shard]: place }
        const { decode } = this.options
        yield {
          ...{ kind, type, number, shard, timestampMs, revision: index },
          key: decode(key),
          value: value === null ? null : decode(value),
        }
      }
    } finally {
      this.close()
    }
  }

  /** The iteration ends with what it was given already. */
  close(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.wake()
    // Where nobody waits in it, nobody would come to its end.
    if (!this.isOver) this.changes.return().catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  /** Changes, from node after node; null: something else was learnt. */
  private async *receive(): AsyncGenerator<ReceivedChange | null, void, void> {
    const { engine, key, timeoutMs, signal } = this.options
    const deadlineMs = performance.now() + timeoutMs
    const isOpen = engine.watching(this)
    if (!isOpen) throw refused('WATCH', 'CLOSED', 'the client is closed')
    signal?.addEventListener('abort', this.onAbort)
    let last: string | null = null
    try {
      for (let attempt = 0; ; attempt++) {
        this.check()
        const link: NodeLink | null = await engine.nodeFor(key, last)
        this.check()
        if (this.isClosed) return
        let failure: Failure = unreachable('any node', 'no connection')
        if (link !== null) {
          last = link.address
          const beganMs = performance.now()
          failure = yield* this.attempt(link)
          this.isReady ||= this.state.isCreated
          if (performance.now() - beganMs > pauseMsMax) attempt = 0
        }
        this.check()
        if (this.isClosed) return
        // Also where the call broke off between the message and its status: from the new cursor on there is a gap.
        if (this.state.isCompacted || failure === this.overtaken) {
          this.places = this.state.cursor
          throw new CompactedError(failure.code === 'COMPACTED' ? failure.text : compactedText, this.places)
        }
        if (failure.code === 'COMPACTED') {
          this.overtaken = failure
          this.state = new WatchState(null)
        } else {
          const isLate = !this.isReady && performance.now() >= deadlineMs
          if (failure.retry === 'never' || isLate) throw refused('WATCH', failure.code, failure.text)
        }
        await this.until(Math.min(pauseMsMax, 10 * 2 ** Math.min(attempt, 10)))
      }
    } finally {
      this.isOver = true
      signal?.removeEventListener('abort', this.onAbort)
      engine.unwatch(this)
    }
  }

  private check(): void {
    const { signal } = this.options
    if (signal?.aborted) throw aborted('WATCH', signal)
  }

  /** One call to one node; answers why it is over. */
  private async *attempt(link: NodeLink): AsyncGenerator<ReceivedChange | null, Failure, void> {
    const call = link.watch(this.request())
    let error: ServiceError | null = null
    call.on('error', (thrown: ServiceError) => {
      error = thrown
      this.wake()
    })
    call.on('readable', () => this.wake())
    call.on('end', () => this.wake())
    let heardMs = performance.now()
    try {
      for (;;) {
        if (this.isClosed || this.options.signal?.aborted)
          return brokenOff(link.address, 'the watch was closed')
        const message = call.read() as WatchResponse | null
        if (message !== null) {
          heardMs = performance.now()
          const changes = this.state.take(message)
          if (this.overtaken !== null) {
            if (this.state.isCreated) return this.overtaken
            continue
          }
          if (changes.length === 0 && !this.state.isCompacted) {
            // All that came before was given out.
            this.places = this.state.cursor
            yield null
          }
          yield* changes
          // The consumer's time is not the node's.
          heardMs = performance.now()
          continue
        }
        if (error !== null) return statusFailure(error, link.address)
        if (call.readableEnded) return brokenOff(link.address, 'the node ended the watch')
        const leftMs = heardMs + silenceMsMax - performance.now()
        if (leftMs <= 0) {
          link.suspect()
          return brokenOff(link.address, 'it fell silent')
        }
        await this.until(leftMs)
      }
    } finally {
      this.state.broken()
      // Never from within a callback of the connection, see Lane.
      setImmediate(() => call.cancel())
    }
  }

  private request(): WatchRequest {
    const { key, prefix, from, hasValues } = this.options
    const isResumed = this.isReady || this.overtaken !== null || typeof from !== 'number'
    return WatchRequest.fromPartial({
      target:
        key !== null ? { $case: 'key', value: key } : { $case: 'prefix', value: prefix ?? Buffer.alloc(0) },
      ...(isResumed ? { cursor: this.state.asked } : { revision: BigInt(from as number) }),
      values: hasValues,
      progressMs,
    })
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

export type WatchCall = ClientReadableStream<WatchResponse>

/** Throws TypeError. */
export function placeOf(
  from: WatchCursor | string | number | undefined,
  isKey: boolean,
): WatchCursor | number | null {
  if (from === undefined) return null
  const cursor = typeof from === 'string' ? parseCursor(from) : from
  const isIndex = (each: unknown) => Number.isSafeInteger(each) && (each as number) >= 0
  if (
    typeof cursor === 'number'
      ? isKey && isIndex(cursor)
      : cursor !== null && Object.values(cursor).every(isIndex)
  )
    return cursor
  throw new TypeError(
    `from: a watch's cursor is accepted${isKey ? ', or a revision of the key' : ''}, not ${JSON.stringify(from)}`,
  )
}
