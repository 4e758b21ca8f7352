/**
 * When the records of a segment are from: time → record, sparse. It knows the time of the first record, and has an entry
 * for each record that begins `timeIntervalBytes` or more behind the one of the entry before it. So all records between
 * two entries take one read of about that many bytes, and the entries 0.3 % of what the records take.
 *
 * It relies on what the log's owner promises: times never decrease (`TimeOf`). Then the entries rise too, and a bisection
 * over them names the one interval where a time begins. It lies in the offset index's file (offset-index.ts), and as
 * there its entries are not checked before they are used: what they say is proved by the records themselves
 * (`Segment.seek`). Only the first record's time chooses between segments, so it stands in the checked header.
 */
import { firstWhere } from '../lib/bisect.ts'
import type { Bytes } from '../lib/bytes.ts'

/** When a record is from, ms since 1970, exactly a float64; never less than of the record before it. */
export type TimeOf = (record: Bytes) => number

export const timeIntervalBytes = 4096
export const timeEntryBytes = 12
const heapEntriesMin = 16

export interface TimeIndex {
  /** Of the segment's first record; infinity while there is none. */
  readonly firstMs: number
  readonly count: number
  timeMs(entry: number): number
  /** The entry's record, counted from 0 in the segment. */
  record(entry: number): number
}

/** It grows with the segment. */
export class HeapTimes implements TimeIndex {
  firstMs = Number.POSITIVE_INFINITY
  count = 0
  private times = new Float64Array(heapEntriesMin)
  private records = new Uint32Array(heapEntriesMin)

  static copyOf(index: TimeIndex): HeapTimes {
    const copy = new HeapTimes()
    copy.firstMs = index.firstMs
    for (let i = 0; i < index.count; i++) copy.append(index.timeMs(i), index.record(i))
    return copy
  }

  /** The last record that has an entry; the first has one in `firstMs`. */
  get lastRecord(): number {
    return this.count === 0 ? 0 : this.records[this.count - 1]!
  }

  timeMs(entry: number): number {
    return this.times[entry]!
  }

  record(entry: number): number {
    return this.records[entry]!
  }

  append(timeMs: number, record: number): void {
    if (this.count === this.times.length) {
      const times = new Float64Array(this.count * 2)
      const records = new Uint32Array(this.count * 2)
      times.set(this.times)
      records.set(this.records)
      this.times = times
      this.records = records
    }
    this.times[this.count] = timeMs
    this.records[this.count++] = record
  }

  /** Forgets the record `records` and all after it. */
  truncate(records: number): void {
    this.count = firstWhere(0, this.count, entry => this.records[entry]! >= records)
    if (records === 0) this.firstMs = Number.POSITIVE_INFINITY
  }
}

/** Of a sealed segment: the entries in its file's bytes, `time f64 | record u32`, from `start` on. */
export class SealedTimes implements TimeIndex {
  readonly firstMs: number
  readonly count: number
  private readonly view: DataView
  private readonly start: number

  constructor(view: DataView, start: number, count: number, firstMs: number) {
    this.view = view
    this.start = start
    this.count = count
    this.firstMs = firstMs
  }

  timeMs(entry: number): number {
    return this.view.getFloat64(this.start + entry * timeEntryBytes, true)
  }

  record(entry: number): number {
    return this.view.getUint32(this.start + entry * timeEntryBytes + 8, true)
  }
}

/** Writes the entries into `view` from `start` on, as `SealedTimes` reads them. */
export function writeTimes(view: DataView, start: number, index: TimeIndex): void {
  for (let i = 0; i < index.count; i++) {
    view.setFloat64(start + i * timeEntryBytes, index.timeMs(i), true)
    view.setUint32(start + i * timeEntryBytes + 8, index.record(i), true)
  }
}

/**
 * Between which records, counted from 0, the first of `timeMs` or later is to be looked for: `earlier` is before that time
 * (or is the first), `later` is not (or is `records`, how many there are).
 */
export function around(
  index: TimeIndex,
  timeMs: number,
  records: number,
): { readonly earlier: number; readonly later: number } {
  const entry = firstWhere(0, index.count, at => index.timeMs(at) >= timeMs)
  return {
    earlier: entry === 0 ? 0 : index.record(entry - 1),
    later: entry === index.count ? records : index.record(entry),
  }
}
