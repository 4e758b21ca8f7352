import { fromLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { checkGroup, parseStream } from './groups.ts'

export const groupOffsets: Command = {
  name: 'GROUP.OFFSETS',
  summary: 'Committed offsets of a consumer group: stream and partition, and the offset that is next to read',
  usage: 'group [stream]',
  arity: { min: 1, max: 2 },
  keys: 'first',
  access: 'read',
  check([group, stream]) {
    checkGroup(groupOffsets, group!)
    if (stream !== undefined) parseStream(stream)
  },
  run: (keyspace, [group, stream]) => ({
    kind: 'list',
    items: keyspace.groups
      .offsets(group!, stream === undefined ? null : parseStream(stream))
      .map(({ stream, partition, offset }) => ({
        key: fromLatin1(`${stream} ${partition}`),
        value: fromLatin1(`${offset}`),
      })),
  }),
}
