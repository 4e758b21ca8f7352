import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseAddresses } from '../../src/client/addresses.ts'
import { ShardMap } from '../../src/client/shard-map.ts'
import { MapResponse } from '../../src/gen/roundhouse/v1/admin.ts'

const key = Buffer.from('k')
const node = (name: string, state = 'alive') => ({
  nodeId: name,
  address: `${name}.inside:1`,
  clientAddress: `${name}.outside:1`,
  state,
})
const mapOf = (leader: string, epoch = 1, states: readonly string[] = ['alive', 'alive', 'alive']) =>
  MapResponse.fromPartial({
    clusterId: 'c1',
    epoch: BigInt(epoch),
    shardCount: 2,
    nodes: ['a', 'b', 'c'].map((name, place) => node(name, states[place])),
    leaders: [leader, leader],
  })

describe("the client's map", () => {
  it('knows nothing but its seeds at first, and learns leaders slot by slot', () => {
    const map = new ShardMap(['a.outside:1'])
    assert.equal(map.isKnown, false)
    assert.deepEqual(map.addresses(), ['a.outside:1'])
    const slot = map.placeOf(key)
    assert.equal(slot, 7_629)
    assert.equal(map.leaderOf(slot), null)
    map.learn(slot, 'b.outside:1')
    assert.equal(map.leaderOf(slot), 'b.outside:1')
  })

  it('tells the leader of a shard, by the kind of address that was dialled', () => {
    for (const kind of ['inside', 'outside']) {
      const map = new ShardMap([`a.${kind}:1`])
      assert.equal(map.take(mapOf('b'), map.mark()), true)
      assert.equal(map.leaderOf(map.placeOf(key)), `b.${kind}:1`)
      assert.equal(map.learn(0, 'c.outside:1'), `c.${kind}:1`)
      assert.deepEqual(
        map.addresses(),
        ['a', 'b', 'c'].map(name => `${name}.${kind}:1`),
      )
    }
  })

  it('keeps a hint that is newer than the map on its way', () => {
    const map = new ShardMap(['a.outside:1'])
    map.take(mapOf('a'), map.mark())
    const place = map.placeOf(key)
    map.learn(place, 'b.outside:1')
    const askedAt = map.mark()
    map.take(mapOf('a'), askedAt)
    assert.equal(map.leaderOf(place), 'a.outside:1')
    map.learn(place, 'c.outside:1')
    map.take(mapOf('a'), askedAt)
    assert.equal(map.leaderOf(place), 'c.outside:1')
  })

  it('refuses a map of an earlier epoch, or of a node that has not joined', () => {
    const map = new ShardMap(['a.outside:1'])
    map.take(mapOf('b', 5), 0)
    assert.equal(map.take(mapOf('a', 4), 0), false)
    assert.equal(map.take(MapResponse.fromPartial({ epoch: 9n, shardCount: 0 }), 0), false)
    assert.equal(map.leaderOf(map.placeOf(key)), 'b.outside:1')
  })

  it('forgets a leader that does not lead, and nobody else', () => {
    const map = new ShardMap(['a.outside:1'])
    map.take(mapOf('b'), 0)
    const place = map.placeOf(key)
    map.forget(place, 'a.outside:1')
    assert.equal(map.leaderOf(place), 'b.outside:1')
    map.forget(place, 'b.outside:1')
    assert.equal(map.leaderOf(place), null)
    assert.equal(map.leaderOf(1 - place), 'b.outside:1')
  })

  it('does not ask nodes that are gone', () => {
    const map = new ShardMap(['a.outside:1'])
    map.take(mapOf('a', 1, ['alive', 'dead', 'left']), 0)
    assert.deepEqual(map.addresses(), ['a.outside:1'])
  })
})

describe('addresses', () => {
  it('are a list or a text with commas, each once, with port 8080 if none is named', () => {
    assert.deepEqual(parseAddresses('a:1, b:2,a:1'), ['a:1', 'b:2'])
    assert.deepEqual(parseAddresses(['a:1,b', '[::1]:9', '10.0.0.1']), [
      'a:1',
      'b:8080',
      '[::1]:9',
      '10.0.0.1:8080',
    ])
  })

  it('that are none are refused by name', () => {
    for (const text of ['', 'a:0', 'a:70000', 'http://a:1', 'a b', '::1', 'a:1,,b:2'])
      assert.throws(() => parseAddresses(text), { name: 'TypeError', message: /is no address of a node/ })
    assert.throws(() => parseAddresses([]), { name: 'TypeError', message: /no address of a node is given/ })
  })
})
