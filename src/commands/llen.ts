import type { Command } from './command.ts'
import { count } from './replies.ts'

export const llen: Command = {
  name: 'LLEN',
  summary: 'Number of elements of a list',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(keyspace.lists.count(key!)),
}
