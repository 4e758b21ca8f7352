import type { Command } from './command.ts'
import { increment } from './increment.ts'

export const incr: Command = {
  name: 'INCR',
  summary: 'Adds one to an integer',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'write',
  run: (keyspace, [key]) => increment(keyspace, key!, 1n),
}
