/**
 * Whoever runs decoders can't notice by himself that one of them never returns. A second thread does: it watches a counter,
 * and where that stands still it says which input was being tried and ends the process.
 */
import { Worker } from 'node:worker_threads'

/** An input that takes longer hangs, ms. */
const stallMsMax = 30_000

/** Plain JavaScript: it runs in a thread that knows nothing of the loader. */
const watch = `
const { workerData: { shared, stallMsMax } } = require('node:worker_threads')
const { writeSync } = require('node:fs')
const words = new Int32Array(shared, 0, 4)
const name = Buffer.from(shared, 16)
let last = -1
let sinceMs = Date.now()
setInterval(() => {
  if (words[0] !== last) {
    last = words[0]
    sinceMs = Date.now()
  } else if (words[3] === 1 && Date.now() - sinceMs > stallMsMax) {
    const family = name.toString('utf8', 0, words[2])
    writeSync(2, 'HANG: --family ' + family + ' --only ' + words[1] + '\\n')
    process.kill(process.pid, 'SIGKILL')
  }
}, 500)
`

export class Heartbeat {
  private readonly shared = new SharedArrayBuffer(16 + 64)
  /** beats, number of the input, length of the family's name, whether anybody is watched */
  private readonly words = new Int32Array(this.shared, 0, 4)
  private readonly name = Buffer.from(this.shared, 16)
  private readonly worker: Worker
  private family = ''

  constructor() {
    this.worker = new Worker(watch, {
      eval: true,
      execArgv: [],
      workerData: { shared: this.shared, stallMsMax },
    })
    this.worker.unref()
  }

  beat(family: string, number: number): void {
    if (family !== this.family) {
      this.family = family
      this.words[2] = this.name.write(family)
    }
    this.words[1] = number
    this.words[3] = 1
    this.words[0]!++
  }

  async stop(): Promise<void> {
    await this.worker.terminate()
  }
}
