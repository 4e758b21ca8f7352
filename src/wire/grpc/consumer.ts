/**
 * One ConsumeStream: reads on from an offset, and at the tail waits to be woken. What it holds is bounded by what the
 * consumer takes: while more than `aheadBytesMax` of what was written has not left, or the stream says that it is blocked,
 * nothing is read. So a consumer that stops reading costs one read's worth of memory, and no time.
 */
import type { ServerWritableStream } from '@grpc/grpc-js'
import { isError } from '../../errors.ts'
import type { Bytes } from '../../lib/bytes.ts'
import { isPassing } from '../../node/controller.ts'
import type { PartitionPlace, ReadRecords, StreamService } from '../../node/ports.ts'
import type { CallMemory } from './connections.ts'
import { type Around, encodeBatchResponse, encodeRecordResponse } from './log-codec.ts'

export type Position =
  | { readonly kind: 'offset'; readonly offset: number }
  | { readonly kind: 'earliest' }
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly timestampMs: number }
  /** What a consumer group committed; the beginning where it did not. */
  | { readonly kind: 'committed'; readonly offsetOf: (place: PartitionPlace) => Promise<number | null> }

export async function startOf(
  streams: StreamService,
  place: PartitionPlace,
  position: Position,
): Promise<number> {
  switch (position.kind) {
    case 'offset':
      return position.offset
    case 'earliest':
      return (await streams.rangeOf(place)).start
    case 'latest':
      return (await streams.rangeOf(place)).end
    case 'time':
      return streams.seek(place, position.timestampMs)
    case 'committed': {
      const { start } = await streams.rangeOf(place)
      return Math.max(start, (await position.offsetOf(place)) ?? start)
    }
  }
}

export interface ConsumerOptions {
  readonly stream: ServerWritableStream<unknown, Buffer>
  readonly streams: StreamService
  readonly memory: CallMemory
  /** Aborts when the consumer is gone. */
  readonly signal: AbortSignal
  readonly find: () => Promise<PartitionPlace>
  readonly position: Position
  /** Of one read and one response. */
  readonly bytesMax: number
  readonly recordsMax: number
  /** Ends when nothing came for so long; null: never. */
  readonly idleMs: number | null
  readonly isLinearizable: boolean
  readonly isBatched: boolean
  /** Of one read. */
  readonly timeoutMs: number
}

/** Written and not yet sent, of one consumer: while one response is on its way, the next is read. */
const aheadBytesMax = 768 * 1024
/** How long one wait at the tail is at most; then there is another. */
const waitMsMax = 10 * 60_000
/** A partition that has no leader for this long ends the call. */
const troubleMsMax = 30_000

export class Consumer {
  private readonly options: ConsumerOptions
  private unsentBytes = 0
  private isBlocked = false
  private isOver = false
  private wake: () => void = () => {}
  private sent = 0

  constructor(options: ConsumerOptions) {
    this.options = options
    const goOn = () => {
      this.isBlocked = false
      this.wake()
    }
    options.stream.on('drain', goOn)
    options.signal.addEventListener('abort', () => this.wake(), { once: true })
  }

  /** Resolves when the call is over; rejects with what it shall end with. */
  async run(): Promise<void> {
    const { streams, stream, signal, recordsMax } = this.options
    const place = await this.options.find()
    // What was acknowledged before the call lies before this end: up to there the leader is asked where this node's
    // replica has no more, and only there.
    const promised = this.options.isLinearizable ? (await streams.rangeOf(place)).end : 0
    let offset = await startOf(streams, place, this.options.position)
    let troubleMs = 0
    let isLinearizable = false
    while (!this.hasEnded) {
      let found: ReadRecords
      try {
        const { bytesMax, timeoutMs } = this.options
        found = await streams.read(place, offset, { bytesMax, isLinearizable, timeoutMs, signal })
        troubleMs = 0
        const isBehind: boolean = found.kept.length === 0 && offset < promised && !isLinearizable
        isLinearizable = isBehind
        if (isBehind) continue
      } catch (error) {
        // Retention may have come by since the start was asked for.
        if (isError(error, 'OFFSET_OUT_OF_RANGE') && this.isAtEarliest(offset, error.facts)) {
          offset = error.facts.start
          continue
        }
        // A shard without leader has one soon: whoever follows need not begin again for that.
        troubleMs += this.options.timeoutMs
        if (!isPassing(error) || troubleMs >= troubleMsMax) throw error
        continue
      }
      if (found.kept.length === 0) {
        if (await this.waitAt(place, offset)) continue
        break
      }
      const kept = found.kept.slice(0, recordsMax - this.sent)
      await this.send(kept, offset, { ...found, streamId: place.id })
      offset += kept.length
      this.sent += kept.length
      if (this.sent >= recordsMax) break
    }
    if (this.hasEnded) return
    this.isOver = true
    stream.end()
  }

  /** Ends the call from outside, with `status`. */
  end(status: Error): void {
    if (this.hasEnded) return
    this.isOver = true
    this.wake()
    this.options.stream.emit('error', status)
  }

  private isAtEarliest(offset: number, { start }: { readonly start: number }): boolean {
    const { kind } = this.options.position
    return (kind === 'earliest' || kind === 'committed') && this.sent === 0 && offset < start
  }

  private get hasEnded(): boolean {
    return this.isOver || this.options.signal.aborted
  }

  /** False: it was idle for too long. */
  private async waitAt(place: PartitionPlace, offset: number): Promise<boolean> {
    const { streams, idleMs, signal } = this.options
    if (idleMs === 0) return false
    const isMore = await streams.wait(place, offset, idleMs ?? waitMsMax, signal)
    return isMore || idleMs === null
  }

  private async send(kept: readonly Bytes[], from: number, around: Around): Promise<void> {
    if (this.options.isBatched) {
      await this.write(encodeBatchResponse(kept, from, around))
      return
    }
    for (let i = 0; i < kept.length && !this.hasEnded; i++) {
      const room = this.write(encodeRecordResponse(kept[i]!, from + i, around))
      if (room !== null) await room
    }
  }

  /** null: there is room for more. */
  private write(response: Buffer): Promise<void> | null {
    const { stream, memory } = this.options
    const bytes = response.byteLength
    this.unsentBytes += bytes
    memory.add(bytes)
    const isFree = stream.write(response, () => {
      this.unsentBytes -= bytes
      memory.add(-bytes)
      if (this.unsentBytes < aheadBytesMax) this.wake()
    })
    if (!isFree) this.isBlocked = true
    return this.hasRoom ? null : this.room()
  }

  private get hasRoom(): boolean {
    return !this.isBlocked && this.unsentBytes < aheadBytesMax
  }

  private async room(): Promise<void> {
    while (!this.hasRoom && !this.hasEnded) {
      await new Promise<void>(resolve => {
        this.wake = resolve
      })
    }
  }
}
