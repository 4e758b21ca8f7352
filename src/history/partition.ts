/**
 * One key's operations, prepared for being searched many times: their events in real-time order, their *shapes* and the
 * store's steps between states.
 *
 * A shape is what a model sees of an operation: function, arguments, answer. Operations of one shape are interchangeable
 * but for their time, and there are few (all crashed `incr`s are one shape), which is what makes crashed operations
 * affordable.
 */
import type { Effect, FunctionSpec, Model, State } from './model.ts'
import type { Operation, Value } from './operation.ts'

export interface Shape {
  readonly spec: FunctionSpec
  readonly args: readonly Value[]
  readonly result: Value | undefined
  readonly effect: Effect
}

/** The step of a shape from a state: the next state's number, or this. */
export const refused = -1

/** Steps remembered: a direct-mapped cache, so its size is all it ever takes. Powers of two. */
const cachedStepsMin = 1 << 8
const cachedStepsMax = 1 << 15
/** What a state costs beside its text: an entry in a Map, one in an array. */
const stateBytes = 96

export class Partition {
  readonly key: string
  /** In the order of their calls. */
  readonly operations: readonly Operation[]
  /** Calls and returns in order, each `operation << 1 | isReturn`; at the same place calls stand before returns. */
  readonly events: Int32Array
  readonly shapes: Shape[] = []
  /** By operation. */
  readonly shapeOf: Int32Array
  readonly model: Model
  private readonly shapeNumbers = new Map<string, number>()
  private readonly seen: State[] = []
  private readonly stateNumbers = new Map<State, number>()
  private stateBytesTotal = 0
  private readonly cachedStates: Int32Array
  private readonly cachedShapes: Int32Array
  private readonly cachedNexts: Int32Array

  constructor(key: string, operations: readonly Operation[], model: Model) {
    this.key = key
    this.model = model
    this.operations = [...operations].sort((a, b) => a.calledAt - b.calledAt)
    this.events = eventsOf(this.operations)
    this.shapeOf = Int32Array.from(this.operations, each => this.shapeNumber(each))
    this.stateNumber(model.initial)
    let cachedSteps = cachedStepsMin
    while (cachedSteps < cachedStepsMax && cachedSteps < 8 * operations.length) cachedSteps *= 2
    this.cachedStates = new Int32Array(cachedSteps).fill(-1)
    this.cachedShapes = new Int32Array(cachedSteps)
    this.cachedNexts = new Int32Array(cachedSteps)
  }

  /** The initial state is number 0. */
  step(state: number, shape: number): number {
    const hash = Math.imul(state, 0x9e3779b1) ^ Math.imul(shape, 0x85ebca6b)
    const place = (hash ^ (hash >>> 15)) & (this.cachedStates.length - 1)
    if (this.cachedStates[place] === state && this.cachedShapes[place] === shape)
      return this.cachedNexts[place]!
    const { spec, args, result } = this.shapes[shape]!
    const next = spec.step(this.seen[state]!, args, result)
    const number = next === undefined ? refused : this.stateNumber(next)
    this.cachedStates[place] = state
    this.cachedShapes[place] = shape
    this.cachedNexts[place] = number
    return number
  }

  /** Those seen so far; a state's place is its number. */
  get states(): readonly State[] {
    return this.seen
  }

  /** An estimate of what the states seen so far take. */
  get bytes(): number {
    return this.stateBytesTotal
  }

  stateNumber(state: State): number {
    const known = this.stateNumbers.get(state)
    if (known !== undefined) return known
    const number = this.seen.length
    this.seen.push(state)
    this.stateNumbers.set(state, number)
    this.stateBytesTotal += stateBytes + (typeof state === 'string' ? 2 * state.length : 0)
    return number
  }

  private shapeNumber({ f, args, result }: Operation): number {
    const name = JSON.stringify(result === undefined ? [f, args] : [f, args, result])
    const known = this.shapeNumbers.get(name)
    if (known !== undefined) return known
    const spec = this.model.functions.get(f)!
    this.shapes.push({ spec, args, result, effect: spec.effect(args, result) })
    this.shapeNumbers.set(name, this.shapes.length - 1)
    return this.shapes.length - 1
  }
}

function eventsOf(operations: readonly Operation[]): Int32Array {
  const events: number[] = []
  operations.forEach(({ returnedAt }, index) => {
    events.push(index << 1)
    if (returnedAt !== Number.POSITIVE_INFINITY) events.push((index << 1) | 1)
  })
  const placeOf = (event: number) => {
    const operation = operations[event >> 1]!
    return event & 1 ? operation.returnedAt : operation.calledAt
  }
  return Int32Array.from(events).sort((a, b) => placeOf(a) - placeOf(b) || (a & 1) - (b & 1) || a - b)
}
