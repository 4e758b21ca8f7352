import type { Command, ListItem } from './command.ts'
import { checkFields } from './fields.ts'
import { ReplyBudget } from './replies.ts'

export const hmget: Command = {
  name: 'HMGET',
  summary: 'The values of fields of a hash, in order; nothing for a field that is missing',
  usage: 'key field [field …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1)),
  run(keyspace, [key, ...fields]) {
    const budget = new ReplyBudget('ask for fewer fields at once')
    const items = keyspace.hashes.get(key!, fields).map((value): ListItem => {
      budget.spend(value)
      return value === undefined ? {} : { value }
    })
    return { kind: 'list', items }
  },
}
