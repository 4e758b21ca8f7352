import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { refusal, Shard } from './shard.ts'

describe('HSET, HGET, HGETALL, HKEYS and HLEN', () => {
  it('HSET sets fields and counts the new ones', () => {
    const shard = new Shard()
    assert.equal(shard.call('HSET', 'h', 'f', '1'), 1)
    assert.equal(shard.call('HSET', 'h', 'f', '2', 'g', '3'), 1)
    assert.equal(shard.call('HGET', 'h', 'f'), '2')
    assert.equal(shard.call('HLEN', 'h'), 2)
  })

  it('HSET answers success, as GOKV does, with the count beside it', () => {
    const shard = new Shard()
    const applied = shard.applyOperations([shard.operation('HSET', 'h', 'f', '1')])
    assert.deepEqual(applied.kind === 'replies' && applied.replies, [
      { kind: 'success', success: true, integer: 1 },
    ])
  })

  it('HGET of one field is a value, of several a list in their order', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', 'b', '2')
    assert.equal(shard.call('HGET', 'h', 'c'), null)
    assert.deepEqual(shard.call('HGET', 'h', 'b', 'c', 'a'), [
      ['b', '2'],
      ['c', null],
      ['a', '1'],
    ])
    assert.deepEqual(shard.call('HGET', 'none', 'a', 'b'), [
      ['a', null],
      ['b', null],
    ])
  })

  it('HGETALL and HKEYS list fields in the order of their bytes, and nothing of a missing hash', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'b', '2', '', '0', 'a', '1')
    assert.deepEqual(shard.call('HGETALL', 'h'), [
      ['', '0'],
      ['a', '1'],
      ['b', '2'],
    ])
    assert.deepEqual(shard.call('HKEYS', 'h'), [
      ['', null],
      ['a', null],
      ['b', null],
    ])
    assert.deepEqual(
      [shard.call('HGETALL', 'x'), shard.call('HKEYS', 'x'), shard.call('HLEN', 'x')],
      [[], [], 0],
    )
  })

  it('hashes whose names begin alike share no field', () => {
    const shard = new Shard()
    shard.call('HSET', 'a', 'bc', '1')
    shard.call('HSET', 'ab', 'c', '2')
    assert.deepEqual(shard.call('HGETALL', 'a'), [['bc', '1']])
    assert.deepEqual(shard.call('HGETALL', 'ab'), [['c', '2']])
  })

  it('refuse a string', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'v')
    for (const call of [
      ['HSET', 's', 'f', 'v'],
      ['HGET', 's', 'f'],
      ['HGET', 's', 'f', 'g'],
      ['HGETALL', 's'],
    ])
      assert.throws(() => shard.call(...(call as [string])), refusal('WRONG_TYPE'))
    for (const call of [
      ['HKEYS', 's'],
      ['HLEN', 's'],
      ['HDEL', 's', 'f'],
      ['HDEL', 's'],
    ])
      assert.throws(() => shard.call(...(call as [string])), refusal('WRONG_TYPE'))
    assert.equal(shard.call('GET', 's'), 'v')
  })

  it('HGETALL and HKEYS visit 10,000 fields and refuse more; HGET, HLEN and DEL go on', () => {
    const shard = new Shard()
    const fields = (from: number, to: number) =>
      Array.from({ length: to - from }, (_, i) => [`f${from + i}`, 'v']).flat()
    shard.call('HSET', 'h', ...fields(0, 10_000))
    assert.equal((shard.call('HGETALL', 'h') as unknown[]).length, 10_000)
    shard.call('HSET', 'h', 'one more', 'v')
    assert.throws(() => shard.call('HGETALL', 'h'), refusal('REPLY_TOO_LARGE'))
    assert.throws(() => shard.call('HKEYS', 'h'), refusal('REPLY_TOO_LARGE'))
    assert.equal(shard.call('HLEN', 'h'), 10_001)
    assert.equal(shard.call('HGET', 'h', 'f9999'), 'v')
    assert.equal(shard.call('DEL', 'h'), 1)
  })

  it('HGETALL refuses to answer more than 8 MiB', () => {
    const shard = new Shard()
    for (let i = 0; i < 9; i++) shard.call('HSET', 'h', `f${i}`, new Uint8Array(1024 * 1024))
    assert.throws(() => shard.call('HGETALL', 'h'), refusal('REPLY_TOO_LARGE'))
  })
})

