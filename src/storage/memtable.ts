import sortedBtree from 'sorted-btree'
import type { Bytes } from '../lib/bytes.ts'

/**
 * Rows put since the last checkpoint, in memory: what a replica's apply writes. A delete leaves a tombstone (null), since
 * the row may stand in a layer below.
 *
 * A Map answers point reads (the hot path: 50 ns against 300 ns of the tree); the tree holds each key once, only for
 * order, so that overwriting a row never touches it. Keys compare as UTF-16 units, which for latin1 strings is the order
 * of their bytes and therefore LMDB's.
 */

/** The package is CommonJS with an `exports.default`, which Node's ESM loader hands out as `.default`. */
const BTree = sortedBtree.default

/** What the Map, the tree and the objects of a row cost beside its bytes; an estimate, so that many tiny rows count. */
export const rowOverheadBytes = 96

export function compareKeys(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

export class Memtable {
  private readonly rows = new Map<string, Bytes | null>()
  private readonly order = new BTree<string, undefined>(undefined, compareKeys)
  private bytesHeld = 0

  /** Keys and values with an overhead a row. */
  get bytes(): number {
    return this.bytesHeld
  }

  get size(): number {
    return this.rows.size
  }

  /** null = deleted here; undefined = nothing is known here, ask the layer below. */
  get(key: string): Bytes | null | undefined {
    return this.rows.get(key)
  }

  set(key: string, value: Bytes | null): void {
    const old = this.rows.get(key)
    this.rows.set(key, value)
    const length = value === null ? 0 : value.byteLength
    if (old === undefined) {
      this.order.set(key, undefined)
      this.bytesHeld += key.length + length + rowOverheadBytes
    } else {
      this.bytesHeld += length - (old === null ? 0 : old.byteLength)
    }
  }

  /** Rows and tombstones with from ≤ key < to (null = no end), in key order. */
  *range(from: string, to: string | null): Generator<readonly [string, Bytes | null]> {
    for (const key of this.order.keys(from)) {
      if (to !== null && key >= to) return
      yield [key, this.rows.get(key)!]
    }
  }

  /** Whether a row or tombstone stands in [from, to): saves the merge where there is nothing to merge. */
  touches(from: string, to: string): boolean {
    if (this.rows.size === 0) return false
    const first = this.order.getPairOrNextHigher(from)
    return first !== undefined && first[0] < to
  }
}

/**
 * One ordered view of layers, the first winning. Of the same key in several layers the upper one speaks, and a tombstone
 * hides what lies below.
 */
export function* mergeLayers(
  layers: readonly Iterable<readonly [string, Bytes | null]>[],
): Generator<readonly [string, Bytes]> {
  const heads: { source: Iterator<readonly [string, Bytes | null]>; row: readonly [string, Bytes | null] }[] =
    []
  const open: Iterator<readonly [string, Bytes | null]>[] = []
  try {
    for (const layer of layers) {
      const source = layer[Symbol.iterator]()
      open.push(source)
      const first = source.next()
      if (first.done !== true) heads.push({ source, row: first.value })
    }
    while (heads.length > 0) {
      // Heads stay in layer order, so the first of equal keys is the uppermost layer's.
      let winner = heads[0]!.row
      for (let i = 1; i < heads.length; i++) if (heads[i]!.row[0] < winner[0]) winner = heads[i]!.row
      for (let i = heads.length - 1; i >= 0; i--) {
        const head = heads[i]!
        if (head.row[0] !== winner[0]) continue
        const next = head.source.next()
        if (next.done === true) heads.splice(i, 1)
        else head.row = next.value
      }
      if (winner[1] !== null) yield winner as readonly [string, Bytes]
    }
  } finally {
    for (const source of open) source.return?.()
  }
}
