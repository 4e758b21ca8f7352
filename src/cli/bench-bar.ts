/** What the bench is doing, on standard error, so that a report can be piped; nothing where nobody looks. */
import { SingleBar } from 'cli-progress'
import type { BenchProgress } from '../bench/ports.ts'
import type { Shell } from './shell.ts'

export class BenchBar {
  private readonly shell: Shell
  private bar: SingleBar | null = null

  constructor(shell: Shell) {
    this.shell = shell
  }

  show({ phase, label, done, operationsPerSecond }: BenchProgress): void {
    const { stream } = this.shell.stderr
    if (stream === null) return
    const what = label === '' ? `${phase} of keys` : `${label}: ${phase}`
    const rate = operationsPerSecond === null ? '' : `${Math.round(operationsPerSecond)}/s`
    if (this.bar === null) {
      this.bar = new SingleBar({
        format: '{bar} {percentage}%  {what}  {rate}',
        barCompleteChar: '█',
        barIncompleteChar: '░',
        barsize: 24,
        hideCursor: true,
        clearOnComplete: true,
        gracefulExit: false,
        stream,
      })
      this.bar.start(100, 0, { what, rate })
    }
    this.bar.update(Math.round(done * 100), { what, rate })
  }

  stop(): void {
    this.bar?.update(100)
    this.bar?.stop()
    this.bar = null
  }
}
