import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Command } from '../../src/commands/command.ts'
import { RoundhouseError } from '../../src/errors.ts'
import type { Keyspace } from '../../src/keyspace/keyspace.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { readWaitRequest, StreamTails, tailLimits, type WaitRequest } from '../../src/node/stream-tails.ts'
import type { Replica } from '../../src/shard/replica.ts'

/** Time that stands until a test moves it. */
class HandClock implements Clock {
  private nowMs = 0
  private readonly timers = new Set<{ readonly atMs: number; readonly run: () => void }>()
  now = () => this.nowMs
  wall = () => this.nowMs
  after(ms: number, run: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, run }
    this.timers.add(timer)
    return () => void this.timers.delete(timer)
  }

  get pending(): number {
    return this.timers.size
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    for (;;) {
      const [next] = [...this.timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)
      if (next === undefined) break
      this.timers.delete(next)
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.run()
      await settle()
    }
    this.nowMs = untilMs
  }
}

const settle = () => new Promise<void>(resolve => setImmediate(resolve))

/** A node whose replicas have ends that a test sets, and peers that answer as it says. */
class Bench {
  readonly clock = new HandClock()
  /** By shard; a shard without an entry has no replica here. */
  readonly ends = new Map<number, number>()
  readonly asked: { readonly address: string; readonly request: WaitRequest }[] = []
  onAsk: (request: WaitRequest) => Promise<{ end: number }> = () => new Promise(() => {})
  candidates: string[] = ['n2', 'n3']
  readonly tails = new StreamTails({
    host: { group: shard => (this.ends.has(shard) ? this.replica(shard) : undefined) },
    peers: {
      ask: async (address, method, body) => {
        assert.equal(method, 'STREAM.WAIT')
        const request = readWaitRequest(JSON.parse(body))
        this.asked.push({ address, request })
        return JSON.stringify(await this.onAsk(request))
      },
    },
    clock: this.clock,
    candidates: () => this.candidates,
    addressOf: node => `${node}:1`,
  })

  replica(shard: number): Replica {
    const partitions = { find: () => ({ end: this.ends.get(shard) }) }
    const peek = (command: Command) => command.run({ partitions } as unknown as Keyspace, [])
    return { group: shard, halted: null, peek } as unknown as Replica
  }

  /** The replica applies something. */
  apply(shard: number, end: number): void {
    this.ends.set(shard, end)
    this.tails.progressed(this.replica(shard))
  }

  wait(
    offset: number,
    timeoutMs = 60_000,
    signal?: AbortSignal,
    shard = 1,
  ): { answer: () => boolean | null } {
    let answer: boolean | null = null
    void this.tails.wait({ shard, id: 7, partition: 0 }, offset, timeoutMs, signal).then(
      isMore => (answer = isMore),
      () => {},
    )
    return { answer: () => answer }
  }
}

describe('waiting at the tail, with a replica here', () => {
  it('does not wait for what is there', async () => {
    const bench = new Bench()
    bench.ends.set(1, 5)
    const wait = bench.wait(4)
    await settle()
    assert.equal(wait.answer(), true)
    assert.deepEqual([bench.tails.size, bench.clock.pending], [0, 0])
  })

  it('is woken by what the replica applies, those that it concerns', async () => {
    const bench = new Bench()
    bench.ends.set(1, 5)
    const [near, far, elsewhere] = [bench.wait(5), bench.wait(6), bench.wait(5, 60_000, undefined, 2)]
    bench.ends.set(2, 5)
    await settle()
    bench.apply(1, 5)
    await settle()
    assert.deepEqual([near.answer(), far.answer()], [null, null])
    bench.apply(1, 6)
    await settle()
    assert.deepEqual([near.answer(), far.answer(), elsewhere.answer()], [true, null, null])
    bench.apply(1, 7)
    await settle()
    assert.equal(far.answer(), true)
  })

  it('ends when the time is up, and when the caller goes', async () => {
    const bench = new Bench()
    bench.ends.set(1, 0)
    const abort = new AbortController()
    const [short, gone] = [bench.wait(0, 500), bench.wait(0, 60_000, abort.signal)]
    await bench.clock.pass(501)
    assert.deepEqual([short.answer(), gone.answer()], [false, null])
    abort.abort()
    await settle()
    assert.deepEqual([gone.answer(), bench.tails.size], [false, 0])
  })

  it('leaves nothing behind', async () => {
    const bench = new Bench()
    bench.ends.set(1, 0)
    const waits = Array.from({ length: 50 }, () => bench.wait(0))
    bench.apply(1, 1)
    await settle()
    assert.ok(waits.every(each => each.answer() === true))
    await bench.clock.pass(tailLimits.lookMs)
    assert.equal(bench.clock.pending, 0)
  })

  it('refuses more than a node can keep', async () => {
    const bench = new Bench()
    bench.ends.set(1, 0)
    for (let i = 0; i < tailLimits.waitersMax; i++) bench.wait(0)
    await assert.rejects(
      bench.tails.wait({ shard: 1, id: 7, partition: 0 }, 0, 1_000),
      (error: RoundhouseError) => error.code === 'OVERLOADED',
    )
    bench.tails.stop()
    assert.equal(bench.tails.size, 0)
  })

  it('is woken when the stream is gone', async () => {
    const bench = new Bench()
    bench.ends.set(1, 0)
    const wait = bench.wait(0)
    bench.tails.dropped(8)
    await settle()
    assert.equal(wait.answer(), null)
    bench.tails.dropped(7)
    await settle()
    assert.equal(wait.answer(), true)
  })

  it('sees by itself that a replica came or went', async () => {
    const bench = new Bench()
    bench.ends.set(1, 3)
    const wait = bench.wait(3)
    await settle()
    bench.ends.delete(1)
    await bench.clock.pass(tailLimits.lookMs)
    assert.deepEqual(
      bench.asked.map(({ address, request }) => [address, request.offset]),
      [['n2:1', 3]],
    )
    bench.ends.set(1, 4)
    await bench.clock.pass(tailLimits.lookMs)
    assert.equal(wait.answer(), true)
  })
})

