/**
 * Protobuf's primitives into a buffer of a size that is known before. Between nodes all numbers are safe integers, and
 * every message is written while groups wait: a size pass and plain arithmetic cost a fraction of growing a buffer, moving
 * what lies behind a length, and bigint.
 */
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { writeVarint } from '../lib/varint.ts'

/** From here on a byte string may be handed on as it is. */
export const apartBytesMin = 8 * 1024

export class ByteSink {
  private readonly buffer: Buffer
  private at = 0
  /** Of what was handed on and what is before it; where the rest begins. */
  private readonly parts: Buffer[] = []
  private from = 0
  private readonly isGathering: boolean

  /** `isGathering`: byte strings from `apartBytesMin` up are not copied, and not among `bytes`. */
  constructor(bytes: number, isGathering = false) {
    this.buffer = Buffer.allocUnsafe(bytes)
    this.isGathering = isGathering
  }

  byte(value: number): void {
    this.buffer[this.at++] = value
  }

  /** `value` is a safe integer ≥ 0. */
  varint(value: number): void {
    this.at = writeVarint(this.buffer, this.at, value)
  }

  bytes(value: Bytes): void {
    this.varint(value.byteLength)
    if (this.isGathering && value.byteLength >= apartBytesMin) {
      this.cut()
      this.parts.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength))
      return
    }
    this.buffer.set(value, this.at)
    this.at += value.byteLength
  }

  private cut(): void {
    if (this.from < this.at) this.parts.push(this.buffer.subarray(this.from, this.at))
    this.from = this.at
  }

  /** All of it, in pieces. */
  gathered(): Buffer[] {
    const last = this.finish()
    if (this.parts.length === 0) return [last]
    this.cut()
    return this.parts
  }

  finish(): Buffer {
    assert(this.at === this.buffer.length, `${this.at} bytes written, ${this.buffer.length} foreseen`)
    return this.buffer
  }
}
