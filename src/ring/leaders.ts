/**
 * The second pass of `place`: who leads each shard. Today's leader stays where its node is within the bounds for leaders;
 * the rest is mended by the fewest transfers, along shortest paths as in the replica table. A leader is a voter: one that
 * is chosen among the learners takes the place of the last voter.
 */
import { boundsFor } from './bounds.ts'

export interface LeadersInput {
  /** One entry a node. */
  readonly weights: readonly number[]
  /** By shard: its nodes, voters first. Not empty. */
  readonly replicas: readonly (readonly number[])[]
  readonly voterCount: number
  /** True: only today's voters may lead. */
  readonly keepsVoters: boolean
  /** By shard: today's leader, or -1. */
  readonly today: readonly number[]
}

export interface LedShard {
  readonly replicas: readonly number[]
  readonly leader: number
}

export function chooseLeaders(input: LeadersInput): LedShard[] {
  return new LeaderTable(input).choose()
}

class LeaderTable {
  private readonly input: LeadersInput
  private readonly nodeCount: number
  private readonly leader: Int32Array
  private readonly load: Int32Array
  /** By node: the shards it leads, in no order that matters. */
  private readonly led: Set<number>[]
  private readonly candidateCount: number

  constructor(input: LeadersInput) {
    this.input = input
    this.nodeCount = input.weights.length
    this.leader = new Int32Array(input.replicas.length).fill(-1)
    this.load = new Int32Array(this.nodeCount)
    this.led = input.weights.map(() => new Set())
    this.candidateCount = input.keepsVoters ? input.voterCount : Number.POSITIVE_INFINITY
  }

  choose(): LedShard[] {
    const { weights, replicas, voterCount } = this.input
    const shardCount = replicas.length
    const { mean, share, lower, upper } = boundsFor(weights, shardCount, shardCount)
    const excess = (node: number) => this.load[node]! / mean[node]!

    const orphans: number[] = []
    for (let shard = 0; shard < shardCount; shard++) {
      const today = this.input.today[shard]!
      if (this.canLead(shard, today)) this.appoint(shard, today)
      else orphans.push(shard)
    }
    for (const shard of orphans) {
      // The earlier replica at equal load: a voter, and one that has the data already.
      const candidates = this.candidatesOf(shard)
      this.appoint(
        shard,
        candidates.reduce((best, node) => (excess(node) < excess(best) ? node : best)),
      )
    }

    const nodes = weights.map((_, node) => node)
    const emptiest = (accepts: (node: number) => boolean) =>
      nodes.filter(accepts).sort((a, b) => excess(a) - excess(b) || a - b)
    // Where learners may not lead, or a placement is lopsided by hand, the bounds may be out of reach: no path, no move.
    for (const node of nodes) {
      while (this.load[node]! > upper[node]!) {
        const below = emptiest(each => this.load[each]! < share[each]!)
        if (this.handOn([node], below)) continue
        if (
          !this.handOn(
            [node],
            emptiest(each => this.load[each]! < upper[each]!),
          )
        )
          break
      }
    }
    for (const node of nodes.filter(each => this.load[each]! < lower[each]!)) {
      while (this.load[node]! < share[node]!) {
        const donors = emptiest(each => this.load[each]! > share[each]!).reverse()
        if (!this.handOn(donors, [node])) break
      }
    }
    return replicas.map((each, shard) => ({
      replicas: withVoter(each, this.leader[shard]!, voterCount),
      leader: this.leader[shard]!,
    }))
  }

  /** Moves one leadership from one of `givers` to one of `takers` along a shortest path. False if there is none. */
  private handOn(givers: readonly number[], takers: readonly number[]): boolean {
    const cameBy = new Int32Array(this.nodeCount).fill(-1)
    const isSource = new Uint8Array(this.nodeCount)
    for (const node of givers) isSource[node] = 1
    const queue = [...givers]
    for (let at = 0; at < queue.length; at++) {
      const from = queue[at]!
      const offers = this.offersOf(from)
      const taker = takers.find(node => offers[node] !== -1)
      for (const to of taker === undefined ? offers.keys() : [taker]) {
        if (offers[to] === -1 || isSource[to] || cameBy[to] !== -1) continue
        cameBy[to] = offers[to]!
        queue.push(to)
      }
      if (taker === undefined || isSource[taker]) continue
      for (let to = taker; !isSource[to]; ) {
        const shard = cameBy[to]!
        const giver = this.leader[shard]!
        this.appoint(shard, to)
        to = giver
      }
      return true
    }
    return false
  }

  /** By node: the shard led by `from` that it would best take over, or -1. */
  private offersOf(from: number): Int32Array {
    const offers = new Int32Array(this.nodeCount).fill(-1)
    const costs = new Int32Array(this.nodeCount)
    for (const shard of this.led[from]!) {
      for (const [position, to] of this.candidatesOf(shard).entries()) {
        if (to === from) continue
        const cost = this.transferCost(shard, from, to) * 2 + (position < this.input.voterCount ? 0 : 1)
        const isBetter = cost < costs[to]! || (cost === costs[to] && shard < offers[to]!)
        if (offers[to] !== -1 && !isBetter) continue
        offers[to] = shard
        costs[to] = cost
      }
    }
    return offers
  }

  /** 0 gives a shard back to today's leader, 1 hands on one that changes anyway, 2 is a transfer more. */
  private transferCost(shard: number, from: number, to: number): number {
    const today = this.input.today[shard]!
    return today === to ? 0 : today === from ? 2 : 1
  }

  private canLead(shard: number, node: number): boolean {
    return node !== -1 && this.candidatesOf(shard).includes(node)
  }

  private candidatesOf(shard: number): readonly number[] {
    const nodes = this.input.replicas[shard]!
    return nodes.length <= this.candidateCount ? nodes : nodes.slice(0, this.candidateCount)
  }

  private appoint(shard: number, node: number): void {
    const before = this.leader[shard]!
    if (before !== -1) {
      this.load[before]! -= 1
      this.led[before]!.delete(shard)
    }
    this.leader[shard] = node
    this.load[node]! += 1
    this.led[node]!.add(shard)
  }
}

/** `nodes` with `leader` among the first `voterCount`: if need be it changes places with the last voter. */
function withVoter(nodes: readonly number[], leader: number, voterCount: number): readonly number[] {
  const at = nodes.indexOf(leader)
  if (at < voterCount) return nodes
  const reordered = [...nodes]
  reordered[at] = nodes[voterCount - 1]!
  reordered[voterCount - 1] = leader
  return reordered
}
