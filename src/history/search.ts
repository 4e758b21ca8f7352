/**
 * Is there an order of a problem's operations that keeps real time and that the model can answer as the clients saw it?
 *
 * Wing and Gong's search (1993) with Lowe's memory of configurations (*Testing for linearizability*, 2017) in its
 * just-in-time form: the events are walked in real time and an operation is put in order only when it must be, at a
 * return that finds its operation not yet ordered. There, every open operation is tried as the next one, until the
 * returning one is in (or, if it is optional, left out). A configuration is (event, state, which open operations are in, how many optional ones were
 * used); one that an earlier one covers is not tried again.
 *
 * Six rules cut the tree and lose no order; each leaves a configuration out only where another one that is tried can
 * do whatever it could, or where it leads nowhere:
 * 1. An open operation that only reads is put in as soon as the state fits its answer: it changes nothing for others.
 * 2. Of open operations of one shape the one that returns first goes first (required ones among themselves, optional
 *    ones among themselves), those that never return last.
 * 3. An optional operation that leaves the state as it is is not used.
 * 4. An optional operation is used only for something: what comes next must not lead from the state before it to the
 *    same state as from the state after it.
 * 5. Whoever used more optional operations of each class than an earlier configuration, and differs in nothing else, is
 *    covered by it (`configurations.ts`).
 * 6. A state that a required operation still to be called can't do without is not left when nothing leads back to it.
 *
 * Deterministic, without recursion, bounded by `Budget`.
 */
import { Configurations } from './configurations.ts'
import { refused } from './partition.ts'
import type { Problem } from './problem.ts'

export interface Budget {
  /** Configurations that may be stored. */
  readonly configurationsMax: number
  /** Bytes that configurations and states may take, by estimate. */
  readonly bytesMax: number
  /** Asked every few thousand steps; true ends the search. */
  isOver(configurations: number, bytes: number): boolean
}

export type SearchOutcome =
  | { readonly kind: 'ordered'; readonly configurations: number }
  /**
   * `suspects`: the latest operation at whose return the search tried to go on, and those for whose sake it could not
   * (rule 6). The fault is likely around one of them.
   */
  | { readonly kind: 'impossible'; readonly configurations: number; readonly suspects: readonly number[] }
  | { readonly kind: 'gave-up'; readonly configurations: number; readonly why: 'time' | 'memory' | 'steps' }

const stepsBetweenLooks = 4096
const waitingMax = 16
/** What a configuration on the path takes beside its row. */
const pathBytes = 24
const none = -1
/** The candidate before all others where the operation that returns is optional. */
const leaveOut = -1

/** From each of the states `starts`; 0 is the initial one. */
export function search(problem: Problem, budget: Budget, starts: readonly number[] = [0]): SearchOutcome {
  const search = new Search(problem, budget)
  let outcome: SearchOutcome = { kind: 'impossible', configurations: 0, suspects: [] }
  for (const start of starts) {
    // Many short searches must see the end of the time as well.
    if (budget.isOver(0, 0)) return { kind: 'gave-up', configurations: 0, why: 'time' }
    outcome = search.run(start)
    if (outcome.kind !== 'impossible') break
  }
  return outcome
}

class Search {
  private readonly problem: Problem
  private readonly budget: Budget
  private readonly seen: Configurations
  private readonly slotWords: number
  /** Classes in the order in which they are tried: those that overwrite come last, from `overwritingFrom` on. */
  private readonly order: Int32Array
  private readonly overwritingFrom: number
  /** By class: word, position and mask of its field in a row. */
  private readonly fieldWord: Int32Array
  private readonly fieldShift: Int32Array
  private readonly fieldMask: Int32Array

  /** The configuration the search stands at; row[0] is the event, row[1] the state. */
  private readonly row: Int32Array
  /** What follows from row[0]: the open operation in each slot or none, and calls so far in each class. */
  private event = 0
  private readonly owner: Int32Array
  private readonly called: Int32Array

  /** The path from the start: configuration, next candidate, and the state before if an optional step led there. */
  private readonly path: number[] = []
  private readonly cursors: number[] = []
  private readonly befores: number[] = []

