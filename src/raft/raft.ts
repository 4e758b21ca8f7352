/**
 * The Raft algorithm for one replica of one group (Ongaro, Ousterhout 2014; "thesis" is Ongaro's). A machine without
 * I/O, clock or promises: `tick`, `step` and proposals go in; messages, entries and marks come out through RawNode.
 * In the shape of etcd's raft, whose public scripts judge it.
 *
 * Two outboxes hold its safety. `messages` may leave at once. `messagesAfterAppend` promise something that must survive
 * a crash (a vote cast, a log stored), so they leave only when everything that stood in memory when they were written is
 * on disk. A replica makes such promises to itself too: a leader's own disk counts for its quorum by the same message.
 *
 * Read in this order: fields, tick, step, then the roles from follower to leader, replication, configuration, reads.
 */
import { assert } from '../lib/assert.ts'
import { emptyBytes, equalBytes, fromLatin1 } from '../lib/bytes.ts'
import type { Random } from '../lib/prng.ts'
import { decodeConfChange, encodeConfChange, leaveJoint, leavesJoint } from './conf-change.ts'
import { type ChangeRefusal, change, restore } from './confchange.ts'
import { decodePosition, encodePosition } from './position.ts'
import { jointIndex } from './quorum.ts'
import { RaftLog } from './raft-log.ts'
import { ReadOnly, type ReadRequest, type ReadState, readsWaitingMax } from './read-only.ts'
import type { Storage } from './storage.ts'
import { type Progress, ProgressTracker } from './tracker.ts'
import {
  type ConfChange,
  type ConfState,
  type Draft,
  draft,
  type Entry,
  entriesBytes,
  type HardState,
  isResponse,
  isVoteResponse,
  type Message,
  type MessageKind,
  none,
  payloadBytes,
  type Role,
  type Snapshot,
} from './types.ts'

export interface Config {
  readonly id: number
  /** A follower that hears of no leader for this many ticks, plus up to as many again by chance, campaigns. */
  readonly electionTick: number
  readonly heartbeatTick: number
  readonly random: Random
  /** What the state machine has applied already; 0 = what Storage has compacted. */
  readonly applied: number
  /** Bytes of entries in one append. */
  readonly maxSizePerMsg: number
  /** Bytes of committed entries handed out and not yet applied. */
  readonly maxCommittedSizePerReady: number
  /** Bytes of proposals a leader keeps uncommitted before it refuses more. */
  readonly maxUncommittedEntriesSize: number
  /** The window to one follower in appends, and in bytes (0 = unlimited). */
  readonly maxInflightMsgs: number
  readonly maxInflightBytes: number
  /** A leader without a quorum steps down; voters that hear a leader ignore candidates (thesis §6.2, §4.2.3). */
  readonly checkQuorum: boolean
  /** Ask whether an election could be won before raising the term (thesis §9.6). */
  readonly preVote: boolean
  /** Default `safe`. `leaseBased` trusts clocks; it needs checkQuorum. */
  readonly readOnly?: 'safe' | 'leaseBased'
  readonly disableProposalForwarding: boolean
  readonly asyncStorageWrites: boolean
  /** Accept any change into the log; the host then judges at apply. */
  readonly disableConfChangeValidation?: boolean
  /** A refused configuration change leaves an empty entry in the log (as etcd does) instead of a report to the caller. */
  readonly emptyEntryForRefusedConfChange?: boolean
  /** A leader that applies its own removal or demotion becomes a follower. */
  readonly stepDownOnRemoval: boolean
  /** A replica that has all entries is told of a commit by MsgCommit, in place of an append without any, which it answers. */
  readonly commitMessages?: boolean
}

const mib = 1 << 20

/** What production runs with. */
export const productionConfig: Omit<Config, 'id' | 'random' | 'applied'> = {
  electionTick: 20,
  heartbeatTick: 5,
  maxSizePerMsg: mib / 4,
  maxCommittedSizePerReady: 4 * mib,
  maxUncommittedEntriesSize: 16 * mib,
  maxInflightMsgs: 128,
  maxInflightBytes: 8 * mib,
  checkQuorum: true,
  preVote: true,
  readOnly: 'safe',
  disableProposalForwarding: true,
  asyncStorageWrites: true,
  stepDownOnRemoval: true,
  commitMessages: true,
}

/** Why a proposal is not in the log. All are definite: it was not appended and never will be. */
export type DropReason =
  | 'noLeader'
  | 'notLeader'
  | 'removed'
  | 'transferring'
  | 'uncommittedFull'
  | 'confChangePending'
  | ChangeRefusal

/** `ok`: appended here, the last of them at (term, lastIndex): committed when that index is applied with that term. */
export type ProposeResult = 'ok' | 'forwarded' | DropReason

/**
 * unknownPeer, localMessage, malformed: ignored. dropped: a forwarded proposal or read that can't be served here. lostEntries: a
 * leader proved that this replica once acknowledged entries it no longer has; nothing was changed, and it must be
 * quarantined: its votes and acknowledgements may be lies.
 */
export type StepResult = 'ok' | 'unknownPeer' | 'localMessage' | 'malformed' | 'dropped' | 'lostEntries'

/** postponed: answered after the leader's first commit. dropped: no leader, or too many wait. */
export type ReadIndexResult = 'ok' | 'postponed' | 'dropped'

/** From a replica that leads its term. */
const leaderKinds: ReadonlySet<MessageKind> = new Set(['MsgApp', 'MsgHeartbeat', 'MsgCommit', 'MsgSnap'])

type CampaignKind = 'preElection' | 'election' | 'transfer'

/** In a vote request: the leader itself asked for this election, so that it does not count as a disturbance. */
const campaignTransfer = fromLatin1('CampaignTransfer')

export class Raft {
  readonly id: number
  readonly config: Config
  readonly log: RaftLog
  readonly tracker: ProgressTracker

