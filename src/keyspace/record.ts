import { RoundhouseError } from '../errors.ts'
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'

/**
 * A record of a stream as bytes. The node that a producer talks to encodes it once; entry, journal, followers and readers
 * carry the same bytes, and their checksum goes with them to the reader.
 *
 * ```
 *  record  CRC-32 of the rest (4, little-endian)
 *          varint type · flags 1 byte (bit 0: a key follows) · [varint length, key]
 *          varint number of headers, each: varint length, name in UTF-8, varint length, value
 *          value: the rest
 *  kept    varint timestamp, ms since 1970 · varint term · record
 * ```
 *
 * `kept` is what lies in the segment log and what a read answers; the offset is the record's place in the log.
 */
export interface RecordBody {
  readonly value: Bytes
  readonly key: Bytes | null
  readonly headers: readonly RecordHeader[]
  /** Whatever the producer means by it; 0 by default. */
  readonly type: number
}

export interface RecordHeader {
  readonly name: string
  readonly value: Bytes
}

export interface KeptRecord extends RecordBody {
  /** By the shard's log clock; never less than that of the record before it. */
  readonly timestampMs: number
  /** Raft term of the entry that brought it. */
  readonly term: number
}

const flagKey = 1
const crcBytes = 4

export function encodeRecord({ value, key, headers, type }: RecordBody): Bytes {
  const writer = new ByteWriter(value.byteLength + (key?.byteLength ?? 0) + 16)
  writer.raw(new Uint8Array(crcBytes))
  writer.varint(type)
  writer.byte(key === null ? 0 : flagKey)
  if (key !== null) writer.sized(key)
  writer.varint(headers.length)
  for (const header of headers) {
    writer.sized(fromUtf8(header.name))
    writer.sized(header.value)
  }
  writer.raw(value)
  const bytes = writer.finish()
  const checksum = crc32(bytes.subarray(crcBytes))
  for (let i = 0; i < crcBytes; i++) bytes[i] = checksum >>> (8 * i)
  return bytes
}

/** Throws CORRUPT where the bytes are not a whole record. Byte strings are views. */
export function decodeRecord(bytes: Bytes): RecordBody {
  checkRecord(bytes)
  return parsed(bytes.subarray(crcBytes), readBody)
}

/** Throws CORRUPT where the checksum is not that of the bytes. */
function checkRecord(bytes: Bytes): void {
  if (bytes.byteLength < crcBytes || checksumOf(bytes) !== crc32(bytes.subarray(crcBytes)))
    throw new RoundhouseError('CORRUPT', { where: 'a record', what: 'its checksum' })
}

/** The record with its place in time before it. */
export function keepRecord(record: Bytes, timestampMs: number, term: number): Bytes {
  const writer = new ByteWriter(record.byteLength + 12)
  writer.varint(timestampMs)
  writer.varint(term)
  writer.raw(record)
  return writer.finish()
}

/** Throws CORRUPT as `decodeRecord` does. */
export function decodeKept(bytes: Bytes): KeptRecord {
  return parsed(bytes, reader => {
    const timestampMs = reader.varint()
    const term = reader.varint()
    const record = reader.raw(reader.remaining)
    return { timestampMs, term, ...decodeRecord(record) }
  })
}

/** Only the time of a kept record. */
export function timestampOf(kept: Bytes): number {
  return parsed(kept, reader => reader.varint())
}

function checksumOf(bytes: Bytes): number {
  return (bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)) >>> 0
}

function readBody(reader: ByteReader): RecordBody {
  const type = reader.varint()
  const flags = reader.byte()
  if ((flags & ~flagKey) !== 0) throw new Malformed(`flags ${flags}`)
  const key = (flags & flagKey) === 0 ? null : reader.sized()
  const headers: RecordHeader[] = []
  for (let left = reader.varint(); left > 0; left--)
    headers.push({ name: toUtf8(reader.sized()), value: reader.sized() })
  return { type, key, headers, value: reader.raw(reader.remaining) }
}

function parsed<T>(bytes: Bytes, read: (reader: ByteReader) => T): T {
  try {
    return read(new ByteReader(bytes))
  } catch (error) {
    if (error instanceof Malformed)
      throw new RoundhouseError('CORRUPT', { where: 'a record', what: error.message })
    throw error
  }
}
