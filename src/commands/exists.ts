import type { Command } from './command.ts'
import { count } from './replies.ts'
import { sumCounts } from './scatter.ts'

export const exists: Command = {
  name: 'EXISTS',
  summary: 'How many of the keys exist; a key named twice counts twice',
  usage: 'key [key …]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'all',
  access: 'read',
  gather: sumCounts,
  run(keyspace, keys) {
    let found = 0
    for (const key of keys) if (keyspace.has(key)) found++
    return count(found)
  },
}
