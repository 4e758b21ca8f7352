import { RoundhouseError } from '../errors.ts'
import { type Bytes, toUtf8 } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { type Packed, PackedWalk, pack } from '../lib/packed.ts'
import type { Keys } from './keys.ts'
import { recordStamp } from './record.ts'
import {
  endOf,
  numberKey,
  prefixes,
  readNumber,
  readNumberKey,
  readUint32,
  systemRows,
  writeNumber,
  writeUint32,
} from './rows.ts'

/**
 * Partitions of streams: a row each, and a log of records beside the rows (row-store.ts). The row is the truth of where
 * the log starts and ends, on every replica alike.
 *
 * ```
 *  'p' stream id(8) partition(8)  →  start(8) end(8) timestamp ms(8) chain(4) birth(8) routing key
 *  'c' streams                    →  next(8), and below it each id that is not gone(8), rising
 * ```
 *
 * Offsets are dense from 0 and never given twice: `end` never goes back. Timestamps never go back either, so a log
 * finds a time by bisection. The *chain* is a checksum over the checksums of all records ever appended: replicas whose records
 * differ have different rows, which `verify` compares. Everything hangs on the stream's id, which is never used again, so
 * a stream that is made anew under its old name starts empty. *Birth* is the Raft index of the partition's first entry: it
 * names the log.
 *
 * What is gone stays gone: an append that comes late for a stream that was dropped is refused, or its record would be
 * acknowledged and then dropped. The shard keeps which ids are gone, as the catalogue has it: ids are given out one after
 * another and never again, so all below *next* are gone but for those that the row lists. That is exact, and bounded by the
 * streams that there are (`streamsMax` in the catalogue), however many came and went.
 */
export interface PartitionId {
  readonly stream: number
  readonly partition: number
}

export interface Partition {
  readonly start: number
  /** The offset that the next record will get. */
  readonly end: number
  /** Of the last record, ms since 1970; 0 before the first. */
  readonly timestampMs: number
  readonly chain: number
  readonly birth: number
  /** Whose slot it lives in: what a command for it names as its key. */
  readonly key: Bytes
}

/** All streams below `next` but for `alive`. */
export interface GoneStreams {
  readonly next: number
  /** Rising. */
  readonly alive: readonly number[]
}

export interface Records {
  readonly start: number
  readonly end: number
  /** Kept records (record.ts) from the offset that was asked for on. */
  readonly records: readonly Bytes[]
}

const fixedBytes = 36
/** An end must stay a safe integer: this leaves room for as many appends again. Refused here, where every replica does. */
const copyOffsetMax = 2 ** 52

export class Partitions {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  /** null: nothing was ever appended to it here. */
  find(id: PartitionId): Partition | null {
    const bytes = this.keys.rows.get(rowOf(id))
    return bytes === undefined ? null : decodePartition(bytes)
  }

  /** Appends all of `records` (record.ts) and answers the offset of the first. Throws NO_SUCH_STREAM. */
  append(id: PartitionId, key: Bytes, records: readonly Packed[]): number {
    const { term, logNowMs } = this.keys
    const found = this.find(id) ?? this.born(id, key)
    const stamp = recordStamp(logNowMs, term)
    this.keys.rows.records.append(partitionLog(id, found.birth), found.end, records, stamp)
    this.store(id, {
      ...found,
      end: records.reduce((end, { count }) => end + count, found.end),
      timestampMs: logNowMs,
      chain: chained(found.chain, records),
    })
    return found.end
  }

