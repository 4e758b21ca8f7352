import type { Command } from './command.ts'
import { checkFields } from './fields.ts'
import { ReplyBudget, valueOrNil } from './replies.ts'

export const hget: Command = {
  name: 'HGET',
  summary: "A field's value; of several fields a list of them",
  usage: 'key field [field …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'read',
  check: args => checkFields(args.slice(1)),
  run(keyspace, [key, ...fields]) {
    if (fields.length === 1) return valueOrNil(keyspace.hashes.get(key!, fields)[0])
    const budget = new ReplyBudget('ask for fewer fields at once')
    const items = keyspace.hashes.get(key!, fields).map((value, i) => {
      budget.spend(fields[i], value)
      return value === undefined ? { key: fields[i]! } : { key: fields[i]!, value }
    })
    return { kind: 'list', items }
  },
}
