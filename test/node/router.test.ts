import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { commands } from '../../src/commands/table.ts'
import { type ErrorCode, type FactsOf, RoundhouseError } from '../../src/errors.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { deferred } from '../../src/lib/deferred.ts'
import { Prng } from '../../src/lib/prng.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { CallOrder } from '../../src/node/call-order.ts'
import type { RegisteredNode } from '../../src/node/meta-register.ts'
import type { Call, CallResult, Peers } from '../../src/node/ports.ts'
import { Router } from '../../src/node/router.ts'
import type { Host } from '../../src/shard/host.ts'
import type { Read, Settled, Write } from '../../src/shard/proposal.ts'
import type { Replica } from '../../src/shard/replica.ts'

const shardCount = 4
const fail = <Code extends ErrorCode>(code: Code, facts: FactsOf<Code>) => new RoundhouseError(code, facts)
const notLeader = () => fail('NOT_LEADER', { shard: 0, leader: null, address: null })
const unknown = () => fail('OUTCOME_UNKNOWN', { why: 'for the test' })
const refused = (error: Error): Settled => ({ ok: false, error, isDefinite: true })
const answered = (text: string, index = 1): Settled => ({
  ok: true,
  replies: [{ kind: 'value', value: fromUtf8(text) }],
  index,
})
const result = (text: string, revision = 1): CallResult => ({
  reply: { kind: 'value', value: fromUtf8(text) },
  revision,
  lagMs: 0,
})

/** A key of that shard, with this letter in it. */
function keyOn(shard: number, letter = 'k'): string {
  for (let i = 0; ; i++) {
    const key = `${letter}${i}`
    if (shardOfSlot(slotOf(fromUtf8(key)), shardCount) === shard) return key
  }
}

const shardOf = (key: string) => shardOfSlot(slotOf(fromUtf8(key)), shardCount)

/** Time that passes when somebody waits for it. */
class LeapingClock implements Clock {
  private nowMs = 0
  now(): number {
    return this.nowMs
  }
  wall(): number {
    return this.nowMs
  }
  after(ms: number, run: () => void): () => void {
    const atMs = this.nowMs + ms
    const timer = setImmediate(() => {
      this.nowMs = Math.max(this.nowMs, atMs)
      run()
    })
    return () => clearImmediate(timer)
  }
}

type Answer = (caller: Write | Read) => Settled | null

/** What a release brings that is newer than the cluster's level. */
const younger = { ...commands.get('SET')!, name: 'SET2', since: 2 }

/** A node with replicas that answer as a test says, and peers that do. */
class Bench {
  readonly clock = new LeapingClock()
  /** What replicas here were asked, and what peers were. */
  readonly here: { readonly shard: number; readonly caller: Write | Read }[] = []
  readonly there: { readonly address: string; readonly call: Call }[] = []
  candidates: string[] = ['node2', 'node3']
  shardCount: number | null = shardCount
  /** What may be written, and who supports more. */
  level = 1
  nodes: RegisteredNode[] = []
  forwarded: (address: string, call: Call) => Promise<CallResult> = async () => result('there')
  readonly router: Router
  private readonly replicas = new Map<number, Replica>()

  constructor() {
    const host = { group: (shard: number) => this.replicas.get(shard), touch: () => {} }
    const peers: Pick<Peers, 'execute'> = {
      execute: (address, call) => {
        this.there.push({ address, call })
        return this.forwarded(address, call)
      },
    }
    this.router = new Router({
      host: host as unknown as Host,
      peers: peers as Peers,
      clock: this.clock,
      random: new Prng(1),
      commands: new Map([...commands, [younger.name, younger]]),
      register: () => ({ level: this.level, nodes: this.nodes }),
      shardCount: () => this.shardCount,
      candidates: () => this.candidates,
      addressOf: node => (node === 'lost' ? null : `${node}:peers`),
      clientAddressOf: node => `${node}:clients`,
      nodeId: 'node1',
      timeoutMsMax: 5_000,
    })
  }

  /** This node leads the shard, and answers so; null leaves the caller waiting. */
  lead(shard: number, answer: Answer): this {
    return this.hold(shard, { isLeader: true }, answer)
  }

