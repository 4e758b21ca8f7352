import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { BrokenInvariant } from '../../src/lib/assert.ts'
import type { MappedFile } from '../../src/log/mapped-file.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import {
  encodeIndex,
  HeapIndex,
  indexHeaderBytes,
  offsetWithin,
  positionMax,
  SealedIndex,
  writeIndexFile,
} from '../../src/log/offset-index.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const salt = 0xfeedf00d
const baseOffset = 2 ** 40

function heapIndex(lengths: readonly number[], base = baseOffset): HeapIndex {
  const index = new HeapIndex(base, 32)
  for (const length of lengths) {
    const at = index.position(index.nextOffset)
    index.append(at, at + length)
  }
  return index
}

function inMemory(bytes: Uint8Array): MappedFile & { isClosed: boolean } {
  return {
    kind: 'heap',
    bytes,
    isClosed: false,
    close() {
      this.isClosed = true
    },
  }
}

const positionsOf = (index: HeapIndex | SealedIndex) =>
  Array.from({ length: index.nextOffset - index.baseOffset + 1 }, (_, i) =>
    index.position(index.baseOffset + i),
  )

describe('the growing index', () => {
  it('knows where each record begins and where the last one ends', () => {
    assert.deepEqual(positionsOf(heapIndex([10, 20, 8])), [32, 42, 62, 70])
  })

  it('forgets from an offset on', () => {
    const index = heapIndex([10, 20, 8])
    index.truncate(baseOffset + 1)
    assert.deepEqual(positionsOf(index), [32, 42])
    index.append(42, 50)
    assert.deepEqual(positionsOf(index), [32, 42, 50])
  })

  it('refuses gaps, offsets outside and positions that do not fit', () => {
    const index = heapIndex([10])
    assert.throws(() => index.append(43, 50), BrokenInvariant)
    assert.throws(() => index.append(42, positionMax + 1), BrokenInvariant)
    assert.throws(() => index.position(baseOffset - 1), BrokenInvariant)
    assert.throws(() => index.position(baseOffset + 2), BrokenInvariant)
  })
})

describe('the index file', () => {
  const lengths = fc.array(fc.integer({ min: 8, max: 100_000 }), { maxLength: 300 })

  it('says what the growing index said', () => {
    fc.assert(
      fc.property(lengths, lens => {
        const index = heapIndex(lens)
        const sealed = SealedIndex.open(inMemory(encodeIndex(index, salt)), salt, baseOffset)
        assert.ok(sealed !== null)
        assert.ok(sealed.isIntact())
        assert.deepEqual(positionsOf(sealed), positionsOf(index))
        assert.deepEqual(positionsOf(HeapIndex.copyOf(sealed)), positionsOf(index))
      }),
    )
  })

  it('is refused for another life or another base of the store, and let go', () => {
    const bytes = encodeIndex(heapIndex([10, 20]), salt)
    const file = inMemory(bytes)
    assert.equal(SealedIndex.open(file, salt + 1, baseOffset), null)
    assert.ok(file.isClosed)
    assert.equal(SealedIndex.open(inMemory(bytes), salt, baseOffset + 1), null)
  })

  it('is refused when it is cut, longer, or any bit of its header is flipped', () => {
    const bytes = encodeIndex(heapIndex([10, 20, 30]), salt)
    for (let length = 0; length < bytes.byteLength; length++) {
      assert.equal(SealedIndex.open(inMemory(bytes.subarray(0, length)), salt, baseOffset), null)
    }
    assert.equal(SealedIndex.open(inMemory(Buffer.concat([bytes, bytes])), salt, baseOffset), null)
    for (let bit = 0; bit < indexHeaderBytes * 8; bit++) {
      const flipped = bytes.slice()
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      assert.equal(SealedIndex.open(inMemory(flipped), salt, baseOffset), null, `bit ${bit}`)
    }
  })

  it('knows of every flipped bit of its body when it is asked', () => {
    const bytes = encodeIndex(heapIndex([10, 20, 30]), salt)
    for (let bit = indexHeaderBytes * 8; bit < bytes.byteLength * 8; bit++) {
      const flipped = bytes.slice()
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      assert.equal(SealedIndex.open(inMemory(flipped), salt, baseOffset)?.isIntact(), false)
    }
  })

  it('replaces an older one without touching the bytes of that', () => {
    const disk = new SimDisk({ schedule: setImmediate })
    writeIndexFile(disk, 'i', heapIndex([10, 20, 30]), salt)
    const old = disk.open('i')
    writeIndexFile(disk, 'i', heapIndex([11]), salt)
    assert.equal(old.size(), indexHeaderBytes + 12)
    const sealed = SealedIndex.open(heapMapper(disk)('i'), salt, baseOffset)
    assert.deepEqual(positionsOf(sealed!), [32, 43])
    assert.deepEqual(disk.list(''), ['i'])
  })
})

describe('offsetWithin', () => {
  it('takes as many records as fit, and at least one', () => {
    const dataLengths = fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 40 })
    fc.assert(
      fc.property(dataLengths, fc.nat(39), fc.nat(600), (lens, skip, bytesMax) => {
        const from = skip % lens.length
        let to = from + 1
        let sum = lens[from]!
        while (to < lens.length && sum + lens[to]! <= bytesMax) sum += lens[to++]!
        const index = heapIndex(
          lens.map(length => length + 8),
          0,
        )
        assert.equal(offsetWithin(index, from, lens.length, bytesMax, 8), to)
      }),
    )
  })
})
