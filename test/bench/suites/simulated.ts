/** What more nodes cost than a machine can run: the ring, placement and gossip alone, of the sizes that clusters may have. */
import xxhash from 'xxhash-wasm'
import { shardOfSlot, slotOf } from '../../../src/lib/slot.ts'
import { type Placement, type PlacementMember, place } from '../../../src/ring/place.ts'
import { Ring, vNodeCountDefault } from '../../../src/ring/ring.ts'
import { Network } from '../../gossip/network.ts'
import type { Suite } from './suite.ts'

const shardCount = 1_024
const replicationFactor = 3
const lookups = 200_000
const walks = 200
const roundsMax = 200

interface Simulated {
  readonly nodes: number
  /** A key's shard and its replicas, ns. */
  readonly lookupNs: number
  /** The ring made, and walked for one shard. */
  readonly ringMs: number
  readonly walkUs: number
  /** Of a new cluster; and when a node joins, with what moves then, to the least that must. */
  readonly placeMs: number
  readonly joinMs: number
  readonly movedToLeast: number
  /** Intervals until all know that all are alive, and after a node has stopped that it is dead. */
  readonly aliveRounds: number
  readonly deadRounds: number
  /** Processor time of one node in one interval, ms. */
  readonly roundMs: number
}

function timed<T>(work: () => T): [T, number] {
  const startedMs = performance.now()
  return [work(), performance.now() - startedMs]
}

export const simulated: Suite = {
  name: 'simulated',
  summary: 'Growth: ring, placement and gossip of more nodes, simulated',
  roomOf: () => 0,
  async run({ options, say, signal }) {
    const { h64 } = await xxhash()
    const data: Simulated[] = []
    for (const nodes of options.simulated) {
      signal.throwIfAborted()
      say(`${nodes} nodes: ring and placement`)
      // One of them joins last: the register holds a thousand at most.
      const members = Array.from({ length: nodes }, (_, i) => member(`node${i + 1}`))
      const [ring, ringMs] = timed(() => new Ring(members, vNodeCountDefault, h64))
      const [, walkMs] = timed(() => {
        for (let shard = 0; shard < walks; shard++) ring.walk(shard)
      })
      const input = { shardCount, replicationFactor, hash64: h64 }
      const [before, placeMs] = timed(() => place({ ...input, members: members.slice(0, -1), today: [] }))
      const [after, joinMs] = timed(() => place({ ...input, members, today: before.shards }))
      const lookupNs = lookup(after)
      say(`${nodes} nodes: gossip`)
      const network = new Network(nodes, 1)
      const startedMs = performance.now()
      const aliveRounds = await roundsUntil(network, () => network.agreeOn('alive'), signal)
      network.stop(nodes - 1)
      const deadRounds = await roundsUntil(network, () => network.agreeOn('dead', [nodes - 1]), signal)
      const roundMs = (performance.now() - startedMs) / (aliveRounds + deadRounds) / nodes
      data.push({
        ...{ nodes, lookupNs, ringMs, walkUs: (walkMs * 1e3) / walks, placeMs, joinMs },
        movedToLeast: moved(before, after) / ((shardCount * Math.min(replicationFactor, nodes)) / nodes),
        ...{ aliveRounds, deadRounds, roundMs },
      })
    }
    const points = (value: (each: Simulated) => number) =>
      data.map(each => ({ x: each.nodes, y: value(each) }))
    const x = { label: 'nodes', isLog: true, format: String }
    return {
      tables: [
        {
          caption: `${shardCount.toLocaleString('en')} shards of ${replicationFactor} replicas, ${vNodeCountDefault} tokens a node; gossip in intervals (1 s by default), two peers each`,
          head: [
            ...[
              'nodes',
              'lookup of a key ns',
              'ring made ms',
              'walk of a shard µs',
              'placement ms',
              'join ms',
            ],
            ...[
              'moved, × the least',
              'all alive known after',
              'a death known after',
              'CPU ms a node and interval',
            ],
          ],
          rows: data.map(each => [
            ...[each.nodes, each.lookupNs, each.ringMs, each.walkUs, each.placeMs, each.joinMs],
            ...[each.movedToLeast, each.aliveRounds, each.deadRounds, each.roundMs],
          ]),
        },
      ],
      charts: [
        {
          name: 'simulated',
          chart: {
            title: 'Ring and placement by nodes (1,024 shards)',
            x,
            y: { label: 'ms', isLog: true },
            series: [
              { name: 'placement of a new cluster', points: points(each => each.placeMs) },
              { name: 'placement when one joins', points: points(each => each.joinMs) },
              { name: 'walk of one shard', points: points(each => each.walkUs / 1e3) },
            ],
          },
        },
        {
          name: 'lookup',
          chart: {
            title: 'Lookup of a key’s shard and its replicas by nodes (1,024 shards)',
            x,
            y: { label: 'ns' },
            series: [{ name: 'lookup', points: points(each => each.lookupNs) }],
          },
        },
        {
          name: 'gossip',
          chart: {
            title: 'Gossip: intervals until all know, by nodes',
            x,
            y: { label: 'intervals' },
            series: [
              { name: 'all are alive', points: points(each => each.aliveRounds) },
              { name: 'one is dead (15 of silence first)', points: points(each => each.deadRounds) },
            ],
          },
        },
      ],
      notes: [],
      data,
    }
  },
}

/** Intervals that it takes. The process is asked between them whether it shall go on. */
async function roundsUntil(network: Network, holds: () => boolean, signal: AbortSignal): Promise<number> {
  for (let round = 0; round <= roundsMax; round++) {
    if (holds()) return round
    network.round()
    await new Promise(resolve => setImmediate(resolve))
    signal.throwIfAborted()
  }
  throw new Error(`gossip of ${network.nodes.length} nodes does not converge`)
}

function member(nodeId: string): PlacementMember {
  return { nodeId, zone: '', weight: 1, isEligible: true }
}

/** As a client that has the map does it, ns. */
function lookup({ shards }: Placement): number {
  const keys = Array.from({ length: 1_024 }, (_, i) => Buffer.from(`bench:${i}`))
  let found = 0
  const [, ms] = timed(() => {
    for (let i = 0; i < lookups; i++) {
      const shard = shards[shardOfSlot(slotOf(keys[i & 1_023]!), shardCount)]!
      if (shard.leader !== null) found++
    }
  })
  if (found !== lookups) throw new Error('a shard has no leader')
  return (ms * 1e6) / lookups
}

function moved(before: Placement, after: Placement): number {
  return after.shards.reduce((sum, { replicas }, shard) => {
    const had = new Set(before.shards[shard]!.replicas)
    return sum + replicas.filter(each => !had.has(each)).length
  }, 0)
}
