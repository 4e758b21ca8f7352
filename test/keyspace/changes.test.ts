import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Change, ChangeRing, changeLimits, type Target } from '../../src/keyspace/changes.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { encodeHeader, prefixes } from '../../src/keyspace/rows.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'

const everything: Target = { kind: 'prefix', prefix: '' }
const rows = new MemoryRows()

/** An entry that sets these keys. */
function set(ring: ChangeRing, index: number, keys: readonly string[], valueBytes = 1): void {
  ring.begin(index, 1_000 + index, false)
  for (const key of keys) {
    const value = new Uint8Array(valueBytes).fill(index)
    const header = encodeHeader({ type: 'string', revision: index, expiresAtMs: null, value })
    ring.note(prefixes.header + key, header, rows)
  }
}

const keysOf = (changes: readonly Change[]) => changes.map(each => `${each.index}.${each.number} ${each.key}`)

describe('a ring of changes', () => {
  it('gives what came after an entry, in order, and nothing of others’ keys', () => {
    const ring = new ChangeRing()
    set(ring, 1, ['a', 'b'])
    set(ring, 3, ['ab'])
    set(ring, 4, ['b'])
    assert.deepEqual(keysOf(ring.read(0, 5, everything, 1_000).changes), [
      '1.0 a',
      '1.1 b',
      '3.0 ab',
      '4.0 b',
    ])
    assert.deepEqual(keysOf(ring.read(1, 5, everything, 1_000).changes), ['3.0 ab', '4.0 b'])
    assert.deepEqual(ring.read(4, 5, everything, 1_000), { changes: [], upTo: 5 })
    const ofKey = ring.read(0, 5, { kind: 'key', key: 'b' }, 1_000)
    assert.deepEqual(keysOf(ofKey.changes), ['1.1 b', '4.0 b'])
    assert.deepEqual(keysOf(ring.read(0, 5, { kind: 'prefix', prefix: 'a' }, 1_000).changes), [
      '1.0 a',
      '3.0 ab',
    ])
  })

  it('never cuts an entry in two, and says how far it came', () => {
    const ring = new ChangeRing()
    set(ring, 1, ['a', 'b', 'c'])
    set(ring, 2, ['d'])
    const first = ring.read(0, 2, everything, 1)
    assert.deepEqual([keysOf(first.changes), first.upTo], [['1.0 a', '1.1 b', '1.2 c'], 1])
    const second = ring.read(first.upTo, 2, everything, 1)
    assert.deepEqual([keysOf(second.changes), second.upTo], [['2.0 d'], 2])
  })

  it('gives up values before changes when it is short of room, and tells where it begins', () => {
    const ring = new ChangeRing()
    ring.limit(0)
    const size = 16 * 1024
    const fits = Math.floor(changeLimits.bytesMin / size)
    for (let index = 1; index <= 4 * fits; index++) set(ring, index, ['key'], size)
    assert.equal(ring.start, 0)
    const { changes } = ring.read(0, 4 * fits, everything, Number.POSITIVE_INFINITY)
    assert.equal(changes.length, 4 * fits)
    assert.deepEqual(
      changes.map(each => each.value !== null),
      changes.map((_, i) => i > 3 * fits),
    )
    assert.ok(ring.byteSize <= changeLimits.bytesMin)
    for (let index = 1_000; ring.start === 0; index++) set(ring, index, ['x'.repeat(900)])
    assert.ok(ring.byteSize <= changeLimits.bytesMin)
    assert.ok(ring.size < changeLimits.changesMax)
  })

  it('keeps no value that is long', () => {
    const ring = new ChangeRing()
    set(ring, 1, ['a'], changeLimits.valueBytesMax + 1)
    set(ring, 2, ['a'], 1_000)
    const values = ring.read(0, 2, everything, 1_000_000).changes.map(each => each.value?.byteLength ?? null)
    assert.deepEqual(values, [null, 1_000])
  })

  it('has the last entry whole, however many changes it made, but for one beyond all bounds', () => {
    const ring = new ChangeRing()
    const many = (count: number) => Array.from({ length: count }, (_, i) => `k${i}`)
    set(ring, 1, ['before'])
    set(ring, 2, many(changeLimits.changesMax + 10))
    assert.equal(ring.start, 1)
    assert.equal(ring.read(1, 2, everything, 1).changes.length, changeLimits.changesMax + 10)
    set(ring, 3, ['after'])
    assert.equal(ring.start, 2)
    assert.deepEqual(keysOf(ring.read(2, 3, everything, 1).changes), ['3.0 after'])
    set(ring, 4, many(changeLimits.entryChangesMax + 1))
    assert.deepEqual([ring.start, ring.size], [4, 0])
    set(ring, 5, ['again'])
    assert.deepEqual(keysOf(ring.read(4, 5, everything, 1).changes), ['5.0 again'])
  })

  it('takes over what another one gave out', () => {
    const [one, other] = [new ChangeRing(), new ChangeRing()]
    set(one, 1, ['a', 'b'], 10)
    const found = one.read(0, 1, everything, 1_000)
    other.append(found.changes)
    assert.deepEqual(other.read(0, 1, everything, 1_000), found)
  })

  it('is the end of a list of all changes, whatever comes in whatever portions', () => {
    const entry = fc.record({
      gap: fc.integer({ min: 1, max: 3 }),
      keys: fc.uniqueArray(fc.constantFrom('a', 'b', 'ab', 'abc', 'x'.repeat(1_000)), { maxLength: 5 }),
      size: fc.constantFrom(0, 100, 70_000, 20_000),
    })
    const target = fc.constantFrom<Target>(
      everything,
      { kind: 'prefix', prefix: 'ab' },
      { kind: 'key', key: 'ab' },
      { kind: 'key', key: 'b' },
    )
    const property = fc.property(
      fc.array(entry, { maxLength: 200, size: 'max' }),
      fc.array(
        fc.record({ target, from: fc.double({ min: 0, max: 1, noNaN: true }), bytes: fc.nat(100_000) }),
      ),
      (entries, readers) => {
        const ring = new ChangeRing()
        ring.limit(0)
        const all: Change[] = []
        let index = 0
        for (const { gap, keys, size } of entries) {
          index += gap
          set(ring, index, keys, size)
          for (const [number, key] of keys.entries())
            all.push({ index, number, key, kind: 'set', type: 'string', timeMs: 1_000 + index, value: null })
        }
        // Complete from its start on: nothing that is younger is missing.
        assert.ok(ring.size <= all.length && all.filter(each => each.index > ring.start).length <= ring.size)
        const end = index
        for (const { target, from, bytes } of readers) {
          const found: string[] = []
          const start = Math.floor(ring.start + from * (end - ring.start))
          for (let at = start; ; ) {
            const { changes, upTo } = ring.read(at, end, target, bytes)
            assert.ok(upTo > at || at === end)
            found.push(...keysOf(changes))
            for (const { value, index } of changes)
              assert.ok(value === null || value.every(byte => byte === index % 256))
            if (upTo === end) break
            at = upTo
          }
          const wanted = all.filter(
            each =>
              each.index > start &&
              (target.kind === 'key' ? each.key === target.key : each.key.startsWith(target.prefix)),
          )
          assert.deepEqual(found, keysOf(wanted))
        }
      },
    )
    fc.assert(property, { numRuns: 150 })
  })

  it('is written by its headers alone', () => {
    const ring = new ChangeRing()
    ring.begin(9, 1, false)
    for (const row of ['ckeys', 'ekey', 'fkey', 'skey']) ring.note(row, fromUtf8('x'), rows)
    assert.equal(ring.size, 0)
  })
})
