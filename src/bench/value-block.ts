/** Values are slices of one random block: making them costs next to nothing beside sending them. */
import type { Random } from '../lib/prng.ts'

const blockBytesMin = 64 * 1024

export class ValueBlock {
  private readonly valueBytes: number
  private readonly random: Random
  private readonly block: Buffer

  constructor(valueBytes: number, random: Random) {
    this.valueBytes = valueBytes
    this.random = random
    this.block = Buffer.from(random.bytes(Math.max(blockBytesMin, 2 * valueBytes)))
  }

  next(): Buffer {
    const start = this.random.below(this.block.length - this.valueBytes + 1)
    return this.block.subarray(start, start + this.valueBytes)
  }
}
