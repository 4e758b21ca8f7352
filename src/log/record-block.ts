import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'

/** Of a record in a store: its length and its checksum, before its data. */
export const recordHeaderBytes = 8

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

  /** Adds a record: `ahead`, which is short, and the bytes of `rest` that `from` and `to` name. There must be room. */
  add(ahead: Bytes, rest: Bytes, from = 0, to = rest.length): void {
    const { bytes } = this
    let at = this.end + recordHeaderBytes
    for (let i = 0; i < ahead.length; i++) bytes[at++] = ahead[i]!
    bytes.set(new Uint8Array(rest.buffer, rest.byteOffset + from, to - from), at)
    this.ends.push(at + to - from)
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

  /** What is to be written: the records with their headers, by the checksum that each has at its place. */
  image(checksumOf: (index: number, data: Bytes) => number): Bytes {
    const { bytes, count } = this
    for (let i = 0; i < count; i++) {
      const at = this.startOf(i)
      const data = this.data(i)
      writeUint32(bytes, at, data.length)
      writeUint32(bytes, at + 4, checksumOf(i, data))
    }
    return bytes.subarray(this.startOf(0), this.end)
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
