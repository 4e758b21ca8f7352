import { assert } from '../lib/assert.ts'
import { toLatin1 } from '../lib/bytes.ts'
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
 * A tree is made for one command: it reads a node once, changes it in memory and writes it by `flush`. Nodes stay the bytes
 * that they are: to decode and encode those of one way down took 45 µs at 300,000 members, to look and copy takes 14.
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

interface Node {
  bytes: Uint8Array
  view: DataView
  /** The bytes are this tree's own and not written yet; others are a row's and must not change. */
  isChanged: boolean
}

/** What an inner node is to have for a new child. */
interface Child {
  readonly node: number
  readonly entries: number
  /** Score, length and member of its lower bound, as in a node. */
  readonly bound: Uint8Array
}

const nodeBytesMax = 1_800
const nodeBytesMin = nodeBytesMax / 4
const headBytes = 3
/** Score and length, before a member. */
const keyHeadBytes = 10
/** Node and entries, before a child's bound. */
const childHeadBytes = 16

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
    if (header.root === 0) header.root = this.make(Uint8Array.of(0, 0, 0))
    const left = header.root
    const right = this.insertUnder(left, entry, true)
    if (right === null) return
    const node = this.node(left)
    const root = this.make(Uint8Array.of(1, 0, 0))
    const first = childBytes({ node: left, entries: entriesOf(node), bound: boundOf(node) })
    splice(this.node(root), headBytes, 0, first, 1)
    splice(this.node(root), headBytes + first.byteLength, 0, childBytes(right), 1)
    header.root = root
  }

  /** The entry is there. */
  remove(entry: Entry): void {
    const { header } = this
    this.removeUnder(header.root, entry)
    let root = this.node(header.root)
    while (!isLeaf(root) && countOf(root) === 1) {
      this.drop(header.root)
      header.root = readNumber(root.bytes, headBytes)
      root = this.node(header.root)
    }
    if (countOf(root) > 0) return
    this.drop(header.root)
    header.root = 0
  }

  /** How many entries stand before a place: a rank, where an entry stands there. */
  countBefore(place: Place): number {
    if (this.header.root === 0) return 0
    let before = 0
    let node = this.node(this.header.root)
    while (!isLeaf(node)) {
      // The last child that has entries before the place; those after it have none.
      const down = childFor(node, place, false)
      before += down.before
      node = this.node(readNumber(node.bytes, down.at))
    }
    return before + entryFor(node, place).index
  }

  /** Entries from rank `from` (0 is the lowest) to rank `to`, half-open, in order. */
  slice(from: number, to: number): Entry[] {
    const found: Entry[] = []
    if (this.header.root !== 0 && from < to) this.collect(this.node(this.header.root), from, to, found)
    return found
  }

  /** Writes what changed. */
  flush(): void {
    for (const [number, node] of this.nodes) {
      if (!node.isChanged) continue
      this.rows.put(this.prefix + numberKey(number), node.bytes)
      node.isChanged = false
    }
  }

  private collect(node: Node, from: number, to: number, found: Entry[]): void {
    const count = countOf(node)
    let at = headBytes
    if (isLeaf(node)) {
      for (let i = 0; i < count && i < to; i++) {
        if (i >= from) found.push(entryAt(node, at))
        at = keyEnd(node, at)
      }
      return
    }
    let before = 0
    for (let i = 0; i < count && before < to; i++) {
      const entries = readNumber(node.bytes, at + 8)
      if (before + entries > from)
        this.collect(this.node(readNumber(node.bytes, at)), from - before, to - before, found)
      before += entries
      at = keyEnd(node, at + childHeadBytes)
    }
  }

  /** Answers the node's new right neighbour where it was split. `isLast`: no entry of the tree stands right of the node. */
  private insertUnder(number: number, entry: Entry, isLast: boolean): Child | null {
    const node = this.node(number)
    let isAppended: boolean
    if (isLeaf(node)) {
      const { at, index } = entryFor(node, entry)
      isAppended = index === countOf(node)
      splice(node, at, 0, entryBytes(entry), 1)
    } else {
      const { at, index } = childFor(node, entry, true)
      isAppended = index === countOf(node) - 1
      const right = this.insertUnder(readNumber(node.bytes, at), entry, isLast && isAppended)
      addEntries(node, at, 1 - (right?.entries ?? 0))
      if (right === null) return null
      splice(node, keyEnd(node, at + childHeadBytes), 0, childBytes(right), 1)
    }
    return node.bytes.byteLength <= nodeBytesMax ? null : this.split(node, isLast && isAppended)
  }

  /** In the middle; where the tree was appended to, before the last item. */
  private split(node: Node, isAppended: boolean): Child {
    const { bytes } = node
    const count = countOf(node)
    const keyAt = isLeaf(node) ? 0 : childHeadBytes
    const half = (bytes.byteLength + headBytes) / 2
    let kept = 0
    let cut = headBytes
    while (kept < count - 1) {
      const end = keyEnd(node, cut + keyAt)
      if (!isAppended && kept > 0 && end > half) break
      cut = end
      kept++
    }
    const rest = new Uint8Array(headBytes + bytes.byteLength - cut)
    rest[0] = bytes[0]!
    rest.set(bytes.subarray(cut), headBytes)
    const number = this.make(rest)
    const right = this.node(number)
    right.view.setUint16(1, count - kept)
    splice(node, cut, bytes.byteLength - cut, nothing, kept - count)
    return { node: number, entries: entriesOf(right), bound: boundOf(right) }
  }

  private removeUnder(number: number, entry: Entry): void {
    const node = this.node(number)
    if (isLeaf(node)) {
      const { at, index } = entryFor(node, entry)
      assert(
        index < countOf(node) && compareAt(node, at, entry) === 0,
        'a member that its tree does not have',
      )
      splice(node, at, keyEnd(node, at) - at, nothing, -1)
      return
    }
    const { at, index } = childFor(node, entry, true)
    const child = readNumber(node.bytes, at)
    this.removeUnder(child, entry)
    if (readNumber(node.bytes, at + 8) === 1) {
      this.drop(child)
      splice(node, at, keyEnd(node, at + childHeadBytes) - at, nothing, -1)
      return
    }
    addEntries(node, at, -1)
    if (this.node(child).bytes.byteLength < nodeBytesMin)
      if (!this.merge(node, index - 1)) this.merge(node, index)
  }

  /** Makes one node of the child at `index` and the one after it, if there are two and both fit into one. */
  private merge(parent: Node, index: number): boolean {
    if (index < 0 || index + 1 >= countOf(parent)) return false
    let leftAt = headBytes
    for (let i = 0; i < index; i++) leftAt = keyEnd(parent, leftAt + childHeadBytes)
    const rightAt = keyEnd(parent, leftAt + childHeadBytes)
    const rightEnd = keyEnd(parent, rightAt + childHeadBytes)
    const left = this.node(readNumber(parent.bytes, leftAt))
    const rightNumber = readNumber(parent.bytes, rightAt)
    const right = this.node(rightNumber)
    let moved = right.bytes.subarray(headBytes)
    if (!isLeaf(right)) {
      // A first child's bound is not kept true; where it stands now it counts, and its parent's is the one that holds.
      const first = moved.subarray(0, childHeadBytes)
      const bound = parent.bytes.subarray(rightAt + childHeadBytes, rightEnd)
      const others = right.bytes.subarray(keyEnd(right, headBytes + childHeadBytes))
      moved = joined(first, bound, others)
    }
    if (left.bytes.byteLength + moved.byteLength > nodeBytesMax) return false
    splice(left, left.bytes.byteLength, 0, moved, countOf(right))
    addEntries(parent, leftAt, readNumber(parent.bytes, rightAt + 8))
    splice(parent, rightAt, rightEnd - rightAt, nothing, -1)
    this.drop(rightNumber)
    return true
  }

  private make(bytes: Uint8Array): number {
    const number = this.header.nextNode++
    this.nodes.set(number, { bytes, view: viewOf(bytes), isChanged: true })
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
      node = { bytes, view: viewOf(bytes), isChanged: false }
      this.nodes.set(number, node)
    }
    return node
  }
}

