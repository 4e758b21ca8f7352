import { isError } from '../errors.ts'
import type { RecordStore } from '../keyspace/row-store.ts'
import { endOf, prefixes } from '../keyspace/rows.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type {
  CheckpointMeta,
  ReplicaState,
  RowsDigest,
  Snapshot,
  SnapshotManifest,
  StagedSnapshot,
  StateStore,
} from '../shard/ports.ts'
import type { CheckpointRecord } from './checkpoint-record.ts'
import { Memtable, mergeLayers } from './memtable.ts'
import {
  generationDirectory,
  openLogs,
  type RecordFile,
  type RecordHome,
  type RecordLogs,
  removeOlderLogs,
  removeStrayLogs,
} from './record-logs.ts'
import { keyBytesMax } from './row-codec.ts'

/**
 * A replica's rows: a memtable over a frozen memtable over a base of checkpointed rows. Everything that LMDB and its twin
 * for the simulator share is here; a base only keeps rows and changes them in whole transactions.
 *
 * A checkpoint freezes the memtable (a new one takes the writes from now on) and hands it to the base. Reads look at
 * memtable, frozen, base in this order, so nobody sees the commit happen: the frozen rows hide the same rows below them.
 * The invariant: the frozen memtable goes only once a *new* read transaction of the base shows the checkpoint's index; a
 * read in an older one would otherwise find neither.
 */

/** What lies under the memtables of a node. */
export interface StateBase {
  /** Where the logs of records are; null: this base is for states without any. */
  readonly recordHome: RecordHome | null
  /** Why every call is refused, once one commit was. */
  readonly failure: Error | null
  replicas(): readonly number[]
  /** The durable checkpoint as a new read transaction shows it. */
  record(replica: number): CheckpointRecord | null
  get(replica: number, key: string): Bytes | undefined
  range(replica: number, from: string, to: string): Iterable<readonly [string, Bytes]>
  /** One durable transaction: the rows and tombstones of `rows` (nobody changes it any more), and `meta`. */
  commit(replica: number, rows: Memtable, meta: CheckpointMeta): Promise<void>
  /** Everything of the replica goes, durably. */
  drop(replica: number): Promise<void>
  /** `recordFiles` is called once the rows are copied, and lists what belongs to them at least. */
  snapshot(replica: number, recordFiles: () => readonly RecordFile[]): Promise<Snapshot>
  stage(replica: number, manifest: SnapshotManifest): BaseStaged
  close(): Promise<void>
}

export interface BaseStaged extends Omit<StagedSnapshot, 'install'> {
  /** Calls `flipped` in the very moment in which the base begins to show the staged rows. */
  install(flipped: () => void): Promise<void>
}

/** Of the rows and logs of a replica before any snapshot was installed. */
export const firstGeneration = 1

class LayeredState implements ReplicaState {
  private readonly replica: number
  private readonly base: StateBase
  private memtable = new Memtable()
  /** On its way into the base; null when no checkpoint runs. */
  private frozen: Memtable | null = null
  private record: CheckpointRecord | null
  /** The checkpoint or install under way, for those who must wait for it. Never rejects. */
  private running: Promise<void> | null = null
  /** Why a checkpoint was refused: its rows stay in `frozen` and readable, and no other is begun. */
  private refused: Error | null = null
  private destroyed = false
  /** Opened by the first who asks for them. */
  private logs: RecordLogs | null = null

  constructor(replica: number, base: StateBase) {
    this.replica = replica
    this.base = base
    this.record = base.record(replica)
  }

  get checkpointed(): CheckpointMeta | null {
    return this.record
  }

  get checkpointDigest(): RowsDigest | null {
    if (this.record === null) return null
    const { count, sum, mixed } = this.record
    return { count, sum, mixed }
  }

  /** Of rows and records that only memory has: those being checkpointed included. */
  get memtableBytes(): number {
    return this.memtable.bytes + (this.frozen?.bytes ?? 0) + (this.logs?.waitingBytes ?? 0)
  }