  // Raft §5.1, figure 2: these two are durable before anything that depends on them leaves.
  term = 0
  vote = none

  role: Role = 'follower'
  leader = none
  /** To whom a leader is handing over; it takes no proposals meanwhile (thesis §3.10). */
  leadTransferee = none

  messages: Message[] = []
  messagesAfterAppend: Message[] = []
  readStates: ReadState[] = []

  /**
   * The index of the last change of configuration that may be unapplied. While applied < this, no other one is proposed:
   * two changes under way at once could have quorums that don't meet (thesis §4.1).
   */
  private pendingConfIndex = 0
  /**
   * The index of the entry by which this leader takes itself out of the voters. Once it is applied here nobody tells the
   * others that it is committed, and they elect by the configuration before it: those who don't vote in the new one would
   * refuse any candidate whose log is shorter than theirs. So it is the last entry of this leader: no log is longer.
   */
  private ownRemovalIndex = 0
  /** Bytes of this leader's proposals that are not committed yet. */
  uncommittedBytes = 0
  private readonly readOnly = new ReadOnly()
  /** Reads that came before this leader's first commit. */
  private postponedReads: ReadRequest[] = []
  private isReadHeartbeatDue = false

  /** Ticks since the last heartbeat or granted vote; for a leader, since the last CheckQuorum. */
  private electionElapsed = 0
  private heartbeatElapsed = 0
  /** Drawn anew with every change of term or role, in [electionTick, 2 electionTick - 1] (Raft §5.2). */
  private electionTimeout = 0

  constructor(config: Config, storage: Storage) {
    assert(Number.isSafeInteger(config.id) && config.id > none, 'a replica id is a safe integer above 0')
    assert(config.heartbeatTick > 0, 'heartbeatTick must be above 0')
    assert(config.electionTick > config.heartbeatTick, 'electionTick must be above heartbeatTick')
    assert(config.maxInflightMsgs > 0, 'maxInflightMsgs must be above 0')
    assert(config.maxCommittedSizePerReady > 0, 'maxCommittedSizePerReady must be above 0')
    assert(config.readOnly !== 'leaseBased' || config.checkQuorum, 'lease-based reads need checkQuorum')
    this.config = config
    this.id = config.id
    this.log = new RaftLog(storage, config.maxCommittedSizePerReady)
    this.tracker = new ProgressTracker(config.maxInflightMsgs, config.maxInflightBytes)
    const { hardState, confState } = storage.initialState()
    restore(this.tracker, this.log.lastIndex(), confState)
    this.term = hardState.term
    this.vote = hardState.vote
    // The stored commit index is a hint that may lag (it is written without a sync); what was compacted or applied was
    // committed whatever it says.
    this.log.committed = Math.max(this.log.committed, hardState.commit, config.applied)
    assert(
      this.log.committed <= this.log.lastIndex(),
      `commit ${this.log.committed} beyond the last entry ${this.log.lastIndex()}: the log was lost`,
    )
    if (config.applied > 0) this.log.appliedTo(config.applied, 0)
    this.becomeFollower(this.term, none)
  }

  hardState(): HardState {
    return { term: this.term, vote: this.vote, commit: this.log.committed }
  }

  // Time.

  tick(): void {
    if (this.role === 'leader') this.tickLeader()
    else this.tickElection()
  }

  private tickElection(): void {
    this.electionElapsed++
    if (this.electionElapsed < this.electionTimeout) return
    this.electionElapsed = 0
    if (!this.isPromotable()) {
      // A learner can't call an election, but whom it has not heard for so long it takes for its leader no more: else it
      // would send callers there for ever, when the group is led by somebody whom it does not know.
      this.leader = none
      return
    }
    this.hup(this.config.preVote ? 'preElection' : 'election')
  }

  private tickLeader(): void {
    this.heartbeatElapsed++
    this.electionElapsed++
    if (this.electionElapsed >= this.config.electionTick) {
      this.electionElapsed = 0
      if (this.config.checkQuorum && !this.checkQuorum()) return
      // A transferee that did not take over within an election timeout is not going to (thesis §3.10).
      if (this.leadTransferee !== none) {
        this.leadTransferee = none
        this.maybeAutoLeave()
      }
    }
    if (this.heartbeatElapsed >= this.config.heartbeatTick) {
      this.heartbeatElapsed = 0
      this.broadcastHeartbeat()
    }
  }

  /** False when this replica stepped down: the others may long have another leader, and clients would wait here in vain. */
  private checkQuorum(): boolean {
    const isActive = this.tracker.isQuorumActive()
    if (!isActive) this.becomeFollower(this.term, none)
    for (const [id, progress] of this.tracker.progress) {
      progress.wasActiveBefore = progress.isRecentlyActive
      if (id !== this.id) progress.isRecentlyActive = false
    }
    return isActive
  }

  /** Ticks from the last sign of a leader to a campaign, in place of the drawn one: a host knows that the leader is gone. */
  setElectionTimeout(ticks: number): void {
    assert(ticks > 0, 'an election timeout is above 0')
    this.electionTimeout = ticks
  }

  /** As if the last heartbeat were `ticks` ago: a host lets all its leaders speak in one tick, and so in one frame a peer. */
  alignHeartbeat(ticks: number): void {
    assert(ticks >= 0 && ticks < this.config.heartbeatTick, 'a heartbeat is due every heartbeatTick ticks')
    this.heartbeatElapsed = ticks
  }

  campaignWithin(ticks: number): void {
    if (this.role === 'leader') return
    this.electionTimeout = Math.min(this.electionTimeout, this.electionElapsed + Math.max(1, ticks))
  }

  // What comes in.

