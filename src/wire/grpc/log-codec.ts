/**
 * Records on the wire of log.v1, by hand: they are many, and each passes here once in and once out. What comes in is
 * bounded while it is read (two bytes can make an element of a repeated field, and a hundred bytes of memory); what goes
 * out is measured first and written into a buffer that fits.
 */
import type { BinaryReader } from '@bufbuild/protobuf/wire'
import type { ProduceRequest } from '../../gen/log/v1/log.ts'
import { KeptPlaces, type RecordHeader } from '../../keyspace/record.ts'
import { ByteReader } from '../../lib/byte-reader.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../lib/bytes.ts'
import { varintBytes } from '../../lib/varint.ts'
import type { Produced, ProducedRecord } from '../../node/ports.ts'
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
  readonly streamId: number
  readonly start: number
  readonly end: number
  readonly lagMs: number
}

/** A ProduceResponse. */
export function encodeProduced({ partition, offset, count }: Produced): Buffer {
  const out = new Cursor(varintField(8, offset) + varintField(128, partition) + varintField(136, count))
  out.field(8, offset)
  out.field(128, partition)
  out.field(136, count)
  return out.buffer
}

/** A ConsumeResponse with one record in `record`. */
export function encodeRecordResponse(kept: Bytes, offset: number, around: Around): Buffer {
  return encodeResponse([kept], offset, 18, around)
}

/** A ConsumeResponse with all of them in `records`. The first has the offset `from`. */
export function encodeBatchResponse(kept: readonly Bytes[], from: number, around: Around): Buffer {
  return encodeResponse(kept, from, 130, around)
}

/**
 * Twice over the records, to measure and to write, and nothing is made of any of them but where its parts lie. Its
 * checksum is not computed again: the log from which it was read has one over the same bytes, and the consumer gets it.
 * Throws CORRUPT for what is no kept record.
 */
function encodeResponse(
  kept: readonly Bytes[],
  from: number,
  recordTag: number,
  { start, end, lagMs, streamId }: Around,
): Buffer {
  const lengths = new Array<number>(kept.length)
  let bytes =
    varintField(136, start) + varintField(144, end) + varintField(152, lagMs) + varintField(160, streamId)
  for (let i = 0; i < kept.length; i++) {
    const length = recordLength(places.of(kept[i]!), kept[i]!, from + i)
    lengths[i] = length
    bytes += varintBytes(recordTag) + varintBytes(length) + length
  }
  const out = new Cursor(bytes)
  for (let i = 0; i < kept.length; i++) {
    out.varint(recordTag)
    out.varint(lengths[i]!)
    writeRecord(out, places.of(kept[i]!), kept[i]!, from + i)
  }
  out.field(136, start)
  out.field(144, end)
  out.field(152, lagMs)
  out.field(160, streamId)
  return out.buffer
}

function recordLength(at: KeptPlaces, kept: Bytes, offset: number): number {
  let bytes =
    varintField(tag.offset, offset) +
    varintField(tag.term, at.term) +
    varintField(tag.type, at.type) +
    varintField(tag.timestamp, at.timestampMs) +
    varintBytes(tag.crc) +
    4
  if (at.valueEnd > at.value) bytes += sizedField(tag.value, at.valueEnd - at.value)
  if (at.key >= 0) bytes += sizedField(tag.key, at.keyEnd - at.key)
  eachHeader(at, kept, (name, value, valueEnd) => {
    bytes += sizedField(tag.headers, headerBytes(name.byteLength, valueEnd - value))
  })
  return bytes
}

function writeRecord(out: Cursor, at: KeptPlaces, kept: Bytes, offset: number): void {
  if (at.valueEnd > at.value) out.part(tag.value, kept, at.value, at.valueEnd)
  out.field(tag.offset, offset)
  out.field(tag.term, at.term)
  out.field(tag.type, at.type)
  if (at.key >= 0) out.part(tag.key, kept, at.key, at.keyEnd)
  eachHeader(at, kept, (name, value, valueEnd) => {
    out.varint(tag.headers)
    out.varint(headerBytes(name.byteLength, valueEnd - value))
    out.part(tag.headerName, name, 0, name.byteLength)
    out.part(tag.headerValue, kept, value, valueEnd)
  })
  out.field(tag.timestamp, at.timestampMs)
  out.varint(tag.crc)
  out.raw(kept, at.crc, at.crc + 4)
}

type VisitHeader = (name: Bytes, value: number, valueEnd: number) => void

/** One for all: they are read one after another. */
const places = new KeptPlaces()

function eachHeader(at: KeptPlaces, kept: Bytes, visit: VisitHeader): void {
  if (at.headerCount === 0) return
  const reader = new ByteReader(kept, at.headers)
  for (let left = at.headerCount; left > 0; left--) {
    // Through a text: readers of protobuf refuse a message with bytes that are none.
    const name = fromUtf8(toUtf8(reader.sized()))
    const valueBytes = reader.varint()
    const value = reader.at
    reader.skip(valueBytes)
    visit(name, value, value + valueBytes)
  }
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

  /** The bytes of `source` from `from` to `to`, as a field. */
  part(fieldTag: number, source: Bytes, from: number, to: number): void {
    this.varint(fieldTag)
    this.varint(to - from)
    this.raw(source, from, to)
  }

  raw(source: Bytes, from: number, to: number): void {
    this.buffer.set(source.subarray(from, to), this.at)
    this.at += to - from
  }
}

function asBuffer(bytes: Bytes): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
