import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Begin, type Driven, type DriveOptions, drive } from '../../src/bench/drive.ts'
import { Latencies } from '../../src/bench/latencies.ts'

function run(begin: Begin, more: Partial<DriveOptions> = {}): Promise<Driven> {
  return drive({
    inFlight: 4,
    rate: null,
    warmUpMs: 20,
    durationMs: 300,
    signal: new AbortController().signal,
    begin,
    onOpen: () => {},
    onClose: () => {},
    onTick: () => {},
    ...more,
  })
}

/** A cluster of one that answers after `ms`, but nothing between `from` and `to` of its life. */
function server(ms: number, from = 0, to = 0): Begin {
  const born = performance.now()
  return (_slot, done) => {
    const now = performance.now() - born
    const stall = now >= from && now < to ? to - now : 0
    setTimeout(() => done(null, 10), ms + stall)
  }
}

describe('a closed loop', () => {
  it('keeps as many operations under way as asked, never more', async () => {
    let underWay = 0
    let most = 0
    const { operations, bytes, durationMs } = await run((slot, done) => {
      assert.ok(slot >= 0 && slot < 4)
      underWay += 1
      most = Math.max(most, underWay)
      setTimeout(() => {
        underWay -= 1
        done(null, 10)
      }, 2)
    })
    assert.deepEqual([most, underWay], [4, 0])
    assert.ok(operations > 4)
    assert.equal(bytes, operations * 10)
    assert.ok(durationMs >= 295)
  })

  it('measures what was begun in the window, and waits for its last answers', async () => {
    const { operations, latency } = await run(server(200), { warmUpMs: 0, durationMs: 100 })
    assert.equal(operations, 0)
    assert.ok(latency.p50 >= 190, `${latency.p50}`)
  })

  it('hides a stall from its percentiles', async () => {
    const { latency } = await run(server(2, 100, 300), { inFlight: 1, warmUpMs: 0, durationMs: 400 })
    assert.ok(latency.max >= 150, `max ${latency.max}`)
    assert.ok(latency.p50 < 100, `p50 ${latency.p50}`)
  })

  it('counts failures by what they were, apart from operations, and rests after them', async () => {
    let asked = 0
    const driven = await run(
      (_slot, done) => {
        asked += 1
        setImmediate(done, asked % 2 === 0 ? 'OVERLOADED' : 'NO_LEADER', 0)
      },
      { warmUpMs: 0, durationMs: 200 },
    )
    assert.equal(driven.operations, 0)
    assert.deepEqual(driven.failures.map(({ what }) => what).toSorted(), ['NO_LEADER', 'OVERLOADED'])
    assert.ok(asked <= 4 * 21, `${asked} in 200 ms`)
  })

  it('ends early when it is told to, with what it has', async () => {
    const controller = new AbortController()
    let answered = 0
    const driven = await run(
      (_slot, done) => {
        answered += 1
        if (answered === 20) controller.abort()
        setTimeout(done, 1, null, 10)
      },
      { durationMs: 60_000, warmUpMs: 0, signal: controller.signal },
    )
    assert.ok(driven.operations > 0 && driven.durationMs < 30_000)
  })
})

describe('a fixed rate', () => {
  it('begins so many a second', async () => {
    let begun = 0
    const answer = server(1)
    const begin: Begin = (slot, done) => {
      begun += 1
      answer(slot, done)
    }
    const { durationMs } = await run(begin, { rate: 200, warmUpMs: 0, durationMs: 500, inFlight: 32 })
    assert.ok(begun >= 50 && begun <= durationMs / 5 + 1, `${begun} in ${durationMs} ms`)
  })

  it('lets everybody who would have asked during a stall wait', async () => {
    const stalled = { rate: 200, inFlight: 1, warmUpMs: 0, durationMs: 400 }
    const { latency } = await run(server(1, 100, 300), stalled)
    // Half of the time nothing was answered: a quarter of those that were due waited for more than 100 ms.
    assert.ok(latency.p90 >= 100, `p90 ${latency.p90}`)
  })

  it('counts those that never got their turn with what they had waited', async () => {
    const { operations, latency } = await run(server(300), {
      rate: 100,
      inFlight: 1,
      warmUpMs: 0,
      durationMs: 400,
    })
    assert.ok(operations <= 1)
    assert.ok(latency.p50 > 100 && latency.max >= 295, JSON.stringify(latency))
  })
})

describe('latencies', () => {
  it('are exact to three digits', () => {
    const latencies = new Latencies()
    for (let ms = 1; ms <= 1_000; ms++) latencies.add(ms)
    const { mean, p50, p99, p999, max } = latencies.summary()
    const near = (value: number, wanted: number) =>
      assert.ok(Math.abs(value - wanted) <= wanted / 1_000 + 0.001, `${value}`)
    near(mean, 500.5)
    near(p50, 500)
    near(p99, 990)
    near(p999, 999)
    near(max, 1_000)
  })

  it('are zeros where there are none, and have a floor and a ceiling', () => {
    assert.equal(new Latencies().summary().max, 0)
    const latencies = new Latencies()
    latencies.add(0)
    latencies.add(1e9)
    assert.ok(latencies.summary().p50 > 0)
    assert.ok(Math.abs(latencies.summary().max - 120_000) < 120)
  })
})
