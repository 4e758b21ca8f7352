import type { Bytes } from '../lib/bytes.ts'
import type { Packed } from '../lib/packed.ts'

/**
 * The ordered rows that one replica's replicated state is made of: values, hash fields, expiry index, sessions, meta
 * register, all of them. A checkpoint or a snapshot of a replica is a copy of its rows and nothing else, so whatever
 * replicas must agree on is a row here.
 *
 * Keys are latin1 strings (one char a byte, see lib/bytes.ts), at most 1,900 chars, ordered by their bytes. Values are
 * never changed in place by either side.
 */
export interface RowStore {
  /** Where streams' records lie: rows say where each log starts and ends, the logs hold what is between. */
  readonly records: RecordStore
  get(key: string): Bytes | undefined
  put(key: string, value: Bytes): void
  delete(key: string): void
  /** Rows with from ≤ key < to in key order, read lazily. The store is not written while an iteration is open. */
  range(from: string, to: string): Iterable<readonly [key: string, value: Bytes]>
}

/**
 * A replica's logs of records, by name, each with dense offsets. Like rows, what is appended is read at once and durable
 * with the next checkpoint (until then the journal has the entry that brought it). A log begins where it is first appended
 * to.
 */
export interface RecordStore {
  /**
   * Keeps `records` (record.ts), each with `stamp` before it. The first gets the offset `first`: where the log ends, or where it
   * is to begin.
   */
  append(log: string, first: number, records: readonly Packed[], stamp: Bytes): void
  /** The kept records [from, to) or fewer: at least one, then up to `bytesMax`. All of them are in the log. Throws CORRUPT. */
  read(log: string, from: number, to: number, bytesMax: number): readonly Bytes[]
  /**
   * The first offset whose record (`kept`, record.ts) is of `timestampMs` or later; the log's end when there is none. The
   * times of a log never decrease. Throws CORRUPT.
   */
  seek(log: string, timestampMs: number): number
  /** What is before `start` is never read again. */
  trim(log: string, start: number): void
  /** The log is no more. */
  drop(log: string): void
  /** About what the log takes on this node's disk: replicas differ. */
  bytesOf(log: string): number
  /** Where to cut so that what is left fits `bytesMax`, by whole files; the log's start when it fits. */
  cutFor(log: string, bytesMax: number): number
}
