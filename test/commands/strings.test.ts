import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { refusal, Shard } from './shard.ts'

describe('PING and ECHO', () => {
  it('PING answers PONG, or the message', () => {
    const shard = new Shard()
    assert.equal(shard.call('PING'), 'PONG')
    assert.equal(shard.call('PING', 'hello'), 'hello')
  })

  it('ECHO answers the message', () => assert.equal(new Shard().call('ECHO', 'a b'), 'a b'))
})

describe('SET and GET', () => {
  it('GET answers what SET wrote, byte for byte', () => {
    const shard = new Shard()
    assert.equal(shard.call('SET', 'k', 'v'), true)
    assert.equal(shard.call('GET', 'k'), 'v')
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
    shard.call('SET', bytes, bytes)
    const result = shard.read('GET', [bytes], null)
    assert.deepEqual(result.kind === 'reply' && result.reply.kind === 'value' && [...result.reply.value], [
      ...bytes,
    ])
  })

  it('a missing key is nil, an empty value is not', () => {
    const shard = new Shard()
    assert.equal(shard.call('GET', 'k'), null)
    shard.call('SET', 'k', '')
    assert.equal(shard.call('GET', 'k'), '')
  })

  it('NX sets only a missing key, XX only one that is there', () => {
    const shard = new Shard()
    assert.equal(shard.call('SET', 'k', '1', 'XX'), false)
    assert.equal(shard.call('SET', 'k', '2', 'NX'), true)
    assert.equal(shard.call('SET', 'k', '3', 'NX'), false)
    assert.equal(shard.call('SET', 'k', '4', 'XX'), true)
    assert.equal(shard.call('GET', 'k'), '4')
  })

  it('IFEQ sets only over that very value', () => {
    const shard = new Shard()
    assert.equal(shard.call('SET', 'k', '1', 'IFEQ', '0'), false)
    shard.call('SET', 'k', '0')
    assert.equal(shard.call('SET', 'k', '1', 'IFEQ', '0'), true)
    assert.equal(shard.call('SET', 'k', '2', 'IFEQ', '0'), false)
    assert.equal(shard.call('GET', 'k'), '1')
  })

  it('GET answers the value before, whether it was replaced or not', () => {
    const shard = new Shard()
    assert.equal(shard.call('SET', 'k', '1', 'GET'), null)
    assert.equal(shard.call('SET', 'k', '2', 'GET'), '1')
    assert.equal(shard.call('SET', 'k', '3', 'NX', 'GET'), '2')
    assert.equal(shard.call('GET', 'k'), '2')
  })

  it('SET replaces a hash, SET with GET or IFEQ refuses one', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'f', 'v')
    assert.throws(() => shard.call('SET', 'h', 'v', 'GET'), refusal('WRONG_TYPE'))
    assert.throws(() => shard.call('SET', 'h', 'v', 'IFEQ', 'v'), refusal('WRONG_TYPE'))
    assert.throws(() => shard.call('GET', 'h'), /^RoundhouseError: WRONGTYPE Operation against a key/)
    assert.equal(shard.call('SET', 'h', 'v'), true)
    assert.equal(shard.call('TYPE', 'h'), 'string')
    assert.equal(shard.call('DBSIZE'), 1)
  })

  it('EX, PX, EXAT and PXAT let it expire', () => {
    const shard = new Shard()
    const nowS = shard.nowMs / 1000
    shard.call('SET', 'ex', 'v', 'EX', '10')
    shard.call('SET', 'px', 'v', 'px', '2500')
    shard.call('SET', 'exat', 'v', 'EXAT', `${nowS + 7}`)
    shard.call('SET', 'pxat', 'v', 'PXAT', `${shard.nowMs + 77}`)
    const left = ['ex', 'px', 'exat', 'pxat'].map(key => shard.call('PTTL', key))
    assert.deepEqual(left, [10_000, 2500, 7000, 77])
    shard.nowMs += 2500
    const found = ['ex', 'px', 'exat', 'pxat'].map(key => shard.call('GET', key))
    assert.deepEqual(found, ['v', null, 'v', null])
  })

  it('a plain SET takes the expiry away, KEEPTTL and a refused SET leave it', () => {
    const shard = new Shard()
    shard.call('SET', 'k', '1', 'EX', '10')
    shard.call('SET', 'k', '2', 'KEEPTTL')
    shard.call('SET', 'k', '3', 'NX')
    assert.equal(shard.call('TTL', 'k'), 10)
    shard.call('SET', 'k', '4')
    assert.equal(shard.call('TTL', 'k'), -1)
  })

  it('KEEPTTL on a key that expired keeps nothing', () => {
    const shard = new Shard()
    shard.call('SET', 'k', '1', 'PX', '5')
    shard.nowMs += 5
    shard.call('SET', 'k', '2', 'KEEPTTL')
    assert.equal(shard.call('TTL', 'k'), -1)
  })

  it('refuses what Redis refuses, before it is an entry', () => {
    const shard = new Shard()
    const set = (...options: string[]) => shard.call('SET', 'k', 'v', ...options)
    assert.throws(() => set('NX', 'XX'), refusal('SYNTAX'))
    assert.throws(() => set('EX', '1', 'PX', '1'), refusal('SYNTAX'))
    assert.throws(() => set('EX', '1', 'KEEPTTL'), refusal('SYNTAX'))
    assert.throws(() => set('EX'), refusal('SYNTAX'))
    assert.throws(() => set('NX', 'IFEQ', 'v'), refusal('SYNTAX'))
    assert.throws(() => set('constructor'), refusal('SYNTAX'))
    assert.throws(() => set('EX', 'soon'), refusal('NOT_INTEGER'))
    assert.throws(() => set('EX', '0'), /ERR invalid expire time in 'set' command/)
    assert.throws(() => set('PX', '-1'), refusal('INVALID_EXPIRE'))
    assert.throws(() => set('EX', '9223372036854775807'), refusal('INVALID_EXPIRE'))
    assert.equal(shard.entries.length, 0)
  })
})

