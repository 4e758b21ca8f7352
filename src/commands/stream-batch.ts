import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import { Malformed } from '../lib/byte-reader.ts'
import type { Bytes } from '../lib/bytes.ts'
import { asPacked, type Packed, unpack } from '../lib/packed.ts'
import type { Command } from './command.ts'
import { count } from './replies.ts'
import { checkRecords, partitionOf, partitionUsage } from './stream-arguments.ts'

/** As STREAM.APPEND; what producers sent in one piece stays in one piece. */
export const streamBatch: Command = {
  name: 'STREAM.BATCH',
  summary: 'Appends packed records to a partition of a stream; answers the offset of the first',
  usage: `${partitionUsage} records [records …]`,
  arity: { min: 4, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  since: 2,
  mayBeAtomic: false,
  isPacked: true,
  check(args) {
    partitionOf(args)
    let records = 0
    for (const packed of args.slice(3)) {
      const each = unpacked(packed)
      checkRecords(each)
      records += each.length
    }
    if (records > limits.argumentsMax)
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `${records} records`,
        accepted: `at most ${limits.argumentsMax}`,
      })
  },
  run: (keyspace, args) =>
    count(keyspace.partitions.append(partitionOf(args), args[0]!, args.slice(3).map(packedOf))),
}

/** Throws INVALID_ARGUMENT, TOO_LARGE. */
function unpacked(packed: Bytes): Bytes[] {
  const notPacked = (why: string) =>
    new RoundhouseError('INVALID_ARGUMENT', {
      what: `records of ${packed.byteLength} bytes: ${why}`,
      accepted: 'one or more records, each behind its length (lib/packed.ts)',
    })
  try {
    const records = unpack(packed)
    if (records.length === 0) throw notPacked('none')
    for (const { byteLength } of records)
      if (byteLength > limits.valueBytesMax)
        throw new RoundhouseError('TOO_LARGE', {
          what: 'record',
          bytes: byteLength,
          max: limits.valueBytesMax,
        })
    return records
  } catch (error) {
    throw error instanceof Malformed ? notPacked(error.message) : error
  }
}

/** Of an entry: it was checked before it was made. */
function packedOf(bytes: Bytes): Packed {
  try {
    return asPacked(bytes)
  } catch (error) {
    if (error instanceof Malformed)
      throw new RoundhouseError('CORRUPT', { where: 'entry', what: error.message })
    throw error
  }
}
