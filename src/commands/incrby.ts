import type { Command } from './command.ts'

import { increment } from './increment.ts'
import { parseAmount } from './integer.ts'

export const incrby: Command = {
  name: 'INCRBY',
  summary: 'Adds to an integer',
  usage: 'key amount',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'write',
  check: args => void parseAmount(args[1]!),
  run: (keyspace, [key, amount]) => increment(keyspace, key!, parseAmount(amount!)),
}
