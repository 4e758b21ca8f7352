import type { Command, ListItem } from './command.ts'
import { ReplyBudget } from './replies.ts'

export const hgetall: Command = {
  name: 'HGETALL',
  summary: 'All fields of a hash and their values, in the order of the fields',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run(keyspace, [key]) {
    const budget = new ReplyBudget('ask for the fields you need with HGET')
    const items: ListItem[] = []
    for (const [field, value] of keyspace.hashes.all(key!)) {
      budget.spend(field, value)
      items.push({ key: field, value })
    }
    return { kind: 'list', items }
  },
}