  /** As of the last checkpoint: whether a put is a new row is not asked of the base. */
  get rowCount(): number {
    return this.record?.count ?? 0
  }

  get(key: string): Bytes | undefined {
    const fresh = this.memtable.get(key)
    if (fresh !== undefined) return fresh ?? undefined
    const frozen = this.frozen?.get(key)
    if (frozen !== undefined) return frozen ?? undefined
    return this.record === null ? undefined : this.base.get(this.replica, key)
  }

  get records(): RecordStore {
    return this.recordLogs
  }

  openRecords(): void {
    if (this.base.recordHome !== null) void this.recordLogs
  }

  private get recordLogs(): RecordLogs {
    this.logs ??= this.openLogs()
    return this.logs
  }

  /** As of the last durable checkpoint: entries behind it come again. Throws CORRUPT where records are missing. */
  private openLogs(): RecordLogs {
    const home = this.base.recordHome
    assert(home !== null, `replica ${this.replica}: this state keeps no records`)
    const { replica, record, base } = this
    const partitions =
      record === null ? [] : base.range(replica, prefixes.partition, endOf(prefixes.partition))
    const generation = record?.generation ?? firstGeneration
    removeOlderLogs(home, replica, generation)
    return openLogs(home, generationDirectory(replica, generation), partitions)
  }

  put(key: string, value: Bytes): void {
    this.write(key, value)
  }

  delete(key: string): void {
    this.write(key, null)
  }

  private write(key: string, value: Bytes | null): void {
    assert(!this.destroyed, `replica ${this.replica} is written after it was destroyed`)
    assert(
      key.length > 0 && key.length <= keyBytesMax,
      `a row's key has 1 to ${keyBytesMax} bytes, not ${key.length}`,
    )
    this.memtable.set(key, value)
  }

  range(from: string, to: string): Iterable<readonly [string, Bytes]> {
    if (from >= to) return []
    const base = this.record === null ? [] : this.base.range(this.replica, from, to)
    const above = [this.memtable, this.frozen].filter(layer => layer?.touches(from, to) === true)
    return above.length === 0 ? base : mergeLayers([...above.map(layer => layer!.range(from, to)), base])
  }

  checkpoint(meta: CheckpointMeta): Promise<void> {
    assert(this.running === null, `replica ${this.replica}: a checkpoint or an install is under way`)
    assert(!this.destroyed, `replica ${this.replica} is checkpointed after it was destroyed`)
    assert(
      this.record === null || meta.index >= this.record.index,
      `replica ${this.replica}: a checkpoint at ${meta.index} after one at ${this.record?.index}`,
    )
    const refused = this.refused ?? this.base.failure
    if (refused !== null) return Promise.reject(refused)
    const logs = this.logs?.freeze() ?? null
    // Puts go on into the new memtable.
    const frozen = this.memtable
    this.frozen = frozen
    this.memtable = new Memtable()
    return this.run(async () => {
      try {
        // First the records, then the rows that say they are there.
        if (logs !== null) await this.recordLogs.sync(logs)
        await this.base.commit(this.replica, frozen, meta)
      } catch (error) {
        if (isError(error, 'NO_SPACE')) this.thaw(frozen)
        else this.refused = error as Error
        throw error
      }
      this.showRecord(meta)
      this.frozen = null
      if (logs !== null) this.recordLogs.settle(logs)
    })
  }

  /** The base has none of the frozen rows: they belong to the next checkpoint, under those that were put since. */
  private thaw(frozen: Memtable): void {
    for (const [key, value] of this.memtable.range('', null)) frozen.set(key, value)
    this.memtable = frozen
    this.frozen = null
  }

  async takeSnapshot(): Promise<Snapshot> {
    assert(
      this.record !== null,
      `replica ${this.replica}: a snapshot is a copy of a checkpoint, and there is none`,
    )
    // The files of the checkpoint that is copied now stay until they are linked, whatever later ones need.
    const logs = this.base.recordHome === null ? null : this.recordLogs
    logs?.pin()
    try {
      return await this.base.snapshot(this.replica, () => logs?.files() ?? [])
    } finally {
      logs?.unpin()
    }
  }

