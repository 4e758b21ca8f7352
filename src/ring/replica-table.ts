/**
 * The working table of `place`: which of n nodes (by index) hold which shards, with the loads, and the four steps that
 * turn today's into the wish. Moving a replica is an arc between two nodes; where no single move helps, a shortest path
 * of moves does (u gives one to w, w gives another to v). That is the augmenting path of a bipartite flow, so a placement
 * within the bounds is always reached: the fractional one, every shard's replicas shared out by weight, exists.
 */
import { assert } from '../lib/assert.ts'
import { type Bounds, boundsFor } from './bounds.ts'
import type { Ring } from './ring.ts'

/** Sweeps of `spread`: each one that is followed by another has mended something. */
const spreadSweepsMax = 8

export interface ReplicaTableInput {
  /** One entry a node, in node id order. */
  readonly zones: readonly string[]
  readonly weights: readonly number[]
  /** Replicas a shard, ≤ the number of nodes. */
  readonly replicas: number
  readonly ring: Ring
  /** By shard: distinct nodes in today's order. */
  readonly today: readonly (readonly number[])[]
}

export class ReplicaTable {
  /** By shard: its nodes, those that stay in today's order, the new ones after them. */
  readonly replicas: number[][]
  private readonly replicaCount: number
  private readonly nodeCount: number
  private readonly shardCount: number
  private readonly ring: Ring
  private readonly today: readonly (readonly number[])[]
  private readonly bounds: Bounds
  private readonly load: Int32Array
  private readonly zoneOf: Int32Array
  private readonly zoneCount: number
  /** 1 at shard × nodeCount + node where the node holds the shard; `heldToday` the same for today. */
  private readonly holds: Uint8Array
  private readonly heldToday: Uint8Array
  /** Replicas of the shard in the zone, at shard × zoneCount + zone. */
  private readonly zoneUse: Uint16Array
  /** Ring order of a shard and each node's place in it, made when first asked for: most shards never move. */
  private readonly walks: (Uint16Array | undefined)[]
  private readonly ranks: (Uint16Array | undefined)[]

  constructor(input: ReplicaTableInput) {
    this.replicaCount = input.replicas
    this.nodeCount = input.weights.length
    this.shardCount = input.today.length
    this.ring = input.ring
    this.today = input.today
    this.bounds = boundsFor(input.weights, this.shardCount * this.replicaCount, this.shardCount)
    this.load = new Int32Array(this.nodeCount)
    const zones = [...new Set(input.zones)]
    this.zoneOf = Int32Array.from(input.zones, zone => zones.indexOf(zone))
    this.zoneCount = zones.length
    this.holds = new Uint8Array(this.shardCount * this.nodeCount)
    this.heldToday = new Uint8Array(this.shardCount * this.nodeCount)
    this.zoneUse = new Uint16Array(this.shardCount * this.zoneCount)
    this.walks = new Array(this.shardCount)
    this.ranks = new Array(this.shardCount)
    this.replicas = input.today.map(() => [])
    input.today.forEach((nodes, shard) => {
      for (const node of nodes) this.heldToday[shard * this.nodeCount + node] = 1
    })
  }

  /** Takes over what today has. A shard with too many replicas drops those that add no zone, then the fullest nodes'. */
  keep(): void {
    this.today.forEach((nodes, shard) => {
      for (const node of nodes) this.add(shard, node)
    })
    this.replicas.forEach((nodes, shard) => {
      while (nodes.length > this.replicaCount) {
        const dropped = nodes.reduce((worst, node) => (this.dropsBefore(shard, node, worst) ? node : worst))
        this.remove(shard, dropped)
      }
    })
  }

  /** Gives every shard its k replicas: the first nodes of its ring order that add a zone and are below their share. */
  fill(): void {
    for (let shard = 0; shard < this.shardCount; shard++) {
      while (this.replicas[shard]!.length < this.replicaCount) {
        const node = this.nodeToFill(shard)
        if (node !== -1) {
          this.add(shard, node)
          continue
        }
        // All nodes outside the shard are full: one of them takes it and hands on another.
        const outside = this.nodesWhere(each => !this.has(shard, each))
        const path = this.pathTo(
          outside,
          this.nodesWhere(each => this.load[each]! < this.bounds.upper[each]!),
        )
        assert(path !== null, `shard ${shard} finds no node within the bounds`)
        this.follow(path)
        this.add(shard, path[0]!)
      }
    }
  }

  /** Brings every node within its bounds: first the fullest give, then the emptiest are filled to their share. */
  balance(): void {
    const { share, lower, upper } = this.bounds
    for (let node = 0; node < this.nodeCount; node++) {
      while (this.load[node]! > upper[node]!) {
        const below = this.nodesWhere(each => this.load[each]! < share[each]!)
        const found =
          this.moveOne([node], below) ||
          this.moveOne(
            [node],
            this.nodesWhere(each => this.load[each]! < upper[each]!),
          )
        assert(found, `node ${node} of ${this.nodeCount} finds nobody to relieve it`)
      }
    }
    const hungry = this.nodesWhere(each => this.load[each]! < lower[each]!)
    // In turns, so that two nodes that join together are served alike.
    for (let rest = hungry; rest.length > 0; rest = rest.filter(each => this.load[each]! < share[each]!)) {
      for (const node of rest) {
        const donors = this.nodesWhere(each => this.load[each]! > share[each]!)
        assert(this.moveOne(donors, [node]), `node ${node} of ${this.nodeCount} finds nobody to fill it`)
      }
    }
  }

