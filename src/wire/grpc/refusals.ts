/** What is refused is told to the operator, and no flood of it: the first few of ten seconds, then how many more there were. */
import type { Clock } from '../../lib/clock.ts'

export interface Refusal {
  /** The method that was called; `connection` where none was. */
  readonly method: string
  /** host:port of the caller. */
  readonly from: string
  readonly why: string
  /** Refusals before this one that were not reported. */
  readonly unreported: number
}

const reportLimits = {
  /** Refusals that are reported within `windowMs`; the rest is counted. */
  reportsMax: 10,
  windowMs: 10_000,
} as const

export class Refusals {
  private readonly clock: Clock
  private readonly onRefused: (refusal: Refusal) => void
  private windowFromMs = Number.NEGATIVE_INFINITY
  private reports = 0
  private unreported = 0

  constructor(clock: Clock, onRefused: (refusal: Refusal) => void) {
    this.clock = clock
    this.onRefused = onRefused
  }

  report(method: string, from: string, why: string): void {
    const nowMs = this.clock.now()
    if (nowMs - this.windowFromMs > reportLimits.windowMs) {
      this.windowFromMs = nowMs
      this.reports = 0
    }
    if (this.reports >= reportLimits.reportsMax) {
      this.unreported++
      return
    }
    this.reports++
    this.onRefused({ method, from, why, unreported: this.unreported })
    this.unreported = 0
  }
}
