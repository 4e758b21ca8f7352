import { type Placement, place, type ShardPlacement, votersFor } from '../ring/place.ts'
import type { Hash64 } from '../ring/ring.ts'
import type { Member } from '../shard/configuration.ts'
import type { OpenRequest } from './meta-commands.ts'
import { membersOf, metaGroup, type Register, type ShardRecord } from './meta-register.ts'

/**
 * What should be done next, from the register alone: pure, decided anew each time, so that it does not matter which node
 * leads the meta shard. `place` says where replicas should be; this turns the difference into operations, a few at a time.
 */
export interface RebalanceInput {
  readonly register: Register
  /** Nodes that are not there to give or take data now. */
  readonly isDown: (node: string) => boolean
  /** Nodes that have been down for longer than anybody should wait. */
  readonly isLost: (node: string) => boolean
  /** Nodes that say that their disk is full, or nearly: they give data, and take none until there is room. */
  readonly isFull: (node: string) => boolean
  readonly hash64: Hash64
  /** Operations open at one time. Each costs its nodes a snapshot's worth of I/O. */
  readonly movesMax: number
}

export interface RebalancePlan {
  readonly wish: Placement
  readonly operations: readonly OpenRequest[]
  /** Replicas that are still to be made, those under way included. */
  readonly movesLeft: number
  /** Why nothing can go on although something is to do; null when it can. */
  readonly blockedBy: string | null
}

/** Of these, how many one node may receive. */
const receivingMax = 12
/** Voters of the meta shard. */
const metaVotersMax = 5

/**
 * Nodes that are to hold data: members, without those that are lost where enough others are there. (One that joins or
 * leaves is on the way in or out.) Where there is nobody to spare, a lost one keeps its place: fewer replicas of
 * everything would help nobody.
 */
function holders(register: Register, isLost: (node: string) => boolean): ReadonlySet<string> {
  const members = register.nodes.filter(node => node.state === 'member').map(node => node.nodeId)
  const here = members.filter(node => !isLost(node))
  const missing = Math.max(0, register.settings.replicationFactor - here.length)
  return new Set([...here, ...members.filter(isLost).slice(0, missing)])
}

export function todayOf(register: Register): ShardPlacement[] {
  return Array.from({ length: register.settings.shardCount }, (_, shard) => {
    const record = register.shards.get(shard)
    return {
      replicas: record === undefined ? [] : membersOf(record).map(member => member.node),
      leader: null,
    }
  })
}

export function wishOf(
  register: Register,
  isLost: (node: string) => boolean,
  hash64: Hash64,
  leaders: readonly (string | null)[] = [],
): Placement {
  const { shardCount, replicationFactor, vNodeCount } = register.settings
  const held = holders(register, isLost)
  const members = register.nodes
    .filter(node => node.state === 'member' || node.state === 'leaving')
    .map(({ nodeId, zone }) => ({ nodeId, zone, weight: 1, isEligible: held.has(nodeId) }))
  const today = todayOf(register).map((shard, i) => ({ ...shard, leader: leaders[i] ?? null }))
  return place({ members, shardCount, replicationFactor, today, hash64, vNodeCount })
}

