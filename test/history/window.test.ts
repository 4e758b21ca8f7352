import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { check } from '../../src/history/check.ts'
import { kvModel } from '../../src/history/kv-model.ts'
import type { Model, State } from '../../src/history/model.ts'
import { callText, type Operation } from '../../src/history/operation.ts'
import { registerModel } from '../../src/history/register-model.ts'
import { timeline } from '../../src/history/timeline.ts'
import type { Window } from '../../src/history/window.ts'
import { anyOperations, isOrderable, kvCall, operationsOf, type Row, registerCall } from './histories.ts'

const register = registerModel(null)
const kv = kvModel(null)

function windowOf(operations: Operation[], model: Model = register): Window {
  const verdict = check(operations, model)
  assert.ok(verdict.kind === 'not-linearizable', verdict.kind)
  return verdict.window
}

/** A long correct history of unique values around a few rows of one's own. */
function amid(middle: Row[]): Operation[] {
  const rows: Row[] = []
  const some = (from: number, count: number) => {
    for (let i = 0; i < count; i++) {
      const at = from + 10 * i
      rows.push(['w', 'write', [String(at)], undefined, at, at + 3])
      rows.push(['r', 'read', [], String(at), at + 4, at + 6])
    }
  }
  some(0, 200)
  rows.push(
    ...middle.map(([p, f, a, v, from, to]): Row => [p, f, a, v, 5000 + from, to === null ? null : 5000 + to]),
  )
  some(9000, 200)
  return operationsOf(rows)
}

describe('the smallest window', () => {
  it('is a single read when nobody wrote what it answered', () => {
    const window = windowOf(amid([['x', 'read', [], '7', 0, 1]]))
    assert.deepEqual(window.operations.map(callText), ['read'])
    assert.equal(window.others, 800)
    assert.ok(window.isSmallest)
  })

  it('is the newer write and the stale read, out of 800 others', () => {
    const window = windowOf(
      amid([
        ['x', 'write', ['1'], undefined, 0, 1],
        ['x', 'read', [], '1', 2, 3],
        ['y', 'write', ['2'], undefined, 4, 5],
        ['x', 'read', [], '1', 6, 7],
      ]),
    )
    assert.deepEqual(
      window.operations.map(each => [callText(each), each.calledAt]),
      [
        ['write 2', 5004],
        ['read', 5006],
      ],
    )
    assert.equal(window.startsAt, 5004)
  })

  it('is the two increments that got one number', () => {
    const rows: Row[] = Array.from({ length: 50 }, (_, i) => [
      'a',
      'incr',
      [],
      String(i + 1),
      10 * i,
      10 * i + 5,
    ])
    rows.push(['b', 'incr', [], '50', 600, 601])
    const window = windowOf(operationsOf(rows), kv)
    assert.deepEqual(
      window.operations.map(each => each.calledAt),
      [490, 600],
    )
  })

  it('blames nobody for what the search did not come to see', () => {
    const rows: Row[] = Array.from({ length: 10 }, (_, i) => [
      'a',
      'incr',
      [],
      String(i + 1),
      10 * i,
      10 * i + 5,
    ])
    // Nobody can have made 77 of it, so that the search need not begin; what the last call does is anybody's guess.
    rows.push(['b', 'get', [], '77', 200, 201], ['c', 'incr', [], undefined, 300, null])
    const window = windowOf(operationsOf(rows), kv)
    assert.deepEqual(window.operations.map(callText), ['get'])
    assert.equal(window.startsAt, null)
  })

  it('keeps a crashed write in play: what it explains is no violation', () => {
    const window = windowOf(
      amid([
        ['c', 'write', ['1'], undefined, 0, null],
        ['x', 'write', ['2'], undefined, 1, 2],
        ['x', 'read', [], '1', 3, 4],
        ['x', 'write', ['3'], undefined, 5, 6],
        ['x', 'read', [], '1', 7, 8],
      ]),
    )
    // The write of 1 explains either read and not both; without the write of 2 the first needs no explanation.
    assert.deepEqual(window.operations.map(callText), ['write 2', 'read', 'write 3', 'read'])
  })

  it('is whole when time ends before it is small, and says so', () => {
    const verdict = check(amid([['x', 'read', [], '7', 0, 1]]), register, { windowMs: 0, now: slow() })
    assert.ok(verdict.kind === 'not-linearizable')
    assert.equal(verdict.window.operations.length, 801)
    assert.equal(verdict.window.isSmallest, false)
  })

  for (const [name, model, call] of [
    ['register', register, registerCall],
    ['kv', kv, kvCall],
  ] as const) {
    it(`holds of itself, and without any one of its operations no more: ${name}`, () => {
      fc.assert(
        fc.property(anyOperations(call, 7), operations => {
          const verdict = check(operations, model)
          if (verdict.kind !== 'not-linearizable') return
          const { window } = verdict
          assert.ok(window.isSmallest && window.operations.length > 0)
          const isImpossible = (required: readonly Operation[], starts: readonly State[]) =>
            starts.every(start => !isPossible(operations, window, required, model, start))
          const reachable = statesAt(operations, model, window.startsAt ?? Number.NEGATIVE_INFINITY)
          assert.ok(isImpossible(window.operations, reachable))
          const any = [...new Set([...reachable, null, 'other', '0', '1', '2', '3'])]
          for (const one of window.operations) {
            assert.ok(
              !isImpossible(
                window.operations.filter(each => each !== one),
                any,
              ),
              callText(one),
            )
          }
        }),
        { numRuns: 1500 },
      )
    })
  }
})

