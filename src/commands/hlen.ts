import type { Command } from './command.ts'
import { count } from './replies.ts'

export const hlen: Command = {
  name: 'HLEN',
  summary: 'Number of fields of a hash',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(keyspace.hashes.count(key!)),
}
