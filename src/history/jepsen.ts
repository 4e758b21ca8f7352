/**
 * How Jepsen's histories say what was asked and answered, shared by its log lines and its EDN maps: one `value` that is
 * the argument in a call and the answer (or the argument again) in a completion.
 */
import { HistoryError, type HistoryEvent } from './event.ts'
import type { Operation, Value } from './operation.ts'

/** What stands for a value: nil, one value, a pair, or a keyword such as `:timed-out`, which explains a failure. */
export type JepsenValue =
  | { readonly kind: 'value'; readonly value: Value }
  | { readonly kind: 'pair'; readonly values: readonly [Value, Value] }
  | { readonly kind: 'reason' }

export interface JepsenLine {
  readonly process: string
  readonly type: string
  readonly f: string
  readonly key: string
  readonly value: JepsenValue
  readonly timeMs: number | null
}

/** Of a call: null for functions that answer a value, one value, or a pair. */
const argumentKinds: Readonly<Record<string, 'none' | 'one' | 'pair'>> = {
  read: 'none',
  get: 'none',
  del: 'none',
  write: 'one',
  put: 'one',
  set: 'one',
  append: 'one',
  cas: 'pair',
}
const types = ['invoke', 'ok', 'fail', 'info'] as const

/** `call` is the process's open call. Throws HistoryError. */
export function eventOf(
  line: JepsenLine,
  call: Pick<Operation, 'f' | 'key' | 'args'> | undefined,
): HistoryEvent {
  const { process, f, key, value, timeMs } = line
  const type = types.find(each => each === line.type)
  if (type === undefined) throw new HistoryError(`type :${line.type}: accepted are :${types.join(', :')}`)
  const kind = Object.hasOwn(argumentKinds, f) ? argumentKinds[f]! : undefined
  if (kind === undefined) {
    throw new HistoryError(`function :${f}: accepted are :${Object.keys(argumentKinds).join(', :')}`)
  }
  if (type === 'invoke') return { type, process, f, key, args: argumentsOf(f, kind, value), timeMs }
  if (call !== undefined && (call.f !== f || call.key !== key)) {
    throw new HistoryError(`process ${process} completes :${f} and has called :${call.f}`)
  }
  if (type === 'info') return { type, process, timeMs }
  // A compare-and-set that names its arguments was answered "no"; one that gives a reason was not answered.
  if (type === 'fail' && !(kind === 'pair' && value.kind === 'pair')) return { type, process, timeMs }
  if (kind === 'none')
    return { type: 'ok', process, value: f === 'del' ? undefined : answerOf(f, value), timeMs }
  const echoed = argumentsOf(f, kind, value)
  if (call !== undefined && echoed.some((each, place) => each !== call.args[place])) {
    throw new HistoryError(`process ${process} completes :${f} with another value than it called it with`)
  }
  return { type: 'ok', process, value: kind === 'pair' ? String(type === 'ok') : undefined, timeMs }
}

function argumentsOf(f: string, kind: 'none' | 'one' | 'pair', value: JepsenValue): readonly Value[] {
  if (kind === 'pair' && value.kind === 'pair') return value.values
  if (kind === 'one' && value.kind === 'value') return [value.value]
  if (kind === 'none' && value.kind === 'value' && value.value === null) return []
  const accepted = { none: 'nil', one: 'one value', pair: 'a pair [EXPECTED NEW]' }[kind]
  throw new HistoryError(`the value of :${f} is wrong: accepted is ${accepted}`)
}

function answerOf(f: string, value: JepsenValue): Value {
  if (value.kind === 'value') return value.value
  throw new HistoryError(`the answer of :${f} is wrong: accepted is one value or nil`)
}
