import type { Command, ListItem } from './command.ts'
import { ReplyBudget } from './replies.ts'

export const hvals: Command = {
  name: 'HVALS',
  summary: 'All values of a hash, in the order of its fields',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run(keyspace, [key]) {
    const budget = new ReplyBudget('ask for the fields you need with HMGET')
    const items: ListItem[] = []
    for (const [, value] of keyspace.hashes.all(key!)) {
      budget.spend(value)
      items.push({ value })
    }
    return { kind: 'list', items }
  },
}