export function planRebalance(input: RebalanceInput): RebalancePlan {
  const { register, isDown, isLost, isFull, hash64, movesMax } = input
  /** Why a replica can't be made there now; null when it can. */
  const troubleOf = (node: string) =>
    isDown(node) ? 'which is down' : isFull(node) ? 'whose disk is full, or nearly' : null
  const held = holders(register, isLost)
  const wish = wishOf(register, isLost, hash64)
  const operations: OpenRequest[] = []
  const meta = planMeta(register, held, isDown)
  if (meta !== null) operations.push(meta)
  const receiving = new Map<string, number>()
  let open = 0
  let movesLeft = 0
  const blocked: string[] = []
  for (const [group, record] of register.shards) {
    if (group === metaGroup || record.operation === null) continue
    open++
    const known = new Set(membersOf(record).map(member => member.replica))
    for (const member of [...record.operation.voters, ...record.operation.learners]) {
      if (known.has(member.replica)) continue
      movesLeft++
      receiving.set(member.node, (receiving.get(member.node) ?? 0) + 1)
      const trouble = troubleOf(member.node)
      if (trouble !== null) blocked.push(`shard ${group} waits for ${member.node}, ${trouble}`)
    }
  }
  const { replicationFactor } = register.settings
  const voterCount = votersFor(replicationFactor, held.size)
  for (let shard = 0; shard < register.settings.shardCount; shard++) {
    const record = register.shards.get(shard)
    const wished = wish.shards[shard]
    if (record === undefined || wished === undefined) continue
    const request = difference(shard, record, wished, voterCount)
    if (request === null) continue
    const added = [...request.voters, ...request.learners].filter(member => member.replica === null)
    const current = record.operation
    // One open a shard: what has become of the wish meanwhile waits until it closes, unless it waits for a dead node.
    if (current !== null) {
      const stuck = [...current.voters, ...current.learners].some(
        member => isDown(member.node) || record.unfit.includes(member.replica),
      )
      if (!stuck || added.some(member => troubleOf(member.node) !== null)) continue
    } else movesLeft += added.length
    const unable = added.find(member => troubleOf(member.node) !== null)
    if (unable !== undefined) {
      blocked.push(`shard ${shard} would go to ${unable.node}, ${troubleOf(unable.node)}`)
      continue
    }
    // A replacement takes the place of the operation that it replaces.
    if (register.isPaused || (current === null && open >= movesMax)) continue
    if (added.some(member => (receiving.get(member.node) ?? 0) >= receivingMax)) continue
    for (const member of added) receiving.set(member.node, (receiving.get(member.node) ?? 0) + 1)
    if (current === null) open++
    operations.push(request)
  }
  return { wish, operations, movesLeft, blockedBy: movesLeft > 0 && blocked.length > 0 ? blocked[0]! : null }
}

/** The operation that takes a shard to its wish; null where it is there. */
function difference(
  shard: number,
  record: ShardRecord,
  wished: ShardPlacement,
  voterCount: number,
): OpenRequest | null {
  const present = record.operation === null ? membersOf(record) : operationMembers(record)
  const byNode = new Map<string, Member>()
  for (const member of present) {
    if (!byNode.has(member.node) && !record.unfit.includes(member.replica)) byNode.set(member.node, member)
  }
  const votes = new Set(record.voters.map(member => member.node))
  // Who votes stays a voter where it can: a promotion costs a joint change.
  const nodes = [...wished.replicas].sort((a, b) => Number(votes.has(b)) - Number(votes.has(a)))
  const named = (node: string) => ({ node, replica: byNode.get(node)?.replica ?? null })
  const voters = nodes.slice(0, voterCount).map(named)
  const learners = nodes.slice(voterCount).map(named)
  // What an open operation will make of it counts: back to what was there before takes another one.
  const next = record.operation ?? record
  if (isSame(voters, next.voters) && isSame(learners, next.learners)) return null
  return { group: shard, replaces: record.operation?.id ?? 0, voters, learners }
}

function operationMembers(record: ShardRecord): readonly Member[] {
  const { operation } = record
  return operation === null ? membersOf(record) : [...operation.voters, ...operation.learners]
}

function isSame(wished: OpenRequest['voters'], now: readonly Member[]): boolean {
  if (wished.length !== now.length) return false
  const ids = new Set(now.map(member => member.replica))
  return wished.every(member => member.replica !== null && ids.has(member.replica))
}

/** The meta shard: every node has a replica, at most five of them vote. */
function planMeta(
  register: Register,
  held: ReadonlySet<string>,
  isDown: (node: string) => boolean,
): OpenRequest | null {
  const record = register.shards.get(metaGroup)
  if (record === undefined) return null
  const nodes = register.nodes.filter(node => node.state !== 'left')
  const mayVote = nodes.filter(node => held.has(node.nodeId))
  const voterCount = votersFor(metaVotersMax, mayVote.length)
  const votes = new Set(record.voters.map(member => member.node))
  const ranked = [...mayVote].sort(
    (a, b) =>
      Number(votes.has(b.nodeId)) - Number(votes.has(a.nodeId)) ||
      Number(isDown(a.nodeId)) - Number(isDown(b.nodeId)),
  )
  const chosen = new Set(ranked.slice(0, voterCount).map(node => node.nodeId))
  const named = nodes.map(node => ({ node: node.nodeId, replica: node.metaReplica }))
  const voters = named.filter(member => chosen.has(member.node))
  const learners = named.filter(member => !chosen.has(member.node))
  const { operation } = record
  const next = operation ?? record
  if (isSame(voters, next.voters) && isSame(learners, next.learners)) return null
  return { group: metaGroup, replaces: operation?.id ?? 0, voters, learners }
}
