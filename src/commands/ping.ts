import { fromLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { valueOrNil } from './replies.ts'

const pong = fromLatin1('PONG')

export const ping: Command = {
  name: 'PING',
  summary: 'Answers PONG, or the message',
  usage: '[message]',
  arity: { min: 0, max: 1 },
  keys: 'none',
  access: 'read',
  run: (_keyspace, [message]) => valueOrNil(message ?? pong),
}
