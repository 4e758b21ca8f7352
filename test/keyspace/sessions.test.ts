import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { limits } from '../../src/keyspace/limits.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { dueRange, parseDueKey } from '../../src/keyspace/rows.ts'
import { createdAt, SessionTable } from '../../src/keyspace/sessions.ts'
import { fromLatin1, toLatin1 } from '../../src/lib/bytes.ts'
import { sessionId } from '../commands/shard.ts'

const hour = 3_600_000
const minute = 60_000
const start = 1_700_000_000_000

/** A table with a log clock; `use` is a write of the session made at `createdMs`. */
class Fixture {
  readonly rows = new MemoryRows()
  readonly table = new SessionTable(this.rows)
  nowMs = start

  /** What check said; a new sequence is kept with its own number as the answer. */
  use(sequence: number, { ackedBelow = 0, createdMs = start, tail = 1 } = {}): string {
    const write = { id: sessionId(createdMs, tail), sequence, ackedBelow }
    const check = this.table.check(write, this.nowMs)
    if (check.kind === 'refused') return check.error.code
    if (check.kind === 'repeated') return `repeated ${toLatin1(check.answer)}`
    this.table.keep(write, this.nowMs, fromLatin1(`${sequence}`))
    return 'new'
  }

  sweep(rowsMax = 1000): number {
    let swept = 0
    for (const row of [...this.rows.range(...dueRange(this.nowMs))].map(([key]) => key)) {
      const { dueMs, name } = parseDueKey(row)
      if (swept < rowsMax) swept += this.table.sweep(name, dueMs, this.nowMs, rowsMax - swept)
    }
    return swept
  }
}

describe('a session', () => {
  it('begins with the time at which its client made it', () =>
    fc.assert(fc.property(fc.nat(2 ** 48 - 1), ms => assert.equal(createdAt(sessionId(ms)), ms))))

  it('applies a sequence once and repeats its answer', () => {
    const fixture = new Fixture()
    const uses = [1, 3, 1, 2, 3].map(sequence => fixture.use(sequence))
    assert.deepEqual(uses, ['new', 'new', 'repeated 1', 'new', 'repeated 3'])
  })

  it('is told apart from others by all of its bytes', () => {
    const fixture = new Fixture()
    assert.equal(fixture.use(1, { tail: 1 }), 'new')
    assert.equal(fixture.use(1, { tail: 2 }), 'new')
    assert.equal(fixture.table.count, 2)
  })

  it('forgets answers below the mark and calls their sequences stale, seen or not', () => {
    const fixture = new Fixture()
    for (const sequence of [1, 2, 4]) fixture.use(sequence)
    assert.equal(fixture.use(5, { ackedBelow: 4 }), 'new')
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(sequence => fixture.use(sequence)),
      ['SESSION_STALE', 'SESSION_STALE', 'SESSION_STALE', 'repeated 4', 'repeated 5'],
    )
    assert.equal(fixture.rows.size, 3 + 2)
  })

  it('never lowers the mark', () => {
    const fixture = new Fixture()
    fixture.use(10, { ackedBelow: 10 })
    fixture.use(11, { ackedBelow: 3 })
    assert.equal(fixture.use(9), 'SESSION_STALE')
  })

  it('is stale where its own request acknowledges its sequence', () =>
    assert.equal(new Fixture().use(3, { ackedBelow: 4 }), 'SESSION_STALE'))

  it('keeps 1,024 sequences above the mark and refuses the next until some are acknowledged', () => {
    const fixture = new Fixture()
    for (let sequence = 1; sequence <= limits.sessionSequencesMax; sequence++) fixture.use(sequence)
    assert.equal(fixture.use(1025), 'SESSION_FULL')
    assert.equal(fixture.use(1024), 'repeated 1024')
    assert.equal(fixture.use(1025, { ackedBelow: 2 }), 'new')
  })

  it('may begin in a shard with any sequence, since it counts over all shards', () =>
    assert.equal(new Fixture().use(500, { ackedBelow: 400 }), 'new'))
})