describe('HDEL', () => {
  it('deletes fields and counts those that were there; the last one takes the key along', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', 'b', '2')
    assert.equal(shard.call('HDEL', 'h', 'a', 'x', 'a'), 1)
    assert.equal(shard.call('HDEL', 'h', 'b'), 1)
    assert.deepEqual([shard.call('EXISTS', 'h'), shard.call('DBSIZE')], [0, 0])
    assert.equal(shard.call('HDEL', 'h', 'b'), 0)
  })

  it('without a field deletes the hash, as GOKV does', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', 'b', '2')
    assert.equal(shard.call('HDEL', 'h'), 1)
    assert.equal(shard.call('HDEL', 'h'), 0)
    assert.equal(shard.call('TYPE', 'h'), 'none')
  })

  it('leaves nothing behind but what the sweep takes', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', 'b', '2')
    shard.call('HSET', 'h', 'c', '3', '100')
    shard.call('HDEL', 'h')
    assert.equal(shard.machine.nextExpiry(), 0)
    shard.sweep()
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
    assert.equal(shard.machine.nextExpiry(), null)
  })
})

describe('the time to live of a field', () => {
  it('is the odd last argument, in seconds, of that field', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1')
    assert.equal(shard.call('HSET', 'h', 'b', '2', '10'), 1)
    shard.nowMs += 9_999
    assert.deepEqual(shard.call('HGET', 'h', 'a', 'b'), [
      ['a', '1'],
      ['b', '2'],
    ])
    shard.nowMs += 1
    assert.equal(shard.call('HGET', 'h', 'b'), null)
    assert.deepEqual(shard.call('HGETALL', 'h'), [['a', '1']])
    assert.deepEqual(shard.call('HKEYS', 'h'), [['a', null]])
    assert.equal(shard.call('HLEN', 'h'), 1)
    assert.equal(shard.call('HDEL', 'h', 'b'), 0)
    assert.equal(shard.call('TTL', 'h'), -1)
  })

  it('0 is none; setting a field again without one takes it away', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', '0')
    shard.call('HSET', 'h', 'b', '2', '10')
    shard.call('HSET', 'h', 'b', '3')
    shard.nowMs += 10_000
    assert.deepEqual(shard.call('HGETALL', 'h'), [
      ['a', '1'],
      ['b', '3'],
    ])
  })

  it('a hash whose last live field expired is missing', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', '10')
    shard.call('HSET', 'h', 'b', '2', '20')
    shard.nowMs += 10_000
    assert.equal(shard.call('EXISTS', 'h'), 1)
    shard.nowMs += 10_000
    assert.deepEqual(
      [shard.call('EXISTS', 'h'), shard.call('TYPE', 'h'), shard.call('HLEN', 'h')],
      [0, 'none', 0],
    )
    assert.equal(shard.call('SET', 'h', 'now a string', 'NX'), true)
    shard.sweep()
    assert.deepEqual([shard.call('GET', 'h'), shard.call('DBSIZE')], ['now a string', 1])
  })

  it('a field set anew after it expired is new', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'keep', '0')
    shard.call('HSET', 'h', 'a', '1', '10')
    shard.nowMs += 10_000
    assert.equal(shard.call('HSET', 'h', 'a', '2'), 1)
    shard.sweep()
    assert.equal(shard.call('HGET', 'h', 'a'), '2')
  })

  it('makes HLEN wait for the sweep once more than 10,000 fields of a hash have expired', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'stays', 'v')
    for (let i = 0; i <= 10_000; i++) shard.call('HSET', 'h', `f${i}`, 'v', '1')
    assert.equal(shard.call('HLEN', 'h'), 10_002)
    shard.nowMs += 1000
    assert.throws(() => shard.call('HLEN', 'h'), refusal('OVERLOADED'))
    shard.sweep()
    assert.equal(shard.call('HLEN', 'h'), 1)
  })

  it('is refused when it is no number of seconds, or stands after several fields', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('HSET', 'h', 'a', '1', 'soon'), refusal('NOT_INTEGER'))
    assert.throws(() => shard.call('HSET', 'h', 'a', '1', '-1'), refusal('INVALID_EXPIRE'))
    assert.throws(() => shard.call('HSET', 'h', 'a', '1', 'b', '2', '10'), refusal('WRONG_ARITY'))
  })
})

