import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { emptyBytes } from '../../src/lib/bytes.ts'
import { draft, type Entry } from '../../src/raft/types.ts'
import { JournalBatch } from '../../src/shard/journal-batch.ts'
import type { JournalRecord } from '../../src/shard/ports.ts'

/** Entries at these indexes, of one term. */
const entries = (term: number, ...indexes: readonly number[]): Entry[] =>
  indexes.map(index => ({ term, index, kind: 'normal', data: emptyBytes }))
const record = (changed: Partial<JournalRecord>): JournalRecord => ({
  replica: 7,
  hardState: null,
  entries: [],
  ...changed,
})
const hardState = (term: number) => ({ term, vote: 1, commit: 3 })

/** What is written when these went into one batch. */
function merged(...records: readonly Partial<JournalRecord>[]): readonly JournalRecord[] {
  const batch = new JournalBatch()
  for (const each of records) batch.add(record(each), [])
  return batch.recordsInOrder()
}

describe('a journal batch', () => {
  it('holds one record a replica, in the order of their ids', () => {
    const [a, b, c] = [9, 7, 8].map(replica => record({ replica, hardState: hardState(replica) }))
    const batch = new JournalBatch()
    for (const each of [a!, b!, c!]) batch.add(each, [])
    assert.deepEqual(batch.recordsInOrder(), [b, c, a])
    assert.equal(batch.size, 3)
  })

  it('joins entries that follow each other', () => {
    assert.deepEqual(merged({ entries: entries(1, 4, 5) }, { entries: entries(1, 6) }), [
      record({ entries: entries(1, 4, 5, 6) }),
    ])
  })

  it('lets later entries replace what stands at and after their first index', () => {
    assert.deepEqual(merged({ entries: entries(1, 4, 5, 6) }, { entries: entries(2, 5) }), [
      record({ entries: [...entries(1, 4), ...entries(2, 5)] }),
    ])
  })

  it('lets later entries replace all when they begin before them', () => {
    assert.deepEqual(merged({ entries: entries(1, 4, 5) }, { entries: entries(2, 3) }), [
      record({ entries: entries(2, 3) }),
    ])
  })

  it('keeps the entries when a later record has none', () => {
    assert.deepEqual(merged({ entries: entries(1, 4) }, { hardState: hardState(2) }), [
      record({ entries: entries(1, 4), hardState: hardState(2) }),
    ])
  })

  it('keeps the last hard state, and an earlier one behind a record that changes none', () => {
    assert.deepEqual(merged({ hardState: hardState(1) }, { hardState: hardState(2) }, {}), [
      record({ hardState: hardState(2) }),
    ])
  })

  it('keeps the last configuration', () => {
    const [first, second] = [Uint8Array.of(1), Uint8Array.of(2)]
    assert.deepEqual(merged({ configuration: first }, { configuration: second }, {}), [
      record({ configuration: second }),
    ])
  })

  it('forgets the entries before a reset, keeps those after it', () => {
    const reset = { index: 20, term: 3 }
    assert.deepEqual(merged({ entries: entries(1, 4, 5) }, { reset }, { entries: entries(3, 21) }), [
      record({ reset, entries: entries(3, 21) }),
    ])
  })

  it('keeps the last of two resets, and nothing from between them', () => {
    const [first, second] = [
      { index: 20, term: 3 },
      { index: 30, term: 3 },
    ]
    assert.deepEqual(merged({ reset: first, entries: entries(3, 21) }, { reset: second }), [
      record({ reset: second }),
    ])
  })

  it('leaves the records that went into it as they are', () => {
    const first = record({ entries: entries(1, 4, 5) })
    const batch = new JournalBatch()
    batch.add(first, [])
    batch.add(record({ entries: entries(2, 5, 6) }), [])
    assert.deepEqual(first, record({ entries: entries(1, 4, 5) }))
  })

  it('hands out the answers that wait for it in the order in which they came', () => {
    const batch = new JournalBatch()
    const [vote, ack] = [draft('MsgVoteResp', 1, 7, 2), draft('MsgAppResp', 1, 8, 2)]
    batch.add(record({}), [vote])
    batch.add(record({ replica: 8 }), [ack])
    batch.add(record({}), [])
    assert.deepEqual(batch.responses(), [
      { replica: 7, responses: [vote] },
      { replica: 8, responses: [ack] },
    ])
  })

  it('writes nothing of a replica that was dropped', () => {
    const batch = new JournalBatch()
    batch.add(record({ entries: entries(1, 4) }), [])
    batch.add(record({ replica: 8 }), [])
    batch.drop(7)
    assert.deepEqual(batch.recordsInOrder(), [record({ replica: 8 })])
  })

  it('says the same as its records written one by one', () => {
    const appended = fc.record({ kind: fc.constant('append' as const), at: fc.nat(5), count: fc.nat(4) })
    const reset = fc.record({ kind: fc.constant('reset' as const), ahead: fc.nat(5) })
    fc.assert(
      fc.property(fc.array(fc.oneof(appended, reset), { minLength: 1, maxLength: 8 }), steps => {
        const records: JournalRecord[] = []
        // What a log is after the records, read one by one: where it begins, and its terms.
        let log = { first: 10, terms: [] as number[] }
        const next = () => log.first + log.terms.length
        const write = ({ reset, entries: written }: JournalRecord, from: typeof log): typeof log => {
          const emptied = reset === undefined ? from : { first: reset.index + 1, terms: [] }
          const [head] = written
          if (head === undefined) return emptied
          const kept = emptied.terms.slice(0, head.index - emptied.first)
          return { first: emptied.first, terms: [...kept, ...written.map(entry => entry.term)] }
        }
        for (const [i, step] of steps.entries()) {
          const term = i + 1
          const start = step.kind === 'append' ? Math.max(log.first, next() - step.at) : 0
          const each =
            step.kind === 'append'
              ? record({ entries: entries(term, ...Array.from({ length: step.count }, (_, n) => start + n)) })
              : record({ reset: { index: next() + step.ahead, term } })
          records.push(each)
          log = write(each, log)
        }
        const [whole] = merged(...records)
        assert.deepEqual(write(whole!, { first: 10, terms: [] }), log)
      }),
    )
  })
})