  step(message: Message): StepResult {
    if (isResponse(message.kind) && !this.tracker.progress.has(message.from)) return 'unknownPeer'
    // True in any term: a commit index does not age.
    if (message.reject && isVoteResponse(message.kind)) this.learnCommit(message.context)
    if (message.term > this.term) {
      if (message.kind === 'MsgVote' || message.kind === 'MsgPreVote') {
        // A replica that was cut off, or removed and not told, must not depose a leader the others hear (thesis §4.2.3).
        const isForced = equalBytes(message.context, campaignTransfer)
        const isLeased =
          this.config.checkQuorum && this.leader !== none && this.electionElapsed < this.config.electionTick
        if (!isForced && isLeased) return 'ok'
      }
      // A pre-vote is about a term that may never be: neither asking nor granting it raises anybody's (thesis §9.6). A
      // refusal comes from a replica whose term really is higher.
      const isAboutFuture =
        message.kind === 'MsgPreVote' || (message.kind === 'MsgPreVoteResp' && !message.reject)
      if (!isAboutFuture) {
        if (this.provesLoss(message)) return 'lostEntries'
        const isFromLeader = leaderKinds.has(message.kind)
        this.becomeFollower(message.term, isFromLeader ? message.from : none)
      }
    } else if (message.term !== 0 && message.term < this.term) {
      return this.stepOld(message)
    }
    switch (message.kind) {
      case 'MsgVote':
      case 'MsgPreVote':
        this.handleVoteRequest(message)
        return 'ok'
      case 'MsgStorageAppendResp':
        if (message.index !== 0) this.log.unstable.stableTo(message.index, message.logTerm)
        if (message.snapshot !== null) this.appliedSnapshot(message.snapshot)
        return 'ok'
      case 'MsgStorageApplyResp': {
        const last = message.entries.at(-1)
        if (last !== undefined) {
          this.uncommittedBytes = Math.max(0, this.uncommittedBytes - payloadBytes(message.entries))
          this.appliedTo(last.index, entriesBytes(message.entries))
        }
        return 'ok'
      }
      case 'MsgStorageAppend':
      case 'MsgStorageApply':
        return 'localMessage'
      default:
        break
    }
    switch (this.role) {
      case 'follower':
        return this.stepFollower(message)
      case 'preCandidate':
      case 'candidate':
        return this.stepCandidate(message)
      case 'leader':
        return this.stepLeader(message)
    }
  }

  /** Messages of an earlier term change nothing (Raft §5.1); some senders must learn that time has moved on. */
  private stepOld(message: Message): StepResult {
    switch (message.kind) {
      case 'MsgApp':
      case 'MsgHeartbeat':
        // This replica raised its term in a campaign that nobody heeds while they hear their leader. That leader's
        // messages would be ignored here for ever; any answer with the higher term makes it step down and start anew.
        if (this.config.checkQuorum || this.config.preVote)
          this.sendAfterAppend(this.draft('MsgAppResp', message.from))
        return 'ok'
      case 'MsgPreVote': {
        // Before pre-vote was on everywhere, a candidate with a higher term and an old log could meet others that never
        // raise theirs: the refusal carries the term.
        const response = this.draft('MsgPreVoteResp', message.from)
        response.reject = true
        this.sendAfterAppend(response)
        return 'ok'
      }
      case 'MsgStorageAppendResp':
        // The ABA case: an entry (term, index) was being written, was replaced by another leader's, and came back. An
        // acknowledgement of the first write would pass for one of the third, though the second may lie between them on
        // disk. So one from an earlier term stabilises nothing; each new term writes its hard state and gets its own.
        // A snapshot has no such twin: an installed one is below everything that could replace it.
        if (message.snapshot !== null) this.appliedSnapshot(message.snapshot)
        return 'ok'
      default:
        return 'ok'
    }
  }

  /** Raft §5.2, §5.4.1. Learners vote too: one that was promoted may not have applied that yet, and its vote is needed. */
  private handleVoteRequest(message: Message): void {
    const isPreVote = message.kind === 'MsgPreVote'
    const canVote =
      // The same vote again, or none cast and no leader known in this term, or a question about a term to come.
      this.vote === message.from ||
      (this.vote === none && this.leader === none) ||
      (isPreVote && message.term > this.term)
    const response = draft(isPreVote ? 'MsgPreVoteResp' : 'MsgVoteResp', message.from, this.id, this.term)
    // The election restriction: every committed entry is in the log of every leader to come (Raft §5.4.3).
    if (canVote && this.log.isUpToDate(message.index, message.logTerm)) {
      // The term asked about: of a granted pre-vote it is not this replica's own.
      response.term = message.term
      response.context = encodePosition(message.index, message.logTerm)
      if (!isPreVote) {
        this.electionElapsed = 0
        this.vote = message.from
      }
    } else {
      response.reject = true
      response.context = encodePosition(this.log.committed, this.log.term(this.log.committed) ?? 0)
    }
    // A vote must be on disk before it is on the wire: forgotten in a crash, it could be cast twice in a term.
    this.sendAfterAppend(response)
  }

  /**
   * A refused vote tells how far the voter knows the log to be committed. Without it a group could stand still for ever:
   * voters that have applied their own demotion and hold a longer log refuse a candidate that has the demotion in its log,
   * but doesn't know that it is committed and so still asks them; and they may not campaign themselves.
   */
  private learnCommit(context: Uint8Array): void {
    const position = decodePosition(context)
    if (position === null || position.index <= this.log.committed) return
    // The same last entry means the same log up to it (log matching, Raft §5.3), so the same entries are committed.
    if (this.role === 'leader' || !this.log.matchTerm(position.index, position.term)) return
    this.log.commitTo(position.index)
    // As in `hup`: with a change of configuration committed and not applied, it has been asking the wrong voters.
    if (this.role !== 'follower' && this.hasUnappliedConfChange()) this.becomeFollower(this.term, none)
  }

  // Roles.

