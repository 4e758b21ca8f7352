/**
 * The checker: is a history linearizable (Herlihy, Wing 1990) under a model? Each key is an object of its own, and a
 * history is linearizable exactly if each object's part is (Herlihy, Wing, Theorem 1; Horn and Kroening 2015 for what it
 * saves), so keys are searched one by one, small ones first. A key that takes long waits until all others had their
 * first look: a violation elsewhere is a violation.
 *
 * Linearizable and NOT are proofs; when time or memory end first the verdict is "unknown", never a guess.
 */
import { type Model, mistakeOf } from './model.ts'
import type { Operation } from './operation.ts'
import { Partition } from './partition.ts'
import { problemOf } from './problem.ts'
import { type Budget, search } from './search.ts'
import { smallestWindow, type Window } from './window.ts'

export interface Limits {
  /** For the verdict, milliseconds. */
  readonly timeoutMs: number
  /** For configurations and states of one key's search; the operations themselves come on top. */
  readonly bytesMax: number
  /** For making the window of a violation small, milliseconds; the verdict stands already. */
  readonly windowMs: number
  /** Milliseconds since an arbitrary start. */
  readonly now: () => number
  /** Called a few times a second while a search runs. */
  readonly onProgress: (progress: Progress) => void
}

export interface Progress {
  readonly phase: 'searching' | 'making the window small'
  readonly key: string
  readonly keysDone: number
  readonly keys: number
  readonly configurations: number
  readonly bytes: number
  readonly elapsedMs: number
}

export interface Figures {
  readonly operations: number
  /** Of these, how many have an unknown outcome. */
  readonly unknown: number
  readonly keys: number
  /** Stored by all searches together. */
  readonly configurations: number
  readonly elapsedMs: number
}

export type Verdict =
  | { readonly kind: 'linearizable'; readonly figures: Figures }
  | { readonly kind: 'not-linearizable'; readonly figures: Figures; readonly window: Window }
  | {
      readonly kind: 'unknown'
      readonly figures: Figures
      /** What ended first, and which keys have no verdict; the others are linearizable. */
      readonly why: 'time' | 'memory'
      readonly undecided: readonly string[]
    }

export const defaultLimits: Limits = {
  timeoutMs: 60_000,
  bytesMax: 2 ** 30,
  windowMs: 15_000,
  now: () => performance.now(),
  onProgress: () => {},
}

/** A first look at a key stores so many configurations at most: tens of milliseconds. */
const firstLookConfigurationsMax = 50_000
const progressEveryMs = 250

/** Throws on an operation that the model does not know. */
export function check(
  operations: readonly Operation[],
  model: Model,
  options: Partial<Limits> = {},
): Verdict {
  const limits = { ...defaultLimits, ...options }
  const startMs = limits.now()
  const keys = byKey(operations, model)
  const unknown = operations.filter(each => each.returnedAt === Number.POSITIVE_INFINITY).length
  const undecided = new Map(keys)
  let configurations = 0
  let why: 'time' | 'memory' = 'time'

  const figures = (): Figures => ({
    operations: operations.length,
    unknown,
    keys: keys.length,
    configurations,
    elapsedMs: limits.now() - startMs,
  })
  let progressMs = startMs
  const budgetOf = (
    key: string,
    phase: Progress['phase'],
    untilMs: number,
    configurationsMax: number,
  ): Budget => ({
    configurationsMax,
    bytesMax: limits.bytesMax,
    isOver(count, bytes) {
      const nowMs = limits.now()
      if (nowMs - progressMs >= progressEveryMs) {
        progressMs = nowMs
        limits.onProgress({
          phase,
          key,
          keysDone: keys.length - undecided.size,
          keys: keys.length,
          configurations: configurations + count,
          bytes,
          elapsedMs: nowMs - startMs,
        })
      }
      return nowMs >= untilMs
    },
  })
  /** A verdict if the key settles the whole. */
  const look = (
    key: string,
    its: readonly Operation[],
    untilMs: number,
    configurationsMax: number,
  ): Verdict | null => {
    const partition = new Partition(key, its, model)
    const problem = problemOf(partition, { from: 0, to: partition.events.length }, () => true)
    const outcome = search(problem, budgetOf(key, 'searching', untilMs, configurationsMax))
    configurations += outcome.configurations
    if (outcome.kind === 'ordered') undecided.delete(key)
    if (outcome.kind === 'gave-up' && outcome.why === 'memory') why = 'memory'
    if (outcome.kind !== 'impossible') return null
    const stands = figures()
    const windowUntilMs = limits.now() + limits.windowMs
    const budget = {
      ...budgetOf(key, 'making the window small', windowUntilMs, Number.POSITIVE_INFINITY),
      // The states of the search that found it are there already.
      bytesMax: limits.bytesMax + partition.bytes,
    }
    return {
      kind: 'not-linearizable',
      figures: stands,
      window: smallestWindow(partition, outcome.suspects, problem.outlooks.size === 0, budget),
    }
  }

  const endMs = startMs + limits.timeoutMs
  for (const [key, its] of keys) {
    if (limits.now() >= endMs) break
    const violation = look(key, its, endMs, firstLookConfigurationsMax)
    if (violation !== null) return violation
  }
  // What is left of the time is shared out evenly, again before each key.
  let left = undecided.size
  for (const [key, its] of [...undecided]) {
    const nowMs = limits.now()
    if (nowMs >= endMs) break
    const violation = look(key, its, nowMs + (endMs - nowMs) / left--, Number.POSITIVE_INFINITY)
    if (violation !== null) return violation
  }
  if (undecided.size === 0) return { kind: 'linearizable', figures: figures() }
  return { kind: 'unknown', figures: figures(), why, undecided: [...undecided.keys()] }
}

/** Those with the fewest operations first. */
function byKey(operations: readonly Operation[], model: Model): [key: string, its: Operation[]][] {
  const found = new Map<string, Operation[]>()
  for (const each of operations) {
    const mistake = mistakeOf(model, each.f, each.args, each.result)
    if (mistake !== null) throw new TypeError(mistake)
    const its = found.get(each.key)
    if (its === undefined) found.set(each.key, [each])
    else its.push(each)
  }
  return [...found].sort(([, a], [, b]) => a.length - b.length)
}
