/**
 * What a leader knows of each replica's log, and the configuration it counts quorums in.
 *
 * A replica is in one of three states. *probe*: the leader doesn't know where the logs part and sends one append at a
 * time. *replicate*: it does, and sends ahead optimistically within a window of messages and bytes. *snapshot*: the
 * entries it needs are gone from the leader's log and nothing is sent until a snapshot has arrived.
 *
 *              refused append, or unreachable              log compacted
 *   replicate ────────────────────────────────▶ probe ─────────────────────▶ snapshot
 *       ▲          acknowledged append           │ ▲    acknowledged, or        │
 *       └────────────────────────────────────────┘ └────reported (un)done───────┘
 */
import { assert } from '../lib/assert.ts'
import { type AckedIndexes, jointIndex, jointVote, type VoteResult } from './quorum.ts'
import { type ConfState, emptyConfState } from './types.ts'

/** The appends on their way to one replica: for each, its last index and its bytes. A ring that grows when needed. */
export class Inflights {
  /** Named limits of the window; bytesMax 0 = only messages count. */
  readonly messagesMax: number
  readonly bytesMax: number
  private first = 0
  private used = 0
  private usedBytes = 0
  private indexes: number[] = []
  private sizes: number[] = []

  constructor(messagesMax: number, bytesMax: number) {
    this.messagesMax = messagesMax
    this.bytesMax = bytesMax
  }

  get count(): number {
    return this.used
  }

  get bytes(): number {
    return this.usedBytes
  }

  isFull(): boolean {
    return this.used === this.messagesMax || (this.bytesMax !== 0 && this.usedBytes >= this.bytesMax)
  }

  add(index: number, bytes: number): void {
    assert(!this.isFull(), 'an append beyond the window')
    if (this.used === this.indexes.length) this.grow()
    const at = (this.first + this.used) % this.indexes.length
    this.indexes[at] = index
    this.sizes[at] = bytes
    this.used++
    this.usedBytes += bytes
  }

  /** An acknowledgement of `index` acknowledges everything sent before it. */
  freeTo(index: number): void {
    while (this.used > 0 && this.indexes[this.first]! <= index) {
      this.usedBytes -= this.sizes[this.first]!
      this.first = (this.first + 1) % this.indexes.length
      this.used--
    }
    if (this.used === 0) this.first = 0
  }

  reset(): void {
    this.first = 0
    this.used = 0
    this.usedBytes = 0
  }

  /** Doubles up to the limit: most groups are idle, and a window of 128 for each of their replicas would be waste. */
  private grow(): void {
    const size = Math.min(Math.max(this.indexes.length * 2, 8), this.messagesMax)
    const indexes = new Array<number>(size).fill(0)
    const sizes = new Array<number>(size).fill(0)
    for (let i = 0; i < this.used; i++) {
      const at = (this.first + i) % this.indexes.length
      indexes[i] = this.indexes[at]!
      sizes[i] = this.sizes[at]!
    }
    this.indexes = indexes
    this.sizes = sizes
    this.first = 0
  }
}

export type ProgressState = 'probe' | 'replicate' | 'snapshot'

export class Progress {
  state: ProgressState = 'probe'
  /** The log is known to be the leader's up to here, durably. Grows only. */
  match = 0
  /** The next entry to send; always > match. In `replicate` what lies between is on its way. */
  next: number
  /** The highest commit index sent, so that the replica is told of a new one once, not with every answer. */
  commitSent = 0
  /** The snapshot on its way, in `snapshot` only. */
  pendingSnapshot = 0
  /** Heard of since the last CheckQuorum. */
  isRecentlyActive = false
  /** Heard of between the last two CheckQuorums: just after one, `isRecentlyActive` is false of everybody. */
  wasActiveBefore = false
  /** Nothing more to send before an answer or the next heartbeat's. */
  isPausedByFlow = false
  isLearner: boolean
  readonly inflights: Inflights

  constructor(next: number, isLearner: boolean, inflights: Inflights) {
    this.next = next
    this.isLearner = isLearner
    this.inflights = inflights
  }

  /** For a configuration under construction. The window is shared: of the two one will be thrown away. */
  copy(): Progress {
    const copy = new Progress(this.next, this.isLearner, this.inflights)
    copy.state = this.state
    copy.match = this.match
    copy.commitSent = this.commitSent
    copy.pendingSnapshot = this.pendingSnapshot
    copy.isRecentlyActive = this.isRecentlyActive
    copy.wasActiveBefore = this.wasActiveBefore
    copy.isPausedByFlow = this.isPausedByFlow
    return copy
  }

  private enter(state: ProgressState): void {
    this.state = state
    this.isPausedByFlow = false
    this.pendingSnapshot = 0
    this.inflights.reset()
  }

