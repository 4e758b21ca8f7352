import { assert } from '../lib/assert.ts'
import { fromLatin1, toLatin1 } from '../lib/bytes.ts'
import type { Command, ListItem } from './command.ts'
import { parseStream } from './groups.ts'
import { ReplyBudget } from './replies.ts'

export const groupList: Command = {
  name: 'GROUP.LIST',
  summary: 'Consumer groups by name, with members and generation; of one stream: who reads it or did',
  usage: '[stream]',
  arity: { min: 0, max: 1 },
  keys: 'every-shard',
  access: 'read',
  check: ([stream]) => void (stream === undefined || parseStream(stream)),
  run: (keyspace, [stream]) => ({
    kind: 'list',
    items: keyspace.groups
      .list(stream === undefined ? null : parseStream(stream))
      .map(({ name, members, generation }) => ({ key: name, value: fromLatin1(`${members} ${generation}`) })),
  }),
  gather(parts) {
    const budget = new ReplyBudget('ask for the groups of one stream')
    const items: ListItem[] = []
    for (const { reply } of parts) {
      assert(reply.kind === 'list', `a ${reply.kind} among lists`)
      for (const item of reply.items) {
        budget.spend(item.key, item.value)
        items.push(item)
      }
    }
    const sorted = items
      .map(item => [toLatin1(item.key!), item] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1))
    return { kind: 'list', items: sorted.map(([, item]) => item) }
  },
}
