import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { crc32 as zlib } from 'node:zlib'
import fc from 'fast-check'
import { crc32, crc32Combined, crc32Short } from '../../src/lib/crc.ts'

describe('CRC-32', () => {
  const bytes = fc.uint8Array({ maxLength: 300 })
  const seeds = fc.nat(0xffff_ffff)

  it('is that of the standard, and of nothing its seed', () => {
    assert.equal(crc32(Buffer.from('123456789')), 0xcbf43926)
    assert.equal(crc32(new Uint8Array(0), 7), 7)
  })

  it('of a short part is what zlib makes of it', () =>
    fc.assert(
      fc.property(bytes, fc.nat(300), fc.nat(300), seeds, (all, from, to, seed) => {
        const part = all.subarray(from, Math.max(from, to))
        assert.equal(
          crc32Short(all, from, from + part.length, seed),
          part.length === 0 ? seed : zlib(part, seed),
        )
      }),
    ))

  it('of one behind another is that of both', () =>
    fc.assert(
      fc.property(bytes, bytes, seeds, (first, second, seed) => {
        const begun = crc32(first, seed)
        assert.equal(crc32Combined(begun, crc32(second), second.length), crc32(second, begun))
      }),
    ))

  it('is combined for every length, asked for once or again', () => {
    for (const length of [0, 1, 2, 3, 127, 4_095, 4_096, 4_097, 65_537, 1_048_576, 1, 4_095]) {
      const second = Buffer.alloc(length, 'x')
      for (const first of [0, 1, 0x8000_0000, 0xffff_ffff])
        assert.equal(crc32Combined(first, crc32(second), length), crc32(second, first), `${length} bytes`)
    }
  })
})
