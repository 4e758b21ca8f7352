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
import { around, type TimeIndex, timeIntervalBytes } from '../../src/log/time-index.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const salt = 0xfeedf00d
const baseOffset = 2 ** 40

const none = new Uint8Array()

/** The record `i` is of the time 10 × i. */
function heapIndex(lengths: readonly number[], base = baseOffset): HeapIndex {
  const index = new HeapIndex(base, 32, () => 10 * (index.nextOffset - base))
  for (const length of lengths) {
    const at = index.position(index.nextOffset)
    index.append(at, at + length, none)
  }
  return index
}

const timesOf = (times: TimeIndex) => [
  times.firstMs,
  ...Array.from({ length: times.count }, (_, entry) => [times.record(entry), times.timeMs(entry)]),
]

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
    index.append(42, 50, none)
    assert.deepEqual(positionsOf(index), [32, 42, 50])
  })

  it('refuses gaps, offsets outside and positions that do not fit', () => {
    const index = heapIndex([10])
    assert.throws(() => index.append(43, 50, none), BrokenInvariant)
    assert.throws(() => index.append(42, positionMax + 1, none), BrokenInvariant)
    assert.throws(() => index.position(baseOffset - 1), BrokenInvariant)
    assert.throws(() => index.position(baseOffset + 2), BrokenInvariant)
  })

  it('knows the time of the first record, and of one an interval of bytes', () => {
    assert.deepEqual(timesOf(heapIndex([]).times), [Number.POSITIVE_INFINITY])
    const half = timeIntervalBytes / 2
    const index = heapIndex([half, half - 1, 1, 8, 9 * half, 8, half, half, 8])
    const entries = [
      [3, 30],
      [5, 50],
      [8, 80],
    ]
    assert.deepEqual(timesOf(index.times), [0, ...entries])
    for (let next = 9; next >= 0; next--) {
      index.truncate(baseOffset + next)
      const left = entries.filter(([record]) => record! < next)
      assert.deepEqual(timesOf(index.times), [next === 0 ? Number.POSITIVE_INFINITY : 0, ...left])
    }
  })

  it('leads a time to the records around it', () => {
    const { times } = heapIndex(Array(10).fill(timeIntervalBytes / 2))
    const found = (timeMs: number) => {
      const { earlier, later } = around(times, timeMs, 10)
      return [earlier, later]
    }
    assert.deepEqual([-1, 0, 1, 20].map(found), Array(4).fill([0, 2]))
    assert.deepEqual([21, 40, 41].map(found), [
      [2, 4],
      [2, 4],
      [4, 6],
    ])
    assert.deepEqual([80, 81, 1e15].map(found), [
      [6, 8],
      [8, 10],
      [8, 10],
    ])
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
        assert.deepEqual(timesOf(sealed.times), timesOf(index.times))
        const copy = HeapIndex.copyOf(sealed, () => 0)
        assert.deepEqual(positionsOf(copy), positionsOf(index))
        assert.deepEqual(timesOf(copy.times), timesOf(index.times))
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
    const bytes = encodeIndex(heapIndex([10, timeIntervalBytes, 30]), salt)
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