  /** The latest required return that was not in when it was reached. */
  private deepest = -1
  /** Calls for whose sake a state was not left there (rule 6). */
  private readonly waiting = new Set<number>()
  /** Candidates tried and events walked. */
  private steps = 0
  private nextLook = stepsBetweenLooks

  constructor(problem: Problem, budget: Budget) {
    this.problem = problem
    this.budget = budget
    const { classes, slotCount, partition } = problem
    this.slotWords = (slotCount + 31) >>> 5
    this.fieldWord = new Int32Array(classes.length)
    this.fieldShift = new Int32Array(classes.length)
    this.fieldMask = new Int32Array(classes.length)
    const guards: number[] = []
    let shift = 32
    classes.forEach(({ total }, each) => {
      const bits = 32 - Math.clz32(total)
      if (shift + bits + 1 > 32) {
        guards.push(0)
        shift = 0
      }
      this.fieldWord[each] = 2 + this.slotWords + guards.length - 1
      this.fieldShift[each] = shift
      this.fieldMask[each] = 2 ** bits - 1
      guards[guards.length - 1]! |= 1 << (shift + bits)
      shift += bits + 1
    })
    this.seen = new Configurations(this.slotWords, Int32Array.from(guards))
    this.row = new Int32Array(this.seen.width)
    this.owner = new Int32Array(slotCount).fill(none)
    this.called = new Int32Array(classes.length)
    const overwrites = (each: number) => partition.shapes[classes[each]!.shape]!.effect === 'overwrites'
    const all = classes.map((_, each) => each)
    const changing = all.filter(each => !overwrites(each))
    this.order = Int32Array.from([...changing, ...all.filter(overwrites)])
    this.overwritingFrom = changing.length
  }

  run(start: number): SearchOutcome {
    this.rewind(0)
    this.row.fill(0)
    this.row[1] = start
    const { outlooks, events } = this.problem
    for (const [state, { neededAt, producers }] of outlooks) {
      if (state === start || producers.size > 0) continue
      // An answer from nowhere.
      return { kind: 'impossible', configurations: this.seen.size, suspects: [events[neededAt]! >> 1] }
    }
    if (this.walk()) return { kind: 'ordered', configurations: this.seen.size }
    this.enter(none)
    while (this.path.length > 0) {
      const kind = this.advance()
      if (kind === 'ordered') return { kind, configurations: this.seen.size }
      if (kind !== 'on') return { kind: 'gave-up', configurations: this.seen.size, why: kind }
    }
    const places = [this.deepest, ...this.waiting]
    const suspects = places.map(each => this.problem.events[each]! >> 1)
    return { kind: 'impossible', configurations: this.seen.size, suspects }
  }

  /** Tries the next candidate of the configuration at the end of the path, or leaves it. */
  private advance(): 'ordered' | 'on' | 'time' | 'memory' | 'steps' {
    const top = this.path.length - 1
    this.seen.load(this.path[top]!, this.row)
    this.rewind(this.row[0]!)
    const before = this.befores[top]!
    const state = this.row[1]!
    const { slotCount } = this.problem
    // Rule 4 would refuse every overwriting class after an optional step.
    const end = slotCount + 1 + (before === none ? this.order.length : this.overwritingFrom)
    let cursor = this.cursors[top]!
    if (cursor === leaveOut) {
      this.cursors[top] = 0
      return this.leave() ? 'ordered' : 'on'
    }
    for (; cursor < end; cursor++) {
      if (++this.steps >= this.nextLook) {
        this.nextLook = this.steps + stepsBetweenLooks
        const bytes = this.seen.bytes + this.problem.partition.bytes + pathBytes * this.path.length
        if (bytes > this.budget.bytesMax) return 'memory'
        if (this.seen.size > this.budget.configurationsMax) return 'steps'
        if (this.budget.isOver(this.seen.size, bytes)) return 'time'
      }
      const isUnending = cursor > slotCount
      const candidate = isUnending
        ? this.unendingCandidate(this.order[cursor - slotCount - 1]!)
        : this.openCandidate(cursor)
      if (candidate === none) continue
      const isOptional = isUnending || this.problem.isOptional[this.owner[this.slotAt(cursor)]!] === 1
      const next = this.problem.partition.step(state, candidate)
      if (next === refused) continue
      if (isOptional && next === state) continue
      if (next !== state && this.isNeeded(state, cursor)) continue
      if (before !== none && this.problem.partition.step(before, candidate) === next) continue
      this.cursors[top] = cursor + 1
      return this.take(cursor, next, isOptional) ? 'ordered' : 'on'
    }
    this.path.pop()
    this.cursors.pop()
    this.befores.pop()
    return 'on'
  }

