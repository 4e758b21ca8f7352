import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Command } from '../../src/commands/command.ts'
import { encodeEnvelope } from '../../src/commands/envelope.ts'
import { clockEnvelope, StateMachine } from '../../src/commands/machine.ts'
import { commands } from '../../src/commands/table.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { emptyBytes } from '../../src/lib/bytes.ts'
import { plain, refusal, Shard, sessionId, toBytes } from './shard.ts'

describe('the state machine', () => {
  it('answers each operation of an entry and its revision', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1')
    const applied = shard.applyOperations([shard.operation('INCR', 'a'), shard.operation('SET', 'b', 'x')])
    assert.ok(applied.kind === 'replies')
    assert.deepEqual(
      [applied.replies.map(plain), applied.revision, applied.isDuplicate],
      [[2, true], 2, false],
    )
  })

  it('lets the operations of an entry see each other’s writes, reads too', () => {
    const shard = new Shard()
    const applied = shard.applyOperations([
      shard.operation('HSET', 'h', 'a', '1', 'b', '2'),
      shard.operation('HDEL', 'h', 'a'),
      { command: 'HGETALL', args: [toBytes('h')] },
    ])
    assert.deepEqual(applied.kind === 'replies' && plain(applied.replies[2]!), [['b', '2']])
  })

  it('applies all operations of an entry or none', () => {
    const shard = new Shard()
    shard.call('SET', 's', 'text')
    const before = shard.dump()
    const applied = shard.applyOperations([
      shard.operation('SET', 'a', '1'),
      shard.operation('HSET', 'h', 'f', 'v'),
      shard.operation('DEL', 's'),
      shard.operation('INCR', 'h'),
      shard.operation('SET', 'b', '1'),
    ])
    assert.ok(applied.kind === 'refused')
    assert.deepEqual([applied.error.code, applied.operation], ['WRONG_TYPE', 3])
    assert.deepEqual({ ...shard.dump(), cclock: '' }, { ...before, cclock: '' })
    assert.equal(shard.machine.revision, 2)
  })

  it('applies Raft’s empty entry as one that changes nothing but the revision', () => {
    const shard = new Shard()
    const applied = shard.apply(emptyBytes)
    assert.deepEqual(applied, { kind: 'replies', replies: [], revision: 1, isDuplicate: false })
    assert.equal(shard.machine.revision, 1)
  })

  it('throws at an entry it does not understand, and has changed nothing', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1')
    const before = shard.dump()
    const unknown = encodeEnvelope({
      timestampMs: shard.nowMs + 5,
      session: null,
      operations: [shard.operation('SET', 'a', '2'), { command: 'NOPE', args: [] }],
    })
    assert.throws(() => shard.machine.apply(2, unknown), refusal('UNSUPPORTED_ENTRY'))
    assert.throws(() => shard.machine.apply(2, Uint8Array.of(9)), refusal('UNSUPPORTED_ENTRY'))
    assert.throws(() => shard.machine.apply(2, Uint8Array.of(1, 0)), refusal('CORRUPT'))
    assert.deepEqual(shard.dump(), before)
    assert.deepEqual([shard.machine.revision, shard.machine.logClockMs], [1, shard.nowMs])
  })

  it('has changed nothing when a command breaks an invariant', () => {
    const breaks: Command = {
      ...commands.get('SET')!,
      run(keyspace, [key, value]) {
        keyspace.putString(key!, value!, null)
        throw new TypeError('a fault')
      },
    }
    const shard = new Shard(new Map([['SET', breaks]]))
    const operations = [{ command: 'SET', args: [toBytes('a'), toBytes('1')] }]
    assert.throws(() => shard.applyOperations(operations), TypeError)
    assert.deepEqual(shard.dump(), {})
  })

  it('refuses an entry at or below the last one', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1')
    assert.throws(() => shard.machine.apply(1, shard.entries[0]!), { name: 'BrokenInvariant' })
  })

  it('goes on from its rows as if it had never stopped', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'EX', '10')
    const again = new StateMachine(shard.rows, commands)
    assert.deepEqual(
      [again.revision, again.logClockMs, again.nextExpiry()],
      [1, shard.nowMs, shard.nowMs + 10_000],
    )
  })

  it('forgets what it knew when its rows are replaced under it', () => {
    const [from, to] = [new Shard(), new Shard()]
    to.call('SET', 'a', 'old', 'PX', '5')
    to.machine.nextExpiry()
    from.nowMs += 1000
    from.call('SET', 'a', 'new')
    from.call('SET', 'b', '1')
    for (const row of Object.keys(to.dump())) to.rows.delete(row)
    for (const [row, value] of from.rows.range('', '\u00ff')) to.rows.put(row, value)
    to.machine.reload()
    assert.deepEqual(
      [to.machine.revision, to.machine.logClockMs, to.machine.nextExpiry(), to.call('GET', 'a')],
      [2, from.nowMs, null, 'new'],
    )
  })

  it('knows other commands by another table', () => {
    const raw: Command = {
      ...commands.get('ECHO')!,
      name: 'REMEMBER',
      access: 'write',
      run(keyspace, [text]) {
        keyspace.rows.put('mtext', text!)
        return { kind: 'success', success: true }
      },
    }
    const machine = new StateMachine(new MemoryRows(), new Map([[raw.name, raw]]))
    const entry = (command: string) =>
      encodeEnvelope({ timestampMs: 1, session: null, operations: [{ command, args: [toBytes('x')] }] })
    assert.equal(machine.apply(1, entry('REMEMBER')).kind, 'replies')
    assert.throws(() => machine.apply(2, entry('ECHO')), refusal('UNSUPPORTED_ENTRY'))
    assert.equal(machine.apply(2, encodeEnvelope(clockEnvelope(7))).kind, 'replies')
    assert.equal(machine.logClockMs, 7)
  })
})

