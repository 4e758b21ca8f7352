import type { Command } from './command.ts'
import { count } from './replies.ts'

export const zcard: Command = {
  name: 'ZCARD',
  summary: 'Number of members of a sorted set',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(keyspace.sortedSets.count(key!)),
}
