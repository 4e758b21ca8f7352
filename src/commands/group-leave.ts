import type { Command } from './command.ts'
import { checkGroup, checkMember, parseGeneration } from './groups.ts'

/** Without a generation it takes the member out whatever it is doing: for people. */
export const groupLeave: Command = {
  name: 'GROUP.LEAVE',
  summary: 'Takes a member out of a consumer group; its partitions are free at once',
  usage: 'group member [generation]',
  arity: { min: 2, max: 3 },
  keys: 'first',
  access: 'write',
  frees: true,
  check([group, member, generation]) {
    checkGroup(groupLeave, group!)
    checkMember(groupLeave, member!)
    if (generation !== undefined) parseGeneration(generation)
  },
  run: (keyspace, [group, member, generation]) => ({
    kind: 'success',
    success: keyspace.groups.leave(
      group!,
      member!,
      generation === undefined ? null : parseGeneration(generation),
    ),
  }),
}
