import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { check } from '../../src/history/check.ts'
import { kvModel } from '../../src/history/kv-model.ts'
import type { Model } from '../../src/history/model.ts'
import type { Operation } from '../../src/history/operation.ts'
import { registerModel } from '../../src/history/register-model.ts'
import {
  anyOperations,
  appendCall,
  atomicOperations,
  isOrderable,
  kvAsk,
  kvCall,
  operationsOf,
  type Row,
  registerAsk,
  registerCall,
} from './histories.ts'

const register = registerModel(null)
const kv = kvModel(null)

const verdictOf = (rows: Row[], model: Model = register) => check(operationsOf(rows), model).kind

describe('the checker', () => {
  it('takes an empty history', () => {
    assert.equal(check([], register).kind, 'linearizable')
  })

  it('takes a read of what was written, refuses a stale one, and one from nowhere', () => {
    const written: Row[] = [
      ['a', 'write', ['1'], undefined, 0, 1],
      ['a', 'write', ['2'], undefined, 2, 3],
    ]
    assert.equal(verdictOf([...written, ['b', 'read', [], '2', 4, 5]]), 'linearizable')
    assert.equal(verdictOf([...written, ['b', 'read', [], '1', 4, 5]]), 'not-linearizable')
    assert.equal(verdictOf([...written, ['b', 'read', [], '3', 4, 5]]), 'not-linearizable')
    assert.equal(verdictOf([...written, ['b', 'read', [], null, 4, 5]]), 'not-linearizable')
  })

  it('lets operations that overlap stand in either order, but in one for all', () => {
    const race: Row[] = [
      ['a', 'write', ['1'], undefined, 0, 10],
      ['b', 'read', [], '1', 1, 2],
    ]
    assert.equal(verdictOf([...race, ['c', 'read', [], '1', 3, 4]]), 'linearizable')
    assert.equal(verdictOf([...race, ['c', 'read', [], null, 3, 4]]), 'not-linearizable')
  })

  it('takes events at the same place for overlapping', () => {
    assert.equal(
      verdictOf([
        ['a', 'write', ['1'], undefined, 0, 1],
        ['b', 'read', [], null, 1, 2],
      ]),
      'linearizable',
    )
  })

  it('lets an unknown outcome take effect late, or never, but once', () => {
    const lost: Row = ['a', 'write', ['1'], undefined, 0, null]
    const zero: Row = ['b', 'write', ['0'], undefined, 1, 2]
    assert.equal(verdictOf([lost, zero, ['b', 'read', [], '0', 3, 4]]), 'linearizable')
    assert.equal(verdictOf([lost, zero, ['b', 'read', [], '1', 3, 4]]), 'linearizable')
    assert.equal(
      verdictOf([
        lost,
        zero,
        ['b', 'read', [], '1', 3, 4],
        ['b', 'write', ['0'], undefined, 5, 6],
        ['b', 'read', [], '1', 7, 8],
      ]),
      'not-linearizable',
    )
    assert.equal(
      verdictOf([
        ['b', 'read', [], '1', 0, 1],
        ['a', 'write', ['1'], undefined, 2, null],
      ]),
      'not-linearizable',
    )
  })

  it('holds a refused compare-and-set to what it saw', () => {
    const one: Row = ['a', 'write', ['1'], undefined, 0, 1]
    assert.equal(verdictOf([one, ['b', 'cas', ['2', '3'], 'false', 2, 3]]), 'linearizable')
    assert.equal(verdictOf([one, ['b', 'cas', ['1', '3'], 'false', 2, 3]]), 'not-linearizable')
    assert.equal(verdictOf([one, ['b', 'cas', ['2', '3'], 'true', 2, 3]]), 'not-linearizable')
  })

  it('refuses two increments that got one number, and a lost one', () => {
    const incr = (result: string, at: number): Row => ['a', 'incr', [], result, at, at + 1]
    assert.equal(verdictOf([incr('1', 0), incr('2', 2)], kv), 'linearizable')
    assert.equal(verdictOf([incr('1', 0), incr('1', 2)], kv), 'not-linearizable')
    assert.equal(verdictOf([incr('1', 0), ['b', 'get', [], null, 2, 3]], kv), 'not-linearizable')
  })

  it('checks keys apart, and one wrong key condemns all', () => {
    const right = operationsOf([['a', 'write', ['1'], undefined, 0, 1]], 'x')
    const wrong = operationsOf([['a', 'read', [], '1', 2, 3]], 'y')
    assert.equal(check(right, register).kind, 'linearizable')
    const verdict = check([...right, ...wrong], register)
    assert.ok(verdict.kind === 'not-linearizable')
    assert.equal(verdict.window.key, 'y')
  })

  it('throws on a function that the model does not have', () => {
    assert.throws(
      () => verdictOf([['a', 'incr', [], '1', 0, 1]]),
      /no function "incr": accepted are read, write, cas/,
    )
  })

  for (const [name, model, call, most] of [
    ['register', register, registerCall, 7],
    ['kv', kv, kvCall, 7],
    ['append', kv, appendCall, 6],
  ] as const) {
    it(`agrees with a search over all orders: ${name}`, () => {
      const seen = { right: 0, wrong: 0 }
      fc.assert(
        fc.property(anyOperations(call, most), operations => {
          const isRight = isOrderable(operations, model)
          seen[isRight ? 'right' : 'wrong']++
          assert.equal(check(operations, model).kind, isRight ? 'linearizable' : 'not-linearizable')
        }),
        { numRuns: 3000 },
      )
      assert.ok(seen.right > 100 && seen.wrong > 100, JSON.stringify(seen))
    })
  }

  for (const [name, model, ask] of [
    ['register', register, registerAsk],
    ['kv', kv, kvAsk],
  ] as const) {
    it(`takes what clients see of an atomic object, and no read from nowhere among it: ${name}`, () => {
      fc.assert(
        fc.property(atomicOperations(model, ask, 300), fc.nat(), (operations, draw) => {
          assert.equal(check(operations, model).kind, 'linearizable')
          const reads = operations.filter(each => /read|get/.test(each.f) && each.result !== undefined)
          if (reads.length === 0) return
          const lied = reads[draw % reads.length]!
          const lying = operations.map(each => (each === lied ? { ...each, result: '99' } : each))
          assert.equal(check(lying, model).kind, 'not-linearizable')
        }),
        { numRuns: 200 },
      )
    })
  }

  it('refuses a stale read beyond any overlap in a history of unique values', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 60 }), fc.nat(), (writes, draw) => {
        const rows: Row[] = []
        for (let i = 0; i < writes; i++) {
          rows.push(['w', 'write', [String(i)], undefined, 10 * i, 10 * i + 6])
          rows.push(['r', 'read', [], String(i), 10 * i + 2, 10 * i + 8])
        }
        assert.equal(verdictOf(rows), 'linearizable')
        const stale = String(draw % (writes - 1))
        rows.push(['r', 'read', [], stale, 10 * writes, 10 * writes + 1])
        assert.equal(verdictOf(rows), 'not-linearizable')
      }),
      { numRuns: 100 },
    )
  })
})

