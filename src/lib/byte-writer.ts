import { BrokenInvariant } from './assert.ts'
import type { Bytes } from './bytes.ts'

/**
 * Builds bytes from the front. Integers are varints (LEB128: seven bits a byte, low ones first, the high bit says that
 * more follow; always the shortest form) or big-endian of fixed width.
 */
export class ByteWriter {
  private bytes: Uint8Array
  private length = 0

  constructor(bytesExpected = 64) {
    // Most writers are short-lived and one at a time: they take turns with one buffer, and only `finish` allocates.
    if (spare !== null && bytesExpected <= spareBytes) {
      this.bytes = spare
      spare = null
    } else this.bytes = unzeroed(bytesExpected)
  }

  /** Bytes so far. */
  get written(): number {
    return this.length
  }

  private room(bytes: number): void {
    if (this.length + bytes <= this.bytes.byteLength) return
    const grown = unzeroed(Math.max(this.bytes.byteLength * 2, this.length + bytes))
    grown.set(this.bytes.subarray(0, this.length))
    if (this.bytes.byteLength === spareBytes) spare = this.bytes
    this.bytes = grown
  }

  byte(value: number): void {
    this.room(1)
    this.bytes[this.length++] = value
  }

  /** A safe integer ≥ 0: one to eight bytes. */
  varint(value: number): void {
    // Written by the million: no message is made before it is needed.
    if (!(Number.isSafeInteger(value) && value >= 0)) throw new BrokenInvariant(`${value} is no varint`)
    this.room(8)
    while (value >= 0x80) {
      this.bytes[this.length++] = (value % 0x80) | 0x80
      value = Math.floor(value / 0x80)
    }
    this.bytes[this.length++] = value
  }

  /** Eight bytes, two's complement, big-endian. */
  int64(value: bigint): void {
    this.room(8)
    new DataView(this.bytes.buffer, this.bytes.byteOffset).setBigInt64(this.length, value)
    this.length += 8
  }

  raw(bytes: Bytes): void {
    this.room(bytes.byteLength)
    this.bytes.set(bytes, this.length)
    this.length += bytes.byteLength
  }

  /** A varint length, then the chars 0–255 of `text`, a byte each. */
  sizedLatin1(text: string): void {
    this.varint(text.length)
    this.room(text.length)
    for (let i = 0; i < text.length; i++) this.bytes[this.length++] = text.charCodeAt(i)
  }

  /** A varint length, then the bytes. */
  sized(bytes: Bytes): void {
    this.varint(bytes.byteLength)
    this.raw(bytes)
  }

  /** What was written, in a buffer of its own. Ends the writer. */
  finish(): Bytes {
    const { byteLength } = this.bytes
    // What fits well is handed out as it is: of a long one a copy would be as much again to collect.
    const isFit = byteLength > spareBytes && byteLength - this.length <= byteLength / 16
    const written = isFit ? this.bytes.subarray(0, this.length) : this.bytes.slice(0, this.length)
    if (byteLength === spareBytes) spare = this.bytes
    this.bytes = nothing
    this.length = 0
    return written
  }
}

const spareBytes = 16 * 1024
let spare: Uint8Array | null = new Uint8Array(spareBytes)
const nothing = new Uint8Array(0)

/** Memory of its own; nobody reads of it what was not written. */
function unzeroed(bytes: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer)
}