  private reset(term: number): void {
    if (this.term !== term) {
      this.term = term
      this.vote = none
    }
    this.leader = none
    this.leadTransferee = none
    this.electionElapsed = 0
    this.heartbeatElapsed = 0
    const { electionTick, random } = this.config
    this.electionTimeout = electionTick + random.below(electionTick)
    this.tracker.resetVotes()
    const last = this.log.lastIndex()
    for (const id of this.tracker.ids) {
      const progress = this.tracker.newProgress(last + 1, this.tracker.progress.get(id)!.isLearner)
      // Of these entries some may not be on this disk yet. They are of earlier terms, which are never counted (§5.4.2);
      // the first entry that is comes after them on disk, and only its own acknowledgement raises this.
      if (id === this.id) progress.match = last
      this.tracker.progress.set(id, progress)
    }
    this.pendingConfIndex = 0
    this.ownRemovalIndex = 0
    this.uncommittedBytes = 0
    this.readOnly.reset()
    this.postponedReads = []
    this.isReadHeartbeatDue = false
  }

  becomeFollower(term: number, leader: number): void {
    this.reset(term)
    this.leader = leader
    this.role = 'follower'
  }

  private becomePreCandidate(): void {
    assert(this.role !== 'leader', 'a leader does not campaign')
    // Neither term nor vote change: that is the point of it.
    this.tracker.resetVotes()
    this.leader = none
    this.role = 'preCandidate'
  }

  private becomeCandidate(): void {
    assert(this.role !== 'leader', 'a leader does not campaign')
    this.reset(this.term + 1)
    this.vote = this.id
    this.role = 'candidate'
  }

  private becomeLeader(): void {
    assert(this.role !== 'follower', 'a follower does not lead without an election')
    this.reset(this.term)
    this.leader = this.id
    this.role = 'leader'
    const own = this.tracker.progress.get(this.id)
    if (own !== undefined) {
      own.becomeReplicate()
      own.isRecentlyActive = true
    }
    // A change of configuration may be anywhere in the log it inherited: none is accepted before all of it is applied.
    this.pendingConfIndex = this.log.lastIndex()
    this.noticeInheritedRemoval()
    // An entry of its own term: without one it could not commit what it inherited (Raft §5.4.2, §8).
    const isAppended = this.appendOwn('normal', [emptyBytes])
    assert(isAppended, 'an empty entry always fits')
  }

  /** A voter, and with a log that is all there: while a snapshot is being installed it does not know what it stands for. */
  private isPromotable(): boolean {
    const own = this.tracker.progress.get(this.id)
    return own !== undefined && !own.isLearner && this.log.unstable.snapshot === null
  }

  campaign(): void {
    this.hup(this.config.preVote ? 'preElection' : 'election')
  }

  private hup(kind: CampaignKind): void {
    if (this.role === 'leader' || !this.isPromotable()) return
    // A configuration counts from its apply on. With one committed but not applied, this replica would ask the wrong
    // voters, and two majorities of the same term might not meet.
    if (this.hasUnappliedConfChange()) return
    this.startCampaign(kind)
  }

  private hasUnappliedConfChange(): boolean {
    const { applied, committed } = this.log
    return this.log.findConfChange(applied + 1, committed + 1, this.config.maxSizePerMsg) !== null
  }

  private startCampaign(kind: CampaignKind): void {
    const isPre = kind === 'preElection'
    if (isPre) this.becomePreCandidate()
    else this.becomeCandidate()
    const term = isPre ? this.term + 1 : this.term
    const index = this.log.lastIndex()
    const logTerm = this.log.lastTerm()
    for (const id of this.tracker.ids) {
      if (!this.tracker.isVoter(id)) continue
      if (id === this.id) {
        // Its own vote is a promise like any other: it counts when it is on disk.
        const own = draft(isPre ? 'MsgPreVoteResp' : 'MsgVoteResp', id, id, term)
        own.context = encodePosition(index, logTerm)
        this.sendAfterAppend(own)
        continue
      }
      const request = draft(isPre ? 'MsgPreVote' : 'MsgVote', id, this.id, term)
      request.index = index
      request.logTerm = logTerm
      if (kind === 'transfer') request.context = campaignTransfer
      this.messages.push(request)
    }
  }

  private stepCandidate(message: Message): StepResult {
    switch (message.kind) {
      case 'MsgApp':
      case 'MsgHeartbeat':
      case 'MsgCommit':
      case 'MsgSnap':
        // Somebody else won this term (Raft §5.2).
        this.becomeFollower(message.term, message.from)
        return this.stepFollower(message)
      case 'MsgPreVoteResp':
        if (this.role === 'preCandidate') this.handleVoteResponse(message)
        return 'ok'
      case 'MsgVoteResp':
        if (this.role === 'candidate') this.handleVoteResponse(message)
        return 'ok'
      case 'MsgProp':
      case 'MsgReadIndex':
      case 'MsgTransferLeader':
        return 'dropped'
      default:
        return 'ok'
    }
  }

  private handleVoteResponse(message: Message): void {
    // The requests left before this log was on disk. A candidate that crashed may have come back with less of it and
    // campaign in the same term again; a vote that it was granted then, for a log it no longer has, must not count now. The
    // same last entry is the same log (§5.3).
    const asked = decodePosition(message.context)
    const isForThisLog =
      asked !== null && asked.index === this.log.lastIndex() && asked.term === this.log.lastTerm()
    if (!message.reject && !isForThisLog) return
    this.tracker.recordVote(message.from, !message.reject)
    switch (this.tracker.voteResult()) {
      case 'won':
        if (this.role === 'preCandidate') {
          this.startCampaign('election')
          return
        }
        // The requests left before this term and vote were on disk, so the others may be enough before they are. But a
        // leader that crashed now would come back in an older term, could be elected in this one *again*, by voters who
        // repeat their vote, and would write other entries at the same (term, index): the log matching property (§5.3)
        // rests on one log a term, not one leader a term. So it leads only when its own vote is durable.
        if (this.tracker.votes.get(this.id) !== true) return
        this.becomeLeader()
        this.broadcastAppend()
        return
      case 'lost':
        // The term stays: of a lost pre-vote it was never raised.
        this.becomeFollower(this.term, none)
        return
      case 'pending':
        return
    }
  }

