import type { Command } from './command.ts'
import { timeLeftMs } from './expiry.ts'
import { count } from './replies.ts'

export const ttl: Command = {
  name: 'TTL',
  summary: 'Seconds until the key expires, rounded; -1 if never, -2 without the key',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run(keyspace, [key]) {
    const leftMs = timeLeftMs(keyspace, key!)
    return count(leftMs < 0 ? leftMs : Math.floor((leftMs + 500) / 1000))
  },
}
