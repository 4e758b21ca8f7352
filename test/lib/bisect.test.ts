import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { firstWhere } from '../../src/lib/bisect.ts'

describe('firstWhere', () => {
  it('is the first that holds, or the end', () => {
    for (let size = 0; size < 9; size++)
      for (let first = 0; first <= size; first++)
        assert.equal(
          firstWhere(100, 100 + size, at => at >= 100 + first),
          100 + first,
        )
  })

  it('asks about as often as the size has bits', () => {
    let asked = 0
    firstWhere(0, 2 ** 40, at => ++asked > 0 && at >= 12_345)
    assert.ok(asked <= 41, `${asked}`)
  })
})
