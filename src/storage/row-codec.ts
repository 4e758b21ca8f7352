import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'

/**
 * Rows as bytes, and the checks over them.
 *
 * Packed rows, the form in which rows travel between threads and lie in a snapshot's blocks (little-endian):
 *
 *     keyLength u32 | valueLength u32 (0xffffffff = deleted) | key | checksum u32 | value     (deleted: ends after the key)
 *
 * checksum = CRC-32 over key and value, started with the key's length so that the border between them counts too. LMDB
 * has no page checksums; this one, stored before the value and checked on every read, stands in for them.
 */
const tombstone = 0xffff_ffff
const headBytes = 8

/** Longest key that a row may have: LMDB ends at 1,978, RowStore at 1,900. */
export const keyBytesMax = 1_900

interface LatinBuffer extends Buffer {
  latin1Write(text: string, offset: number): number
  latin1Slice(from: number, to: number): string
}

/** Room for the longest key that can come out of a broken page. */
const keyScratch = Buffer.alloc(4_096) as LatinBuffer

export function bufferOf(bytes: Bytes): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function rowChecksum(key: string, value: Bytes): number {
  assert(key.length <= keyScratch.length, `a key of ${key.length} bytes is longer than any row's`)
  keyScratch.latin1Write(key, 0)
  const ofKey = crc32(keyScratch.subarray(0, key.length), key.length)
  // zlib answers 0, not the seed, for an empty array with no memory behind it (`new Uint8Array(new ArrayBuffer(0))`).
  return value.byteLength === 0 ? ofKey : crc32(value, ofKey)
}

export function packedBytes(key: string, value: Bytes | null): number {
  return headBytes + key.length + (value === null ? 0 : 4 + value.byteLength)
}

/** Writes one row at `position` and returns the position after it. With no checksum given, one is computed. */
export function packRow(
  target: Buffer,
  position: number,
  key: string,
  value: Bytes | null,
  checksum?: number,
): number {
  target.writeUInt32LE(key.length, position)
  target.writeUInt32LE(value === null ? tombstone : value.byteLength, position + 4)
  ;(target as LatinBuffer).latin1Write(key, position + headBytes)
  const afterKey = position + headBytes + key.length
  if (value === null) return afterKey
  target.writeUInt32LE(checksum ?? rowChecksum(key, value), afterKey)
  target.set(value, afterKey + 4)
  return afterKey + 4 + value.byteLength
}

export interface PackedRow {
  readonly key: string
  readonly deleted: boolean
  /** As packed; `rowChecksum` of key and value, if nothing broke. */
  readonly checksum: number
  /** Views of the packed bytes: the value, and checksum and value as a base stores them. */
  readonly value: Bytes
  readonly stored: Buffer
}

const nothing = Buffer.alloc(0)

/** The rows of a packed buffer, or a throw by `fail` where the lengths don't add up. */
export function* unpackRows(packed: Bytes, fail: (what: string) => Error): Generator<PackedRow> {
  const buffer = bufferOf(packed) as LatinBuffer
  let position = 0
  while (position < buffer.length) {
    if (position + headBytes > buffer.length) throw fail('a row is cut')
    const keyLength = buffer.readUInt32LE(position)
    const valueLength = buffer.readUInt32LE(position + 4)
    const keyEnd = position + headBytes + keyLength
    if (keyLength > keyBytesMax || keyEnd > buffer.length) throw fail(`a key of ${keyLength} bytes`)
    const key = buffer.latin1Slice(position + headBytes, keyEnd)
    if (valueLength === tombstone) {
      yield { key, deleted: true, checksum: 0, value: nothing, stored: nothing }
      position = keyEnd
      continue
    }
    const end = keyEnd + 4 + valueLength
    if (end > buffer.length) throw fail(`a value of ${valueLength} bytes`)
    yield {
      key,
      deleted: false,
      checksum: buffer.readUInt32LE(keyEnd),
      value: buffer.subarray(keyEnd + 4, end),
      stored: buffer.subarray(keyEnd, end),
    }
    position = end
  }
}

/**
 * How many rows and an order-free digest of them: two 32-bit sums over the rows' checksums, the second of them mixed, so
 * that two changes which cancel in one sum don't in the other. Rows come and go without reading the others. The digest
 * depends on the rows alone: replicas of a shard at the same index have the same.
 */
export class RowDigest {
  count: number
  sum: number
  mixed: number

  constructor(from: { readonly count: number; readonly sum: number; readonly mixed: number } | null = null) {
    this.count = from?.count ?? 0
    this.sum = from?.sum ?? 0
    this.mixed = from?.mixed ?? 0
  }

  add(checksum: number): void {
    this.count++
    this.sum = (this.sum + checksum) >>> 0
    this.mixed = (this.mixed + mix(checksum)) >>> 0
  }

  remove(checksum: number): void {
    this.count--
    this.sum = (this.sum - checksum) >>> 0
    this.mixed = (this.mixed - mix(checksum)) >>> 0
  }

  equals(other: { readonly count: number; readonly sum: number; readonly mixed: number }): boolean {
    return this.count === other.count && this.sum === other.sum && this.mixed === other.mixed
  }
}

/** MurmurHash3's finalizer: every bit of the input moves half of the output's. */
function mix(value: number): number {
  let z = value ^ (value >>> 16)
  z = Math.imul(z, 0x85ebca6b)
  z ^= z >>> 13
  z = Math.imul(z, 0xc2b2ae35)
  return (z ^ (z >>> 16)) >>> 0
}
