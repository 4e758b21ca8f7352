import type { Command } from './command.ts'
import { timeLeftMs } from './expiry.ts'
import { count } from './replies.ts'

export const pttl: Command = {
  name: 'PTTL',
  summary: 'Milliseconds until the key expires; -1 if never, -2 without the key',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => count(timeLeftMs(keyspace, key!)),
}
