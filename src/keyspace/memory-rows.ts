import sortedBtree from 'sorted-btree'
import { assert } from '../lib/assert.ts'
import { firstWhere } from '../lib/bisect.ts'
import type { Bytes } from '../lib/bytes.ts'
import { type Packed, unpack } from '../lib/packed.ts'
import { keepRecord, timestampOf } from './record.ts'
import type { RecordStore, RowStore } from './row-store.ts'

// The package is CommonJS with an `__esModule` mark: what Node imports as its default is the module, not its class.
const BTree = sortedBtree.default

/** Rows in memory: the twin of a replica's state in tests and simulations. */
export class MemoryRows implements RowStore {
  readonly records: RecordStore = new MemoryRecords()
  private readonly tree = new BTree<string, Bytes>(undefined, (a, b) => (a < b ? -1 : a > b ? 1 : 0))

  get size(): number {
    return this.tree.size
  }

  get(key: string): Bytes | undefined {
    return this.tree.get(key)
  }

  put(key: string, value: Bytes): void {
    this.tree.set(key, value)
  }

  delete(key: string): void {
    this.tree.delete(key)
  }

  *range(from: string, to: string): Iterable<readonly [key: string, value: Bytes]> {
    for (const pair of this.tree.entries(from)) {
      if (pair[0] >= to) return
      yield pair
    }
  }
}

interface MemoryLog {
  /** The offset of the first of `records`. */
  readonly base: number
  start: number
  readonly records: Bytes[]
}

/** Records in memory; what is trimmed stays, as in a file that is not unlinked yet. */
export class MemoryRecords implements RecordStore {
  private readonly logs = new Map<string, MemoryLog>()

  append(log: string, first: number, records: readonly Packed[], stamp: Bytes): void {
    const found = this.logs.get(log) ?? { base: first, start: first, records: [] }
    this.logs.set(log, found)
    const end = found.base + found.records.length
    assert(first === end, `${log}: append at ${first}, it ends at ${end}`)
    for (const { bytes } of records)
      for (const record of unpack(bytes)) found.records.push(keepRecord(record, stamp))
  }

  read(log: string, from: number, to: number, bytesMax: number): readonly Bytes[] {
    const { base, records } = this.find(log)
    assert(from >= base, `${log}: read from ${from}, it begins at ${base}`)
    assert(to <= base + records.length, `${log}: read to ${to}, it ends at ${base + records.length}`)
    return withinBytes(records, from - base, to - base, bytesMax)
  }

  seek(log: string, timestampMs: number): number {
    const { base, start, records } = this.find(log)
    return base + firstWhere(start - base, records.length, at => timestampOf(records[at]!) >= timestampMs)
  }

  trim(log: string, start: number): void {
    const found = this.logs.get(log)
    if (found !== undefined) found.start = start
  }

  drop(log: string): void {
    this.logs.delete(log)
  }

  bytesOf(log: string): number {
    const { base, start, records } = this.find(log)
    return records.slice(start - base).reduce((sum, record) => sum + record.byteLength, 0)
  }

  cutFor(log: string, bytesMax: number): number {
    const { base, start, records } = this.find(log)
    let cut = start
    for (let bytes = this.bytesOf(log); bytes > bytesMax; cut++) bytes -= records[cut - base]!.byteLength
    return cut
  }

  private find(log: string): MemoryLog {
    return this.logs.get(log) ?? { base: 0, start: 0, records: [] }
  }
}

/** The records [from, to) as far as `bytesMax` goes, the first in any case. */
export function withinBytes(records: readonly Bytes[], from: number, to: number, bytesMax: number): Bytes[] {
  const found: Bytes[] = []
  let bytes = 0
  for (let at = from; at < to; at++) {
    bytes += records[at]!.byteLength
    if (found.length > 0 && bytes > bytesMax) break
    found.push(records[at]!)
  }
  return found
}
