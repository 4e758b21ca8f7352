import type { Command } from './command.ts'
import { count } from './replies.ts'

export const persist: Command = {
  name: 'PERSIST',
  summary: "Takes a key's expiry away; 1 if it had one",
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'write',
  run(keyspace, [key]) {
    const expiresAtMs = keyspace.expiryOf(key!)
    if (expiresAtMs === undefined || expiresAtMs === null) return count(0)
    keyspace.setExpiry(key!, null)
    return count(1)
  },
}
