import type { Command } from './command.ts'
import { checkGroup, checkMember, membershipReply, parseGeneration } from './groups.ts'

/** `generation`: the last one whose revocations the member has carried out; saying it is the acknowledgement. */
export const groupHeartbeat: Command = {
  name: 'GROUP.HEARTBEAT',
  summary: 'Keeps a member of a consumer group; answers the generation, its partitions, and what to give up',
  usage: 'group member generation',
  arity: { min: 3, max: 3 },
  keys: 'first',
  access: 'write',
  // It takes no room: a row in the place of another. Consumers go on while disks are nearly full.
  frees: true,
  check([group, member, generation]) {
    checkGroup(groupHeartbeat, group!)
    checkMember(groupHeartbeat, member!)
    parseGeneration(generation!)
  },
  run: (keyspace, [group, member, generation]) =>
    membershipReply(keyspace.groups.heartbeat(group!, member!, parseGeneration(generation!))),
}
