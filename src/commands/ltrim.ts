import type { Command } from './command.ts'
import { parseIndex } from './lists.ts'
import { done } from './replies.ts'

export const ltrim: Command = {
  name: 'LTRIM',
  summary: 'Keeps elements start to stop of a list, both included, and drops the others',
  usage: 'key start stop',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  frees: true,
  check(args) {
    parseIndex(args[1]!)
    parseIndex(args[2]!)
  },
  run(keyspace, [key, start, stop]) {
    keyspace.lists.trim(key!, parseIndex(start!), parseIndex(stop!))
    return done
  },
}
