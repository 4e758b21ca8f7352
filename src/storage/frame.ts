/**
 * The bytes of a journal frame: one batch, one write, one fdatasync. Little-endian; whole numbers over 32 bits are
 * float64. A frame begins on a 512-byte boundary and is padded with zeroes to the next.
 *
 *     header    0 magic u32 | 4 version u16 | 6 flags u16 | 8 journalId f64 | 16 incarnation f64 | 24 segment f64
 *     72 bytes  32 sequence f64 | 40 oldestSegment f64 | 48 position u32 | 52 length u32 | 56 rows u32
 *               60 previousCrc u32 | 64 directoryCrc u32 | 68 crc of 0..68 u32
 *     directory 0 replica f64 | 8 first f64 | 16 count u32 | 20 headPosition u32 | 24 headLength u32 | 28 headCrc u32
 *     40 a row  32 dataPosition u32 | 36 kind u8 | 37 flags u8 | 38 zero u16
 *     heads     append: term vote commit previousTerm resetIndex resetTerm f64 | configurationSequence length u32
 *                       | configuration | a table row an entry
 *               full:   term vote commit snapshotIndex snapshotTerm lastIndex lastTerm f64
 *                       | configurationSequence length u32 | configuration
 *               copy:   a table row an entry      bounds: term f64 (the index is the directory's `first`)
 *     table     0 term f64 | 8 length u32 | 12 crc u32 | 16 kind u32      20 bytes an entry
 *     data      the entries' bytes, record after record
 *
 * The checksums are a tree: the header's covers the directory's, which covers the heads', which cover the entries'. So
 * the header's alone is the frame's, and it is what the next frame carries as `previousCrc`. Every byte is summed once.
 * Sums are seeded with the segment's incarnation, so bytes of an earlier life of a recycled file can't pass.
 */
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import type { Entry, HardState } from '../raft/types.ts'

export const frameAlignment = 512
export const frameHeaderBytes = 72
const directoryRowBytes = 40
const entryRowBytes = 20
const appendHeadBytes = 56
const fullHeadBytes = 64
const magic = 0x464a4852 // "RHJF"
const version = 1
/** A frame and its place in a file are 32-bit numbers on disk. */
export const frameBytesMax = 2 ** 31
/** Entry data up to this size is copied next to its neighbours: many tiny pieces make a slow writev. */
const copiedBytesMax = 4096

export const sealFlag = 1
/** The first frame of a segment: it begins with a full record of every replica. */
export const openingFlag = 2

const recordKinds = ['append', 'copy', 'full', 'bounds', 'tombstone'] as const
export type RecordKind = (typeof recordKinds)[number]
/** Entry kinds by their byte on disk: never reorder, only add. */
const entryKinds: readonly Entry['kind'][] = ['normal', 'confChange']
const hasReset = 1
const hasConfiguration = 2

export interface FramePlace {
  readonly journalId: number
  readonly incarnation: number
  readonly segment: number
  readonly position: number
  readonly sequence: number
}

export interface FrameHeader extends FramePlace {
  readonly flags: number
  /** Segments before this one are not needed by anything as of this frame. */
  readonly oldestSegment: number
  /** Without the padding. */
  readonly length: number
  readonly rows: number
  readonly previousCrc: number
  readonly directoryCrc: number
  readonly crc: number
}

interface AppendRecord<E> {
  readonly kind: 'append'
  readonly replica: number
  readonly hardState: HardState
  /** Index of the first entry; of the next one to come when there are none. */
  readonly first: number
  /** Of the entry before `first`: with it a reader sees that nothing between two frames is missing. */
  readonly previousTerm: number
  readonly entries: readonly E[]
  /** How many configurations this replica has had, this one included. */
  readonly configurationSequence: number
  /** null = as before. */
  readonly configuration: Bytes | null
  readonly reset: { readonly index: number; readonly term: number } | null
}

interface CopyRecord<E> {
  readonly kind: 'copy'
  readonly replica: number
  readonly first: number
  readonly entries: readonly E[]
}

export interface FullRecord {
  readonly kind: 'full'
  readonly replica: number
  readonly hardState: HardState
  readonly configurationSequence: number
  /** null = none so far. */
  readonly configuration: Bytes | null
  readonly snapshotPoint: { readonly index: number; readonly term: number }
  readonly lastIndex: number
  readonly lastTerm: number
}

interface BoundsRecord {
  readonly kind: 'bounds'
  readonly replica: number
  readonly index: number
  readonly term: number
}

interface TombstoneRecord {
  readonly kind: 'tombstone'
  readonly replica: number
}

export type FrameRecord<E> = AppendRecord<E> | CopyRecord<E> | FullRecord | BoundsRecord | TombstoneRecord