/** Every state that orders of what was called before `from` lead to, with all in that had returned. */
function statesAt(operations: readonly Operation[], model: Model, from: number): State[] {
  const states = new Set<State>()
  const go = (state: State, left: readonly Operation[]) => {
    if (!left.some(each => each.returnedAt < from)) states.add(state)
    for (const next of left) {
      if (left.some(other => other.returnedAt < next.calledAt)) continue
      const after = model.functions.get(next.f)!.step(state, next.args, next.result)
      if (after === undefined) continue
      go(
        after,
        left.filter(each => each !== next),
      )
    }
  }
  go(
    model.initial,
    operations.filter(each => each.calledAt < from),
  )
  return [...states]
}

/** The window's claim by brute force: a subset of the others, within their time, and all that are required. */
function isPossible(
  operations: readonly Operation[],
  window: Window,
  required: readonly Operation[],
  model: Model,
  start: Model['initial'],
): boolean {
  const from = window.startsAt ?? Number.NEGATIVE_INFINITY
  if (window.startsAt === null && start !== model.initial) return false
  const others = operations.filter(each => !required.includes(each) && each.returnedAt >= from)
  for (let subset = 0; subset < 2 ** others.length; subset++) {
    const chosen = [...required, ...others.filter((_, i) => subset & (1 << i))]
    if (isOrderable(chosen, { ...model, initial: start })) return true
  }
  return false
}

/** A clock that goes on by a second at each look. */
function slow(): () => number {
  let ms = 0
  return () => (ms += 1000)
}

describe('the timeline', () => {
  it('draws who overlaps whom', () => {
    const operations = operationsOf([
      ['a', 'write', ['1'], undefined, 12, 30],
      ['b', 'cas', ['1', '2'], 'true', 15, 40],
      ['c', 'read', [], 'two words', 35, 50],
      ['d', 'write', [null], undefined, 36, null],
    ])
    assert.deepEqual(timeline(operations, 100), [
      '  line   process  operation  answer',
      '  12–30  a        write 1    ok           ├───────┤',
      '  15–40  b        cas 1 2    true             ├───────────────┤',
      '  35–50  c        read       "two words"              ├───────────┤',
      '  36–    d        write nil  unknown                      ├───────────▶',
    ])
  })

  it('shows times where there are any, and the last of very many operations', () => {
    const rows = Array.from({ length: 70 }, (_, i): Row => ['a', 'write', ['1'], undefined, 2 * i, 2 * i + 1])
    const operations = operationsOf(rows).map(each => ({
      ...each,
      calledMs: each.calledAt / 2,
      returnedMs: 99,
    }))
    const lines = timeline(operations, 100)
    assert.equal(lines[0], '  … 10 before these')
    assert.equal(lines.length, 62)
    assert.match(lines[2]!, /^ {2}20–21 +a +write 1 +ok +10\.000–99\.000 +├/)
  })

  it('shortens long values and keeps both ends', () => {
    const [line] = operationsOf([['a', 'read', [], `a${'.'.repeat(300)}z`, 0, 1]]).map(
      each => timeline([each], 80)[1]!,
    )
    assert.match(line!, /"a\.{21}"…"\.{21}z"/)
  })
})
