import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Change, changeLimits } from '../../src/keyspace/changes.ts'
import { readAnswer, type WatchAnswer, writeAnswer } from '../../src/node/watch-question.ts'
import { frameLimits } from '../../src/peer/frames.ts'

const change = (key: string, value: Uint8Array | null, number = 0): Change => ({
  ...{ index: 9, number, key, kind: 'set', type: 'string', timeMs: 1_700_000_000_000, value },
})
const answerOf = (...changes: Change[]): WatchAnswer => ({ start: 3, end: 9, upTo: 9, changes })

describe('an answer to WATCH.READ', () => {
  it('is what it was, whatever bytes keys and values have', () => {
    const all = String.fromCharCode(...Array(256).keys())
    const given = answerOf(
      change(all, Buffer.from(all, 'latin1')),
      change('k', null, 1),
      change('', Buffer.of(), 2),
    )
    assert.deepEqual(readAnswer(JSON.stringify(writeAnswer(given))), given)
  })

  it('fits into a message between nodes, though the ring is full of keys that JSON would blow up', () => {
    const key = '\0'.repeat(1_024)
    const count = Math.ceil(changeLimits.bytesMax / key.length)
    const text = JSON.stringify(
      writeAnswer(answerOf(...Array.from({ length: count }, (_, i) => change(key, null, i)))),
    )
    assert.ok(text.length < frameLimits.messageBytesMax, `${text.length} bytes`)
    const short = Array.from({ length: changeLimits.entryChangesMax }, (_, i) =>
      change('\0', Buffer.of(0), i),
    )
    const many = JSON.stringify(writeAnswer(answerOf(...short)))
    assert.ok(many.length < frameLimits.messageBytesMax, `${many.length} bytes`)
  })
})