/** An entry as it lies in a segment. */
export interface StoredEntry {
  readonly term: number
  readonly kind: Entry['kind']
  readonly position: number
  readonly length: number
  readonly crc: number
  readonly isIntact: boolean
}

/** What the directory says of a record, even where the record itself is damaged. */
export interface DirectoryRow {
  readonly kind: RecordKind
  readonly replica: number
  readonly first: number
  readonly count: number
  readonly position: number
  readonly hasReset: boolean
  readonly hasConfiguration: boolean
  /** null when its checksum is wrong. */
  readonly record: FrameRecord<StoredEntry> | null
}

export interface EncodedFrame {
  readonly chunks: readonly Bytes[]
  /** With the padding. */
  readonly bytes: number
  readonly crc: number
  /** Of the entries of all records, in order: position in the segment and checksum. */
  readonly positions: Uint32Array
  readonly crcs: Uint32Array
}

export function align(bytes: number): number {
  return Math.ceil(bytes / frameAlignment) * frameAlignment
}

/** Numbers an entry kind as on disk. */
export function kindNumber(kind: Entry['kind']): number {
  const number = entryKinds.indexOf(kind)
  assert(number >= 0, `journal: entry kind ${kind}`)
  return number
}

export function kindOfNumber(number: number): Entry['kind'] {
  return entryKinds[number] ?? 'normal'
}

function headBytes(record: FrameRecord<Entry>): number {
  switch (record.kind) {
    case 'append':
      return appendHeadBytes + (record.configuration?.byteLength ?? 0) + entryRowBytes * record.entries.length
    case 'full':
      return fullHeadBytes + (record.configuration?.byteLength ?? 0)
    case 'copy':
      return entryRowBytes * record.entries.length
    case 'bounds':
      return 8
    case 'tombstone':
      return 0
  }
}

function entriesOf<E>(record: FrameRecord<E>): readonly E[] {
  return record.kind === 'append' || record.kind === 'copy' ? record.entries : []
}

/** The size of a frame of `records`, padding included. */
export function frameBytes(records: readonly FrameRecord<Entry>[]): number {
  let bytes = frameHeaderBytes
  for (const record of records) {
    bytes += directoryRowBytes + headBytes(record)
    for (const entry of entriesOf(record)) bytes += entry.data.byteLength
  }
  return align(bytes)
}

/** Of the data of an entry. zlib forgets the seed when an empty array has no memory behind it. */
export function entryChecksum(data: Bytes, incarnation: number, replica: number, index: number): number {
  const seed = entrySeed(incarnation, replica, index)
  return data.byteLength === 0 ? seed : crc32(data, seed)
}

function entrySeed(incarnation: number, replica: number, index: number): number {
  return (low(incarnation) ^ low(index) ^ Math.imul(low(replica), 0x9e3779b1)) >>> 0
}

const low = (value: number) => (value % 2 ** 32) >>> 0
const metaSeed = (at: { incarnation: number; sequence: number }) =>
  (low(at.incarnation) ^ low(at.sequence)) >>> 0

/** Entry data over 4 KiB is not copied: the chunks refer to it. */
export function encodeFrame(
  at: FramePlace & { readonly flags: number; readonly oldestSegment: number; readonly previousCrc: number },
  records: readonly FrameRecord<Entry>[],
): EncodedFrame {
  let metaLength = frameHeaderBytes
  let entryCount = 0
  for (const record of records) {
    metaLength += directoryRowBytes + headBytes(record)
    entryCount += entriesOf(record).length
  }
  const meta = Buffer.alloc(metaLength)
  const view = new DataView(meta.buffer, meta.byteOffset, meta.byteLength)
  const positions = new Uint32Array(entryCount)
  const crcs = new Uint32Array(entryCount)
  const data = new ChunkList(meta)
  let row = frameHeaderBytes
  let head = frameHeaderBytes + records.length * directoryRowBytes
  let entryNumber = 0
  for (const record of records) {
    const headStart = head
    const dataStart = data.length
    head = writeHead(view, meta, head, record)
    let index = record.kind === 'append' || record.kind === 'copy' ? record.first : 0
    for (const entry of entriesOf(record)) {
      const crc = entryChecksum(entry.data, at.incarnation, record.replica, index)
      positions[entryNumber] = at.position + data.length
      crcs[entryNumber++] = crc
      view.setFloat64(head, entry.term, true)
      view.setUint32(head + 8, entry.data.byteLength, true)
      view.setUint32(head + 12, crc, true)
      view.setUint32(head + 16, kindNumber(entry.kind), true)
      head += entryRowBytes
      index++
      data.add(entry.data)
    }
    view.setFloat64(row, record.replica, true)
    view.setFloat64(
      row + 8,
      record.kind === 'bounds' ? record.index : 'first' in record ? record.first : 0,
      true,
    )
    view.setUint32(row + 16, entriesOf(record).length, true)
    view.setUint32(row + 20, headStart, true)
    view.setUint32(row + 24, head - headStart, true)
    view.setUint32(row + 28, crc32(meta.subarray(headStart, head), metaSeed(at)), true)
    view.setUint32(row + 32, dataStart, true)
    view.setUint8(row + 36, recordKinds.indexOf(record.kind))
    view.setUint8(row + 37, flagsOf(record))
    row += directoryRowBytes
  }
  const length = data.length
  assert(at.position + length < frameBytesMax, `journal: a frame of ${length} bytes at ${at.position}`)
  const directory = meta.subarray(frameHeaderBytes, frameHeaderBytes + records.length * directoryRowBytes)
  view.setUint32(0, magic, true)
  view.setUint16(4, version, true)
  view.setUint16(6, at.flags, true)
  view.setFloat64(8, at.journalId, true)
  view.setFloat64(16, at.incarnation, true)
  view.setFloat64(24, at.segment, true)
  view.setFloat64(32, at.sequence, true)
  view.setFloat64(40, at.oldestSegment, true)
  view.setUint32(48, at.position, true)
  view.setUint32(52, length, true)
  view.setUint32(56, records.length, true)
  view.setUint32(60, at.previousCrc, true)
  view.setUint32(64, crc32(directory, metaSeed(at)), true)
  const crc = crc32(meta.subarray(0, 68))
  view.setUint32(68, crc, true)
  data.pad(align(length) - length)
  return { chunks: data.finish(), bytes: align(length), crc, positions, crcs }
}

