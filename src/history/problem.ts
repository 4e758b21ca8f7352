/**
 * A question to the search: in a stretch of a partition's events, can the *required* operations be put in order when
 * each of the others may be put in or left out (*optional*)? An optional one, too, stands only between its call and its
 * return, and only where its answer fits; one of unknown outcome has no return and stands anywhere after its call.
 *
 * The whole question is: all events, all answered operations required. The smaller ones serve `window.ts`; making an
 * operation optional can only make more orders possible. What was called before the stretch and is open at its start is
 * optional: it may have been put in before.
 *
 * What can't matter is left out: optional reads, what comes after the last required return, and optional writes that
 * nobody could see. Written values that nobody tells apart become one: that makes the writes interchangeable.
 */
import type { State } from './model.ts'
import type { Partition } from './partition.ts'

export interface Problem {
  readonly partition: Partition
  /** By operation; writes that nobody tells apart have one. */
  readonly shapeOf: Int32Array
  /** `operation << 1 | isReturn`, of all that matter. */
  readonly events: Int32Array
  /** By operation: its number among those that are open at the same time, −1 where it never returns. */
  readonly slotOf: Int32Array
  readonly slotCount: number
  /** By operation: 1 for an optional one that has a slot. */
  readonly isOptional: Uint8Array
  /** By operation: the class of one that never returns. Operations of a class are interchangeable. */
  readonly classOf: Int32Array
  /** In the order of their first calls. */
  readonly classes: readonly OptionalClass[]
  /** States that something tells from all others; null where that is not known. */
  readonly apart: ReadonlySet<State> | null
  /** By state, of those that are needed; empty where that is not known, and where `apart` is null. */
  readonly outlooks: ReadonlyMap<number, Outlook>
}

/** What becomes of a state, in places of the problem's events. */
export interface Outlook {
  /** The last call of a required operation that is possible in this state alone. */
  neededAt: number
  /** The last call of an operation that may lead to it, −1 where there is none. */
  producedAt: number
  /** Shapes that may lead to it. */
  readonly producers: Set<number>
}

export interface OptionalClass {
  readonly shape: number
  /** Operations of it: at least 1. */
  total: number
}

/** Places in a partition's events, half-open. */
export interface Stretch {
  readonly from: number
  readonly to: number
}

/** `isRequired` is asked about answered operations that are called and return within the stretch. */
export function problemOf(
  partition: Partition,
  stretch: Stretch,
  isRequired: (operation: number) => boolean,
): Problem {
  const { shapes, operations } = partition
  const { events, required } = eventsWithin(partition, stretch, isRequired)
  const { shapeOf, useless, apart } = simplify(partition, events, required)

  let count = 0
  const slotOf = new Int32Array(operations.length).fill(-1)
  const freeSlots: number[] = []
  let slotCount = 0
  const isOptional = new Uint8Array(operations.length)
  const classOf = new Int32Array(operations.length).fill(-1)
  const classes: OptionalClass[] = []
  const classOfShape = new Map<number, number>()
  for (const event of events) {
    const operation = event >> 1
    const shape = shapeOf[operation]!
    if (required[operation] === 1) {
      // A read that nobody knows the answer of is right anywhere.
      if (shapes[shape]!.effect === 'reads' && shapes[shape]!.result === undefined) continue
    } else {
      if (shapes[shape]!.effect === 'reads' || shape === useless) continue
      isOptional[operation] = 1
    }
    events[count++] = event
    if (event & 1) {
      freeSlots.push(slotOf[operation]!)
    } else if (operations[operation]!.returnedAt !== Number.POSITIVE_INFINITY) {
      slotOf[operation] = freeSlots.pop() ?? slotCount++
    } else {
      let place = classOfShape.get(shape)
      if (place === undefined) {
        place = classes.length
        classes.push({ shape, total: 0 })
        classOfShape.set(shape, place)
      }
      classes[place]!.total++
      classOf[operation] = place
    }
  }
  const kept = events.slice(0, count)
  const outlooks = apart === null ? new Map() : outlooksOf(partition, shapeOf, kept, required)
  return {
    partition,
    shapeOf,
    events: kept,
    slotOf,
    slotCount,
    isOptional,
    classOf,
    classes,
    apart,
    outlooks,
  }
}

