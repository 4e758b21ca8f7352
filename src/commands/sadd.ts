import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const sadd: Command = {
  name: 'SADD',
  summary: 'Adds members to a set; answers how many were not there before',
  usage: 'key member [member …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check: args => checkFields(args.slice(1), 'member'),
  run: (keyspace, [key, ...members]) => count(keyspace.sets.add(key!, members)),
}