const nothing = new Uint8Array(0)

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const isLeaf = (node: Node) => node.bytes[0] === 0
const countOf = (node: Node) => node.view.getUint16(1)
/** Where the key (score, length, member) that begins at `at` ends. */
const keyEnd = (node: Node, at: number) => at + keyHeadBytes + node.view.getUint16(at + 8)

/** How the key at `at` stands to a place: below 0 before it, 0 at it. */
function compareAt({ bytes, view }: Node, at: number, place: Place): number {
  const score = view.getFloat64(at)
  if (score !== place.score) return score < place.score ? -1 : 1
  const { member } = place
  if (member === null) return -1
  const length = view.getUint16(at + 8)
  const common = Math.min(length, member.length)
  for (let i = 0; i < common; i++) {
    const difference = bytes[at + keyHeadBytes + i]! - member.charCodeAt(i)
    if (difference !== 0) return difference
  }
  return length - member.length
}

/** Where in a leaf the first entry stands that is not before `place`; behind the last one where all are. */
function entryFor(leaf: Node, place: Place): { readonly at: number; readonly index: number } {
  const count = countOf(leaf)
  let at = headBytes
  let index = 0
  for (; index < count && compareAt(leaf, at, place) < 0; index++) at = keyEnd(leaf, at)
  return { at, index }
}

