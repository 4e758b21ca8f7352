import type { AddRule } from '../keyspace/sorted-sets.ts'
import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { refuseNotANumber } from './refusals.ts'
import { valueOrNil } from './replies.ts'
import { readScore, scoreBytes } from './score.ts'

const rule: AddRule = { only: null, move: null, isIncrement: true }

export const zincrby: Command = {
  name: 'ZINCRBY',
  summary: "Adds to a member's score, 0 if it is missing; answers the new one",
  usage: 'key increment member',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  check(args) {
    readScore(args[1]!)
    checkFields(args.slice(2), 'member')
  },
  run(keyspace, [key, increment, member]) {
    const [added] = keyspace.sortedSets.add(key!, [[readScore(increment!), member!]], rule, refuseNotANumber)
    return valueOrNil(scoreBytes(added!.score))
  },
}
