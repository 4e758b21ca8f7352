import type { Command } from './command.ts'
import { parseIndex, valueList } from './lists.ts'

export const lrange: Command = {
  name: 'LRANGE',
  summary: 'Elements start to stop of a list, both included; -1 is the last',
  usage: 'key start stop',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'read',
  check(args) {
    parseIndex(args[1]!)
    parseIndex(args[2]!)
  },
  run: (keyspace, [key, start, stop]) =>
    valueList(keyspace.lists.range(key!, parseIndex(start!), parseIndex(stop!)), 'ask for a shorter range'),
}
