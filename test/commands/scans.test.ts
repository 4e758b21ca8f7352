import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Plan, Reply } from '../../src/commands/command.ts'
import {
  readElementCursor,
  readKeyCursor,
  writeElementCursor,
  writeKeyCursor,
} from '../../src/commands/cursor.ts'
import { commands, parseCall } from '../../src/commands/table.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { fromLatin1, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { refusal, Shard, toBytes } from './shard.ts'

/** Shards with the keys that belong there; plans are followed as a router does. */
class Shards {
  readonly all: Shard[]
  private readonly random = new Prng(3)
  asked = 0

  constructor(count: number) {
    this.all = Array.from({ length: count }, () => new Shard())
  }

  of(key: string): Shard {
    return this.all[shardOfSlot(slotOf(fromUtf8(key)), this.all.length)]!
  }

  follow(name: string, ...args: string[]): Reply {
    const { command, args: parsed } = parseCall(name, args.map(toBytes))
    let step: Plan | Reply = command.plan!(parsed, this.all.length, this.random)
    while ('ask' in step)
      step = step.next(
        step.ask.map(({ shard, args }) => {
          this.asked++
          const { nowMs } = this.all[shard]!
          const result = this.all[shard]!.read(name, [...args], nowMs)
          assert.ok(result.kind === 'reply', `${name}: ${result.kind}`)
          return result.reply
        }),
      )
    return step
  }

  page(cursor: string, ...options: string[]): { keys: string[]; cursor: string } {
    return paged(this.follow('SCAN', cursor, ...options))
  }

  /** All pages from the beginning to the end. */
  scan(...options: string[]): string[] {
    return pages(cursor => this.page(cursor, ...options)).flat()
  }
}

function paged(reply: Reply): { keys: string[]; values: (string | null)[]; cursor: string } {
  assert.ok(reply.kind === 'list' && reply.cursor !== undefined)
  return {
    keys: reply.items.map(({ key }) => toUtf8(key!)),
    values: reply.items.map(({ value }) => (value === undefined ? null : toUtf8(value))),
    cursor: toUtf8(reply.cursor),
  }
}

function pages(page: (cursor: string) => { keys: string[]; cursor: string }): string[][] {
  const found: string[][] = []
  let cursor = '0'
  do {
    const next = page(cursor)
    found.push(next.keys)
    cursor = next.cursor
    assert.ok(found.length < 10_000, 'a scan without end')
  } while (cursor !== '0')
  return found
}

function elements(shard: Shard, name: string, key: string, cursor: string, ...options: string[]) {
  const result = shard.read(name, [key, cursor, ...options], null)
  if (result.kind === 'refused') throw result.error
  assert.ok(result.kind === 'reply')
  return paged(result.reply)
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => `${i}`)