describe('HMGET, HVALS, HEXISTS, HSETNX and HINCRBY', () => {
  it('HMGET answers values in the order asked for, nothing for a missing one', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', 'b', '')
    assert.deepEqual(shard.call('HMGET', 'h', 'b', 'x', 'a', 'b'), ['', null, '1', ''])
    assert.deepEqual(shard.call('HMGET', 'none', 'a', 'b'), [null, null])
  })

  it('HVALS lists values in the order of the fields', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'b', '2', 'a', '1')
    assert.deepEqual([shard.call('HVALS', 'h'), shard.call('HVALS', 'none')], [['1', '2'], []])
    for (let i = 0; i < 9; i++) shard.call('HSET', 'wide', `f${i}`, new Uint8Array(1024 * 1024))
    assert.throws(() => shard.call('HVALS', 'wide'), refusal('REPLY_TOO_LARGE'))
  })

  it('HEXISTS and HSETNX look at live fields only', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'a', '1', '10')
    assert.deepEqual([shard.call('HEXISTS', 'h', 'a'), shard.call('HEXISTS', 'h', 'b')], [1, 0])
    assert.equal(shard.call('HSETNX', 'h', 'a', '2'), 0)
    assert.equal(shard.call('HSETNX', 'h', 'b', '2'), 1)
    shard.nowMs += 10_000
    assert.deepEqual([shard.call('HEXISTS', 'h', 'a'), shard.call('HSETNX', 'h', 'a', '3')], [0, 1])
    shard.nowMs += 10_000
    assert.deepEqual(shard.call('HMGET', 'h', 'a', 'b'), ['3', '2'])
  })

  it('HINCRBY counts from 0, exactly over 64 bits, and keeps the field’s time to live', () => {
    const shard = new Shard()
    assert.equal(shard.call('HINCRBY', 'h', 'n', '5'), 5)
    shard.call('HSET', 'h', 'n', '7', '10')
    assert.equal(shard.call('HINCRBY', 'h', 'n', '-10'), -3)
    shard.nowMs += 10_000
    assert.equal(shard.call('HINCRBY', 'h', 'n', '1'), 1)
    shard.nowMs += 10_000
    assert.equal(shard.call('HGET', 'h', 'n'), '1')
    shard.call('HSET', 'h', 'max', '9223372036854775807')
    assert.throws(() => shard.call('HINCRBY', 'h', 'max', '1'), /increment or decrement would overflow/)
    shard.call('HSET', 'h', 'text', 'x')
    assert.throws(
      () => shard.call('HINCRBY', 'h', 'text', '1'),
      /^RoundhouseError: ERR hash value is not an integer/,
    )
    assert.throws(() => shard.call('HINCRBY', 'h', 'n', '1.5'), refusal('NOT_INTEGER'))
  })

  it('refuse a string, a field over 512 bytes and other numbers of arguments', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'v')
    for (const call of [
      ['HMGET', 's', 'f'],
      ['HVALS', 's'],
      ['HEXISTS', 's', 'f'],
      ['HSETNX', 's', 'f', 'v'],
      ['HINCRBY', 's', 'f', '1'],
    ] as [string, ...string[]][]) {
      assert.throws(() => shard.call(...call), refusal('WRONG_TYPE'))
      assert.throws(() => shard.call(call[0]), refusal('WRONG_ARITY'))
    }
    const long = 'f'.repeat(513)
    assert.throws(() => shard.call('HMGET', 'h', 'f', long), refusal('TOO_LARGE'))
    assert.throws(() => shard.call('HEXISTS', 'h', long), refusal('TOO_LARGE'))
    assert.throws(() => shard.call('HSETNX', 'h', long, 'v'), refusal('TOO_LARGE'))
    assert.throws(() => shard.call('HINCRBY', 'h', long, '1'), refusal('TOO_LARGE'))
    assert.equal(shard.call('HSETNX', 'h', 'f', long), 1)
  })
})
