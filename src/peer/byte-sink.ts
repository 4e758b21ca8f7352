/**
 * Protobuf's primitives into a buffer of a size that is known before. Between nodes all numbers are safe integers, and
 * every message is written while groups wait: a size pass and plain arithmetic cost a fraction of growing a buffer, moving
 * what lies behind a length, and bigint.
 */
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'

/** How many bytes `value` takes as a varint: seven bits a byte. */
export function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

export class ByteSink {
  private readonly buffer: Buffer
  private at = 0

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafe(bytes)
  }

  byte(value: number): void {
    this.buffer[this.at++] = value
  }

  /** `value` is a safe integer ≥ 0. */
  varint(value: number): void {
    let rest = value
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.buffer[this.at++] = (rest % 0x80) | 0x80
    this.buffer[this.at++] = rest
  }

  bytes(value: Bytes): void {
    this.varint(value.byteLength)
    this.buffer.set(value, this.at)
    this.at += value.byteLength
  }

  finish(): Buffer {
    assert(this.at === this.buffer.length, `${this.at} bytes written, ${this.buffer.length} foreseen`)
    return this.buffer
  }
}
