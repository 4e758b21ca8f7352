/**
 * Histories for tests: written by hand, or seen by clients of one object that really is atomic; and the checker's judge, a
 * search over all orders that shares nothing with it but the models.
 */
import fc from 'fast-check'
import type { Model, State } from '../../src/history/model.ts'
import type { Operation, Value } from '../../src/history/operation.ts'

/** `[process, f, args, result, calledAt, returnedAt]`; a return of null means that the outcome is unknown. */
export type Row = [
  process: string,
  f: string,
  args: Value[],
  result: Value | undefined,
  from: number,
  to: number | null,
]

export function operationsOf(rows: readonly Row[], key = ''): Operation[] {
  return rows.map(([process, f, args, result, calledAt, to]) => ({
    process,
    f,
    key,
    args,
    result,
    calledAt,
    returnedAt: to ?? Number.POSITIVE_INFINITY,
    calledMs: null,
    returnedMs: null,
  }))
}

/** Tries every order of every subset that has all answered operations. For a handful of operations. */
export function isOrderable(operations: readonly Operation[], model: Model): boolean {
  const isAnswered = (each: Operation) => each.returnedAt !== Number.POSITIVE_INFINITY
  const go = (state: State, left: readonly Operation[]): boolean => {
    if (!left.some(isAnswered)) return true
    return left.some(next => {
      // Nobody who returned before it was called may come after it.
      if (left.some(other => other.returnedAt < next.calledAt)) return false
      const after = model.functions.get(next.f)!.step(state, next.args, next.result)
      return (
        after !== undefined &&
        go(
          after,
          left.filter(each => each !== next),
        )
      )
    })
  }
  return go(model.initial, operations)
}

export interface Asked {
  readonly f: string
  readonly args: readonly Value[]
}

/** Any operations whatever, with distinct places for their events: right and wrong ones. */
export function anyOperations(
  call: fc.Arbitrary<Asked & { result: Value | undefined }>,
  most: number,
): fc.Arbitrary<Operation[]> {
  const one = fc.record({
    call,
    from: fc.nat(1000),
    length: fc.integer({ min: 1, max: 500 }),
    isKnown: fc.boolean(),
    sure: fc.nat(3),
  })
  return fc.array(one, { minLength: 1, maxLength: most }).map(drafts => {
    const places = drafts.flatMap(({ from, length }, index) => [
      { at: from + index / 100, index, isCall: true },
      { at: from + length + index / 100, index, isCall: false },
    ])
    places.sort((a, b) => a.at - b.at)
    return drafts.map(({ call: { f, args, result }, sure, isKnown }, index) => {
      const isUnknown = sure === 0 && !isKnown
      return {
        process: `p${index}`,
        f,
        key: '',
        args,
        result: isUnknown ? undefined : result,
        calledAt: places.findIndex(each => each.index === index && each.isCall),
        returnedAt: isUnknown
          ? Number.POSITIVE_INFINITY
          : places.findIndex(each => each.index === index && !each.isCall),
        calledMs: null,
        returnedMs: null,
      }
    })
  })
}

/**
 * What clients see of an atomic object: each step lets one process call, lets its call take effect, or lets it return (or
 * lose the answer). A call that is lost before its effect never happened; after it, it did.
 */
export function atomicOperations(
  model: Model,
  ask: fc.Arbitrary<Asked>,
  most: number,
): fc.Arbitrary<Operation[]> {
  const step = fc.record({ process: fc.nat(3), ask, isLost: fc.integer({ min: 0, max: 9 }) })
  return fc.array(step, { maxLength: most }).map(steps => {
    let state = model.initial
    const operations: (Operation & { result: Value | undefined; returnedAt: number })[] = []
    const open = new Map<
      number,
      { operation: (typeof operations)[number]; answer: Value | undefined | null; isDone: boolean }
    >()
    steps.forEach(({ process, ask: { f, args }, isLost }, at) => {
      const call = open.get(process)
      if (call === undefined) {
        const operation = operationsOf([[`p${process}`, f, [...args], undefined, at, null]])[0]!
        operations.push(operation as (typeof operations)[number])
        open.set(process, { operation: operations.at(-1)!, answer: undefined, isDone: false })
        return
      }
      if (isLost === 0) {
        open.delete(process)
        return
      }
      if (call.isDone) {
        call.operation.result = call.answer as Value | undefined
        call.operation.returnedAt = at
        open.delete(process)
        return
      }
      const before = state
      state = model.functions.get(call.operation.f)!.step(state, call.operation.args, undefined)!
      call.answer = answerOf(call.operation, before, state)
      call.isDone = true
    })
    return operations
  })
}

function answerOf({ f, args }: Operation, before: State, after: State): Value | undefined {
  const text = (state: State) => (state === null ? null : String(state))
  if (f === 'read' || f === 'get') return text(before)
  if (f === 'cas') return String(before === args[0])
  if (f === 'incr') return text(after)
  if (f === 'del') return before === null ? '0' : '1'
  return undefined
}

const small = fc.nat(2).map(String)

export const registerAsk: fc.Arbitrary<Asked> = fc.oneof(
  fc.constant({ f: 'read', args: [] }),
  small.map(value => ({ f: 'write', args: [value] })),
  fc.tuple(small, small).map(args => ({ f: 'cas', args })),
)

export const registerCall: fc.Arbitrary<Asked & { result: Value | undefined }> = fc.oneof(
  fc.option(small).map(result => ({ f: 'read', args: [], result })),
  small.map(value => ({ f: 'write', args: [value], result: undefined })),
  fc
    .tuple(small, small, fc.constantFrom('true', 'false', undefined))
    .map(([from, to, result]) => ({ f: 'cas', args: [from, to], result })),
)

/** Counters and texts don't mix: an increment of a text is an error, which has no place in a history. */
export const kvAsk: fc.Arbitrary<Asked> = fc.oneof(
  fc.constant({ f: 'get', args: [] }),
  fc.constant({ f: 'incr', args: [] }),
  fc.constant({ f: 'del', args: [] }),
  small.map(value => ({ f: 'set', args: [value] })),
  fc.tuple(fc.option(small), small).map(args => ({ f: 'cas', args })),
)

export const kvCall: fc.Arbitrary<Asked & { result: Value | undefined }> = fc.oneof(
  fc.option(small).map(result => ({ f: 'get', args: [], result })),
  fc.constantFrom('1', '2', '3').map(result => ({ f: 'incr', args: [], result })),
  fc.constantFrom('0', '1', undefined).map(result => ({ f: 'del', args: [], result })),
  small.map(value => ({ f: 'set', args: [value], result: undefined })),
  fc
    .tuple(fc.option(small), small, fc.constantFrom('true', 'false', undefined))
    .map(([from, to, result]) => ({ f: 'cas', args: [from, to], result })),
)

const letter = fc.constantFrom('a', 'b')

export const appendCall: fc.Arbitrary<Asked & { result: Value | undefined }> = fc.oneof(
  fc
    .array(letter, { maxLength: 3 })
    .map(letters => ({ f: 'get', args: [], result: letters.join('') || null })),
  letter.map(value => ({ f: 'append', args: [value], result: undefined })),
  letter.map(value => ({ f: 'put', args: [value], result: undefined })),
)
