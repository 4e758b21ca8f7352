import sortedBtree from 'sorted-btree'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
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

/** Records in memory; what is trimmed stays, as in a file that is not unlinked yet. */
export class MemoryRecords implements RecordStore {
  private readonly logs = new Map<string, { start: number; readonly records: Bytes[] }>()

  append(log: string, first: number, records: readonly Bytes[]): void {
    const found = this.logs.get(log) ?? { start: 0, records: [] }
    this.logs.set(log, found)
    assert(first === found.records.length, `${log}: append at ${first}, it ends at ${found.records.length}`)
    found.records.push(...records)
  }

  read(log: string, from: number, to: number, bytesMax: number): readonly Bytes[] {
    const records = this.logs.get(log)?.records ?? []
    assert(to <= records.length, `${log}: read to ${to}, it ends at ${records.length}`)
    return withinBytes(records, from, to, bytesMax)
  }

  trim(log: string, start: number): void {
    const found = this.logs.get(log)
    if (found !== undefined) found.start = start
  }

  drop(log: string): void {
    this.logs.delete(log)
  }

  bytesOf(log: string): number {
    const { start, records } = this.logs.get(log) ?? { start: 0, records: [] }
    return records.slice(start).reduce((sum, record) => sum + record.byteLength, 0)
  }

  cutFor(log: string, bytesMax: number): number {
    const { start, records } = this.logs.get(log) ?? { start: 0, records: [] }
    let cut = start
    for (let bytes = this.bytesOf(log); bytes > bytesMax; cut++) bytes -= records[cut]!.byteLength
    return cut
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