  /** This node has a replica of it. */
  hold(shard: number, replica: Partial<Replica>, answer: Answer = () => null): this {
    const enqueue = (caller: Write | Read) => {
      this.here.push({ shard, caller })
      const settled = answer(caller)
      if (settled !== null) caller.settle(settled)
    }
    const made = { halted: null, isLeader: false, enqueueWrite: enqueue, enqueueRead: enqueue, ...replica }
    this.replicas.set(shard, made as unknown as Replica)
    return this
  }

  run(command: string, args: readonly (string | Bytes)[], changed: Partial<Call> = {}): Promise<CallResult> {
    return this.router.execute({
      command,
      args: args.map(arg => (typeof arg === 'string' ? fromUtf8(arg) : arg)),
      session: null,
      read: 'linearizable',
      forward: true,
      hops: 0,
      shard: null,
      timeoutMs: 1_000,
      ...changed,
    })
  }
}

/** Answers one after another; the last one again and again. */
function inTurn<T>(...answers: readonly (() => T)[]): () => T {
  let at = 0
  return () => answers[Math.min(at++, answers.length - 1)]!()
}

const session = { id: new Uint8Array(16), sequence: 1, ackedBelow: 0 }
const text = ({ reply }: CallResult) => (reply.kind === 'value' ? toUtf8(reply.value) : reply.kind)

describe('a command of a newer release', () => {
  const registered = (nodeId: string, level: number, state: RegisteredNode['state'] = 'member') => ({
    ...{ nodeId, level, state, storeId: '', peerAddress: '', clientAddress: '', zone: '', metaReplica: 1 },
  })

  it('is not proposed before the cluster is at its level, and the refusal names who holds it back', async () => {
    const bench = new Bench().lead(shardOf('k'), () => answered('ok'))
    bench.nodes = [
      registered('n1', 2),
      registered('n2', 1),
      registered('n3', 0, 'left'),
      registered('n4', 1, 'joining'),
    ]
    await assert.rejects(bench.run('SET2', ['k', 'v']), {
      code: 'LEVEL_TOO_LOW',
      message: 'ERR SET2 needs feature level 2, this cluster is at 1: upgrade n2 (1), n4 (1)',
    })
    assert.deepEqual(bench.here, [])
  })

  it('is not proposed inside of an atomic entry either', async () => {
    const bench = new Bench().lead(shardOf('k'), () => answered('ok'))
    bench.nodes = [registered('n1', 2)]
    await assert.rejects(bench.run('ATOMIC', ['k', 'SET', '2', 'k', 'v', 'SET2', '2', 'k', 'w']), {
      code: 'LEVEL_TOO_LOW',
      message: /SET2 needs feature level 2, this cluster is at 1: all nodes support it/,
    })
    assert.deepEqual(bench.here, [])
  })

  it('is asked for again where the leader has not heard of the level yet, which the cluster has reached', async () => {
    const bench = new Bench()
    bench.level = 2
    bench.candidates = ['node2']
    let late = 2
    bench.forwarded = async () => {
      if (late-- > 0) throw fail('LEVEL_TOO_LOW', { command: 'SET2', needed: 2, level: 1, behind: '' })
      return result('in the end')
    }
    assert.equal(text(await bench.run('SET2', ['k', 'v'])), 'in the end')
    assert.equal(bench.there.length, 3)
    bench.level = 1
    late = 1
    await assert.rejects(bench.run('SET2', ['k', 'v']), { code: 'LEVEL_TOO_LOW' })
  })

  it('is proposed from the moment on at which the register says so', async () => {
    const bench = new Bench().lead(shardOf('k'), () => answered('ok'))
    bench.level = 2
    assert.equal(text(await bench.run('SET2', ['k', 'v'])), 'ok')
  })
})

