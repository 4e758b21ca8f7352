import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Books, type Once } from '../../src/bench/verify/books.ts'

describe('the books of a recorded workload', () => {
  const once = (facts: Partial<Once>): Once => ({
    ...{ key: 'k', value: 'v', written: 'ok', removed: null, expiry: null },
    ...facts,
  })
  const judged = (facts: Partial<Once>, text: string | null, nowMs = 0) => {
    const books = new Books('')
    books.judgeOnce(once(facts), text, nowMs, nowMs, 10, 'node1')
    return Object.entries(books.verdicts).flatMap(([name, count]) => (count > 0 ? [name] : []))
  }
  const expiry = { earliestMs: 1_000, latestMs: 1_200 }

  it('tell a key that is lost, that came back, and that nobody wrote, and let pass what may be', () => {
    assert.deepEqual(judged({}, 'v'), [])
    assert.deepEqual(judged({}, null), ['lost'])
    assert.deepEqual(judged({}, 'other'), ['strange'])
    assert.deepEqual(judged({ written: 'unknown' }, null), [])
    assert.deepEqual(judged({ written: 'unknown' }, 'v'), [])
    assert.deepEqual(judged({ written: 'refused' }, 'v'), ['strange'])
    assert.deepEqual(judged({ removed: 'ok' }, 'v'), ['resurrected'])
    assert.deepEqual(judged({ removed: 'unknown' }, 'v'), [])
    assert.deepEqual(judged({ removed: 'unknown' }, null), [])
    assert.deepEqual(judged({ expiry }, null, 500), ['lost'])
    assert.deepEqual(judged({ expiry }, 'v', 1_100), [])
    assert.deepEqual(judged({ expiry }, null, 1_100), [])
    assert.deepEqual(judged({ expiry }, 'v', 1_300), ['resurrected'])
  })

  it('tell increments and elements that are missing, and those that were applied twice', () => {
    const verdicts = (kind: 'counter' | 'list', text: string | null) => {
      const books = new Books('')
      const series = books.newSeries(kind)
      Object.assign(series, { acknowledged: 2, unknown: 1 })
      for (const each of ['a', 'b']) series.elements.add(each)
      for (const each of ['a', 'b', 'c']) series.sent.add(each)
      books.judgeEnd(series, text, 'node1')
      return Object.entries(books.verdicts).flatMap(([name, count]) => (count > 0 ? [name] : []))
    }
    assert.deepEqual(verdicts('counter', '2'), [])
    assert.deepEqual(verdicts('counter', '3'), [])
    assert.deepEqual(verdicts('counter', '1'), ['lost'])
    assert.deepEqual(verdicts('counter', null), ['lost'])
    assert.deepEqual(verdicts('counter', '4'), ['doubled'])
    assert.deepEqual(verdicts('list', 'a,b,'), [])
    assert.deepEqual(verdicts('list', 'a,b,c,'), [])
    assert.deepEqual(verdicts('list', 'a,'), ['lost'])
    assert.deepEqual(verdicts('list', null), ['lost'])
    assert.deepEqual(verdicts('list', 'a,b,a,'), ['doubled'])
    assert.deepEqual(verdicts('list', 'a,b,z,'), ['strange'])
  })
})
