import type { Command } from './command.ts'
import { parseIndex } from './lists.ts'
import { count } from './replies.ts'

export const lrem: Command = {
  name: 'LREM',
  summary: 'Removes elements of a list that equal one: the first so many, the last (below 0), or all (0)',
  usage: 'key count element',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  frees: true,
  check: args => void parseIndex(args[1]!),
  run: (keyspace, [key, wanted, element]) =>
    count(keyspace.lists.removeEqual(key!, parseIndex(wanted!), element!)),
}
