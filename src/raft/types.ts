/**
 * What travels through Raft: entries, hard state, configurations, messages. Plain data, names as in etcd's raft, because
 * public scripts of that shape judge this room. Terms, indexes and replica ids are safe integers; 0 is "none".
 */
import { emptyBytes } from '../lib/bytes.ts'

/** No replica: an empty vote, an unknown leader. */
export const none = 0

/**
 * Addresses of the host's two storage queues. They look like senders and receivers, so that everything a replica waits
 * for is a message: MsgStorageAppend goes to the first, MsgStorageApply to the second, and their answers are stepped.
 */
export const localAppendThread = -1
export const localApplyThread = -2

export const isLocalTarget = (id: number): boolean => id === localAppendThread || id === localApplyThread

export interface Entry {
  readonly term: number
  readonly index: number
  /** The data of a `confChange` is an encoded ConfChange (conf-change.ts); of a `normal` entry it is the user's. */
  readonly kind: 'normal' | 'confChange'
  readonly data: Uint8Array
}

/** What must be on disk before an answer that depends on it leaves. `commit` may lag on disk: it is a hint there. */
export interface HardState {
  readonly term: number
  readonly vote: number
  readonly commit: number
}

export const emptyHardState: HardState = { term: 0, vote: none, commit: 0 }

export interface SoftState {
  /** 0 when unknown. */
  readonly leader: number
  readonly role: Role
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader'

/**
 * Who takes part. Lists are sorted and without doubles. A configuration is *joint* when `votersOutgoing` is not empty:
 * every decision then needs a majority of both voter lists (Raft §6). `learnersNext` are outgoing voters that become
 * learners on leaving the joint configuration; `autoLeave` asks the leader to leave it as soon as it is applied.
 */
export interface ConfState {
  readonly voters: readonly number[]
  readonly votersOutgoing: readonly number[]
  readonly learners: readonly number[]
  readonly learnersNext: readonly number[]
  readonly autoLeave: boolean
}

export const emptyConfState: ConfState = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
}

/** `updateNode` changes nothing here: a host may use it to carry its context through the log. Replica 0 is ignored. */
export interface ConfChangeSingle {
  readonly kind: 'addNode' | 'addLearner' | 'removeNode' | 'updateNode'
  readonly replica: number
}

/** A change of configuration; conf-change.ts has its meaning and its bytes. */
export interface ConfChange {
  /** auto: joint only if needed, then left by the leader. implicit: joint, left by the leader. explicit: joint, left on request. */
  readonly transition: 'auto' | 'implicit' | 'explicit'
  readonly changes: readonly ConfChangeSingle[]
  /** The host's; Raft passes it through. */
  readonly context: Uint8Array
}

export interface SnapshotMeta {
  readonly index: number
  readonly term: number
  readonly confState: ConfState
}

/** The bulk of a snapshot travels outside Raft; `data` is small and opaque (say, where the bulk was staged). */
export interface Snapshot {
  readonly meta: SnapshotMeta
  readonly data: Uint8Array
}

export type MessageKind =
  // Between replicas.
  | 'MsgProp'
  | 'MsgApp'
  | 'MsgAppResp'
  | 'MsgVote'
  | 'MsgVoteResp'
  | 'MsgPreVote'
  | 'MsgPreVoteResp'
  | 'MsgSnap'
  | 'MsgHeartbeat'
  /** Ours: what is committed of what this replica has, not answered. */
  | 'MsgCommit'
  | 'MsgHeartbeatResp'
  | 'MsgTransferLeader'
  | 'MsgTimeoutNow'
  | 'MsgReadIndex'
  | 'MsgReadIndexResp'
  // Between a replica and its own host's storage.
  | 'MsgStorageAppend'
  | 'MsgStorageAppendResp'
  | 'MsgStorageApply'
  | 'MsgStorageApplyResp'