  // Follower.

  private stepFollower(message: Message): StepResult {
    switch (message.kind) {
      case 'MsgApp':
        this.hear(message.from)
        this.handleAppend(message)
        return 'ok'
      case 'MsgHeartbeat':
        return this.handleHeartbeat(message)
      case 'MsgCommit':
        return this.handleCommit(message)
      case 'MsgSnap':
        this.hear(message.from)
        this.handleSnapshot(message)
        return 'ok'
      case 'MsgTimeoutNow':
        // The leader saw that this log is complete and wants it to lead: no pre-vote, no waiting (thesis §3.10).
        this.hup('transfer')
        return 'ok'
      case 'MsgProp':
        return this.config.disableProposalForwarding ? 'dropped' : this.forward(message)
      case 'MsgReadIndex':
      case 'MsgTransferLeader':
        return this.forward(message)
      case 'MsgReadIndexResp':
        this.readStates.push({ index: message.index, context: message.context })
        return 'ok'
      default:
        return 'ok'
    }
  }

  private hear(leader: number): void {
    this.electionElapsed = 0
    this.leader = leader
  }

  private forward(message: Message): StepResult {
    if (this.leader === none) return 'dropped'
    this.messages.push({ ...message, to: this.leader, from: message.from === none ? this.id : message.from })
    return 'ok'
  }

  /** Raft §5.3. */
  private handleAppend(message: Message): void {
    const response = this.draft('MsgAppResp', message.from)
    if (message.index < this.log.committed) {
      // An old one: what is committed can't differ from any leader's log.
      response.index = this.log.committed
    } else {
      const last = this.log.maybeAppend(message.index, message.logTerm, message.entries, message.commit)
      if (last !== null) {
        response.index = last
      } else {
        // The hint skips all entries here whose term is above the leader's at that place: they can't be in its log.
        const hint = this.log.findConflictByTerm(
          Math.min(message.index, this.log.lastIndex()),
          message.logTerm,
        )
        response.index = message.index
        response.reject = true
        response.rejectHint = hint.index
        response.logTerm = hint.term
      }
    }
    this.sendAfterAppend(response)
  }

  /** By these two a leader tells of no commit that it has not seen acknowledged by this very replica. */
  private provesLoss({ kind, commit }: Message): boolean {
    return (kind === 'MsgHeartbeat' || kind === 'MsgCommit') && commit > this.log.lastIndex()
  }

  private handleCommit(message: Message): StepResult {
    if (this.provesLoss(message)) return 'lostEntries'
    this.hear(message.from)
    this.log.commitTo(message.commit)
    return 'ok'
  }

  private handleHeartbeat(message: Message): StepResult {
    const heard = this.handleCommit(message)
    if (heard !== 'ok') return heard
    const response = this.draft('MsgHeartbeatResp', message.from)
    response.context = message.context
    this.messages.push(response)
    return 'ok'
  }

  private handleSnapshot(message: Message): void {
    assert(message.snapshot !== null, 'MsgSnap without a snapshot')
    const response = this.draft('MsgAppResp', message.from)
    response.index = this.restoreSnapshot(message.snapshot) ? this.log.lastIndex() : this.log.committed
    this.sendAfterAppend(response)
  }

  /** False when it is of no use: older than the log, or of a configuration without this replica. */
  private restoreSnapshot(snapshot: Snapshot): boolean {
    const { index, term, confState } = snapshot.meta
    if (index <= this.log.committed) return false
    // LearnersNext are outgoing voters, so these three say all.
    const isMember =
      confState.voters.includes(this.id) ||
      confState.votersOutgoing.includes(this.id) ||
      confState.learners.includes(this.id)
    if (!isMember) return false
    if (this.log.matchTerm(index, term)) {
      // The log has that entry, hence (log matching, §5.3) all before it: nothing is missing, only known to be committed.
      this.log.commitTo(index)
      return false
    }
    this.log.restore(snapshot)
    this.tracker.switchTo(
      { ...confState, voters: [], votersOutgoing: [], learners: [], learnersNext: [] },
      new Map(),
    )
    restore(this.tracker, this.log.lastIndex(), confState)
    return true
  }

  /** Remember no leader, so that a vote may be granted at once; the clock that leads to a campaign runs on. */
  forgetLeader(): void {
    if (this.role === 'follower') this.leader = none
  }

  /** Leaders only: give up the term without a successor (a disk that hangs). */
  stepDown(): void {
    if (this.role === 'leader') this.becomeFollower(this.term, none)
  }

  // Leader.

  private stepLeader(message: Message): StepResult {
    switch (message.kind) {
      case 'MsgProp': {
        const kind = message.entries[0]?.kind ?? 'normal'
        const result = this.propose(
          kind,
          message.entries.map(entry => entry.data),
        )
        return result === 'ok' ? 'ok' : 'dropped'
      }
      case 'MsgReadIndex':
        return this.readIndexAsLeader(message) === 'dropped' ? 'dropped' : 'ok'
      default:
        break
    }
    const progress = this.tracker.progress.get(message.from)
    if (progress === undefined) return 'ok'
    switch (message.kind) {
      case 'MsgAppResp':
        this.handleAppendResponse(message, progress)
        break
      case 'MsgHeartbeatResp':
        this.handleHeartbeatResponse(message, progress)
        break
      case 'MsgTransferLeader':
        this.handleTransfer(message.from, progress)
        break
      default:
        break
    }
    return 'ok'
  }

