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

describe('EXPIREAT and PEXPIREAT', () => {
  it('take a time since 1970, in seconds or milliseconds, and the options of EXPIRE', () => {
    const shard = new Shard()
    shard.call('MSET', 'a', '1', 'b', '1', 'c', '1')
    assert.equal(shard.call('EXPIREAT', 'a', `${shard.nowMs / 1000 + 5}`), 1)
    assert.equal(shard.call('PEXPIREAT', 'b', `${shard.nowMs + 1700}`), 1)
    assert.deepEqual([shard.call('PTTL', 'a'), shard.call('PTTL', 'b')], [5000, 1700])
    assert.equal(shard.call('EXPIREAT', 'a', `${shard.nowMs / 1000 + 9}`, 'LT'), 0)
    assert.equal(shard.call('PEXPIREAT', 'none', `${shard.nowMs + 1700}`), 0)
    assert.equal(shard.call('EXPIREAT', 'c', '-5'), 1)
    assert.equal(shard.call('EXISTS', 'c'), 0)
  })

  it('refuse a time that is no integer or further away than can be counted', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('EXPIREAT', 'a', 'now'), refusal('NOT_INTEGER'))
    assert.throws(
      () => shard.call('EXPIREAT', 'a', '9223372036854775807'),
      /invalid expire time in 'expireat' command/,
    )
    assert.throws(() => shard.call('PEXPIREAT', 'a', '1', 'NX', 'XX'), {
      code: 'SYNTAX',
      message: 'ERR NX and XX, GT or LT options at the same time are not compatible',
    })
    assert.throws(() => shard.call('EXPIRE', 'a', '1', 'GT', 'LT'), {
      message: 'ERR GT and LT options at the same time are not compatible',
    })
    assert.throws(() => shard.call('EXPIRE', 'a', '1', 'NY'), { message: 'ERR Unsupported option "NY"' })
    assert.throws(() => shard.call('PEXPIREAT', 'a'), refusal('WRONG_ARITY'))
  })
})

/** A key of each type under `{t}type`, all that expire with 100 ms to go. */
function typed(): Shard {
  const shard = new Shard()
  shard.call('SET', '{t}string', 'v')
  shard.call('HSET', '{t}hash', 'f', '1')
  shard.call('HSET', '{t}hash', 'g', '2', '10')
  shard.call('RPUSH', '{t}list', 'a', 'b')
  shard.call('SADD', '{t}set', 'a', 'b')
  shard.call('ZADD', '{t}zset', '2', 'a', '1', 'b')
  for (const type of types) shard.call('PEXPIRE', `{t}${type}`, '100')
  return shard
}

const types = ['string', 'hash', 'list', 'set', 'zset']
const contents: Record<string, (shard: Shard, key: string) => unknown> = {
  string: (shard, key) => shard.call('GET', key),
  hash: (shard, key) => shard.call('HGETALL', key),
  list: (shard, key) => shard.call('LRANGE', key, '0', '-1'),
  set: (shard, key) => shard.call('SMEMBERS', key),
  zset: (shard, key) => shard.call('ZRANGE', key, '0', '-1', 'WITHSCORES'),
}

describe('RENAME', () => {
  it('gives value and expiry another key, whatever the type, and what that held is gone', () => {
    for (const type of types) {
      const shard = typed()
      const before = contents[type]!(shard, `{t}${type}`)
      shard.call('RPUSH', '{t}to', 'old')
      assert.equal(shard.call('RENAME', `{t}${type}`, '{t}to'), true)
      assert.equal(shard.call('EXISTS', `{t}${type}`), 0)
      assert.deepEqual(contents[type]!(shard, '{t}to'), before)
      assert.deepEqual([shard.call('PTTL', '{t}to'), shard.call('DBSIZE')], [100, 5])
      shard.nowMs += 100
      while ((shard.machine.nextExpiry() ?? Number.POSITIVE_INFINITY) <= shard.nowMs) shard.sweep()
      assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
    }
  })

  it('moves the expiry of fields, too', () => {
    const shard = typed()
    shard.call('PERSIST', '{t}hash')
    shard.call('RENAME', '{t}hash', '{t}to')
    shard.nowMs += 10_000
    while ((shard.machine.nextExpiry() ?? Number.POSITIVE_INFINITY) <= shard.nowMs) shard.sweep()
    assert.deepEqual([shard.call('HGETALL', '{t}to'), shard.machine.nextExpiry()], [[['f', '1']], null])
  })

  it('to the same name changes nothing but needs the key', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('RENAME', 'a', 'a'), /^RoundhouseError: ERR no such key/)
    shard.call('SET', 'a', 'v')
    assert.equal(shard.call('RENAME', 'a', 'a'), true)
    assert.equal(shard.call('GET', 'a'), 'v')
  })

  it('refuses a missing or expired key, and two slots with both named', () => {
    const shard = typed()
    shard.nowMs += 100
    assert.throws(() => shard.call('RENAME', '{t}string', '{t}to'), /^RoundhouseError: ERR no such key/)
    assert.throws(
      () => shard.call('RENAME', 'a', 'b'),
      /CROSSSLOT Keys in request don't hash to the same slot: "a" is in 15495, "b" in 3300/,
    )
    assert.throws(() => shard.call('RENAME', '', 'a'), refusal('EMPTY_KEY'))
    assert.throws(() => shard.call('RENAME', 'a', ''), refusal('EMPTY_KEY'))
    assert.throws(() => shard.call('RENAME', '{a}', `{a}${'x'.repeat(1024)}`), refusal('TOO_LARGE'))
  })
})

