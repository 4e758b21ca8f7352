import { isError } from '../errors.ts'
import type { Storage } from '../raft/storage.ts'
import type { ConfState, Entry, HardState, Snapshot } from '../raft/types.ts'
import type { Journal } from './ports.ts'

/**
 * Raft's view of one replica's log: a window on the node's journal. The snapshot is the one thing that the journal does
 * not know; it is asked of whoever prepares them, and null (not ready yet) makes Raft ask again at the next heartbeat.
 */
export class RaftStorage implements Storage {
  private readonly journal: Journal
  private readonly replica: number
  private readonly initial: { readonly hardState: HardState; readonly confState: ConfState }
  private readonly snapshotFor: (to: number) => Snapshot | null
  private readonly onCorrupt: (why: string) => void

  constructor(
    journal: Journal,
    replica: number,
    initial: { readonly hardState: HardState; readonly confState: ConfState },
    snapshotFor: (to: number) => Snapshot | null,
    onCorrupt: (why: string) => void,
  ) {
    this.journal = journal
    this.replica = replica
    this.initial = initial
    this.snapshotFor = snapshotFor
    this.onCorrupt = onCorrupt
  }

  initialState(): { readonly hardState: HardState; readonly confState: ConfState } {
    return this.initial
  }

  entries(from: number, to: number, bytesMax: number): Entry[] | null {
    if (from < this.journal.firstIndex(this.replica)) return null
    try {
      return this.journal.entries(this.replica, from, to, bytesMax)
    } catch (error) {
      if (!isError(error, 'CORRUPT')) throw error
      this.onCorrupt(error.message)
      // Nothing more is asked of this replica: it falls silent with this turn.
      return null
    }
  }

  term(index: number): number | undefined {
    return this.journal.term(this.replica, index)
  }

  firstIndex(): number {
    return this.journal.firstIndex(this.replica)
  }

  lastIndex(): number {
    return this.journal.lastIndex(this.replica)
  }

  snapshot(to: number): Snapshot | null {
    return this.snapshotFor(to)
  }
}
