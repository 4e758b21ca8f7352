import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isError, RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { pack, unpack } from '../../src/lib/packed.ts'
import { AppendQueue, appendLimits } from '../../src/node/append-queue.ts'
import type { PartitionPlace } from '../../src/node/ports.ts'

const placeOf = (partition: number): PartitionPlace => ({
  stream: 's',
  id: 1,
  partition,
  shard: 0,
  key: fromUtf8(`s/${partition}`),
})
const one = (...texts: string[]) => pack(texts.map(fromUtf8))

/** Logs of partitions that answer when they are told to. */
class Bench {
  nowMs = 0
  private readonly later: (() => void)[] = []
  /** What was sent, entry by entry, as `partition: records`. */
  readonly sent: string[] = []
  readonly timeouts: number[] = []
  private readonly ends = new Map<number, number>()
  private readonly underWay: { end(error: Error | null): void }[] = []
  readonly queue: AppendQueue

  constructor() {
    const clock = {
      now: () => this.nowMs,
      wall: () => this.nowMs,
      after: (_: number, run: () => void) => {
        this.later.push(run)
        return () => {}
      },
    } satisfies Clock
    this.queue = new AppendQueue({
      clock,
      append: (place, batches, timeoutMs) => {
        const records = batches.flatMap(({ bytes }) => unpack(bytes))
        this.sent.push(`${place.partition}: ${records.map(toUtf8).join(' ')}`)
        this.timeouts.push(timeoutMs)
        return new Promise((resolve, reject) => {
          const end = (error: Error | null) => {
            if (error !== null) return reject(error)
            const first = this.ends.get(place.partition) ?? 0
            this.ends.set(place.partition, first + records.length)
            resolve(first)
          }
          this.underWay.push({ end })
        })
      },
    })
  }

  /** The oldest entry is through, or fails; everybody hears of it, then time passes. */
  async answer(error: Error | null = null): Promise<void> {
    this.underWay.shift()!.end(error)
    await new Promise(resolve => setImmediate(resolve))
    for (const run of this.later.splice(0)) run()
    await new Promise(resolve => setImmediate(resolve))
  }
}

describe('appends to a partition', () => {
  it('leave at once when none is under way, else together, and each gets its own offset', async () => {
    const { queue, sent, ...bench } = withBench()
    const first = queue.append(placeOf(0), one('a'), 1_000)
    const others = ['b', 'c'].map(text => queue.append(placeOf(0), one(text), 1_000))
    const pair = queue.append(placeOf(0), one('d', 'e'), 1_000)
    const last = queue.append(placeOf(0), one('f'), 1_000)
    assert.deepEqual(sent, ['0: a'])
    assert.equal(queue.size, 4)
    await bench.answer()
    assert.equal(await first, 0)
    assert.deepEqual(sent, ['0: a', '0: b c d e f'])
    assert.equal(queue.size, 0)
    await bench.answer()
    assert.deepEqual(await Promise.all([...others, pair, last]), [1, 2, 3, 5])
    void queue.append(placeOf(0), one('g'), 1_000)
    assert.deepEqual(sent.slice(2), ['0: g'])
  })

  it('do not wait for those to another partition', () => {
    const { queue, sent } = withBench()
    for (const partition of [0, 1, 2]) void queue.append(placeOf(partition), one('x'), 1_000)
    assert.deepEqual(sent, ['0: x', '1: x', '2: x'])
  })

  it('share what their entry is refused with; those behind it go on, but for those that are called off by then', async () => {
    const { queue, sent, ...bench } = withBench()
    const refusal = new RoundhouseError('NO_SUCH_STREAM', { stream: 's' })
    let isOver = false
    const heard: unknown[] = []
    const first = queue.append(placeOf(0), one('a'), 1_000).catch(error => {
      isOver = true
      heard.push(error)
    })
    const behind = queue.append(placeOf(0), one('b'), 1_000, () => isOver).catch(error => heard.push(error))
    const other = queue.append(placeOf(0), one('c'), 1_000)
    await bench.answer(refusal)
    await Promise.all([first, behind])
    assert.equal(heard[0], refusal)
    assert.ok(isError(heard[1], 'NOT_READY'))
    assert.deepEqual(sent, ['0: a', '0: c'])
    await bench.answer()
    assert.equal(await other, 0)
  })

  it('whose time is up while they wait are not made; an entry has the time of the one that has most', async () => {
    const bench = new Bench()
    const { queue, sent } = bench
    void queue.append(placeOf(0), one('a'), 1_000)
    const late = queue.append(placeOf(0), one('b'), 100)
    const waiting = [500, 900].map(timeoutMs => queue.append(placeOf(0), one('c'), timeoutMs))
    bench.nowMs = 400
    const told = assert.rejects(late, (error: Error) => isError(error, 'NOT_READY'))
    await bench.answer()
    await told
    assert.deepEqual(sent, ['0: a', '0: c c'])
    assert.deepEqual(bench.timeouts, [1_000, 500])
    await bench.answer()
    assert.deepEqual(await Promise.all(waiting), [1, 2])
  })

  it('are put together up to a limit of records and of bytes; what is larger goes by itself', async () => {
    const { queue, sent, ...bench } = withBench()
    const { recordsMax, bytesMax } = appendLimits
    const many = one(...Array.from({ length: recordsMax - 1 }, () => 'r'))
    const large = one('x'.repeat(bytesMax))
    const appends = [one('a'), many, one('b'), one('c'), large, one('d')]
    const all = appends.map(records => queue.append(placeOf(0), records, 1_000))
    for (let i = 0; i < 5; i++) await bench.answer()
    const counts = sent.map(line => line.split(' ').length - 1)
    assert.deepEqual(counts, [1, recordsMax, 1, 1, 1])
    assert.deepEqual(await Promise.all(all), [
      0,
      1,
      recordsMax,
      recordsMax + 1,
      recordsMax + 2,
      recordsMax + 3,
    ])
  })

  it('are bounded, all that wait together', async () => {
    const { queue } = withBench()
    void queue.append(placeOf(0), one('a'), 1_000)
    for (let i = 0; i < appendLimits.waitingMax; i++) void queue.append(placeOf(0), one('b'), 1_000)
    const refused = queue.append(placeOf(1), one('c'), 1_000)
    await assert.rejects(refused, (error: Error) => isError(error, 'OVERLOADED'))
  })
})

function withBench() {
  const bench = new Bench()
  return { queue: bench.queue, sent: bench.sent, answer: (error?: Error) => bench.answer(error ?? null) }
}
