/**
 * A replica as its host drives it: something goes in (`tick`, `step`, `propose…`), then `hasReady`, then `ready` says
 * what is to be done about it.
 *
 * With `asyncStorageWrites` (production) a Ready is complete in its `messages`; its other fields only show the same:
 *
 *   to a replica            send, now, before anything is written
 *   to localAppendThread    MsgStorageAppend: write `snapshot`, `entries` and, unless all zero, (term, vote, commit) to
 *                           the journal. When ALL of it is durable: `step` each of its `responses` that is for this
 *                           replica, send the others. A commit index alone (`mustSync` false) may wait for the next sync.
 *   to localApplyThread     MsgStorageApply: apply the entries in order (`applyConfChange` for each confChange that takes
 *                           effect, before the response), then `step` its one response.
 *
 *   node 7   ready ──┬─▶ peers: MsgApp, MsgVote, …                (at once)
 *   node 9   ready ──┤
 *   node 12  ready ──┼─▶ ONE journal batch ── fdatasync ──▶ responses: step own, send others ──▶ ready …
 *                    └─▶ apply queue ── state machine ────▶ responses: step
 *
 * There is no `advance`: the next Ready may be taken while the writes of many are under way, and the batch that fills
 * meanwhile takes them up. What the host owes: for one replica, appends become durable in the order handed out, and
 * applies happen in theirs; appends and applies don't wait for each other. Responses may be stepped late, in any mix of
 * replicas, but for one replica in order. Before a MsgStorageAppend is answered its entries must be readable through
 * Storage. After a crash, a response that was not stepped is simply lost, and so may be what it spoke of.
 *
 * Without it, the host writes `hardState`, `entries`, `snapshot`, syncs, sends `messages`, applies `committedEntries`,
 * and calls `advance` before the next `ready`.
 *
 * A change of `softState` or term loses all reads that were asked here and not answered: ask again.
 */
import { assert } from '../lib/assert.ts'
import { decodeConfChange, encodeConfChange } from './conf-change.ts'
import { isWellFormed } from './message-shape.ts'
import { type Config, type ProposeResult, Raft, type ReadIndexResult, type StepResult } from './raft.ts'
import type { ReadState } from './read-only.ts'
import type { Storage } from './storage.ts'
import type { Progress } from './tracker.ts'
import {
  type ConfChange,
  type ConfState,
  type Draft,
  draft,
  type Entry,
  entriesBytes,
  type HardState,
  isLocalTarget,
  isStorageKind,
  localAppendThread,
  localApplyThread,
  type Message,
  type Role,
  type Snapshot,
  type SoftState,
} from './types.ts'

export interface Ready {
  /** null = unchanged. Not to be stored. */
  readonly softState: SoftState | null
  /** null = unchanged. */
  readonly hardState: HardState | null
  readonly readStates: readonly ReadState[]
  /** To be written. */
  readonly entries: readonly Entry[]
  readonly snapshot: Snapshot | null
  /** To be applied. */
  readonly committedEntries: readonly Entry[]
  readonly messages: readonly Message[]
  /** The write must be synced: a term, a vote or an entry is in it. A commit index alone need not be. */
  readonly mustSync: boolean
}

export interface BasicStatus {
  readonly id: number
  readonly term: number
  readonly vote: number
  readonly commit: number
  readonly applied: number
  readonly lastIndex: number
  readonly leader: number
  readonly role: Role
  readonly leadTransferee: number
}

export interface Status extends BasicStatus {
  readonly config: ConfState
  /** Of every replica; on a leader only, else empty. Copies. */
  readonly progress: ReadonlyMap<number, Progress>
}

const nothing: readonly never[] = []

export class RawNode {
  readonly raft: Raft
  private readonly isAsync: boolean
  // What the last Ready told.
  private toldTerm: number
  private toldVote: number
  private toldCommit: number
  private toldLeader: number
  private toldRole: Role
  /** Synchronous writes: what is stepped when the host has done what the Ready said. */
  private readonly stepsOnAdvance: Message[] = []

  constructor(config: Config, storage: Storage) {
    this.raft = new Raft(config, storage)
    this.isAsync = config.asyncStorageWrites
    this.toldTerm = this.raft.term
    this.toldVote = this.raft.vote
    this.toldCommit = this.raft.log.committed
    this.toldLeader = this.raft.leader
    this.toldRole = this.raft.role
  }

  get id(): number {
    return this.raft.id
  }

  get term(): number {
    return this.raft.term
  }

  /** Who leads, as far as known; 0 = nobody. */
  get lead(): number {
    return this.raft.leader
  }

