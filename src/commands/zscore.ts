import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { nil, valueOrNil } from './replies.ts'
import { scoreBytes } from './score.ts'

export const zscore: Command = {
  name: 'ZSCORE',
  summary: 'The score of a member of a sorted set',
  usage: 'key member',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1), 'member'),
  run(keyspace, [key, member]) {
    const score = keyspace.sortedSets.score(key!, member!)
    return score === undefined ? nil : valueOrNil(scoreBytes(score))
  },
}
