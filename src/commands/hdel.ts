import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { count } from './replies.ts'

export const hdel: Command = {
  name: 'HDEL',
  summary: 'Deletes fields of a hash; without a field the hash. Answers how many there were',
  usage: 'key [field …]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  frees: true,
  check: args => checkFields(args.slice(1)),
  run(keyspace, [key, ...fields]) {
    if (fields.length === 0) return count(keyspace.hashes.deleteAll(key!) ? 1 : 0)
    return count(keyspace.hashes.delete(key!, fields))
  },
}
