import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { isError } from '../../src/errors.ts'
import { type Change, ChangeRing } from '../../src/keyspace/changes.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { toUtf8 } from '../../src/lib/bytes.ts'
import { Shard, sessionId } from './shard.ts'

const everything = { kind: 'prefix', prefix: '' } as const

/** A shard whose machine notes changes. */
class Watched extends Shard {
  readonly changes = new ChangeRing()
  override readonly machine = new StateMachine(this.rows, commands, this.changes)

  /** What the entries since then did: `set a=1`, `delete b`. */
  since(index: number): string[] {
    return this.found(index).map(
      ({ kind, key, value, type }) =>
        `${kind} ${key}${value === null ? (type === 'string' ? '' : ` ${type}`) : `=${toUtf8(value)}`}`,
    )
  }

  found(index: number): readonly Change[] {
    return this.changes.read(index, this.entries.length, everything, Number.POSITIVE_INFINITY).changes
  }

  /** What one call does. */
  done(name: string, ...args: string[]): string[] {
    const before = this.entries.length
    this.call(name, ...args)
    return this.since(before)
  }
}

describe('the changes of a shard', () => {
  it('are one for each key that an entry changed, with what a string was set to', () => {
    const shard = new Watched()
    assert.deepEqual(shard.done('SET', 'a', '1'), ['set a=1'])
    assert.deepEqual(shard.done('INCR', 'a'), ['set a=2'])
    assert.deepEqual(shard.done('MSET', 'b', 'x', 'c', 'y'), ['set b=x', 'set c=y'])
    assert.deepEqual(shard.done('HSET', 'h', 'f', '1'), ['set h hash'])
    assert.deepEqual(shard.done('HSET', 'h', 'f', '2'), ['set h hash'])
    assert.deepEqual(shard.done('RPUSH', 'l', 'x', 'y'), ['set l list'])
    assert.deepEqual(shard.done('LSET', 'l', '0', 'z'), ['set l list'])
    assert.deepEqual(shard.done('ZADD', 'z', '1', 'm'), ['set z zset'])
    assert.deepEqual(shard.done('ZADD', 'z', '2', 'm'), ['set z zset'])
    assert.deepEqual(shard.done('SADD', 's', 'm'), ['set s set'])
    assert.deepEqual(shard.done('EXPIRE', 'a', '100'), ['set a=2'])
    assert.deepEqual(shard.done('RENAME', 'b', '{b}c').sort(), ['delete b', 'set {b}c=x'])
    assert.deepEqual(shard.done('COPY', 'h', '{h}i'), ['set {h}i hash'])
    assert.deepEqual(shard.done('HDEL', 'h', 'f'), ['delete h hash'])
    assert.deepEqual(shard.done('LPOP', 'l'), ['set l list'])
    assert.deepEqual(shard.done('DEL', 'a', 'nothing'), ['delete a'])
  })

  it('are none where nothing was changed', () => {
    const shard = new Watched()
    shard.call('SET', 'a', '1')
    shard.call('SADD', 's', 'm')
    for (const call of [
      ['SET', 'a', '2', 'NX'],
      ['DEL', 'b'],
      ['SADD', 's', 'm'],
      ['PERSIST', 'a'],
      ['GET', 'a'],
      ['HDEL', 'h', 'f'],
    ])
      assert.deepEqual(shard.done(...(call as [string, ...string[]])), [], call.join(' '))
    const before = shard.entries.length
    assert.throws(() => shard.call('RPUSH', 'a', 'x'), { code: 'WRONG_TYPE' })
    const refused = shard.applyOperations([shard.operation('SET', 'n', '1'), shard.operation('INCR', 's')])
    assert.equal(refused.kind, 'refused')
    const both = shard.applyOperations([shard.operation('SET', 'n', '1'), shard.operation('DEL', 'n')])
    assert.equal(both.kind, 'replies')
    assert.deepEqual(shard.since(before), [])
  })

  it('are one for a write that is repeated', () => {
    const shard = new Watched()
    const session = { id: sessionId(shard.nowMs), sequence: 1, ackedBelow: 0 }
    for (let i = 0; i < 3; i++) shard.applyOperations([shard.operation('SET', 'a', '1')], session)
    assert.deepEqual(shard.since(0), ['set a=1'])
  })

  it('tell expiry from deletion, when the sweep comes or a write meets what is over', () => {
    const shard = new Watched()
    for (const key of ['swept', 'deleted', 'replaced']) shard.call('SET', key, '1', 'PX', '10')
    shard.call('HSET', 'fields', 'f', '1', '1')
    shard.call('HSET', 'some', 'f', '1')
    shard.call('HSET', 'some', 'g', '1', '1')
    shard.nowMs += 1_020
    const before = shard.entries.length
    shard.call('DEL', 'deleted')
    shard.call('SET', 'replaced', '2')
    assert.deepEqual(shard.since(before), ['expire deleted', 'set replaced=2'])
    const swept = shard.entries.length
    shard.sweep()
    // A field that goes by itself is no change of its key.
    assert.deepEqual(shard.since(swept).sort(), ['expire fields hash', 'expire swept'])
    const later = shard.entries.length
    shard.call('SET', 'k', '1')
    shard.call('PEXPIREAT', 'k', '1')
    assert.deepEqual(shard.since(later), ['set k=1', 'delete k'])
    assert.ok(
      shard.found(0).every(each => each.timeMs === shard.nowMs || each.timeMs === shard.nowMs - 1_020),
    )
  })

  it('begin where the rows do when they were replaced', () => {
    const shard = new Watched()
    shard.call('SET', 'a', '1')
    shard.call('SET', 'b', '1')
    assert.equal(shard.changes.start, 0)
    shard.machine.reload()
    assert.deepEqual([shard.changes.start, shard.changes.size], [2, 0])
    const restarted = new ChangeRing()
    const again = new StateMachine(shard.rows, commands, restarted)
    assert.equal(restarted.start, again.revision)
  })

  it('are all that there was to see: who follows them has the keys', () => {
    const keys = ['{k}a', '{k}b', '{k}c', '{k}d']
    const key = fc.constantFrom(...keys)
    const text = fc.constantFrom('1', '2', 'x')
    const call = fc.oneof(
      fc.tuple(fc.constant('SET'), key, text),
      fc.tuple(fc.constant('SET'), key, text, fc.constant('NX')),
      fc.tuple(fc.constant('SET'), key, text, fc.constant('PX'), fc.constantFrom('5', '50')),
      fc.tuple(fc.constantFrom('INCR', 'GETDEL', 'PERSIST', 'LPOP', 'RPOP'), key),
      fc.tuple(fc.constant('DEL'), key, key),
      fc.tuple(fc.constantFrom('APPEND', 'RPUSH', 'SADD', 'SREM', 'HDEL'), key, text),
      fc.tuple(fc.constant('MSET'), key, text, key, text),
      fc.tuple(fc.constantFrom('HSET', 'HSETNX'), key, text, text),
      fc.tuple(fc.constant('ZADD'), key, fc.constant('1'), text),
      fc.tuple(fc.constant('ZREM'), key, text),
      fc.tuple(fc.constantFrom('RENAME', 'COPY'), key, key),
      fc.tuple(fc.constant('COPY'), key, key, fc.constant('REPLACE')),
      fc.tuple(fc.constant('PEXPIRE'), key, fc.constantFrom('0', '5', '50')),
    ) as fc.Arbitrary<string[]>
    const step = fc.oneof(
      { weight: 8, arbitrary: fc.record({ calls: fc.array(call, { minLength: 1, maxLength: 4 }) }) },
      { weight: 1, arbitrary: fc.record({ passMs: fc.integer({ min: 1, max: 30 }) }) },
      { weight: 1, arbitrary: fc.constant({ sweep: true }) },
    )
    /** Type and content of each key, by reading. */
    const dump = (shard: Shard) =>
      new Map(
        keys.flatMap(name => {
          const type = shard.call('TYPE', name)
          if (type === 'none') return []
          const content = {
            string: () => shard.call('GET', name),
            hash: () => shard.call('HGETALL', name),
            list: () => shard.call('LRANGE', name, '0', '-1'),
            set: () => shard.call('SMEMBERS', name),
            zset: () => shard.call('ZRANGE', name, '0', '-1', 'WITHSCORES'),
          }[type as 'string']()
          return [[name, JSON.stringify([type, content, shard.call('PTTL', name)])] as const]
        }),
      )
    const property = fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
      const shard = new Watched()
      const followed = new Map<string, string>()
      const follow = (
        before: ReadonlyMap<string, string>,
        after: ReadonlyMap<string, string>,
        from: number,
      ) => {
        const seen = new Set<string>()
        const numbers = new Map<number, number>()
        for (const { key, kind, type, value, index, number } of shard.found(from)) {
          assert.equal(number, numbers.get(index) ?? 0)
          numbers.set(index, number + 1)
          assert.ok(!seen.has(`${index} ${key}`), 'one change a key and entry')
          seen.add(`${index} ${key}`)
          seen.add(key)
          if (kind === 'set') followed.set(key, `${type} ${value === null ? '' : toUtf8(value)}`)
          else followed.delete(key)
          if (kind === 'delete') assert.ok(before.has(key), 'what was deleted was there')
          if (kind === 'expire') assert.ok(!before.has(key), 'what expired was seen no more')
        }
        for (const key of new Set([...before.keys(), ...after.keys()]))
          if (before.get(key) !== after.get(key)) assert.ok(seen.has(key), `${key} changed unseen`)
      }
      for (const step of steps) {
        if ('passMs' in step) {
          shard.nowMs += step.passMs
          continue
        }
        const before = dump(shard)
        const from = shard.entries.length
        if ('sweep' in step) shard.sweep()
        else {
          try {
            shard.applyOperations(step.calls.map(([name, ...args]) => shard.operation(name!, ...args)))
          } catch (error) {
            if (!isError(error)) throw error
          }
        }
        follow(before, dump(shard), from)
      }
      shard.nowMs += 100
      dump(shard)
      const from = shard.entries.length
      const before = dump(shard)
      while (shard.sweep() > 0) {}
      follow(before, dump(shard), from)
      const left = [...dump(shard).keys()].map(key => {
        const type = shard.call('TYPE', key)
        return `${key} ${type} ${type === 'string' ? shard.call('GET', key) : ''}`
      })
      assert.deepEqual([...followed].map(([key, what]) => `${key} ${what}`).sort(), left.sort())
    })
    fc.assert(property, { numRuns: 300 })
  })

  it('are the same on every replica', () => {
    const shard = new Watched()
    for (let i = 0; i < 50; i++) shard.call('MSET', `k${i % 7}`, `${i}`, `j${i % 5}`, 'x')
    const other = new ChangeRing()
    const replica = new StateMachine(new MemoryRows(), commands, other)
    for (const [i, entry] of shard.entries.entries()) replica.apply(i + 1, entry)
    assert.deepEqual(other.read(0, 50, everything, Number.POSITIVE_INFINITY).changes, shard.found(0))
  })
})
