/**
 * Records on the wire of log.v1, by hand: they are many, and each passes here once in and once out. What comes in is
 * bounded while it is read (two bytes can make an element of a repeated field, and a hundred bytes of memory); what goes
 * out is measured first and written into a buffer that fits.
 */
import type { BinaryReader } from '@bufbuild/protobuf/wire'
import type { ProduceRequest } from '../../gen/log/v1/log.ts'
import { decodeKept, type KeptRecord, type RecordHeader } from '../../keyspace/record.ts'
import type { Bytes } from '../../lib/bytes.ts'
import type { ProducedRecord } from '../../node/ports.ts'
import { produceLimits } from '../../node/stream-batch.ts'
import type { Decoder } from '../../peer/proto-io.ts'

/** A ProduceRequest with its records as the node takes them. */
export interface ArrivedBatch extends Pick<ProduceRequest, 'stream' | 'session' | 'sequence' | 'ackedBelow'> {
  readonly partition: number | null
  /** One more than are accepted says that there were too many. */
  readonly records: readonly ProducedRecord[]
  readonly acks: number
}

const nothing = Buffer.alloc(0)
/** Field number and wire type of what is read and written. */
const tag = {
  value: (1 << 3) | 2,
  offset: (2 << 3) | 0,
  term: (3 << 3) | 0,
  type: (4 << 3) | 0,
  key: (16 << 3) | 2,
  headers: (17 << 3) | 2,
  timestamp: (18 << 3) | 0,
  crc: (19 << 3) | 5,
  headerName: (1 << 3) | 2,
  headerValue: (2 << 3) | 2,
} as const

export const produceRequestType: Decoder<ArrivedBatch> = {
  decode(input) {
    const reader = input as BinaryReader
    let stream = ''
    let partition: number | null = null
    let acks = 0
    let session: Buffer = nothing
    let sequence = 0n
    let ackedBelow = 0n
    const records: ProducedRecord[] = []
    const { recordsMax } = produceLimits
    while (reader.pos < reader.len) {
      const next = reader.uint32()
      if (next === 10 || next === 146) {
        const end = reader.uint32() + reader.pos
        if (records.length > recordsMax) skipTo(reader, end)
        else records.push(readRecord(reader, end))
      } else if (next === 130) stream = reader.string()
      else if (next === 136) partition = reader.uint32()
      else if (next === 152) acks = reader.int32()
      else if (next === 162) session = asBuffer(reader.bytes())
      else if (next === 168) sequence = BigInt(reader.uint64())
      else if (next === 176) ackedBelow = BigInt(reader.uint64())
      else skip(reader, next)
    }
    return { stream, partition, records, acks, session, sequence, ackedBelow }
  },
}

function readRecord(reader: BinaryReader, end: number): ProducedRecord {
  let value: Bytes = nothing
  let key: Bytes | null = null
  let type = 0
  let crc: number | undefined
  const headers: RecordHeader[] = []
  while (reader.pos < end) {
    const next = reader.uint32()
    if (next === tag.value) value = reader.bytes()
    else if (next === tag.type) type = reader.uint32()
    else if (next === tag.key) key = reader.bytes()
    else if (next === tag.headers) {
      const headerEnd = reader.uint32() + reader.pos
      if (headers.length > produceLimits.headersMax) skipTo(reader, headerEnd)
      else headers.push(readHeader(reader, headerEnd))
    } else if (next === tag.crc) crc = reader.fixed32()
    else skip(reader, next)
  }
  if (reader.pos !== end) throw new RangeError('a record that ends in the middle of a field')
  return crc === undefined ? { value, key, headers, type } : { value, key, headers, type, crc }
}

function readHeader(reader: BinaryReader, end: number): RecordHeader {
  let name = ''
  let value: Bytes = nothing
  while (reader.pos < end) {
    const next = reader.uint32()
    if (next === tag.headerName) name = reader.string()
    else if (next === tag.headerValue) value = reader.bytes()
    else skip(reader, next)
  }
  if (reader.pos !== end) throw new RangeError('a header that ends in the middle of a field')
  return { name, value }
}

function skip(reader: BinaryReader, next: number): void {
  const field = next >>> 3
  if (field === 0) throw new RangeError('field 0')
  reader.skip((next & 7) as Parameters<BinaryReader['skip']>[0], field)
}

function skipTo(reader: BinaryReader, end: number): void {
  if (end > reader.len) throw new RangeError('a field that is longer than its message')
  reader.pos = end
}

// --- Out ------------------------------------------------------------------------------------------------------------

