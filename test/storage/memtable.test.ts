import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Bytes, fromUtf8 } from '../../src/lib/bytes.ts'
import { Memtable, mergeLayers, rowOverheadBytes } from '../../src/storage/memtable.ts'

const value = (text: string | null) => (text === null ? null : fromUtf8(text))

describe('Memtable', () => {
  it('tells a deleted row from one it knows nothing of', () => {
    const table = new Memtable()
    table.set('a', null)
    assert.equal(table.get('a'), null)
    assert.equal(table.get('b'), undefined)
  })

  it('accounts for the bytes that it holds now, not for those that were put', () => {
    const table = new Memtable()
    table.set('key', fromUtf8('12345'))
    assert.equal(table.bytes, rowOverheadBytes + 8)
    table.set('key', fromUtf8('1'))
    assert.equal(table.bytes, rowOverheadBytes + 4)
    table.set('key', null)
    assert.equal(table.bytes, rowOverheadBytes + 3)
    table.set('key', fromUtf8('12'))
    assert.equal(table.bytes, rowOverheadBytes + 5)
    assert.equal(table.size, 1)
  })

  it('knows whether anything of it lies in a range', () => {
    const table = new Memtable()
    table.set('b', null)
    assert.equal(table.touches('a', 'b'), false)
    assert.equal(table.touches('a', 'c'), true)
    assert.equal(table.touches('b', 'b\x00'), true)
    assert.equal(table.touches('ba', 'z'), false)
  })
})

describe('layers', () => {
  it('are one: the upper speaks, a tombstone hides, keys are in byte order', () => {
    const key = fc.constantFrom('\x00', 'a', 'ab', 'b', '\x80', '\xff')
    const layer = fc.array(fc.tuple(key, fc.option(fc.string({ maxLength: 2 }))), { maxLength: 12 })
    fc.assert(
      fc.property(fc.array(layer, { maxLength: 3 }), layers => {
        const model = new Map<string, string>()
        for (const rows of layers.toReversed()) {
          for (const [k, v] of rows) {
            if (v === null) model.delete(k)
            else model.set(k, v)
          }
        }
        const tables = layers.map(rows => {
          const table = new Memtable()
          for (const [k, v] of rows) table.set(k, value(v))
          return table.range('', null)
        })
        const merged = [...mergeLayers(tables)].map(([k, v]) => [k, Buffer.from(v).toString()])
        assert.deepEqual(
          merged,
          [...model].sort(([a], [b]) => (a < b ? -1 : 1)),
        )
      }),
    )
  })

  it('close every source when the iteration is left half-way', () => {
    const closed: number[] = []
    const source = function* (id: number): Generator<readonly [string, Bytes | null]> {
      try {
        for (let i = 0; ; i++) yield [`key ${String(i * 3 + id).padStart(4, '0')}`, fromUtf8('')]
      } finally {
        closed.push(id)
      }
    }
    for (const [key] of mergeLayers([source(0), source(1), source(2)])) if (key === 'key 0010') break
    assert.deepEqual(closed, [0, 1, 2])
  })
})
