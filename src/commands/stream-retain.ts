import type { Command } from './command.ts'
import { count } from './replies.ts'
import { optionalAmountOf, partitionOf, partitionUsage } from './stream-arguments.ts'

/** Files end at other offsets on other nodes: the answer is a proposal, and the TRIM that names it decides for all. */
export const streamRetain: Command = {
  name: 'STREAM.RETAIN',
  summary:
    'Where a partition would be cut to fit so many bytes, and to hold nothing older than a time (- for either: any)',
  usage: `${partitionUsage} bytes|- milliseconds|-`,
  arity: { min: 5, max: 5 },
  keys: 'first',
  access: 'read',
  mayBeAtomic: false,
  check(args) {
    partitionOf(args)
    optionalAmountOf(args[3]!, 'bytes')
    optionalAmountOf(args[4]!, 'time')
  },
  run(keyspace, args) {
    const bytesMax = optionalAmountOf(args[3]!, 'bytes')
    const expiredBeforeMs = optionalAmountOf(args[4]!, 'time')
    return count(keyspace.partitions.cutFor(partitionOf(args), bytesMax, expiredBeforeMs))
  },
}
