/**
 * The end of the log that no storage has acknowledged: entries from `offset` on, and perhaps a snapshot before them.
 * What a Ready has handed out but storage has not acknowledged is *in progress*; it must not be handed out twice, and it
 * stays here, because it may yet be overwritten.
 *
 *     stable (Storage)   │   in progress   │  not yet handed out
 *   ─────────────────────┼─────────────────┼─────────────────────▶
 *                      offset       offsetInProgress
 */
import { assert } from '../lib/assert.ts'
import { type Entry, entryBytes, type Snapshot } from './types.ts'

export class Unstable {
  snapshot: Snapshot | null = null
  isSnapshotInProgress = false
  entries: Entry[] = []
  offset: number
  offsetInProgress: number

  constructor(offset: number) {
    this.offset = offset
    this.offsetInProgress = offset
  }

  /** null when the snapshot, if any, does not say. */
  firstIndex(): number | null {
    return this.snapshot === null ? null : this.snapshot.meta.index + 1
  }

  lastIndex(): number | null {
    if (this.entries.length > 0) return this.offset + this.entries.length - 1
    return this.snapshot === null ? null : this.snapshot.meta.index
  }

  term(index: number): number | undefined {
    if (index >= this.offset) return this.entries[index - this.offset]?.term
    return this.snapshot !== null && this.snapshot.meta.index === index ? this.snapshot.meta.term : undefined
  }

  hasNextEntries(): boolean {
    return this.offset + this.entries.length > this.offsetInProgress
  }

  nextEntries(): readonly Entry[] {
    return this.entries.slice(this.offsetInProgress - this.offset)
  }

  nextSnapshot(): Snapshot | null {
    return this.isSnapshotInProgress ? null : this.snapshot
  }

  /** All that is here has been handed out. */
  acceptInProgress(): void {
    this.offsetInProgress = this.offset + this.entries.length
    this.isSnapshotInProgress = this.snapshot !== null
  }

  /**
   * Storage holds the log up to an entry. Only if the entry here is still that one: an append that was replaced while it
   * was being written says nothing about its replacement. (That the same term and index can't come back as *another*
   * write is the term in the acknowledgement's care: raft.ts, `step`.)
   */
  stableTo(index: number, term: number): void {
    if (index < this.offset || this.term(index) !== term) return
    this.entries.splice(0, index + 1 - this.offset)
    this.offset = index + 1
    this.offsetInProgress = Math.max(this.offsetInProgress, this.offset)
  }

  stableSnapshotTo(index: number): void {
    if (this.snapshot === null || this.snapshot.meta.index !== index) return
    this.snapshot = null
    this.isSnapshotInProgress = false
  }

  restore(snapshot: Snapshot): void {
    this.offset = snapshot.meta.index + 1
    this.offsetInProgress = this.offset
    this.entries = []
    this.snapshot = snapshot
    this.isSnapshotInProgress = false
  }

  /** `entries` take the place of everything from their first index on. */
  truncateAndAppend(entries: readonly Entry[]): void {
    const from = entries[0]!.index
    if (from <= this.offset) {
      // Entries that storage holds are overwritten too: storage cuts when it is handed the new ones.
      this.entries = entries.slice()
      this.offset = from
      this.offsetInProgress = from
      return
    }
    assert(from <= this.offset + this.entries.length, `a hole in the log before ${from}`)
    this.entries.length = from - this.offset
    for (const entry of entries) this.entries.push(entry)
    this.offsetInProgress = Math.min(this.offsetInProgress, from)
  }

  /** [from, to), at most `bytesMax` but one at least. A copy: what is handed out must not change when the log is cut. */
  slice(from: number, to: number, bytesMax: number): readonly Entry[] {
    const start = from - this.offset
    const end = to - this.offset
    let bytes = 0
    for (let i = start; i < end; i++) {
      bytes += entryBytes(this.entries[i]!)
      if (bytes > bytesMax && i > start) return this.entries.slice(start, i)
    }
    return this.entries.slice(start, end)
  }
}