  /** Puts a candidate in and walks on; true when the end is reached. */
  private take(cursor: number, next: number, isOptional: boolean): boolean {
    const { slotCount } = this.problem
    const state = this.row[1]!
    this.row[1] = next
    if (cursor > slotCount) {
      const place = this.order[cursor - slotCount - 1]!
      this.row[this.fieldWord[place]!]! += 1 << this.fieldShift[place]!
    } else {
      this.setBit(this.slotAt(cursor))
    }
    const isAnySatisfied = this.satisfyReads()
    if (isOptional && !isAnySatisfied && cursor !== 0) {
      // The event stands: its operation was not put in.
      if (this.leadsSomewhere(state, next)) this.enter(state)
      return false
    }
    if (this.walk()) return true
    this.enter(none)
    return false
  }

  /** Goes on without the optional operation that returns; true when the end is reached. */
  private leave(): boolean {
    this.owner[this.slotAt(0)] = none
    this.event++
    if (this.walk()) return true
    this.enter(none)
    return false
  }

  /** Remembers where the search stands and goes on from there, unless that is covered. */
  private enter(before: number): void {
    this.row[0] = this.event
    const number = this.seen.add(this.row)
    if (number === -1) return
    this.path.push(number)
    const isReturnOptional = this.problem.isOptional[this.problem.events[this.event]! >> 1] === 1
    // After an optional step here: leaving out first and taking that step later comes to the same.
    this.cursors.push(isReturnOptional && before === none ? leaveOut : 0)
    this.befores.push(before)
  }

  // --- Candidates -----------------------------------------------------------------------------------------------------

  /** Candidate 0 is the operation that returns, then come the slots in turn. */
  private slotAt(cursor: number): number {
    return cursor === 0 ? this.problem.slotOf[this.problem.events[this.event]! >> 1]! : cursor - 1
  }

  /** The shape to try, or none. */
  private openCandidate(cursor: number): number {
    const { partition, slotCount, isOptional } = this.problem
    const slot = this.slotAt(cursor)
    if (cursor > 0 && slot === this.slotAt(0)) return none
    const operation = this.owner[slot]!
    if (operation === none || this.hasBit(slot)) return none
    const shape = this.problem.shapeOf[operation]!
    // Those that fit are in already (rule 1).
    if (partition.shapes[shape]!.effect === 'reads') return none
    const { returnedAt } = partition.operations[operation]!
    for (let other = 0; other < slotCount; other++) {
      const rival = this.owner[other]!
      if (rival === none || other === slot || this.problem.shapeOf[rival] !== shape || this.hasBit(other))
        continue
      if (isOptional[rival] !== isOptional[operation]) continue
      const rivalAt = partition.operations[rival]!.returnedAt
      if (rivalAt < returnedAt || (rivalAt === returnedAt && rival < operation)) return none
    }
    return shape
  }

  private unendingCandidate(place: number): number {
    const { slotCount, classes } = this.problem
    if (this.used(place) >= this.called[place]!) return none
    const { shape } = classes[place]!
    for (let slot = 0; slot < slotCount; slot++) {
      const operation = this.owner[slot]!
      if (operation !== none && this.problem.shapeOf[operation] === shape && !this.hasBit(slot)) return none
    }
    return shape
  }