describe('SCAN', () => {
  it('goes through all shards and meets each key once, of every type', () => {
    const shards = new Shards(8)
    const keys = numbers(300).map(i => `key:${i}`)
    for (const [i, key] of keys.entries()) shards.of(key).call(i % 2 === 0 ? 'SET' : 'RPUSH', key, 'v')
    assert.deepEqual(shards.scan().sort(), [...keys].sort())
    assert.deepEqual(shards.scan('COUNT', '1').sort(), [...keys].sort())
    assert.deepEqual(shards.scan('TYPE', 'LIST', 'COUNT', '70').sort(), keys.filter((_, i) => i % 2).sort())
    assert.deepEqual(shards.scan('TYPE', 'stream'), [])
  })

  it('meets whatever is there from the first page to the last, while keys come and go and expire', () => {
    const key = fc.tuple(fc.constantFrom('', 'a', 'user:'), fc.nat(60)).map(([prefix, n]) => `${prefix}${n}k`)
    const change = fc.record({ key, kind: fc.constantFrom('add', 'delete', 'expire') })
    fc.assert(
      fc.property(
        fc.array(key, { maxLength: 60, size: 'max' }),
        fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 30, size: 'max' }),
        fc.integer({ min: 1, max: 9 }),
        (before, changes, count) => {
          const shards = new Shards(4)
          for (const key of before) shards.of(key).call('SET', key, 'v')
          const throughout = new Set(before)
          const ever = new Set(before)
          let turn = 0
          const seen = pages(cursor => {
            const page = shards.page(cursor, 'COUNT', `${count}`)
            for (const { key, kind } of changes[turn++] ?? []) {
              ever.add(key)
              if (kind === 'add') shards.of(key).call('SET', key, 'w', 'KEEPTTL')
              else throughout.delete(key)
              if (kind === 'delete') shards.of(key).call('DEL', key)
              if (kind === 'expire') shards.of(key).call('PEXPIRE', key, '0')
            }
            return page
          }).flat()
          assert.equal(new Set(seen).size, seen.length, 'a key came twice')
          for (const key of throughout) assert.ok(seen.includes(key), `${key} was there and did not come`)
          for (const key of seen) assert.ok(ever.has(key))
        },
      ),
      { numRuns: 300 },
    )
  })

  it('leaves out what expired, swept or not', () => {
    const shards = new Shards(1)
    shards.all[0]!.call('SET', 'a', '1', 'PX', '10')
    shards.all[0]!.call('SET', 'b', '1')
    shards.all[0]!.call('HSET', 'h', 'f', '1', '1')
    assert.deepEqual(shards.scan(), ['a', 'b', 'h'])
    shards.all[0]!.nowMs += 1000
    shards.all[0]!.call('SET', 'c', '1')
    assert.deepEqual(shards.scan(), ['b', 'c'])
  })

  it('that would leave out a key by the wall clock only wants the log clock first', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    assert.equal(shard.read('SCAN', ['0.'], shard.nowMs + 9).kind, 'reply')
    assert.equal(shard.read('SCAN', ['0.'], shard.nowMs + 10).kind, 'clock-wanted')
  })

  it('MATCH picks by pattern, and visits no key that does not begin like it', () => {
    const shards = new Shards(1)
    for (const i of numbers(2000)) shards.all[0]!.call('SET', `other:${i}`, 'v')
    for (const i of numbers(15)) shards.all[0]!.call('SET', `user:${i}`, 'v')
    assert.deepEqual(shards.page('0', 'MATCH', 'user:*', 'COUNT', '20').keys.length, 15)
    assert.deepEqual(shards.scan('MATCH', 'user:1[0-2]'), ['user:10', 'user:11', 'user:12'])
    assert.deepEqual(shards.scan('MATCH', 'user:7'), ['user:7'])
    assert.deepEqual(shards.page('0', 'MATCH', '*:nothing', 'COUNT', '100').keys, [])
    assert.notEqual(shards.page('0', 'MATCH', '*:nothing', 'COUNT', '100').cursor, '0')
    // A cursor in front of, within and behind what the pattern begins with.
    const at = (name: string) => toUtf8(writeKeyCursor({ shard: 0, after: fromUtf8(name) }))
    const behind = (name: string) => shards.page(at(name), 'MATCH', 'user:1*', 'COUNT', '20').keys.length
    assert.deepEqual(['a', 'user:11', 'user:14', 'z'].map(behind), [6, 3, 0, 0])
  })

  it('COUNT is how many keys a page visits, 10 by itself and 10,000 at most', () => {
    const shards = new Shards(1)
    for (let i = 0; i < 12_000; i += 3000)
      shards.all[0]!.call('MSET', ...numbers(3000).flatMap(n => [`k${i + Number(n)}`, 'v']))
    assert.equal(shards.page('0').keys.length, 10)
    assert.equal(shards.page('0', 'COUNT', '9223372036854775807').keys.length, 10_000)
  })

  it('ends a page early where values are large, and where a pattern costs much', () => {
    const shards = new Shards(1)
    for (const i of numbers(12)) shards.all[0]!.call('SET', i, new Uint8Array(1024 * 1024))
    assert.equal(shards.page('0', 'COUNT', '100').keys.length, 4)
    assert.equal(shards.scan('COUNT', '100').length, 12)
    const costly = new Shards(1)
    for (const i of numbers(50)) costly.all[0]!.call('SET', 'a'.repeat(1000) + i, 'v')
    const pattern = `*${'a'.repeat(500)}b`
    const found = pages(cursor => costly.page(cursor, 'MATCH', pattern, 'COUNT', '10000'))
    assert.ok(found.length > 1 && found.flat().length === 0, `${found.length} pages`)
  })

  it('passes up to 16 shards a page while they have too little', () => {
    const shards = new Shards(64)
    assert.equal(pages(cursor => shards.page(cursor)).length, 4)
    assert.equal(shards.asked, 64)
  })

  it('refuses a cursor that is none, a shard that is none, and options that are none', () => {
    const shards = new Shards(4)
    for (const cursor of ['', 'x', '1', '-1.', '01.', '1.a', '1.=', '1.a+b', '4.', '99999.', '1.YR'])
      assert.throws(() => shards.page(cursor), /ERR invalid cursor/, cursor)
    assert.throws(() => shards.page('0', 'COUNT', '0'), refusal('SYNTAX'))
    assert.throws(() => shards.page('0', 'COUNT', 'x'), refusal('NOT_INTEGER'))
    assert.throws(() => shards.page('0', 'COUNT'), refusal('SYNTAX'))
    assert.throws(() => shards.page('0', 'NOVALUES'), refusal('SYNTAX'))
    assert.throws(
      () => shards.page('0', 'MATCH', '*'.repeat(limits.patternBytesMax + 1)),
      refusal('TOO_LARGE'),
    )
  })

  it('a cursor names a key in any bytes', () =>
    fc.assert(
      fc.property(fc.nat(4095), fc.uint8Array({ minLength: 1 }), (shard, bytes) => {
        const key = fromLatin1(String.fromCharCode(...bytes))
        assert.deepEqual(readKeyCursor(writeKeyCursor({ shard, after: key })), { shard, after: key })
        assert.deepEqual(readElementCursor(writeElementCursor(key)), key)
      }),
    ))
})

