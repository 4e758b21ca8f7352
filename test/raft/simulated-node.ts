/**
 * A replica on a disk that is slow and may crash, as the contract of asynchronous storage allows (RawNode):
 *
 *   handed out    readable through Storage at once, lost in a crash (or not: an unsynced write may survive)
 *   durable       after `sync`; only then are the responses stepped and sent
 *   applied       what the state machine has seen; after a crash it starts again from its checkpoint
 */
import assert from 'node:assert/strict'
import { Prng } from '../../src/lib/prng.ts'
import { MemoryStorage } from '../../src/raft/memory-storage.ts'
import { RawNode } from '../../src/raft/raw-node.ts'
import {
  type ConfState,
  type Entry,
  type HardState,
  localAppendThread,
  localApplyThread,
  type Message,
  type Snapshot,
} from '../../src/raft/types.ts'
import type { Truth } from './truth.ts'

export interface Disk {
  hardState: HardState
  /** Where the log begins: the entry before its first. */
  start: { index: number; term: number }
  log: readonly Entry[]
  checkpoint: Snapshot
}

/** Hands out snapshots only to those whom they name: a newcomer waits until a checkpoint knows of it. */
class NodeStorage extends MemoryStorage {
  private readonly snapshotFor: (to: number) => Snapshot | null

  constructor(snapshotFor: (to: number) => Snapshot | null) {
    super()
    this.snapshotFor = snapshotFor
  }

  override snapshot(to: number): Snapshot | null {
    return this.snapshotFor(to)
  }
}

export interface Settings {
  readonly preVote: boolean
  /** Without it a leader that was cut off goes on believing: the hardest case for reads and for old terms. */
  readonly checkQuorum: boolean
}

export class SimulatedNode {
  readonly id: number
  raft!: RawNode
  disk: Disk
  applied = 0
  confState!: ConfState
  isAlive = true
  private storage!: MemoryStorage
  private appends: Message[] = []
  private applies: Message[] = []
  private reads = new Map<string, number>()
  private nextRead = 0
  /** Where the latest snapshot ends that was handed out to be installed. */
  private snapshotIndex = 0
  private life = 0
  private readonly settings: Settings
  private readonly truth: Truth
  private readonly send: (message: Message) => void
  private readonly installed: (snapshot: Snapshot) => void

  constructor(
    id: number,
    settings: Settings,
    checkpoint: Snapshot,
    truth: Truth,
    send: (message: Message) => void,
    installed: (snapshot: Snapshot) => void,
  ) {
    const { index, term } = checkpoint.meta
    this.id = id
    this.disk = { hardState: { term, vote: 0, commit: index }, start: { index, term }, log: [], checkpoint }
    this.settings = settings
    this.truth = truth
    this.send = send
    this.installed = installed
    this.start()
  }

  start(): void {
    const { hardState, start, log, checkpoint } = this.disk
    const { index } = checkpoint.meta
    const storage = new NodeStorage(to => this.snapshotFor(to))
    storage.applySnapshot({
      meta: { ...start, confState: checkpoint.meta.confState },
      data: checkpoint.data,
    })
    storage.saveSnapshot(checkpoint)
    storage.append(log)
    // The checkpoint holds only what was durable and committed; the commit index on disk may be older.
    storage.hardState = { ...hardState, commit: Math.max(hardState.commit, index) }
    assert.ok(storage.hardState.commit <= storage.lastIndex(), 'the disk forgot what was committed')
    this.storage = storage
    this.appends = []
    this.applies = []
    this.reads = new Map()
    this.applied = index
    this.snapshotIndex = index
    this.confState = checkpoint.meta.confState
    this.isAlive = true
    this.life++
    this.raft = new RawNode(
      {
        id: this.id,
        electionTick: 10,
        heartbeatTick: 2,
        applied: index,
        maxSizePerMsg: 60,
        maxInflightMsgs: 3,
        maxInflightBytes: 0,
        maxUncommittedEntriesSize: 400,
        maxCommittedSizePerReady: 80,
        preVote: this.settings.preVote,
        checkQuorum: this.settings.checkQuorum,
        asyncStorageWrites: true,
        disableProposalForwarding: true,
        stepDownOnRemoval: true,
        random: new Prng(this.id * 1_000 + this.life),
      },
      storage,
    )
    this.drain()
  }

  /** The process dies. Of the writes not yet synced the first `surviving` are found on disk all the same. */
  crash(surviving: number): void {
    for (const append of this.appends.slice(0, surviving)) {
      // A snapshot's rows flip before the log is reset: the simulation takes the two as one.
      this.write(append)
    }
    this.isAlive = false
  }

  /** Takes what Raft has to say: everything is handed out at once, nothing is durable yet. */
  drain(): void {
    while (this.isAlive && this.raft.hasReady()) {
      const ready = this.raft.ready()
      for (const { context, index } of ready.readStates) this.answered(context, index)
      for (const message of ready.messages) {
        if (message.to === localAppendThread) this.handOut(message)
        else if (message.to === localApplyThread) this.applies.push(message)
        else this.send(message)
      }
    }
    if (this.isAlive && this.raft.isLeader) this.truth.leads(this.id, this.raft.term, this.storage)
  }