describe('the log clock', () => {
  it('is the highest stamp applied and never goes back', () => {
    const shard = new Shard()
    const start = shard.nowMs
    shard.call('SET', 'a', '1', 'PX', '10')
    shard.nowMs = start + 10
    shard.call('SET', 'b', '1')
    shard.nowMs = start
    shard.call('SET', 'c', '1')
    assert.equal(shard.machine.logClockMs, start + 10)
    assert.equal(shard.call('GET', 'a'), null)
  })

  it('alone judges a stale read', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    shard.nowMs += 60_000
    const result = shard.read('GET', ['a'], null)
    assert.equal(result.kind === 'reply' && plain(result.reply), '1')
  })

  it('is wanted by a linearizable read whose answer hangs on an expiry between it and the wall clock', () => {
    const shard = new Shard()
    shard.call('MSET', 'a', '1', 'b', '1')
    shard.call('PEXPIRE', 'a', '10')
    shard.call('HSET', 'h', 'f', '1', '1')
    shard.call('HSET', 'i', 'f', '1', '1')
    shard.call('HSET', 'i', 'g', '1')
    const at = (ms: number, name: string, ...args: string[]) => shard.read(name, args, shard.nowMs + ms).kind
    assert.deepEqual(
      [at(9, 'GET', 'a'), at(10, 'GET', 'a'), at(10, 'GET', 'b')],
      ['reply', 'clock-wanted', 'reply'],
    )
    assert.deepEqual([at(10, 'HGET', 'a', 'f'), at(9, 'HGET', 'a', 'f')], ['clock-wanted', 'refused'])
    for (const command of ['EXISTS', 'TYPE', 'HLEN', 'HGETALL', 'TTL'])
      assert.deepEqual([at(999, command, 'h'), at(1000, command, 'h')], ['reply', 'clock-wanted'], command)
    assert.deepEqual([at(1000, 'HLEN', 'i'), at(1000, 'EXISTS', 'i')], ['clock-wanted', 'reply'])
    assert.deepEqual([at(1000, 'HGET', 'i', 'f'), at(1000, 'HGET', 'i', 'g')], ['clock-wanted', 'reply'])
  })

  it('satisfies such a read once a clock entry was applied', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    shard.nowMs += 10
    assert.equal(shard.call('GET', 'a'), null)
    assert.equal(shard.entries.length, 2)
    assert.equal(shard.call('GET', 'a'), null)
    assert.equal(shard.entries.length, 2)
  })

  it('is no business of a read that waited for a slower wall clock', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    const result = shard.read('PTTL', ['a'], shard.nowMs - 5000)
    assert.equal(result.kind === 'reply' && plain(result.reply), 10)
  })
})