  private handleAppendResponse(message: Message, progress: Progress): void {
    progress.isRecentlyActive = true
    const from = message.from
    if (message.reject) {
      let hint = message.rejectHint
      // The follower's log at the hint is of term `logTerm`; where ours is above that, they can't agree.
      if (message.logTerm > 0) hint = this.log.findConflictByTerm(hint, message.logTerm).index
      if (progress.maybeDecrTo(message.index, hint)) {
        if (progress.state === 'replicate') progress.becomeProbe()
        this.sendAppend(from, progress, true)
      }
      return
    }
    // Nobody has acknowledged what was never sent: within a term a leader's log only grows.
    if (message.index > this.log.lastIndex()) return
    // A probe answered with what was known still tells that the logs agree there.
    const isNews =
      progress.maybeUpdate(message.index) || (progress.match === message.index && progress.state === 'probe')
    if (!isNews) return
    if (progress.state === 'probe') {
      progress.becomeReplicate()
    } else if (progress.state === 'replicate') {
      progress.inflights.freeTo(message.index)
    } else if (progress.match + 1 >= this.log.firstIndex()) {
      // It has caught up with our log again, by this snapshot or by whatever way.
      progress.becomeProbe()
      progress.becomeReplicate()
    }
    if (this.maybeCommit()) {
      this.broadcastCommit()
    } else if (from !== this.id && progress.canBumpCommit(this.log.committed)) {
      this.sendCommit(from, progress)
    }
    // The acknowledgement may have opened the window for several appends.
    if (from !== this.id) {
      while (this.sendAppend(from, progress, false)) {}
    }
    if (from === this.leadTransferee && progress.match === this.log.lastIndex()) this.sendTimeoutNow(from)
  }

  private handleHeartbeatResponse(message: Message, progress: Progress): void {
    progress.isRecentlyActive = true
    // It is there again: whatever was sent before may be lost, so one more append may leave, an empty one even when the
    // window is full. Its answer tells where it stands.
    progress.isPausedByFlow = false
    if (progress.match < this.log.lastIndex() || progress.state === 'probe') {
      this.sendAppend(message.from, progress, true)
    }
    if (message.context.byteLength === 0) return
    this.readOnly.recordAck(message.from, message.context)
    const { voters, votersOutgoing } = this.tracker.config
    const confirmed = jointIndex(voters, votersOutgoing, this.readOnly)
    for (const { request, index } of this.readOnly.advance(confirmed)) this.answerRead(request, index)
  }

  reportUnreachable(id: number): void {
    const progress = this.tracker.progress.get(id)
    // What was sent ahead is probably lost: find out where it stands, one append at a time.
    if (this.role === 'leader' && progress?.state === 'replicate') progress.becomeProbe()
  }

  reportSnapshot(id: number, isDelivered: boolean): void {
    const progress = this.tracker.progress.get(id)
    if (this.role !== 'leader' || progress?.state !== 'snapshot') return
    if (!isDelivered) progress.pendingSnapshot = 0
    progress.becomeProbe()
    // Delivered: its acknowledgement comes first. Failed: not again before it has shown that it lives.
    progress.isPausedByFlow = true
  }

  /** What the host had to prepare for this replica (a snapshot) is ready: no need to wait for its next heartbeat. */
  retry(id: number): void {
    const progress = this.tracker.progress.get(id)
    if (this.role !== 'leader' || progress?.state !== 'probe') return
    progress.isPausedByFlow = false
    this.sendAppend(id, progress, true)
  }

  // Proposals.

  propose(kind: Entry['kind'], data: readonly Uint8Array[]): ProposeResult {
    if (this.role !== 'leader') return this.proposeElsewhere(kind, data)
    // Removed, but not yet stepped down: what it appended could only be committed by others' grace.
    if (!this.tracker.progress.has(this.id)) return 'removed'
    // The transferee must catch up with a log that stands still.
    if (this.leadTransferee !== none) return 'transferring'
    if (this.ownRemovalIndex > this.log.applied) return 'removed'
    const index = this.log.lastIndex() + 1
    let appendedKind = kind
    let appended = data
    if (kind === 'confChange') {
      assert(data.length === 1, 'one change of configuration at a time')
      const reason = this.config.disableConfChangeValidation
        ? null
        : this.confChangeRefusal(decodeConfChange(data[0]!))
      if (reason !== null) {
        if (!this.config.emptyEntryForRefusedConfChange) return reason
        appendedKind = 'normal'
        appended = [emptyBytes]
      }
    }
    if (!this.appendOwn(appendedKind, appended)) return 'uncommittedFull'
    if (appendedKind === 'confChange') {
      this.pendingConfIndex = index
      if (this.config.stepDownOnRemoval && this.isOwnRemoval(decodeConfChange(appended[0]!)))
        this.ownRemovalIndex = index
    }
    this.broadcastAppend()
    // Of many entries one message may hold a part: the rest need not wait for its answer.
    if (data.length > 1) this.broadcastRest()
    return 'ok'
  }

  private proposeElsewhere(kind: Entry['kind'], data: readonly Uint8Array[]): ProposeResult {
    if (this.leader === none) return 'noLeader'
    if (this.config.disableProposalForwarding) return 'notLeader'
    const message = draft('MsgProp', this.leader, this.id, 0)
    message.entries = data.map(bytes => ({ term: 0, index: 0, kind, data: bytes }))
    this.messages.push(message)
    return 'forwarded'
  }

  /** It may have inherited the entry that takes it out; there is one change at most, since none was pending twice. */
  private noticeInheritedRemoval(): void {
    if (!this.config.stepDownOnRemoval) return
    const { committed } = this.log
    const entry = this.log.findConfChange(committed + 1, this.log.lastIndex() + 1, this.config.maxSizePerMsg)
    if (entry !== null && this.isOwnRemoval(decodeConfChange(entry.data))) this.ownRemovalIndex = entry.index
  }

