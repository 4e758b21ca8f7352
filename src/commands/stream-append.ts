import { pack } from '../lib/packed.ts'
import type { Command } from './command.ts'
import { count } from './replies.ts'
import { checkRecord, partitionOf, partitionUsage } from './stream-arguments.ts'

export const streamAppend: Command = {
  name: 'STREAM.APPEND',
  summary: 'Appends records to a partition of a stream; answers the offset of the first',
  usage: `${partitionUsage} record [record …]`,
  arity: { min: 4, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check(args) {
    partitionOf(args)
    args.slice(3).forEach(checkRecord)
  },
  run: (keyspace, args) =>
    count(keyspace.partitions.append(partitionOf(args), args[0]!, [pack(args.slice(3))])),
}
