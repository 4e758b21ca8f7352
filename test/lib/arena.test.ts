import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Arena } from '../../src/lib/arena.ts'

describe('arena', () => {
  it('gives zeroes of the length that was asked for, and never the same twice', () => {
    const arena = new Arena()
    const lengths = [
      0,
      1,
      64,
      65,
      1024,
      1025,
      9000,
      ...Array.from({ length: 500 }, (_, i) => (i * 37) % 1200),
    ]
    const taken = lengths.map((length, i) => {
      const bytes = arena.take(length)
      assert.equal(bytes.byteLength, length)
      assert.ok(bytes.every(byte => byte === 0))
      return bytes.fill(i % 251)
    })
    for (const [i, bytes] of taken.entries()) assert.ok(bytes.every(byte => byte === i % 251))
  })

  it('gives what is long an array of its own', () => {
    const arena = new Arena()
    arena.take(10)
    assert.equal(arena.take(5000).buffer.byteLength, 5000)
    assert.ok(arena.take(10).buffer.byteLength <= 8192)
  })
})
