import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { RecordBlock, recordHeaderBytes } from '../../src/log/record-block.ts'
import { Store, type StorePlace, storeHeaderBytes } from '../../src/log/store.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const makeDisk = () => new SimDisk({ schedule: setImmediate })
const salt = 0xdeadbeef

function recovered(disk: SimDisk, durablePosition = 0): { store: Store; records: string[]; cut: number } {
  const store = Store.open(disk, 's')
  const places: StorePlace[] = []
  const cut = store.recover({ durablePosition, visit: place => places.push(place) })
  return { store, records: places.map(at => toUtf8(store.read(at.position, at.offset))), cut }
}

describe('a store', () => {
  it('reads what was appended, one by one, batched and as a range', () => {
    const store = Store.create(makeDisk(), 's', { salt, baseOffset: 7 })
    const first = store.append(fromUtf8('a'))
    const rest = appendAll(store, [fromUtf8(''), fromUtf8('c'.repeat(5000)), fromUtf8('d')])
    assert.equal(first, storeHeaderBytes)
    assert.equal(store.endPlace.offset, 11)
    const texts = [first, ...rest].map((position, i) => toUtf8(store.read(position, 7 + i)))
    assert.deepEqual(texts, ['a', '', 'c'.repeat(5000), 'd'])
    const range = store.readRange({ position: first, offset: 7 }, store.endPlace.position)
    assert.deepEqual(range.map(toUtf8), texts)
    assert.equal(toUtf8(store.read(rest[1]!, 9, 5000 + recordHeaderBytes)), 'c'.repeat(5000))
  })

  it('recovers offset and end after a clean close', () => {
    const disk = makeDisk()
    const before = Store.create(disk, 's', { salt, baseOffset: 3 })
    appendAll(before, [fromUtf8('x'), fromUtf8('y'.repeat(3_000_000)), fromUtf8('z')])
    before.close()
    const { store, records, cut } = recovered(disk)
    assert.deepEqual([store.baseOffset, store.endPlace.offset, cut], [3, 6, 0])
    assert.deepEqual(records, ['x', 'y'.repeat(3_000_000), 'z'])
    store.append(fromUtf8('more'))
    assert.equal(recovered(disk).records[3], 'more')
  })

  it('scans on from a known place', () => {
    const disk = makeDisk()
    const store = Store.create(disk, 's', { salt, baseOffset: 0 })
    store.append(fromUtf8('a'))
    const from = store.endPlace
    store.append(fromUtf8('b'))
    const again = Store.open(disk, 's')
    const seen: StorePlace[] = []
    again.recover({ from, visit: place => seen.push(place) })
    assert.deepEqual(seen, [from])
  })

  it('needs recover or resume before an append', () => {
    const disk = makeDisk()
    const end = Store.create(disk, 's', { salt, baseOffset: 0 }).endPlace
    const store = Store.open(disk, 's')
    assert.throws(() => store.append(fromUtf8('a')), /neither recovered nor resumed/)
    store.resume(end)
    store.append(fromUtf8('a'))
  })

  it('refuses a record read at another offset, position or with a flipped bit', () => {
    const disk = makeDisk()
    const store = Store.create(disk, 's', { salt, baseOffset: 0 })
    const [a, b] = appendAll(store, [fromUtf8('same'), fromUtf8('same')])
    assert.throws(() => store.read(a!, 1), { code: 'CORRUPT' })
    assert.throws(() => store.read(b!, 0), { code: 'CORRUPT' })
    assert.throws(() => store.read(a! + 1, 0), { code: 'CORRUPT' })
    assert.throws(() => store.read(store.endPlace.position, 2), { code: 'CORRUPT' })
    disk.flipBit('s', b! + recordHeaderBytes)
    assert.throws(() => store.read(b!, 1), { code: 'CORRUPT' })
    assert.throws(() => store.readRange({ position: a!, offset: 0 }, store.endPlace.position), {
      code: 'CORRUPT',
    })
    assert.equal(toUtf8(store.read(a!, 0)), 'same')
  })

  it('refuses a file with another header', () => {
    const disk = makeDisk()
    Store.create(disk, 's', { salt, baseOffset: 0 })
    for (const position of [0, 8, 12, 16, 24, 28]) {
      const copy = disk.clone()
      copy.flipBit('s', position)
      assert.throws(() => Store.open(copy, 's'), { code: 'CORRUPT' })
    }
    disk.open('s').truncate(storeHeaderBytes - 1)
    assert.throws(() => Store.open(disk, 's'), { code: 'CORRUPT' })
  })

  it('leaves no trace of a write that failed', () => {
    const disk = makeDisk()
    const store = Store.create(disk, 's', { salt, baseOffset: 0 })
    disk.failOnce('write')
    assert.throws(() => store.append(fromUtf8('lost')), { code: 'EIO' })
    store.append(fromUtf8('kept'))
    assert.deepEqual(recovered(disk).records, ['kept'])
  })

  it('says where damage stands in what was synced, and cuts nothing', () => {
    const disk = makeDisk()
    const store = Store.create(disk, 's', { salt, baseOffset: 0 })
    const positions = appendAll(store, ['a', 'b', 'c'].map(fromUtf8))
    store.sync()
    const size = disk.open('s').size()
    disk.flipBit('s', positions[1]! + recordHeaderBytes, 3)
    assert.throws(() => recovered(disk, store.endPlace.position), {
      code: 'CORRUPT',
      facts: {
        where: `s at ${positions[1]}, record 1`,
        what: `an invalid record, though everything before ${store.endPlace.position} was synced`,
      },
    })
    assert.equal(disk.open('s').size(), size)
  })
})