/**
 * One shape for all kinds (one hidden class: the hot path stays monomorphic). What the fields mean by kind:
 *
 *   MsgApp            entries follow (logTerm, index); commit = the leader's
 *   MsgAppResp        index = acknowledged up to; or reject: index = the refused one, (logTerm, rejectHint) = conflict hint
 *   MsgVote/PreVote   (logTerm, index) = the candidate's last entry; context = `campaignTransfer` or empty
 *   MsgVoteResp/PreVoteResp  context = a position.ts: granted, the log asked about; refused, what is known committed
 *   MsgHeartbeat(Resp) context = the read it confirms, or empty; commit ≤ what the follower acknowledged; leaderCommit
 *   MsgCommit         commit ≤ what the follower acknowledged; leaderCommit; not answered
 *   MsgSnap           snapshot
 *   MsgReadIndex(Resp) context = the reader's; index = the answer
 *   MsgTransferLeader from = who shall lead
 *   MsgStorageAppend  entries, snapshot, hard state (term, vote, commit, all 0 = unchanged); responses: step or send them
 *                     once all of it is durable
 *   MsgStorageAppendResp  (logTerm, index) = last entry written, 0 = none; snapshot = the one installed
 *   MsgStorageApply(Resp) entries to apply / applied
 */
export interface Message {
  readonly kind: MessageKind
  readonly to: number
  readonly from: number
  /** 0 on a message that belongs to no term: MsgProp, MsgReadIndex, MsgTransferLeader, MsgStorageApply(Resp). */
  readonly term: number
  readonly logTerm: number
  readonly index: number
  readonly entries: readonly Entry[]
  readonly commit: number
  /**
   * All that the leader has committed, once it has committed in its own term: by then that is all that anybody ever
   * committed before (Raft §8). 0: not told. For readers who want to know what they lack; never for committing.
   */
  readonly leaderCommit: number
  readonly vote: number
  readonly snapshot: Snapshot | null
  readonly reject: boolean
  readonly rejectHint: number
  readonly context: Uint8Array
  readonly responses: readonly Message[]
}

/** A message under construction. */
export type Draft = { -readonly [K in keyof Message]: Message[K] }

const noEntries: readonly Entry[] = []
const noMessages: readonly Message[] = []

export function draft(kind: MessageKind, to: number, from: number, term: number): Draft {
  return {
    kind,
    to,
    from,
    term,
    logTerm: 0,
    index: 0,
    entries: noEntries,
    commit: 0,
    leaderCommit: 0,
    vote: none,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context: emptyBytes,
    responses: noMessages,
  }
}

/** Answers: from a replica outside the configuration they mean nothing. */
export function isResponse(kind: MessageKind): boolean {
  switch (kind) {
    case 'MsgAppResp':
    case 'MsgVoteResp':
    case 'MsgPreVoteResp':
    case 'MsgHeartbeatResp':
    case 'MsgReadIndexResp':
      return true
    default:
      return false
  }
}

/** Their contexts are positions (position.ts). */
export const isVoteResponse = (kind: MessageKind): boolean =>
  kind === 'MsgVoteResp' || kind === 'MsgPreVoteResp'

/** Storage traffic never crosses the network. */
export function isStorageKind(kind: MessageKind): boolean {
  switch (kind) {
    case 'MsgStorageAppend':
    case 'MsgStorageAppendResp':
    case 'MsgStorageApply':
    case 'MsgStorageApplyResp':
      return true
    default:
      return false
  }
}

/** Bytes that a limit counts for an entry besides its data: about what its header takes in a frame. */
const entryOverheadBytes = 24

/** Bytes as every limit on messages and batches counts them. */
export const entryBytes = (entry: Entry): number => entryOverheadBytes + entry.data.byteLength

export function entriesBytes(entries: readonly Entry[]): number {
  let bytes = 0
  for (const entry of entries) bytes += entryBytes(entry)
  return bytes
}

/** Data alone: an empty entry weighs nothing, so a new leader's first entry and leaving a joint configuration always fit. */
export function payloadBytes(entries: readonly Entry[]): number {
  let bytes = 0
  for (const entry of entries) bytes += entry.data.byteLength
  return bytes
}

/** The longest prefix of at most `bytesMax`, but never less than one entry: a limit must not stop progress. */
export function limitBytes(entries: readonly Entry[], bytesMax: number): readonly Entry[] {
  let bytes = 0
  for (let i = 0; i < entries.length; i++) {
    bytes += entryBytes(entries[i]!)
    if (bytes > bytesMax && i > 0) return entries.slice(0, i)
  }
  return entries
}
