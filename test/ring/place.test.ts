import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { boundsFor } from '../../src/ring/bounds.ts'
import {
  type Placement,
  type PlacementMember,
  place,
  type ShardPlacement,
  votersFor,
} from '../../src/ring/place.ts'
import { plan } from '../../src/ring/plan.ts'
import { Ring, vNodeCountDefault } from '../../src/ring/ring.ts'
import { hash64, leadersOn, member, members, replicasOn } from './cluster.ts'

interface Cluster {
  members: PlacementMember[]
  readonly shardCount: number
  readonly replicationFactor: number
}

function placed(cluster: Cluster, today: readonly ShardPlacement[] = []): Placement {
  return place({ ...cluster, today, hash64 })
}

/** What must hold of every placement, wherever it came from. */
function checkPlacement(cluster: Cluster, placement: Placement): void {
  const { shardCount, replicationFactor } = cluster
  const nodes = cluster.members.filter(each => each.isEligible)
  const weights = nodes.map(each => each.weight)
  const replicas = Math.min(replicationFactor, nodes.length)
  assert.equal(placement.voterCount, votersFor(replicationFactor, nodes.length))
  assert.equal(placement.shards.length, shardCount)
  for (const [shard, { replicas: on, leader }] of placement.shards.entries()) {
    assert.equal(on.length, replicas, `shard ${shard} has all its replicas`)
    assert.equal(new Set(on).size, replicas, `shard ${shard} stands on distinct nodes`)
    assert.ok(
      on.every(nodeId => nodes.some(each => each.nodeId === nodeId)),
      `shard ${shard} stands on eligible nodes`,
    )
    assert.ok(on.slice(0, placement.voterCount).includes(leader!), `shard ${shard} is led by a voter`)
  }
  const forReplicas = boundsFor(weights, shardCount * replicas, shardCount)
  const forLeaders = boundsFor(weights, shardCount, shardCount)
  nodes.forEach(({ nodeId }, i) => {
    const held = replicasOn(placement.shards, nodeId)
    assert.ok(held <= forReplicas.upper[i]! && held >= forReplicas.lower[i]!, `${nodeId} holds ${held}`)
    if (placement.voterCount === 1 && nodes.length < replicationFactor) return
    const led = leadersOn(placement.shards, nodeId)
    assert.ok(led <= forLeaders.upper[i]! && led >= forLeaders.lower[i]!, `${nodeId} leads ${led}`)
  })
}

type Event =
  | { readonly kind: 'join'; readonly zone: number; readonly weight: number }
  | { readonly kind: 'leave' | 'die'; readonly which: number }
  | { readonly kind: 'weigh'; readonly which: number; readonly weight: number }

const weight = fc.constantFrom(1, 1, 1, 0.5, 2, 5)
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('join' as const), zone: fc.nat(3), weight }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('leave' as const, 'die' as const), which: fc.nat(19) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('weigh' as const), which: fc.nat(19), weight }) },
)
const shape = fc.record({
  shardCount: fc.integer({ min: 0, max: 8 }).map(power => 2 ** power),
  replicationFactor: fc.integer({ min: 1, max: 5 }),
})

/** The members after `event`; the first node never goes and there are at most 20. */
function after(now: readonly PlacementMember[], event: Event, nodeId: string): PlacementMember[] {
  const rest = now.filter(each => each.isEligible)
  if (event.kind === 'join') {
    const joined = member(nodeId, { zone: `zone${event.zone}`, weight: event.weight })
    return rest.length < 20 ? [...rest, joined] : rest
  }
  const which = event.which % rest.length
  if (event.kind === 'weigh') return rest.with(which, { ...rest[which]!, weight: event.weight })
  if (which === 0) return rest
  if (event.kind === 'die') return rest.toSpliced(which, 1)
  return rest.with(which, { ...rest[which]!, isEligible: false })
}

