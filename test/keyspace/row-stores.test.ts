import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { Overlay } from '../../src/keyspace/overlay.ts'
import type { RowStore } from '../../src/keyspace/row-store.ts'
import { fromLatin1, toLatin1 } from '../../src/lib/bytes.ts'

const key = fc.string({ unit: fc.constantFrom('a', 'b', '\u0000', '\u00ff'), maxLength: 3 })
const step = fc.oneof(
  fc.record({ kind: fc.constant('put' as const), key, value: fc.string({ maxLength: 2 }) }),
  fc.record({ kind: fc.constant('delete' as const), key }),
)

function listed(rows: RowStore, from: string, to: string): [string, string][] {
  return [...rows.range(from, to)].map(([name, value]) => [name, toLatin1(value)])
}

/** `make` answers rows that already hold `before`. */
function behavesLikeRows(make: (before: ReadonlyMap<string, string>) => RowStore): void {
  it('gets what was put last and lists it in the order of its bytes', () => {
    fc.assert(
      fc.property(
        fc.dictionary(key, fc.string({ maxLength: 2 })),
        fc.array(step),
        key,
        key,
        (before, steps, from, to) => {
          const model = new Map(Object.entries(before))
          const rows = make(model)
          for (const { kind, ...row } of steps) {
            if (kind === 'put') {
              const value = 'value' in row ? row.value : ''
              model.set(row.key, value)
              rows.put(row.key, fromLatin1(value))
            } else {
              model.delete(row.key)
              rows.delete(row.key)
            }
          }
          const expected = [...model]
            .filter(([name]) => name >= from && name < to)
            .sort(([a], [b]) => (a < b ? -1 : 1))
          assert.deepEqual(listed(rows, from, to), expected)
          for (const [name, value] of model) assert.equal(toLatin1(rows.get(name)!), value)
          assert.equal(rows.get('no such row'), undefined)
        },
      ),
    )
  })
}

function memoryRows(before: ReadonlyMap<string, string>): MemoryRows {
  const rows = new MemoryRows()
  for (const [name, value] of before) rows.put(name, fromLatin1(value))
  return rows
}

describe('MemoryRows', () => behavesLikeRows(memoryRows))

describe('Overlay', () => {
  behavesLikeRows(before => new Overlay(memoryRows(before)))

  it('changes the rows below at commit, not before, and never what was discarded', () => {
    const base = memoryRows(
      new Map([
        ['a', '1'],
        ['b', '2'],
      ]),
    )
    const overlay = new Overlay(base)
    overlay.put('a', fromLatin1('x'))
    overlay.discard()
    overlay.delete('b')
    overlay.put('c', fromLatin1('3'))
    assert.deepEqual(listed(base, '', 'z'), [
      ['a', '1'],
      ['b', '2'],
    ])
    overlay.commit()
    assert.deepEqual(listed(base, '', 'z'), [
      ['a', '1'],
      ['c', '3'],
    ])
    assert.deepEqual(listed(overlay, '', 'z'), listed(base, '', 'z'))
  })
})
