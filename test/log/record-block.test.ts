import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Bytes, emptyBytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
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
    const seen: [number, string][] = []
    const image = Buffer.from(
      block.image((index, bytes) => {
        seen.push([index, toUtf8(bytes)])
        return 0xfffffff0 + index
      }),
    )
    assert.deepEqual(seen, [
      [0, '-a'],
      [1, '-bcd'],
    ])
    assert.equal(image.toString('latin1'), '\x02\0\0\0\xf0\xff\xff\xff-a\x04\0\0\0\xf1\xff\xff\xff-bcd')
    assert.deepEqual([block.position(0), block.position(1), block.position(2)], [0, 10, image.length])
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

function blockOf(ahead: Bytes, rest: readonly Bytes[]): RecordBlock {
  const sizes = rest.map(each => recordHeaderBytes + ahead.length + each.length)
  const block = new RecordBlock(sizes.reduce((sum, each) => sum + each, 0))
  for (const each of rest) block.add(ahead, each)
  return block
}

const plain = (bytes: Bytes) => [...bytes]
const allOf = (block: RecordBlock) => Array.from({ length: block.count }, (_, i) => plain(block.data(i)))