for (const preallocateBytes of [0, 16 * 1024]) {
  const kind = preallocateBytes > 0 ? 'a preallocated store' : 'a growing store'
  describe(kind, () => {
    it('truncates for good: what was cut never follows what was appended after', () => {
      const disk = makeDisk()
      const store = Store.create(disk, 's', { salt, baseOffset: 0, preallocateBytes })
      disk.syncDirectory('')
      const positions = appendAll(store, ['a', 'b', 'c'].map(fromUtf8))
      store.sync()
      store.truncate({ position: positions[1]!, offset: 1 })
      store.append(fromUtf8('B'))
      disk.crashWith({
        random: new Prng(1),
        names: (_, pending) => pending,
        sector: () => 'kept',
        size: (_, __, last) => last,
      })
      assert.deepEqual(recovered(disk).records, ['a', 'B'])
    })

    it('keeps its size only when preallocated', () => {
      const disk = makeDisk()
      const store = Store.create(disk, 's', { salt, baseOffset: 0, preallocateBytes })
      store.append(new Uint8Array(100))
      const grown = storeHeaderBytes + recordHeaderBytes + 100
      assert.equal(disk.open('s').size(), Math.max(preallocateBytes, grown))
    })

    it('recovers after any crash a prefix of what was appended, at least what was synced', () => {
      const step = fc.oneof(
        fc.record({ kind: fc.constant('append' as const), sizes: fc.array(fc.nat(900), { maxLength: 4 }) }),
        fc.record({ kind: fc.constant('sync' as const) }),
        fc.record({ kind: fc.constant('crash' as const), seed: fc.nat() }),
        fc.record({ kind: fc.constant('truncate' as const), keep: fc.nat(20) }),
      )
      fc.assert(
        fc.property(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, seed) => {
          const disk = makeDisk()
          const random = new Prng(seed)
          let store = Store.create(disk, 's', { salt: random.uint32(), baseOffset: 5, preallocateBytes })
          store.sync()
          disk.syncDirectory('')
          let model: string[] = []
          let positions: number[] = []
          let synced = 0
          for (const step of steps) {
            if (step.kind === 'append') {
              const records = step.sizes.map(size => random.bytes(size))
              positions.push(...appendAll(store, records))
              model.push(...records.map(bytes => Buffer.from(bytes).toString('hex')))
            } else if (step.kind === 'sync') {
              store.sync()
              synced = model.length
            } else if (step.kind === 'truncate') {
              const keep = Math.min(step.keep, model.length)
              if (keep === model.length) continue
              store.truncate({ position: positions[keep]!, offset: 5 + keep })
              model = model.slice(0, keep)
              positions = positions.slice(0, keep)
              synced = keep
            } else {
              const durablePosition = synced === model.length ? store.endPlace.position : positions[synced]!
              disk.crash(new Prng(step.seed))
              store = Store.open(disk, 's')
              const found: string[] = []
              store.recover({
                durablePosition,
                visit: at => found.push(Buffer.from(store.read(at.position, at.offset)).toString('hex')),
              })
              assert.ok(found.length >= synced, `${found.length} of ${synced} synced records`)
              assert.deepEqual(found, model.slice(0, found.length))
              model = found
              positions = positions.slice(0, found.length)
              // Recovery leaves what it found readable, not durable: the caller syncs before it promises more.
              synced = Math.min(synced, found.length)
            }
          }
        }),
        { numRuns: 200 },
      )
    })
  })
}

/** Answers where each begins. */
function appendAll(store: Store, records: readonly Bytes[]): number[] {
  const block = RecordBlock.of(records)
  const first = store.appendBlock(block)
  return records.map((_, i) => first + block.position(i))
}
