import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { place, type ShardPlacement } from '../../src/ring/place.ts'
import { plan } from '../../src/ring/plan.ts'
import { hash64, members } from './cluster.ts'

const on = (...replicas: string[]): ShardPlacement => ({ replicas, leader: replicas[0] ?? null })

describe('plan', () => {
  it('is empty where nothing differs but the order of the replicas', () => {
    assert.deepEqual(plan([on('a', 'b')], [{ replicas: ['b', 'a'], leader: 'a' }]), {
      moves: [],
      transfers: [],
      copies: 0,
      copiesMin: 0,
    })
  })

  it('swaps one replica for another, and names the leaders that change', () => {
    assert.deepEqual(plan([on('a', 'b', 'c')], [on('d', 'b', 'c')]), {
      moves: [{ shard: 0, add: 'd', remove: 'a' }],
      transfers: [{ shard: 0, from: 'a', to: 'd' }],
      copies: 1,
      copiesMin: 1,
    })
  })

  it('grows before it swaps, and drops without a copy last', () => {
    const { moves, copies } = plan(
      [on('a', 'b', 'c'), on('a', 'b'), on('a')],
      [on('a', 'b'), on('c', 'b'), on('b', 'c')],
    )
    assert.deepEqual(moves, [
      { shard: 2, add: 'b', remove: null },
      { shard: 1, add: 'c', remove: 'a' },
      { shard: 2, add: 'c', remove: 'a' },
      { shard: 0, add: null, remove: 'c' },
    ])
    assert.equal(copies, 3)
  })

  it('replaces lost copies before it moves sound ones', () => {
    const { moves } = plan([on('a', 'b'), on('a', 'x')], [on('c', 'b'), on('a', 'c')], new Set(['x']))
    assert.deepEqual(moves, [
      { shard: 1, add: 'c', remove: 'x' },
      { shard: 0, add: 'c', remove: 'a' },
    ])
    const both = plan([on('a', 'x')], [on('c', 'd')], new Set(['x']))
    assert.deepEqual(both.moves[0], { shard: 0, add: 'c', remove: 'x' })
  })

  it('leads from today to the wish, and fills the nodes evenly on the way', () => {
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 8 }), fc.integer({ min: 1, max: 4 }), (count, joining) => {
        const sizes = { shardCount: 64, replicationFactor: 3, hash64 }
        const today = place({ ...sizes, members: members(count), today: [] }).shards
        const wish = place({ ...sizes, members: members(count + joining), today }).shards
        const { moves, copies, copiesMin } = plan(today, wish)
        const now = today.map(shard => new Set(shard.replicas))
        const filled = new Map<string, number>()
        for (const { shard, add, remove } of moves) {
          if (add !== null) {
            assert.ok(!now[shard]!.has(add))
            now[shard]!.add(add)
            filled.set(add, (filled.get(add) ?? 0) + 1)
          }
          if (remove !== null) assert.ok(now[shard]!.delete(remove))
          assert.ok(now[shard]!.size >= 3, 'no shard has fewer copies on the way than before')
          const counts = [...filled.values()]
          assert.ok(filled.size < joining || Math.max(...counts) - Math.min(...counts) <= 2)
        }
        assert.deepEqual(
          now.map(nodes => [...nodes].sort()),
          wish.map(shard => [...shard.replicas].sort()),
        )
        assert.ok(copies >= copiesMin && copies <= 1.15 * copiesMin)
      }),
      { numRuns: 40 },
    )
  })
})