describe('MSET and MGET', () => {
  it('MSET sets all, the last of one name wins, and takes expiries away', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '0', 'EX', '9')
    assert.equal(shard.call('MSET', 'a', '1', 'b', '2', 'a', '3'), true)
    assert.deepEqual(shard.call('MGET', 'a', 'b', 'c'), ['3', '2', null])
    assert.equal(shard.call('TTL', 'a'), -1)
  })

  it('MGET answers nothing for a hash', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'f', 'v')
    assert.deepEqual(shard.call('MGET', 'h'), [null])
  })

  it('MSET refuses a key without value', () =>
    assert.throws(() => new Shard().call('MSET', 'a', '1', 'b'), refusal('WRONG_ARITY')))

  it('MGET refuses to answer more than 8 MiB', () => {
    const shard = new Shard()
    shard.call('SET', 'k', new Uint8Array(1024 * 1024))
    const keys = (count: number) => new Array<string>(count).fill('k')
    const seven = shard.read('MGET', keys(7), null)
    assert.equal(seven.kind, 'reply')
    assert.throws(() => shard.call('MGET', ...keys(8)), refusal('REPLY_TOO_LARGE'))
  })
})

describe('INCR, INCRBY, DECR and DECRBY', () => {
  it('count from 0 when the key is missing', () => {
    const shard = new Shard()
    assert.equal(shard.call('INCR', 'a'), 1)
    assert.equal(shard.call('DECR', 'b'), -1)
    assert.equal(shard.call('INCRBY', 'a', '41'), 42)
    assert.equal(shard.call('DECRBY', 'a', '-8'), 50)
    assert.equal(shard.call('GET', 'a'), '50')
  })

  it('are exact over 64 bits and refuse to pass them', () => {
    const shard = new Shard()
    shard.call('SET', 'max', '9223372036854775806')
    assert.equal(shard.call('INCR', 'max'), 9223372036854775807n)
    assert.throws(() => shard.call('INCR', 'max'), refusal('OVERFLOW'))
    assert.equal(shard.call('GET', 'max'), '9223372036854775807')
    shard.call('SET', 'min', '-9223372036854775808')
    assert.throws(() => shard.call('DECR', 'min'), refusal('OVERFLOW'))
    assert.equal(shard.call('INCRBY', 'min', '9223372036854775807'), -1)
    assert.throws(() => shard.call('DECRBY', 'min', '-9223372036854775808'), {
      code: 'OVERFLOW',
      message: 'ERR decrement would overflow: -(-9223372036854775808)',
    })
  })

  it('keep the expiry', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'EX', '10')
    shard.call('INCR', 'a')
    assert.equal(shard.call('TTL', 'a'), 10)
  })

  it('refuse what is no integer in its one spelling', () => {
    const shard = new Shard()
    for (const text of ['', ' 1', '+1', '01', '-0', '1.0', 'x', '9223372036854775808', '1e3']) {
      shard.call('SET', 'a', text)
      assert.throws(() => shard.call('INCR', 'a'), /ERR value is not an integer or out of range/)
      assert.throws(() => shard.call('INCRBY', 'b', text), refusal('NOT_INTEGER'))
    }
    assert.equal(shard.call('EXISTS', 'b'), 0)
  })

  it('refuse a hash', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'f', '1')
    assert.throws(() => shard.call('INCR', 'h'), refusal('WRONG_TYPE'))
  })
})

describe('GETDEL, APPEND and STRLEN', () => {
  it('GETDEL answers the value and takes the key with its expiry away', () => {
    const shard = new Shard()
    shard.call('SET', 'k', 'v', 'EX', '10')
    assert.deepEqual([shard.call('GETDEL', 'k'), shard.call('GETDEL', 'k')], ['v', null])
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('APPEND adds to the end, from nothing too, answers the length in bytes and keeps the expiry', () => {
    const shard = new Shard()
    assert.equal(shard.call('APPEND', 'k', 'grü'), 4)
    shard.call('PEXPIRE', 'k', '100')
    assert.equal(shard.call('APPEND', 'k', 'n'), 5)
    assert.equal(shard.call('APPEND', 'k', ''), 5)
    assert.deepEqual(
      [shard.call('GET', 'k'), shard.call('STRLEN', 'k'), shard.call('PTTL', 'k')],
      ['grün', 5, 100],
    )
    shard.nowMs += 100
    assert.deepEqual([shard.call('STRLEN', 'k'), shard.call('APPEND', 'k', 'x')], [0, 1])
    assert.equal(shard.call('TTL', 'k'), -1)
  })

  it('APPEND refuses to pass 1 MiB and leaves the value as it is', () => {
    const shard = new Shard()
    shard.call('SET', 'k', new Uint8Array(1024 * 1024))
    assert.throws(() => shard.call('APPEND', 'k', 'x'), refusal('TOO_LARGE'))
    assert.equal(shard.call('STRLEN', 'k'), 1024 * 1024)
  })

  it('refuse a hash', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'f', 'v')
    for (const call of [
      ['GETDEL', 'h'],
      ['APPEND', 'h', 'x'],
      ['STRLEN', 'h'],
    ] as [string, ...string[]][])
      assert.throws(() => shard.call(...call), refusal('WRONG_TYPE'))
    assert.equal(shard.call('HLEN', 'h'), 1)
  })
})
