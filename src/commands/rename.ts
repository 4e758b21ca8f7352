import type { Command } from './command.ts'
import { checkOneSlot } from './one-slot.ts'
import { refuseNoSuchKey } from './refusals.ts'
import { done } from './replies.ts'

/** Costs as much for a collection of any size: elements hang on no name (keyspace/rows.ts). */
export const rename: Command = {
  name: 'RENAME',
  summary: 'Gives a value and its expiry another key of the same slot; what that held is gone',
  usage: 'key newkey',
  arity: { min: 2, max: 2 },
  keys: 'pair',
  access: 'write',
  check: ([from, to]) => checkOneSlot(from!, to!),
  run(keyspace, [from, to]) {
    if (!keyspace.rename(from!, to!)) refuseNoSuchKey(from!)
    return done
  },
}
