import type { Command } from './command.ts'
import { checkGroup, isWord } from './groups.ts'
import { refuseSyntax } from './refusals.ts'

export const groupDelete: Command = {
  name: 'GROUP.DELETE',
  summary: 'Deletes a consumer group and its offsets; FORCE: with its members',
  usage: 'group [FORCE]',
  arity: { min: 1, max: 2 },
  keys: 'first',
  access: 'write',
  frees: true,
  check([group, force]) {
    checkGroup(groupDelete, group!)
    if (force !== undefined && !isWord(force, 'FORCE'))
      refuseSyntax('behind the group comes FORCE or nothing')
  },
  run: (keyspace, [group, force]) => ({
    kind: 'success',
    success: keyspace.groups.delete(group!, force !== undefined),
  }),
}