  /** Rule 6: must the search stay in `state` when what is left to do leads to it no more? `cursor` is what comes next. */
  private isNeeded(state: number, cursor: number): boolean {
    const { outlooks, slotCount, shapeOf, classes } = this.problem
    const outlook = outlooks.get(state)
    if (outlook === undefined || outlook.neededAt < this.event || outlook.producedAt > this.event)
      return false
    const taken = cursor > slotCount ? none : this.slotAt(cursor)
    for (let slot = 0; slot < slotCount; slot++) {
      const operation = this.owner[slot]!
      if (operation === none || slot === taken || this.hasBit(slot)) continue
      if (outlook.producers.has(shapeOf[operation]!)) return false
    }
    for (let place = 0; place < classes.length; place++) {
      if (outlook.producers.has(classes[place]!.shape) && this.used(place) < this.called[place]!) return false
    }
    if (this.event === this.deepest && this.waiting.size < waitingMax) this.waiting.add(outlook.neededAt)
    return true
  }

  private used(place: number): number {
    return (this.row[this.fieldWord[place]!]! >>> this.fieldShift[place]!) & this.fieldMask[place]!
  }

  /** Rule 4, looked at before a configuration is stored: does anything become possible, or become something else? */
  private leadsSomewhere(before: number, state: number): boolean {
    const { partition, slotCount, classes } = this.problem
    const isChanged = (shape: number) => {
      const next = partition.step(state, shape)
      return next !== refused && next !== partition.step(before, shape)
    }
    for (let slot = 0; slot < slotCount; slot++) {
      const operation = this.owner[slot]!
      if (operation === none || this.hasBit(slot)) continue
      const shape = this.problem.shapeOf[operation]!
      if (partition.shapes[shape]!.effect === 'changes' && isChanged(shape)) return true
    }
    for (let i = 0; i < this.overwritingFrom; i++) {
      const place = this.order[i]!
      if (this.used(place) < this.called[place]! && isChanged(classes[place]!.shape)) return true
    }
    return false
  }

  // --- Events ---------------------------------------------------------------------------------------------------------

  /** Goes on to the next return whose operation is not in yet; true when there is none. */
  private walk(): boolean {
    const { events, slotOf, classOf, isOptional, shapeOf, partition } = this.problem
    const { shapes } = partition
    for (; this.event < events.length; this.event++, this.steps++) {
      const event = events[this.event]!
      const operation = event >> 1
      const slot = slotOf[operation]!
      if (event & 1) {
        if (!this.hasBit(slot)) {
          if (isOptional[operation] === 0 && this.event > this.deepest) {
            this.deepest = this.event
            this.waiting.clear()
          }
          return false
        }
        this.clearBit(slot)
        this.owner[slot] = none
      } else if (slot === none) {
        this.called[classOf[operation]!]!++
      } else {
        this.owner[slot] = operation
        const shape = shapeOf[operation]!
        if (shapes[shape]!.effect === 'reads' && partition.step(this.row[1]!, shape) !== refused)
          this.setBit(slot)
      }
    }
    return true
  }

  /** Undoes what `walk` did to owners and calls, back to `event`. */
  private rewind(event: number): void {
    const { events, slotOf, classOf } = this.problem
    while (this.event > event) {
      const undone = events[--this.event]!
      const operation = undone >> 1
      const slot = slotOf[operation]!
      if (undone & 1) this.owner[slot] = operation
      else if (slot === none) this.called[classOf[operation]!]!--
      else this.owner[slot] = none
    }
  }

  /** Rule 1 after a change of state; true when a read was put in. */
  private satisfyReads(): boolean {
    const { partition, slotCount } = this.problem
    let isAny = false
    for (let slot = 0; slot < slotCount; slot++) {
      const operation = this.owner[slot]!
      if (operation === none || this.hasBit(slot)) continue
      const shape = this.problem.shapeOf[operation]!
      if (partition.shapes[shape]!.effect !== 'reads' || partition.step(this.row[1]!, shape) === refused)
        continue
      this.setBit(slot)
      isAny = true
    }
    return isAny
  }

  private hasBit(slot: number): boolean {
    return (this.row[2 + (slot >>> 5)]! & (1 << (slot & 31))) !== 0
  }

  private setBit(slot: number): void {
    this.row[2 + (slot >>> 5)]! |= 1 << (slot & 31)
  }

  private clearBit(slot: number): void {
    this.row[2 + (slot >>> 5)]! &= ~(1 << (slot & 31))
  }
}
