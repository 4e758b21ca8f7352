import { Malformed } from './byte-reader.ts'
import type { Bytes } from './bytes.ts'

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
  private readonly bytes: Bytes
  /** Where the one that it is at lies, without its length. */
  from = 0
  to = 0

  /** Begins before the first, or before the one that begins at `at`. */
  constructor(bytes: Bytes, at = 0) {
    this.bytes = bytes
    this.to = at
  }

  /** False behind the last. Throws Malformed. */
  next(): boolean {
    const { bytes } = this
    let at = this.to
    if (at === bytes.length) return false
    let length = 0
    let scale = 1
    for (let count = 1; ; count++) {
      const byte = bytes[at++]
      if (byte === undefined || count > lengthBytesMax) throw new Malformed(`a length that ends at ${at}`)
      length += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (byte === 0 && count > 1) throw new Malformed(`the length before byte ${at} is padded`)
        break
      }
      scale *= 0x80
    }
    if (length > bytes.length - at)
      throw new Malformed(`needs ${length} bytes at ${at}, has ${bytes.length - at}`)
    this.from = at
    this.to = at + length
    return true
  }
}

/** Four bytes of a varint reach further than anything that is packed is long. */
const lengthBytesMax = 4

export function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

/** Answers where it ends. */
export function writeVarint(out: Uint8Array, at: number, value: number): number {
  let next = at
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out[next++] = (rest % 0x80) | 0x80
  out[next++] = rest
  return next
}
