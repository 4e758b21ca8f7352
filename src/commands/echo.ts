import type { Command } from './command.ts'
import { valueOrNil } from './replies.ts'

export const echo: Command = {
  name: 'ECHO',
  summary: 'Answers the message',
  usage: 'message',
  arity: { min: 1, max: 1 },
  keys: 'none',
  access: 'read',
  run: (_keyspace, [message]) => valueOrNil(message),
}
