import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { bufferOf, packedBytes, packRow } from './row-codec.ts'

/**
 * The rows of a checkpoint as files that travel: parts named rows.0, rows.1, … (little-endian).
 *
 *     part   = "RHROWS01" | part number u32 | row count u64 | sum u32 | mixed u32 | CRC-32 of the 28 bytes u32 | block…
 *     block  = length u32 | CRC-32 of the payload u32 | payload: packed rows (row-codec.ts), at least one
 *
 * Count and sums are those of the whole checkpoint (RowDigest), the same in every part: a receiver that loaded all parts
 * knows whether it has all rows. A row lies in one block, a block in one part. Rows come in key order.
 */
const magic = Buffer.from('RHROWS01', 'latin1')
const headerBytes = 32
const blockHeadBytes = 8

/** A block is closed when it has reached this. */
export const blockBytes = 64 * 1024
/** A part is closed when it has reached this. */
export const partBytesDefault = 64 * 1024 * 1024
/** One block holds one row at least; nothing longer is believed. */
const blockBytesMax = 64 * 1024 * 1024

export interface RowTotals {
  readonly count: number
  readonly sum: number
  readonly mixed: number
}

/** Where finished bytes go: a new part begins with `begin`. */
export interface PartSink {
  begin(name: string): void
  write(bytes: Bytes): void
}

export function rowsPartName(part: number): string {
  return `rows.${part}`
}

/** Other parts may travel in the same snapshot. */
export function isRowsPart(name: string): boolean {
  return /^rows\.\d+$/.test(name)
}

/** Cuts rows into blocks and parts. Part and block boundaries depend on the rows alone. */
export class SnapshotWriter {
  private readonly sink: PartSink
  private readonly totals: RowTotals
  private readonly partBytes: number
  private block = Buffer.allocUnsafe(blockBytes * 2)
  private blockLength = 0
  private part = 0
  private partLength = 0

  constructor(sink: PartSink, totals: RowTotals, partBytes: number) {
    this.sink = sink
    this.totals = totals
    this.partBytes = partBytes
    this.beginPart()
  }

  /** `checksum` is the row's (`rowChecksum`), carried along so that rot on the way shows. */
  add(key: string, value: Bytes, checksum: number): void {
    const needed = this.blockLength + packedBytes(key, value)
    if (needed > this.block.length) {
      const grown = Buffer.allocUnsafe(needed)
      this.block.copy(grown, 0, 0, this.blockLength)
      this.block = grown
    }
    this.blockLength = packRow(this.block, this.blockLength, key, value, checksum)
    if (this.blockLength >= blockBytes) this.flush()
  }

  end(): void {
    if (this.blockLength > 0) this.flush()
  }

  private flush(): void {
    if (this.partLength >= this.partBytes) {
      this.part++
      this.beginPart()
    }
    const payload = this.block.subarray(0, this.blockLength)
    const head = Buffer.alloc(blockHeadBytes)
    head.writeUInt32LE(payload.length, 0)
    head.writeUInt32LE(crc32(payload), 4)
    this.sink.write(head)
    this.sink.write(payload)
    this.partLength += blockHeadBytes + payload.length
    this.blockLength = 0
  }

  private beginPart(): void {
    const header = Buffer.alloc(headerBytes)
    magic.copy(header)
    header.writeUInt32LE(this.part, 8)
    header.writeBigUInt64LE(BigInt(this.totals.count), 12)
    header.writeUInt32LE(this.totals.sum, 20)
    header.writeUInt32LE(this.totals.mixed, 24)
    header.writeUInt32LE(crc32(header.subarray(0, 28)), 28)
    this.sink.begin(rowsPartName(this.part))
    this.sink.write(header)
    this.partLength = headerBytes
  }
}

/** Reads `length` bytes at `position` of a part; fewer at its end. */
export type PartReader = (position: number, length: number) => Bytes

function corrupt(name: string, what: string): RoundhouseError {
  return new RoundhouseError('CORRUPT', { where: `snapshot part ${name}`, what })
}

export function readPartTotals(name: string, read: PartReader): RowTotals {
  const header = bufferOf(read(0, headerBytes))
  if (header.length < headerBytes || !header.subarray(0, 8).equals(magic))
    throw corrupt(name, 'not a part of rows')
  if (header.readUInt32LE(28) !== crc32(header.subarray(0, 28))) throw corrupt(name, "its header's checksum")
  if (rowsPartName(header.readUInt32LE(8)) !== name) throw corrupt(name, 'it belongs to another part')
  return {
    count: Number(header.readBigUInt64LE(12)),
    sum: header.readUInt32LE(20),
    mixed: header.readUInt32LE(24),
  }
}

/** The payloads of a part's blocks, each checked. Throws CORRUPT where one is not what was written. */
export function* readPartBlocks(name: string, read: PartReader): Generator<Bytes> {
  let position = headerBytes
  for (;;) {
    const head = bufferOf(read(position, blockHeadBytes))
    if (head.length === 0) return
    if (head.length < blockHeadBytes) throw corrupt(name, `a block is cut at ${position}`)
    const length = head.readUInt32LE(0)
    if (length === 0 || length > blockBytesMax)
      throw corrupt(name, `a block of ${length} bytes at ${position}`)
    const payload = read(position + blockHeadBytes, length)
    if (payload.byteLength < length) throw corrupt(name, `a block is cut at ${position}`)
    if (crc32(payload) !== head.readUInt32LE(4)) throw corrupt(name, `the block at ${position}`)
    yield payload
    position += blockHeadBytes + length
  }
}
