import { isErrorCode, RemoteError, RoundhouseError } from '../errors.ts'
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { ListItem, Reply } from './command.ts'
import { countOf } from './integer.ts'

/**
 * Replies and errors as bytes: for a session's rows and for what nodes forward to each other.
 *
 * ```
 *  reply   kind 1 byte, then
 *    0 nil
 *    1 value     varint length, bytes
 *    2 success   flags 1 byte (bit 0: the outcome, bit 1: an integer follows) [varint]
 *    3 count     int64, big-endian
 *    4 list      flags 1 byte (bit 0: a cursor follows) [sized cursor] varint count, each:
 *                  flags 1 byte (bit 0: key, bit 1: value) [sized key] [sized value]
 *  error   sized code, sized text, flags 1 byte (bit 0: an address follows) [sized leader address], all UTF-8
 * ```
 */
const kinds = ['nil', 'value', 'success', 'count', 'list'] as const

export function encodeReply(reply: Reply): Bytes {
  const writer = new ByteWriter(reply.kind === 'value' ? reply.value.byteLength + 6 : 32)
  writeReply(writer, reply)
  return writer.finish()
}

/** Byte strings in the reply are views of `bytes`. Throws CORRUPT. */
export function decodeReply(bytes: Bytes): Reply {
  return strictly(bytes, 'reply', readReply)
}

export function writeReply(writer: ByteWriter, reply: Reply): void {
  writer.byte(kinds.indexOf(reply.kind))
  switch (reply.kind) {
    case 'nil':
      return
    case 'value':
      writer.sized(reply.value)
      return
    case 'success':
      writer.byte((reply.success ? 1 : 0) | (reply.integer === undefined ? 0 : 2))
      if (reply.integer !== undefined) writer.varint(reply.integer)
      return
    case 'count':
      writer.int64(BigInt(reply.count))
      return
    case 'list':
      writer.byte(reply.cursor === undefined ? 0 : 1)
      if (reply.cursor !== undefined) writer.sized(reply.cursor)
      writer.varint(reply.items.length)
      for (const { key, value } of reply.items) {
        writer.byte((key === undefined ? 0 : 1) | (value === undefined ? 0 : 2))
        if (key !== undefined) writer.sized(key)
        if (value !== undefined) writer.sized(value)
      }
  }
}

export function readReply(reader: ByteReader): Reply {
  const byte = reader.byte()
  const kind = kinds[byte]
  if (kind === undefined) throw new Malformed(`reply of kind ${byte}`)
  switch (kind) {
    case 'nil':
      return { kind }
    case 'value':
      return { kind, value: reader.sized() }
    case 'success': {
      const flags = readFlags(reader, 3)
      const success = (flags & 1) !== 0
      return (flags & 2) === 0 ? { kind, success } : { kind, success, integer: reader.varint() }
    }
    case 'count':
      return { kind, count: countOf(reader.int64()) }
    case 'list': {
      const cursor = readFlags(reader, 1) === 0 ? undefined : reader.sized()
      const items: ListItem[] = []
      for (let left = reader.varint(); left > 0; left--) {
        const flags = readFlags(reader, 3)
        const key = (flags & 1) === 0 ? {} : { key: reader.sized() }
        const value = (flags & 2) === 0 ? {} : { value: reader.sized() }
        items.push({ ...key, ...value })
      }
      return cursor === undefined ? { kind, items } : { kind, items, cursor }
    }
  }
}

export function encodeError(error: RoundhouseError | RemoteError): Bytes {
  const writer = new ByteWriter(128)
  const leaderAddress = leaderAddressOf(error)
  writer.sized(fromUtf8(error.code))
  writer.sized(fromUtf8(error.message))
  writer.byte(leaderAddress === null ? 0 : 1)
  if (leaderAddress !== null) writer.sized(fromUtf8(leaderAddress))
  return writer.finish()
}

/** Throws CORRUPT. */
export function decodeError(bytes: Bytes): RemoteError {
  return strictly(bytes, 'error', reader => {
    const code = toUtf8(reader.sized())
    if (!isErrorCode(code)) throw new Malformed(`error code ${code}`)
    const text = toUtf8(reader.sized())
    return new RemoteError(code, text, readFlags(reader, 1) === 0 ? null : toUtf8(reader.sized()))
  })
}

function leaderAddressOf(error: RoundhouseError | RemoteError): string | null {
  if (error instanceof RemoteError) return error.leaderAddress
  return 'address' in error.facts && error.code === 'NOT_LEADER' ? error.facts.address : null
}

function readFlags(reader: ByteReader, known: number): number {
  const flags = reader.byte()
  if ((flags & ~known) !== 0) throw new Malformed(`flags ${flags}`)
  return flags
}

function strictly<T>(bytes: Bytes, what: string, read: (reader: ByteReader) => T): T {
  const reader = new ByteReader(bytes)
  try {
    const value = read(reader)
    reader.end()
    return value
  } catch (error) {
    if (error instanceof Malformed) throw new RoundhouseError('CORRUPT', { where: what, what: error.message })
    throw error
  }
}
