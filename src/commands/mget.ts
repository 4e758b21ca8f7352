import type { Command, ListItem } from './command.ts'
import { ReplyBudget } from './replies.ts'
import { placeItems } from './scatter.ts'

export const mget: Command = {
  name: 'MGET',
  summary: 'The values of keys, in order; nothing for a key that is missing or no string',
  usage: 'key [key …]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'all',
  access: 'read',
  gather: placeItems,
  run(keyspace, keys) {
    const budget = new ReplyBudget('ask for fewer keys at once')
    const items = keys.map((key): ListItem => {
      const value = keyspace.getIfString(key)
      budget.spend(value)
      return value === undefined ? {} : { value }
    })
    return { kind: 'list', items }
  },
}
