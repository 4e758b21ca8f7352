/**
 * A replica's log: what Storage holds followed by what is unstable, and three marks in it.
 *
 *   applied ≤ applying ≤ committed ≤ lastIndex
 *
 * *committed* is what a quorum stored, as far as known here; *applying* is what has been handed to the state machine,
 * *applied* what it has confirmed. Bytes between the last two are limited, so that a slow state machine stops the stream
 * of committed entries and not the memory of the process.
 */
import { assert } from '../lib/assert.ts'
import type { Storage } from './storage.ts'
import { type Entry, entriesBytes, entryBytes, type Snapshot } from './types.ts'
import { Unstable } from './unstable.ts'

const nothing: readonly Entry[] = []

export class RaftLog {
  readonly storage: Storage
  readonly unstable: Unstable
  committed: number
  applying: number
  applied: number
  /** Bytes of entries handed out and not yet applied, and their limit. One entry may exceed it. */
  private applyingBytes = 0
  private readonly applyingBytesMax: number
  private isApplyingPaused = false

  constructor(storage: Storage, applyingBytesMax: number) {
    this.storage = storage
    this.applyingBytesMax = applyingBytesMax
    this.unstable = new Unstable(storage.lastIndex() + 1)
    // What was compacted was applied, hence committed.
    this.committed = storage.firstIndex() - 1
    this.applying = this.committed
    this.applied = this.committed
  }

  firstIndex(): number {
    return this.unstable.firstIndex() ?? this.storage.firstIndex()
  }

  lastIndex(): number {
    return this.unstable.lastIndex() ?? this.storage.lastIndex()
  }

  lastTerm(): number {
    const term = this.term(this.lastIndex())
    assert(term !== undefined, 'the last entry has a term')
    return term
  }

  /** undefined outside [firstIndex - 1, lastIndex]. */
  term(index: number): number | undefined {
    const term = this.unstable.term(index)
    if (term !== undefined) return term
    if (index + 1 < this.firstIndex() || index > this.lastIndex()) return undefined
    return this.storage.term(index)
  }

  matchTerm(index: number, term: number): boolean {
    return this.term(index) === term
  }

  /** Raft §5.4.1: the later last term wins; of equal terms the longer log. */
  isUpToDate(lastIndex: number, lastTerm: number): boolean {
    const term = this.lastTerm()
    return lastTerm > term || (lastTerm === term && lastIndex >= this.lastIndex())
  }

  append(entries: readonly Entry[]): void {
    const first = entries[0]
    if (first === undefined) return
    assert(
      first.index > this.committed,
      `entry ${first.index} would overwrite the committed ${this.committed}`,
    )
    this.unstable.truncateAndAppend(entries)
  }

