import { fromLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'

export const type: Command = {
  name: 'TYPE',
  summary: 'What a key holds: string, hash, list, set, zset or none',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run: (keyspace, [key]) => ({ kind: 'value', value: fromLatin1(keyspace.type(key!) ?? 'none') }),
}
