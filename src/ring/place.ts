/**
 * Where the shards should be: a pure function of the members and of today's placement. What is within bounds stays; the
 * rest is mended by the fewest moves, each shard asking the nodes in its ring order. (A walk without memory of today was
 * refused: under a tight bound it strands shards and moves up to 1.5 × the minimum.)
 *
 * Replicas first, in four steps, then leaders:
 *   keep     what today's placement has on eligible nodes, at most k a shard
 *   fill     shards that lack replicas
 *   balance  nodes above their upper bound give, nodes below their lower one get
 *   spread   shards that could stand in more zones within the bounds do
 *
 * Invariants: k = min(replication factor, eligible nodes) distinct nodes a shard; every node at or below its upper bound
 * and at or above its lower one; the answer depends on nothing but its input, and given its own answer as `today` it
 * changes nothing. Bounds come before zones: "distinct zones" is a preference, as on the ring. In one zone a join copies
 * exactly the new node's share; with zones, what `spread` mends for the sake of safety may come on top.
 */
import { assert } from '../lib/assert.ts'
import { isShardCount, shardCountMax } from '../lib/slot.ts'
import { chooseLeaders } from './leaders.ts'
import { ReplicaTable } from './replica-table.ts'
import { type Hash64, Ring, vNodeCountDefault } from './ring.ts'

export interface PlacementMember {
  readonly nodeId: string
  /** Nodes of one zone may fail together. Nodes that name none share the zone ''. */
  readonly zone: string
  /** Share of the data relative to the others, > 0; 1 is usual. */
  readonly weight: number
  /** False for nodes that leave, are drained or are given up as dead: they keep and get nothing. */
  readonly isEligible: boolean
}

export interface ShardPlacement {
  /** Distinct node ids. The first `voterCount` hold voters, the rest learners. */
  readonly replicas: readonly string[]
  /** One of the voters; null only in a shard without replicas. */
  readonly leader: string | null
}

export interface Placement {
  /** Voters a shard: `votersFor(replicationFactor, eligible members)`. */
  readonly voterCount: number
  /** Index = shard. */
  readonly shards: readonly ShardPlacement[]
}

export interface PlaceInput {
  /** In any order; ids distinct. */
  readonly members: readonly PlacementMember[]
  readonly shardCount: number
  readonly replicationFactor: number
  /** Today's placement, index = shard, replicas with the voters first; empty for a new cluster. */
  readonly today: readonly ShardPlacement[]
  readonly hash64: Hash64
  readonly vNodeCount?: number
}

export const membersMax = 1000

/** Voters of a group: the largest odd number ≤ min(replicationFactor, members). An even one more would add no safety. */
export function votersFor(replicationFactor: number, members: number): number {
  const replicas = Math.min(replicationFactor, members)
  return replicas === 0 ? 0 : replicas - ((replicas + 1) % 2)
}

/** The placement to wish for. Where no member is eligible there is no better place: today's comes back as it is. */
export function place(input: PlaceInput): Placement {
  const { shardCount, replicationFactor, today } = input
  assert(isShardCount(shardCount), `shard count ${shardCount} is no power of two from 1 to ${shardCountMax}`)
  assert(
    Number.isInteger(replicationFactor) && replicationFactor >= 1,
    `replication factor ${replicationFactor}`,
  )
  assert(today.length <= shardCount, `today's placement has ${today.length} shards of ${shardCount}`)
  assert(input.members.length <= membersMax, `${input.members.length} members, at most ${membersMax}`)

  const nodes = input.members.filter(member => member.isEligible).sort(byNodeId)
  assert(
    nodes.every((node, i) => i === 0 || nodes[i - 1]!.nodeId !== node.nodeId),
    'a node id stands twice among the members',
  )
  const voterCount = votersFor(replicationFactor, nodes.length)
  const shardsToday = Array.from({ length: shardCount }, (_, shard) => today[shard] ?? unplaced)
  if (nodes.length === 0) return { voterCount, shards: shardsToday }

  const ring = new Ring(nodes, input.vNodeCount ?? vNodeCountDefault, input.hash64)
  const indexOf = new Map(nodes.map((node, index) => [node.nodeId, index]))
  const indexesOf = (shard: ShardPlacement) => [
    ...new Set(shard.replicas.flatMap(nodeId => indexOf.get(nodeId) ?? [])),
  ]

  const table = new ReplicaTable({
    zones: nodes.map(node => node.zone),
    weights: nodes.map(node => node.weight),
    replicas: Math.min(replicationFactor, nodes.length),
    ring,
    today: shardsToday.map(indexesOf),
  })
  table.keep()
  table.fill()
  table.balance()
  table.spread()

  const shards = chooseLeaders({
    weights: nodes.map(node => node.weight),
    replicas: table.replicas,
    voterCount,
    // A second node waits as a learner for a third. Making it the one voter instead would gain no safety, and cost a
    // change of configuration a shard that the third node's arrival makes superfluous.
    keepsVoters: voterCount === 1 && nodes.length < replicationFactor,
    today: shardsToday.map(shard => (shard.leader === null ? -1 : (indexOf.get(shard.leader) ?? -1))),
  })
  return {
    voterCount,
    shards: shards.map(({ replicas, leader }) => ({
      replicas: replicas.map(index => nodes[index]!.nodeId),
      leader: nodes[leader]!.nodeId,
    })),
  }
}

const unplaced: ShardPlacement = { replicas: [], leader: null }

/** By code units: the same order on every machine, whatever its locale. */
function byNodeId(a: PlacementMember, b: PlacementMember): number {
  return a.nodeId < b.nodeId ? -1 : a.nodeId > b.nodeId ? 1 : 0
}
