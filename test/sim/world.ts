import type { Clock } from '../../src/lib/clock.ts'
import { Prng } from '../../src/lib/prng.ts'

/**
 * Time and chance of a simulated cluster. One queue of events, one seed; nothing happens but what was scheduled, so the
 * same seed gives the same run. After each event all promises settle before the next one runs.
 */
interface Event {
  readonly atMs: number
  readonly sequence: number
  readonly run: () => void
}

/** Milliseconds since 1970 at which simulated time begins. */
const epochMs = Date.UTC(2026, 0, 1)

export class World {
  readonly random: Prng
  nowMs = 0
  /** Events run, and a rolling hash of what happened when: the run's fingerprint. */
  eventCount = 0
  hash = 0x811c9dc5
  /** The process in which the event that runs now happens, as it named itself; null: none. Watchers look at it after. */
  current: object | null = null
  /** Called after each event, when all promises have settled. */
  onEvent: (() => void) | null = null
  /** Called with a process that threw what nobody caught. */
  onCrash: ((owner: object, error: Error) => void) | null = null
  /** Asked before each event: true ends the run, whatever it waits for. */
  isOver: (() => boolean) | null = null
  private readonly heap: Event[] = []
  private sequence = 0

  constructor(seed: number) {
    this.random = new Prng(seed)
  }

  get wallMs(): number {
    return epochMs + this.nowMs
  }

  /** Notes something observable, so that two runs can be compared. */
  note(text: string): void {
    for (let i = 0; i < text.length; i++)
      this.hash = Math.imul(this.hash ^ text.charCodeAt(i), 0x01000193) >>> 0
  }

  /** Events to come. */
  get waiting(): number {
    return this.heap.length
  }

  /** Runs what may end a process by an exception that nobody catches. */
  guard(owner: object, run: () => void): void {
    try {
      run()
    } catch (error) {
      if (this.onCrash === null) throw error
      this.onCrash(owner, error as Error)
    }
  }

  at(delayMs: number, run: () => void): void {
    this.push({ atMs: this.nowMs + Math.max(0, delayMs), sequence: this.sequence++, run })
  }

  /** Runs events until `isDone` or until simulated `untilMs` has passed. True when done. */
  async run(untilMs: number, isDone: () => boolean = () => false): Promise<boolean> {
    for (;;) {
      if (isDone()) return true
      if (this.isOver?.() === true) return false
      const event = this.heap[0]
      if (event === undefined || event.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs)
        return isDone()
      }
      this.pop()
      this.nowMs = event.atMs
      this.eventCount++
      this.hash = Math.imul(this.hash ^ ((event.sequence * 31 + event.atMs * 1000) | 0), 0x01000193) >>> 0
      this.current = null
      event.run()
      await new Promise<void>(resolve => setImmediate(resolve))
      this.onEvent?.()
    }
  }

  private push(event: Event): void {
    const { heap } = this
    let i = heap.push(event) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
  }

  private pop(): void {
    const { heap } = this
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence)
}

/** What is wrong with a machine's clocks. */
export interface ClockFaults {
  /** Local seconds a true second. */
  rate: number
  /** How much later than asked a timer fires, ms: the mean of an exponential. */
  lateMeanMs: number
  /** Chance that a timer comes very late, as when a process is not scheduled, and by how much at most. */
  stallRate: number
  stallMsMax: number
}

export const goodClock: Readonly<ClockFaults> = { rate: 1, lateMeanMs: 0, stallRate: 0, stallMsMax: 0 }

/** The clock of one life of a process: its timers die with it. `wallOffsetMs` is by how much its wall clock is wrong. */
export class ProcessClock implements Clock {
  wallOffsetMs = 0
  isAlive = true
  /** While true, timers that fire are put off: the process is stopped (SIGSTOP). */
  isPaused = false
  private readonly held: (() => void)[] = []
  private readonly world: World
  private readonly faults: Readonly<ClockFaults>
  /** Of whom the events are: `world.current` while they run. */
  private readonly owner: object | null
  private readonly random: Prng | null

  constructor(world: World, faults: Readonly<ClockFaults> = goodClock, owner: object | null = null) {
    this.world = world
    this.faults = faults
    this.owner = owner
    this.random = faults.lateMeanMs > 0 || faults.stallRate > 0 ? world.random.fork() : null
  }

  now(): number {
    return this.world.nowMs * this.faults.rate
  }

  wall(): number {
    return this.world.wallMs + this.world.nowMs * (this.faults.rate - 1) + this.wallOffsetMs
  }

  after(ms: number, run: () => void): () => void {
    let isCancelled = false
    this.soon(ms / this.faults.rate + this.lateness(), () => {
      if (!isCancelled) run()
    })
    return () => {
      isCancelled = true
    }
  }

  private lateness(): number {
    if (this.random === null) return 0
    const { lateMeanMs, stallRate, stallMsMax } = this.faults
    const late = -lateMeanMs * Math.log(1 - this.random.next())
    return this.random.next() < stallRate ? late + this.random.next() * stallMsMax : late
  }

  /** Runs in this process after `ms`, if it still lives. */
  soon(ms: number, run: () => void): void {
    this.world.at(ms, () => {
      if (!this.isAlive) return
      if (this.isPaused) this.held.push(run)
      else {
        this.world.current = this.owner
        if (this.owner === null) run()
        else this.world.guard(this.owner, run)
      }
    })
  }

  resume(): void {
    this.isPaused = false
    const held = this.held.splice(0)
    for (const run of held) this.soon(0, run)
  }
}