describe('HSCAN, SSCAN and ZSCAN', () => {
  const add: Record<string, (shard: Shard, name: string) => void> = {
    HSCAN: (shard, name) => void shard.call('HSET', 'k', name, `v${name}`),
    SSCAN: (shard, name) => void shard.call('SADD', 'k', name),
    ZSCAN: (shard, name) => void shard.call('ZADD', 'k', `${name.length}`, name),
  }
  const remove: Record<string, string> = { HSCAN: 'HDEL', SSCAN: 'SREM', ZSCAN: 'ZREM' }

  it('answer fields with values, members, and members with scores', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', 'b', '2', 'a', '1')
    shard.call('SADD', 's', 'b', 'a')
    shard.call('ZADD', 'z', '1', 'b', '2.5', 'a')
    assert.deepEqual(elements(shard, 'HSCAN', 'h', '0'), {
      keys: ['a', 'b'],
      values: ['1', '2'],
      cursor: '0',
    })
    assert.deepEqual(elements(shard, 'HSCAN', 'h', '0', 'novalues').values, [null, null])
    assert.deepEqual(elements(shard, 'SSCAN', 's', '0'), {
      keys: ['a', 'b'],
      values: [null, null],
      cursor: '0',
    })
    assert.deepEqual(elements(shard, 'ZSCAN', 'z', '0'), {
      keys: ['a', 'b'],
      values: ['2.5', '1'],
      cursor: '0',
    })
    assert.deepEqual(elements(shard, 'HSCAN', 'none', '0', 'COUNT', '5').keys, [])
  })

  it('meet whatever is there throughout, once, while elements come, go and change', () => {
    const name = fc.nat(40).map(n => (n === 0 ? '' : `m${n}`))
    const change = fc.record({ name, isRemoval: fc.boolean() })
    fc.assert(
      fc.property(
        fc.constantFrom('HSCAN', 'SSCAN', 'ZSCAN'),
        fc.uniqueArray(name, { minLength: 1, maxLength: 30, size: 'max' }),
        fc.array(fc.array(change, { maxLength: 4 }), { maxLength: 20 }),
        fc.integer({ min: 1, max: 4 }),
        (command, before, changes, count) => {
          const shard = new Shard()
          for (const name of before) add[command]!(shard, name)
          const throughout = new Set(before)
          let turn = 0
          const seen = pages(cursor => {
            const page = elements(shard, command, 'k', cursor, 'COUNT', `${count}`)
            for (const { name, isRemoval } of changes[turn++] ?? []) {
              if (isRemoval) throughout.delete(name)
              if (isRemoval) shard.call(remove[command]!, 'k', name)
              else if (command === 'ZSCAN') shard.call('ZINCRBY', 'k', '-50', name)
              else add[command]!(shard, name)
            }
            return page
          }).flat()
          assert.equal(new Set(seen).size, seen.length)
          for (const name of throughout) assert.ok(seen.includes(name), `${name} was there and did not come`)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('MATCH picks, a page visits so many as COUNT says, and expired fields are left out', () => {
    const shard = new Shard()
    shard.call('HSET', 'h', ...numbers(30).flatMap(n => [`f${n}`, 'v']))
    shard.call('HSET', 'h', 'f0', 'v', '1')
    assert.deepEqual(
      pages(cursor => elements(shard, 'HSCAN', 'h', cursor, 'MATCH', 'f1?', 'COUNT', '7')).flat().length,
      10,
    )
    assert.equal(elements(shard, 'HSCAN', 'h', '0').keys.length, 10)
    shard.nowMs += 1000
    shard.call('SET', 'a', '1')
    assert.ok(
      !pages(cursor => elements(shard, 'HSCAN', 'h', cursor))
        .flat()
        .includes('f0'),
    )
  })

  it('end a page early where values are large', () => {
    const shard = new Shard()
    for (const i of numbers(9)) shard.call('HSET', 'h', i, new Uint8Array(1024 * 1024))
    const { keys, cursor } = elements(shard, 'HSCAN', 'h', '0', 'COUNT', '100')
    assert.deepEqual([keys.length, cursor === '0'], [4, false])
  })

  it('refuse other types, other cursors, other options', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'v')
    for (const name of ['HSCAN', 'SSCAN', 'ZSCAN']) {
      assert.throws(() => elements(shard, name, 's', '0'), refusal('WRONG_TYPE'))
      for (const cursor of ['', '1', '0.', '.!', '.a', 'a.'])
        assert.throws(() => elements(shard, name, 'k', cursor), /ERR invalid cursor/, cursor)
      assert.throws(() => elements(shard, name, 'k', '0', 'TYPE', 'hash'), refusal('SYNTAX'))
      assert.throws(() => elements(shard, name, 'k', '0', 'COUNT', '-1'), refusal('SYNTAX'))
      assert.throws(() => shard.call(name, 'k'), refusal('WRONG_ARITY'))
    }
    assert.throws(() => elements(shard, 'SSCAN', 'k', '0', 'NOVALUES'), refusal('SYNTAX'))
  })
})

describe('RANDOMKEY', () => {
  const draw = (shards: Shards) => {
    const reply = shards.follow('RANDOMKEY')
    return reply.kind === 'value' ? toUtf8(reply.value) : null
  }

  it('answers nothing where there is no key, also when all have expired', () => {
    const shards = new Shards(4)
    assert.equal(draw(shards), null)
    shards.of('a').call('SET', 'a', 'v', 'PX', '1')
    for (const shard of shards.all) shard.nowMs += 1
    shards.of('a').call('DEL', 'none')
    assert.equal(draw(shards), null)
  })

  it('finds the only key, in whichever shard it is', () => {
    for (const key of numbers(30)) {
      const shards = new Shards(16)
      shards.of(key).call('SET', key, 'v')
      assert.equal(draw(shards), key)
    }
  })

  it('draws every key of a small database, and none that expired', () => {
    const shards = new Shards(2)
    for (const key of numbers(20)) shards.of(key).call('SET', key, 'v')
    shards.of('3').call('DEL', '3')
    shards.of('4').call('PEXPIRE', '4', '0')
    const drawn = new Set(Array.from({ length: 1000 }, () => draw(shards)))
    assert.deepEqual(
      [...drawn].sort(),
      numbers(20)
        .filter(key => key !== '3' && key !== '4')
        .sort(),
    )
  })

  it('draws from all over a large one', () => {
    const shard = new Shard()
    for (const prefix of ['a', 'session:long:prefix:', 'z'])
      for (let i = 0; i < 3000; i += 1000)
        shard.call('MSET', ...numbers(1000).flatMap(n => [`${prefix}${i + Number(n)}`, 'v']))
    const shards = new Shards(1)
    shards.all[0] = shard
    const drawn = Array.from({ length: 600 }, () => draw(shards)!)
    assert.ok(new Set(drawn).size > 300, `${new Set(drawn).size} of 9,000 in 600 draws`)
    for (const start of ['a', 's', 'z'])
      assert.ok(drawn.filter(key => key.startsWith(start)).length > 100, `keys that begin with ${start}`)
  })

  it('takes no argument but the seed between nodes', () => {
    assert.throws(() => parseCall('RANDOMKEY', [toBytes('x')]), refusal('SYNTAX'))
    assert.throws(() => parseCall('RANDOMKEY', ['1', '2'].map(toBytes)), refusal('WRONG_ARITY'))
    assert.equal(commands.get('RANDOMKEY')!.access, 'read')
  })
})
