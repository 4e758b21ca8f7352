import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32, crc32Combined, crc32Short } from '../lib/crc.ts'

/** Of a record in a store: its length and its checksum, before its data. */
export const recordHeaderBytes = 8
/** In place of 0, so that zeroes are no record. */
export const checksumOfNone = 1

/**
 * Records one after another in one buffer, as they will lie in a store: each behind room for its header. Data is copied once,
 * into the block; it is read from there while it waits, and written from there, headers and all, in one piece. A record costs
 * no object of its own.
 */
export class RecordBlock {
  /** As much as is in use, and as may be. */
  private readonly bytes: Uint8Array
  /** Where each record ends. */
  private readonly ends: number[] = []
  /** Of each record: how much of its data is before the part whose checksum is known, and that checksum; all of it: none is. */
  private readonly heads: number[] = []
  private readonly tailSums: number[] = []
  /** So many at the front are not in it any more. */
  private skipped = 0
  /** Of the data of those that are in it. */
  dataBytes = 0

  constructor(capacity: number) {
    // Of its own memory, and not zeroed: nobody reads what was not written.
    this.bytes = new Uint8Array(Buffer.allocUnsafeSlow(capacity).buffer)
  }

  /** Of these records alone. */
  static of(records: readonly Bytes[]): RecordBlock {
    const block = new RecordBlock(
      records.reduce((sum, { byteLength }) => sum + recordHeaderBytes + byteLength, 0),
    )
    for (const record of records) block.add(none, record)
    return block
  }

  get count(): number {
    return this.ends.length - this.skipped
  }

  get capacity(): number {
    return this.bytes.byteLength
  }

  /** Bytes that are left, a record's header among them. */
  get room(): number {
    return this.bytes.byteLength - this.end
  }

  /**
   * Adds a record: `ahead`, which is short, and the bytes of `rest` that `from` and `to` name. There must be room. `tailSum` is
   * the CRC-32 of its last `tailBytes`, where the caller knows it: then nobody need go over those again.
   */
  add(ahead: Bytes, rest: Bytes, from = 0, to = rest.length, tailBytes = 0, tailSum = 0): void {
    const { bytes } = this
    let at = this.end + recordHeaderBytes
    for (let i = 0; i < ahead.length; i++) bytes[at++] = ahead[i]!
    bytes.set(new Uint8Array(rest.buffer, rest.byteOffset + from, to - from), at)
    this.ends.push(at + to - from)
    this.heads.push(ahead.length + to - from - tailBytes)
    this.tailSums.push(tailSum | 0)
    this.dataBytes += ahead.length + to - from
  }

  /** The data of the record `index`, counted from the first that is in it. */
  data(index: number): Bytes {
    const at = this.startOf(index) + recordHeaderBytes
    return new Uint8Array(this.bytes.buffer, at, this.ends[this.skipped + index]! - at)
  }

  dataBytesOf(index: number): number {
    return this.ends[this.skipped + index]! - this.startOf(index) - recordHeaderBytes
  }

  /** The first `count` go. */
  skip(count: number): void {
    assert(count <= this.count, `a block of ${this.count} records skips ${count}`)
    for (let i = 0; i < count; i++) this.dataBytes -= this.dataBytesOf(i)
    this.skipped += count
  }

  /** Where a record begins in `image`; of `count`, how long that is. */
  position(index: number): number {
    return this.startOf(index) - this.startOf(0)
  }

  /** What is to be written: the records with their headers, whose checksums begin with the seed that each has at its place. */
  image(seedOf: (index: number) => number): Bytes {
    const { bytes, count } = this
    for (let i = 0; i < count; i++) {
      const at = this.startOf(i)
      writeUint32(bytes, at, this.dataBytesOf(i))
      writeUint32(bytes, at + 4, this.checksum(i, seedOf(i)) || checksumOfNone)
    }
    return bytes.subarray(this.startOf(0), this.end)
  }

  private checksum(index: number, seed: number): number {
    const from = this.startOf(index) + recordHeaderBytes
    const to = this.ends[this.skipped + index]!
    const head = this.heads[this.skipped + index]!
    if (from + head === to) return crc32(this.data(index), seed)
    // What has changed since its checksum was made does not fit this one either: a reader will find it.
    const begun = crc32Short(this.bytes, from, from + head, seed)
    return crc32Combined(begun, this.tailSums[this.skipped + index]!, to - from - head)
  }

  private get end(): number {
    return this.ends.length === 0 ? 0 : this.ends[this.ends.length - 1]!
  }

  private startOf(index: number): number {
    const at = this.skipped + index
    return at === 0 ? 0 : this.ends[at - 1]!
  }
}

const none = new Uint8Array(0)

function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}