describe('a call', () => {
  it('without keys is answered where it comes in, also before there is a cluster', async () => {
    const bench = new Bench()
    bench.shardCount = null
    assert.deepEqual(await bench.run('ECHO', ['hello']), { ...result('hello'), revision: 0 })
    await assert.rejects(bench.run('GET', ['k']), { code: 'NOT_READY' })
  })

  it('goes to the replica here when that leads its shard', async () => {
    const bench = new Bench().lead(2, () => answered('here', 9))
    assert.deepEqual(await bench.run('GET', [keyOn(2)]), result('here', 9))
    assert.deepEqual(bench.there, [])
  })

  it('is forwarded once to the likeliest leader', async () => {
    const bench = new Bench().lead(2, () => answered('here'))
    const key = keyOn(1)
    assert.equal(text(await bench.run('set', [key, 'v'])), 'there')
    assert.deepEqual(
      bench.there.map(({ address, call: { command, args, shard, hops, forward } }) => ({
        address,
        command,
        args: args.map(toUtf8),
        shard,
        hops,
        forward,
      })),
      [{ address: 'node2:peers', command: 'SET', args: [key, 'v'], shard: 1, hops: 1, forward: false }],
    )
  })

  it('that comes from another node runs in the shard that it names', async () => {
    const bench = new Bench().lead(3, () => answered('3'))
    assert.equal(text(await bench.run('DBSIZE', [], { shard: 3, hops: 1, forward: false })), '3')
  })

  it('is refused for a shard that is none, and with a session that is none', async () => {
    const bench = new Bench().lead(0, () => answered('v'))
    await assert.rejects(bench.run('GET', ['k'], { shard: 4 }), { code: 'INVALID_ARGUMENT' })
    const key = keyOn(0)
    for (const broken of [
      { ...session, id: new Uint8Array(15) },
      { ...session, sequence: 0 },
      { ...session, sequence: 1.5 },
      { ...session, ackedBelow: -1 },
    ])
      await assert.rejects(bench.run('SET', [key, 'v'], { session: broken }), { code: 'INVALID_ARGUMENT' })
    assert.deepEqual(bench.here, [])
  })

  it('waits no longer than the node allows, whatever it asks for', async () => {
    const bench = new Bench()
    bench.candidates = []
    const startedMs = bench.clock.now()
    await assert.rejects(bench.run('GET', ['k'], { timeoutMs: 60_000 }), { code: 'NO_LEADER' })
    assert.ok(bench.clock.now() - startedMs <= 5_000)
  })
})

describe('a call for several shards', () => {
  it('answers in the order of its keys', async () => {
    const bench = new Bench()
    for (let shard = 0; shard < shardCount; shard++)
      bench.lead(shard, caller => {
        const keys = 'args' in caller ? caller.args : []
        return {
          ok: true,
          replies: [{ kind: 'list', items: keys.map(key => ({ value: fromUtf8(`of ${toUtf8(key)}`) })) }],
          index: 10 + shard,
        }
      })
    const keys = [keyOn(3), keyOn(0), keyOn(3, 'x'), keyOn(1), keyOn(0)]
    const { reply, revision } = await bench.run('MGET', keys)
    assert.ok(reply.kind === 'list')
    assert.deepEqual(
      reply.items.map(({ value }) => toUtf8(value!)),
      keys.map(key => `of ${key}`),
    )
    assert.equal(revision, 13, 'the highest of its parts')
    assert.equal(bench.here.length, 3, 'one part a shard')
  })

  it('is one part when one hash tag holds its keys together', async () => {
    const bench = new Bench()
    bench.lead(shardOfSlot(slotOf(fromUtf8('{t}')), shardCount), () => answered('OK'))
    assert.equal(text(await bench.run('MSET', ['{t}a', '1', '{t}b', '2'])), 'OK')
    assert.equal(bench.here.length, 1)
  })

  it('asks every shard, here and there, and adds up', async () => {
    const bench = new Bench().lead(0, () => ({
      ok: true,
      replies: [{ kind: 'count', count: 5 }],
      index: 1,
    }))
    bench.forwarded = async (_, { shard }) => ({
      reply: { kind: 'count', count: shard! * 10 },
      revision: 1,
      lagMs: 0,
    })
    const { reply } = await bench.run('DBSIZE', [])
    assert.deepEqual(reply, { kind: 'count', count: 65 })
    assert.deepEqual(
      bench.there.map(({ call }) => call.shard),
      [1, 2, 3],
    )
  })

  it('of which a part fails is refused with what that part was refused with, when it only reads', async () => {
    const bench = new Bench().lead(0, () => answered('v'))
    bench.lead(1, () => refused(fail('OVERLOADED', { what: 'x', max: 1 })))
    await assert.rejects(bench.run('MGET', [keyOn(0), keyOn(1)]), { code: 'OVERLOADED' })
  })

  it('of which a part fails is of unknown outcome when it writes: another part may be done', async () => {
    const bench = new Bench().lead(0, () => answered('OK'))
    bench.lead(1, () => refused(fail('OVERLOADED', { what: 'x', max: 1 })))
    await assert.rejects(bench.run('MSET', [keyOn(0), '1', keyOn(1), '2']), { code: 'OUTCOME_UNKNOWN' })
  })
})

