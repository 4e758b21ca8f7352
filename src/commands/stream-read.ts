import { limits } from '../keyspace/limits.ts'
import { fromLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { amountOf, partitionOf, partitionUsage } from './stream-arguments.ts'

/** The reply's cursor is `<start> <end>` of the partition, as the replica that answers has it. */
export const streamRead: Command = {
  name: 'STREAM.READ',
  summary: 'Records of a partition from an offset on, at least one if there is one',
  usage: `${partitionUsage} offset bytes`,
  arity: { min: 5, max: 5 },
  keys: 'first',
  access: 'read',
  mayBeAtomic: false,
  check(args) {
    partitionOf(args)
    amountOf(args[3]!, 'offset')
    amountOf(args[4]!, 'bytes')
  },
  run(keyspace, args) {
    const from = amountOf(args[3]!, 'offset')
    const bytesMax = Math.min(amountOf(args[4]!, 'bytes'), limits.recordReadBytesMax)
    const { records, start, end } = keyspace.partitions.read(
      partitionOf(args),
      from,
      limits.rowsVisitedMax,
      bytesMax,
    )
    const items = records.map(value => ({ value }))
    return { kind: 'list', items, cursor: fromLatin1(`${start} ${end}`) }
  },
}
