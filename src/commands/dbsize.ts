import type { Command } from './command.ts'
import { count } from './replies.ts'
import { sumCounts } from './scatter.ts'

/** As in Redis, a key that expired counts until the sweep has taken it. */
export const dbsize: Command = {
  name: 'DBSIZE',
  summary: 'Number of keys',
  usage: '',
  arity: { min: 0, max: 0 },
  keys: 'every-shard',
  access: 'read',
  gather: sumCounts,
  run: keyspace => count(keyspace.keyCount),
}
