import type { Command } from './command.ts'
import { count } from './replies.ts'
import { sumCounts } from './scatter.ts'

export const del: Command = {
  name: 'DEL',
  summary: 'Deletes keys of any type; answers how many there were',
  usage: 'key [key …]',
  arity: { min: 1, max: Number.POSITIVE_INFINITY },
  keys: 'all',
  access: 'write',
  frees: true,
  gather: sumCounts,
  run(keyspace, keys) {
    let deleted = 0
    for (const key of keys) if (keyspace.deleteKey(key)) deleted++
    return count(deleted)
  },
}