  /**
   * A leader's append after (index, term). Answers the last index that now is the leader's, or null when this log lacks
   * that entry (Raft §5.3, the consistency check).
   */
  maybeAppend(
    index: number,
    term: number,
    entries: readonly Entry[],
    committedByLeader: number,
  ): number | null {
    if (!this.matchTerm(index, term)) return null
    const last = index + entries.length
    // Only from the first entry that differs: a late, shorter append must not cut off what a newer one of the same
    // leader added, it may have been acknowledged (Raft §5.3, "if an existing entry conflicts").
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!
      if (this.matchTerm(entry.index, entry.term)) continue
      this.append(i === 0 ? entries : entries.slice(i))
      break
    }
    // Not beyond `last`: entries behind it have not been compared with the leader's.
    this.commitTo(Math.min(committedByLeader, last))
    return last
  }

  /**
   * The highest index ≤ `index` whose term is ≤ `term`, with its term (0 when it is compacted): where two logs may still
   * agree. Whole terms are skipped at a time on either side, so finding the fork takes a round trip a term, not an entry.
   */
  findConflictByTerm(index: number, term: number): { index: number; term: number } {
    for (let at = index; at > 0; at--) {
      const own = this.term(at)
      if (own === undefined) return { index: at, term: 0 }
      if (own <= term) return { index: at, term: own }
    }
    return { index: 0, term: 0 }
  }

  commitTo(index: number): void {
    if (index <= this.committed) return
    assert(
      index <= this.lastIndex(),
      `commit ${index} beyond the last entry ${this.lastIndex()}: the log was lost`,
    )
    this.committed = index
  }

  /** Entries from `from` on, at most `bytesMax` but one at least; null when `from` is compacted. */
  entriesFrom(from: number, bytesMax: number): readonly Entry[] | null {
    return this.slice(from, this.lastIndex() + 1, bytesMax)
  }

  slice(from: number, to: number, bytesMax: number): readonly Entry[] | null {
    if (from >= to) return nothing
    if (from < this.firstIndex()) return null
    const { offset } = this.unstable
    if (from >= offset) return this.unstable.slice(from, to, bytesMax)
    const cut = Math.min(to, offset)
    const stable = this.storage.entries(from, cut, bytesMax)
    if (stable === null || to <= offset || stable.length < cut - from) return stable
    const rest = bytesMax - entriesBytes(stable)
    const next = this.unstable.entries[0]
    if (next === undefined || entryBytes(next) > rest) return stable
    return stable.concat(this.unstable.slice(offset, to, rest))
  }

  /** The first change of configuration in [from, to), null when there is none. */
  findConfChange(from: number, to: number, pageBytes: number): Entry | null {
    while (from < to) {
      const page = this.slice(from, to, pageBytes)
      // A snapshot being installed stands where they were; it carries its configuration with it.
      if (page === null) return null
      const found = page.find(entry => entry.kind !== 'normal')
      if (found !== undefined) return found
      from += page.length
    }
    return null
  }

  // Handing out committed entries.

  /**
   * With asynchronous storage only what is on this replica's own disk may be applied: a state machine that ran ahead of
   * its log would remember, after a crash, what its log does not.
   */
  private appliableIndex(mayApplyUnstable: boolean): number {
    return mayApplyUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1)
  }

  hasNextCommitted(mayApplyUnstable: boolean): boolean {
    if (this.isApplyingPaused || this.unstable.snapshot !== null) return false
    return this.appliableIndex(mayApplyUnstable) > this.applying
  }

  nextCommitted(mayApplyUnstable: boolean): readonly Entry[] {
    if (!this.hasNextCommitted(mayApplyUnstable)) return nothing
    const to = this.appliableIndex(mayApplyUnstable) + 1
    const entries = this.slice(this.applying + 1, to, this.applyingBytesMax - this.applyingBytes)
    assert(entries !== null, `entry ${this.applying + 1} was compacted before it was applied`)
    return entries
  }

  acceptApplying(index: number, bytes: number, mayApplyUnstable: boolean): void {
    assert(index >= this.applying && index <= this.committed, `applying ${index} out of order`)
    this.applying = index
    this.applyingBytes += bytes
    // Cut by the limit: even if some bytes are left, the next entry did not fit in them.
    this.isApplyingPaused =
      this.applyingBytes >= this.applyingBytesMax || index < this.appliableIndex(mayApplyUnstable)
  }

  appliedTo(index: number, bytes: number): void {
    assert(index >= this.applied && index <= this.committed, `applied ${index} out of order`)
    this.applied = index
    this.applying = Math.max(this.applying, index)
    this.applyingBytes = Math.max(0, this.applyingBytes - bytes)
    this.isApplyingPaused = this.applyingBytes >= this.applyingBytesMax
  }

  snapshot(to: number): Snapshot | null {
    return this.unstable.snapshot ?? this.storage.snapshot(to)
  }

  /** The snapshot takes the place of the whole log; everything in it is committed by definition. */
  restore(snapshot: Snapshot): void {
    this.committed = snapshot.meta.index
    this.unstable.restore(snapshot)
  }
}
