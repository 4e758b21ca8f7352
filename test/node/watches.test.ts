import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Change, ChangeRing } from '../../src/keyspace/changes.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { encodeHeader, prefixes } from '../../src/keyspace/rows.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { parseCursor } from '../../src/lib/watch-cursor.ts'
import type { OpenWatch, WatchWish } from '../../src/node/ports.ts'
import { Watches, watchLimits } from '../../src/node/watches.ts'
import type { Replica } from '../../src/shard/replica.ts'

const settle = () => new Promise<void>(resolve => setImmediate(resolve))
const rows = new MemoryRows()
const shard = 0
const many = 1_000_000

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

  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms
    for (;;) {
      await settle()
      const [next] = [...this.timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)
      if (next === undefined) break
      this.timers.delete(next)
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.run()
    }
    this.nowMs = untilMs
  }
}

interface Copy {
  readonly group: number
  readonly halted: null
  readonly changes: ChangeRing
  revision: number
}

/** Nodes that share one shard: a log that a test writes, replicas that have come as far in it as the test says. */
class Bench {
  readonly clock = new HandClock()
  /** What each entry sets, from index 1 on. */
  readonly log: (readonly string[])[] = []
  readonly copies: (Copy | null)[] = [null, null, null]
  readonly isCut = [false, false, false]
  asked = 0
  readonly nodes: readonly Watches[] = [0, 1, 2].map(
    self =>
      new Watches({
        host: {
          group: () => (this.copies[self] as Replica | null) ?? undefined,
          all: () => this.copies.filter(each => each !== null) as unknown as Iterable<Replica>,
        },
        peers: {
          ask: async (address, method, body) => {
            this.asked++
            const other = Number(address)
            await settle()
            if (this.isCut[other]) throw new Error('cut off')
            const answer = await this.nodes[other]!.answer(method, JSON.parse(body))
            if (this.isCut[other]) throw new Error('cut off')
            return JSON.stringify(answer)
          },
        },
        clock: this.clock,
        router: {
          execute: async () => ({
            reply: { kind: 'count', count: 0 },
            revision: Math.max(...this.copies.map(each => each?.revision ?? 0)),
            lagMs: 0,
          }),
        },
        shardCount: () => 1,
        candidates: () => [0, 1, 2].filter(each => each !== self && this.copies[each] !== null).map(String),
        addressOf: node => node,
        timeoutMsMax: 1_000,
      }),
  )

  /** A replica that begins so far in the log. */
  place(node: number, revision: number): void {
    const changes = new ChangeRing()
    changes.reset(revision)
    this.copies[node] = { group: shard, halted: null, changes, revision }
    this.nodes[node]!.progressed(this.copies[node] as unknown as Replica)
  }

  write(...keys: string[]): number {
    this.log.push(keys)
    return this.log.length
  }

  /** The replica applies what it lacks, or so many entries of it. */
  apply(node: number, count = many): void {
    const copy = this.copies[node]
    if (copy == null) return
    for (; count > 0 && copy.revision < this.log.length; count--) {
      const index = copy.revision + 1
      copy.changes.begin(index, index, false)
      for (const key of this.log[index - 1]!) {
        const header = encodeHeader({
          type: 'string',
          revision: index,
          expiresAtMs: null,
          value: fromUtf8(key),
        })
        copy.changes.note(prefixes.header + key, header, rows)
      }
      copy.revision = index
    }
    this.nodes[node]!.progressed(copy as unknown as Replica)
  }

  open(node: number, wish: Partial<WatchWish> | string, from: WatchWish['from'] = null): Promise<OpenWatch> {
    const target = typeof wish === 'string' ? { prefix: fromUtf8(wish) } : wish
    return this.nodes[node]!.open({ key: null, prefix: null, from, ...target })
  }

  async all(watch: OpenWatch): Promise<string[]> {
    const found: string[] = []
    for (;;) {
      const news = await watch.next(many, 0)
      if (news.kind === 'idle') return found
      found.push(...news.changes.map(text))
    }
  }
}

const text = ({ index, number, key }: Change) => `${index}.${number} ${key}`

