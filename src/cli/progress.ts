/**
 * A bar where a person looks, a line on every change where a pipe does.
 */
import { SingleBar } from 'cli-progress'
import type { RebalanceStatus } from '../gen/roundhouse/v1/admin.ts'
import { bytesText, secondsText } from './print.ts'
import type { Output } from './shell.ts'

export interface Step {
  readonly done: number
  readonly total: number
  /** What follows the bar: bytes, rate, time left, what blocks it. */
  readonly detail: string
}

export class Progress {
  private readonly output: Output
  private readonly label: string
  private readonly unit: string
  private bar: SingleBar | null = null
  private last = ''

  /** `unit`: what `done` and `total` count. */
  constructor(output: Output, label: string, unit = 'replicas') {
    this.output = output
    this.label = label
    this.unit = unit
  }

  show(step: Step): void {
    const line = `${this.label}: ${step.done} of ${step.total} ${this.unit}${step.detail === '' ? '' : `, ${step.detail}`}`
    if (this.output.stream === null) {
      if (line !== this.last) this.output.write(`${line}\n`)
      this.last = line
      return
    }
    const total = Math.max(1, step.total)
    const done = step.total === 0 ? 1 : step.done
    if (this.bar === null) {
      this.bar = new SingleBar({
        format: `${this.label} {bar} {percentage}%  {value}/{total} ${this.unit}  {detail}`,
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 28,
        hideCursor: true,
        gracefulExit: false,
        stream: this.output.stream,
      })
      this.bar.start(total, done, { detail: step.detail })
    }
    this.bar.setTotal(total)
    this.bar.update(done, { detail: step.detail })
  }

  /** Leaves the bar as it stands and gives the cursor back. */
  stop(): void {
    this.bar?.stop()
    this.bar = null
  }
}

/** Bytes, rate, time left, and what it waits for, of moves that are under way. What matters most comes first. */
export function detailOf(rebalance: RebalanceStatus): string {
  const bytes = `${bytesText(Number(rebalance.bytesDone))} of ${bytesText(Number(rebalance.bytesTotal))}`
  if (rebalance.state === 'paused') return `paused, "roundhouse rebalance resume" goes on, ${bytes}`
  const parts = [bytes]
  if (rebalance.state === 'running') {
    parts.push(`${bytesText(rebalance.bytesPerSecond)}/s`)
    if (rebalance.etaS !== undefined) parts.push(`${secondsText(rebalance.etaS)} left`)
  }
  if (rebalance.blockedBy !== '') parts.push(`waits for: ${rebalance.blockedBy}`)
  return parts.join(', ')
}
