import type { Command } from './command.ts'
import { count } from './replies.ts'

export const strlen: Command = {
  name: 'STRLEN',
  summary: "Length of the key's value in bytes; 0 without the key",
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(keyspace.getString(key!)?.byteLength ?? 0),
}
