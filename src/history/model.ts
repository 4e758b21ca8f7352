/**
 * What the store should be, as if it served one call at a time. A model is a table of functions; the checker asks for
 * nothing else, so a new data type is a new table.
 *
 * A state is a primitive, so that equal states are `===`. A richer one is written as a text in one canonical form.
 */
import type { Value } from './operation.ts'

export type State = string | number | null

/**
 * What a call does, given its answer, whatever the state is. The search lives on it:
 * - `reads`: leaves every state as it is or is impossible there;
 * - `overwrites`: is possible in every state and always leaves the same one;
 * - `changes`: anything else. Always right, and slowest.
 */
export type Effect = 'reads' | 'overwrites' | 'changes'

export interface FunctionSpec {
  /** For people whose history is refused: `cas EXPECTED NEW → true | false`. */
  readonly usage: string
  readonly argsMin: number
  readonly argsMax: number
  /** What is wrong with these arguments or this answer (undefined: none given), or null. */
  mistake?(args: readonly Value[], result: Value | undefined): string | null
  /** The state after the call, or undefined where `result` can't be answered in `state`. An undefined result fits all. */
  step(state: State, args: readonly Value[], result: Value | undefined): State | undefined
  effect(args: readonly Value[], result: Value | undefined): Effect
  /**
   * For speed alone, as the next two. The states that the call tells from all others: in any two states that are not among them it is possible or not
   * alike, and leaves them as they are or leads to the same one. Null, or no such method: it may tell any two apart.
   */
  tellsApart?(args: readonly Value[], result: Value | undefined): readonly State[] | null
  /** The one state in which the call is possible, or undefined. No such method: not known to be one. */
  needs?(args: readonly Value[], result: Value | undefined): State | undefined
  /** Of a call that changes: the one state it may lead to, where it changes anything. No such method: it may be any. */
  leadsTo?(args: readonly Value[], result: Value | undefined): State | undefined
}

export interface Model {
  readonly name: string
  /** Of a key that nobody touched yet. */
  readonly initial: State
  readonly functions: ReadonlyMap<string, FunctionSpec>
}

/** What is wrong with a call (or, given `result`, with its answer), and what is accepted; null where nothing is. */
export function mistakeOf(
  model: Model,
  f: string,
  args: readonly Value[],
  result: Value | undefined,
): string | null {
  const spec = model.functions.get(f)
  if (spec === undefined) {
    return `the ${model.name} model has no function ${JSON.stringify(f)}: accepted are ${[...model.functions.keys()].join(', ')}`
  }
  if (args.length < spec.argsMin || args.length > spec.argsMax) {
    return `${f} has ${args.length} arguments: accepted is ${spec.usage}`
  }
  const mistake = spec.mistake?.(args, result) ?? null
  return mistake === null ? null : `${mistake}: accepted is ${spec.usage}`
}