  /** Moves or swaps replicas of shards that stand in fewer zones than they could, where the bounds allow it. */
  spread(): void {
    const zonesWanted = Math.min(this.replicaCount, this.zoneCount)
    for (let sweep = 0; sweep < spreadSweepsMax; sweep++) {
      /** 1 at node × zoneCount + zone: no shard of the node could change to a node of that zone without losing one. */
      const isBarren = new Uint8Array(this.nodeCount * this.zoneCount)
      let mended = false
      for (let shard = 0; shard < this.shardCount; shard++) {
        while (this.zonesOf(shard) < zonesWanted && this.spreadShard(shard, isBarren)) mended = true
      }
      if (!mended) return
    }
  }

  private spreadShard(shard: number, isBarren: Uint8Array): boolean {
    const { lower, upper } = this.bounds
    const walk = this.walkOf(shard)
    const doubled = this.replicas[shard]!.filter(
      node => this.zoneUseOf(shard, this.zoneOf[node]!) > 1,
    ).reverse()
    const unused = walk.filter(node => this.zoneUseOf(shard, this.zoneOf[node]!) === 0)
    for (const from of doubled) {
      if (this.load[from]! <= lower[from]!) continue
      for (const to of unused) {
        if (this.load[to]! >= upper[to]!) continue
        this.move(shard, from, to)
        return true
      }
    }
    for (const from of doubled) {
      for (const to of unused) {
        const other = this.shardToSwap(shard, from, to, isBarren)
        if (other === -1) continue
        this.move(shard, from, to)
        this.move(other, to, from)
        return true
      }
    }
    return false
  }

  /** A shard that `to` can hand to `from` without losing a zone, or -1. */
  private shardToSwap(shard: number, from: number, to: number, isBarren: Uint8Array): number {
    const at = to * this.zoneCount + this.zoneOf[from]!
    if (isBarren[at]) return -1
    let best = -1
    let bestCost = 0
    let isFruitful = false
    for (let other = 0; other < this.shardCount; other++) {
      if (other === shard || !this.has(other, to) || this.zoneGain(other, to, from) < 0) continue
      isFruitful = true
      if (this.has(other, from)) continue
      const cost = this.moveCost(other, to, from)
      if (best !== -1 && cost >= bestCost) continue
      best = other
      bestCost = cost
    }
    if (!isFruitful) isBarren[at] = 1
    return best
  }

  /** The node to take one more replica of `shard`, or -1 where all others are at their upper bound. */
  private nodeToFill(shard: number): number {
    let best = -1
    let bestClass = 4
    for (const node of this.walkOf(shard)) {
      if (this.has(shard, node) || this.load[node]! >= this.bounds.upper[node]!) continue
      const addsZone = this.zoneUseOf(shard, this.zoneOf[node]!) === 0
      const isBelowShare = this.load[node]! < this.bounds.share[node]!
      const preference = (addsZone ? 0 : 2) + (isBelowShare ? 0 : 1)
      if (preference === 0) return node
      if (preference >= bestClass) continue
      best = node
      bestClass = preference
    }
    return best
  }

  /**
   * Moves load by one from one of `givers` to one of `takers`, the fullest and the emptiest first: one move that wins
   * a zone, else one that costs none, else a shortest path of moves. False if there is none.
   */
  private moveOne(givers: readonly number[], takers: readonly number[]): boolean {
    const fullest = this.byExcess(givers)
    const emptiest = this.byExcess(takers).reverse()
    for (const gainMin of this.zoneCount > 1 ? [1, 0] : [0]) {
      for (const to of emptiest) {
        for (const from of fullest) {
          const shard = this.shardToMove(from, to, gainMin)
          if (shard === -1) continue
          this.move(shard, from, to)
          return true
        }
      }
    }
    const path = this.pathTo(fullest, emptiest)
    if (path === null) return false
    this.follow(path)
    return true
  }

  /** A shortest path of moves from one of `sources` to one of `targets` (nodes, both ends included), or null. */
  private pathTo(sources: readonly number[], targets: readonly number[]): number[] | null {
    const isTarget = new Uint8Array(this.nodeCount)
    for (const node of targets) isTarget[node] = 1
    const cameFrom = new Int32Array(this.nodeCount).fill(-2)
    for (const node of sources) cameFrom[node] = -1
    const queue = [...sources]
    const others = this.byExcess(this.nodesWhere(node => cameFrom[node] === -2)).reverse()
    for (let at = 0; at < queue.length; at++) {
      const from = queue[at]!
      for (const to of others) {
        if (cameFrom[to] !== -2 || this.shardToMove(from, to, -1) === -1) continue
        cameFrom[to] = from
        if (isTarget[to]) return pathFrom(cameFrom, to)
        queue.push(to)
      }
    }
    return null
  }

