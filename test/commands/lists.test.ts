import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { limits } from '../../src/keyspace/limits.ts'
import { refusal, Shard } from './shard.ts'

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `${from + i}`)
const mebibyte = new Uint8Array(1024 * 1024)
const rows = (shard: Shard, prefix: string) =>
  Object.keys(shard.dump()).filter(row => row[0] === prefix).length

/** RPUSH in entries of 10,000. */
function filled(length: number): Shard {
  const shard = new Shard()
  for (let i = 0; i < length; i += 10_000)
    shard.call('RPUSH', 'l', ...numbers(i, Math.min(length, i + 10_000)))
  return shard
}

describe('LPUSH, RPUSH, LPOP, RPOP and LLEN', () => {
  it('push one after another at their end and answer the length', () => {
    const shard = new Shard()
    assert.equal(shard.call('RPUSH', 'l', 'a', 'b'), 2)
    assert.equal(shard.call('LPUSH', 'l', 'c', 'd'), 4)
    assert.deepEqual(shard.call('LRANGE', 'l', '0', '-1'), ['d', 'c', 'a', 'b'])
    assert.deepEqual([shard.call('LLEN', 'l'), shard.call('LLEN', 'x')], [4, 0])
  })

  it('pop one element, or a list of so many, the outermost first', () => {
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a', 'b', 'c', 'd', 'e')
    assert.equal(shard.call('LPOP', 'l'), 'a')
    assert.equal(shard.call('RPOP', 'l'), 'e')
    assert.deepEqual(shard.call('RPOP', 'l', '2'), ['d', 'c'])
    assert.deepEqual(shard.call('LPOP', 'l', '0'), [])
    assert.deepEqual(shard.call('LPOP', 'l', '99'), ['b'])
  })

  it('a missing list pops nothing, with a count too; the last element takes the key with it', () => {
    const shard = new Shard()
    assert.deepEqual([shard.call('LPOP', 'l'), shard.call('RPOP', 'l', '3')], [null, null])
    shard.call('LPUSH', 'l', 'a')
    shard.call('RPOP', 'l')
    assert.deepEqual(
      [shard.call('EXISTS', 'l'), shard.call('TYPE', 'l'), shard.call('DBSIZE')],
      [0, 'none', 0],
    )
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('keep the expiry of the list, and an expired one is as good as none', () => {
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a', 'b')
    shard.call('PEXPIRE', 'l', '100')
    shard.call('RPUSH', 'l', 'c')
    shard.call('LPOP', 'l')
    assert.equal(shard.call('PTTL', 'l'), 100)
    shard.nowMs += 100
    assert.equal(shard.call('LPOP', 'l'), null)
    assert.equal(shard.call('RPUSH', 'l', 'x'), 1)
    assert.equal(shard.call('PTTL', 'l'), -1)
    shard.sweep()
    assert.deepEqual(shard.call('LRANGE', 'l', '0', '-1'), ['x'])
  })

  it('refuse a count that is no integer from 0 up', () => {
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a')
    assert.throws(
      () => shard.call('LPOP', 'l', '-1'),
      /^RoundhouseError: ERR value is out of range, must be positive/,
    )
    assert.throws(() => shard.call('RPOP', 'l', 'all'), refusal('NOT_INTEGER'))
    assert.throws(() => shard.call('LPOP', 'l', '1', '2'), refusal('WRONG_ARITY'))
    assert.throws(() => shard.call('LPUSH', 'l'), refusal('WRONG_ARITY'))
  })

  it('pop 10,000 elements and 8 MiB at most, and leave the list as it is otherwise', () => {
    const shard = filled(10_001)
    assert.throws(() => shard.call('LPOP', 'l', '10001'), refusal('REPLY_TOO_LARGE'))
    assert.equal(shard.call('LLEN', 'l'), 10_001)
    assert.equal((shard.call('LPOP', 'l', '10000') as unknown[]).length, 10_000)
    for (let i = 0; i < 9; i++) shard.call('RPUSH', 'wide', mebibyte)
    assert.throws(() => shard.call('RPOP', 'wide', '9'), refusal('REPLY_TOO_LARGE'))
    assert.equal(shard.call('LLEN', 'wide'), 9)
  })
})

describe('LRANGE, LINDEX and LTRIM', () => {
  it('count from the front, or from the back down from -1, and cut what lies outside', () => {
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a', 'b', 'c', 'd')
    const cases: [start: string, stop: string, found: string][] = [
      ['0', '-1', 'abcd'],
      ['1', '2', 'bc'],
      ['-2', '-1', 'cd'],
      ['-99', '1', 'ab'],
      ['2', '99', 'cd'],
      ['3', '1', ''],
      ['9', '12', ''],
      ['-3', '-9', ''],
      ['-9223372036854775808', '9223372036854775807', 'abcd'],
    ]
    for (const [start, stop, found] of cases) {
      assert.deepEqual(shard.call('LRANGE', 'l', start, stop), [...found], `${start} ${stop}`)
      shard.call('DEL', 't')
      shard.call('RPUSH', 't', 'a', 'b', 'c', 'd')
      assert.equal(shard.call('LTRIM', 't', start, stop), true)
      assert.deepEqual(shard.call('LRANGE', 't', '0', '-1'), [...found], `LTRIM ${start} ${stop}`)
      assert.equal(shard.call('EXISTS', 't'), found === '' ? 0 : 1)
    }
    assert.deepEqual(
      ['0', '3', '-1', '-4', '4', '-5'].map(index => shard.call('LINDEX', 'l', index)),
      ['a', 'd', 'd', 'a', null, null],
    )
    assert.deepEqual([shard.call('LRANGE', 'x', '0', '-1'), shard.call('LINDEX', 'x', '0')], [[], null])
    assert.equal(shard.call('LTRIM', 'x', '0', '1'), true)
  })

  it('LRANGE answers 10,000 elements and 8 MiB at most', () => {
    const shard = filled(10_001)
    assert.equal((shard.call('LRANGE', 'l', '1', '-1') as unknown[]).length, 10_000)
    assert.throws(() => shard.call('LRANGE', 'l', '0', '-1'), refusal('REPLY_TOO_LARGE'))
    for (let i = 0; i < 9; i++) shard.call('RPUSH', 'wide', mebibyte)
    assert.throws(() => shard.call('LRANGE', 'wide', '0', '-1'), refusal('REPLY_TOO_LARGE'))
  })

  it('LTRIM of many elements leaves them to the sweep, and pushes over them hold', () => {
    const shard = filled(30_000)
    shard.call('LTRIM', 'l', '10000', '10002')
    assert.equal(rows(shard, 'l'), 30_000)
    shard.call('LPUSH', 'l', 'x', 'y')
    shard.call('RPUSH', 'l', 'z')
    shard.call('RENAME', 'l', '{l}2')
    for (let sweeps = 0; shard.machine.nextExpiry() !== null; sweeps++) {
      assert.ok(shard.sweep() <= limits.sweepRowsMax)
      assert.ok(sweeps < 40)
      assert.deepEqual(shard.call('LRANGE', '{l}2', '0', '-1'), ['y', 'x', '10000', '10001', '10002', 'z'])
    }
    assert.equal(rows(shard, 'l'), 6)
  })

  it('a list that was trimmed leaves nothing behind when it goes before the sweep', () => {
    const shard = filled(5_000)
    shard.call('LTRIM', 'l', '4000', '4000')
    shard.call('LPOP', 'l')
    assert.equal(shard.call('EXISTS', 'l'), 0)
    while (shard.machine.nextExpiry() !== null) shard.sweep()
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('a list of any size is deleted by few rows, and its rows by the sweep, 8 MiB at a time', () => {
    const shard = new Shard()
    for (let i = 0; i < 20; i++) shard.call('RPUSH', 'l', mebibyte)
    const before = rows(shard, 'l')
    shard.call('DEL', 'l')
    assert.deepEqual([rows(shard, 'l'), rows(shard, 'g')], [before, 1])
    assert.ok(shard.sweep() < 10)
    while (shard.machine.nextExpiry() !== null) shard.sweep()
    assert.deepEqual(Object.keys(shard.dump()), ['cclock', 'ckeys'])
  })

  it('refuse what is no integer', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('LRANGE', 'l', 'a', '1'), refusal('NOT_INTEGER'))
    assert.throws(() => shard.call('LTRIM', 'l', '0', '1.5'), refusal('NOT_INTEGER'))
    assert.throws(() => shard.call('LINDEX', 'l', ''), refusal('NOT_INTEGER'))
    assert.throws(() => shard.call('LRANGE', 'l', '0'), refusal('WRONG_ARITY'))
  })
})

describe('LSET', () => {
  it('sets the element at an index', () => {
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a', 'b', 'c')
    assert.equal(shard.call('LSET', 'l', '0', 'x'), true)
    assert.equal(shard.call('LSET', 'l', '-1', 'z'), true)
    assert.deepEqual(shard.call('LRANGE', 'l', '0', '-1'), ['x', 'b', 'z'])
  })

  it('refuses a missing key and an index outside', () => {
    const shard = new Shard()
    assert.throws(() => shard.call('LSET', 'l', '0', 'x'), /^RoundhouseError: ERR no such key/)
    shard.call('RPUSH', 'l', 'a')
    assert.throws(() => shard.call('LSET', 'l', '1', 'x'), /^RoundhouseError: ERR index out of range/)
    assert.throws(() => shard.call('LSET', 'l', '-2', 'x'), /^RoundhouseError: ERR index out of range/)
  })

  it('without an index sets the whole list, as GOKV does, and keeps its expiry', () => {
    const shard = new Shard()
    assert.equal(shard.call('LSET', 'l', 'a', 'b', 'c'), true)
    shard.call('PEXPIRE', 'l', '100')
    assert.equal(shard.call('LSET', 'l', 'x', 'y'), true)
    assert.deepEqual([shard.call('LRANGE', 'l', '0', '-1'), shard.call('PTTL', 'l')], [['x', 'y'], 100])
    assert.equal(shard.call('LSET', 'l', '1'), true)
    assert.deepEqual(shard.call('LRANGE', 'l', '0', '-1'), ['1'])
  })
})

describe('LREM', () => {
  it('removes the first so many, the last so many, or all that are equal', () => {
    const removed = (count: string) => {
      const shard = new Shard()
      shard.call('RPUSH', 'l', 'a', 'b', 'a', 'c', 'a')
      const answer = shard.call('LREM', 'l', count, 'a')
      assert.equal(rows(shard, 'l'), Number(shard.call('LLEN', 'l')))
      return [answer, (shard.call('LRANGE', 'l', '0', '-1') as string[]).join('')]
    }
    assert.deepEqual(removed('2'), [2, 'bca'])
    assert.deepEqual(removed('-2'), [2, 'abc'])
    assert.deepEqual(removed('0'), [3, 'bc'])
    assert.deepEqual(removed('9'), [3, 'bc'])
    assert.deepEqual(removed('-9223372036854775808'), [3, 'bc'])
    const shard = new Shard()
    shard.call('RPUSH', 'l', 'a')
    assert.deepEqual([shard.call('LREM', 'l', '1', 'x'), shard.call('LREM', 'none', '1', 'x')], [0, 0])
    assert.deepEqual([shard.call('LREM', 'l', '0', 'a'), shard.call('EXISTS', 'l')], [1, 0])
  })

  it('looks no further than it must, and refuses to visit more than 10,000 elements or 32 MiB', () => {
    const shard = filled(20_000)
    assert.equal(shard.call('LREM', 'l', '1', '9000'), 1)
    assert.equal(shard.call('LREM', 'l', '-1', '19999'), 1)
    assert.throws(() => shard.call('LREM', 'l', '1', '12000'), refusal('INVALID_ARGUMENT'))
    assert.throws(() => shard.call('LREM', 'l', '0', '5'), refusal('INVALID_ARGUMENT'))
    assert.equal(shard.call('LLEN', 'l'), 19_998)
    assert.deepEqual(shard.call('LRANGE', 'l', '8999', '9000'), ['8999', '9001'])
    for (let i = 0; i < 33; i++) shard.call('RPUSH', 'wide', mebibyte)
    assert.throws(() => shard.call('LREM', 'wide', '0', 'x'), refusal('INVALID_ARGUMENT'))
  })
})

describe('commands of lists', () => {
  it('refuse keys of other types', () => {
    const shard = new Shard()
    shard.call('SADD', 's', 'a')
    const calls = [
      ['LPUSH', 's', 'a'],
      ['RPOP', 's'],
      ['LLEN', 's'],
      ['LRANGE', 's', '0', '1'],
      ['LINDEX', 's', '0'],
      ['LSET', 's', '0', 'a'],
      ['LSET', 's', 'a', 'b', 'c'],
      ['LTRIM', 's', '0', '1'],
      ['LREM', 's', '0', 'a'],
    ] as [string, ...string[]][]
    for (const call of calls) assert.throws(() => shard.call(...call), refusal('WRONG_TYPE'), call.join(' '))
    shard.call('RPUSH', 'l', 'a')
    assert.throws(() => shard.call('GET', 'l'), /WRONGTYPE .*: it holds a list, not a string/)
    assert.throws(() => shard.call('HGETALL', 'l'), refusal('WRONG_TYPE'))
    assert.equal(shard.call('TYPE', 'l'), 'list')
    assert.equal(shard.call('SET', 'l', 'v'), true)
  })
})
