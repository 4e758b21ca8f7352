import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { refusal, Shard } from './shard.ts'

const names = (reply: unknown) => (reply as [string, unknown][]).map(([name]) => name)

describe('SADD, SREM, SMEMBERS, SISMEMBER and SCARD', () => {
  it('SADD adds and SREM removes, each counting those that made a difference', () => {
    const shard = new Shard()
    assert.equal(shard.call('SADD', 's', 'b', 'a', 'b'), 2)
    assert.equal(shard.call('SADD', 's', 'a', 'c'), 1)
    assert.equal(shard.call('SREM', 's', 'a', 'a', 'x'), 1)
    assert.equal(shard.call('SCARD', 's'), 2)
    assert.deepEqual([shard.call('SISMEMBER', 's', 'b'), shard.call('SISMEMBER', 's', 'a')], [1, 0])
  })

  it('SMEMBERS lists members in the order of their bytes, the empty one too', () => {
    const shard = new Shard()
    shard.call('SADD', 's', 'b', '', 'a')
    assert.deepEqual(names(shard.call('SMEMBERS', 's')), ['', 'a', 'b'])
  })

  it('a missing set has no members; the last one takes the key with it', () => {
    const shard = new Shard()
    assert.deepEqual(
      [shard.call('SMEMBERS', 's'), shard.call('SCARD', 's'), shard.call('SREM', 's', 'a')],
      [[], 0, 0],
    )
    shard.call('SADD', 's', 'a', 'b')
    shard.call('SREM', 's', 'a', 'b')
    assert.deepEqual([shard.call('EXISTS', 's'), shard.call('DBSIZE')], [0, 0])
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('keep the expiry, and an expired set is as good as none', () => {
    const shard = new Shard()
    shard.call('SADD', 's', 'a')
    shard.call('PEXPIRE', 's', '100')
    shard.call('SADD', 's', 'b')
    assert.equal(shard.call('PTTL', 's'), 100)
    shard.nowMs += 100
    assert.equal(shard.call('SCARD', 's'), 0)
    assert.equal(shard.call('SADD', 's', 'a'), 1)
    shard.sweep()
    assert.deepEqual(names(shard.call('SMEMBERS', 's')), ['a'])
  })

  it('SMEMBERS answers 10,000 members and refuses more; the others go on', () => {
    const shard = new Shard()
    const members = Array.from({ length: 10_000 }, (_, i) => `m${i}`)
    shard.call('SADD', 's', ...members)
    assert.equal(names(shard.call('SMEMBERS', 's')).length, 10_000)
    shard.call('SADD', 's', 'one more')
    assert.throws(() => shard.call('SMEMBERS', 's'), /REPLY_TOO_LARGE|reply too large.*SSCAN/)
    assert.deepEqual([shard.call('SCARD', 's'), shard.call('SISMEMBER', 's', 'm9999')], [10_001, 1])
    assert.equal(shard.call('DEL', 's'), 1)
    while (shard.machine.nextExpiry() !== null) shard.sweep()
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('refuse keys of other types, members over 512 bytes, and no member', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'f', 'v')
    for (const call of [
      ['SADD', 'h', 'a'],
      ['SREM', 'h', 'f'],
      ['SMEMBERS', 'h'],
      ['SISMEMBER', 'h', 'f'],
      ['SCARD', 'h'],
    ] as [string, ...string[]][])
      assert.throws(() => shard.call(...call), refusal('WRONG_TYPE'), call.join(' '))
    const long = 'm'.repeat(513)
    for (const name of ['SADD', 'SREM', 'SISMEMBER'])
      assert.throws(() => shard.call(name, 's', long), refusal('TOO_LARGE'))
    assert.throws(() => shard.call('SADD', 's'), refusal('WRONG_ARITY'))
    shard.call('SADD', 's', 'a')
    assert.throws(() => shard.call('HGET', 's', 'a'), refusal('WRONG_TYPE'))
    assert.equal(shard.call('TYPE', 's'), 'set')
  })
})
