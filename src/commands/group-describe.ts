import { RoundhouseError } from '../errors.ts'
import type { Partition } from '../keyspace/group-rows.ts'
import { limits } from '../keyspace/limits.ts'
import { quote, toUtf8 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { byStream, checkGroup, json } from './groups.ts'

/** A group as GROUP.DESCRIBE tells it; times are ms since 1970 by the log clock. */
export interface DescribedGroup {
  readonly generation: number
  readonly strategy: string
  /** moving: members have yet to acknowledge the generation. */
  readonly state: 'empty' | 'moving' | 'stable'
  /** When it goes with its offsets unless somebody joins; null while it has members. */
  readonly expiresAtMs: number | null
  readonly members: readonly {
    readonly member: string
    /** The last one that it acknowledged. */
    readonly generation: number
    readonly joinedMs: number
    readonly lastHeartbeatMs: number
    readonly timeoutMs: number
    readonly reads: readonly { readonly stream: number; readonly partitions: number }[]
    readonly assigned: readonly DescribedPartitions[]
    /** Its still, to be given up. */
    readonly revoked: readonly DescribedPartitions[]
    /** Its own as soon as another has given them up. */
    readonly awaited: readonly DescribedPartitions[]
  }[]
  readonly offsets: readonly {
    readonly stream: number
    readonly partition: number
    readonly offset: number
    readonly generation: number
    readonly committedMs: number
  }[]
}

export interface DescribedPartitions {
  readonly stream: number
  readonly partitions: readonly number[]
}

/** One JSON value: members have lists in lists, which a list of values can't say. */
export const groupDescribe: Command = {
  name: 'GROUP.DESCRIBE',
  summary: 'Members, partitions and committed offsets of a consumer group, as JSON',
  usage: 'group',
  arity: { min: 1, max: 1 },
  keys: 'first',
  access: 'read',
  check: ([group]) => checkGroup(groupDescribe, group!),
  run(keyspace, [group]) {
    const found = keyspace.groups.describe(group!)
    if (found === undefined) throw new RoundhouseError('NO_SUCH_GROUP', { group: quote(group!) })
    const { generation, strategy, emptySinceMs, members, offsets } = found
    const isMoving = members.some(member => member.generation !== generation || member.awaited.length > 0)
    const described: DescribedGroup = {
      generation,
      strategy,
      state: members.length === 0 ? 'empty' : isMoving ? 'moving' : 'stable',
      expiresAtMs: emptySinceMs === null ? null : emptySinceMs + limits.groupEmptyMs,
      members: members.map(({ member, generation, joinedMs, lastMs, timeoutMs, reads, ...partitions }) => ({
        member: toUtf8(member),
        generation,
        joinedMs,
        lastHeartbeatMs: lastMs,
        timeoutMs,
        reads,
        assigned: describe(partitions.assigned),
        revoked: describe(partitions.revoked),
        awaited: describe(partitions.awaited),
      })),
      offsets,
    }
    return json(described)
  },
}

function describe(partitions: readonly Partition[]): DescribedPartitions[] {
  return Array.from(byStream(partitions), ([stream, partitions]) => ({ stream, partitions }))
}
