import type { Command } from './command.ts'
import { partitionOf, partitionUsage, texts } from './stream-arguments.ts'

export const streamInfo: Command = {
  name: 'STREAM.INFO',
  summary:
    "A partition's start, end, time of its last record (ms since 1970), and bytes on the disk of who answers",
  usage: partitionUsage,
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'read',
  mayBeAtomic: false,
  check: args => void partitionOf(args),
  run(keyspace, args) {
    const id = partitionOf(args)
    const { start, end, timestampMs } = keyspace.partitions.find(id) ?? { start: 0, end: 0, timestampMs: 0 }
    return texts(start, end, timestampMs, keyspace.partitions.bytesOf(id))
  },
}
