import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { refusal, Shard } from './shard.ts'

describe('DEL, EXISTS, TYPE and DBSIZE', () => {
  it('DEL deletes keys of any type and counts those that were there', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'v')
    shard.call('HSET', 'h', 'f', 'v')
    assert.equal(shard.call('DEL', 's', 'h', 'none', 's'), 2)
    assert.deepEqual([shard.call('GET', 's'), shard.call('HGET', 'h', 'f')], [null, null])
  })

  it('EXISTS counts a key as often as it is named', () => {
    const shard = new Shard()
    shard.call('SET', 'a', 'v')
    assert.equal(shard.call('EXISTS', 'a', 'a', 'b'), 2)
  })

  it('TYPE says string, hash or none', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'v')
    shard.call('HSET', 'h', 'f', 'v')
    assert.deepEqual(
      ['s', 'h', 'x'].map(key => shard.call('TYPE', key)),
      ['string', 'hash', 'none'],
    )
  })

  it('DBSIZE counts keys, and expired ones until they are swept', () => {
    const shard = new Shard()
    shard.call('MSET', 'a', '1', 'b', '2')
    shard.call('SET', 'a', '3')
    shard.call('HSET', 'h', 'f', '1', 'g', '2')
    assert.equal(shard.call('DBSIZE'), 3)
    shard.call('PEXPIRE', 'a', '10')
    shard.nowMs += 10
    assert.equal(shard.call('EXISTS', 'a'), 0)
    assert.equal(shard.call('DBSIZE'), 3)
    shard.sweep()
    assert.equal(shard.call('DBSIZE'), 2)
  })
})

describe('EXPIRE, PEXPIRE, PERSIST, TTL and PTTL', () => {
  it('EXPIRE takes seconds, PEXPIRE milliseconds, and a missing key none', () => {
    const shard = new Shard()
    shard.call('MSET', 'a', '1', 'b', '1')
    assert.equal(shard.call('EXPIRE', 'a', '5'), 1)
    assert.equal(shard.call('PEXPIRE', 'b', '1700'), 1)
    assert.equal(shard.call('EXPIRE', 'none', '5'), 0)
    assert.deepEqual([shard.call('PTTL', 'a'), shard.call('PTTL', 'b')], [5000, 1700])
    assert.deepEqual([shard.call('TTL', 'a'), shard.call('TTL', 'b')], [5, 2])
  })

  it('TTL and PTTL answer -1 without expiry and -2 without key', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1')
    assert.deepEqual([shard.call('TTL', 'a'), shard.call('PTTL', 'a')], [-1, -1])
    assert.deepEqual([shard.call('TTL', 'b'), shard.call('PTTL', 'b')], [-2, -2])
  })

  it('a key is there until the millisecond it expires at', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1')
    shard.call('PEXPIRE', 'a', '10')
    shard.nowMs += 9
    assert.equal(shard.call('GET', 'a'), '1')
    assert.equal(shard.call('PTTL', 'a'), 1)
    shard.nowMs += 1
    assert.equal(shard.call('GET', 'a'), null)
    assert.equal(shard.call('TTL', 'a'), -2)
    assert.equal(shard.call('DEL', 'a'), 0)
  })

  it('a time that has passed deletes the key at once', () => {
    const shard = new Shard()
    shard.call('MSET', 'a', '1', 'b', '1')
    assert.equal(shard.call('EXPIRE', 'a', '0'), 1)
    assert.equal(shard.call('EXPIRE', 'b', '-9223372036854775808'), 1)
    assert.equal(shard.call('DBSIZE'), 0)
  })

  it('PERSIST takes an expiry away', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    assert.equal(shard.call('PERSIST', 'a'), 1)
    assert.equal(shard.call('PERSIST', 'a'), 0)
    assert.equal(shard.call('PERSIST', 'none'), 0)
    shard.nowMs += 10
    assert.equal(shard.call('GET', 'a'), '1')
    assert.equal(shard.machine.nextExpiry(), null)
  })

  it('NX wants a key without expiry, XX with one; GT only moves it later, LT sooner, none being the latest', () => {
    const cases: [current: string | null, option: string, answer: number][] = [
      [null, 'NX', 1],
      ['100', 'NX', 0],
      [null, 'XX', 0],
      ['100', 'XX', 1],
      [null, 'GT', 0],
      ['100', 'GT', 0],
      ['50', 'GT', 1],
      ['200', 'GT', 0],
      [null, 'LT', 1],
      ['100', 'LT', 0],
      ['50', 'LT', 0],
      ['200', 'lt', 1],
    ]
    for (const [current, option, answer] of cases) {
      const shard = new Shard()
      shard.call('SET', 'a', '1', ...(current === null ? [] : ['EX', current]))
      assert.equal(shard.call('EXPIRE', 'a', '100', option), answer, `${option} over ${current}`)
      assert.equal(shard.call('TTL', 'a'), answer === 1 ? 100 : Number(current ?? -1))
    }
  })

  it('refuse options that contradict each other and times that are none', () => {
    const shard = new Shard()
    const expire = (...args: string[]) => shard.call('EXPIRE', 'a', ...args)
    assert.throws(() => expire('1', 'NX', 'GT'), refusal('SYNTAX'))
    assert.throws(() => expire('1', 'GT', 'LT'), refusal('SYNTAX'))
    assert.throws(() => expire('1', 'XY'), refusal('SYNTAX'))
    assert.throws(() => expire('1.5'), refusal('NOT_INTEGER'))
    assert.throws(() => expire('9223372036854775807'), refusal('INVALID_EXPIRE'))
  })

  it('a write to an expired key starts from nothing', () => {
    const shard = new Shard()
    shard.call('SET', 'n', '41', 'PX', '10')
    shard.call('HSET', 'h', 'f', 'v')
    shard.call('PEXPIRE', 'h', '10')
    shard.nowMs += 10
    assert.equal(shard.call('INCR', 'n'), 1)
    assert.equal(shard.call('HSET', 'h', 'g', 'w'), 1)
    assert.deepEqual(shard.call('HGETALL', 'h'), [['g', 'w']])
    assert.deepEqual([shard.call('TTL', 'n'), shard.call('TTL', 'h')], [-1, -1])
  })
})
