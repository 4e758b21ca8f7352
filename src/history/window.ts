/**
 * The smallest window that can't be ordered: out of a history that is not linearizable, a few operations that already
 * show it, for a person to look at.
 *
 * A window is a stretch of time whose operations can't be put in order *whatever the value was before*. What is open at
 * its start may have taken effect before it or not; the value is any that was ever written. That is what makes it a
 * proof: leaving operations away alone proves nothing, a read of 3 without the write of 3 is no fault of the store.
 * The stretch is looked for around the places where the search got stuck, growing to both sides until it is enough; then
 * its end and its start are brought together as far as can be.
 *
 * Within the stretch, operations are then made optional (`problem.ts`): they may have happened, within their time and as
 * they were answered, or not. What can't be ordered with some operations required can't be ordered with more of them;
 * so the ones that are needed are found one by one, by doubling and halving, looking back from the end. None of the
 * result can be left out: "smallest" is meant in the sense of inclusion.
 */
import type { State } from './model.ts'
import type { Operation } from './operation.ts'
import type { Partition } from './partition.ts'
import { type Problem, problemOf, type Stretch } from './problem.ts'
import { type Budget, search } from './search.ts'

export interface Window {
  readonly key: string
  /** Where the stretch begins, a place as in the operations; null for the beginning of the history. */
  readonly startsAt: number | null
  /**
   * In the order of their calls. Whatever the value was before the start, and whichever other operations took effect,
   * they can't be put in order.
   */
  readonly operations: readonly Operation[]
  /** Operations of the key that are not shown. */
  readonly others: number
  /** Without any one of them the rest can be ordered. False where time or memory ended before that was known. */
  readonly isSmallest: boolean
}

/** Around the first try. */
const eventsAroundMin = 4

/**
 * `suspects`: operations around which the fault is likely to be; the first is where the search got stuck. `isExhaustive`:
 * it left no state out on the way there.
 */
export function smallestWindow(
  partition: Partition,
  suspects: readonly number[],
  isExhaustive: boolean,
  budget: Budget,
): Window {
  const { operations, events } = partition
  const met = [...partition.states]
  const middles = suspects.map(each => events.indexOf((each << 1) | 1) + 1)
  const latest = middles[0]!
  const possible = possibleStates(partition)
  /** Every state that the stretch may begin with; null where that is not known. */
  const startsOf = (problem: Problem, from: number): number[] | null => {
    const { apart } = problem
    if (apart === null || possible === null) {
      // Up to where it got stuck an exhaustive search has met all that there can be.
      return isExhaustive && from <= latest ? [...met.keys()] : null
    }
    // Of those that nobody tells apart one is enough.
    const others = [...possible].filter(each => !apart.has(each)).slice(0, 1)
    const states = [...possible].filter(each => apart.has(each))
    return [...states, ...others].map(each => partition.stateNumber(each))
  }
  const isImpossible = (from: number, to: number, isRequired: (operation: number) => boolean): boolean => {
    const problem = problemOf(partition, { from, to }, isRequired)
    const starts = from === 0 ? [0] : startsOf(problem, from)
    if (starts === null) return false
    const outcome = search(problem, budget, starts)
    if (outcome.kind === 'gave-up') throw new GaveUp()
    return outcome.kind === 'impossible'
  }
  const all = () => true
  // Known not to be orderable.
  let from = 0
  let to = events.length
  let needed = requiredIn(partition, { from, to })
  let isSmallest = false
  const narrow = (newFrom: number, newTo: number) => {
    from = newFrom
    to = newTo
    needed = requiredIn(partition, { from, to })
  }
  try {
    narrow(...around(events.length, middles, (early, late) => isImpossible(early, late, all)))
    narrow(from, from + fewest(to - from, count => isImpossible(from, from + count, all)))
    narrow(to - fewest(to - from, count => isImpossible(to - count, to, all)), to)
    needed = fewestRequired(needed, some => {
      const isEnough = isImpossible(from, to, each => some.has(each))
      if (isEnough) needed = [...some]
      return isEnough
    })
    // What is needed may begin later than the stretch: then the stretch may, too.
    const first = events.indexOf(Math.min(...needed) << 1)
    const some = new Set(needed)
    if (first > from && isImpossible(first, to, each => some.has(each))) from = first
    isSmallest = true
  } catch (error) {
    if (!(error instanceof GaveUp)) throw error
  }
  const shown = needed.sort((a, b) => a - b).map(each => operations[each]!)
  const start = operations[events[from]! >> 1]!
  const startsAt = from === 0 ? null : events[from]! & 1 ? start.returnedAt : start.calledAt
  return {
    key: partition.key,
    startsAt,
    operations: shown,
    others: operations.length - shown.length,
    isSmallest,
  }
}

class GaveUp extends Error {}

/** The first stretch that is enough, of those around the middles that grow to both sides; the whole is known to be. */
function around(
  end: number,
  middles: readonly number[],
  isEnough: (early: number, late: number) => boolean,
): [from: number, to: number] {
  for (let side = eventsAroundMin; side < end; side *= 2) {
    for (const middle of middles) {
      const early = Math.max(0, middle - side)
      const late = Math.min(end, middle + side)
      if (isEnough(early, late)) return [early, late]
    }
  }
  return [0, end]
}

/** What the key can ever hold: at first, or by a write; null where that is not known. */
function possibleStates({ model, shapes }: Partition): ReadonlySet<State> | null {
  const states = new Set([model.initial])
  for (const { effect, spec, args, result } of shapes) {
    if (effect === 'reads') continue
    const state =
      effect === 'overwrites' ? spec.step(model.initial, args, result) : spec.leadsTo?.(args, result)
    if (state === undefined) return null
    states.add(state)
  }
  return states
}

/** Operations that are called and return within the stretch, the latest return first. */
function requiredIn({ events, operations }: Partition, { from, to }: Stretch): number[] {
  const isCalled = new Uint8Array(operations.length)
  const found: number[] = []
  for (let i = from; i < to; i++) {
    const operation = events[i]! >> 1
    if ((events[i]! & 1) === 0) isCalled[operation] = 1
    else if (isCalled[operation] === 1) found.push(operation)
  }
  return found.reverse()
}

/** A set none of which can be left out, given that all of `candidates` are enough. */
function fewestRequired(
  candidates: readonly number[],
  isEnough: (some: ReadonlySet<number>) => boolean,
): number[] {
  const needed: number[] = []
  let rest = candidates
  while (!isEnough(new Set(needed))) {
    const count = fewest(rest.length, taken => isEnough(new Set([...needed, ...rest.slice(0, taken)])))
    needed.push(rest[count - 1]!)
    rest = rest.slice(0, count - 1)
  }
  return needed
}

/** The least count from 1 to `max` that suffices, by doubling and halving; `max` is known to suffice. */
function fewest(max: number, suffices: (count: number) => boolean): number {
  let high = 1
  while (high < max && !suffices(high)) high *= 2
  let low = Math.floor(high / 2)
  high = Math.min(high, max)
  // `low` does not suffice (0 never does), `high` does.
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (suffices(middle)) high = middle
    else low = middle
  }
  return high
}
