import type { Command } from './command.ts'
import { checkGroup, checkMember, parseGeneration, parseOffset, parseOffsets } from './groups.ts'
import { done } from './replies.ts'

/** All of the offsets or none. One below what is committed already came late and changes nothing. */
export const groupCommit: Command = {
  name: 'GROUP.COMMIT',
  summary:
    'Commits offsets of partitions that a member of a consumer group has; the offset is the next to read',
  usage: 'group member generation stream partition offset [stream partition offset …]',
  arity: { min: 6, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check([group, member, generation, ...offsets]) {
    checkGroup(groupCommit, group!)
    checkMember(groupCommit, member!)
    parseGeneration(generation!)
    parseOffsets(groupCommit, offsets, parseOffset)
  },
  run(keyspace, [group, member, generation, ...offsets]) {
    const parsed = parseOffsets(groupCommit, offsets, parseOffset)
    keyspace.groups.commit(group!, member!, parseGeneration(generation!), parsed)
    return done
  },
}
