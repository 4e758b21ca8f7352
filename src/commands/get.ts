import type { Command } from './command.ts'
import { valueOrNil } from './replies.ts'

export const get: Command = {
  name: 'GET',
  summary: "The key's value",
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => valueOrNil(keyspace.getString(key!)),
}
