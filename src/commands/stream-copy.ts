import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { count } from './replies.ts'
import { amountOf, checkRecord, partitionOf, partitionUsage } from './stream-arguments.ts'

const usage = `${partitionUsage} offset time record [time record …]`

/** For mirrors: a record lies where it lies in the partition that is copied, or the call is refused. */
export const streamCopy: Command = {
  name: 'STREAM.COPY',
  summary: 'Appends records of another partition with their offsets and times; answers the end',
  usage,
  arity: { min: 6, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  mayBeAtomic: false,
  check(args) {
    if (args.length % 2 !== 0) throw new RoundhouseError('WRONG_ARITY', { command: 'STREAM.COPY', usage })
    partitionOf(args)
    amountOf(args[3]!, 'offset')
    timesOf(args)
    recordsOf(args).forEach(checkRecord)
  },
  run: (keyspace, args) => {
    const at = amountOf(args[3]!, 'offset')
    return count(keyspace.partitions.copy(partitionOf(args), args[0]!, at, timesOf(args), recordsOf(args)))
  },
}

function timesOf(args: readonly Bytes[]): number[] {
  const times: number[] = []
  for (let i = 4; i < args.length; i += 2) times.push(amountOf(args[i]!, 'time'))
  return times
}

function recordsOf(args: readonly Bytes[]): Bytes[] {
  const records: Bytes[] = []
  for (let i = 5; i < args.length; i += 2) records.push(args[i]!)
  return records
}
