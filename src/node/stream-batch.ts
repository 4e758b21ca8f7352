import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import { encodeRecords, sumAt } from '../keyspace/record.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import { type Packed, PackedWalk, unpack } from '../lib/packed.ts'
import type { Hash64 } from '../ring/ring.ts'
import type { ProducedRecord } from './ports.ts'

/** What producers meet. The errors that name these are TOO_LARGE and INVALID_ARGUMENT. */
export const produceLimits = {
  /** Of one batch. */
  recordsMax: 10_000,
  /** Of one batch of a copy: a time comes with each. */
  copiedRecordsMax: 5_000,
  /** With the lengths of its records: it is an argument of a call. */
  batchBytesMax: limits.callBytesMax - 4096,
  /** A record with its key and headers, as it is stored. */
  recordBytesMax: limits.valueBytesMax,
  headersMax: 64,
  headerNameBytesMax: 255,
} as const

/** The records as they are stored, one by one. Throws INVALID_ARGUMENT, TOO_LARGE. */
export function encodeBatch(
  records: readonly ProducedRecord[],
  recordsMax: number = produceLimits.recordsMax,
): Bytes[] {
  return unpack(packBatch(records, recordsMax).bytes)
}

/** The records as they are stored, if all of them may be. Throws INVALID_ARGUMENT, TOO_LARGE. */
export function packBatch(
  records: readonly ProducedRecord[],
  recordsMax: number = produceLimits.recordsMax,
): Packed {
  const { batchBytesMax } = produceLimits
  if (records.length < 1 || records.length > recordsMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `batch of ${records.length} records`,
      accepted: `1 to ${recordsMax}`,
    })
  for (const record of records) checkRecord(record)
  const packed = encodeRecords(records)
  const walk = new PackedWalk(packed.bytes)
  for (const record of records) {
    walk.next()
    checkEncoded(record, packed.bytes, walk.from, walk.to)
  }
  const { byteLength } = packed.bytes
  if (byteLength > batchBytesMax) tooLarge('batch', byteLength, batchBytesMax)
  return packed
}

function checkRecord({ key, headers }: ProducedRecord): void {
  const { headersMax, headerNameBytesMax } = produceLimits
  if (key !== null && key.byteLength > limits.keyBytesMax) tooLarge('key', key.byteLength, limits.keyBytesMax)
  if (headers.length > headersMax)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${headers.length} headers of a record`,
      accepted: `at most ${headersMax}`,
    })
  for (const { name } of headers) {
    const bytes = fromUtf8(name).byteLength
    if (bytes > headerNameBytesMax) tooLarge("header's name", bytes, headerNameBytesMax)
  }
}

function checkEncoded({ crc }: ProducedRecord, bytes: Bytes, from: number, to: number): void {
  const { recordBytesMax } = produceLimits
  if (to - from > recordBytesMax) tooLarge('record', to - from, recordBytesMax)
  if (crc === undefined) return
  const seen = sumAt(bytes, from)
  if (crc !== seen)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `record's crc ${crc}`,
      accepted: `${seen}, which is that of what came`,
    })
}

function tooLarge(what: string, bytes: number, max: number): never {
  throw new RoundhouseError('TOO_LARGE', { what, bytes, max })
}

/** xxHash64 of the key's text, seed 0, modulo the number of partitions. */
export function partitionOfKey(hash64: Hash64, key: Bytes, partitions: number): number {
  return Number(hash64(toUtf8(key)) % BigInt(partitions))
}