describe('place', () => {
  it('holds its bounds and strands no shard, whatever joins, leaves, dies or changes its weight', () => {
    fc.assert(
      fc.property(shape, fc.array(event, { maxLength: 14 }), (sizes, events) => {
        const cluster: Cluster = { ...sizes, members: [member('node0')] }
        let today = placed(cluster)
        checkPlacement(cluster, today)
        for (const [i, each] of events.entries()) {
          cluster.members = after(cluster.members, each, `node${i + 1}`)
          today = placed(cluster, today.shards)
          checkPlacement(cluster, today)
        }
      }),
      { numRuns: 150 },
    )
  })

  it('mends any placement, however lopsided, and leaves a mended one alone', () => {
    fc.assert(
      fc.property(
        shape,
        fc.array(fc.record({ zone: fc.nat(3), weight }), { minLength: 1, maxLength: 20 }),
        fc.array(fc.array(fc.nat(22), { maxLength: 7 }), { maxLength: 256 }),
        (sizes, nodes, found) => {
          const cluster: Cluster = {
            ...sizes,
            members: nodes.map((each, i) => member(`node${i}`, { ...each, zone: `zone${each.zone}` })),
          }
          const today = found.slice(0, sizes.shardCount).map(each => {
            const replicas = [...new Set(each.map(i => `node${i}`))]
            return { replicas, leader: replicas[0] ?? null }
          })
          const mended = placed(cluster, today)
          checkPlacement(cluster, mended)
          assert.deepEqual(placed(cluster, mended.shards), mended)
        },
      ),
      { numRuns: 150 },
    )
  })

  it('depends on nothing but its input, and not on the order of the members', () => {
    const shuffled = fc.shuffledSubarray(members(9, 3), { minLength: 9 })
    const today = placed({ members: members(7, 2), shardCount: 64, replicationFactor: 3 })
    const expected = place({
      members: members(9, 3),
      shardCount: 64,
      replicationFactor: 3,
      today: today.shards,
      hash64,
    })
    fc.assert(
      fc.property(shuffled, order => {
        const cluster = { members: order, shardCount: 64, replicationFactor: 3 }
        assert.deepEqual(placed(cluster, today.shards), expected)
      }),
      { numRuns: 20 },
    )
  })

  it('gives a node that joins its share by as few copies as that takes, and moves nothing else', () => {
    for (const shardCount of [1, 16, 64, 1024]) {
      let today = placed({ members: members(1), shardCount, replicationFactor: 3 })
      for (let count = 2; count <= 20; count++) {
        const wish = placed({ members: members(count), shardCount, replicationFactor: 3 }, today.shards)
        const share = Math.floor((shardCount * Math.min(3, count)) / count)
        const { copies, moves } = plan(today.shards, wish.shards)
        assert.equal(replicasOn(wish.shards, `node${count}`), share)
        assert.equal(copies, share, `${count - 1} → ${count} nodes, ${shardCount} shards`)
        assert.ok(moves.every(move => move.add === `node${count}`))
        today = wish
      }
    }
  })

  it('gives it the shards that meet it early on the ring', () => {
    const sizes = { shardCount: 1024, replicationFactor: 3 }
    const nodes = members(9)
    const today = placed({ ...sizes, members: nodes.slice(0, 8) })
    const wish = placed({ ...sizes, members: nodes }, today.shards)
    const ring = new Ring(nodes, vNodeCountDefault, hash64)
    const meanRank = (isTaken: boolean) => {
      const ranks = wish.shards.flatMap(({ replicas }, shard) =>
        replicas.includes('node9') === isTaken ? ring.walk(shard).indexOf(8) : [],
      )
      return ranks.reduce((sum, rank) => sum + rank, 0) / ranks.length
    }
    assert.ok(meanRank(true) < meanRank(false) / 2, `${meanRank(true)} and ${meanRank(false)}`)
  })

  it('moves at most 1.15 × the minimum when nodes of unequal weight join', () => {
    const random = [1, 2, 1, 0.5, 2, 1, 1, 0.5, 2, 1, 1, 2]
    let nodes: PlacementMember[] = []
    let today: Placement | null = null
    for (const [i, each] of random.entries()) {
      nodes = [...nodes, member(`node${i}`, { weight: each })]
      const wish: Placement = placed(
        { members: nodes, shardCount: 256, replicationFactor: 3 },
        today?.shards ?? [],
      )
      if (today !== null && i >= 3) {
        const { copies } = plan(today.shards, wish.shards)
        const gained = replicasOn(wish.shards, `node${i}`)
        assert.ok(copies <= 1.15 * gained, `node ${i}: ${copies} copies for ${gained}`)
      }
      today = wish
    }
  })

  it('moves only what a leaving node held', () => {
    for (const shardCount of [64, 1024]) {
      for (let count = 4; count <= 20; count++) {
        const today = placed({ members: members(count), shardCount, replicationFactor: 3 })
        const nodes = members(count).with(1, member('node2', { isEligible: false }))
        const wish = placed({ members: nodes, shardCount, replicationFactor: 3 }, today.shards)
        const { moves, copies } = plan(today.shards, wish.shards)
        assert.ok(moves.every(move => move.remove === 'node2'))
        assert.equal(copies, replicasOn(today.shards, 'node2'))
      }
    }
  })

  it('keeps the leaders that are within their bound', () => {
    const today = placed({ members: members(5), shardCount: 64, replicationFactor: 3 })
    const wish = placed({ members: members(6), shardCount: 64, replicationFactor: 3 }, today.shards)
    // Ten for the new node's share; a replica that moved away while it led is among them or one more.
    const { transfers } = plan(today.shards, wish.shards)
    const displaced = today.shards.filter(
      (each, i) => !wish.shards[i]!.replicas.includes(each.leader!),
    ).length
    assert.ok(transfers.length <= 10 + displaced, `${transfers.length} transfers, ${displaced} displaced`)
  })

  it('spreads every shard over as many zones as it has replicas where the zones are equally large', () => {
    for (const [zones, count] of [
      [3, 3],
      [3, 6],
      [3, 9],
      [4, 8],
      [5, 15],
    ] as const) {
      const cluster = { members: members(count, zones), shardCount: 256, replicationFactor: 3 }
      for (const placement of [placed(cluster), grown(cluster)]) {
        checkPlacement(cluster, placement)
        for (const { replicas } of placement.shards) {
          const zonesOf = replicas.map(id => cluster.members.find(each => each.nodeId === id)!.zone)
          assert.equal(new Set(zonesOf).size, 3, `${count} nodes in ${zones} zones`)
        }
      }
    }
  })

  it('puts two replicas in one zone rather than overload a node', () => {
    const nodes = [member('a', { zone: 'x' }), member('b', { zone: 'x' }), member('c', { zone: 'y' })]
    const cluster = { members: nodes, shardCount: 64, replicationFactor: 2 }
    const placement = placed(cluster)
    checkPlacement(cluster, placement)
    // c may hold ⌊1.1 × 42.67⌋ = 46 of the 64 shards.
    assert.ok(replicasOn(placement.shards, 'c') <= 46)
    const inOneZone = placement.shards.filter(each => !each.replicas.includes('c')).length
    assert.equal(inOneZone, 64 - replicasOn(placement.shards, 'c'))
  })

  it('leaves the one voter where it is while a second node waits for a third, then shares the leaders out', () => {
    const one = placed({ members: members(1), shardCount: 64, replicationFactor: 3 })
    const two = placed({ members: members(2), shardCount: 64, replicationFactor: 3 }, one.shards)
    assert.equal(two.voterCount, 1)
    assert.ok(two.shards.every(each => each.replicas.join() === 'node1,node2' && each.leader === 'node1'))
    const three = placed({ members: members(3), shardCount: 64, replicationFactor: 3 }, two.shards)
    assert.equal(three.voterCount, 3)
    // ⌊1.1 × 21.33⌋ may stay.
    assert.deepEqual(
      ['node1', 'node2', 'node3'].map(id => leadersOn(three.shards, id)),
      [23, 21, 20],
    )
  })

  it('lets a replica that has the data vote before one that must copy it', () => {
    const today = { replicas: ['node1', 'node2', 'node3', 'node4'], leader: 'node1' }
    const nodes = [...members(5)].with(0, member('node1', { isEligible: false }))
    const wish = placed({ members: nodes, shardCount: 1, replicationFactor: 4 }, [today])
    assert.deepEqual(wish.shards[0]!.replicas, ['node2', 'node3', 'node4', 'node5'])
    assert.equal(wish.voterCount, 3)
  })

  it('changes nothing where no member is eligible', () => {
    const today = placed({ members: members(3), shardCount: 4, replicationFactor: 3 })
    const gone = members(3).map(each => ({ ...each, isEligible: false }))
    const wish = placed({ members: gone, shardCount: 4, replicationFactor: 3 }, today.shards)
    assert.deepEqual(wish.shards, today.shards)
  })

  it('refuses input that makes no sense', () => {
    const cluster = { members: members(3), shardCount: 64, replicationFactor: 3 }
    assert.throws(() => placed({ ...cluster, shardCount: 60 }), /power of two/)
    assert.throws(() => placed({ ...cluster, replicationFactor: 0 }), /replication factor/)
    assert.throws(() => placed({ ...cluster, members: [member('a'), member('a')] }), /stands twice/)
    assert.throws(() => placed({ ...cluster, members: [member('a', { weight: 0 })] }), /weight/)
  })
})

/** The same cluster as one node after the other makes it. */
function grown(cluster: Cluster): Placement {
  let today: Placement | null = null
  for (let count = 1; count <= cluster.members.length; count++) {
    const some: Cluster = { ...cluster, members: cluster.members.slice(0, count) }
    today = placed(some, today?.shards ?? [])
  }
  return today!
}

describe('votersFor', () => {
  it('is the largest odd number that replication factor and members allow', () => {
    const table = [1, 2, 3, 4, 5, 6].map(count => [1, 2, 3, 4, 5].map(factor => votersFor(factor, count)))
    assert.deepEqual(table, [
      [1, 1, 1, 1, 1],
      [1, 1, 1, 1, 1],
      [1, 1, 3, 3, 3],
      [1, 1, 3, 3, 3],
      [1, 1, 3, 3, 5],
      [1, 1, 3, 3, 5],
    ])
    assert.equal(votersFor(3, 0), 0)
  })
})
