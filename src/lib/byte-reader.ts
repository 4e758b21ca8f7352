import type { Bytes } from './bytes.ts'

/** Bytes ended too soon, or are not in the one form that a writer gives them. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

/**
 * Reads what ByteWriter wrote, strictly: every value has one form, so equal values are equal bytes. Byte strings come
 * back as views of the input.
 */
export class ByteReader {
  private readonly bytes: Bytes
  private position: number

  constructor(bytes: Bytes, position = 0) {
    this.bytes = bytes
    this.position = position
  }

  byte(): number {
    const value = this.bytes[this.position]
    if (value === undefined) throw new Malformed(`ends after ${this.position} bytes`)
    this.position++
    return value
  }

  varint(): number {
    let value = 0
    let scale = 1
    for (let count = 1; ; count++) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (byte === 0 && count > 1) throw new Malformed(`varint before byte ${this.position} is padded`)
        if (!Number.isSafeInteger(value))
          throw new Malformed(`varint before byte ${this.position} is too large`)
        return value
      }
      if (count === 8) throw new Malformed(`varint at byte ${this.position} is too long`)
      scale *= 0x80
    }
  }

  int64(): bigint {
    const bytes = this.raw(8)
    return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigInt64(0)
  }

  raw(length: number): Bytes {
    const from = this.position
    if (from + length > this.bytes.byteLength)
      throw new Malformed(`needs ${length} bytes at ${from}, has ${this.bytes.byteLength - from}`)
    this.position = from + length
    return this.bytes.subarray(from, this.position)
  }

  sized(): Bytes {
    return this.raw(this.varint())
  }

  /** The position of the next byte. */
  get at(): number {
    return this.position
  }

  /** Goes on behind the next `length` bytes. */
  skip(length: number): void {
    if (length > this.remaining)
      throw new Malformed(`needs ${length} bytes at ${this.position}, has ${this.remaining}`)
    this.position += length
  }

  get isAtEnd(): boolean {
    return this.position === this.bytes.byteLength
  }

  get remaining(): number {
    return this.bytes.byteLength - this.position
  }

  /** Throws Malformed if bytes are left. */
  end(): void {
    if (!this.isAtEnd) throw new Malformed(`${this.remaining} bytes too many`)
  }
}