  get isLeader(): boolean {
    return this.raft.role === 'leader'
  }

  get firstIndex(): number {
    return this.raft.log.firstIndex()
  }

  get lastIndex(): number {
    return this.raft.log.lastIndex()
  }

  /** A snapshot was received and is not yet installed. */
  get hasPendingSnapshot(): boolean {
    return this.raft.log.unstable.snapshot !== null
  }

  tick(): void {
    this.raft.tick()
  }

  /** From a peer, or a response of this replica's own storage. */
  step(message: Message): StepResult {
    if (isStorageKind(message.kind)) {
      if (!isLocalTarget(message.from)) return 'localMessage'
    } else if (message.to !== this.id || !isWellFormed(message)) {
      return 'malformed'
    }
    return this.raft.step(message)
  }

  propose(data: Uint8Array): ProposeResult {
    return this.raft.propose('normal', [data])
  }

  /** All or none, at consecutive indexes up to `lastIndex`, in one append a follower. */
  proposeAll(data: readonly Uint8Array[]): ProposeResult {
    assert(data.length > 0, 'a proposal of nothing')
    return this.raft.propose('normal', data)
  }

  proposeConfChange(change: ConfChange): ProposeResult {
    return this.raft.propose('confChange', [encodeConfChange(change)])
  }

  decodeConfChange(entry: Entry): ConfChange {
    assert(entry.kind === 'confChange', 'a normal entry is no change of configuration')
    return decodeConfChange(entry.data)
  }

  /** For each committed confChange entry, when it is applied; a host that declares one void does not call it. */
  applyConfChange(change: ConfChange): ConfState {
    return this.raft.applyConfChange(change)
  }

  /** The answer comes in a Ready's `readStates` under `context`, or never if the leadership is lost. */
  readIndex(context: Uint8Array): ReadIndexResult {
    return this.raft.readIndex(context)
  }

  campaign(): void {
    this.raft.campaign()
  }

  /** After `forgetLeader`: campaign in at most `ticks`, unless somebody else is heard of before. */
  campaignWithin(ticks: number): void {
    this.raft.campaignWithin(ticks)
  }

  alignHeartbeat(ticks: number): void {
    this.raft.alignHeartbeat(ticks)
  }

  transferLeader(to: number): void {
    this.raft.transferLeader(to)
  }

  forgetLeader(): void {
    this.raft.forgetLeader()
  }

  stepDown(): void {
    this.raft.stepDown()
  }

  /** A message to `id` could not be delivered. */
  reportUnreachable(id: number): void {
    this.raft.reportUnreachable(id)
  }

  /** The snapshot for `id` has arrived there, or failed to. Without a report the leader waits for ever. */
  reportSnapshot(id: number, isDelivered: boolean): void {
    this.raft.reportSnapshot(id, isDelivered)
  }

  /** Tries again at once to bring a replica up to date, after `Storage.snapshot` had answered null for it. */
  retry(id: number): void {
    this.raft.retry(id)
  }

  hasReady(): boolean {
    const { raft } = this
    return (
      raft.messages.length > 0 ||
      raft.messagesAfterAppend.length > 0 ||
      raft.log.unstable.hasNextEntries() ||
      raft.log.hasNextCommitted(!this.isAsync) ||
      raft.readStates.length > 0 ||
      raft.hasReadHeartbeat() ||
      raft.log.unstable.nextSnapshot() !== null ||
      this.isHardStateNew() ||
      this.isSoftStateNew()
    )
  }

  private isHardStateNew(): boolean {
    const { raft } = this
    return (
      raft.log.committed !== this.toldCommit || raft.term !== this.toldTerm || raft.vote !== this.toldVote
    )
  }

  private isSoftStateNew(): boolean {
    return this.raft.leader !== this.toldLeader || this.raft.role !== this.toldRole
  }