export interface Around {
  readonly start: number
  readonly end: number
  readonly lagMs: number
}

interface Measured {
  readonly record: KeptRecord
  readonly offset: number
  readonly crc: number
  readonly names: readonly Buffer[]
  readonly bytes: number
}

/** A ConsumeResponse with one record in `record`. */
export function encodeRecordResponse(kept: Bytes, offset: number, around: Around): Buffer {
  return encodeResponse([measure(kept, offset)], 18, around)
}

/** A ConsumeResponse with all of them in `records`. The first has the offset `from`. */
export function encodeBatchResponse(kept: readonly Bytes[], from: number, around: Around): Buffer {
  return encodeResponse(
    kept.map((each, i) => measure(each, from + i)),
    130,
    around,
  )
}

function encodeResponse(records: readonly Measured[], recordTag: number, around: Around): Buffer {
  const { start, end, lagMs } = around
  let bytes = varintField(136, start) + varintField(144, end) + varintField(152, lagMs)
  for (const record of records) bytes += varintBytes(recordTag) + varintBytes(record.bytes) + record.bytes
  const out = new Cursor(bytes)
  for (const each of records) {
    out.varint(recordTag)
    out.varint(each.bytes)
    writeRecord(out, each)
  }
  out.field(136, start)
  out.field(144, end)
  out.field(152, lagMs)
  return out.buffer
}

function measure(kept: Bytes, offset: number): Measured {
  const record = decodeKept(kept)
  const { value, key, headers, type, term, timestampMs } = record
  const names = headers.map(({ name }) => Buffer.from(name, 'utf8'))
  let bytes =
    (value.byteLength === 0 ? 0 : sizedField(tag.value, value.byteLength)) +
    varintField(tag.offset, offset) +
    varintField(tag.term, term) +
    varintField(tag.type, type) +
    (key === null ? 0 : sizedField(tag.key, key.byteLength)) +
    varintField(tag.timestamp, timestampMs) +
    varintBytes(tag.crc) +
    4
  for (let i = 0; i < headers.length; i++)
    bytes += sizedField(tag.headers, headerBytes(names[i]!.byteLength, headers[i]!.value.byteLength))
  return { record, offset, crc: crcOf(kept), names, bytes }
}

function writeRecord(out: Cursor, { record, offset, crc, names }: Measured): void {
  const { value, key, headers, type, term, timestampMs } = record
  if (value.byteLength > 0) out.sized(tag.value, value)
  out.field(tag.offset, offset)
  out.field(tag.term, term)
  out.field(tag.type, type)
  if (key !== null) out.sized(tag.key, key)
  for (let i = 0; i < headers.length; i++) {
    const name = names[i]!
    const { value } = headers[i]!
    out.varint(tag.headers)
    out.varint(headerBytes(name.byteLength, value.byteLength))
    out.sized(tag.headerName, name)
    out.sized(tag.headerValue, value)
  }
  out.field(tag.timestamp, timestampMs)
  out.varint(tag.crc)
  out.uint32(crc)
}

/** Of the record inside of a kept one: the four bytes that it begins with, behind two varints. */
function crcOf(kept: Bytes): number {
  let at = 0
  for (let varints = 2; varints > 0; at++) if (kept[at]! < 0x80) varints--
  return (kept[at]! | (kept[at + 1]! << 8) | (kept[at + 2]! << 16) | (kept[at + 3]! << 24)) >>> 0
}

function headerBytes(name: number, value: number): number {
  return sizedField(tag.headerName, name) + sizedField(tag.headerValue, value)
}

function sizedField(fieldTag: number, length: number): number {
  return varintBytes(fieldTag) + varintBytes(length) + length
}

/** A zero is not written: it is what absence means. */
function varintField(fieldTag: number, value: number): number {
  return value === 0 ? 0 : varintBytes(fieldTag) + varintBytes(value)
}

function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

class Cursor {
  readonly buffer: Buffer
  private at = 0

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafe(bytes)
  }

  varint(value: number): void {
    let rest = value
    while (rest >= 0x80) {
      this.buffer[this.at++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.buffer[this.at++] = rest
  }

  field(fieldTag: number, value: number): void {
    if (value === 0) return
    this.varint(fieldTag)
    this.varint(value)
  }

  sized(fieldTag: number, bytes: Bytes): void {
    this.varint(fieldTag)
    this.varint(bytes.byteLength)
    this.buffer.set(bytes, this.at)
    this.at += bytes.byteLength
  }

  uint32(value: number): void {
    this.at = this.buffer.writeUInt32LE(value, this.at)
  }
}

function asBuffer(bytes: Bytes): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
