import sortedBtree from 'sorted-btree'
import type { Bytes } from '../lib/bytes.ts'
import type { RowStore } from './row-store.ts'

// The package is CommonJS with an `__esModule` mark: what Node imports as its default is the module, not its class.
const BTree = sortedBtree.default

/** Rows in memory: the twin of a replica's state in tests and simulations. */
export class MemoryRows implements RowStore {
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
