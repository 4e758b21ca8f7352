import type { Command } from './command.ts'
import { done, notDone } from './replies.ts'
import { partitionOf, partitionUsage } from './stream-arguments.ts'

export const streamDrop: Command = {
  name: 'STREAM.DROP',
  summary: 'Removes a partition with all its records',
  usage: partitionUsage,
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  mayBeAtomic: false,
  frees: true,
  check: args => void partitionOf(args),
  run: (keyspace, args) => (keyspace.partitions.drop(partitionOf(args)) ? done : notDone),
}
