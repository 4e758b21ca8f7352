import type { RowStore } from '../keyspace/row-store.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Entry, HardState, Message } from '../raft/types.ts'

/**
 * What the replicas of a node need from the world. The adapters are `storage/` and `peer/`; a simulation binds twins.
 * Replica ids are safe integers > 0, given by the meta shard and never reused; whatever is on disk hangs on them.
 */

// --- The journal: durability of Raft's logs and hard states -------------------------------------------------------

export interface JournalRecord {
  readonly replica: number
  /** null = unchanged. */
  readonly hardState: HardState | null
  /** Replace what stands at and after their first index. */
  readonly entries: readonly Entry[]
  /** Who the group's replicas are, opaque; replaces the last one. */
  readonly configuration?: Bytes
  /** A snapshot was installed: the log is emptied and goes on after (index, term). */
  readonly reset?: { readonly index: number; readonly term: number }
}

export interface Journal {
  /** One batch = one write + one fdatasync; at most one in flight. Entries are readable when this returns, durable at done(null). */
  write(batch: readonly JournalRecord[], done: (error: Error | null) => void): void
  /** Nothing of the replica is recovered any more once done(null) was called. */
  remove(replica: number, done: (error: Error | null) => void): void
  firstIndex(replica: number): number
  lastIndex(replica: number): number
  /** undefined outside [firstIndex - 1, lastIndex]. */
  term(replica: number, index: number): number | undefined
  /** from ≤ index < to, at least one, then up to bytesMax. */
  entries(replica: number, from: number, to: number, bytesMax: number): Entry[]
  /** What the replica's entries behind `index` take. Looks at each of them. */
  bytesAfter(replica: number, index: number): number
  /** Entries up to `index` are in a durable checkpoint and no follower needs them: they may go. */
  compact(replica: number, index: number, term: number): void
  /** The replicas whose unapplied or uncompacted entries keep the oldest segment, when the budget asks for space. */
  pinnedBy(): readonly number[]
}

export interface ReplicaRecovery {
  readonly replica: number
  readonly hardState: HardState
  readonly configuration: Bytes | null
  /** The log begins after this. */
  readonly snapshotPoint: { readonly index: number; readonly term: number }
  readonly lastIndex: number
  /** Indexes [from, to) that were damaged, if any: the replica is quarantined when they still matter. */
  readonly damaged: { readonly from: number; readonly to: number } | null
}

// --- The state: rows, checkpoints, snapshots ----------------------------------------------------------------------

/** What a checkpoint says beside its rows, in the same transaction. */
export interface CheckpointMeta {
  readonly index: number
  readonly term: number
  /** The group's configuration as of `index`, opaque. */
  readonly configuration: Bytes
}

/** How many rows, and two sums over their checksums that don't depend on their order. */
export interface RowsDigest {
  readonly count: number
  readonly sum: number
  readonly mixed: number
}

export interface StateStore {
  /** The replicas with a durable checkpoint here. */
  replicas(): readonly number[]
  /** The replica's rows as of its last checkpoint; empty rows for a new replica. */
  open(replica: number): ReplicaState
  /** Durable when it resolves. */
  destroy(replica: number): Promise<void>
  close(): Promise<void>
}

/**
 * One replica's rows: a memtable over the last checkpoint. Reads see every put at once; a put is durable only through
 * `checkpoint` (until then the journal has the entry that made it).
 */
export interface ReplicaState extends RowStore {
  /** Of the last durable checkpoint; null before the first. */
  readonly checkpointed: CheckpointMeta | null
  /** Of all rows as of the last durable checkpoint; the same on every replica at the same index. null before the first. */
  readonly checkpointDigest: RowsDigest | null
  readonly memtableBytes: number
  readonly rowCount: number
  /** Opens the logs of records that the checkpoint names, if that has not happened yet. Throws CORRUPT where some are missing. */
  openRecords(): void
  /**
   * Freezes the memtable and makes all rows put so far durable, together with `meta`, off the main thread. Rows put
   * meanwhile belong to the next one. At most one at a time a replica. Rejects with NO_SPACE when there is no room: all is
   * as it was and may be tried again. Any other rejection is final for the node.
   */
  checkpoint(meta: CheckpointMeta): Promise<void>
  /** Copies the last checkpoint into a file of named parts, off the main thread; it lives until `release`. */
  takeSnapshot(): Promise<Snapshot>
  /** Begins to receive, or goes on with what an earlier attempt of the same id already staged and synced. */
  stage(manifest: SnapshotManifest): StagedSnapshot
}

export interface SnapshotManifest {
  /** Made by the sender, unique for all time; a receiver resumes only the same id. */
  readonly id: string
  readonly index: number
  readonly term: number
  readonly configuration: Bytes
  readonly parts: readonly SnapshotPart[]
}

export interface SnapshotPart {
  readonly name: string
  readonly bytes: number
  readonly crc: number
}

export interface Snapshot {
  readonly manifest: SnapshotManifest
  read(part: string, position: number, length: number): Bytes
  release(): void
}

export interface StagedSnapshot {
  readonly manifest: SnapshotManifest
  readonly bytesStaged: number
  /** The next bytes to fetch; null when all parts are complete. */
  next(): { readonly part: string; readonly position: number; readonly length: number } | null
  write(part: string, position: number, bytes: Bytes): void
  /** Checks every part's CRC and syncs it. Rejects with CORRUPT (and forgets the parts) when one does not fit. */
  verify(): Promise<void>
  /**
   * After `verify`: one durable flip makes the staged rows the replica's rows and `checkpointed` the manifest's. Rejects
   * with NO_SPACE when there is no room: it may be tried again.
   */
  install(): Promise<void>
  discard(): void
}

// --- Room -----------------------------------------------------------------------------------------------------------

/** What a host knows of the room on disks: its own, by asking it, and the others', by what they say. */
export interface Room {
  /** This node's disk takes no more entries of users: the reserve is left for votes, elections and compaction. */
  isFull(): boolean
  /** The node says that its disk is nearly full, or full. */
  isNearlyFull(node: string): boolean
  /** Groups of the cluster's own go on: they need little, and the way out may lead through them. */
  isOfUsers(group: number): boolean
}

// --- The peers ------------------------------------------------------------------------------------------------------

/**
 * One Raft message between two replicas of a group. `group` is the shard's id; a frame is a list of them. A reader drops
 * what is not for a replica it has: a replica is never made because a message arrived.
 */
export interface PeerMessage {
  readonly group: number
  readonly message: Message
}

/** Sends frames to another node. Loses, never blocks: what does not fit in its queue is dropped and counted. */
export interface Outbox {
  /**
   * `appends` carries MsgApp and MsgSnap, `control` heartbeats, votes and acks, so that a vote never waits behind a
   * megabyte of entries.
   */
  send(node: string, lane: 'appends' | 'control', frame: readonly PeerMessage[]): void
}