  /** Everything since the last Ready. It counts as taken: what it says must be done. */
  ready(): Ready {
    const { raft } = this
    assert(this.stepsOnAdvance.length === 0, 'ready before advance')
    raft.flushReadHeartbeat()
    const entries = raft.log.unstable.hasNextEntries() ? raft.log.unstable.nextEntries() : nothing
    const snapshot = raft.log.unstable.nextSnapshot()
    const committedEntries = raft.log.nextCommitted(!this.isAsync)
    const hardState = this.isHardStateNew() ? raft.hardState() : null
    const mustSync = entries.length > 0 || raft.term !== this.toldTerm || raft.vote !== this.toldVote
    const softState = this.isSoftStateNew() ? { leader: raft.leader, role: raft.role } : null
    const { messages, messagesAfterAppend, readStates } = raft
    raft.messages = []
    raft.messagesAfterAppend = []
    if (readStates.length > 0) raft.readStates = []

    const appendResponse = this.storageAppendResponse(snapshot)
    if (this.isAsync) {
      const hasWork =
        entries.length > 0 || hardState !== null || snapshot !== null || messagesAfterAppend.length > 0
      if (hasWork) {
        if (appendResponse !== null) messagesAfterAppend.push(appendResponse)
        const append = draft('MsgStorageAppend', localAppendThread, raft.id, 0)
        append.entries = entries
        append.snapshot = snapshot
        append.responses = messagesAfterAppend
        if (hardState !== null) {
          append.term = hardState.term
          append.vote = hardState.vote
          append.commit = hardState.commit
        }
        messages.push(append)
      }
      if (committedEntries.length > 0) messages.push(storageApply(raft.id, committedEntries))
    } else {
      for (const message of messagesAfterAppend) {
        if (message.to === raft.id) this.stepsOnAdvance.push(message)
        else messages.push(message)
      }
      if (appendResponse !== null) this.stepsOnAdvance.push(appendResponse)
      if (committedEntries.length > 0) {
        this.stepsOnAdvance.push(storageApplyResponse(raft.id, committedEntries))
      }
    }

    raft.log.unstable.acceptInProgress()
    const last = committedEntries.at(-1)
    if (last !== undefined) raft.log.acceptApplying(last.index, entriesBytes(committedEntries), !this.isAsync)
    this.toldTerm = raft.term
    this.toldVote = raft.vote
    this.toldCommit = raft.log.committed
    this.toldLeader = raft.leader
    this.toldRole = raft.role
    return { softState, hardState, readStates, entries, snapshot, committedEntries, messages, mustSync }
  }

  /**
   * Attests, once durable, the last entry of this log: appends are durable in order, so all before it are. It carries the
   * term at which the write was handed out (raft.ts, `stepOld`), and is repeated with later writes of the same entry's
   * term while something is unacknowledged, so that none that was void leaves entries unstable.
   */
  private storageAppendResponse(snapshot: Snapshot | null): Draft | null {
    const { raft } = this
    const hasEntries = raft.log.unstable.entries.length > 0
    if (!hasEntries && snapshot === null) return null
    const response = draft('MsgStorageAppendResp', raft.id, localAppendThread, raft.term)
    if (hasEntries) {
      response.index = raft.log.lastIndex()
      response.logTerm = raft.log.lastTerm()
    }
    response.snapshot = snapshot
    return response
  }

  /** Synchronous writes only: what the last Ready said is done. */
  advance(): void {
    assert(!this.isAsync, 'advance with asynchronous storage writes')
    const steps = this.stepsOnAdvance.splice(0)
    for (const message of steps) this.raft.step(message)
  }

  hardState(): HardState {
    return this.raft.hardState()
  }

  /** What this leader knows of a replica; undefined elsewhere, and for one that is not in the configuration. Not a copy. */
  progressOf(id: number): Readonly<Progress> | undefined {
    return this.isLeader ? this.raft.tracker.progress.get(id) : undefined
  }

  /** Bytes of proposals that this leader has appended and not seen committed; 0 elsewhere. */
  get uncommittedBytes(): number {
    return this.raft.uncommittedBytes
  }

  basicStatus(): BasicStatus {
    const { raft } = this
    return {
      id: raft.id,
      term: raft.term,
      vote: raft.vote,
      commit: raft.log.committed,
      applied: raft.log.applied,
      lastIndex: raft.log.lastIndex(),
      leader: raft.leader,
      role: raft.role,
      leadTransferee: raft.leadTransferee,
    }
  }

  status(): Status {
    const { raft } = this
    const progress = new Map<number, Progress>()
    if (raft.role === 'leader') {
      for (const id of raft.tracker.ids) progress.set(id, raft.tracker.progress.get(id)!.copy())
    }
    return { ...this.basicStatus(), config: raft.tracker.config, progress }
  }
}

function storageApply(id: number, entries: readonly Entry[]): Message {
  const apply = draft('MsgStorageApply', localApplyThread, id, 0)
  apply.entries = entries
  apply.responses = [storageApplyResponse(id, entries)]
  return apply
}

function storageApplyResponse(id: number, entries: readonly Entry[]): Message {
  const response = draft('MsgStorageApplyResp', id, localApplyThread, 0)
  response.entries = entries
  return response
}
