import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const srem: Command = {
  name: 'SREM',
  summary: 'Removes members of a set; answers how many were there',
  usage: 'key member [member …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  frees: true,
  check: args => checkFields(args.slice(1), 'member'),
  run: (keyspace, [key, ...members]) => count(keyspace.sets.remove(key!, members)),
}