describe('waiting at the tail, without a replica here', () => {
  it('asks another node once for all who wait, and again while somebody does', async () => {
    const bench = new Bench()
    let answer: (end: { end: number }) => void = () => {}
    bench.onAsk = () => new Promise(resolve => (answer = resolve))
    const waits = [bench.wait(5), bench.wait(5), bench.wait(5)]
    await settle()
    assert.equal(bench.asked.length, 1)
    answer({ end: 5 })
    await settle()
    assert.deepEqual([bench.asked.length, waits[0]!.answer()], [2, null])
    answer({ end: 6 })
    await settle()
    assert.ok(waits.every(each => each.answer() === true))
    assert.deepEqual([bench.asked.length, bench.tails.size], [2, 0])
  })

  it('lets those go on at once who are behind what others have seen', async () => {
    const bench = new Bench()
    const ahead = bench.wait(9)
    const behind = bench.wait(5)
    await settle()
    assert.deepEqual([ahead.answer(), behind.answer()], [null, true])
  })

  it('asks the next node where one does not answer, and does not hurry', async () => {
    const bench = new Bench()
    bench.onAsk = async () => {
      throw new RoundhouseError('UNREACHABLE', { address: 'n2:1', why: 'for the test' })
    }
    const wait = bench.wait(0, 10_000)
    await settle()
    await bench.clock.pass(3_000)
    const addresses = bench.asked.map(each => each.address)
    assert.deepEqual(addresses.slice(0, 3), ['n2:1', 'n3:1', 'n2:1'])
    assert.ok(addresses.length < 12, `${addresses.length} questions in 3 s`)
    bench.onAsk = async () => ({ end: 1 })
    await bench.clock.pass(1_100)
    assert.equal(wait.answer(), true)
  })

  it('answers others as soon as its own replica has more, or says so when their time is up', async () => {
    const bench = new Bench()
    const question = { shard: 1, id: 7, partition: 0, offset: 5, timeoutMs: 400 }
    await assert.rejects(bench.tails.answer(question), (error: RoundhouseError) => error.code === 'NOT_READY')
    bench.ends.set(1, 5)
    const answered = bench.tails.answer(question)
    await settle()
    bench.apply(1, 8)
    assert.deepEqual(await answered, { end: 8 })
    const late = bench.tails.answer({ ...question, offset: 8 })
    await settle()
    await bench.clock.pass(401)
    assert.deepEqual(await late, { end: 8 })
  })

  it('sends all who wait away when its node stops, and takes no more', async () => {
    const bench = new Bench()
    bench.ends.set(1, 5)
    const question = { shard: 1, id: 7, partition: 0, offset: 5, timeoutMs: 400 }
    const waiting = assert.rejects(bench.tails.wait(question, 5, 400), { code: 'SHUTTING_DOWN' })
    bench.tails.stop()
    await waiting
    await assert.rejects(bench.tails.wait(question, 5, 400), { code: 'SHUTTING_DOWN' })
    assert.equal(bench.tails.size, 0)
  })

  it('takes no question that is none', () => {
    for (const wrong of [{}, { shard: 1, id: 7, partition: 0, offset: -1, timeoutMs: 1 }, { shard: '1' }])
      assert.throws(
        () => readWaitRequest(wrong),
        (error: RoundhouseError) => error.code === 'INVALID_ARGUMENT',
      )
  })
})
