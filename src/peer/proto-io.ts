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

/** A protobuf uint64 as the safe integer that everything inside uses. Throws INVALID_ARGUMENT beyond 2^53 - 1. */
export function toSafeInteger(value: bigint, what: string): number {
  if (value < 0n || value > 9007199254740991n) {
    throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted: 'an integer from 0 to 2^53 - 1' })
  }
  return Number(value)
}
