/**
 * Where the entries of one replica's log lie in the journal's segments: typed arrays, 24 bytes an entry.
 *
 * An entry that is known to exist but can't be read (its frame is rotten, or a copy of it is still to come in a replay)
 * is a *hole*. What is dropped or overwritten is released from its segment: a segment that nothing pins may go.
 */
import { assert } from '../lib/assert.ts'

const holeKey = 0
const keyLimit = 2 ** 24

/** A segment's number in 24 bits, never that of a hole. Far fewer segments live at a time. */
export function segmentKey(segment: number): number {
  return 1 + (segment % (keyLimit - 1))
}

/** How many entries of all replicas lie in each segment. */
export class Pins {
  private readonly counts = new Map<number, number>()

  add(key: number, count: number): void {
    const sum = (this.counts.get(key) ?? 0) + count
    assert(sum >= 0, `journal: ${sum} entries in a segment`)
    if (sum === 0) this.counts.delete(key)
    else this.counts.set(key, sum)
  }

  count(key: number): number {
    return this.counts.get(key) ?? 0
  }
}

export class JournalIndex {
  /** Of the first entry; `first + length` is the next to come. */
  first: number
  length = 0
  readonly pins = new Pins()
  private readonly allPins: Pins
  /** The slot of the first entry: what is compacted leaves room at the front until it is half of it all. */
  private head = 0
  private capacity = 0
  private terms = new Float64Array(0)
  private positions = new Uint32Array(0)
  private lengths = new Uint32Array(0)
  private crcs = new Uint32Array(0)
  /** Segment key × 256 + entry kind. */
  private places = new Uint32Array(0)

  constructor(first: number, allPins: Pins) {
    this.first = first
    this.allPins = allPins
  }

  get last(): number {
    return this.first + this.length - 1
  }

  has(index: number): boolean {
    return index >= this.first && index < this.first + this.length
  }

  isHole(index: number): boolean {
    return this.keyAt(index) === holeKey
  }

  keyAt(index: number): number {
    return this.places[this.slot(index)]! >>> 8
  }

  kindAt(index: number): number {
    return this.places[this.slot(index)]! & 0xff
  }

  /** 0 where a hole hides it. */
  termAt(index: number): number {
    return this.terms[this.slot(index)]!
  }

  positionAt(index: number): number {
    return this.positions[this.slot(index)]!
  }

  lengthAt(index: number): number {
    return this.lengths[this.slot(index)]!
  }

  crcAt(index: number): number {
    return this.crcs[this.slot(index)]!
  }

  push(segment: number, kind: number, term: number, position: number, length: number, crc: number): void {
    this.grow()
    this.length++
    this.put(this.last, segmentKey(segment), kind, term, position, length, crc)
  }

  /** An entry of which at most the term is known. */
  pushHole(term = 0): void {
    this.grow()
    this.length++
    this.put(this.last, holeKey, 0, term, 0, 0, 0)
  }

  /** Tells that `index` lies elsewhere now: a copy. */
  replace(
    index: number,
    segment: number,
    kind: number,
    term: number,
    position: number,
    length: number,
    crc: number,
  ): void {
    this.release(index, index + 1)
    this.put(index, segmentKey(segment), kind, term, position, length, crc)
  }

  makeHole(index: number): void {
    this.release(index, index + 1)
    this.put(index, holeKey, 0, this.termAt(index), 0, 0, 0)
  }

  /** Drops `index` and all after it. */
  truncate(index: number): void {
    const from = Math.max(index, this.first)
    if (from > this.last) return
    this.release(from, this.last + 1)
    this.length = from - this.first
  }

  /** Drops all up to `index`; the log goes on, or begins, after it. */
  compact(index: number): void {
    if (index >= this.last) {
      this.release(this.first, this.last + 1)
      this.first = index + 1
      this.length = 0
      this.head = 0
      return
    }
    if (index < this.first) return
    this.release(this.first, index + 1)
    this.length -= index + 1 - this.first
    this.head += index + 1 - this.first
    this.first = index + 1
    if (this.head > this.capacity / 2) this.moveToFront()
  }

  private slot(index: number): number {
    assert(this.has(index), `journal: index ${index} outside [${this.first}, ${this.last}]`)
    return this.head + index - this.first
  }

  private put(
    index: number,
    key: number,
    kind: number,
    term: number,
    position: number,
    length: number,
    crc: number,
  ): void {
    const slot = this.slot(index)
    this.terms[slot] = term
    this.positions[slot] = position
    this.lengths[slot] = length
    this.crcs[slot] = crc
    this.places[slot] = key * 256 + kind
    this.count(key, 1)
  }

  private release(from: number, to: number): void {
    for (let index = from; index < to; ) {
      const key = this.keyAt(index)
      const start = index
      while (index < to && this.keyAt(index) === key) index++
      this.count(key, start - index)
    }
  }

  private count(key: number, change: number): void {
    if (key === holeKey) return
    this.pins.add(key, change)
    this.allPins.add(key, change)
  }

  private columns(): (Float64Array | Uint32Array)[] {
    return [this.terms, this.positions, this.lengths, this.crcs, this.places]
  }

  private moveToFront(): void {
    for (const column of this.columns()) column.copyWithin(0, this.head, this.head + this.length)
    this.head = 0
  }

  private grow(): void {
    if (this.head + this.length < this.capacity) return
    if (this.head > this.capacity / 4) {
      this.moveToFront()
      return
    }
    const { head, length } = this
    this.capacity = Math.max(16, this.capacity * 2)
    const larger = <Column extends Float64Array | Uint32Array>(column: Column, empty: Column): Column => {
      empty.set(column.subarray(head, head + length))
      return empty
    }
    this.terms = larger(this.terms, new Float64Array(this.capacity))
    this.positions = larger(this.positions, new Uint32Array(this.capacity))
    this.lengths = larger(this.lengths, new Uint32Array(this.capacity))
    this.crcs = larger(this.crcs, new Uint32Array(this.capacity))
    this.places = larger(this.places, new Uint32Array(this.capacity))
    this.head = 0
  }
}