describe('COPY', () => {
  it('copies value and expiry, whatever the type; then the two go their own ways', () => {
    for (const type of types) {
      const shard = typed()
      const before = contents[type]!(shard, `{t}${type}`)
      assert.equal(shard.call('COPY', `{t}${type}`, '{t}to'), 1)
      assert.deepEqual(contents[type]!(shard, '{t}to'), before)
      assert.deepEqual([shard.call('PTTL', '{t}to'), shard.call('DBSIZE')], [100, 6])
      shard.call('DEL', `{t}${type}`)
      shard.sweep()
      assert.deepEqual(contents[type]!(shard, '{t}to'), before)
      shard.nowMs += 100
      while ((shard.machine.nextExpiry() ?? Number.POSITIVE_INFINITY) <= shard.nowMs) shard.sweep()
      assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
    }
  })

  it('a copied sorted set is changed as any other', () => {
    const shard = new Shard()
    shard.call('ZADD', '{t}a', ...Array.from({ length: 3000 }, (_, i) => [`${i}`, `m${i}`]).flat())
    shard.call('COPY', '{t}a', '{t}b')
    shard.call('ZADD', '{t}b', '1.5', 'new')
    shard.call('ZREM', '{t}a', 'm0')
    assert.deepEqual(
      [shard.call('ZRANK', '{t}b', 'm2999'), shard.call('ZRANK', '{t}a', 'm2999')],
      [3000, 2998],
    )
  })

  it('leaves out the fields that expired', () => {
    const shard = typed()
    shard.call('PERSIST', '{t}hash')
    shard.nowMs += 10_000
    shard.call('COPY', '{t}hash', '{t}to')
    assert.deepEqual([shard.call('HGETALL', '{t}to'), shard.call('HLEN', '{t}to')], [[['f', '1']], 1])
  })

  it('overwrites with REPLACE only; a missing source is 0', () => {
    const shard = typed()
    assert.equal(shard.call('COPY', '{t}string', '{t}list'), 0)
    assert.equal(shard.call('COPY', '{t}string', '{t}list', 'replace'), 1)
    assert.equal(shard.call('GET', '{t}list'), 'v')
    assert.equal(shard.call('COPY', '{t}none', '{t}list', 'REPLACE'), 0)
    assert.equal(shard.call('GET', '{t}list'), 'v')
    shard.nowMs += 100
    assert.equal(shard.call('COPY', '{t}string', '{t}list', 'REPLACE'), 0)
  })

  it('refuses one key for both, two slots, other options, and more than a command may move', () => {
    const shard = new Shard()
    assert.throws(
      () => shard.call('COPY', 'a', 'a'),
      /^RoundhouseError: ERR source and destination objects are the same/,
    )
    assert.throws(() => shard.call('COPY', 'a', 'b'), refusal('CROSS_SHARD'))
    assert.throws(() => shard.call('COPY', '{t}a', '{t}b', 'DB'), refusal('SYNTAX'))
    shard.call('SADD', '{t}s', ...Array.from({ length: 10_000 }, (_, i) => `${i}`))
    shard.call('SET', '{t}to', 'v')
    assert.equal(shard.call('COPY', '{t}s', '{t}to', 'REPLACE'), 1)
    shard.call('SADD', '{t}s', 'one more')
    assert.throws(() => shard.call('COPY', '{t}s', '{t}to', 'REPLACE'), refusal('INVALID_ARGUMENT'))
    assert.equal(shard.call('SCARD', '{t}to'), 10_000)
    for (let i = 0; i < 33; i++) shard.call('RPUSH', '{t}wide', new Uint8Array(1024 * 1024))
    assert.throws(() => shard.call('COPY', '{t}wide', '{t}x'), refusal('INVALID_ARGUMENT'))
  })
})
