import { fromLatin1 } from '../lib/bytes.ts'
import type { Command, ListItem } from './command.ts'

/** Items: key = the routing key, value = `<stream id> <partition>`. For the node's own housekeeping, a shard at a time. */
export const streamPartitions: Command = {
  name: 'STREAM.PARTITIONS',
  summary: 'All partitions of streams that hold or held records, whether their stream still exists or not',
  usage: '',
  arity: { min: 0, max: 0 },
  keys: 'every-shard',
  access: 'read',
  gather: parts => ({
    kind: 'list',
    items: parts.flatMap(({ reply }) => (reply.kind === 'list' ? reply.items : [])),
  }),
  run(keyspace) {
    const items: ListItem[] = []
    for (const { key, stream, partition } of keyspace.partitions.all())
      items.push({ key, value: fromLatin1(`${stream} ${partition}`) })
    return { kind: 'list', items }
  },
}