describe('a session’s write', () => {
  const write = (shard: Shard, sequence: number, ...call: [string, ...string[]]) =>
    shard.applyOperations([shard.operation(...call)], {
      id: sessionId(shard.nowMs - 1000),
      sequence,
      ackedBelow: 1,
    })

  it('is applied once: its copies get the first reply and revision and change nothing', () => {
    const shard = new Shard()
    const first = write(shard, 1, 'INCR', 'a')
    const rows = { ...shard.dump(), cclock: '' }
    const second = write(shard, 1, 'INCR', 'a')
    assert.deepEqual(second, { ...first, isDuplicate: true })
    assert.deepEqual({ ...shard.dump(), cclock: '' }, rows)
    assert.equal(shard.call('GET', 'a'), '1')
  })

  it('that was refused stays refused, even where it would succeed now', () => {
    const shard = new Shard()
    shard.call('HSET', 'k', 'f', 'v')
    const first = write(shard, 1, 'INCR', 'k')
    shard.call('DEL', 'k')
    const second = write(shard, 1, 'INCR', 'k')
    assert.ok(first.kind === 'refused' && second.kind === 'refused')
    assert.deepEqual(
      [second.error.message, second.revision, second.isDuplicate],
      [first.error.message, first.revision, true],
    )
    assert.equal(shard.call('EXISTS', 'k'), 0)
  })

  it('is refused for its session alone when that is stale, unknown or full', () => {
    const shard = new Shard()
    const stale = shard.applyOperations([shard.operation('INCR', 'a')], {
      id: sessionId(shard.nowMs),
      sequence: 1,
      ackedBelow: 2,
    })
    assert.ok(stale.kind === 'refused' && stale.error.code === 'SESSION_STALE')
    const old = shard.applyOperations([shard.operation('INCR', 'a')], {
      id: sessionId(shard.nowMs - limits.sessionIdleMs),
      sequence: 1,
      ackedBelow: 1,
    })
    assert.ok(old.kind === 'refused' && old.error.code === 'OUTCOME_UNKNOWN')
    assert.equal(shard.call('GET', 'a'), null)
  })

  it('without a session is applied as often as it comes', () => {
    const shard = new Shard()
    shard.call('INCR', 'a')
    assert.equal(shard.apply(shard.entries[0]!).isDuplicate, false)
    assert.equal(shard.call('GET', 'a'), '2')
  })
})

describe('the sweep', () => {
  it('is due at the earliest expiry of a key, field or session, and at once for garbage', () => {
    const shard = new Shard()
    const due = () => {
      const ms = shard.machine.nextExpiry()
      return ms === null ? null : ms - shard.nowMs
    }
    assert.equal(due(), null)
    shard.applyOperations([shard.operation('SET', 'x', '1')], {
      id: sessionId(shard.nowMs),
      sequence: 1,
      ackedBelow: 1,
    })
    assert.equal(due(), limits.sessionIdleMs)
    shard.call('SET', 'a', '1', 'PX', '900000')
    assert.equal(due(), 900_000)
    shard.call('HSET', 'h', 'f', '1', '60')
    assert.equal(due(), 60_000)
    shard.call('HSET', 'h', 'g', '1', '30')
    assert.equal(due(), 30_000)
    shard.call('DEL', 'a')
    assert.equal(due(), 30_000)
    shard.call('HDEL', 'h')
    assert.equal(shard.machine.nextExpiry(), 0)
    shard.sweep()
    assert.equal(due(), limits.sessionIdleMs)
  })

  it('takes about 1,000 rows at a time, in the order of expiry, and leaves no row behind', () => {
    const shard = new Shard()
    for (let i = 0; i < 1500; i++) shard.call('SET', `k${i}`, 'v', 'PX', `${1 + i}`)
    const fields = Array.from({ length: 3000 }, (_, i) => [`f${i}`, 'v']).flat()
    shard.call('HSET', 'gone', ...fields)
    shard.call('DEL', 'gone')
    for (let i = 0; i < 1200; i++) shard.call('HSET', 'h', `f${i}`, 'v', '3')
    shard.nowMs += 3000
    assert.equal(shard.sweep(), 1000)
    assert.equal(shard.call('DBSIZE'), 501)
    assert.deepEqual([shard.rows.get('kk999'), shard.rows.get('kk1000') !== undefined], [undefined, true])
    const counts: number[] = []
    while ((shard.machine.nextExpiry() ?? Number.POSITIVE_INFINITY) <= shard.nowMs) counts.push(shard.sweep())
    assert.ok(
      counts.every(count => count > 0 && count <= 1001),
      `${counts}`,
    )
    assert.deepEqual(shard.dump(), { cclock: shard.dump().cclock, ckeys: '0000000000000000' })
  })

  it('leaves what is not due', () => {
    const shard = new Shard()
    shard.call('SET', 'a', '1', 'PX', '10')
    shard.call('HSET', 'h', 'f', '1', '1')
    const before = { ...shard.dump(), cclock: '' }
    shard.nowMs += 9
    assert.equal(shard.sweep(), 0)
    assert.deepEqual({ ...shard.dump(), cclock: '' }, before)
  })
})