describe('a read from shard to shard', () => {
  const page = (cursor: string, ...keys: string[]): Settled => ({
    ok: true,
    replies: [{ kind: 'list', items: keys.map(key => ({ key: fromUtf8(key) })), cursor: fromUtf8(cursor) }],
    index: 7,
  })
  const cursorOf = ({ reply }: CallResult) => (reply.kind === 'list' ? toUtf8(reply.cursor!) : reply.kind)
  const asked = (bench: Bench) =>
    bench.here.map(({ shard, caller }) => [shard, 'args' in caller && toUtf8(caller.args[0]!)])

  it('goes where its cursor says, here or there', async () => {
    const bench = new Bench().lead(2, () => page('2.YQ', 'a'))
    const full = await bench.run('SCAN', ['2.', 'COUNT', '1'])
    assert.deepEqual([cursorOf(full), full.revision, asked(bench)], ['2.YQ', 7, [[2, '2.']]])
    bench.forwarded = async () => ({
      reply: { kind: 'list', items: [], cursor: fromUtf8('1.Yg') },
      revision: 9,
      lagMs: 0,
    })
    assert.equal(cursorOf(await bench.run('SCAN', ['1.YQ'])), '1.Yg')
    assert.deepEqual(
      bench.there.map(({ call }) => [call.command, call.shard, toUtf8(call.args[0]!)]),
      [['SCAN', 1, '1.YQ']],
    )
  })

  it('goes on to the next shard while a page has room, and ends with the last one', async () => {
    const bench = new Bench()
    for (let shard = 0; shard < shardCount; shard++)
      bench.lead(shard, () => page(`${shard + 1}.`, `${shard}`))
    const { reply } = await bench.run('SCAN', ['0', 'COUNT', '10'])
    assert.ok(reply.kind === 'list')
    assert.deepEqual(
      [reply.items.map(({ key }) => toUtf8(key!)), toUtf8(reply.cursor!)],
      [['0', '1', '2', '3'], '0'],
    )
    assert.deepEqual(asked(bench), [
      [0, '0'],
      [1, '1.'],
      [2, '2.'],
      [3, '3.'],
    ])
    assert.equal(cursorOf(await bench.run('SCAN', ['0', 'COUNT', '2'])), '2.')
  })

  it('is refused for a cursor of another cluster', async () => {
    const bench = new Bench().lead(0, () => page('1.'))
    await assert.rejects(bench.run('SCAN', ['4.']), { code: 'INVALID_ARGUMENT' })
    assert.deepEqual(bench.here, [])
  })

  it('takes no longer than one call may', async () => {
    const bench = new Bench().lead(0, () => page('1.'))
    bench.candidates = []
    const startedMs = bench.clock.now()
    await assert.rejects(bench.run('SCAN', ['0']), { code: 'NO_LEADER' })
    assert.ok(bench.clock.now() - startedMs <= 1_000)
  })

  it('asks one shard for a key by chance, and all others at once where that has none', async () => {
    const bench = new Bench()
    const none: Settled = { ok: true, replies: [{ kind: 'nil' }], index: 1 }
    for (let shard = 0; shard < shardCount; shard++)
      bench.lead(shard, () => (shard === 2 ? answered('k') : none))
    for (let turn = 0; turn < 20; turn++) assert.equal(text(await bench.run('RANDOMKEY', [])), 'k')
    assert.equal(bench.here.filter(({ shard }) => shard === 2).length, 20)
    assert.ok(bench.here.length < 80, 'not all of them each time')
    bench.lead(2, () => none)
    assert.equal((await bench.run('RANDOMKEY', [])).reply.kind, 'nil')
  })
})

describe('a call with two keys of one entry', () => {
  it('goes to the shard of their slot, and nowhere when they have two', async () => {
    const bench = new Bench().lead(shardOfSlot(slotOf(fromUtf8('{t}')), shardCount), () => answered('OK'))
    assert.equal(text(await bench.run('RENAME', ['{t}a', '{t}b'])), 'OK')
    assert.equal(text(await bench.run('COPY', ['{t}a', '{t}b', 'REPLACE'])), 'OK')
    // One shard, two slots: what is refused must not hang on how many shards a cluster has.
    const [a, b] = [keyOn(1), keyOn(1, 'x')]
    await assert.rejects(bench.run('RENAME', [a, b]), { code: 'CROSS_SHARD' })
    assert.deepEqual([bench.here.length, bench.there.length], [2, 0])
  })
})

