import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const sismember: Command = {
  name: 'SISMEMBER',
  summary: 'Whether a set has a member: 1 or 0',
  usage: 'key member',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1), 'member'),
  run: (keyspace, [key, member]) => count(keyspace.sets.has(key!, member!) ? 1 : 0),
}