describe('the limits of a search', () => {
  /** Nobody can tell in which order these were appended until the last read, which says that it was none. */
  function hard(appends: number): Operation[] {
    const rows: Row[] = []
    for (let i = 0; i < appends; i++) rows.push([`p${i}`, 'append', [`<${i}>`], undefined, i, 1000 + i])
    rows.push(['r', 'get', [], '<x>', 2000, 2001])
    return operationsOf(rows)
  }

  it('say "unknown" when time ends, by the clock they are given', () => {
    let ms = 0
    const verdict = check(hard(14), kv, { timeoutMs: 500, now: () => (ms += 10) })
    assert.ok(verdict.kind === 'unknown')
    assert.equal(verdict.why, 'time')
    assert.deepEqual(verdict.undecided, [''])
  })

  it('say "unknown" when memory ends', () => {
    const verdict = check(hard(14), kv, { bytesMax: 2 ** 20 })
    assert.ok(verdict.kind === 'unknown')
    assert.equal(verdict.why, 'memory')
  })

  it('do not hide a violation of another key behind a hard one', () => {
    const other = operationsOf(
      Array.from(
        { length: 40 },
        (_, i): Row => ['a', 'get', [], i === 39 ? 'lie' : null, 3000 + 2 * i, 3001 + 2 * i],
      ),
      'other',
    )
    let ms = 0
    const verdict = check([...hard(14), ...other], kv, { timeoutMs: 5_000, now: () => (ms += 1) })
    assert.ok(verdict.kind === 'not-linearizable')
    assert.equal(verdict.window.key, 'other')
  })

  it('tell what goes on', () => {
    let ms = 0
    const phases = new Set<string>()
    check(hard(12), kv, {
      timeoutMs: 20_000,
      bytesMax: 2 ** 24,
      now: () => (ms += 50),
      onProgress: ({ phase, keys, configurations }) => {
        phases.add(phase)
        assert.ok(keys === 1 && configurations > 0)
      },
    })
    assert.ok(phases.has('searching'))
  })
})

describe('crashed operations', () => {
  it('cost little: 400 of them in one register of 1,000 operations', () => {
    const rows: Row[] = []
    let value = '0'
    rows.push(['w', 'write', [value], undefined, 0, 1])
    for (let i = 1; i < 1000; i++) {
      const at = 10 * i
      if (i % 5 < 2) rows.push([`c${i}`, 'write', [String(i % 7)], undefined, at, null])
      else if (i % 5 === 2) {
        value = String(i % 3)
        rows.push(['w', 'write', [value], undefined, at, at + 5])
      } else rows.push(['r', 'read', [], value, at, at + 5])
    }
    assert.equal(verdictOf(rows), 'linearizable')
    // Two reads that no crashed write explains: each wrote another value.
    rows.push(['r', 'read', [], '8', 10_000, 10_001])
    const verdict = check(operationsOf(rows), register, { timeoutMs: 10_000 })
    assert.equal(verdict.kind, 'not-linearizable')
  })
})
