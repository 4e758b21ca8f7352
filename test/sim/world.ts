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

  at(delayMs: number, run: () => void): void {
    this.push({ atMs: this.nowMs + Math.max(0, delayMs), sequence: this.sequence++, run })
  }

  /** Runs events until `isDone` or until simulated `untilMs` has passed. True when done. */
  async run(untilMs: number, isDone: () => boolean = () => false): Promise<boolean> {
    for (;;) {
      if (isDone()) return true
      const event = this.heap[0]
      if (event === undefined || event.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs)
        return isDone()
      }
      this.pop()
      this.nowMs = event.atMs
      this.eventCount++
      this.hash = Math.imul(this.hash ^ ((event.sequence * 31 + event.atMs * 1000) | 0), 0x01000193) >>> 0
      event.run()
      await new Promise<void>(resolve => setImmediate(resolve))
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

/** The clock of one life of a process: its timers die with it. `wallOffsetMs` is by how much its wall clock is wrong. */
export class ProcessClock implements Clock {
  wallOffsetMs = 0
  isAlive = true
  /** While true, timers that fire are put off: the process is stopped (SIGSTOP). */
  isPaused = false
  private readonly held: (() => void)[] = []
  private readonly world: World

  constructor(world: World) {
    this.world = world
  }

  now(): number {
    return this.world.nowMs
  }

  wall(): number {
    return this.world.wallMs + this.wallOffsetMs
  }

  after(ms: number, run: () => void): () => void {
    let isCancelled = false
    this.soon(ms, () => {
      if (!isCancelled) run()
    })
    return () => {
      isCancelled = true
    }
  }

  /** Runs in this process after `ms`, if it still lives. */
  soon(ms: number, run: () => void): void {
    this.world.at(ms, () => {
      if (!this.isAlive) return
      if (this.isPaused) this.held.push(run)
      else run()
    })
  }

  resume(): void {
    this.isPaused = false
    const held = this.held.splice(0)
    for (const run of held) this.soon(0, run)
  }
}