function flagsOf(record: FrameRecord<Entry>): number {
  if (record.kind === 'append') {
    return (record.reset === null ? 0 : hasReset) | (record.configuration === null ? 0 : hasConfiguration)
  }
  return record.kind === 'full' && record.configuration !== null ? hasConfiguration : 0
}

/** Writes all of a head but the entry table; returns where that goes. */
function writeHead(view: DataView, meta: Buffer, at: number, record: FrameRecord<Entry>): number {
  switch (record.kind) {
    case 'append':
    case 'full': {
      const { hardState, configuration } = record
      const numbers = [hardState.term, hardState.vote, hardState.commit]
      if (record.kind === 'append') {
        numbers.push(record.previousTerm, record.reset?.index ?? 0, record.reset?.term ?? 0)
      } else {
        numbers.push(record.snapshotPoint.index, record.snapshotPoint.term, record.lastIndex, record.lastTerm)
      }
      for (const number of numbers) {
        view.setFloat64(at, number, true)
        at += 8
      }
      view.setUint32(at, record.configurationSequence, true)
      view.setUint32(at + 4, configuration?.byteLength ?? 0, true)
      if (configuration !== null) meta.set(configuration, at + 8)
      return at + 8 + (configuration?.byteLength ?? 0)
    }
    case 'bounds':
      view.setFloat64(at, record.term, true)
      return at + 8
    case 'copy':
    case 'tombstone':
      return at
  }
}

/** Gathers a frame's pieces: small ones copied together, long ones by reference. */
class ChunkList {
  length: number
  private readonly chunks: Bytes[]
  private small: Bytes[] = []
  private smallBytes = 0

  constructor(first: Bytes) {
    this.chunks = [first]
    this.length = first.byteLength
  }

  add(bytes: Bytes): void {
    if (bytes.byteLength === 0) return
    this.length += bytes.byteLength
    if (bytes.byteLength > copiedBytesMax) {
      this.flush()
      this.chunks.push(bytes)
    } else {
      this.small.push(bytes)
      this.smallBytes += bytes.byteLength
    }
  }

  pad(count: number): void {
    this.add(zeroes.subarray(0, count))
  }

  finish(): readonly Bytes[] {
    this.flush()
    return this.chunks
  }

  private flush(): void {
    if (this.small.length === 0) return
    this.chunks.push(this.small.length === 1 ? this.small[0]! : Buffer.concat(this.small, this.smallBytes))
    this.small = []
    this.smallBytes = 0
  }
}

const zeroes = new Uint8Array(frameAlignment)

function viewOf(bytes: Bytes): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The header at `position` of a segment's `bytes`, or null where none stands: a header knows its own position. */
export function decodeHeader(bytes: Bytes, position: number): FrameHeader | null {
  if (position + frameHeaderBytes > bytes.byteLength) return null
  const view = viewOf(bytes)
  if (view.getUint32(position, true) !== magic || view.getUint16(position + 4, true) !== version) return null
  if (view.getUint32(position + 48, true) !== position) return null
  const crc = view.getUint32(position + 68, true)
  if (crc !== crc32(bytes.subarray(position, position + 68))) return null
  return {
    flags: view.getUint16(position + 6, true),
    journalId: view.getFloat64(position + 8, true),
    incarnation: view.getFloat64(position + 16, true),
    segment: view.getFloat64(position + 24, true),
    sequence: view.getFloat64(position + 32, true),
    oldestSegment: view.getFloat64(position + 40, true),
    position,
    length: view.getUint32(position + 52, true),
    rows: view.getUint32(position + 56, true),
    previousCrc: view.getUint32(position + 60, true),
    directoryCrc: view.getUint32(position + 64, true),
    crc,
  }
}

