import type { ServiceError } from '@grpc/grpc-js'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import { ConsumeRequest as ConsumeRequestType, type ConsumeResponse, type Record } from '../gen/log/v1/log.ts'
import type { Nodes } from './connection.ts'
import { gathered } from './gathered.ts'
import { isPassing } from './group-consumer.ts'
import { errorOf } from './remote-error.ts'
import { pause } from './shell.ts'
import type { StreamRanges } from './stream-ranges.ts'

/**
 * One partition of a mirror: reads at the source from where the copy ends, and appends what comes at the same offsets.
 *
 * Exactly once, without a memory of its own: the copy's end is the position, and an append elsewhere than there is refused.
 * So a mirror that was killed, an answer that was lost, and two mirrors at once all come to the same. What is behind the
 * position is trusted after a look at its last record, which must be the source's: else somebody else writes here.
 */
export interface PartitionWish {
  readonly stream: string
  /** At the source; 0: a plain log. */
  readonly streamId: bigint
  readonly partition: number
  /** Ends when the copy has what the source has. */
  readonly once: boolean
  /** Records that the source does not have any more: let those of the copy go, and begin after the gap. */
  readonly skipGaps: boolean
  /** The source knows of no streams: a log of the systems that Roundhouse replaces, with its fields alone. */
  readonly isPlainLog: boolean
}

export interface PartitionProgress {
  /** Records copied by this run. */
  copied: number
  bytes: number
  /** The copy's end. */
  next: number
  /** The source's end, as far as it has said; the same as `next` where it does not say. */
  end: number
  skipped: number
}

/** Of its stream, shared by all its partitions. */
export interface RangesOfBoth {
  readonly source: StreamRanges
  readonly target: StreamRanges
}

/** Of one append; Streams.Copy takes no more than 5,000 and 7 MiB. */
const recordsMax = 5_000
const appendBytesMax = 4 * 2 ** 20
/** What may have come while an append is under way; then the source waits. */
const gatheredBytesMax = 2 * 2 ** 20
/** Of one answer of the source. */
const readBytes = 1024 * 1024
/** After what may pass. */
const retryMs = 500
/** A plain log does not say where it ends: when nothing came for so long, it has ended. */
const quietMs = 1_000

export const remadeText =
  'it was deleted and made anew at the source: delete it here, too, and start the mirror again'

export class PartitionMirror {
  readonly progress: PartitionProgress = { copied: 0, bytes: 0, next: 0, end: 0, skipped: 0 }
  private readonly wish: PartitionWish
  private readonly source: Nodes
  private readonly target: Nodes
  private readonly ranges: RangesOfBoth
  private readonly signal: AbortSignal

  constructor(wish: PartitionWish, source: Nodes, target: Nodes, ranges: RangesOfBoth, signal: AbortSignal) {
    this.wish = wish
    this.ranges = ranges
    this.source = source
    this.target = target
    this.signal = signal
  }

  private get name(): string {
    return `${this.wish.stream}/${this.wish.partition}`
  }

  /** Resolves when it is to end, and with `once` when all is copied. */
  async run(): Promise<void> {
    let isTrusted = false
    let wellMs = Date.now()
    let before = 0
    while (!this.signal.aborted) {
      try {
        const range = await this.rangeOf('target')
        this.progress.next = range.end
        if (!isTrusted) await this.compare(range)
        isTrusted = true
        if (await this.follow()) return
      } catch (error) {
        if (this.signal.aborted) return
        // The copy ends elsewhere than we thought: an answer was lost, or another mirror is at work. Or another producer.
        if (isError(error, 'OFFSET_OUT_OF_RANGE') || isRange(error)) isTrusted = false
        else if (error instanceof RemoteError && error.code === 'STREAM_REMADE')
          throw this.refusal(remadeText)
        else if (!isPassing(error)) throw error
        // Who waits for the end hears of a source that is gone; who follows waits for its return.
        if (this.progress.copied > before) wellMs = Date.now()
        before = this.progress.copied
        if (this.wish.once && Date.now() - wellMs > this.source.timeoutMs) throw error
        await pause(retryMs, this.signal)
      }
    }
  }

  private refusal(why: string): RoundhouseError {
    return new RoundhouseError('MIRROR', { partition: this.name, why })
  }

  private noCopy(why: string): RoundhouseError {
    return this.refusal(`what is here is no copy of the source, for ${why}: only mirrors may write to it`)
  }

  private async rangeOf(
    side: 'source' | 'target',
  ): Promise<{ readonly start: number; readonly end: number }> {
    const partitions = await this.ranges[side].all()
    const found = partitions.find(each => each.partition === this.wish.partition)
    if (found === undefined) throw this.refusal(`there is no such partition at ${this[side].address}`)
    if (found.error !== '') throw new RoundhouseError('NOT_READY', { why: found.error })
    return { start: Number(found.startOffset), end: Number(found.endOffset) }
  }

  /** Whether the copy is one, as its last record tells; and where it has a gap before it, leaps that. */
  private async compare(copy: { readonly start: number; readonly end: number }): Promise<void> {
    const { isPlainLog } = this.wish
    const source = isPlainLog ? null : await this.rangeOf('source')
    if (source !== null && source.end < copy.end)
      throw this.noCopy(`it ends at ${copy.end} here, at ${source.end} at the source`)
    if (source !== null && source.start > copy.end) {
      await this.leap(copy, source.start)
      return
    }
    const last = copy.end - 1
    if (last < copy.start || (source !== null && last < source.start)) return
    const theirs = await this.one(this.source, last).catch((error: unknown) => {
      // A plain log does not say what it has: to try again would tell nobody, for ever.
      if (isPlainLog && isRange(error))
        throw this.refusal(
          `the source does not have record ${last}, the last here: it let it go, or is another log`,
        )
      throw error
    })
    const ours = await this.one(this.target, last)
    const isSame =
      Buffer.compare(theirs.value, ours.value) === 0 &&
      (isPlainLog || (theirs.crc !== undefined && theirs.crc === ours.crc))
    if (!isSame) throw this.noCopy(`record ${last} is another one here`)
  }