  private handOut(append: Message): void {
    const { snapshot, entries, term, vote, commit } = append
    if (snapshot !== null) {
      this.storage.applySnapshot(snapshot)
      this.snapshotIndex = snapshot.meta.index
    }
    this.storage.append(entries)
    this.truth.appended(this.storage, entries)
    if (term !== 0) {
      assert.ok(commit >= this.storage.hardState.commit, 'the commit index fell')
      this.storage.hardState = { term, vote, commit }
      if (snapshot === null) this.truth.committed(this.raft.term, commit, this.storage)
    }
    this.appends.push(append)
  }

  get unsynced(): number {
    return this.appends.length
  }

  /** The oldest `count` writes become durable: their responses are true now. */
  sync(count: number): void {
    for (const append of this.appends.splice(0, count)) {
      this.write(append)
      for (const response of append.responses) {
        if (response.to === this.id) this.raft.step(response)
        else this.send(response)
      }
      if (append.snapshot !== null) this.installed(append.snapshot)
      this.drain()
    }
  }

  private write(append: Message): void {
    const { disk } = this
    const { snapshot, entries, term, vote, commit } = append
    if (term !== 0) {
      assert.ok(term >= disk.hardState.term, 'the durable term fell')
      if (term === disk.hardState.term && disk.hardState.vote !== 0)
        assert.equal(vote, disk.hardState.vote, 'a durable vote changed within its term')
      disk.hardState = { term, vote, commit }
    }
    if (snapshot !== null) {
      const { index, term } = snapshot.meta
      disk.start = { index, term }
      disk.log = []
      disk.checkpoint = snapshot
      if (this.isAlive && index > this.applied) {
        this.truth.installed(snapshot)
        this.applied = index
        this.confState = snapshot.meta.confState
      }
    }
    const first = entries[0]
    if (first !== undefined) {
      const kept = first.index - disk.start.index - 1
      assert.ok(kept >= 0 && kept <= disk.log.length, 'a hole in the log on disk')
      disk.log = [...disk.log.slice(0, kept), ...entries]
    }
  }

  /** The state machine does its oldest batch. */
  apply(): void {
    const batch = this.applies.shift()
    if (batch === undefined) return
    for (const entry of batch.entries) {
      // A snapshot brings these: Raft has its configuration already, which no older change may touch.
      if (entry.index <= this.snapshotIndex) continue
      assert.equal(entry.index, this.applied + 1, 'an entry was skipped')
      const durable = this.disk.log[entry.index - this.disk.start.index - 1]
      assert.equal(durable?.term, entry.term, 'an entry is applied before it is durable')
      this.truth.applied(entry)
      if (entry.kind !== 'normal')
        this.confState = this.raft.applyConfChange(this.raft.decodeConfChange(entry))
      this.applied = entry.index
    }
    for (const response of batch.responses) this.raft.step(response)
    this.drain()
  }

  get isIdle(): boolean {
    return this.appends.length === 0 && this.applies.length === 0
  }

  /** The state machine's rows go to disk, and the log before them, but for `kept` entries, is dropped. */
  checkpoint(kept: number): void {
    const { disk, applied } = this
    // While a snapshot is on its way to the disk the log is not to be touched.
    if (applied <= disk.checkpoint.meta.index || this.appends.some(append => append.snapshot !== null)) return
    const term = this.truth.termOf(applied)
    const meta = { index: applied, term, confState: this.confState }
    disk.checkpoint = { meta, data: this.truth.stateAt(applied) }
    this.storage.saveSnapshot(disk.checkpoint)
    const cut = applied - kept
    if (cut <= disk.start.index) return
    disk.log = disk.log.slice(cut - disk.start.index)
    disk.start = { index: cut, term: this.truth.termOf(cut) }
    this.storage.compact(cut)
  }

  private snapshotFor(to: number): Snapshot | null {
    if (!names(this.disk.checkpoint, to)) this.checkpoint(1)
    return names(this.disk.checkpoint, to) ? this.disk.checkpoint : null
  }

  /** A read at a leader: its index must cover all that anybody knew to be committed when it was asked. */
  read(): void {
    const context = `${this.id}/${this.life}/${this.nextRead++}`
    this.reads.set(context, this.truth.commitIndex)
    this.raft.readIndex(new TextEncoder().encode(context))
    this.drain()
  }

  private answered(context: Uint8Array, index: number): void {
    const name = new TextDecoder().decode(context)
    const committed = this.reads.get(name)
    assert.ok(committed !== undefined, `an answer to ${name}, which nobody asked`)
    this.reads.delete(name)
    assert.ok(index >= committed, `a read at ${index}, though ${committed} was committed before`)
    this.truth.reads++
  }
}

function names(snapshot: Snapshot, replica: number): boolean {
  const { voters, votersOutgoing, learners } = snapshot.meta.confState
  return [...voters, ...votersOutgoing, ...learners].includes(replica)
}
