import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { KeyWorkload } from '../../src/bench/ports.ts'
import { keyBytesMin, Workload } from '../../src/bench/workload.ts'
import { Read } from '../../src/gen/clusterpb/cluster.ts'
import { Prng } from '../../src/lib/prng.ts'

const space = { keys: 1_000, keyBytes: 16, valueBytes: 128 }
const workload = (name: KeyWorkload) => new Workload(name, space, 10, new Prng(7))
const operations = (name: KeyWorkload, count = 500) => {
  const load = workload(name)
  return Array.from({ length: count }, () => load.next())
}

describe('a workload', () => {
  it('has keys and values of the lengths that were asked for', () => {
    for (const { request, bytes } of operations('set')) {
      assert.equal(request.command, 'SET')
      assert.match(request.key, /^bench:0{7}\d{3}$/)
      assert.deepEqual(
        request.args.map(each => each.length),
        [128],
      )
      assert.equal(bytes, 144)
    }
  })

  it('draws from all keys', () => {
    const drawn = new Set(operations('get', 20_000).map(({ request }) => request.key))
    assert.equal(drawn.size, space.keys)
  })

  it('reads stale only where that is its name', () => {
    assert.ok(operations('get').every(({ request }) => request.read === Read.LINEARIZABLE))
    assert.ok(operations('stale-get').every(({ request }) => request.read === Read.STALE))
  })

  it('mixed is nine reads to a write', () => {
    const writes = operations('mixed', 20_000).filter(({ isWrite }) => isWrite).length
    assert.ok(writes > 1_800 && writes < 2_200, `${writes} of 20,000`)
  })

  it('mset has its batch of keys, each with a value', () => {
    for (const { request, bytes } of operations('mset')) {
      assert.equal(request.args.length, 19)
      assert.ok(request.args.every((each, place) => each.length === (place % 2 === 0 ? 128 : 16)))
      assert.equal(bytes, 1_440)
    }
  })

  it('fills and clears every key once', () => {
    const load = workload('set')
    const { request } = load.fill([0, 1, 2])
    const names = [request.key, ...request.args.filter((_, place) => place % 2 === 1).map(String)]
    assert.deepEqual(names, ['bench:0000000000', 'bench:0000000001', 'bench:0000000002'])
    const cleared = load.clear([0, 1, 2]).request
    assert.deepEqual([cleared.command, cleared.key, ...cleared.args.map(String)], ['DEL', ...names])
  })

  it('refuses keys that are too short to be told apart', () => {
    assert.equal(keyBytesMin(100_000), 11)
    assert.equal(keyBytesMin(100_001), 12)
    assert.throws(() => new Workload('set', { ...space, keyBytes: 8 }, 1, new Prng(1)), /too short/)
  })
})
