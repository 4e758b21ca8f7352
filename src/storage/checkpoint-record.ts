import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import type { CheckpointMeta } from '../shard/ports.ts'
import { bufferOf } from './row-codec.ts'

/**
 * What the directory database holds for a replica: which generation of rows is the valid one, and what is true of them.
 * It is written in the transaction that writes the rows, so the two can't differ.
 *
 *     format u32 | generation u32 | index u64 | term u64 | row count u64 | sum u32 | mixed u32 |
 *     configuration length u32 | configuration | CRC-32 u32, seeded with the replica's low 32 bits        (little-endian)
 */
export interface CheckpointRecord extends CheckpointMeta {
  readonly generation: number
  readonly count: number
  readonly sum: number
  readonly mixed: number
}

const format = 1
const fixedBytes = 44

export function encodeRecord(replica: number, record: CheckpointRecord): Bytes {
  const length = record.configuration.byteLength
  const out = Buffer.alloc(fixedBytes + length + 4)
  out.writeUInt32LE(format, 0)
  out.writeUInt32LE(record.generation, 4)
  out.writeBigUInt64LE(BigInt(record.index), 8)
  out.writeBigUInt64LE(BigInt(record.term), 16)
  out.writeBigUInt64LE(BigInt(record.count), 24)
  out.writeUInt32LE(record.sum, 32)
  out.writeUInt32LE(record.mixed, 36)
  out.writeUInt32LE(length, 40)
  out.set(record.configuration, fixedBytes)
  out.writeUInt32LE(crc32(out.subarray(0, fixedBytes + length), replica >>> 0), fixedBytes + length)
  return out
}

/** Throws CORRUPT when a byte changed, CORRUPT naming the format when a newer program wrote it. */
export function decodeRecord(replica: number, bytes: Bytes): CheckpointRecord {
  const fail = (what: string) =>
    new RoundhouseError('CORRUPT', { where: `replica ${replica}'s checkpoint`, what })
  const buffer = bufferOf(bytes)
  if (buffer.length < fixedBytes + 4) throw fail(`${buffer.length} bytes`)
  const end = buffer.length - 4
  if (buffer.readUInt32LE(end) !== crc32(buffer.subarray(0, end), replica >>> 0)) throw fail('its checksum')
  if (buffer.readUInt32LE(0) !== format) throw fail(`format ${buffer.readUInt32LE(0)}, known is ${format}`)
  if (buffer.readUInt32LE(40) !== end - fixedBytes) throw fail('its length')
  return {
    generation: buffer.readUInt32LE(4),
    index: Number(buffer.readBigUInt64LE(8)),
    term: Number(buffer.readBigUInt64LE(16)),
    count: Number(buffer.readBigUInt64LE(24)),
    sum: buffer.readUInt32LE(32),
    mixed: buffer.readUInt32LE(36),
    configuration: Uint8Array.prototype.slice.call(buffer, fixedBytes, end),
  }
}
