import { assert } from '../lib/assert.ts'
import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import type { RowStore } from './row-store.ts'
import { numberKey, prefixes, readNumber, writeNumber } from './rows.ts'

/**
 * The order of a sorted set: a B+ tree that counts, each node a row. Entries stand in the leaves, by score and then by
 * the bytes of the member; an inner node knows for each child how many entries are under it. So a rank is found, and a
 * range is begun at a rank, by one way down, as inserting and removing are: O(log n) rows read, and written.
 *
 * ```
 *                       ┌──────────────────────────────────┐
 *   node 7, the root    │ →3 412 –∞ │ →6 390 (2.5, "kim")  │      inner: → node, entries under it, its lower bound
 *                       └────┬────────────┬────────────────┘
 *            ┌───────────────┘            └───────────┐
 *   node 3   │ →1 210 –∞ │ →2 202 (1, "fay") │       …
 *            └────┬────────────┬──────────┘
 *        ┌────────┘            └────────┐
 *   node 1   │ (0, "al") (0, "bo") … │  …                             leaf: entries
 *
 *  leaf    0 (1)  entries (2)   then each: score (8, a double)  length (2) member
 *  inner   1 (1)  children (2)  then each: node (8) entries (8)  score (8) length (2) member
 * ```
 * Numbers are big-endian. A node over 1,800 bytes is split (LMDB keeps rows up to about 2,000 bytes inside its pages); one
 * that falls under a quarter of that is merged with a neighbour where both fit into one, and goes when it is empty. A member
 * has at most 512 bytes, so a node holds three entries or children at the least and about 50 as a rule: a million members
 * are four levels. Whoever appends in order (times as scores) leaves full nodes behind.
 *
 * The bound of a first child is never looked at: whatever is smaller than all others goes there. The rows are a function
 * of the calls alone, so replicas agree on them.
 *
 * Refused: a row an entry with counts over ranges of them (a rank or an insert takes several ordered look-ups instead of
 * plain gets, and reading backwards needs a cursor that RowStore has not); a skip list with heights drawn from the
 * member's hash (whoever chooses the members chooses the heights).
 *
 * A tree is made for one command: nodes are decoded once, changed in memory, and written by `flush`.
 */
export interface Entry {
  readonly score: number
  /** latin1, as in row keys. */
  readonly member: string
}

/** A point between entries: before the entry that is equal to it. A member of null is past all of that score. */
export interface Place {
  readonly score: number
  readonly member: string | null
}

/** What the header of a sorted set keeps of its tree; the tree changes it. */
export interface TreeRoot {
  readonly generation: string
  root: number
  nextNode: number
}

interface Child {
  node: number
  entries: number
  /** Entries under this child are at or after it; those under the children before it are not. */
  bound: Entry
}

interface Leaf {
  readonly kind: 'leaf'
  readonly items: Entry[]
  bytes: number
  isChanged: boolean
}

interface Inner {
  readonly kind: 'inner'
  readonly items: Child[]
  bytes: number
  isChanged: boolean
}

type Node = Leaf | Inner

const nodeBytesMax = 1_800
const nodeBytesMin = nodeBytesMax / 4
const headBytes = 3
const entryBytes = ({ member }: Entry) => 10 + member.length
const childBytes = ({ bound }: Child) => 16 + entryBytes(bound)

export class CountedTree {
  private readonly rows: RowStore
  private readonly header: TreeRoot
  private readonly prefix: string
  private readonly nodes = new Map<number, Node>()

  constructor(rows: RowStore, header: TreeRoot) {
    this.rows = rows
    this.header = header
    this.prefix = prefixes.node + header.generation
  }

  /** The entry is not there yet. */
  insert(entry: Entry): void {
    const { header } = this
    if (header.root === 0)
      header.root = this.make({ kind: 'leaf', items: [], bytes: headBytes, isChanged: true })
    const left = header.root
    const right = this.insertUnder(left, entry, true)
    if (right === null) return
    const leftEntries = entriesOf(this.node(left))
    const items = [{ node: left, entries: leftEntries, bound: boundOf(this.node(left)) }, right]
    header.root = this.make({ kind: 'inner', items, bytes: bytesOf(items, childBytes), isChanged: true })
  }

  /** The entry is there. */
  remove(entry: Entry): void {
    const { header } = this
    this.removeUnder(header.root, entry)
    let root = this.node(header.root)
    while (root.kind === 'inner' && root.items.length === 1) {
      const [only] = root.items
      this.drop(header.root)
      header.root = only!.node
      root = this.node(header.root)
    }
    if (root.items.length > 0) return
    this.drop(header.root)
    header.root = 0
  }

