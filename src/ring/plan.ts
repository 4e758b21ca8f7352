/**
 * From today's placement to the wish: the moves, as a pure difference. The order is the one to carry them out in: first
 * what brings back lost copies, then the rest, in turns over the nodes that get replicas so that they fill evenly and no
 * single disk takes the whole load. Nothing here knows what a move is made of; a shard's moves are done one at a time.
 */
import type { ShardPlacement } from './place.ts'

/** One replica of `shard` to make on `add` and one to drop on `remove`: a swap when both are there. */
export interface Move {
  readonly shard: number
  readonly add: string | null
  readonly remove: string | null
}

export interface Transfer {
  readonly shard: number
  readonly from: string | null
  readonly to: string
}

export interface Plan {
  readonly moves: readonly Move[]
  /** Leaders that differ, in shard order; where the new one holds no replica yet, after its move. */
  readonly transfers: readonly Transfer[]
  /** Replicas that are copied: moves with an `add`. */
  readonly copies: number
  /** Fewest copies that reach the wish's number of replicas on every node. */
  readonly copiesMin: number
}

/**
 * The plan from `today` to `wish` (index = shard; either may be shorter). Replicas on `lost` nodes are gone already:
 * their replacement comes first.
 */
export function plan(
  today: readonly ShardPlacement[],
  wish: readonly ShardPlacement[],
  lost: ReadonlySet<string> = new Set(),
): Plan {
  const moves: Move[] = []
  const transfers: Transfer[] = []
  const growth = new Map<string, number>()
  for (let shard = 0; shard < Math.max(today.length, wish.length); shard++) {
    const before = today[shard] ?? unplaced
    const after = wish[shard] ?? unplaced
    moves.push(...movesOf(shard, before.replicas, after.replicas, lost))
    if (after.leader !== null && after.leader !== before.leader) {
      transfers.push({ shard, from: before.leader, to: after.leader })
    }
    for (const node of after.replicas) growth.set(node, (growth.get(node) ?? 0) + 1)
    for (const node of before.replicas) growth.set(node, (growth.get(node) ?? 0) - 1)
  }
  return {
    moves: inTurns(moves, lost),
    transfers,
    copies: moves.filter(move => move.add !== null).length,
    copiesMin: [...growth.values()].reduce((sum, each) => sum + Math.max(0, each), 0),
  }
}

const unplaced: ShardPlacement = { replicas: [], leader: null }

/** Pairs new nodes with old ones, lost ones first: a lost copy is replaced by the first that can be made. */
function movesOf(
  shard: number,
  before: readonly string[],
  after: readonly string[],
  lost: ReadonlySet<string>,
): Move[] {
  const added = after.filter(node => !before.includes(node))
  const gone = before.filter(node => !after.includes(node))
  const removed = [...gone.filter(node => lost.has(node)), ...gone.filter(node => !lost.has(node))]
  // A shard that grows and swaps grows first: there is no hurry to drop a copy.
  const grows = Math.max(0, added.length - removed.length)
  return Array.from({ length: Math.max(added.length, removed.length) }, (_, i) => ({
    shard,
    add: added[i] ?? null,
    remove: (i < grows ? undefined : removed[i - grows]) ?? null,
  }))
}

/** Urgency first; within it each node that gets replicas is as far along, relative to its number, as the others. */
function inTurns(moves: readonly Move[], lost: ReadonlySet<string>): Move[] {
  const totals = new Map<string | null, number>()
  const places = new Map<Move, number>()
  for (const move of moves) {
    const place = totals.get(move.add) ?? 0
    totals.set(move.add, place + 1)
    places.set(move, place)
  }
  const urgency = (move: Move) => {
    if (move.add === null) return 2
    return move.remove === null || lost.has(move.remove) ? 0 : 1
  }
  const progress = (move: Move) => (places.get(move)! + 0.5) / totals.get(move.add)!
  // The sort is stable: shard order decides the rest.
  return [...moves].sort((a, b) => urgency(a) - urgency(b) || progress(a) - progress(b))
}
