/**
 * One key of a key-value store: what GET, SET, APPEND, INCRBY, DEL and compare-and-set of Redis (and of Roundhouse) do to
 * it. `put` is another name of `set`. Integers are int64 as texts; a call that answered an error did nothing and belongs
 * into the history as failed.
 */
import type { FunctionSpec, Model, State } from './model.ts'
import type { Value } from './operation.ts'
import { compareAndSet, read, write } from './register-model.ts'

const int64Min = -(2n ** 63n)
const int64Max = 2n ** 63n - 1n

/** Null unless `text` is an int64 as Redis writes them: no plus, no leading zeros. */
function int64Of(text: string): bigint | null {
  if (!/^(0|-?[1-9]\d{0,18})$/.test(text)) return null
  const value = BigInt(text)
  return value >= int64Min && value <= int64Max ? value : null
}

function increment(absent: Value, sign: 1n | -1n, name: string): FunctionSpec {
  return {
    usage: `${name} [BY] → INTEGER`,
    argsMin: 0,
    argsMax: 1,
    mistake(args, result) {
      if (args.length === 1 && (args[0] === null || int64Of(args[0]!) === null))
        return `${name}'s BY is an integer`
      if (result !== undefined && (result === null || int64Of(result) === null))
        return `${name} answers an integer`
      return null
    },
    step(state, args, result) {
      const old = state === absent ? 0n : int64Of(String(state))
      const next = old === null ? null : old + sign * BigInt(args[0] ?? '1')
      // No integer, or one too many: an error, which leaves the value alone and is not what a number was answered for.
      if (next === null || next < int64Min || next > int64Max) return result === undefined ? state : undefined
      const text = next.toString()
      return result === undefined || result === text ? text : undefined
    },
    effect: () => 'changes',
    // The one number that it makes this answer of.
    tellsApart(args, result) {
      if (result === undefined || result === null) return null
      const before = BigInt(result) - sign * BigInt(args[0] ?? '1')
      return before === 0n ? ['0', absent] : [before.toString()]
    },
    leadsTo: (_args, result) => result,
  }
}

/** `absent` is what a read of a missing key answers: null, or `''` in stores that don't tell the two apart. */
export function kvModel(absent: Value): Model {
  const isAbsent = (state: State) => state === absent
  const append: FunctionSpec = {
    usage: 'append VALUE (→ LENGTH, not looked at)',
    argsMin: 1,
    argsMax: 1,
    mistake: args => (args[0] === null ? "append's VALUE is a text" : null),
    step: (state, args) => (state ?? '') + args[0]!,
    effect: () => 'changes',
  }
  const remove: FunctionSpec = {
    usage: 'del → 0 | 1, or nothing',
    argsMin: 0,
    argsMax: 0,
    mistake: (_args, result) =>
      result === undefined || result === '0' || result === '1' ? null : 'del answers 0 or 1',
    step: (state, _args, result) =>
      result === undefined || (result === '0') === isAbsent(state) ? absent : undefined,
    effect: (_args, result) => (result === undefined ? 'overwrites' : result === '0' ? 'reads' : 'changes'),
    tellsApart: () => [absent],
    leadsTo: () => absent,
  }
  return {
    name: 'kv',
    initial: absent,
    functions: new Map([
      ['get', read('get → VALUE or nil')],
      ['set', write('set VALUE')],
      ['put', write('put VALUE')],
      ['append', append],
      ['incr', increment(absent, 1n, 'incr')],
      ['decr', increment(absent, -1n, 'decr')],
      ['cas', compareAndSet],
      ['del', remove],
    ]),
  }
}