  /**
   * Appends records of another cluster's partition where they lie there, with the times that they have there, and answers
   * the partition's end. What is to lie elsewhere than at the end is refused, so a copy that is made again, or by two at
   * once, is made once. A partition that holds nothing begins where the copy does. Throws OFFSET_OUT_OF_RANGE, NO_SUCH_STREAM.
   */
  copy(
    id: PartitionId,
    key: Bytes,
    at: number,
    timesMs: readonly number[],
    records: readonly Bytes[],
  ): number {
    if (at > copyOffsetMax)
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `offset ${at} of a copy`,
        accepted: `at most ${copyOffsetMax}`,
      })
    const { term, logNowMs, revision, rows } = this.keys
    let found = this.find(id) ?? this.born(id, key)
    if (at !== found.end) {
      if (at < found.end || found.start !== found.end) throw outOfRange(id, at, found.start, found.end)
      // A log has no gap: another one begins at `at`.
      rows.records.drop(partitionLog(id, found.birth))
      found = { ...found, start: at, end: at, birth: revision }
    }
    let { timestampMs } = found
    const log = partitionLog(id, found.birth)
    const packed = records.map(record => pack([record]))
    for (let i = 0; i < records.length; i++) {
      // Times never go back, nor ahead of this shard's clock: a record that comes next here has that one.
      timestampMs = Math.max(timestampMs, Math.min(timesMs[i]!, logNowMs))
      rows.records.append(log, at + i, [packed[i]!], recordStamp(timestampMs, term))
    }
    const end = at + records.length
    this.store(id, { ...found, end, timestampMs, chain: chained(found.chain, packed) })
    return end
  }

  /**
   * Safe: the partition of a stream that is gone has no row (`drop` removes it in the entry that notes the id, and only
   * here one is made), so whoever finds a row need not look. The note is a row too: a snapshot, a restart or another leader
   * brings it along, and it never gives an id back. A repeated append whose first try came before the drop never gets here:
   * its session has the answer.
   */
  private born(id: PartitionId, key: Bytes): Partition {
    if (isGone(this.gone(), id.stream))
      throw new RoundhouseError('NO_SUCH_STREAM', { stream: toUtf8(key).replace(/\/\d+$/, '') })
    return { ...empty, birth: this.keys.revision, key }
  }

  /** Records from `from` on, none at the end. Throws OFFSET_OUT_OF_RANGE, CORRUPT. */
  read(id: PartitionId, from: number, countMax: number, bytesMax: number): Records {
    const { start, end, birth } = this.find(id) ?? empty
    if (from < start || from > end) throw outOfRange(id, from, start, end)
    if (from === end) return { start, end, records: [] }
    const to = Math.min(end, from + countMax)
    const records = this.keys.rows.records.read(partitionLog(id, birth), from, to, bytesMax)
    return { start, end, records }
  }

  /** The first offset whose record is of `timestampMs` or later; the end when there is none. Throws CORRUPT. */
  seek(id: PartitionId, timestampMs: number): number {
    const { start, end, timestampMs: lastMs, birth } = this.find(id) ?? empty
    if (start === end || timestampMs > lastMs) return end
    return this.keys.rows.records.seek(partitionLog(id, birth), timestampMs)
  }

  /** Records before `start` are gone; a start that has passed already changes nothing. Throws OFFSET_OUT_OF_RANGE. */
  trim(id: PartitionId, start: number): number {
    const found = this.find(id) ?? empty
    if (start > found.end) throw outOfRange(id, start, found.start, found.end)
    if (start <= found.start) return found.start
    this.keys.rows.records.trim(partitionLog(id, found.birth), start)
    this.store(id, { ...found, start })
    return start
  }

  /**
   * All streams below `next` are gone but for `alive`, as somebody has read in the catalogue, who may have looked before
   * others did: what is gone by either is gone. Their partitions here go with all records; answers how many went.
   */
  drop(next: number, alive: readonly number[]): number {
    const known = this.gone()
    const told = { next, alive }
    const [longer, shorter] = known.next > next ? [known, told] : [told, known]
    const both = longer.alive.filter(id => id < longer.next && !isGone(shorter, id)).sort((a, b) => a - b)
    const merged = { next: longer.next, alive: [...new Set(both)] }
    if (merged.next === known.next && merged.alive.length === known.alive.length) return 0
    this.keys.rows.put(systemRows.streams, encodeGone(merged))
    const dropped = [...this.all()].filter(({ stream }) => isGone(merged, stream))
    for (const each of dropped) {
      this.keys.rows.records.drop(partitionLog(each, each.birth))
      this.keys.rows.delete(rowOf(each))
    }
    return dropped.length
  }

  /** Which streams this shard knows to be gone. */
  gone(): GoneStreams {
    const bytes = this.keys.rows.get(systemRows.streams)
    return bytes === undefined ? { next: 1, alive: [] } : decodeGone(bytes)
  }

  /** About what it takes on this node's disk. */
  bytesOf(id: PartitionId): number {
    const found = this.find(id)
    return found === null ? 0 : this.keys.rows.records.bytesOf(partitionLog(id, found.birth))
  }

  /**
   * Where retention would cut on this node: whole files beyond `bytesMax`, and records before `expiredBeforeMs`. null: not
   * asked for.
   */
  cutFor(id: PartitionId, bytesMax: number | null, expiredBeforeMs: number | null): number {
    const found = this.find(id)
    if (found === null) return 0
    const { start, birth } = found
    const { records } = this.keys.rows
    const byBytes = bytesMax === null ? start : records.cutFor(partitionLog(id, birth), bytesMax)
    const byAge = expiredBeforeMs === null ? start : this.seek(id, expiredBeforeMs)
    return Math.max(start, byBytes, byAge)
  }

  /** All partitions of this shard, in the order of their ids. */
  *all(): Generator<PartitionId & Partition> {
    for (const [row, bytes] of this.keys.rows.range(prefixes.partition, endOf(prefixes.partition)))
      yield { ...partitionIdOf(row), ...decodePartition(bytes) }
  }

  private store(id: PartitionId, partition: Partition): void {
    const { start, end, timestampMs, chain, birth, key } = partition
    const bytes = new Uint8Array(fixedBytes + key.byteLength)
    writeNumber(bytes, 0, start)
    writeNumber(bytes, 8, end)
    writeNumber(bytes, 16, timestampMs)
    writeUint32(bytes, 24, chain)
    writeNumber(bytes, 28, birth)
    bytes.set(key, fixedBytes)
    this.keys.rows.put(rowOf(id), bytes)
  }
}