describe('an unknown session', () => {
  it('is new while it is younger than 55 minutes, and of unknown outcome from then on', () => {
    const fixture = new Fixture()
    assert.equal(fixture.use(1, { createdMs: start - 55 * minute + 1, tail: 1 }), 'new')
    assert.equal(fixture.use(1, { createdMs: start - 55 * minute, tail: 2 }), 'OUTCOME_UNKNOWN')
  })

  it('is refused when it was made more than 5 minutes ahead', () => {
    const fixture = new Fixture()
    assert.equal(fixture.use(1, { createdMs: start + 5 * minute, tail: 1 }), 'new')
    assert.equal(fixture.use(1, { createdMs: start + 5 * minute + 1, tail: 2 }), 'INVALID_ARGUMENT')
  })
})

describe('the session table', () => {
  it('drops a session an hour after its last use, not its first', () => {
    const fixture = new Fixture()
    fixture.use(1)
    fixture.nowMs = start + 40 * minute
    fixture.use(2)
    fixture.nowMs = start + hour
    assert.equal(fixture.sweep(), 1)
    assert.equal(fixture.use(1), 'repeated 1')
    fixture.nowMs = start + 100 * minute
    assert.equal(fixture.use(1), 'OUTCOME_UNKNOWN')
    fixture.sweep()
    assert.equal(fixture.use(1), 'OUTCOME_UNKNOWN')
    assert.deepEqual([fixture.table.count, fixture.rows.size], [0, 1])
  })

  it('sweeps a large session in parts, and never knows half of it', () => {
    const fixture = new Fixture()
    for (let sequence = 1; sequence <= 25; sequence++) fixture.use(sequence)
    fixture.nowMs += hour
    const swept: number[] = []
    for (let n = fixture.sweep(10); n > 0; n = fixture.sweep(10)) {
      swept.push(n)
      assert.equal(fixture.use(25), 'OUTCOME_UNKNOWN')
    }
    assert.deepEqual(swept, [10, 10, 6])
    assert.equal(fixture.rows.size, 1)
  })

  it('refuses new sessions at 10,000 and serves the ones it has', () => {
    const fixture = new Fixture()
    for (let tail = 1; tail <= limits.sessionsMax; tail++) fixture.use(1, { tail })
    assert.equal(fixture.use(1, { tail: 10_001 }), 'SESSION_FULL')
    assert.equal(fixture.use(1, { tail: 10_000 }), 'repeated 1')
    assert.equal(fixture.use(2, { tail: 5 }), 'new')
    fixture.nowMs += hour
    while (fixture.sweep() > 0);
    assert.equal(fixture.use(1, { tail: 10_001, createdMs: fixture.nowMs }), 'new')
  })

  it('never takes a sequence for new twice, whatever the clients clocks, the pauses and the sweeps', () => {
    // Around the bounds of the rule, where a mistake would show.
    const edge = fc.constantFrom(0, 5 * minute, 10 * minute, 55 * minute, hour)
    const near = fc.tuple(edge, fc.integer({ min: -1, max: 1 })).map(([ms, off]) => ms + off)
    const use = fc.record({ tail: fc.nat(2), sequence: fc.integer({ min: 1, max: 2 }), acked: fc.nat(1) })
    const step = fc.oneof(
      { weight: 5, arbitrary: use },
      { weight: 2, arbitrary: fc.record({ goMs: near.map(ms => Math.max(ms, 0)) }) },
      { weight: 1, arbitrary: fc.record({ rowsMax: fc.integer({ min: 1, max: 5 }) }) },
    )
    const skew = fc.oneof(
      near,
      near.map(ms => -ms),
    )
    const skews = fc.tuple(skew, skew, skew)
    fc.assert(
      fc.property(skews, fc.array(step, { maxLength: 12 }), (skewsMs, steps) => {
        const fixture = new Fixture()
        const applied = new Set<string>()
        for (const taken of steps) {
          if ('goMs' in taken) fixture.nowMs += taken.goMs
          else if ('rowsMax' in taken) fixture.sweep(taken.rowsMax)
          else {
            const { tail, sequence, acked } = taken
            const outcome = fixture.use(sequence, {
              tail,
              ackedBelow: acked,
              createdMs: start + skewsMs[tail as 0 | 1 | 2],
            })
            if (outcome !== 'new') continue
            assert.ok(!applied.has(`${tail}/${sequence}`), 'applied twice')
            applied.add(`${tail}/${sequence}`)
          }
        }
      }),
      { numRuns: 2000 },
    )
  })
})
