import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const hexists: Command = {
  name: 'HEXISTS',
  summary: 'Whether a hash has a field: 1 or 0',
  usage: 'key field',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1)),
  run: (keyspace, [key, field]) => count(keyspace.hashes.get(key!, [field!])[0] === undefined ? 0 : 1),
}
