import type { Command } from './command.ts'
import { done } from './replies.ts'

export const mset: Command = {
  name: 'MSET',
  summary: 'Sets keys; atomic among keys of one hash tag only',
  usage: 'key value [key value …]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'alternate',
  access: 'write',
  gather: () => done,
  run(keyspace, args) {
    for (let i = 0; i < args.length; i += 2) keyspace.putString(args[i]!, args[i + 1]!, null)
    return done
  },
}