describe('a refusal', () => {
  it('before anything was appended is tried again', async () => {
    const answer = inTurn(
      () => refused(notLeader()),
      () => refused(fail('SHUTTING_DOWN', {})),
      () => answered('OK'),
    )
    const bench = new Bench().lead(0, answer)
    assert.equal(text(await bench.run('SET', [keyOn(0), 'v'])), 'OK')
    assert.deepEqual([bench.here.length, bench.router.counters.retried], [3, 2])
  })

  it('by a peer sends the call to the next that may lead', async () => {
    const bench = new Bench()
    bench.forwarded = async address => {
      if (address === 'node2:peers') throw fail('HOP_LIMIT', { shard: 0 })
      return result('found')
    }
    assert.equal(text(await bench.run('SET', [keyOn(0), 'v'])), 'found')
    assert.deepEqual(
      bench.there.map(({ address }) => address),
      ['node2:peers', 'node3:peers'],
    )
  })

  it('of the command itself is final', async () => {
    for (const error of [
      fail('WRONG_TYPE', { actual: 'hash', wanted: 'string' }),
      fail('OVERLOADED', { what: 'x', max: 1 }),
      fail('SESSION_STALE', { sequence: 1, ackedBelow: 2 }),
    ]) {
      const bench = new Bench().lead(0, () => refused(error))
      await assert.rejects(bench.run('SET', [keyOn(0), 'v'], { session }), { code: error.code })
      assert.equal(bench.here.length, 1)
    }
  })

  it('that lasts until the time is up says that the shard has no leader', async () => {
    const bench = new Bench().lead(0, () => refused(notLeader()))
    await assert.rejects(bench.run('SET', [keyOn(0), 'v']), {
      code: 'NO_LEADER',
      facts: { shard: 0, waitedMs: 1_000 },
    })
    assert.ok(bench.here.length > 5, 'it was tried again')
    assert.ok(bench.here.length < 50, 'with pauses')
  })

  it('is not tried again for a caller who has gone', async () => {
    const abort = new AbortController()
    const bench = new Bench().lead(0, () => {
      abort.abort()
      return refused(notLeader())
    })
    await assert.rejects(bench.run('SET', [keyOn(0), 'v'], { signal: abort.signal }))
    assert.equal(bench.here.length, 1)
  })

  it('tells who leads, when the call is not to be forwarded', async () => {
    const bench = new Bench()
    await assert.rejects(bench.run('GET', [keyOn(1)], { forward: false }), {
      code: 'NOT_LEADER',
      facts: { shard: 1, leader: 'node2', address: 'node2:clients' },
    })
    bench.candidates = []
    await assert.rejects(bench.run('GET', [keyOn(1)], { forward: false }), {
      code: 'NOT_LEADER',
      facts: { shard: 1, leader: null, address: null },
    })
    assert.deepEqual(bench.there, [])
  })

  it('meets a call that was forwarded to a node that does not lead: it goes no further', async () => {
    const bench = new Bench()
    await assert.rejects(bench.run('GET', [keyOn(1)], { hops: 1, forward: false }), { code: 'HOP_LIMIT' })
    assert.deepEqual(bench.there, [])
  })

  it('of a peer that nobody can reach says that the shard has no leader, when no other one leads', async () => {
    const bench = new Bench()
    bench.candidates = ['lost']
    await assert.rejects(bench.run('GET', [keyOn(1)]), { code: 'NO_LEADER' })
  })
})

