/**
 * How protobuf messages become bytes and back on this node's gRPC paths. A writer is kept between messages (a fresh one
 * costs more than a small message), and text must be UTF-8: the default decoder would turn two different broken keys
 * into the same replacement characters.
 */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'
import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'

export interface Encoder<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter
}

export interface Decoder<T> {
  decode(input: BinaryReader | Uint8Array, length?: number): T
}

/** A writer that grew beyond this for one large message is not kept. */
const keptWriterBytesMax = 1024 * 1024

let shared = new BinaryWriter()

/** The bytes that `write` writes, in a buffer of their own. `write` may not call `encodeWith` itself. */
export function encodeWith(write: (writer: BinaryWriter) => void): Buffer {
  const writer = shared
  let bytes: Uint8Array
  try {
    write(writer)
    bytes = writer.finish()
  } catch (error) {
    // What was half written must not become the start of the next message.
    shared = new BinaryWriter()
    throw error
  }
  if (bytes.byteLength > keptWriterBytesMax) shared = new BinaryWriter()
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function encodeMessage<T>(type: Encoder<T>, message: T): Buffer {
  return encodeWith(writer => type.encode(message, writer))
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const decodeStrictly = (bytes: Uint8Array) => strict.decode(bytes)

/** Text that is not UTF-8 throws. */
export function strictReader(bytes: Bytes): BinaryReader {
  return new BinaryReader(bytes, decodeStrictly)
}

/** Throws what protobuf throws where `bytes` is no such message or its text is not UTF-8. */
export function decodeMessage<T>(type: Decoder<T>, bytes: Bytes): T {
  const reader = strictReader(bytes)
  const message = type.decode(reader)
  // The generated code takes a zero tag for the end, wherever it stands.
  if (reader.pos !== reader.len) throw new RangeError(`${reader.len - reader.pos} bytes after the message`)
  return message
}

/**
 * Whether there are more than `max` fields at the top of a message; asked before it is decoded. Two bytes can make an
 * element of a repeated field, and a hundred bytes of memory: 16 MiB of them took 9 s and 1.8 GB. The walk allocates
 * nothing. Where the bytes are no message it says what it saw until there, and decoding says the rest.
 */
export function hasMoreFields(bytes: Bytes, max: number): boolean {
  const { length } = bytes
  // No message so short has that many.
  if (length <= 2 * max) return false
  let at = 0
  let fields = 0
  while (at < length) {
    if (++fields > max) return true
    const wireType = bytes[at]! & 7
    at = afterVarint(bytes, at)
    if (wireType === 0) at = afterVarint(bytes, at)
    else if (wireType === 1) at += 8
    else if (wireType === 5) at += 4
    else if (wireType === 2) {
      const lengthEnd = afterVarint(bytes, at)
      let value = 0
      for (let i = lengthEnd - 1; i >= at; i--) value = value * 0x80 + (bytes[i]! & 0x7f)
      at = lengthEnd + value
    }
    // A group's fields are counted like those around it.
  }
  return false
}

function afterVarint(bytes: Bytes, from: number): number {
  let at = from
  while (at < bytes.length && bytes[at]! >= 0x80) at++
  return at + 1
}

/** A protobuf uint64 as the safe integer that everything inside uses. Throws INVALID_ARGUMENT beyond 2^53 - 1. */
export function toSafeInteger(value: bigint, what: string): number {
  if (value < 0n || value > 9007199254740991n) {
    throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted: 'an integer from 0 to 2^53 - 1' })
  }
  return Number(value)
}
