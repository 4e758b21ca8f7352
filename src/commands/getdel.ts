import type { Command } from './command.ts'
import { nil, valueOrNil } from './replies.ts'

export const getdel: Command = {
  name: 'GETDEL',
  summary: "The key's value; the key is deleted",
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'write',
  frees: true,
  run(keyspace, [key]) {
    const value = keyspace.getString(key!)
    if (value === undefined) return nil
    keyspace.deleteKey(key!)
    return valueOrNil(value)
  },
}
