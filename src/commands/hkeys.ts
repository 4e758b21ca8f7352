import type { Command, ListItem } from './command.ts'

export const hkeys: Command = {
  name: 'HKEYS',
  summary: 'All fields of a hash, in order',
  usage: 'key',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  run(keyspace, [key]) {
    // 10,000 fields of 512 bytes, the most that are visited, fit into a reply.
    const items: ListItem[] = []
    for (const [field] of keyspace.hashes.all(key!)) items.push({ key: field })
    return { kind: 'list', items }
  },
}
