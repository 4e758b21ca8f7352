import type { Command, ListItem } from './command.ts'

export const smembers: Command = {
  name: 'SMEMBERS',
  summary: 'All members of a set, in order',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run(keyspace, [key]) {
    // 10,000 members of 512 bytes, the most that are visited, fit into a reply.
    const items: ListItem[] = []
    for (const member of keyspace.sets.all(key!)) items.push({ key: member })
    return { kind: 'list', items }
  },
}
