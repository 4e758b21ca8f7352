import type { Command } from './command.ts'
import { count } from './replies.ts'
import { amountOf } from './stream-arguments.ts'

export const streamDrop: Command = {
  name: 'STREAM.DROP',
  summary:
    'All streams with ids below one are gone, but for those listed: removes their partitions, for good; answers how many',
  usage: 'next [id …]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'every-shard',
  access: 'write',
  mayBeAtomic: false,
  frees: true,
  check: args => void idsOf(args),
  gather: parts =>
    count(parts.reduce((sum, { reply }) => sum + (reply.kind === 'count' ? Number(reply.count) : 0), 0)),
  run(keyspace, args) {
    const [next, ...alive] = idsOf(args)
    return count(keyspace.partitions.drop(next!, alive))
  },
}

const idsOf = (args: Parameters<Command['run']>[1]) => args.map(each => amountOf(each, 'stream id', 1))