  private isOwnRemoval(wanted: ConfChange): boolean {
    const result = change(this.tracker, this.log.lastIndex(), wanted)
    return result.kind === 'changed' && result.progress.get(this.id)?.isLearner !== false
  }

  private confChangeRefusal(wanted: ConfChange): DropReason | null {
    if (this.pendingConfIndex > this.log.applied) return 'confChangePending'
    if (this.tracker.isJoint() && !leavesJoint(wanted)) return 'alreadyJoint'
    // None is pending, so this is the configuration it would be applied to, on every replica: what fails now would fail
    // then, when it is too late to say no.
    const result = change(this.tracker, this.log.lastIndex(), wanted)
    return result.kind === 'refused' ? result.reason : null
  }

  /** False when the uncommitted proposals would exceed their limit. A first one always fits: a limit must not stop progress. */
  private appendOwn(kind: Entry['kind'], data: readonly Uint8Array[]): boolean {
    let bytes = 0
    for (const one of data) bytes += one.byteLength
    if (
      this.uncommittedBytes > 0 &&
      bytes > 0 &&
      this.uncommittedBytes + bytes > this.config.maxUncommittedEntriesSize
    ) {
      return false
    }
    this.uncommittedBytes += bytes
    let index = this.log.lastIndex()
    const entries = data.map(one => ({ term: this.term, index: ++index, kind, data: one }))
    this.log.append(entries)
    // The leader's own disk is one of the quorum: counted when it has written, like everybody's (thesis §10.2.1).
    const ack = this.draft('MsgAppResp', this.id)
    ack.index = index
    this.sendAfterAppend(ack)
    return true
  }

  // Replication.

  private broadcastAppend(): void {
    for (const id of this.tracker.ids) {
      if (id !== this.id) this.sendAppend(id, this.tracker.progress.get(id)!, true)
    }
  }

  private broadcastCommit(): void {
    for (const id of this.tracker.ids) {
      if (id !== this.id) this.sendCommit(id, this.tracker.progress.get(id)!)
    }
  }

  /**
   * How far it is committed, with the entries that a replica still lacks. Most often it lacks none: then the commit index is
   * all that there is to say, and as with a heartbeat it is cut to what the replica has acknowledged, so that logs need not
   * be compared and nothing be answered. One that is lost is made up for by the next heartbeat.
   */
  private sendCommit(to: number, progress: Progress): void {
    const hasAll = progress.state === 'replicate' && progress.next > this.log.lastIndex()
    if (this.config.commitMessages !== true || !hasAll) {
      this.sendAppend(to, progress, true)
      return
    }
    const commit = Math.min(progress.match, this.log.committed)
    if (commit <= progress.commitSent) return
    const message = this.draft('MsgCommit', to)
    message.commit = commit
    message.leaderCommit = this.knownCommit()
    this.messages.push(message)
    progress.sentCommit(commit)
  }

  private broadcastRest(): void {
    const last = this.log.lastIndex()
    for (const id of this.tracker.ids) {
      if (id === this.id) continue
      const progress = this.tracker.progress.get(id)!
      while (progress.next <= last && this.sendAppend(id, progress, false)) {}
    }
  }

  /** An append, or a snapshot where the log no longer reaches back. `sendIfEmpty`: for the commit index alone. */
  private sendAppend(to: number, progress: Progress, sendIfEmpty: boolean): boolean {
    if (progress.isPaused()) return false
    const index = progress.next - 1
    const logTerm = this.log.term(index)
    if (logTerm === undefined) return this.sendSnapshot(to, progress)
    let entries: readonly Entry[] | null = []
    // With a full window only the commit index, so that a follower whose answers were lost still moves on.
    if (progress.state !== 'replicate' || !progress.inflights.isFull()) {
      entries = this.log.entriesFrom(progress.next, this.config.maxSizePerMsg)
      if (entries === null) return this.sendSnapshot(to, progress)
    }
    if (entries.length === 0 && !sendIfEmpty) return false
    const message = this.draft('MsgApp', to)
    message.index = index
    message.logTerm = logTerm
    message.entries = entries
    message.commit = this.log.committed
    this.messages.push(message)
    progress.sentEntries(entries.length, payloadBytes(entries))
    progress.sentCommit(this.log.committed)
    return true
  }

  private sendSnapshot(to: number, progress: Progress): boolean {
    // It would be made for nobody.
    if (!progress.isRecentlyActive) return false
    const snapshot = this.log.snapshot(to)
    if (snapshot === null) return false
    assert(snapshot.meta.index > 0, 'an empty snapshot')
    progress.becomeSnapshot(snapshot.meta.index)
    const message = this.draft('MsgSnap', to)
    message.snapshot = snapshot
    this.messages.push(message)
    return true
  }

  private broadcastHeartbeat(): void {
    const context = this.readOnly.heartbeatContext() ?? emptyBytes
    const leaderCommit = this.knownCommit()
    for (const id of this.tracker.ids) {
      if (id === this.id) continue
      const message = this.draft('MsgHeartbeat', id)
      // Never above what it is known to have: heartbeats carry no entry to compare logs by.
      message.commit = Math.min(this.tracker.progress.get(id)!.match, this.log.committed)
      message.leaderCommit = leaderCommit
      message.context = context
      this.messages.push(message)
    }
  }

  /** All that is committed; 0 while this leader can't know that. */
  private knownCommit(): number {
    return this.hasCommittedInTerm() ? this.log.committed : 0
  }

  /**
   * Raft §5.4.2: only an entry of the leader's own term is committed by counting; everything before it is committed with
   * it. Counted directly, an entry of an earlier term could still be overwritten by another leader (figure 8).
   */
  private maybeCommit(): boolean {
    const index = this.tracker.committed()
    if (index <= this.log.committed || !this.log.matchTerm(index, this.term)) return false
    this.log.commitTo(index)
    this.releasePostponedReads()
    return true
  }

