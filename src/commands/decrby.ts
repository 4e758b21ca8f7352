import { RoundhouseError } from '../errors.ts'
import type { Command } from './command.ts'
import { increment } from './increment.ts'
import { int64Min, parseAmount } from './integer.ts'

export const decrby: Command = {
  name: 'DECRBY',
  summary: 'Takes from an integer',
  usage: 'key amount',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'write',
  check(args) {
    // Its negation is no 64-bit integer; Redis refuses it whatever it would be taken from.
    if (parseAmount(args[1]!) === int64Min)
      throw new RoundhouseError('OVERFLOW', { what: `-(${int64Min})`, words: 'decrement would overflow' })
  },
  run: (keyspace, [key, amount]) => increment(keyspace, key!, -parseAmount(amount!)),
}
