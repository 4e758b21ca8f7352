import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Bytes, emptyBytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { RecordBlock, recordHeaderBytes } from '../../src/log/record-block.ts'

describe('a block of records', () => {
  const data = fc.uint8Array({ maxLength: 40 })

  it('gives back what was added, without those that were skipped', () =>
    fc.assert(
      fc.property(data, fc.array(data, { maxLength: 20 }), fc.nat(20), (ahead, rest, skipped) => {
        const block = blockOf(ahead, rest)
        block.skip(Math.min(skipped, rest.length))
        const left = rest.slice(skipped).map(each => Buffer.concat([ahead, each]))
        assert.deepEqual(allOf(block), left.map(plain))
        assert.equal(
          block.dataBytes,
          left.reduce((sum, each) => sum + each.length, 0),
        )
        assert.equal(block.room, 0)
      }),
    ))

  it('is written as records with their headers, one after another', () => {
    const block = blockOf(fromUtf8('-'), ['gone', 'a', 'bcd'].map(fromUtf8))
    block.skip(1)
    const image = Buffer.from(block.image(index => 7 + index))
    const sums = [crc32(fromUtf8('-a'), 7), crc32(fromUtf8('-bcd'), 8)]
    const parts = [[2], sums.slice(0, 1)].map(words => Buffer.from(Uint32Array.from(words).buffer))
    const others = [[4], sums.slice(1)].map(words => Buffer.from(Uint32Array.from(words).buffer))
    assert.deepEqual(image, Buffer.concat([...parts, fromUtf8('-a'), ...others, fromUtf8('-bcd')]))
    assert.deepEqual([block.position(0), block.position(1), block.position(2)], [0, 10, image.length])
  })

  it('has the same checksums where those of the records’ ends are known', () =>
    fc.assert(
      fc.property(
        data,
        fc.array(data, { minLength: 1, maxLength: 9 }),
        fc.nat(40),
        fc.nat(),
        (ahead, rest, tail, seed) => {
          const [plainly, knowing] = [blockOf(ahead, rest), blockOf(ahead, rest, tail)]
          assert.deepEqual(plain(knowing.image(i => seed + i)), plain(plainly.image(i => seed + i)))
        },
      ),
    ))

  it('does not vouch for what has changed since', () => {
    const [record, sum] = [Buffer.from('intact'), crc32(fromUtf8('tact'))]
    record[4]! ^= 1
    const block = new RecordBlock(100)
    block.add(emptyBytes, record, 0, 6, 4, sum)
    const image = Buffer.from(block.image(() => 3))
    assert.notEqual(image.readUInt32LE(4), crc32(block.data(0), 3))
    assert.equal(image.readUInt32LE(4), crc32(fromUtf8('intact'), 3))
  })

  it('has its data where it was when it is written again elsewhere', () => {
    const block = RecordBlock.of([fromUtf8('one'), emptyBytes])
    const before = block.data(0)
    block.image(() => 1)
    block.image(() => 2)
    assert.equal(toUtf8(before), 'one')
    assert.deepEqual(allOf(block), [plain(fromUtf8('one')), []])
  })
})

/** `tailBytes`: of each record so many at the end have a checksum that is known. */
function blockOf(ahead: Bytes, rest: readonly Bytes[], tailBytes = 0): RecordBlock {
  const sizes = rest.map(each => recordHeaderBytes + ahead.length + each.length)
  const block = new RecordBlock(sizes.reduce((sum, each) => sum + each, 0))
  for (const each of rest) {
    const tail = each.subarray(Math.max(0, each.length - tailBytes))
    block.add(ahead, each, 0, each.length, tail.length, crc32(tail))
  }
  return block
}

const plain = (bytes: Bytes) => [...bytes]
const allOf = (block: RecordBlock) => Array.from({ length: block.count }, (_, i) => plain(block.data(i)))