describe('watches of a node', () => {
  it('get what fits them, when it is applied', async () => {
    const bench = new Bench()
    bench.place(0, 0)
    bench.write('a')
    bench.apply(0)
    const ofKey = await bench.open(0, { key: fromUtf8('a') })
    const ofPrefix = await bench.open(0, 'a')
    const next = ofPrefix.next(many, many)
    bench.write('b')
    bench.write('ab', 'b')
    bench.apply(0)
    const news = await next
    assert.ok(news.kind === 'changes')
    assert.deepEqual([news.changes.map(text), news.place], [['3.0 ab'], 3])
    bench.write('a', 'ab')
    bench.apply(0)
    assert.deepEqual(await bench.all(ofPrefix), ['4.0 a', '4.1 ab'])
    assert.deepEqual(await bench.all(ofKey), ['4.0 a'])
    bench.write('b')
    bench.apply(0)
    assert.deepEqual([...ofKey.cursor], [[0, 5]])
    assert.equal(bench.asked, 0)
    ofKey.close()
    ofPrefix.close()
    assert.equal(bench.nodes[0]!.size, 0)
  })

  it('begin behind all that was acknowledged, though their replica lags', async () => {
    const bench = new Bench()
    bench.place(0, 0)
    bench.place(1, 0)
    bench.write('old')
    bench.apply(1)
    const watch = await bench.open(0, '')
    bench.write('new')
    bench.apply(0)
    assert.deepEqual(await bench.all(watch), ['2.0 new'])
  })

  it('are idle after as long as was asked for', async () => {
    const bench = new Bench()
    bench.place(0, 0)
    const watch = await bench.open(0, '')
    const next = watch.next(many, 100)
    await bench.clock.pass(100)
    assert.deepEqual(await next, { kind: 'idle' })
  })

  it('ask others for what their own ring does not reach back to, and are COMPACTED when nobody has it', async () => {
    const bench = new Bench()
    bench.place(1, 0)
    bench.write('a')
    bench.write('b')
    bench.apply(1)
    bench.place(0, 2)
    bench.write('c')
    bench.apply(0)
    const watch = await bench.open(0, '', new Map([[0, 0]]))
    const all = bench.all(watch)
    await bench.clock.pass(10)
    assert.deepEqual(await all, ['1.0 a', '2.0 b', '3.0 c'])
    bench.place(1, 3)
    const late = await bench.open(0, '', new Map([[0, 1]]))
    const error = await late.next(many, 0).catch(error => error)
    assert.equal(error.code, 'COMPACTED')
    assert.deepEqual(error.facts, { shard: 0, after: 1, start: 2, cursor: '0:3' })
    assert.deepEqual([...late.cursor], [[0, 3]])
    assert.deepEqual(parseCursor(error.facts.cursor), { 0: 3 })
  })

  it('do not call lost what only can’t be asked for now', async () => {
    const bench = new Bench()
    bench.place(1, 0)
    bench.write('a')
    bench.apply(1)
    bench.place(0, 1)
    bench.isCut[1] = true
    const watch = await bench.open(0, '', new Map([[0, 0]]))
    const all = bench.all(watch)
    await bench.clock.pass(100)
    bench.isCut[1] = false
    await bench.clock.pass(10_000)
    assert.deepEqual(await all, ['1.0 a'])
  })

  it('follow another node’s replica where they have none, with one question for all', async () => {
    const bench = new Bench()
    bench.place(1, 0)
    const watches = await Promise.all([bench.open(0, 'a'), bench.open(0, 'a'), bench.open(0, 'b')])
    const next = watches.map(each => each.next(many, many))
    await bench.clock.pass(100)
    const before = bench.asked
    assert.ok(before <= 3, `${before} questions`)
    bench.write('a', 'b')
    bench.apply(1)
    for (const each of await Promise.all(next)) assert.equal(each.kind, 'changes')
    await bench.clock.pass(60_000)
    assert.ok(bench.asked - before <= 5, `${bench.asked - before} questions in a minute`)
    // It comes here itself.
    bench.place(0, 1)
    await bench.clock.pass(60_000)
    const asked = bench.asked
    bench.write('a')
    bench.apply(0)
    assert.deepEqual(await bench.all(watches[0]!), ['2.0 a'])
    assert.equal(bench.asked, asked)
  })

  it('end when the node stops, and are bounded', async () => {
    const bench = new Bench()
    bench.place(0, 0)
    const watch = await bench.open(0, '')
    const next = watch.next(many, many)
    await assert.rejects(bench.open(0, '', new Map([[0, 9]])), /of another cluster/)
    await assert.rejects(bench.open(0, { key: new Uint8Array(2_000) }), { code: 'TOO_LARGE' })
    const open: OpenWatch[] = []
    while (bench.nodes[0]!.size < watchLimits.watchesMax) open.push(await bench.open(0, 'x'))
    await assert.rejects(bench.open(0, ''), { code: 'OVERLOADED' })
    open.pop()!.close()
    open.push(await bench.open(0, ''))
    bench.nodes[0]!.stop()
    await assert.rejects(next, { code: 'SHUTTING_DOWN' })
    await assert.rejects(bench.open(0, ''), { code: 'SHUTTING_DOWN' })
  })

  it('show each entry once and in order, whatever happens to replicas, but for what they say is COMPACTED', async () => {
    const node = fc.integer({ min: 0, max: 2 })
    const event = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({ write: fc.array(fc.constantFrom('a', 'b', 'ab'), { maxLength: 2 }) }),
      },
      { weight: 6, arbitrary: fc.record({ apply: node, count: fc.integer({ min: 1, max: 5 }) }) },
      { weight: 2, arbitrary: fc.record({ read: fc.constantFrom(1, 200, many) }) },
      { weight: 2, arbitrary: fc.record({ pass: fc.constantFrom(1, 100, 5_000, 30_000) }) },
      { weight: 2, arbitrary: fc.record({ restart: fc.uniqueArray(node), back: fc.nat(4) }) },
      { weight: 2, arbitrary: fc.record({ leave: node }) },
      { weight: 1, arbitrary: fc.record({ join: node, lag: fc.nat(4) }) },
      { weight: 1, arbitrary: fc.record({ cut: node, isCut: fc.boolean() }) },
      { weight: 1, arbitrary: fc.record({ reopen: node }) },
    )
    let compactions = 0
    const property = fc.asyncProperty(
      fc.constantFrom('', 'a', 'ab'),
      fc.array(event, { maxLength: 120, size: 'max' }),
      async (prefix, events) => {
        const bench = new Bench()
        for (const each of [0, 1, 2]) bench.place(each, 0)
        let at = 0
        let furthest = 0
        let watch = await bench.open(at, prefix)
        const seen: string[] = []
        const gaps: { readonly after: number; readonly to: number }[] = []
        let reading: Promise<void> | null = null
        const placeOf = () => watch.cursor.get(shard)!
        const read = (bytesMax: number) => {
          if (reading !== null) return
          const own = watch
          const before = placeOf()
          reading = own
            .next(bytesMax, 0)
            .then(
              news => {
                if (news.kind === 'changes') seen.push(...news.changes.map(text))
              },
              async (error: { code: string; facts: { after: number } }) => {
                assert.equal(error.code, 'COMPACTED')
                compactions++
                assert.ok(error.facts.after >= before)
                gaps.push({ after: error.facts.after, to: placeOf() })
                own.close()
                watch = await bench.open(at, prefix, own.cursor)
              },
            )
            .finally(() => {
              reading = null
            })
        }
        const reopen = async (node: number) => {
          at = node
          while (reading !== null) {
            await bench.clock.pass(1_000)
          }
          const { cursor } = watch
          watch.close()
          watch = await bench.open(at, prefix, cursor)
        }
        for (const event of events) {
          if ('write' in event) bench.write(...new Set(event.write))
          else if ('apply' in event) bench.apply(event.apply, event.count)
          else if ('read' in event) read(event.read)
          else if ('pass' in event) await bench.clock.pass(event.pass)
          else if ('restart' in event) {
            // From a checkpoint, and what the journal has comes again.
            for (const each of event.restart) {
              const copy = bench.copies[each]
              if (copy == null) continue
              bench.place(each, Math.max(0, copy.revision - event.back))
              bench.apply(each, event.back)
            }
          } else if ('leave' in event) {
            // What was applied is never lost: others have it before one that had it goes.
            const others = bench.copies.filter((copy, each) => copy !== null && each !== event.leave)
            if (others.some(copy => copy!.revision >= (bench.copies[event.leave]?.revision ?? 0)))
              bench.copies[event.leave] = null
          } else if ('join' in event) {
            const newest = Math.max(...bench.copies.map(each => each?.revision ?? 0))
            if (bench.copies[event.join] === null) bench.place(event.join, Math.max(0, newest - event.lag))
          } else if ('cut' in event) bench.isCut[event.cut] = event.isCut
          else await reopen(event.reopen)
          await settle()
          assert.ok(placeOf() >= furthest, 'a cursor went back')
          furthest = placeOf()
        }
        bench.isCut.fill(false)
        for (let i = 0; i < 40 && (placeOf() < bench.log.length || i < 3); i++) {
          for (const each of [0, 1, 2]) bench.apply(each)
          read(many)
          await bench.clock.pass(10_000)
        }
        assert.equal(placeOf(), bench.log.length)
        const wanted = bench.log.flatMap((keys, i) =>
          keys.flatMap((key, number) =>
            key.startsWith(prefix) && !gaps.some(gap => i + 1 > gap.after && i + 1 <= gap.to)
              ? [`${i + 1}.${number} ${key}`]
              : [],
          ),
        )
        // Within a gap part may have been shown before the watch found out.
        assert.deepEqual(seen, wanted)
      },
    )
    await fc.assert(property, { numRuns: 150 })
    assert.ok(compactions > 0)
  })
})
