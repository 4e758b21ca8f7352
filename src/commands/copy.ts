import { equalBytes, toLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { checkOneSlot } from './one-slot.ts'
import { refuseSameKey, refuseSyntax } from './refusals.ts'
import { count } from './replies.ts'

export const copy: Command = {
  name: 'COPY',
  summary: 'Copies a value and its expiry to another key of the same slot: 1 if it did',
  usage: 'source destination [REPLACE]',
  arity: { min: 2, max: 3 },
  keys: 'pair',
  access: 'write',
  check([source, destination, option]) {
    if (option !== undefined && toLatin1(option).toUpperCase() !== 'REPLACE')
      refuseSyntax('the only option is REPLACE')
    if (equalBytes(source!, destination!)) refuseSameKey(source!)
    checkOneSlot(source!, destination!)
  },
  run: (keyspace, [source, destination, option]) =>
    count(keyspace.copy(source!, destination!, option !== undefined) ? 1 : 0),
}