  stage(manifest: SnapshotManifest): StagedSnapshot {
    const staged = this.base.stage(this.replica, manifest)
    return {
      manifest: staged.manifest,
      get bytesStaged() {
        return staged.bytesStaged
      },
      next: () => staged.next(),
      write: (part, position, bytes) => staged.write(part, position, bytes),
      verify: () => staged.verify(),
      install: () => this.install(staged),
      discard: () => staged.discard(),
    }
  }

  /** Rows put before the flip belong to the history that the snapshot replaces; they go. */
  private async install(staged: BaseStaged): Promise<void> {
    const { manifest } = staged
    while (this.running !== null) await this.running
    assert(!this.destroyed, `replica ${this.replica}: a snapshot is installed after it was destroyed`)
    assert(
      this.record === null || manifest.index >= this.record.index,
      `replica ${this.replica}: a snapshot of ${manifest.index} over a checkpoint at ${this.record?.index}`,
    )
    await this.run(() =>
      staged.install(() => {
        this.memtable = new Memtable()
        this.frozen = null
        this.refused = null
        this.showRecord(manifest)
        // Those of the generation before are read no more; the new ones are opened by the first who asks.
        this.logs?.close()
        this.logs = null
      }),
    )
  }

  private showRecord(expected: CheckpointMeta): void {
    this.record = this.base.record(this.replica)
    assert(
      this.record?.index === expected.index && this.record.term === expected.term,
      `replica ${this.replica}: a new read shows the checkpoint at ${this.record?.index}, committed is ${expected.index}`,
    )
  }

  private async run(work: () => Promise<void>): Promise<void> {
    const working = work()
    this.running = working.then(
      () => undefined,
      () => undefined,
    )
    try {
      await working
    } finally {
      this.running = null
    }
  }

  /** No more writes; resolves when nothing of this replica is under way. */
  async retire(): Promise<void> {
    this.destroyed = true
    while (this.running !== null) await this.running
    this.logs?.close()
    this.logs = null
  }
}

function generationOf(base: StateBase, replica: number): number | 'unknown' | null {
  try {
    return base.record(replica)?.generation ?? null
  } catch (error) {
    if (!isError(error, 'CORRUPT')) throw error
    return 'unknown'
  }
}

/** All replicas' states of a node over one base. */
export class LayeredStateStore implements StateStore {
  private readonly base: StateBase
  private readonly states = new Map<number, LayeredState>()

  constructor(base: StateBase) {
    this.base = base
    if (base.recordHome === null) return
    const named = new Map<number, number | 'unknown'>()
    for (const replica of base.replicas()) {
      // What can't be read is kept for who wants to look.
      const generation = generationOf(base, replica)
      if (generation !== null) named.set(replica, generation)
    }
    removeStrayLogs(base.recordHome, replica => named.get(replica) ?? null)
  }

  /** Set once a commit was refused: nothing is durable here any more, and the host ends the process. */
  get failure(): Error | null {
    return this.base.failure
  }

  replicas(): readonly number[] {
    return this.base.replicas()
  }

  open(replica: number): ReplicaState {
    assert(Number.isSafeInteger(replica) && replica > 0, `a replica id is an integer above 0, not ${replica}`)
    let state = this.states.get(replica)
    if (state === undefined) {
      state = new LayeredState(replica, this.base)
      this.states.set(replica, state)
    }
    return state
  }

  async destroy(replica: number): Promise<void> {
    await this.states.get(replica)?.retire()
    this.states.delete(replica)
    await this.base.drop(replica)
  }

  /** Waits for the checkpoints under way. Rows in memtables are the journal's to bring back. */
  async close(): Promise<void> {
    await Promise.all([...this.states.values()].map(state => state.retire()))
    await this.base.close()
  }
}
