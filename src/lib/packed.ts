import { ByteReader } from './byte-reader.ts'
import type { Bytes } from './bytes.ts'
import { varintBytes, writeVarint } from './varint.ts'

/**
 * Byte strings one after another in one array, each behind its length as a varint: thousands of small ones are one object to
 * keep, to pass on and to collect.
 */
export interface Packed {
  readonly bytes: Bytes
  readonly count: number
}

export function pack(parts: readonly Bytes[]): Packed {
  let total = 0
  for (const { byteLength } of parts) total += varintBytes(byteLength) + byteLength
  const bytes = new Uint8Array(total)
  let at = 0
  for (const part of parts) {
    at = writeVarint(bytes, at, part.byteLength)
    bytes.set(part, at)
    at += part.byteLength
  }
  return { bytes, count: parts.length }
}

/** Views. Throws Malformed. */
export function unpack(bytes: Bytes): Bytes[] {
  const parts: Bytes[] = []
  for (const walk = new PackedWalk(bytes); walk.next(); ) parts.push(bytes.subarray(walk.from, walk.to))
  return parts
}

/** Throws Malformed where the bytes are not whole byte strings. */
export function asPacked(bytes: Bytes): Packed {
  let count = 0
  for (const walk = new PackedWalk(bytes); walk.next(); ) count++
  return { bytes, count }
}

/** From one byte string to the next. */
export class PackedWalk {
  private readonly reader: ByteReader
  /** Where the one that it is at lies, without its length. */
  from = 0
  to = 0

  constructor(bytes: Bytes) {
    this.reader = new ByteReader(bytes)
  }

  /** False behind the last. Throws Malformed. */
  next(): boolean {
    const { reader } = this
    if (reader.isAtEnd) return false
    const length = reader.varint()
    this.from = reader.at
    reader.skip(length)
    this.to = reader.at
    return true
  }
}
