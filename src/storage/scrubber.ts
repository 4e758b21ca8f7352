import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import { type ScrubFinding, type ScrubOptions, scrubState } from './state-scrub.ts'

/**
 * Looks for rot before it is needed: reads everything that a node has on disk, again and again, slowly.
 *
 * A round is: every replica's checkpoint, whole, in a child process; then every entry of the journal's closed segments, a
 * piece at a time on the main thread, which alone knows where they lie. What is found is told, and its owner replaces it
 * from the others while they still have it: that is the point of not waiting until somebody asks for the row.
 *
 * After an unclean stop the first round begins at once and reads checkpoints as fast as the disk gives them, *beside* the
 * node that serves. Not before it serves: the time of that grows with the data (10 GB: minutes), and would be an outage of
 * the whole cluster whenever all its nodes lost power. What may be served meanwhile is bounded by what every read checks
 * (a row's own checksum); only a row that a broken page hides, "not found", waits for the round. LMDB never writes over a
 * page in use, so a crash alone breaks none: it takes a disk that lies.
 */
export interface ScrubberOptions {
  /** The node's data directory. */
  readonly directory: string
  readonly clock: Clock
  readonly log: Logger
  /** From the end of a round to the next; 0: there are none but one after an unclean stop. */
  readonly intervalMs: number
  readonly bytesPerSecond: number
  readonly isSuspect: boolean
  /** Whose checkpoints to read. */
  readonly replicas: () => readonly number[]
  readonly journal: ScrubbedJournal
  /** The replica's rows are not what was written. */
  readonly onBrokenState: (replica: number, why: string) => void
  /** An entry that was synced can't be read any more. */
  readonly onBrokenEntry: (replica: number, index: number, why: string) => void
  /** A child process that read the state has ended, perhaps in the middle of it. */
  readonly onReaderGone: () => void
  readonly scrub?: (options: ScrubOptions) => Promise<ScrubFinding[]>
}

/** What is asked of the journal. */
export interface ScrubbedJournal {
  replicas(): readonly number[]
  /**
   * Reads entries of closed segments from the disk, whatever memory has: from index `from` on, about `bytesMax` of them.
   * Answers where to go on, null when there is no more, and the first that is not what was written.
   */
  check(
    replica: number,
    from: number,
    bytesMax: number,
  ): {
    readonly next: number | null
    readonly bytes: number
    readonly broken: { readonly index: number; readonly why: string } | null
  }
}

/** Of the journal, in one turn of the main thread. */
const pieceBytes = 128 * 1024

export class Scrubber {
  private readonly options: ScrubberOptions
  private readonly abort = new AbortController()
  private running: Promise<void> = Promise.resolve()
  private cancelTimer: () => void = () => {}
  private wakeUp: () => void = () => {}
  readonly counters = { rounds: 0, statesRead: 0, entriesBroken: 0, statesBroken: 0 }

  constructor(options: ScrubberOptions) {
    this.options = options
  }

  /** Call it when the node has its replicas. */
  start(): void {
    if (this.options.isSuspect) this.begin(null)
    else this.wait()
  }

  async close(): Promise<void> {
    this.cancelTimer()
    this.abort.abort()
    this.wakeUp()
    await this.running
  }

  private get isClosed(): boolean {
    return this.abort.signal.aborted
  }

  private wait(): void {
    const { clock, intervalMs, bytesPerSecond } = this.options
    if (intervalMs === 0 || this.isClosed) return
    this.cancelTimer = clock.after(Math.min(intervalMs, timerMsMax), () => this.begin(bytesPerSecond))
  }

  private begin(bytesPerSecond: number | null): void {
    this.running = this.round(bytesPerSecond)
      .catch((error: Error) => this.options.log.warn('scrub ended early', { error: error.message }))
      .finally(() => this.wait())
  }

  private async round(bytesPerSecond: number | null): Promise<void> {
    const { clock, log } = this.options
    const startedMs = clock.now()
    const states = await this.readStates(bytesPerSecond)
    const entries = await this.readJournal()
    if (this.isClosed) return
    this.counters.rounds++
    const facts = { states, journal_bytes: entries, ms: Math.round(clock.now() - startedMs) }
    log.info(bytesPerSecond === null ? 'scrub after an unclean stop' : 'scrub', facts)
  }

  private async readStates(bytesPerSecond: number | null): Promise<number> {
    const { directory, replicas, onBrokenState, onReaderGone, scrub = scrubState } = this.options
    try {
      const findings = await scrub({
        directory,
        replicas: replicas(),
        signal: this.abort.signal,
        ...(bytesPerSecond === null ? {} : { bytesPerSecond }),
        onFinding: ({ replica, trouble }) => {
          this.counters.statesRead++
          if (trouble === null || this.isClosed) return
          this.counters.statesBroken++
          onBrokenState(replica, `scrub: ${trouble}`)
        },
      })
      return findings.length
    } finally {
      if (!this.isClosed) onReaderGone()
    }
  }

  private async readJournal(): Promise<number> {
    const { clock, journal, bytesPerSecond, onBrokenEntry } = this.options
    let total = 0
    for (const replica of journal.replicas()) {
      for (let from: number | null = 0; from !== null && !this.isClosed; ) {
        const { next, bytes, broken } = journal.check(replica, from, pieceBytes)
        if (broken !== null) {
          this.counters.entriesBroken++
          onBrokenEntry(replica, broken.index, `scrub: ${broken.why}`)
        }
        total += bytes
        from = next
        // After each piece, also a small one: the main thread has other work.
        const pauseMs = Math.max(1, (bytes * 1000) / bytesPerSecond)
        await new Promise<void>(resolve => {
          this.wakeUp = resolve
          clock.after(pauseMs, resolve)
        })
      }
    }
    return total
  }
}

/** The longest that a timer can wait. */
const timerMsMax = 2 ** 31 - 1