  private appliedTo(index: number, bytes: number): void {
    this.log.appliedTo(Math.max(index, this.log.applied), bytes)
    this.maybeAutoLeave()
  }

  private appliedSnapshot(snapshot: Snapshot): void {
    const { index } = snapshot.meta
    this.log.unstable.stableSnapshotTo(index)
    this.appliedTo(index, 0)
  }

  // Configuration.

  /** The joint configuration is applied: propose to leave it. Refused (a transfer), it is tried again with the next apply. */
  private maybeAutoLeave(): void {
    if (this.role !== 'leader' || !this.tracker.config.autoLeave) return
    if (this.log.applied >= this.pendingConfIndex) this.propose('confChange', [encodeConfChange(leaveJoint)])
  }

  /** A committed change takes effect, on all replicas at the same index. */
  applyConfChange(wanted: ConfChange): ConfState {
    // A snapshot was received while this change waited to be applied: it is in the snapshot's configuration, which counts
    // already. (Nothing behind the snapshot is handed out before it is installed.)
    if (this.log.unstable.snapshot !== null) return this.tracker.config
    const result = change(this.tracker, this.log.lastIndex(), wanted)
    assert(
      result.kind === 'changed',
      `a committed change is refused: ${result.kind === 'refused' && result.reason}`,
    )
    this.tracker.switchTo(result.config, result.progress)
    const own = this.tracker.progress.get(this.id)
    if (this.role !== 'leader') return result.config
    if (own === undefined || own.isLearner) {
      // It led until here so that the change could commit (Raft §6). It still may: without the setting it goes on until
      // somebody else is elected, counting no longer itself.
      if (this.config.stepDownOnRemoval) this.becomeFollower(this.term, none)
      return result.config
    }
    if (result.config.voters.length === 0) return result.config
    // A smaller quorum may have been reached already; else newcomers are probed at once.
    if (this.maybeCommit()) {
      this.broadcastAppend()
    } else {
      for (const id of this.tracker.ids) {
        if (id !== this.id) this.sendAppend(id, this.tracker.progress.get(id)!, false)
      }
    }
    if (this.leadTransferee !== none && !this.tracker.isVoter(this.leadTransferee)) this.leadTransferee = none
    return result.config
  }

  // Transfer of leadership (thesis §3.10).

  transferLeader(to: number): void {
    if (this.role === 'leader') {
      const progress = this.tracker.progress.get(to)
      if (progress !== undefined) this.handleTransfer(to, progress)
    } else if (this.role === 'follower' && this.leader !== none) {
      this.messages.push(draft('MsgTransferLeader', this.leader, to, 0))
    }
  }

  private handleTransfer(to: number, progress: Progress): void {
    if (progress.isLearner || to === this.leadTransferee || to === this.id) return
    // It has one election timeout from now on.
    this.electionElapsed = 0
    this.leadTransferee = to
    if (progress.match === this.log.lastIndex()) this.sendTimeoutNow(to)
    else this.sendAppend(to, progress, true)
  }

  private sendTimeoutNow(to: number): void {
    this.messages.push(this.draft('MsgTimeoutNow', to))
  }

  // Reads (thesis §6.4).

  readIndex(context: Uint8Array): ReadIndexResult {
    if (this.role === 'leader') return this.readIndexAsLeader({ from: this.id, context })
    if (this.role !== 'follower' || this.leader === none) return 'dropped'
    const message = draft('MsgReadIndex', this.leader, this.id, 0)
    message.context = context
    this.messages.push(message)
    return 'ok'
  }

  private readIndexAsLeader({ from, context }: ReadRequest): ReadIndexResult {
    const request = { from, context }
    // Until its first commit a leader does not know how far its predecessors committed: it has all of it (§5.4.3), but its
    // own commit index may be behind, even when it is the only voter.
    if (!this.hasCommittedInTerm()) {
      if (this.postponedReads.length >= readsWaitingMax) return 'dropped'
      this.postponedReads.push(request)
      return 'postponed'
    }
    return this.startRead(request) ? 'ok' : 'dropped'
  }

  private startRead(request: ReadRequest): boolean {
    if (this.config.readOnly === 'leaseBased' || this.tracker.isSoleVoter(this.id)) {
      this.answerRead(request, this.log.committed)
      return true
    }
    if (this.readOnly.count >= readsWaitingMax) return false
    this.readOnly.add(request, this.log.committed, this.id)
    // One heartbeat for all reads of this turn: it is sent with the next Ready.
    this.isReadHeartbeatDue = true
    return true
  }

  private hasCommittedInTerm(): boolean {
    return this.log.term(this.log.committed) === this.term
  }

  private releasePostponedReads(): void {
    if (this.postponedReads.length === 0) return
    const reads = this.postponedReads
    this.postponedReads = []
    for (const request of reads) this.startRead(request)
  }

  private answerRead({ from, context }: ReadRequest, index: number): void {
    if (from === this.id) {
      this.readStates.push({ index, context })
      return
    }
    const response = this.draft('MsgReadIndexResp', from)
    response.index = index
    response.context = context
    this.messages.push(response)
  }

  hasReadHeartbeat(): boolean {
    return this.isReadHeartbeatDue
  }

  flushReadHeartbeat(): void {
    if (!this.isReadHeartbeatDue) return
    this.isReadHeartbeatDue = false
    this.broadcastHeartbeat()
  }

  // What goes out.

  private draft(kind: MessageKind, to: number): Draft {
    return draft(kind, to, this.id, this.term)
  }

  /** For promises: see the head of this file. */
  private sendAfterAppend(message: Message): void {
    this.messagesAfterAppend.push(message)
  }
}