describe('an unknown outcome', () => {
  it('of a write without a session is final: a second try might apply it twice', async () => {
    const bench = new Bench().lead(0, () => ({ ok: false, error: unknown(), isDefinite: false }))
    await assert.rejects(bench.run('SET', [keyOn(0), 'v']), { code: 'OUTCOME_UNKNOWN' })
    assert.equal(bench.here.length, 1)
  })

  it('of a write with a session is tried again: the session makes that harmless', async () => {
    const answer = inTurn<Settled>(
      () => ({ ok: false, error: unknown(), isDefinite: false }),
      () => answered('OK'),
    )
    const bench = new Bench().lead(0, answer)
    assert.equal(text(await bench.run('SET', [keyOn(0), 'v'], { session })), 'OK')
    assert.equal(bench.here.length, 2)
  })

  it('of a forwarded read is tried again', async () => {
    const bench = new Bench()
    const answer = inTurn<Promise<CallResult>>(
      () => Promise.reject(fail('DEADLINE', { afterMs: 1, what: 'x' })),
      () => Promise.resolve(result('v')),
    )
    bench.forwarded = answer
    assert.equal(text(await bench.run('GET', [keyOn(0)])), 'v')
  })

  it('of a forwarded write without a session is final', async () => {
    const bench = new Bench()
    bench.forwarded = () => Promise.reject(fail('DEADLINE', { afterMs: 1, what: 'x' }))
    await assert.rejects(bench.run('SET', [keyOn(0), 'v']), { code: 'DEADLINE' })
    assert.equal(bench.there.length, 1)
  })

  it('stays unknown when later tries are refused before they began', async () => {
    for (const later of [notLeader(), fail('OVERLOADED', { what: 'x', max: 1 }), fail('SHUTTING_DOWN', {})]) {
      const answer = inTurn<Settled>(
        () => ({ ok: false, error: unknown(), isDefinite: false }),
        () => refused(later),
      )
      const bench = new Bench().lead(0, answer)
      await assert.rejects(
        bench.run('SET', [keyOn(0), 'v'], { session }),
        { code: 'OUTCOME_UNKNOWN' },
        `${later.code} does not undo it`,
      )
    }
  })

  it('becomes known when a later try meets what the command itself answers', async () => {
    const answer = inTurn<Settled>(
      () => ({ ok: false, error: unknown(), isDefinite: false }),
      () => refused(fail('WRONG_TYPE', { actual: 'hash', wanted: 'string' })),
    )
    const bench = new Bench().lead(0, answer)
    await assert.rejects(bench.run('SET', [keyOn(0), 'v'], { session }), { code: 'WRONG_TYPE' })
  })
})

describe('a stale read', () => {
  const stale = { reply: { kind: 'value', value: fromUtf8('old') }, index: 4, lagMs: 70 } as const

  it('is answered by any replica here', async () => {
    const bench = new Bench().hold(0, { readStale: () => stale })
    assert.deepEqual(await bench.run('GET', [keyOn(0)], { read: 'stale' }), {
      ...result('old', 4),
      lagMs: 70,
    })
    assert.deepEqual([bench.here, bench.there], [[], []])
  })

  it('waits for a replica that has just started', async () => {
    const readStale = inTurn(
      () => {
        throw fail('NOT_READY', { why: 'x' })
      },
      () => stale,
    )
    const bench = new Bench().hold(0, { readStale })
    assert.equal(text(await bench.run('GET', [keyOn(0)], { read: 'stale' })), 'old')
  })

  it('goes elsewhere when there is none here, or one that is quarantined', async () => {
    const bench = new Bench().hold(1, { halted: 'rot', readStale: () => stale })
    assert.equal(text(await bench.run('GET', [keyOn(0)], { read: 'stale' })), 'there')
    assert.equal(text(await bench.run('GET', [keyOn(1)], { read: 'stale' })), 'there')
  })

  it('over several shards is as old as its oldest part', async () => {
    const bench = new Bench()
    const part = (lagMs: number) => () => ({
      reply: { kind: 'count', count: 1 } as const,
      index: 1,
      lagMs,
    })
    for (const [shard, lagMs] of [10, 400, 0, 30].entries()) bench.hold(shard, { readStale: part(lagMs) })
    assert.equal((await bench.run('DBSIZE', [], { read: 'stale' })).lagMs, 400)
  })
})

describe('a node under load', () => {
  it('refuses calls beyond its limit at once, and takes them again when others are answered', async () => {
    const bench = new Bench().lead(0, () => null)
    const key = keyOn(0)
    const waiting = Array.from({ length: 20_000 }, () => bench.run('GET', [key]))
    await assert.rejects(bench.run('GET', [key]), { code: 'OVERLOADED' })
    assert.equal(bench.router.counters.refused, 1)
    for (const { caller } of bench.here) caller.settle(answered('v'))
    await Promise.all(waiting)
    bench.lead(0, () => answered('v'))
    assert.equal(text(await bench.run('GET', [key])), 'v')
  })

  it('refuses bytes beyond its limit', async () => {
    const bench = new Bench().lead(0, () => null)
    const megabyte = new Uint8Array(1024 * 1024)
    const waiting = Array.from({ length: 255 }, () => bench.run('SET', [keyOn(0), megabyte]))
    await assert.rejects(
      Promise.all([bench.run('SET', [keyOn(0), megabyte]), bench.run('SET', [keyOn(0), megabyte])]),
      { code: 'OVERLOADED' },
    )
    for (const { caller } of bench.here) caller.settle(answered('OK'))
    await Promise.all(waiting)
  })

  it('counts a call that failed as answered', async () => {
    const bench = new Bench().lead(0, () => refused(fail('WRONG_TYPE', { actual: 'a', wanted: 'b' })))
    for (let i = 0; i < 20_001; i++)
      await assert.rejects(bench.run('GET', [keyOn(0)]), { code: 'WRONG_TYPE' })
  })
})

