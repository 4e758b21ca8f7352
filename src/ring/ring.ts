/**
 * The ring of consistent hashing (Karger et al. 1997): every node puts tokens on a circle of 64-bit values, and a shard
 * walks clockwise from its own point. Many tokens a node (virtual nodes) even out the arcs. The ring gives each shard an
 * order of preference over the nodes that hardly changes when one node comes or goes; how far down that order a shard
 * must go is decided by `place`, under its bounds.
 *
 * The hash comes from the caller (xxHash64 in production): its implementation starts asynchronously, this room is pure.
 */
import { assert } from '../lib/assert.ts'

/** 64 bits of `text` as an unsigned bigint. */
export type Hash64 = (text: string) => bigint

export interface RingNode {
  readonly nodeId: string
  /** Share of the data relative to the other nodes; > 0. */
  readonly weight: number
}

export const vNodeCountDefault = 128
/** A node's tokens: v_node_count × weight, at least one, at most this. */
export const tokensPerNodeMax = 4096

export class Ring {
  readonly nodeCount: number
  /** Tokens in ring order: the upper and lower half of the value, and the index of the node that put it there. */
  private readonly high: Uint32Array
  private readonly low: Uint32Array
  private readonly owner: Uint16Array
  private readonly hash64: Hash64

  /** `nodes` is sorted by node id: two equal tokens stand in that order. */
  constructor(nodes: readonly RingNode[], vNodeCount: number, hash64: Hash64) {
    assert(
      Number.isInteger(vNodeCount) && vNodeCount >= 1,
      `v_node_count ${vNodeCount} is no positive integer`,
    )
    this.nodeCount = nodes.length
    this.hash64 = hash64
    const counts = nodes.map(node => tokenCount(node.weight, vNodeCount))
    const total = counts.reduce((sum, count) => sum + count, 0)
    const high = new Uint32Array(total)
    const low = new Uint32Array(total)
    const owner = new Uint16Array(total)
    let at = 0
    nodes.forEach((node, index) => {
      for (let token = 0; token < counts[index]!; token++) {
        const value = hash64(`node/${node.nodeId}/${token}`)
        high[at] = Number(value >> 32n)
        low[at] = Number(value & 0xffffffffn)
        owner[at++] = index
      }
    })
    const order = Uint32Array.from({ length: total }, (_, i) => i)
    order.sort((a, b) => high[a]! - high[b]! || low[a]! - low[b]! || owner[a]! - owner[b]!)
    this.high = order.map(i => high[i]!)
    this.low = order.map(i => low[i]!)
    this.owner = Uint16Array.from(order, i => owner[i]!)
  }

  /** All node indexes in the order in which `shard` meets them, walking clockwise from its point. */
  walk(shard: number): Uint16Array {
    const order = new Uint16Array(this.nodeCount)
    const seen = new Uint8Array(this.nodeCount)
    const total = this.owner.length
    let found = 0
    let at = this.firstAt(this.hash64(`shard/${shard}`))
    while (found < this.nodeCount) {
      if (at === total) at = 0
      const node = this.owner[at++]!
      if (seen[node]) continue
      seen[node] = 1
      order[found++] = node
    }
    return order
  }

  /** Position of the first token at or after `value`, or the number of tokens when there is none. */
  private firstAt(value: bigint): number {
    const high = Number(value >> 32n)
    const low = Number(value & 0xffffffffn)
    let from = 0
    let to = this.owner.length
    while (from < to) {
      const middle = (from + to) >>> 1
      const isBefore = this.high[middle]! < high || (this.high[middle] === high && this.low[middle]! < low)
      if (isBefore) from = middle + 1
      else to = middle
    }
    return from
  }
}

function tokenCount(weight: number, vNodeCount: number): number {
  assert(Number.isFinite(weight) && weight > 0, `weight ${weight} is no positive number`)
  return Math.min(tokensPerNodeMax, Math.max(1, Math.round(vNodeCount * weight)))
}
