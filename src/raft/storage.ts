/**
 * The port to a replica's durable log, as Raft reads it. Raft never writes: what is to be written leaves in a Ready.
 *
 * All answers are synchronous and about what the host has *accepted* as written. A host that writes in the background
 * serves them from its in-memory view, and that view may run ahead of the disk only by what no MsgStorageAppendResp has
 * yet acknowledged: Raft itself keeps those entries and never asks for them.
 *
 * The entry before `firstIndex` is the snapshot's (or 0 with term 0): its term is known, its data is gone.
 */
import type { ConfState, Entry, HardState, Snapshot } from './types.ts'

export interface Storage {
  /** Read once, at the start of a replica. */
  initialState(): { readonly hardState: HardState; readonly confState: ConfState }
  /**
   * Entries [from, to), from its start as many as fit in `bytesMax` (counted by `entryBytes`), one at least.
   * null = `from` is compacted away. `to` ≤ lastIndex + 1, the caller's duty.
   */
  entries(from: number, to: number, bytesMax: number): readonly Entry[] | null
  /** The term of an entry in [firstIndex - 1, lastIndex]; undefined outside it. */
  term(index: number): number | undefined
  /** The first entry there is; lastIndex + 1 when there is none. */
  firstIndex(): number
  lastIndex(): number
  /**
   * A snapshot for replica `to`; null = not now (one is being made): Raft asks again with the next heartbeat's answer.
   * Its index must be ≥ firstIndex - 1, or the receiver would ask for entries that are gone.
   */
  snapshot(to: number): Snapshot | null
}
