import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Hash64, Ring } from '../../src/ring/ring.ts'
import { hash64 } from './cluster.ts'

const equal = (count: number) => Array.from({ length: count }, (_, i) => ({ nodeId: `n${i}`, weight: 1 }))

/** A ring drawn by hand: what is not in the table stands at 0. */
const drawn =
  (places: Record<string, bigint>): Hash64 =>
  text =>
    places[text] ?? 0n

describe('Ring', () => {
  it('walks clockwise from the point of the shard, over distinct nodes, round the end', () => {
    const ring = new Ring(
      equal(3),
      2,
      drawn({
        'node/n0/0': 10n,
        'node/n1/0': 20n,
        'node/n1/1': 30n,
        'node/n0/1': 40n,
        'node/n2/0': 50n,
        'node/n2/1': 2n ** 64n - 1n,
        'shard/0': 15n,
        'shard/1': 41n,
        'shard/2': 20n,
        'shard/3': 2n ** 64n - 1n,
      }),
    )
    assert.deepEqual([...ring.walk(0)], [1, 0, 2])
    assert.deepEqual([...ring.walk(1)], [2, 0, 1])
    assert.deepEqual([...ring.walk(2)], [1, 0, 2])
    assert.deepEqual([...ring.walk(3)], [2, 0, 1])
  })

  it('tells values apart by all 64 bits', () => {
    const high = 7n << 40n
    const ring = new Ring(
      equal(2),
      1,
      drawn({ 'node/n0/0': high + 2n, 'node/n1/0': high + 1n, 'shard/0': high + 1n, 'shard/1': high + 2n }),
    )
    assert.deepEqual([...ring.walk(0)], [1, 0])
    assert.deepEqual([...ring.walk(1)], [0, 1])
  })

  it('orders equal tokens by node', () => {
    const ring = new Ring(equal(3), 1, () => 5n)
    assert.deepEqual([...ring.walk(0)], [0, 1, 2])
  })

  it('gives each node first place in proportion to its weight', () => {
    const ring = new Ring(
      [
        { nodeId: 'a', weight: 1 },
        { nodeId: 'b', weight: 3 },
      ],
      128,
      hash64,
    )
    const walks = Array.from({ length: 4096 }, (_, shard) => ring.walk(shard)[0])
    const share = walks.filter(first => first === 1).length / 4096
    assert.ok(share > 0.68 && share < 0.82, `three quarters are the second node's, not ${share}`)
  })

  it('keeps the order of the others when a node joins', () => {
    const before = new Ring(equal(9), 128, hash64)
    const after = new Ring(equal(10), 128, hash64)
    for (let shard = 0; shard < 256; shard++) {
      assert.deepEqual(
        [...after.walk(shard)].filter(node => node !== 9),
        [...before.walk(shard)],
      )
    }
  })
})