  /** How many entries stand before a place: a rank, where an entry stands there. */
  countBefore(place: Place): number {
    if (this.header.root === 0) return 0
    let count = 0
    let node = this.node(this.header.root)
    while (node.kind === 'inner') {
      // The last child that has entries before the place; those after it have none.
      const at =
        Math.max(
          1,
          firstAtOrAfter(node.items, child => child.bound, place, 1),
        ) - 1
      for (let i = 0; i < at; i++) count += node.items[i]!.entries
      node = this.node(node.items[at]!.node)
    }
    return count + firstAtOrAfter(node.items, entry => entry, place, 0)
  }

  /** Entries from rank `from` (0 is the lowest) to rank `to`, half-open, in order. */
  slice(from: number, to: number): Entry[] {
    const found: Entry[] = []
    if (this.header.root !== 0 && from < to) this.collect(this.header.root, from, to, found)
    return found
  }

  /** Writes what changed. */
  flush(): void {
    for (const [number, node] of this.nodes) {
      if (!node.isChanged) continue
      this.rows.put(this.prefix + numberKey(number), encodeNode(node))
      node.isChanged = false
    }
  }

  private collect(number: number, from: number, to: number, found: Entry[]): void {
    const node = this.node(number)
    if (node.kind === 'leaf') {
      for (let i = Math.max(0, from); i < Math.min(to, node.items.length); i++) found.push(node.items[i]!)
      return
    }
    let before = 0
    for (const child of node.items) {
      if (before >= to) return
      if (before + child.entries > from) this.collect(child.node, from - before, to - before, found)
      before += child.entries
    }
  }

  /** Answers the node's new right neighbour where it was split. `isLast`: no entry of the tree stands right of the node. */
  private insertUnder(number: number, entry: Entry, isLast: boolean): Child | null {
    const node = this.node(number)
    node.isChanged = true
    let at: number
    if (node.kind === 'leaf') {
      at = firstAtOrAfter(node.items, entry => entry, entry, 0)
      node.items.splice(at, 0, entry)
      node.bytes += entryBytes(entry)
    } else {
      at = childFor(node, entry)
      const child = node.items[at]!
      const right = this.insertUnder(child.node, entry, isLast && at === node.items.length - 1)
      child.entries += 1 - (right?.entries ?? 0)
      if (right === null) return null
      node.items.splice(++at, 0, right)
      node.bytes += childBytes(right)
    }
    return node.bytes <= nodeBytesMax ? null : this.split(node, isLast && at === node.items.length - 1)
  }

  /** In the middle; where the tree was appended to, before the last item. */
  private split(node: Node, isAppended: boolean): Child {
    const half = (node.bytes + headBytes) / 2
    let keep = 0
    for (let bytes = headBytes; keep < node.items.length - 1; keep++) {
      bytes += itemBytes(node, keep)
      if (!isAppended && keep > 0 && bytes > half) break
    }
    let right: Node
    if (node.kind === 'leaf') {
      const items = node.items.splice(keep)
      right = { kind: 'leaf', items, bytes: bytesOf(items, entryBytes), isChanged: true }
    } else {
      const items = node.items.splice(keep)
      right = { kind: 'inner', items, bytes: bytesOf(items, childBytes), isChanged: true }
    }
    node.bytes -= right.bytes - headBytes
    return { node: this.make(right), entries: entriesOf(right), bound: boundOf(right) }
  }

  private removeUnder(number: number, entry: Entry): void {
    const node = this.node(number)
    node.isChanged = true
    if (node.kind === 'leaf') {
      const at = firstAtOrAfter(node.items, entry => entry, entry, 0)
      const found = node.items[at]
      assert(found !== undefined && compare(found, entry) === 0, 'a member that its tree does not have')
      node.items.splice(at, 1)
      node.bytes -= entryBytes(entry)
      return
    }
    const at = childFor(node, entry)
    const child = node.items[at]!
    this.removeUnder(child.node, entry)
    child.entries--
    if (child.entries === 0) {
      this.drop(child.node)
      node.items.splice(at, 1)
      node.bytes -= childBytes(child)
    } else if (this.node(child.node).bytes < nodeBytesMin) {
      if (!this.merge(node, at - 1)) this.merge(node, at)
    }
  }

