import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { hashTag, isShardCount, shardOfSlot, slotCount, slotOf, slotsOfShard } from '../../src/lib/slot.ts'

const slot = (key: string) => slotOf(fromUtf8(key))
const tag = (key: string) => toUtf8(hashTag(fromUtf8(key)))

/** CRC16/XMODEM bit by bit, as its definition reads. */
function crcByDefinition(bytes: Uint8Array): number {
  let crc = 0
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const carry = (crc >>> 15) ^ ((byte >>> bit) & 1)
      crc = ((crc << 1) & 0xffff) ^ (carry ? 0x1021 : 0)
    }
  }
  return crc
}

describe('slot', () => {
  it("is Redis Cluster's", () => {
    // The check value of CRC16/XMODEM, and CLUSTER KEYSLOT of two keys.
    assert.equal(slot('123456789'), 0x31c3)
    assert.equal(slot('foo'), 12182)
    assert.equal(slot('somekey'), 11058)
    assert.equal(slot(''), 0)
  })

  it('hashes what stands between the first { and the first } after it', () => {
    assert.equal(tag('{user1000}.following'), 'user1000')
    assert.equal(tag('foo{{bar}}zap'), '{bar')
    assert.equal(tag('foo{bar}{zap}'), 'bar')
    assert.equal(tag('}{a}'), 'a')
    assert.equal(slot('{user1000}.following'), slot('user1000'))
  })

  it('hashes the whole key where the first braces hold nothing or do not close', () => {
    for (const key of ['foo{}{bar}', '{}', '{', '}', 'a{b', 'a}b{', 'plain']) assert.equal(tag(key), key)
  })

  it('is the CRC of the tag, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), key => {
        assert.equal(slotOf(key), crcByDefinition(hashTag(key)) % slotCount)
      }),
    )
  })

  it('gives keys of one tag one slot', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '}', 'é') })
    fc.assert(
      fc.property(fc.stringMatching(/^[^{}]+$/), text, text, (name, before, after) => {
        assert.equal(slot(`${before}{${name}}${after}`), slot(name))
      }),
    )
  })
})

describe('shard', () => {
  it('is a contiguous range of slots; the ranges are equal and cover all slots once', () => {
    for (let count = 1; count <= 4096; count *= 2) {
      let next = 0
      for (let shard = 0; shard < count; shard++) {
        const { from, to } = slotsOfShard(shard, count)
        assert.equal(from, next)
        assert.equal(to - from, slotCount / count)
        assert.equal(shardOfSlot(from, count), shard)
        assert.equal(shardOfSlot(to - 1, count), shard)
        next = to
      }
      assert.equal(next, slotCount)
    }
  })

  it('counts in powers of two from 1 to 4096', () => {
    assert.deepEqual([1, 2, 64, 4096].filter(isShardCount), [1, 2, 64, 4096])
    assert.deepEqual([0, -1, 3, 6, 1.5, 8192, Number.NaN].filter(isShardCount), [])
    assert.throws(() => shardOfSlot(0, 3), /power of two/)
    assert.throws(() => shardOfSlot(slotCount, 64), /outside/)
    assert.throws(() => slotsOfShard(64, 64), /64 of 64/)
  })
})
