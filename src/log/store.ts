/**
 * One file of records, each with its checksum: the bottom of the segment log. Nothing here knows how long a record's
 * life is or who reads it; `segment.ts` adds the index, `segmented-log.ts` the files.
 *
 *     0       8         12     16           24             28          32
 *     | magic | version | salt | baseOffset | preallocated | crc 0..28 |   header, little-endian (baseOffset a float64)
 *     | length u32 | crc u32 | data …                                  |   record, one after another, no padding
 *
 * A record's *offset* is its number: the first has `baseOffset`, the next one more. Its *position* is its first byte in
 * the file. The CRC-32 runs over the data and starts from salt and offset, so a record that belongs to an earlier life
 * of the file (another salt) or to another place in it (another offset) can't pass.
 *
 * `preallocateBytes` makes the file zero-filled at that size, so that later syncs need not grow it.
 */
import { RoundhouseError } from '../errors.ts'
import { assert, BrokenInvariant } from '../lib/assert.ts'
import { type Bytes, emptyBytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import type { Disk, File } from './ports.ts'
import { checksumOfNone, RecordBlock, recordHeaderBytes } from './record-block.ts'

export const storeHeaderBytes = 32
/** Above every value and batch that Roundhouse accepts; a longer length in a file is damage. */
export const recordBytesMax = 64 * 1024 * 1024

const magic = new Uint8Array([0x52, 0x48, 0x53, 0x54, 0x4f, 0x52, 0x45, 0x0a]) // "RHSTORE\n"
const version = 1
/** One read fetches this much of a record whose length is not known; most records fit. */
const firstReadBytes = 4096
const scanBytes = 1024 * 1024
const zeroes = new Uint8Array(scanBytes)

/** Where a record begins: its byte and its number. */
export interface StorePlace {
  readonly position: number
  readonly offset: number
}

export interface StoreCreateOptions {
  /** An unsigned 32-bit random number, new for every file. */
  readonly salt: number
  readonly baseOffset: number
  readonly preallocateBytes?: number
}

export interface StoreRecoverOptions {
  /** Where the scan begins, a place known to be the start of a record or the end; by default the first record. */
  readonly from?: StorePlace
  /** Bytes before this position are known to have been synced: damage before it is data loss, never cut. */
  readonly durablePosition?: number
  /** Told of every valid record in order. */
  readonly visit?: (place: StorePlace, data: Bytes) => void
}

/** Writes zeroes into `file` from `from` to `to`. */
export function zeroFill(file: File, from: number, to: number): void {
  for (let position = from; position < to; position += zeroes.byteLength) {
    file.write(position, zeroes.subarray(0, Math.min(zeroes.byteLength, to - position)))
  }
}

export class Store {
  readonly path: string
  readonly baseOffset: number
  /** This life of the file: what an index of it must name too. */
  readonly salt: number
  private readonly file: File
  /** The file keeps this size for ever; 0 when it grows with its records. */
  private readonly preallocated: number
  /** Where the next record goes; null until `recover` or `resume` told a store that was opened. */
  private end: StorePlace | null

  private constructor(
    file: File,
    salt: number,
    baseOffset: number,
    preallocated: number,
    end: StorePlace | null,
  ) {
    this.file = file
    this.path = file.path
    this.salt = salt
    this.baseOffset = baseOffset
    this.preallocated = preallocated
    this.end = end
  }

  /** Makes an empty store. The name is durable after `disk.syncDirectory`, the header after `sync`. */
  static create(disk: Disk, path: string, options: StoreCreateOptions): Store {
    const { salt, baseOffset, preallocateBytes = 0 } = options
    assert(Number.isSafeInteger(baseOffset) && baseOffset >= 0, `store ${path}: base offset ${baseOffset}`)
    const file = disk.open(path, { create: true })
    try {
      file.truncate(0)
      if (preallocateBytes > 0) zeroFill(file, 0, Math.max(preallocateBytes, storeHeaderBytes))
      file.write(0, encodeHeader(salt >>> 0, baseOffset, preallocateBytes > 0))
    } catch (error) {
      file.close()
      throw error
    }
    const preallocated = preallocateBytes > 0 ? file.size() : 0
    return new Store(file, salt >>> 0, baseOffset, preallocated, {
      position: storeHeaderBytes,
      offset: baseOffset,
    })
  }

  /** Opens a store for reading. Call `recover` (scans) or `resume` (the end is known) before the first append. */
  static open(disk: Disk, path: string): Store {
    const file = disk.open(path)
    try {
      const header = file.read(0, storeHeaderBytes)
      const { salt, baseOffset, preallocated } = decodeHeader(path, header)
      return new Store(file, salt, baseOffset, preallocated ? file.size() : 0, null)
    } catch (error) {
      file.close()
      throw error
    }
  }

  /** Where the next record goes: `position` is the size of what is in use, `offset` the next record's number. */
  get endPlace(): StorePlace {
    assert(this.end !== null, `store ${this.path}: neither recovered nor resumed`)
    return this.end
  }

  /** Tells an opened store its end without a scan: of a sealed segment, the index knows it. */
  resume(end: StorePlace): void {
    assert(
      end.position >= storeHeaderBytes && end.offset >= this.baseOffset,
      `store ${this.path}: end before start`,
    )
    this.end = end
  }

  /** Adds one record and returns its position. It is in the file but not durable before `sync`. */
  append(data: Bytes): number {
    return this.appendBlock(RecordBlock.of([data]))
  }

  /** Adds the records of `block` with one write and returns the position of the first. A failed write leaves the store as it was. */
  appendBlock(block: RecordBlock): number {
    const { position, offset } = this.endPlace
    for (let i = 0; i < block.count; i++)
      if (block.dataBytesOf(i) > recordBytesMax)
        throw new BrokenInvariant(`store ${this.path}: a record of ${block.dataBytesOf(i)} bytes`)
    const image = block.image(index => this.seed(offset + index))
    if (image.byteLength > 0) this.file.write(position, image)
    this.end = { position: position + image.byteLength, offset: offset + block.count }
    return position
  }

  /**
   * The data of the record `offset` that begins at `position`. `recordBytes`, its length with its header, saves a second
   * read of long records where the caller's index knows it. Throws CORRUPT when what stands there is not that record.
   */
  read(position: number, offset: number, recordBytes = firstReadBytes): Bytes {
    const first = this.file.read(position, Math.max(recordBytes, recordHeaderBytes))
    const length = this.lengthAt(first, 0)
    if (length === null) throw this.corrupt({ position, offset }, 'a record that does not fit the file')
    const end = recordHeaderBytes + length
    const bytes = first.byteLength >= end ? first : this.file.read(position, end)
    const data = this.validAt(bytes, 0, offset)
    if (data === null) throw this.corrupt({ position, offset }, 'a wrong checksum')
    return data
  }

  /**
   * The data of consecutive records beginning at `from`, up to `to` (a position where a record begins, or the end), with
   * one read of the disk. Throws CORRUPT at the first that is wrong.
   */
  readRange(from: StorePlace, to: number): Bytes[] {
    const bytes = this.file.read(from.position, to - from.position)
    const records: Bytes[] = []
    let at = 0
    while (from.position + at < to) {
      const offset = from.offset + records.length
      const data = this.validAt(bytes, at, offset)
      if (data === null)
        throw this.corrupt({ position: from.position + at, offset }, 'a wrong length or checksum')
      records.push(data)
      at += recordHeaderBytes + data.byteLength
    }
    return records
  }

  /**
   * Finds the last valid record, cuts what follows it and sets the end there. What is cut is the torn tail of writes
   * that were never synced; a record that is wrong before `durablePosition` throws CORRUPT and nothing is cut.
   * Returns the number of bytes that were cut.
   */
  recover(options: StoreRecoverOptions = {}): number {
    const from = options.from ?? { position: storeHeaderBytes, offset: this.baseOffset }
    const end = this.scan(from, options.visit)
    const { durablePosition = 0 } = options
    if (end.position < durablePosition) {
      throw this.corrupt(end, `an invalid record, though everything before ${durablePosition} was synced`)
    }
    this.end = end
    return this.cut(end.position)
  }

  /**
   * Visits the valid records from `from` on, and before the record `to`, and returns the place behind them. Changes nothing.
   */
  scan(
    from: StorePlace,
    visit?: (place: StorePlace, data: Bytes) => void,
    to = Number.MAX_SAFE_INTEGER,
  ): StorePlace {
    const size = this.file.size()
    let { position, offset } = from
    let window: Bytes = emptyBytes
    let windowStart = position
    while (offset < to) {
      let at = position - windowStart
      let length = this.lengthAt(window, at)
      if (length === null || at + recordHeaderBytes + length > window.byteLength) {
        const wanted = Math.max(scanBytes, recordHeaderBytes + (length ?? 0))
        window = this.file.read(position, Math.min(wanted, Math.max(size - position, 0)))
        windowStart = position
        at = 0
        length = this.lengthAt(window, 0)
        if (
          length !== null &&
          recordHeaderBytes + length > window.byteLength &&
          position + recordHeaderBytes + length <= size
        ) {
          window = this.file.read(position, recordHeaderBytes + length)
        }
      }
      const data = length === null ? null : this.validAt(window, at, offset)
      if (data === null) return { position, offset }
      visit?.({ position, offset }, data)
      position += recordHeaderBytes + data.byteLength
      offset++
    }
    return { position, offset }
  }

  /** Removes the record at `end` and all after it, durably. `end` is a place where a record begins, or the end. */
  truncate(end: StorePlace): void {
    assert(end.position >= storeHeaderBytes, `store ${this.path}: cut inside the header`)
    assert(
      end.position <= this.endPlace.position && end.offset <= this.endPlace.offset,
      `store ${this.path}: cut at ${end.position} past the end ${this.endPlace.position}`,
    )
    this.end = end
    this.cut(end.position)
  }

  /** Removes what stands behind the end; durable with the next sync. Of a file that grows with its records. */
  cutUnsynced(): void {
    assert(this.preallocated === 0, `store ${this.path}: an unsynced cut of a preallocated file`)
    this.file.truncate(this.endPlace.position)
  }

  /** Bytes in the file, used or not. */
  get fileBytes(): number {
    return this.file.size()
  }

  sync(): void {
    this.file.sync()
  }

  /**
   * Makes all that was appended before this call durable, off the main thread; appends may go on meanwhile. At most one
   * is under way. A failure is final.
   */
  syncAside(done: (error: Error | null) => void): void {
    this.file.commit(this.endPlace.position, [], done)
  }

  close(): void {
    this.file.close()
  }

  /**
   * Synced at once: a cut that a crash undoes would let a record that was cut follow one that was appended since, valid
   * for its salt and offset.
   */
  private cut(position: number): number {
    const size = this.file.size()
    if (position >= size) return 0
    if (this.preallocated === 0) {
      this.file.truncate(position)
    } else {
      const used = this.usedEnd(position, size)
      if (used <= position) return 0
      zeroFill(this.file, position, used)
      this.file.sync()
      return used - position
    }
    this.file.sync()
    return size - position
  }

  /** The end of the last byte from `position` on that is not zero. */
  private usedEnd(position: number, size: number): number {
    for (let to = size; to > position; to -= scanBytes) {
      const from = Math.max(position, to - scanBytes)
      const bytes = this.file.read(from, to - from)
      for (let i = bytes.byteLength - 1; i >= 0; i--) if (bytes[i] !== 0) return from + i + 1
    }
    return position
  }

  /** The data length of the record at `at`, or null where no record can stand. */
  private lengthAt(bytes: Bytes, at: number): number | null {
    if (at + recordHeaderBytes > bytes.byteLength) return null
    const length = readUint32(bytes, at)
    return length <= recordBytesMax ? length : null
  }

  /** The data of the record `offset`, if it stands whole at `at`. */
  private validAt(bytes: Bytes, at: number, offset: number): Bytes | null {
    const length = this.lengthAt(bytes, at)
    if (length === null || at + recordHeaderBytes + length > bytes.byteLength) return null
    const data = bytes.subarray(at + recordHeaderBytes, at + recordHeaderBytes + length)
    return readUint32(bytes, at + 4) === this.checksum(offset, data) ? data : null
  }

  private checksum(offset: number, data: Bytes): number {
    return crc32(data, this.seed(offset)) || checksumOfNone
  }

  /** Different seeds give different sums for the same data, so equal data at another offset never passes. */
  private seed(offset: number): number {
    const high = Math.floor(offset / 2 ** 32)
    return (this.salt ^ (offset >>> 0) ^ Math.imul(high, 0x9e3779b1)) >>> 0
  }

  private corrupt(place: StorePlace, what: string): RoundhouseError<'CORRUPT'> {
    const where = `${this.path} at ${place.position}, record ${place.offset}`
    return new RoundhouseError('CORRUPT', { where, what })
  }
}

function readUint32(bytes: Bytes, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
}

function encodeHeader(salt: number, baseOffset: number, preallocated: boolean): Bytes {
  const header = new Uint8Array(storeHeaderBytes)
  const view = new DataView(header.buffer)
  header.set(magic)
  view.setUint32(8, version, true)
  view.setUint32(12, salt, true)
  view.setFloat64(16, baseOffset, true)
  view.setUint32(24, preallocated ? 1 : 0, true)
  view.setUint32(28, crc32(header.subarray(0, 28)), true)
  return header
}

function decodeHeader(
  path: string,
  header: Bytes,
): { salt: number; baseOffset: number; preallocated: boolean } {
  const corrupt = (what: string) => new RoundhouseError('CORRUPT', { where: `${path} at 0, header`, what })
  if (header.byteLength < storeHeaderBytes) throw corrupt(`only ${header.byteLength} bytes`)
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength)
  if (magic.some((byte, i) => header[i] !== byte)) throw corrupt('not a store: another magic')
  if (view.getUint32(28, true) !== crc32(header.subarray(0, 28))) throw corrupt('a wrong checksum')
  const found = view.getUint32(8, true)
  if (found !== version) throw corrupt(`format ${found}, this program knows ${version}`)
  return {
    salt: view.getUint32(12, true),
    baseOffset: view.getFloat64(16, true),
    preallocated: view.getUint32(24, true) === 1,
  }
}
