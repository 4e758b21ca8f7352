/**
 * Protobuf's primitives out of a buffer, for numbers that are safe integers; the other side of ByteSink. It believes
 * nothing: every read checks its bounds and throws INVALID_ARGUMENT.
 */
import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'

const varint = 0
const fixed64 = 1
const lengthDelimited = 2
const fixed32 = 5

export class ByteSource {
  at = 0
  private readonly buffer: Bytes

  constructor(buffer: Bytes) {
    this.buffer = buffer
  }

  get length(): number {
    return this.buffer.length
  }

  /** A varint of at most 2^53 - 1. */
  number(): number {
    const { buffer } = this
    let value = 0
    let scale = 1
    // Eight bytes carry 56 bits; a ninth one that adds something is beyond a safe integer in any case.
    for (let i = 0; i < 8; i++) {
      if (this.at >= buffer.length) throw malformedFrame('whole numbers')
      const byte = buffer[this.at++]!
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break
        return value
      }
      scale *= 0x80
    }
    throw malformedFrame('numbers from 0 to 2^53 - 1')
  }

  /** Reads a length and returns where what it measures ends, within `end`. */
  lengthWithin(end: number): number {
    const length = this.number()
    if (length > end - this.at) throw malformedFrame('lengths that fit into one another')
    return this.at + length
  }

  /** A view. */
  bytesWithin(end: number): Bytes {
    const to = this.lengthWithin(end)
    const bytes = this.buffer.subarray(this.at, to)
    this.at = to
    return bytes
  }

  /** Passes over a field of a later version. */
  skip(tag: number, end: number): void {
    switch (tag & 7) {
      case varint:
        this.number()
        break
      case fixed64:
        this.at += 8
        break
      case lengthDelimited:
        this.at = this.lengthWithin(end)
        break
      case fixed32:
        this.at += 4
        break
      default:
        throw malformedFrame('wire types of proto3')
    }
  }

  /** Calls `field` for each field up to `end`; those that it does not take (false) are skipped. */
  fields(end: number, field: (tag: number) => boolean): void {
    while (this.at < end) {
      const tag = this.number()
      if (!field(tag)) this.skip(tag, end)
    }
    if (this.at !== end) throw malformedFrame('lengths that fit into one another')
  }
}

export function malformedFrame(accepted: string): RoundhouseError {
  return new RoundhouseError('INVALID_ARGUMENT', { what: 'frame', accepted })
}
