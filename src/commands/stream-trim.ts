import type { Command } from './command.ts'
import { count } from './replies.ts'
import { amountOf, partitionOf, partitionUsage } from './stream-arguments.ts'

export const streamTrim: Command = {
  name: 'STREAM.TRIM',
  summary: "Lets the records before an offset go; answers the partition's start",
  usage: `${partitionUsage} start`,
  arity: { min: 4, max: 4 },
  keys: 'first',
  access: 'write',
  frees: true,
  check(args) {
    partitionOf(args)
    amountOf(args[3]!, 'start')
  },
  run: (keyspace, args) => count(keyspace.partitions.trim(partitionOf(args), amountOf(args[3]!, 'start'))),
}
