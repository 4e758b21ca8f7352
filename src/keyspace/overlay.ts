import type { Bytes } from '../lib/bytes.ts'
import type { RecordStore, RowStore } from './row-store.ts'

/**
 * Writes that are not yet made, over rows that are: an entry's operations run against it, see each other's writes, and
 * are committed or discarded as one.
 */
export class Overlay implements RowStore {
  private readonly base: RowStore
  /** null = deleted. */
  private readonly writes = new Map<string, Bytes | null>()
  /** What is to be done to the logs of records, in order. */
  private readonly recordWrites: ((records: RecordStore) => void)[] = []
  /** An entry that writes records reads none, so reads go to the logs as they are. */
  readonly records: RecordStore

  constructor(base: RowStore) {
    this.base = base
    const later = (write: (records: RecordStore) => void) => void this.recordWrites.push(write)
    this.records = {
      append: (log, first, added, stamp) => later(records => records.append(log, first, added, stamp)),
      trim: (log, start) => later(records => records.trim(log, start)),
      drop: log => later(records => records.drop(log)),
      read: (log, from, to, bytesMax) => base.records.read(log, from, to, bytesMax),
      seek: (log, timestampMs) => base.records.seek(log, timestampMs),
      bytesOf: log => base.records.bytesOf(log),
      cutFor: (log, bytesMax) => base.records.cutFor(log, bytesMax),
    }
  }

  get(key: string): Bytes | undefined {
    const written = this.writes.get(key)
    return written === undefined ? this.base.get(key) : (written ?? undefined)
  }

  put(key: string, value: Bytes): void {
    this.writes.set(key, value)
  }

  delete(key: string): void {
    this.writes.set(key, null)
  }

  range(from: string, to: string): Iterable<readonly [key: string, value: Bytes]> {
    if (this.writes.size === 0) return this.base.range(from, to)
    const touched = [...this.writes.keys()].filter(key => key >= from && key < to)
    return touched.length === 0 ? this.base.range(from, to) : this.merged(from, to, touched.sort())
  }

  /** Two ordered runs in one: at equal keys the written row hides the one below. */
  private *merged(from: string, to: string, touched: string[]): Generator<readonly [string, Bytes]> {
    let next = 0
    for (const row of this.base.range(from, to)) {
      for (; next < touched.length && touched[next]! < row[0]; next++) yield* this.row(touched[next]!)
      if (touched[next] !== row[0]) yield row
    }
    for (; next < touched.length; next++) yield* this.row(touched[next]!)
  }

  private *row(key: string): Generator<readonly [string, Bytes]> {
    const value = this.writes.get(key)
    if (value != null) yield [key, value]
  }

  /** What was written since the last commit or discard, each row once, in the order of the first write; null: deleted. */
  written(): Iterable<readonly [key: string, value: Bytes | null]> {
    return this.writes
  }

  commit(): void {
    for (const [key, value] of this.writes) {
      if (value === null) this.base.delete(key)
      else this.base.put(key, value)
    }
    this.writes.clear()
    for (const write of this.recordWrites) write(this.base.records)
    this.recordWrites.length = 0
  }

  discard(): void {
    this.writes.clear()
    this.recordWrites.length = 0
  }
}
