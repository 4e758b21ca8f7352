import type { Command } from './command.ts'
import { increment } from './increment.ts'

export const decr: Command = {
  name: 'DECR',
  summary: 'Takes one from an integer',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'write',
  run: (keyspace, [key]) => increment(keyspace, key!, -1n),
}