  becomeProbe(): void {
    // After a snapshot that was delivered, probing goes on behind it even if its acknowledgement was lost.
    const next = this.state === 'snapshot' ? Math.max(this.match, this.pendingSnapshot) + 1 : this.match + 1
    this.enter('probe')
    this.next = next
    this.commitSent = Math.min(this.commitSent, next - 1)
  }

  becomeReplicate(): void {
    this.enter('replicate')
    this.next = this.match + 1
  }

  becomeSnapshot(index: number): void {
    this.enter('snapshot')
    this.pendingSnapshot = index
    this.next = index + 1
    this.commitSent = index
  }

  /** After an append of `count` entries: a probe waits for its answer, replication runs ahead until the window is full. */
  sentEntries(count: number, bytes: number): void {
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count
        this.inflights.add(this.next - 1, bytes)
      }
      this.isPausedByFlow = this.inflights.isFull()
    } else if (this.state === 'probe') {
      if (count > 0) this.isPausedByFlow = true
    } else {
      assert(false, 'an append to a replica that waits for a snapshot')
    }
  }

  /** A higher commit index is worth a message unless one that covers the whole log sent so far is on its way. */
  canBumpCommit(commit: number): boolean {
    return commit > this.commitSent && this.commitSent < this.next - 1
  }

  sentCommit(commit: number): void {
    this.commitSent = commit
  }

  /** An acknowledgement; false when it tells nothing new (answers arrive late and twice). */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) return false
    this.match = index
    this.next = Math.max(this.next, index + 1)
    this.isPausedByFlow = false
    return true
  }

  /** A refusal of the append after `rejected`; false when it is stale. `hint` is where the logs may still agree. */
  maybeDecrTo(rejected: number, hint: number): boolean {
    if (this.state === 'replicate') {
      // What is acknowledged is durable: a refusal of it is from before the acknowledgement.
      if (rejected <= this.match) return false
      this.next = this.match + 1
    } else {
      // A probe is answered before the next one leaves: a refusal of anything else is old.
      if (this.next - 1 !== rejected) return false
      this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1)
      this.isPausedByFlow = false
    }
    this.commitSent = Math.min(this.commitSent, this.next - 1)
    return true
  }

  isPaused(): boolean {
    return this.state === 'snapshot' || this.isPausedByFlow
  }
}

/** The configuration with the progress of all its replicas; `ids` are sorted, and every walk goes in that order. */
export class ProgressTracker implements AckedIndexes {
  config: ConfState = emptyConfState
  progress: Map<number, Progress> = new Map()
  ids: readonly number[] = []
  readonly votes = new Map<number, boolean>()
  readonly inflightMessagesMax: number
  readonly inflightBytesMax: number

  constructor(inflightMessagesMax: number, inflightBytesMax: number) {
    this.inflightMessagesMax = inflightMessagesMax
    this.inflightBytesMax = inflightBytesMax
  }

  switchTo(config: ConfState, progress: Map<number, Progress>): void {
    this.config = config
    this.progress = progress
    this.ids = [...progress.keys()].sort((a, b) => a - b)
  }

  newProgress(next: number, isLearner: boolean): Progress {
    return new Progress(next, isLearner, new Inflights(this.inflightMessagesMax, this.inflightBytesMax))
  }

  isJoint(): boolean {
    return this.config.votersOutgoing.length > 0
  }

  isVoter(id: number): boolean {
    return this.config.voters.includes(id) || this.config.votersOutgoing.includes(id)
  }

  /** `id` alone decides everything. */
  isSoleVoter(id: number): boolean {
    return !this.isJoint() && this.config.voters.length === 1 && this.config.voters[0] === id
  }

  /** All voters, sorted. */
  voterIds(): number[] {
    return this.ids.filter(id => this.isVoter(id))
  }

  ackedIndex(id: number): number | undefined {
    return this.progress.get(id)?.match
  }

  /** What a quorum stored (Raft §5.3); the term is the caller's to check. */
  committed(): number {
    return jointIndex(this.config.voters, this.config.votersOutgoing, this)
  }

  resetVotes(): void {
    this.votes.clear()
  }

  /** A replica votes once a term: its first answer counts, a repeated message changes nothing. */
  recordVote(id: number, isGranted: boolean): void {
    if (!this.votes.has(id)) this.votes.set(id, isGranted)
  }

  voteResult(votes: ReadonlyMap<number, boolean> = this.votes): VoteResult {
    return jointVote(this.config.voters, this.config.votersOutgoing, votes)
  }

  /** Has a quorum of the voters been heard of since the last time (Raft §6.2 of the thesis)? */
  isQuorumActive(): boolean {
    const active = new Map<number, boolean>()
    for (const [id, progress] of this.progress) if (progress.isRecentlyActive) active.set(id, true)
    return this.voteResult(active) === 'won'
  }
}
