import type { Command } from './command.ts'
import { count } from './replies.ts'

export const scard: Command = {
  name: 'SCARD',
  summary: 'Number of members of a set',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(keyspace.sets.count(key!)),
}
