import { type ByteReader, Malformed } from '../lib/byte-reader.ts'
import type { ByteWriter } from '../lib/byte-writer.ts'
import type { ListItem, Reply } from './command.ts'
import { countOf } from './integer.ts'

/**
 * Replies as bytes, for a session's rows.
 *
 * ```
 *  kind 1 byte, then
 *    0 nil
 *    1 value     varint length, bytes
 *    2 success   flags 1 byte (bit 0: the outcome, bit 1: an integer follows) [varint]
 *    3 count     int64, big-endian
 *    4 list      flags 1 byte (bit 0: a cursor follows) [sized cursor] varint count, each:
 *                  flags 1 byte (bit 0: key, bit 1: value) [sized key] [sized value]
 * ```
 */
const kinds = ['nil', 'value', 'success', 'count', 'list'] as const

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

function readFlags(reader: ByteReader, known: number): number {
  const flags = reader.byte()
  if ((flags & ~known) !== 0) throw new Malformed(`flags ${flags}`)
  return flags
}