  /** From the far end on: each node hands one on before it gets one. */
  private follow(path: readonly number[]): void {
    for (let i = path.length - 2; i >= 0; i--) {
      const shard = this.shardToMove(path[i]!, path[i + 1]!, -1)
      assert(shard !== -1, 'a path of moves is broken')
      this.move(shard, path[i]!, path[i + 1]!)
    }
  }

  /**
   * The shard whose move between the two nodes is best, or -1: one that loses no zone, is cheap, wins a zone, and meets
   * `to` early in its ring order. Those that win fewer than `gainMin` zones are out of the question.
   */
  private shardToMove(from: number, to: number, gainMin: number): number {
    let best = -1
    let bestScore = 0
    for (let shard = 0; shard < this.shardCount; shard++) {
      if (!this.has(shard, from) || this.has(shard, to)) continue
      const gain = this.zoneGain(shard, from, to)
      if (gain < gainMin) continue
      const order = (gain < 0 ? 9 : 0) + (this.moveCost(shard, from, to) + 1) * 3 + (1 - Math.max(0, gain))
      const score = order * this.nodeCount + this.rankOf(shard, to)
      if (best !== -1 && score >= bestScore) continue
      best = shard
      bestScore = score
    }
    return best
  }

  /** Copies of data that the move adds to the plan: -1 undoes one, 0 changes the place of a copy that is new anyway. */
  private moveCost(shard: number, from: number, to: number): number {
    const row = shard * this.nodeCount
    return (this.heldToday[row + from]! === 1 ? 1 : 0) - (this.heldToday[row + to]! === 1 ? 1 : 0)
  }

  /** Zones that the shard wins (1) or loses (-1) by the move. */
  private zoneGain(shard: number, from: number, to: number): number {
    const leaves = this.zoneOf[from]!
    const enters = this.zoneOf[to]!
    if (leaves === enters) return 0
    return (this.zoneUseOf(shard, enters) === 0 ? 1 : 0) - (this.zoneUseOf(shard, leaves) === 1 ? 1 : 0)
  }

  private dropsBefore(shard: number, node: number, other: number): boolean {
    const isDoubled = (each: number) => (this.zoneUseOf(shard, this.zoneOf[each]!) > 1 ? 1 : 0)
    return isDoubled(node) !== isDoubled(other)
      ? isDoubled(node) > isDoubled(other)
      : this.excess(node) >= this.excess(other)
  }

  private byExcess(nodes: readonly number[]): number[] {
    return [...nodes].sort((a, b) => this.excess(b) - this.excess(a) || a - b)
  }

  /** Load relative to the fair share: 1 is just right. */
  private excess(node: number): number {
    return this.load[node]! / this.bounds.mean[node]!
  }

  private nodesWhere(accepts: (node: number) => boolean): number[] {
    const nodes: number[] = []
    for (let node = 0; node < this.nodeCount; node++) if (accepts(node)) nodes.push(node)
    return nodes
  }

  private zonesOf(shard: number): number {
    let zones = 0
    for (let zone = 0; zone < this.zoneCount; zone++) if (this.zoneUseOf(shard, zone) > 0) zones++
    return zones
  }

  private zoneUseOf(shard: number, zone: number): number {
    return this.zoneUse[shard * this.zoneCount + zone]!
  }

  private has(shard: number, node: number): boolean {
    return this.holds[shard * this.nodeCount + node] === 1
  }

  private walkOf(shard: number): Uint16Array {
    let walk = this.walks[shard]
    if (walk === undefined) {
      walk = this.ring.walk(shard)
      this.walks[shard] = walk
    }
    return walk
  }

  private rankOf(shard: number, node: number): number {
    let ranks = this.ranks[shard]
    if (ranks === undefined) {
      ranks = new Uint16Array(this.nodeCount)
      for (const [rank, each] of this.walkOf(shard).entries()) ranks[each] = rank
      this.ranks[shard] = ranks
    }
    return ranks[node]!
  }

  private move(shard: number, from: number, to: number): void {
    this.remove(shard, from)
    this.add(shard, to)
  }

  private add(shard: number, node: number): void {
    const at = shard * this.nodeCount + node
    assert(this.holds[at] === 0, `node ${node} already holds shard ${shard}`)
    this.holds[at] = 1
    this.zoneUse[shard * this.zoneCount + this.zoneOf[node]!]! += 1
    this.load[node]! += 1
    this.replicas[shard]!.push(node)
  }

  private remove(shard: number, node: number): void {
    const at = shard * this.nodeCount + node
    assert(this.holds[at] === 1, `node ${node} does not hold shard ${shard}`)
    this.holds[at] = 0
    this.zoneUse[shard * this.zoneCount + this.zoneOf[node]!]! -= 1
    this.load[node]! -= 1
    const nodes = this.replicas[shard]!
    nodes.splice(nodes.indexOf(node), 1)
  }
}

function pathFrom(cameFrom: Int32Array, target: number): number[] {
  const path = [target]
  for (let at = cameFrom[target]!; at !== -1; at = cameFrom[at]!) path.unshift(at)
  return path
}
