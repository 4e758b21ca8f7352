/**
 * Keeps operations under way for a while and measures them. Without a rate it is a closed loop: the next operation begins
 * when one has ended, so a stall also stops the load, and percentiles hide it. At a fixed rate operation i is due at
 * i/rate, and its latency counts from then, not from when a slot was free for it: whoever would have asked during a stall
 * has waited (coordinated omission; Tene, "How NOT to Measure Latency", 2015).
 *
 *   |--- warm-up ---|======== window ========|-- the last answers --|
 *
 * Operations are counted when they are answered in the window. Latencies are those of operations that were due in the
 * window, however late their answer; those that never found a free slot count with what they had waited at its end.
 */
import { Latencies } from './latencies.ts'
import type { Failure, Latency } from './ports.ts'

/** After a failure its slot rests, so that a cluster that refuses is not flooded. */
const restMs = 10
/** After the window, so long for what is still under way. */
const lastAnswersMsMax = 10_000
const tickMs = 200
/** A failure's text is cut, and so many different ones are told apart. */
const failureCharsMax = 200
const failureKindsMax = 16

/** Begins an operation; `done` is called once, later, with what went wrong or null, and the bytes and records that were moved. */
export type Begin = (slot: number, done: Done) => void

export type Done = (failure: string | null, bytes: number, records?: number) => void

export interface DriveOptions {
  readonly inFlight: number
  /** Operations a second; null: as fast as they are answered. */
  readonly rate: number | null
  readonly warmUpMs: number
  readonly durationMs: number
  /** Ends the window early. */
  readonly signal: AbortSignal
  readonly begin: Begin
  /** The window opens; and closes. */
  readonly onOpen: () => void
  readonly onClose: () => void
  readonly onTick: (phase: 'warm-up' | 'measure', done: number, operationsPerSecond: number) => void
}

export interface Driven {
  readonly durationMs: number
  readonly operations: number
  readonly bytes: number
  readonly records: number
  readonly latency: Latency
  readonly failures: readonly Failure[]
}

export function drive(options: DriveOptions): Promise<Driven> {
  return new Promise(resolve => new Drive(options, resolve).start())
}

class Drive {
  private readonly options: DriveOptions
  private readonly resolve: (driven: Driven) => void
  private readonly latencies = new Latencies()
  private readonly failures = new Map<string, number>()
  private readonly idle: number[] = []
  private readonly timers = new Set<NodeJS.Timeout>()
  private phase: 'warm-up' | 'measure' | 'last answers' = 'warm-up'
  private startedMs = 0
  private openedMs = Number.POSITIVE_INFINITY
  private closedMs = Number.POSITIVE_INFINITY
  private underWay = 0
  /** At a fixed rate: the number of the next operation. */
  private next = 0
  private isWaiting = false
  private isEnded = false
  private operations = 0
  private bytes = 0
  private records = 0
  private answered = 0
  private answeredAtTick = 0
  private tickedMs = 0

  constructor(options: DriveOptions, resolve: (driven: Driven) => void) {
    this.options = options
    this.resolve = resolve
  }

  start(): void {
    const { inFlight, rate, warmUpMs, signal } = this.options
    this.startedMs = performance.now()
    this.tickedMs = this.startedMs
    for (let slot = inFlight - 1; slot >= 0; slot--) this.idle.push(slot)
    if (warmUpMs === 0) this.open()
    else this.after(warmUpMs, () => this.open())
    if (rate === null) while (this.idle.length > 0) this.begin(this.idle.pop()!, performance.now())
    else this.release()
    const ticks = setInterval(() => this.tick(), tickMs)
    this.timers.add(ticks)
    signal.addEventListener('abort', this.stop)
    if (signal.aborted) this.stop()
  }

  private readonly stop = () => {
    this.open()
    this.close()
  }

  // --- Operations ---------------------------------------------------------------------------------------------------

  private begin(slot: number, dueMs: number): void {
    this.underWay += 1
    this.options.begin(slot, (failure, bytes, records = 0) =>
      this.answer(slot, dueMs, failure, bytes, records),
    )
  }

