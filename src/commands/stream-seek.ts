import type { Command } from './command.ts'
import { count } from './replies.ts'
import { amountOf, partitionOf, partitionUsage } from './stream-arguments.ts'

export const streamSeek: Command = {
  name: 'STREAM.SEEK',
  summary: 'The first offset whose record is of a time (ms since 1970) or later; the end when there is none',
  usage: `${partitionUsage} milliseconds`,
  arity: { min: 4, max: 4 },
  keys: 'first',
  access: 'read',
  mayBeAtomic: false,
  check(args) {
    partitionOf(args)
    amountOf(args[3]!, 'time')
  },
  run: (keyspace, args) => count(keyspace.partitions.seek(partitionOf(args), amountOf(args[3]!, 'time'))),
}
