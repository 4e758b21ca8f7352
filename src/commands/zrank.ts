import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count, nil } from './replies.ts'

export const zrank: Command = {
  name: 'ZRANK',
  summary: 'How many members of a sorted set stand before one',
  usage: 'key member',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1), 'member'),
  run(keyspace, [key, member]) {
    const rank = keyspace.sortedSets.rank(key!, member!)
    return rank === undefined ? nil : count(rank)
  },
}
