import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Malformed } from '../../src/lib/byte-reader.ts'
import { asPacked, pack, unpack } from '../../src/lib/packed.ts'

describe('packed byte strings', () => {
  it('are unpacked as they were', () =>
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 })), parts => {
        const packed = pack(parts)
        assert.deepEqual(
          unpack(packed.bytes).map(part => [...part]),
          parts.map(part => [...part]),
        )
        assert.equal(packed.count, parts.length)
        assert.deepEqual(asPacked(packed.bytes), packed)
      }),
    ))

  it('have one form: what is read is what is written', () =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), bytes => {
        let parts: Uint8Array[]
        try {
          parts = unpack(bytes)
        } catch (error) {
          assert.ok(error instanceof Malformed)
          return
        }
        assert.deepEqual([...pack(parts).bytes], [...bytes])
      }),
      { numRuns: 2_000 },
    ))

  it('are Malformed where a length is padded, too long or cut off, or the bytes end too soon', () => {
    for (const bytes of [[0x80, 0], [0x80], [0xff, 0xff, 0xff, 0xff, 1], [1], [0, 5, 1]])
      assert.throws(() => unpack(Uint8Array.from(bytes)), Malformed, String(bytes))
  })
})
