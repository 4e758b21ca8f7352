import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Rests, restFactor, restMsMax } from '../../src/storage/rests.ts'

function inHurry(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4)).fill(1)
}

/** What a thread rests after pieces of work that took so long, ms. Nobody has time, so the test does not wait for it. */
function restsAfter(...workMs: readonly number[]): number[] {
  let nowMs = 1_000
  const rests = new Rests(inHurry(), () => nowMs)
  rests.begin()
  return workMs.map(ms => {
    nowMs += ms
    return rests.rest()
  })
}

describe('the rests of a thread', () => {
  it('are as many times as long as the work before each', () => {
    assert.deepEqual(
      restsAfter(1, 0, 10, 3),
      [1, 0, 10, 3].map(ms => ms * restFactor),
    )
  })

  it('have a longest', () => {
    assert.deepEqual(restsAfter(60_000), [restMsMax])
  })

  it('do not count the time before a request', () => {
    let nowMs = 0
    const rests = new Rests(inHurry(), () => nowMs)
    nowMs = 60_000
    rests.begin()
    assert.equal(rests.rest(), 0)
  })

  it('end when nobody has time any more', () => {
    const rests = new Rests(inHurry(), () => performance.now() * 1_000)
    rests.begin()
    const beganMs = performance.now()
    for (let i = 0; i < 50; i++) rests.rest()
    assert.ok(performance.now() - beganMs < restMsMax, 'it rested')
  })
})
