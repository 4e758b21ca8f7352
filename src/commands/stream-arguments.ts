import { RoundhouseError } from '../errors.ts'
import type { PartitionId } from '../keyspace/partitions.ts'
import { proveRecord } from '../keyspace/record.ts'
import { type Bytes, fromLatin1, quote } from '../lib/bytes.ts'
import type { Reply } from './command.ts'
import { parseSafeInteger } from './integer.ts'

/**
 * What the commands of streams share. Their first argument is the partition's routing key (`<stream>/<partition>`), the next
 * two are the stream's id in the catalogue and the partition's number: names are for people, ids are never used again.
 */
export const partitionUsage = 'key id partition'

/** Throws INVALID_ARGUMENT. */
export function partitionOf([, stream, partition]: readonly Bytes[]): PartitionId {
  return { stream: amountOf(stream!, 'stream id', 1), partition: amountOf(partition!, 'partition', 0) }
}

/** A safe integer from `least` up. Throws INVALID_ARGUMENT. */
export function amountOf(bytes: Bytes, what: string, least = 0): number {
  const amount = parseSafeInteger(bytes)
  if (amount === undefined || amount < least)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `${what} ${quote(bytes)}`,
      accepted: `an integer from ${least} up`,
    })
  return amount
}

/** `-` stands for "not asked for". Throws INVALID_ARGUMENT. */
export function optionalAmountOf(bytes: Bytes, what: string): number | null {
  return bytes.byteLength === 1 && bytes[0] === 0x2d ? null : amountOf(bytes, what)
}

/** Throws INVALID_ARGUMENT for what is no record: whoever asks has made it, and nothing of it was stored. */
export function checkRecord(record: Bytes): void {
  try {
    proveRecord(record)
  } catch {
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: `record of ${record.byteLength} bytes`,
      accepted: 'a record with its checksum (keyspace/record.ts)',
    })
  }
}

export function texts(...values: readonly (number | string)[]): Reply {
  return { kind: 'list', items: values.map(value => ({ value: fromLatin1(String(value)) })) }
}
