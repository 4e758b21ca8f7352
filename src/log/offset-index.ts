/**
 * Where each record of a segment begins: record number → position in the store. Entries have a fixed width, so finding
 * one is arithmetic, and the file needs no loading: a sealed segment's index is memory-mapped, the active one's is a
 * heap array. The same file has the segment's time index (time-index.ts): one write, one map, one thing to lose.
 *
 *     0       8         12     16           24      28             32      36         40           48          52
 *     | magic | version | salt | baseOffset | count | end position | times | body crc | first time | crc 0..48 |
 *     | position u32 | position u32 | …                              body: `count` of these, little-endian as all of it,
 *     | time f64, record u32 | …                                     and `times` of these
 *
 * `salt` is the store's: an index of an earlier life of the segment does not fit. The header is checked at every open.
 * The body is not (that would be the load we save): an entry that lies points at bytes that are not the record it
 * promises, which the record's checksum catches, and then the index is made again. It never holds the only copy of
 * anything, so its file is not synced, and a missing or damaged one is a scan of the store, not a loss.
 */
import { BrokenInvariant } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import type { MappedFile } from './mapped-file.ts'
import type { Disk } from './ports.ts'
import type { RecordBlock } from './record-block.ts'
import {
  HeapTimes,
  SealedTimes,
  type TimeIndex,
  type TimeOf,
  timeEntryBytes,
  timeIntervalBytes,
  writeTimes,
} from './time-index.ts'

export const indexHeaderBytes = 52
const checkedHeaderBytes = 48
export const indexEntryBytes = 4
/** Positions are 32 bits wide; a segment's end fits. */
export const positionMax = 0xffff_ffff

const magic = new Uint8Array([0x52, 0x48, 0x49, 0x4e, 0x44, 0x45, 0x58, 0x0a]) // "RHINDEX\n"
const version = 2
const heapEntriesMin = 64

/** Positions are asked for by the million: no message is made before it is needed. */
function notInIndex(offset: number): never {
  throw new BrokenInvariant(`offset ${offset} is not in this index`)
}

export interface OffsetIndex {
  readonly baseOffset: number
  readonly nextOffset: number
  readonly times: TimeIndex
  /** Where the record `offset` begins; of `nextOffset`, where the records end. */
  position(offset: number): number
}

/** The index that grows: of the active segment, or made again by a scan. */
export class HeapIndex implements OffsetIndex {
  readonly baseOffset: number
  times = new HeapTimes()
  private readonly timeOf: TimeOf
  private positions = new Uint32Array(heapEntriesMin)
  private count = 0
  private end: number

  /** `end` is where the first record will begin. */
  constructor(baseOffset: number, end: number, timeOf: TimeOf) {
    this.baseOffset = baseOffset
    this.end = end
    this.timeOf = timeOf
  }

  static copyOf(index: OffsetIndex, timeOf: TimeOf): HeapIndex {
    const copy = new HeapIndex(index.baseOffset, index.position(index.nextOffset), timeOf)
    copy.times = HeapTimes.copyOf(index.times)
    const count = index.nextOffset - index.baseOffset
    copy.positions = new Uint32Array(Math.max(heapEntriesMin, count + count / 4))
    copy.count = count
    for (let i = 0; i < count; i++) copy.positions[i] = index.position(index.baseOffset + i)
    return copy
  }

  get nextOffset(): number {
    return this.baseOffset + this.count
  }

  position(offset: number): number {
    const at = offset - this.baseOffset
    if (!(at >= 0 && at <= this.count)) notInIndex(offset)
    return at === this.count ? this.end : this.positions[at]!
  }

  /** Adds the next record, `data`, which takes the bytes from `position` to `end`. */
  append(position: number, end: number, data: Bytes): void {
    if (this.wantsTime(position)) this.addTime(data)
    this.add(position, end)
  }

  /** Adds the records of `block`, which begins at `position`. */
  appendBlock(position: number, block: RecordBlock): void {
    for (let i = 0; i < block.count; i++) {
      const from = position + block.position(i)
      if (this.wantsTime(from)) this.addTime(block.data(i))
      this.add(from, position + block.position(i + 1))
    }
  }

  private add(position: number, end: number): void {
    if (position !== this.end || end > positionMax)
      throw new BrokenInvariant(`a record from ${position} to ${end}, expected at ${this.end}`)
    if (this.count === this.positions.length) {
      const grown = new Uint32Array(this.count * 2)
      grown.set(this.positions)
      this.positions = grown
    }
    this.positions[this.count++] = position
    this.end = end
  }

  /** Of a record that comes next, and begins there. */
  private wantsTime(position: number): boolean {
    return this.count === 0 || position - this.positions[this.times.lastRecord]! >= timeIntervalBytes
  }