const empty: Partition = { start: 0, end: 0, timestampMs: 0, chain: 0, birth: 0, key: new Uint8Array(0) }

function rowOf({ stream, partition }: PartitionId): string {
  return prefixes.partition + numberKey(stream) + numberKey(partition)
}

/** The partition that a row of this namespace is of. */
export function partitionIdOf(row: string): PartitionId {
  return { stream: readNumberKey(row, 1), partition: readNumberKey(row, 9) }
}

/** The name of its log: two directories of the replica's. */
export function partitionLog({ stream, partition }: PartitionId, birth: number): string {
  return `${stream}/${partition}-${birth}`
}

export function decodePartition(bytes: Bytes): Partition {
  return {
    start: readNumber(bytes, 0),
    end: readNumber(bytes, 8),
    timestampMs: readNumber(bytes, 16),
    chain: readUint32(bytes, 24),
    birth: readNumber(bytes, 28),
    key: bytes.subarray(fixedBytes),
  }
}

function isGone({ next, alive }: GoneStreams, stream: number): boolean {
  return stream < next && !alive.includes(stream)
}

function encodeGone({ next, alive }: GoneStreams): Bytes {
  const bytes = new Uint8Array(8 + 8 * alive.length)
  for (const [i, id] of [next, ...alive].entries()) writeNumber(bytes, 8 * i, id)
  return bytes
}

function decodeGone(bytes: Bytes): GoneStreams {
  const alive = Array.from({ length: bytes.byteLength / 8 - 1 }, (_, i) => readNumber(bytes, 8 * (i + 1)))
  return { next: readNumber(bytes, 0), alive }
}

/** Records begin with their checksums: the chain goes over those, not over all bytes again. */
function chained(chain: number, records: readonly Packed[]): number {
  let next = chain
  for (const { bytes, count } of records) {
    const checksums = new Uint8Array(count * 4)
    let at = 0
    for (const walk = new PackedWalk(bytes); walk.next(); )
      for (let byte = 0; byte < 4; byte++) checksums[at++] = bytes[walk.from + byte]!
    next = crc32(checksums, next)
  }
  return next
}

function outOfRange(id: PartitionId, offset: number, start: number, end: number): RoundhouseError {
  return new RoundhouseError('OFFSET_OUT_OF_RANGE', { what: `partition ${id.partition}`, offset, start, end })
}
