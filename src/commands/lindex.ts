import type { Command } from './command.ts'
import { parseIndex } from './lists.ts'
import { valueOrNil } from './replies.ts'

export const lindex: Command = {
  name: 'LINDEX',
  summary: 'An element of a list; 0 is the first, -1 the last',
  usage: 'key index',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'read',
  check: args => void parseIndex(args[1]!),
  run: (keyspace, [key, index]) => valueOrNil(keyspace.lists.at(key!, parseIndex(index!))),
}
