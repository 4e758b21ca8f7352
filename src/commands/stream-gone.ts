import type { Command } from './command.ts'
import { texts } from './stream-arguments.ts'

/** For the node's own housekeeping, a shard at a time. Items: the id below which, then those listed. */
export const streamGone: Command = {
  name: 'STREAM.GONE',
  summary: 'Which streams a shard knows to be gone: all below an id but for those listed',
  usage: '',
  arity: { min: 0, max: 0 },
  keys: 'every-shard',
  access: 'read',
  gather: parts => ({
    kind: 'list',
    items: parts.flatMap(({ reply }) => (reply.kind === 'list' ? reply.items : [])),
  }),
  run(keyspace) {
    const { next, alive } = keyspace.partitions.gone()
    return texts(next, ...alive)
  },
}