  private async one(nodes: Nodes, offset: number): Promise<Record> {
    const { stream, partition } = this.wish
    const request = { stream, partition, offset: BigInt(offset), linearizable: true }
    const { record } = await nodes.call('read', (call, { log }) =>
      call(log.consume.bind(log), ConsumeRequestType.fromPartial(request)),
    )
    if (record === undefined) throw new RoundhouseError('NOT_READY', { why: 'it answered no record' })
    return record
  }

  private async leap(copy: { readonly start: number; readonly end: number }, to: number): Promise<void> {
    const { stream, partition, skipGaps } = this.wish
    const isEmpty = copy.start === copy.end
    // A copy that never had anything misses nothing that it could have had.
    if (!(isEmpty && copy.end === 0) && !skipGaps)
      throw this.refusal(
        `the source let records ${copy.end} to ${to - 1} go before they were copied; --skip-gaps lets what is here go, too, and begins after them`,
      )
    if (!isEmpty)
      await this.target.call('write', (call, { streams }) =>
        call(streams.truncate.bind(streams), { name: stream, partition, beforeOffset: BigInt(copy.end) }),
      )
    this.progress.skipped += to - copy.end
    this.progress.next = to
  }

  /** True: the copy has all that there is, and that is enough. */
  private async follow(): Promise<boolean> {
    const { once, isPlainLog, stream, streamId, partition } = this.wish
    const { progress } = this
    const { log, address } = await this.source.call('read', async (_, connection) => connection)
    const call = log.consumeStream(
      ConsumeRequestType.fromPartial({
        ...{ stream, streamId, partition },
        offset: BigInt(progress.next),
        maxBytes: readBytes,
        batches: true,
        linearizable: once,
        ...(once ? { idleMs: 0 } : {}),
      }),
    )
    const cancel = () => void setImmediate(() => call.cancel())
    this.signal.addEventListener('abort', cancel, { once: true })
    let isQuiet = false
    const end = () => {
      isQuiet = true
      cancel()
    }
    const isEndless = once && isPlainLog
    let quiet = isEndless ? setTimeout(end, quietMs) : undefined
    try {
      for await (const responses of gathered(call, bytesOfResponse, gatheredBytesMax)) {
        // It is the source that may fall silent, not the copy.
        clearTimeout(quiet)
        const came = responses.flatMap(({ record, records }) => (record === undefined ? records : [record]))
        const told = responses.map(({ endOffset }) => Number(endOffset))
        progress.end = Math.max(progress.end, ...told, progress.next + came.length)
        for (const some of inAppends(came)) await this.append(some)
        if (this.signal.aborted) return true
        if (isEndless) quiet = setTimeout(end, quietMs)
      }
      return once
    } catch (error) {
      if (isQuiet) return true
      if (this.signal.aborted) return true
      throw 'code' in (error as object) && 'metadata' in (error as object)
        ? errorOf(error as ServiceError, address, this.source.timeoutMs)
        : error
    } finally {
      clearTimeout(quiet)
      this.signal.removeEventListener('abort', cancel)
      cancel()
    }
  }

  private async append(records: readonly Record[]): Promise<void> {
    const { stream, partition } = this.wish
    const { progress } = this
    for (const [i, { offset }] of records.entries())
      if (Number(offset) !== progress.next + i)
        throw this.refusal(`the source sends record ${offset} where ${progress.next + i} is due`)
    const nowMs = BigInt(Date.now())
    // A plain log notes no times: when they were copied is the nearest there is.
    const timed = records.map(each => (each.timestampMs === 0n ? { ...each, timestampMs: nowMs } : each))
    const request = { name: stream, partition, offset: BigInt(progress.next), records: timed }
    const { endOffset } = await this.target.call('write', (call, { streams }) =>
      call(streams.copy.bind(streams), request),
    )
    progress.next = Number(endOffset)
    progress.copied += records.length
    for (const { value } of records) progress.bytes += value.byteLength
  }
}

function isRange(error: unknown): boolean {
  return error instanceof RemoteError && error.code === 'OFFSET_OUT_OF_RANGE'
}

/** Of memory and of the wire, about. */
function bytesOf({ value, key, headers }: Record): number {
  const ofHeaders = headers.reduce((sum, each) => sum + 16 + each.name.length + each.value.byteLength, 0)
  return 64 + value.byteLength + (key?.byteLength ?? 0) + ofHeaders
}

function bytesOfResponse({ record, records }: ConsumeResponse): number {
  return (record === undefined ? records : [record]).reduce((sum, each) => sum + bytesOf(each), 0)
}

/** In their order, as many together as one append takes. */
function* inAppends(records: readonly Record[]): Generator<readonly Record[]> {
  let from = 0
  let bytes = 0
  for (const [i, record] of records.entries()) {
    const more = bytesOf(record)
    if (i > from && (i - from >= recordsMax || bytes + more > appendBytesMax)) {
      yield records.slice(from, i)
      from = i
      bytes = 0
    }
    bytes += more
  }
  if (from < records.length) yield records.slice(from)
}