  /** Makes one node of the children at `at` and after it, if that exists and both fit into one. */
  private merge(parent: Inner, at: number): boolean {
    const [left, right] = [parent.items[at], parent.items[at + 1]]
    if (left === undefined || right === undefined) return false
    const [to, from] = [this.node(left.node), this.node(right.node)]
    if (to.kind === 'leaf') {
      assert(from.kind === 'leaf', 'neighbours of one height')
      if (to.bytes + from.bytes - headBytes > nodeBytesMax) return false
      to.items.push(...from.items)
    } else {
      assert(from.kind === 'inner', 'neighbours of one height')
      const [first, ...others] = from.items
      // A first child's bound is not kept true; where it stands now it counts, and its parent's is the one that holds.
      const items = [{ ...first!, bound: right.bound }, ...others]
      if (to.bytes + bytesOf(items, childBytes) - headBytes > nodeBytesMax) return false
      to.items.push(...items)
    }
    to.bytes = to.kind === 'leaf' ? bytesOf(to.items, entryBytes) : bytesOf(to.items, childBytes)
    to.isChanged = true
    left.entries += right.entries
    this.drop(right.node)
    parent.items.splice(at + 1, 1)
    parent.bytes -= childBytes(right)
    return true
  }

  private make(node: Node): number {
    const number = this.header.nextNode++
    this.nodes.set(number, node)
    return number
  }

  private drop(number: number): void {
    this.nodes.delete(number)
    this.rows.delete(this.prefix + numberKey(number))
  }

  private node(number: number): Node {
    let node = this.nodes.get(number)
    if (node === undefined) {
      const bytes = this.rows.get(this.prefix + numberKey(number))
      assert(bytes !== undefined, `a tree without its node ${number}`)
      node = decodeNode(bytes)
      this.nodes.set(number, node)
    }
    return node
  }
}

function compare(entry: Entry, place: Place): number {
  if (entry.score !== place.score) return entry.score < place.score ? -1 : 1
  if (place.member === null) return -1
  return entry.member < place.member ? -1 : entry.member > place.member ? 1 : 0
}

/** The first item from `from` on that does not stand before `place`; their number where all do. */
function firstAtOrAfter<Item>(
  items: readonly Item[],
  entryOf: (item: Item) => Entry,
  place: Place,
  from: number,
): number {
  let to = items.length
  while (from < to) {
    const middle = (from + to) >>> 1
    if (compare(entryOf(items[middle]!), place) < 0) from = middle + 1
    else to = middle
  }
  return from
}

/** The child under which the entry stands or belongs: the last whose bound is not after it. */
function childFor({ items }: Inner, entry: Entry): number {
  const at = firstAtOrAfter(items, child => child.bound, entry, 1)
  const next = items[at]
  return next !== undefined && compare(next.bound, entry) === 0 ? at : at - 1
}

function boundOf(node: Node): Entry {
  return node.kind === 'leaf' ? node.items[0]! : node.items[0]!.bound
}

function entriesOf(node: Node): number {
  if (node.kind === 'leaf') return node.items.length
  return node.items.reduce((sum, child) => sum + child.entries, 0)
}

function itemBytes(node: Node, at: number): number {
  return node.kind === 'leaf' ? entryBytes(node.items[at]!) : childBytes(node.items[at]!)
}

function bytesOf<Item>(items: readonly Item[], bytesOfItem: (item: Item) => number): number {
  return items.reduce((sum, item) => sum + bytesOfItem(item), headBytes)
}

function encodeNode(node: Node): Bytes {
  const bytes = new Uint8Array(node.bytes)
  const view = new DataView(bytes.buffer)
  bytes[0] = node.kind === 'leaf' ? 0 : 1
  view.setUint16(1, node.items.length)
  let at = headBytes
  const put = ({ score, member }: Entry) => {
    view.setFloat64(at, score)
    view.setUint16(at + 8, member.length)
    bytes.set(fromLatin1(member), at + 10)
    at += 10 + member.length
  }
  if (node.kind === 'leaf') for (const entry of node.items) put(entry)
  else
    for (const child of node.items) {
      writeNumber(bytes, at, child.node)
      writeNumber(bytes, at + 8, child.entries)
      at += 16
      put(child.bound)
    }
  assert(at === bytes.byteLength, `a node of ${at} bytes that counted ${bytes.byteLength}`)
  return bytes
}

function decodeNode(bytes: Bytes): Node {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const kind = bytes[0]
  assert(kind === 0 || kind === 1, `a node of kind ${kind}`)
  const count = view.getUint16(1)
  let at = headBytes
  const take = (): Entry => {
    const score = view.getFloat64(at)
    const end = at + 10 + view.getUint16(at + 8)
    const member = toLatin1(bytes.subarray(at + 10, end))
    at = end
    return { score, member }
  }
  const rest = { bytes: bytes.byteLength, isChanged: false }
  if (kind === 0) return { kind: 'leaf', items: Array.from({ length: count }, take), ...rest }
  const items = Array.from({ length: count }, (): Child => {
    const [node, entries] = [readNumber(bytes, at), readNumber(bytes, at + 8)]
    at += 16
    return { node, entries, bound: take() }
  })
  return { kind: 'inner', items, ...rest }
}
