import { RoundhouseError } from '../errors.ts'
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { type Packed, unpack } from '../lib/packed.ts'
import { varintBytes, writeVarint } from '../lib/varint.ts'

/**
 * A record of a stream as bytes. The node that a producer talks to encodes it once; entry, journal, followers and readers
 * carry the same bytes, and their checksum goes with them to the reader.
 *
 * ```
 *  record  CRC-32 of the rest (4, little-endian)
 *          varint type · flags 1 byte (bit 0: a key follows) · [varint length, key]
 *          varint number of headers, each: varint length, name in UTF-8, varint length, value
 *          value: the rest
 *  stamp   varint timestamp, ms since 1970 · varint term
 *  kept    stamp · record
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
/** What a record begins with: the checksum of the rest of it. */
export const sumBytes = 4

export function encodeRecord(record: RecordBody): Bytes {
  return unpack(encodeRecords([record]).bytes)[0]!
}

/** All of a batch, packed: an allocation a batch. */
export function encodeRecords(records: readonly RecordBody[]): Packed {
  const count = records.length
  const names = new Array<readonly Bytes[]>(count)
  const sizes = new Array<number>(count)
  let total = 0
  for (let i = 0; i < count; i++) {
    const { headers } = records[i]!
    names[i] = headers.length === 0 ? none : headers.map(namesOf)
    sizes[i] = recordBytes(records[i]!, names[i]!)
    total += varintBytes(sizes[i]!) + sizes[i]!
  }
  const bytes = new Uint8Array(total)
  let at = 0
  for (let i = 0; i < count; i++) {
    const from = writeVarint(bytes, at, sizes[i]!)
    at = writeRecord(bytes, from, records[i]!, names[i]!)
    const checksum = crc32(bytes.subarray(from + sumBytes, at))
    for (let byte = 0; byte < sumBytes; byte++) bytes[from + byte] = checksum >>> (8 * byte)
  }
  return { bytes, count }
}

const none: readonly Bytes[] = []
const namesOf = ({ name }: RecordHeader) => fromUtf8(name)

function recordBytes({ value, key, headers, type }: RecordBody, names: readonly Bytes[]): number {
  let bytes = sumBytes + varintBytes(type) + 1 + varintBytes(headers.length) + value.byteLength
  if (key !== null) bytes += sizedBytes(key)
  for (let i = 0; i < headers.length; i++) bytes += sizedBytes(names[i]!) + sizedBytes(headers[i]!.value)
  return bytes
}

/** All but the checksum, which goes to `at`; answers the end. */
function writeRecord(out: Uint8Array, at: number, record: RecordBody, names: readonly Bytes[]): number {
  const { value, key, headers, type } = record
  let next = writeVarint(out, at + sumBytes, type)
  out[next++] = key === null ? 0 : flagKey
  if (key !== null) next = writeSized(out, next, key)
  next = writeVarint(out, next, headers.length)
  for (let i = 0; i < headers.length; i++)
    next = writeSized(out, writeSized(out, next, names[i]!), headers[i]!.value)
  out.set(value, next)
  return next + value.byteLength
}

const sizedBytes = ({ byteLength }: Bytes) => varintBytes(byteLength) + byteLength

function writeSized(out: Uint8Array, at: number, bytes: Bytes): number {
  const next = writeVarint(out, at, bytes.byteLength)
  out.set(bytes, next)
  return next + bytes.byteLength
}

/** Throws CORRUPT where the bytes are not a whole record. Byte strings are views. */
export function decodeRecord(bytes: Bytes): RecordBody {
  checkRecord(bytes)
  return parsed(bytes.subarray(sumBytes), readBody)
}

/** Throws CORRUPT as `decodeRecord` does, and makes nothing of the bytes. */
export function proveRecord(bytes: Bytes): void {
  checkRecord(bytes)
  parsed(bytes, reader => {
    reader.skip(sumBytes)
    reader.varint()
    const flags = reader.byte()
    if ((flags & ~flagKey) !== 0) throw new Malformed(`flags ${flags}`)
    if ((flags & flagKey) !== 0) reader.skip(reader.varint())
    for (let left = 2 * reader.varint(); left > 0; left--) reader.skip(reader.varint())
  })
}

/** Throws CORRUPT where the checksum is not that of the bytes. */
function checkRecord(bytes: Bytes): void {
  if (bytes.byteLength < sumBytes || sumAt(bytes, 0) !== crc32(bytes.subarray(sumBytes)))
    throw new RoundhouseError('CORRUPT', { where: 'a record', what: 'its checksum' })
}

/** What a kept record begins with. */
export function recordStamp(timestampMs: number, term: number): Bytes {
  const stamp = new Uint8Array(varintBytes(timestampMs) + varintBytes(term))
  writeVarint(stamp, writeVarint(stamp, 0, timestampMs), term)
  return stamp
}

export function keepRecord(record: Bytes, stamp: Bytes): Bytes {
  const kept = new Uint8Array(stamp.byteLength + record.byteLength)
  kept.set(stamp)
  kept.set(record, stamp.byteLength)
  return kept
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

/**
 * Where the parts of a kept record lie: for who passes records on by the hundred thousand and makes nothing of them. The
 * checksum is not looked at.
 */
export class KeptPlaces {
  timestampMs = 0
  term = 0
  type = 0
  /** Positions of its first bytes; of an absent key -1. */
  crc = 0
  key = -1
  keyEnd = 0
  headerCount = 0
  headers = 0
  value = 0
  valueEnd = 0

  /** Those of `kept`, until the next call. Throws CORRUPT for what is no kept record. */
  of(kept: Bytes): this {
    return parsed(kept, reader => {
      this.timestampMs = reader.varint()
      this.term = reader.varint()
      this.crc = reader.at
      reader.skip(sumBytes)
      this.type = reader.varint()
      const flags = reader.byte()
      if ((flags & ~flagKey) !== 0) throw new Malformed(`flags ${flags}`)
      const keyBytes = (flags & flagKey) === 0 ? 0 : reader.varint()
      this.key = (flags & flagKey) === 0 ? -1 : reader.at
      reader.skip(keyBytes)
      this.keyEnd = reader.at
      this.headerCount = reader.varint()
      this.headers = reader.at
      for (let left = 2 * this.headerCount; left > 0; left--) reader.skip(reader.varint())
      this.value = reader.at
      this.valueEnd = kept.byteLength
      return this
    })
  }
}

/** Only the time of a kept record. */
export function timestampOf(kept: Bytes): number {
  return parsed(kept, reader => reader.varint())
}

/** That of the record that begins at `at`. */
export function sumAt(bytes: Bytes, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
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
