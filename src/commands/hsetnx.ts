import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const hsetnx: Command = {
  name: 'HSETNX',
  summary: 'Sets a field of a hash only if it is missing: 1 if it was',
  usage: 'key field value',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  check: args => checkFields(args.slice(1, 2)),
  run(keyspace, [key, field, value]) {
    if (keyspace.hashes.get(key!, [field!])[0] !== undefined) return count(0)
    return count(keyspace.hashes.put(key!, [[field!, value!]], null))
  },
}