  private answer(slot: number, dueMs: number, failure: string | null, bytes: number, records: number): void {
    if (this.isEnded) return
    const now = performance.now()
    this.underWay -= 1
    this.answered += 1
    const isDueInWindow = dueMs >= this.openedMs && dueMs < this.closedMs
    if (failure !== null) {
      if (this.phase === 'measure' || isDueInWindow) this.count(failure)
    } else {
      if (this.phase === 'measure') {
        this.operations += 1
        this.bytes += bytes
        this.records += records
      }
      if (isDueInWindow) this.latencies.add(now - dueMs)
    }
    if (this.phase === 'last answers') {
      if (this.underWay === 0) this.end()
    } else if (failure === null) this.free(slot)
    else this.after(restMs, () => this.free(slot))
  }

  private free(slot: number): void {
    if (this.phase === 'last answers') return
    if (this.options.rate === null) this.begin(slot, performance.now())
    else {
      this.idle.push(slot)
      this.release()
    }
  }

  /** Fixed rate: begins all that is due, as far as slots are free; comes back for the next. */
  private release(): void {
    const now = performance.now()
    while (this.idle.length > 0 && this.dueMs(this.next) <= now)
      this.begin(this.idle.pop()!, this.dueMs(this.next++))
    // Without a free slot the next answer comes back here.
    if (this.idle.length > 0 && !this.isWaiting) {
      this.isWaiting = true
      this.after(Math.max(1, this.dueMs(this.next) - now), () => {
        this.isWaiting = false
        if (this.phase !== 'last answers') this.release()
      })
    }
  }

  private dueMs(operation: number): number {
    return this.startedMs + (operation * 1_000) / this.options.rate!
  }

  // --- The window ---------------------------------------------------------------------------------------------------

  private open(): void {
    if (this.phase !== 'warm-up') return
    this.phase = 'measure'
    this.openedMs = performance.now()
    this.options.onOpen()
    this.after(this.options.durationMs, () => this.close())
  }

  private close(): void {
    if (this.phase !== 'measure') return
    this.phase = 'last answers'
    this.closedMs = performance.now()
    this.options.onClose()
    if (this.options.rate !== null) {
      for (; this.dueMs(this.next) < this.closedMs; this.next++) {
        const dueMs = this.dueMs(this.next)
        if (dueMs >= this.openedMs) this.latencies.add(this.closedMs - dueMs)
      }
    }
    if (this.underWay === 0) this.end()
    else this.after(lastAnswersMsMax, () => this.end())
  }

  private end(): void {
    this.isEnded = true
    this.options.signal.removeEventListener('abort', this.stop)
    for (const timer of this.timers) clearTimeout(timer)
    this.timers.clear()
    if (this.underWay > 0) this.count('no answer', this.underWay)
    this.resolve({
      durationMs: this.closedMs - this.openedMs,
      operations: this.operations,
      bytes: this.bytes,
      records: this.records,
      latency: this.latencies.summary(),
      failures: [...this.failures].map(([what, count]) => ({ what, count })),
    })
  }

  private tick(): void {
    if (this.phase === 'last answers') return
    const now = performance.now()
    const [sinceMs, forMs] =
      this.phase === 'warm-up'
        ? [this.startedMs, this.options.warmUpMs]
        : [this.openedMs, this.options.durationMs]
    const rate = ((this.answered - this.answeredAtTick) * 1_000) / (now - this.tickedMs)
    this.answeredAtTick = this.answered
    this.tickedMs = now
    this.options.onTick(this.phase, Math.min(1, (now - sinceMs) / forMs), rate)
  }

  private count(failure: string, times = 1): void {
    const text = failure.slice(0, failureCharsMax)
    const what = this.failures.has(text) || this.failures.size < failureKindsMax ? text : 'others'
    this.failures.set(what, (this.failures.get(what) ?? 0) + times)
  }

  private after(ms: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      action()
    }, ms)
    this.timers.add(timer)
  }
}