/**
 * Whether a header of this life of the file was begun at `position`, though its checksum may be wrong. As one write is
 * under way at a time, all that lies before was synced.
 */
export function isTrace(bytes: Bytes, position: number, journalId: number, incarnation: number): boolean {
  if (position + frameHeaderBytes > bytes.byteLength) return false
  const view = viewOf(bytes)
  return (
    view.getUint32(position, true) === magic &&
    view.getFloat64(position + 8, true) === journalId &&
    view.getFloat64(position + 16, true) === incarnation &&
    view.getUint32(position + 48, true) === position
  )
}

/** The records of a frame, or null when its directory is damaged. `bytes` are the whole segment's. */
export function decodeRecords(bytes: Bytes, header: FrameHeader): DirectoryRow[] | null {
  const start = header.position + frameHeaderBytes
  const end = start + header.rows * directoryRowBytes
  if (end > bytes.byteLength || end > header.position + header.length) return null
  const seed = metaSeed(header)
  if (crc32(bytes.subarray(start, end), seed) !== header.directoryCrc) return null
  const view = viewOf(bytes)
  const rows: DirectoryRow[] = []
  for (let row = start; row < end; row += directoryRowBytes) {
    const kind = recordKinds[view.getUint8(row + 36)]
    if (kind === undefined) return null
    const flags = view.getUint8(row + 37)
    const about = {
      kind,
      replica: view.getFloat64(row, true),
      first: view.getFloat64(row + 8, true),
      count: view.getUint32(row + 16, true),
      position: header.position + view.getUint32(row + 20, true),
      hasReset: (flags & hasReset) !== 0,
      hasConfiguration: (flags & hasConfiguration) !== 0,
    }
    const head = bytes.subarray(about.position, about.position + view.getUint32(row + 24, true))
    const isIntact = crc32(head, seed) === view.getUint32(row + 28, true)
    const data = header.position + view.getUint32(row + 32, true)
    rows.push({
      ...about,
      record: isIntact ? decodeRecord(bytes, head, about, data, header.incarnation) : null,
    })
  }
  return rows
}

function decodeRecord(
  bytes: Bytes,
  head: Bytes,
  about: Omit<DirectoryRow, 'record'>,
  data: number,
  incarnation: number,
): FrameRecord<StoredEntry> {
  const view = viewOf(head)
  const { replica, first } = about
  const number = (slot: number) => view.getFloat64(slot * 8, true)
  const tableFrom = (at: number): StoredEntry[] => {
    const entries: StoredEntry[] = []
    let position = data
    for (let i = 0; i < about.count; i++, at += entryRowBytes) {
      const length = view.getUint32(at + 8, true)
      const crc = view.getUint32(at + 12, true)
      const entryData = bytes.subarray(position, position + length)
      const isIntact = entryChecksum(entryData, incarnation, replica, first + i) === crc
      const kind = kindOfNumber(view.getUint32(at + 16, true))
      entries.push({ term: view.getFloat64(at, true), kind, position, length, crc, isIntact })
      position += length
    }
    return entries
  }
  // A copy: the buffer it lies in is a whole segment.
  const configurationAt = (at: number) => head.slice(at, at + view.getUint32(at - 4, true))
  const hardState = () => ({ term: number(0), vote: number(1), commit: number(2) })
  switch (about.kind) {
    case 'append': {
      const configuration = configurationAt(appendHeadBytes)
      return {
        kind: 'append',
        replica,
        hardState: hardState(),
        first,
        previousTerm: number(3),
        entries: tableFrom(appendHeadBytes + configuration.byteLength),
        configurationSequence: view.getUint32(appendHeadBytes - 8, true),
        configuration: about.hasConfiguration ? configuration : null,
        reset: about.hasReset ? { index: number(4), term: number(5) } : null,
      }
    }
    case 'full':
      return {
        kind: 'full',
        replica,
        hardState: hardState(),
        configurationSequence: view.getUint32(fullHeadBytes - 8, true),
        configuration: about.hasConfiguration ? configurationAt(fullHeadBytes) : null,
        snapshotPoint: { index: number(3), term: number(4) },
        lastIndex: number(5),
        lastTerm: number(6),
      }
    case 'copy':
      return { kind: 'copy', replica, first, entries: tableFrom(0) }
    case 'bounds':
      return { kind: 'bounds', replica, index: first, term: number(0) }
    case 'tombstone':
      return { kind: 'tombstone', replica }
  }
}