  private addTime(data: Bytes): void {
    if (this.count === 0) this.times.firstMs = this.timeOf(data)
    else this.times.append(this.timeOf(data), this.count)
  }

  /** Forgets `nextOffset` and all after it. */
  truncate(nextOffset: number): void {
    this.end = this.position(nextOffset)
    this.count = nextOffset - this.baseOffset
    this.times.truncate(this.count)
  }
}

/** The index of a sealed segment, read from its file's bytes as they are. */
export class SealedIndex implements OffsetIndex {
  readonly baseOffset: number
  readonly nextOffset: number
  readonly times: TimeIndex
  private readonly end: number
  private readonly file: MappedFile
  private readonly view: DataView

  private constructor(file: MappedFile, view: DataView) {
    const count = view.getUint32(24, true)
    this.file = file
    this.view = view
    this.baseOffset = view.getFloat64(16, true)
    this.nextOffset = this.baseOffset + count
    this.end = view.getUint32(28, true)
    const timesStart = indexHeaderBytes + count * indexEntryBytes
    this.times = new SealedTimes(view, timesStart, view.getUint32(32, true), view.getFloat64(40, true))
  }

  /** Takes over `file`; null, and `file` closed, when it is not a whole index of the store with this salt and base. */
  static open(file: MappedFile, salt: number, baseOffset: number): SealedIndex | null {
    const { bytes } = file
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const isWhole =
      bytes.byteLength >= indexHeaderBytes &&
      magic.every((byte, i) => bytes[i] === byte) &&
      view.getUint32(checkedHeaderBytes, true) === crc32(bytes.subarray(0, checkedHeaderBytes)) &&
      view.getUint32(8, true) === version &&
      view.getUint32(12, true) === salt &&
      view.getFloat64(16, true) === baseOffset &&
      bytes.byteLength === fileBytes(view.getUint32(24, true), view.getUint32(32, true))
    if (!isWhole) {
      file.close()
      return null
    }
    return new SealedIndex(file, view)
  }

  position(offset: number): number {
    if (!(offset >= this.baseOffset && offset <= this.nextOffset)) notInIndex(offset)
    if (offset === this.nextOffset) return this.end
    return this.view.getUint32(indexHeaderBytes + (offset - this.baseOffset) * indexEntryBytes, true)
  }

  /** Reads all of the body: whether it is what was written. */
  isIntact(): boolean {
    return this.view.getUint32(36, true) === crc32(this.file.bytes.subarray(indexHeaderBytes))
  }

  close(): void {
    this.file.close()
  }
}

function fileBytes(count: number, times: number): number {
  return indexHeaderBytes + count * indexEntryBytes + times * timeEntryBytes
}

export function encodeIndex(index: OffsetIndex, salt: number): Bytes {
  const count = index.nextOffset - index.baseOffset
  const bytes = new Uint8Array(fileBytes(count, index.times.count))
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < count; i++) {
    view.setUint32(indexHeaderBytes + i * indexEntryBytes, index.position(index.baseOffset + i), true)
  }
  writeTimes(view, indexHeaderBytes + count * indexEntryBytes, index.times)
  bytes.set(magic)
  view.setUint32(8, version, true)
  view.setUint32(12, salt, true)
  view.setFloat64(16, index.baseOffset, true)
  view.setUint32(24, count, true)
  view.setUint32(28, index.position(index.nextOffset), true)
  view.setUint32(32, index.times.count, true)
  view.setUint32(36, crc32(bytes.subarray(indexHeaderBytes)), true)
  view.setFloat64(40, index.times.firstMs, true)
  view.setUint32(checkedHeaderBytes, crc32(bytes.subarray(0, checkedHeaderBytes)), true)
  return bytes
}

/** What the name of a half-written index ends with; a leftover means nothing. */
export const indexDraftSuffix = '.draft'

/**
 * Puts an index file in place. By rename: the file that it replaces may be mapped, and cutting a mapped file would be
 * SIGBUS for its readers.
 */
export function writeIndexFile(disk: Disk, path: string, index: OffsetIndex, salt: number): void {
  const draft = path + indexDraftSuffix
  const file = disk.open(draft, { create: true })
  try {
    file.truncate(0)
    file.write(0, encodeIndex(index, salt))
  } finally {
    file.close()
  }
  disk.rename(draft, path)
}

/**
 * The largest offset in (from, to] up to which the records from `from` on hold at most `dataBytesMax` bytes, counting
 * `overheadBytes` of each record as free; at least `from + 1`.
 */
export function offsetWithin(
  index: OffsetIndex,
  from: number,
  to: number,
  dataBytesMax: number,
  overheadBytes: number,
): number {
  const start = index.position(from)
  let low = from + 1
  let high = to
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const dataBytes = index.position(middle) - start - (middle - from) * overheadBytes
    if (dataBytes <= dataBytesMax) low = middle
    else high = middle - 1
  }
  return low
}