/** Calls of what is open at the start, then all events up to the last required return. */
function eventsWithin(
  { events, operations }: Partition,
  { from, to }: Stretch,
  isRequired: (operation: number) => boolean,
): { events: Int32Array; required: Uint8Array } {
  const isOpen = new Uint8Array(operations.length)
  for (let i = 0; i < from; i++) isOpen[events[i]! >> 1] = events[i]! & 1 ? 0 : 1
  const required = new Uint8Array(operations.length)
  let end = from
  for (let i = from; i < to; i++) {
    const operation = events[i]! >> 1
    if ((events[i]! & 1) === 0 || isOpen[operation] === 1 || !isRequired(operation)) continue
    required[operation] = 1
    end = i + 1
  }
  const open: number[] = []
  isOpen.forEach((each, operation) => {
    if (each === 1) open.push(operation << 1)
  })
  const within = new Int32Array(open.length + end - from)
  within.set(open)
  within.set(events.subarray(from, end), open.length)
  return { events: within, required }
}

/** One shape for all writes of values that nobody tells apart; `useless` is that shape when nobody could see it. */
function simplify(
  { shapes, shapeOf, model }: Partition,
  events: Int32Array,
  required: Uint8Array,
): { shapeOf: Int32Array; useless: number | null; apart: ReadonlySet<State> | null } {
  const observers = new Map<number, { isRequired: boolean }>()
  const writes = new Set<number>()
  for (const event of events) {
    const shape = shapeOf[event >> 1]!
    const isRequired = required[event >> 1] === 1
    const { effect } = shapes[shape]!
    if (effect === 'overwrites') writes.add(shape)
    else if (isRequired || effect === 'changes') {
      observers.set(shape, { isRequired: isRequired || observers.get(shape)?.isRequired === true })
    }
  }
  const apart = new Set<State>()
  for (const each of observers.keys()) {
    const { spec, args, result } = shapes[each]!
    const states = spec.tellsApart?.(args, result) ?? null
    if (states === null) return { shapeOf, useless: null, apart: null }
    for (const state of states) apart.add(state)
  }
  const written = (shape: number): State => {
    const { spec, args, result } = shapes[shape]!
    return spec.step(model.initial, args, result)!
  }
  const alike = new Set([...writes].filter(each => !apart.has(written(each))))
  const [one] = alike
  if (one === undefined) return { shapeOf, useless: null, apart }
  const isSeen = [...observers].some(([each, { isRequired }]) => {
    const { spec, args, result } = shapes[each]!
    const next = spec.step(written(one), args, result)
    return next !== undefined && (isRequired || next !== written(one))
  })
  return {
    shapeOf: shapeOf.map(each => (alike.has(each) ? one : each)),
    useless: isSeen ? null : one,
    apart,
  }
}

function outlooksOf(
  partition: Partition,
  shapeOf: Int32Array,
  events: Int32Array,
  required: Uint8Array,
): Map<number, Outlook> {
  const { shapes, model } = partition
  const outlooks = new Map<number, Outlook>()
  events.forEach((event, place) => {
    if (event & 1 || required[event >> 1] === 0) return
    const { spec, args, result } = shapes[shapeOf[event >> 1]!]!
    const needed = spec.needs?.(args, result)
    if (needed === undefined) return
    const number = partition.stateNumber(needed)
    const outlook = outlooks.get(number)
    if (outlook === undefined) outlooks.set(number, { neededAt: place, producedAt: -1, producers: new Set() })
    else outlook.neededAt = place
  })
  for (let place = 0; place < events.length; place++) {
    const event = events[place]!
    const shape = shapeOf[event >> 1]!
    const { spec, args, result, effect } = shapes[shape]!
    if (event & 1 || effect === 'reads') continue
    const produced =
      effect === 'overwrites' ? spec.step(model.initial, args, result) : spec.leadsTo?.(args, result)
    // It may lead anywhere: nothing is known.
    if (produced === undefined) return new Map()
    const outlook = outlooks.get(partition.stateNumber(produced))
    if (outlook === undefined) continue
    outlook.producedAt = place
    outlook.producers.add(shape)
  }
  return outlooks
}
