import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import { Malformed } from '../lib/byte-reader.ts'
import type { Bytes } from '../lib/bytes.ts'
import { asPacked, type Packed, PackedWalk } from '../lib/packed.ts'
import type { Command } from './command.ts'
import { count } from './replies.ts'
import { checkRecord, partitionOf, partitionUsage } from './stream-arguments.ts'

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
      records += checkPacked(packed, limits.argumentsMax - records)
    }
  },
  run: (keyspace, args) =>
    count(keyspace.partitions.append(partitionOf(args), args[0]!, args.slice(3).map(packedOf))),
}

/** Answers how many records there are; makes nothing of them, for there may be millions. Throws INVALID_ARGUMENT, TOO_LARGE. */
function checkPacked(packed: Bytes, recordsMax: number): number {
  const { valueBytesMax, argumentsMax } = limits
  let records = 0
  try {
    for (const walk = new PackedWalk(packed); walk.next(); ) {
      if (++records > recordsMax) throw notPacked(packed, `more than ${argumentsMax} in a call`)
      const bytes = walk.to - walk.from
      if (bytes > valueBytesMax)
        throw new RoundhouseError('TOO_LARGE', { what: 'record', bytes, max: valueBytesMax })
      checkRecord(packed.subarray(walk.from, walk.to))
    }
  } catch (error) {
    throw error instanceof Malformed ? notPacked(packed, error.message) : error
  }
  if (records === 0) throw notPacked(packed, 'none')
  return records
}

function notPacked({ byteLength }: Bytes, why: string): RoundhouseError {
  return new RoundhouseError('INVALID_ARGUMENT', {
    what: `records of ${byteLength} bytes: ${why}`,
    accepted: `1 to ${limits.argumentsMax} records, each behind its length (lib/packed.ts)`,
  })
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