describe('the calls of one stream', () => {
  it('follow each other on a shard that is led elsewhere', async () => {
    const bench = new Bench()
    const order = new CallOrder()
    const first = deferred<CallResult>()
    bench.forwarded = inTurn(
      () => first.promise,
      () => Promise.resolve(result('second')),
    )
    const key = keyOn(1)
    const calls = [bench.run('SET', [key, '1'], { order }), bench.run('SET', [key, '2'], { order })]
    await new Promise<void>(resolve => setImmediate(resolve))
    assert.equal(bench.there.length, 1)
    first.resolve(result('first'))
    assert.deepEqual((await Promise.all(calls)).map(text), ['first', 'second'])
  })

  it('are not sent when their caller went, or their time, while they waited for their turn', async () => {
    const bench = new Bench()
    const order = new CallOrder()
    const first = deferred<CallResult>()
    bench.forwarded = () => first.promise
    const abort = new AbortController()
    const key = keyOn(1)
    const calls = [
      bench.run('SET', [key, '1'], { order }),
      bench.run('SET', [key, '2'], { order, signal: abort.signal }),
      bench.run('SET', [key, '3'], { order, timeoutMs: 20 }),
      bench.run('SET', [key, '4'], { order }),
    ]
    abort.abort()
    await new Promise<void>(resolve => void bench.clock.after(30, resolve))
    first.resolve(result('first'))
    const outcomes = await Promise.allSettled(calls)
    assert.deepEqual(
      outcomes.map(each => (each.status === 'fulfilled' ? 'done' : (each.reason as { code: string }).code)),
      ['done', 'NOT_READY', 'NOT_READY', 'done'],
    )
    assert.deepEqual(
      bench.there.map(({ call }) => toUtf8(call.args[1]!)),
      ['1', '4'],
    )
  })

  it('are not sent again when their caller went during the pause', async () => {
    const bench = new Bench()
    const abort = new AbortController()
    bench.forwarded = () => {
      bench.clock.after(1, () => abort.abort())
      return Promise.reject(notLeader())
    }
    await assert.rejects(bench.run('SET', [keyOn(1), 'v'], { signal: abort.signal }))
    assert.equal(bench.there.length, 1)
  })

  it('go at once where this node leads, but a read waits for the writes before it', async () => {
    const bench = new Bench().lead(0, () => null)
    const order = new CallOrder()
    const key = keyOn(0)
    const calls = [
      bench.run('SET', [key, '1'], { order }),
      bench.run('SET', [key, '2'], { order }),
      bench.run('GET', [key], { order }),
    ]
    await new Promise<void>(resolve => setImmediate(resolve))
    assert.equal(bench.here.length, 2)
    for (const { caller } of bench.here) caller.settle(answered('OK'))
    await new Promise<void>(resolve => setImmediate(resolve))
    assert.equal(bench.here.length, 3)
    bench.here[2]!.caller.settle(answered('2'))
    assert.deepEqual((await Promise.all(calls)).map(text), ['OK', 'OK', '2'])
  })

  it('stand behind one that is tried again, in their order', async () => {
    const bench = new Bench()
    const order = new CallOrder()
    const key = keyOn(0)
    const seen: string[] = []
    bench.lead(0, caller => {
      const value = 'operations' in caller ? toUtf8(caller.operations[0]!.args[1]!) : ''
      // What a change of leadership refuses, it refuses from there on: for a while here.
      if (bench.clock.now() < 30) return refused(notLeader())
      seen.push(value)
      return answered(value)
    })
    const calls = ['1', '2', '3', '4'].map(value => bench.run('SET', [key, value], { order }))
    await Promise.all(calls)
    assert.deepEqual(seen, ['1', '2', '3', '4'])
  })
})
