/**
 * Where a search has been. A configuration is a row of words:
 *
 *   | event | state | linearised: a bit a slot, 32 a word … | used: a field an optional class … |
 *
 * Two rows that differ in `used` alone are comparable: the one that has used fewer optional operations of every class can
 * do whatever the other can. So a row is new only if no earlier one with the same event, state and bits has used as few
 * or fewer of every class; without that, crashed operations double the search each.
 *
 * A field has a guard bit on top that is always 0, and no field crosses a word: then all fields of a word compare at
 * once, `b ≤ a` in each exactly if ((a | guards) − b) keeps every guard.
 */

/** Rows of a block together take about this many words. */
const blockWords = 1 << 16

export class Configurations {
  /** Words of a row as given to `add`. */
  readonly width: number
  private readonly usedFrom: number
  private readonly guards: Int32Array
  /** Rows, each preceded by the number of the next one in its bucket. */
  private readonly blocks: Int32Array[] = []
  private readonly stride: number
  private readonly blockShift: number
  /** By bucket: the number of its first row, or −1. */
  private buckets = new Int32Array(1024).fill(-1)
  private count = 0

  /** `guards` has a word for each word of used fields. */
  constructor(slotWords: number, guards: Int32Array) {
    this.usedFrom = 2 + slotWords
    this.guards = guards
    this.width = this.usedFrom + guards.length
    this.stride = this.width + 1
    this.blockShift = Math.max(0, 31 - Math.clz32(Math.max(1, Math.floor(blockWords / this.stride))))
  }

  get size(): number {
    return this.count
  }

  get bytes(): number {
    return 4 * (this.buckets.length + this.blocks.length * (this.stride << this.blockShift))
  }

  /** The row's number, or −1 when an earlier row can do all that this one can. */
  add(row: Int32Array): number {
    const bucket = this.hash(row, 0) & (this.buckets.length - 1)
    for (let number = this.buckets[bucket]!; number !== -1; ) {
      const block = this.blocks[number >> this.blockShift]!
      const at = this.placeOf(number)
      if (this.covers(block, at + 1, row)) return -1
      number = block[at]!
    }
    const number = this.count++
    if (number >> this.blockShift === this.blocks.length) {
      this.blocks.push(new Int32Array(this.stride << this.blockShift))
    }
    const block = this.blocks[number >> this.blockShift]!
    const at = this.placeOf(number)
    block[at] = this.buckets[bucket]!
    block.set(row, at + 1)
    this.buckets[bucket] = number
    if (this.count > this.buckets.length) this.grow()
    return number
  }

  /** Copies row `number` into `row`. */
  load(number: number, row: Int32Array): void {
    const block = this.blocks[number >> this.blockShift]!
    const at = this.placeOf(number) + 1
    for (let i = 0; i < this.width; i++) row[i] = block[at + i]!
  }

  private placeOf(number: number): number {
    return (number & ((1 << this.blockShift) - 1)) * this.stride
  }

  private covers(block: Int32Array, at: number, row: Int32Array): boolean {
    for (let i = 0; i < this.usedFrom; i++) if (block[at + i] !== row[i]) return false
    for (let i = 0; i < this.guards.length; i++) {
      const guards = this.guards[i]!
      const used = row[this.usedFrom + i]!
      if (((((used | guards) >>> 0) - block[at + this.usedFrom + i]!) & guards) !== guards) return false
    }
    return true
  }

  /** Of event, state and bits: comparable rows share a bucket. */
  private hash(words: Int32Array, at: number): number {
    let hash = 0x9e3779b9 | 0
    for (let i = 0; i < this.usedFrom; i++) {
      hash = Math.imul(hash ^ words[at + i]!, 0x85ebca6b)
      hash ^= hash >>> 15
    }
    return hash ^ (hash >>> 13)
  }

  private grow(): void {
    this.buckets = new Int32Array(2 * this.buckets.length).fill(-1)
    for (let number = 0; number < this.count; number++) {
      const block = this.blocks[number >> this.blockShift]!
      const at = this.placeOf(number)
      const bucket = this.hash(block, at + 1) & (this.buckets.length - 1)
      block[at] = this.buckets[bucket]!
      this.buckets[bucket] = number
    }
  }
}
