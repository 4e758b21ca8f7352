import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { boundsFor } from '../../src/ring/bounds.ts'

describe('bounds', () => {
  it('lie a tenth around the mean, and never exclude the whole numbers next to it', () => {
    const { mean, share, lower, upper } = boundsFor([1, 1, 1, 1], 192, 64)
    assert.deepEqual([mean[0], share[0], lower[0], upper[0]], [48, 48, 44, 52])
    const few = boundsFor([1, 1, 1], 4, 4)
    assert.deepEqual([few.share[0], few.lower[0], few.upper[0]], [1, 1, 2])
    const fewer = boundsFor([1, 1, 1], 2, 2)
    assert.deepEqual([fewer.share[0], fewer.lower[0], fewer.upper[0]], [0, 0, 1])
  })

  it('follow the weights', () => {
    const { mean } = boundsFor([1, 2, 0.5, 0.5], 64, 64)
    assert.deepEqual([...mean], [16, 32, 8, 8])
  })

  it('share among the others what a heavy node cannot hold', () => {
    const { mean, upper } = boundsFor([1, 1, 10], 192, 96)
    assert.deepEqual([...mean], [48, 48, 96])
    assert.deepEqual([...upper], [52, 52, 96])
    assert.deepEqual([...boundsFor([1, 4, 100], 192, 64).mean], [64, 64, 64])
  })

  it('refuse more than all nodes together can hold', () => {
    assert.throws(() => boundsFor([1, 1], 129, 64), /can't be held/)
  })
})