/**
 * The last child whose bound is before the place, or (`mayEqual`) at it; the first where there is none. `before`: entries
 * under the children before it.
 */
function childFor(
  inner: Node,
  place: Place,
  mayEqual: boolean,
): { readonly at: number; readonly index: number; readonly before: number } {
  const last = countOf(inner) - 1
  let at = headBytes
  let index = 0
  let before = 0
  for (; index < last; index++) {
    const next = keyEnd(inner, at + childHeadBytes)
    const order = compareAt(inner, next + childHeadBytes, place)
    if (order > 0 || (order === 0 && !mayEqual)) break
    before += readNumber(inner.bytes, at + 8)
    at = next
  }
  return { at, index, before }
}

function entryAt({ bytes, view }: Node, at: number): Entry {
  const memberAt = at + keyHeadBytes
  return {
    score: view.getFloat64(at),
    member: toLatin1(bytes.subarray(memberAt, memberAt + view.getUint16(at + 8))),
  }
}

function boundOf(node: Node): Uint8Array {
  const at = headBytes + (isLeaf(node) ? 0 : childHeadBytes)
  return node.bytes.subarray(at, keyEnd(node, at))
}

function entriesOf(node: Node): number {
  const count = countOf(node)
  if (isLeaf(node)) return count
  let entries = 0
  for (let i = 0, at = headBytes; i < count; i++, at = keyEnd(node, at + childHeadBytes))
    entries += readNumber(node.bytes, at + 8)
  return entries
}

function entryBytes({ score, member }: Entry): Uint8Array {
  const bytes = new Uint8Array(keyHeadBytes + member.length)
  const view = viewOf(bytes)
  view.setFloat64(0, score)
  view.setUint16(8, member.length)
  for (let i = 0; i < member.length; i++) bytes[keyHeadBytes + i] = member.charCodeAt(i)
  return bytes
}

function childBytes({ node, entries, bound }: Child): Uint8Array {
  const bytes = new Uint8Array(childHeadBytes + bound.byteLength)
  writeNumber(bytes, 0, node)
  writeNumber(bytes, 8, entries)
  bytes.set(bound, childHeadBytes)
  return bytes
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.byteLength
  }
  return bytes
}

/** Puts `inserted` in the place of `removedBytes` bytes at `at`; the node has so many items more. */
function splice(node: Node, at: number, removedBytes: number, inserted: Uint8Array, items: number): void {
  const { bytes } = node
  const count = countOf(node) + items
  node.bytes = joined(bytes.subarray(0, at), inserted, bytes.subarray(at + removedBytes))
  node.view = viewOf(node.bytes)
  node.view.setUint16(1, count)
  node.isChanged = true
}

/** To the child at `at`. */
function addEntries(inner: Node, at: number, by: number): void {
  if (!inner.isChanged) {
    // Not `slice`, which for a Buffer is a view: a row never changes in place.
    inner.bytes = new Uint8Array(inner.bytes)
    inner.view = viewOf(inner.bytes)
    inner.isChanged = true
  }
  writeNumber(inner.bytes, at + 8, readNumber(inner.bytes, at + 8) + by)
}
