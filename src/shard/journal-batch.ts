import type { Entry, Message } from '../raft/types.ts'
import type { JournalRecord } from './ports.ts'

/**
 * What the next journal write will hold: one record a replica, however many Readies went into it while the write before
 * was in flight, and the messages that may leave once it is durable.
 */
export class JournalBatch {
  private readonly records = new Map<number, JournalRecord>()
  private readonly waited = new Set<number>()
  private readonly waiting: { readonly replica: number; readonly responses: readonly Message[] }[] = []

  /** Whether anything in it is waited for. A commit index alone is not: it may go with the next write, or be lost. */
  isUrgent = false

  get size(): number {
    return this.records.size
  }

  /** `responses` promise what `record` says: they are handed out by `responses()` when it is on disk. */
  add(record: JournalRecord, responses: readonly Message[], isUrgent = true): void {
    this.isUrgent ||= isUrgent
    const { replica } = record
    if (isUrgent) this.waited.add(replica)
    const earlier = this.records.get(replica)
    this.records.set(replica, earlier === undefined ? record : merge(earlier, record))
    if (responses.length > 0) this.waiting.push({ replica, responses })
  }

  /** Whether something of this replica in it is waited for. */
  isWaitedFor(replica: number): boolean {
    return this.waited.has(replica)
  }

  /** Forgets what waits for a replica. */
  drop(replica: number): void {
    this.records.delete(replica)
  }

  recordsInOrder(): JournalRecord[] {
    return [...this.records.values()].sort((a, b) => a.replica - b.replica)
  }

  responses(): readonly { readonly replica: number; readonly responses: readonly Message[] }[] {
    return this.waiting
  }
}

function merge(earlier: JournalRecord, later: JournalRecord): JournalRecord {
  const configuration = later.configuration ?? earlier.configuration
  const reset = later.reset ?? earlier.reset
  // A reset empties the log, also of what was about to be written.
  const kept = later.reset === undefined ? earlier.entries : []
  return {
    replica: later.replica,
    hardState: later.hardState ?? earlier.hardState,
    entries: join(kept, later.entries),
    ...(configuration === undefined ? {} : { configuration }),
    ...(reset === undefined ? {} : { reset }),
  }
}

/** Entries replace what stands at and after their first index. */
function join(earlier: readonly Entry[], later: readonly Entry[]): readonly Entry[] {
  const first = later[0]
  if (first === undefined || earlier.length === 0) return first === undefined ? earlier : later
  const firstEarlier = earlier[0]!.index
  return [...earlier.slice(0, Math.max(0, first.index - firstEarlier)), ...later]
}
