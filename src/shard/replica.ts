import type { Command, Reply } from '../commands/command.ts'
import { type Envelope, encodeEnvelope, prepareOperation } from '../commands/envelope.ts'
import {
  type Applied,
  type CommandTable,
  clockEnvelope,
  StateMachine,
  sweepEnvelope,
  verifyEnvelope,
} from '../commands/machine.ts'
import { isError, RoundhouseError } from '../errors.ts'
import { ChangeRing } from '../keyspace/changes.ts'
import { assert, BrokenInvariant } from '../lib/assert.ts'
import { type Bytes, emptyBytes, fromLatin1 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Random } from '../lib/prng.ts'
import { type Config, type ProposeResult, productionConfig } from '../raft/raft.ts'
import { RawNode } from '../raft/raw-node.ts'
import type { ConfChange, Entry, HardState, Message, Snapshot } from '../raft/types.ts'
import {
  type Configuration,
  decodeChange,
  decodeConfiguration,
  encodeConfiguration,
  isJoint,
  nextConfiguration,
  nodesOf,
} from './configuration.ts'
import { EntryWriter } from './entry-writer.ts'
import type { Journal, ReplicaState, RowsDigest } from './ports.ts'
import type { Read, Settled, Write } from './proposal.ts'
import { RaftStorage } from './raft-storage.ts'

/**
 * One replica: Raft, the state machine under it, and the callers who wait for either.
 *
 * It does no I/O and never waits: the host loop steps messages into it, takes its Ready, and tells it what became
 * durable. A write goes queued → proposed (it has an index) → applied; a read goes queued → asked (its ReadIndex is under
 * way) → confirmed → served. Each is settled exactly once.
 */
export interface ReplicaOptions {
  readonly id: number
  readonly journal: Journal
  readonly state: ReplicaState
  readonly table: CommandTable
  readonly clock: Clock
  readonly random: Random
  readonly raft: RaftSettings
  readonly hardState: HardState
  /** As of `applied`. */
  readonly configuration: Configuration
  readonly applied: { readonly index: number; readonly term: number }
  /** A snapshot for that replica, or null: being prepared. */
  readonly snapshotFor: (replica: Replica, to: number) => Snapshot | null
  /** The replica was halted; a lasting halt must be remembered over restarts. */
  readonly onHalt: (replica: Replica, why: string, isLasting: boolean) => void
  /** The median of all wall clocks that were heard; NaN while those of less than a majority of these nodes are known. */
  readonly medianWallMs: (nodes: readonly string[]) => number
  /** The node says that its disk is nearly full; absent: no disk ever is. */
  readonly isNearlyFull?: (node: string) => boolean
}

export interface RaftSettings {
  readonly electionTicks: number
  readonly heartbeatTicks: number
  /** In place of production's: a simulation makes them small, so that it meets them. */
  readonly limits?: RaftLimits
}

export type RaftLimits = Partial<
  Pick<
    Config,
    | 'maxSizePerMsg'
    | 'maxCommittedSizePerReady'
    | 'maxUncommittedEntriesSize'
    | 'maxInflightMsgs'
    | 'maxInflightBytes'
  >
>

export const defaultRaftSettings: RaftSettings = {
  electionTicks: productionConfig.electionTick,
  heartbeatTicks: productionConfig.heartbeatTick,
}

/** Log clock: how far a stamp may lie off the voters' median clock. */
const stampOffMsMax = 500
/** Callers that may wait at one replica for each of: a proposal, a read. What comes on top is refused at once. */
export const queuedMax = 50_000
/** Speakers remembered whom the configuration does not name. */
export const sendersMax = 64
/** Entries applied between two looks at the clock. */
const entriesBetweenLooks = 64

/** All groups of a node together may keep so much proposed and not committed. */
export const nodeUncommittedBytesMax = 256 * 1024 * 1024

/** What is left of it; one turn's groups share it. */
export interface UncommittedRoom {
  bytesLeft: number
}

function nodeIsFull(): RoundhouseError {
  return new RoundhouseError('OVERLOADED', {
    what: 'bytes not yet committed at this node',
    max: nodeUncommittedBytesMax,
  })
}

/** A write and the bytes of its entry. */
interface Made {
  readonly write: Write
  data: Bytes
}

const bytesOf = (made: readonly Made[]) => made.reduce((sum, { data }) => sum + data.byteLength, 0)

interface Proposed {
  readonly term: number
  /** null: the cluster's own (a clock entry, a sweep). */
  readonly write: Write | null
}

interface ApplyBatch {
  readonly entries: readonly Entry[]
  readonly responses: readonly Message[]
  next: number
}

export class Replica {
  readonly id: number
  readonly group: number
  readonly state: ReplicaState
  /** What was done to keys of late, as of `revision`. */
  readonly changes = new ChangeRing()
  raft: RawNode
  configuration: Configuration
  appliedIndex: number
  appliedTerm: number
  /** When its last checkpoint began, on the monotonic clock. */
  checkpointedAtMs: number
  /** Why this replica says nothing any more; null while it is well. */
  halted: string | null = null
  /** Set while a snapshot replaces the rows: what is for the storage waits. */
  isInstalling = false
  /** A VERIFY entry was just applied: nothing more is until a checkpoint has frozen the rows as they are at it. */
  markedAt: number | null = null
  /** What the last checkpoint at such an entry found. */
  verified: { readonly index: number; readonly digest: RowsDigest } | null = null
  readonly heldForInstall: Message[] = []

  private readonly options: ReplicaOptions
  private readonly machine: StateMachine
  private queuedWrites: Write[] = []
  private queuedReads: Read[] = []
  private readonly proposed = new Map<number, Proposed>()
  private readonly asked = new Map<string, Read[]>()
  private confirmed: { readonly index: number; readonly reads: readonly Read[] }[] = []
  /** Reads that met a key which only the wall clock calls expired: they are served again behind a clock entry. */
  private awaitingClock: Read[] = []
  private clockEntryIndex: number | null = null
  private sweepEntryIndex: number | null = null
  /** The last sweep may have left something: the next need not wait for its hour. */
  isSweeping = false
  private readonly applyQueue: ApplyBatch[] = []
  private askedCount = 0
  private marking: number | null = null
  private lastRefusal: ProposeResult = 'ok'
  /** Term and vote as they were last handed to the journal. */
  private written: { readonly term: number; readonly vote: number }
  /** Set once nothing will be settled any more: new callers are refused with it. */
  private closed: RoundhouseError | null = null
  private readonly senders = new Map<number, string>()
  private wasLeader = false
  /** The first full commit index that a leader told since this start; stale reads wait until it is applied. */
  private freshFrom: number | null = null
  /** The term whose leader is known to have committed in it: its commit index is all that there is. */
  private freshTerm = 0
  /** A commit index that was told and is not applied yet, and when. */
  private awaited: { readonly index: number; readonly atMs: number } | null = null
  private caughtUpAtMs = 0

  constructor(options: ReplicaOptions) {
    this.options = options
    this.id = options.id
    this.group = options.configuration.group
    this.state = options.state
    this.checkpointedAtMs = options.clock.now()
    this.configuration = options.configuration
    this.appliedIndex = options.applied.index
    this.appliedTerm = options.applied.term
    this.written = options.hardState
    this.machine = new StateMachine(options.state, options.table, this.changes)
    const storage = new RaftStorage(
      options.journal,
      options.id,
      { hardState: options.hardState, confState: options.configuration.confState },
      to => options.snapshotFor(this, to),
      why => this.halt(why),
    )
    this.raft = new RawNode(
      {
        ...productionConfig,
        ...options.raft.limits,
        id: options.id,
        electionTick: options.raft.electionTicks,
        heartbeatTick: options.raft.heartbeatTicks,
        applied: options.applied.index,
        random: options.random,
      },
      storage,
    )
  }

  get isLeader(): boolean {
    return this.halted === null && this.raft.isLeader
  }

  /** Node that leads as far as this replica knows, null when it knows of none. */
  get leaderNode(): string | null {
    const { lead } = this.raft
    if (lead === 0 || this.halted !== null) return null
    return this.nodeOf(lead)
  }

  get logClockMs(): number {
    return this.machine.logClockMs
  }

  /** Of the last entry that its rows show; entries without commands, such as changes of configuration, don't count. */
  get revision(): number {
    return this.machine.revision
  }

  /** The rows as they are here, however old: for what must not wait for a leader. */
  peek(command: Command, args: readonly Uint8Array[]): Reply | null {
    if (this.halted !== null || this.isInstalling) return null
    const result = this.machine.read(command, args, { wallNowMs: null })
    if (result.kind === 'refused' && result.error.code === 'CORRUPT') this.halt(result.error.message)
    return result.kind === 'reply' ? result.reply : null
  }

  /** A leader that has applied an entry of its own term has applied all that was ever committed before (Raft §8). */
  private get leadsKnowingly(): boolean {
    return this.isLeader && this.appliedTerm === this.raft.term
  }

  /**
   * Whether its rows are no older than what this node has shown or acted on before its last start: after a restart they
   * may be, until all is applied that a leader has committed since.
   */
  get isFresh(): boolean {
    return this.leadsKnowingly || (this.freshFrom !== null && this.appliedIndex >= this.freshFrom)
  }

  get waitsForDeadlines(): boolean {
    return this.proposed.size + this.asked.size + this.confirmed.length + this.awaitingClock.length > 0
  }

  /** Whether somebody waits for what this replica was asked, also after another one took the lead. */
  get owesAnswers(): boolean {
    return this.hasQueued || this.waitsForDeadlines
  }

  get hasQueued(): boolean {
    return this.queuedWrites.length > 0 || this.queuedReads.length > 0
  }

  nodeOf(replica: number): string | null {
    return (
      this.configuration.members.find(member => member.replica === replica)?.node ??
      this.senders.get(replica) ??
      null
    )
  }

  /**
   * A replica whose configuration does not name the speaker (it is new, or lags behind a change) answers where it was
   * spoken to from: a voter that could not answer a new candidate might be the one vote that is missing.
   */
  noteSender(replica: number, node: string): void {
    if (this.configuration.members.some(member => member.replica === replica)) this.senders.delete(replica)
    else if (this.senders.size < sendersMax) this.senders.set(replica, node)
  }

  // --- What callers bring -------------------------------------------------------------------------------------------

  enqueueWrite(write: Write): void {
    if (this.refuse(write, this.queuedWrites.length)) return
    this.queuedWrites.push(write)
  }

  enqueueRead(read: Read): void {
    if (this.refuse(read, this.queuedReads.length)) return
    this.queuedReads.push(read)
  }

  private refuse(caller: { settle(result: Settled): void }, queued: number): boolean {
    if (this.closed !== null || !this.isLeader) {
      caller.settle({ ok: false, error: this.closed ?? this.notLeader(), isDefinite: true })
      return true
    }
    if (queued >= queuedMax) {
      const error = new RoundhouseError('OVERLOADED', {
        what: `callers waiting at shard ${this.group}`,
        max: queuedMax,
      })
      caller.settle({ ok: false, error, isDefinite: true })
      return true
    }
    return false
  }

  /**
   * Answers from this replica's state as it is; `lagMs` is how long ago it knew to have all that its leader had. Throws
   * NOT_READY before it has applied what a leader first told it since its start, and what the command refuses with.
   */
  readStale(
    command: Command,
    args: readonly Bytes[],
  ): { readonly reply: Reply; readonly index: number; readonly lagMs: number } {
    const { group } = this
    if (this.halted !== null) throw new RoundhouseError('QUARANTINED', { shard: group, why: this.halted })
    // Rows and logs of a snapshot change places one after the other.
    if (!this.isFresh || this.isInstalling)
      throw new RoundhouseError('NOT_READY', {
        why: `its replica of shard ${group} has not caught up since its start`,
      })
    const result = this.machine.read(command, args, { wallNowMs: null })
    assert(result.kind !== 'clock-wanted', 'a stale read asked for the clock')
    if (result.kind === 'refused') {
      if (result.error.code === 'CORRUPT') this.halt(result.error.message)
      throw result.error
    }
    const lagMs = this.leadsKnowingly
      ? 0
      : Math.max(0, Math.round(this.options.clock.now() - this.caughtUpAtMs))
    return { reply: result.reply, index: result.revision, lagMs }
  }

  // --- A turn of the loop, in its order -----------------------------------------------------------------------------

  step(message: Message): void {
    if (this.raft.step(message) === 'lostEntries') {
      this.halt('a leader proved that it has lost entries it had acknowledged')
      return
    }
    if (message.from === this.raft.lead) this.hearCommit(message)
  }

  /**
   * Notes how far the cluster is. What a leader of a new term has committed may be less than this node has served: only
   * its heartbeats say when it is all (`leaderCommit`); from then on its appends' commit index is all, too.
   */
  private hearCommit({ kind, term, commit, leaderCommit }: Message): void {
    if (leaderCommit > 0) this.freshTerm = term
    const told = kind === 'MsgApp' ? commit : leaderCommit
    if (told === 0 || term !== this.freshTerm) return
    this.freshFrom ??= told
    // The oldest that is awaited stays: replaced by each newer one it would never be reached under load.
    if (this.awaited === null || this.appliedIndex >= this.awaited.index)
      this.awaited = { index: told, atMs: this.options.clock.now() }
    this.noteCaughtUp()
  }

  private noteCaughtUp(): void {
    if (this.awaited === null || this.appliedIndex < this.awaited.index) return
    this.caughtUpAtMs = this.awaited.atMs
    this.awaited = null
  }

  /**
   * Hands what callers queued to Raft: each write becomes an entry, all reads share one ReadIndex (Raft §6.4). `room` is
   * what all groups of the node may still keep uncommitted; what is proposed here is taken off.
   */
  proposeQueued(room: UncommittedRoom): void {
    if (this.queuedWrites.length > 0) {
      const writes = this.queuedWrites
      this.queuedWrites = []
      const isOutOfRoom = this.isLeader && !this.hasRoomAtQuorum()
      // Nothing is applied meanwhile and the turn is short: one stamp serves all of them.
      const stampMs = this.stampMs(this.options.clock)
      const made: Made[] = []
      const entries = new EntryWriter()
      let { bytesLeft } = room
      for (const write of writes) {
        if (isOutOfRoom && !this.frees(write)) {
          const error = new RoundhouseError('DISK_FULL', { shard: this.group })
          write.settle({ ok: false, error, isDefinite: true })
        } else if (bytesLeft <= 0) write.settle({ ok: false, error: nodeIsFull(), isDefinite: true })
        else {
          const bytes = this.writeEntry(entries, write, stampMs)
          if (bytes === null) continue
          bytesLeft -= bytes
          made.push({ write, data: emptyBytes })
        }
      }
      const written = entries.finish()
      for (let i = 0; i < made.length; i++) made[i]!.data = written[i]!
      const before = this.raft.uncommittedBytes
      if (made.length > 0) this.proposeMade(made)
      room.bytesLeft -= this.raft.uncommittedBytes - before
    }
    if (this.queuedReads.length > 0) {
      const reads = this.queuedReads
      this.queuedReads = []
      this.askedCount++
      const context = `${this.id}:${this.askedCount}`
      this.asked.set(context, reads)
      if (this.raft.readIndex(fromLatin1(context)) === 'dropped') this.failReads()
    }
  }

  /**
   * Whether enough voters have room that an entry can be committed by those alone. It is asked before an entry is made, so
   * that what is refused is refused for certain; what was accepted before, the reserves of the others hold.
   */
  private hasRoomAtQuorum(): boolean {
    const { isNearlyFull } = this.options
    if (isNearlyFull === undefined) return true
    const { voters, votersOutgoing } = this.configuration.confState
    return [voters, votersOutgoing].every(half => {
      const roomy = half.filter(id => !isNearlyFull(this.nodeOf(id) ?? ''))
      return half.length === 0 || roomy.length > half.length / 2
    })
  }

  /** Takes rows away and adds none: the way out of a full disk. */
  private frees(write: Write): boolean {
    return write.operations.every(({ command }) => this.options.table.get(command)?.frees === true)
  }

  /**
   * Writes what Raft is to carry for a write, and answers its bytes; null where the write is settled instead. One stamp for the
   * entry and for what `prepare` makes absolute: a TTL counts from the moment that the log notes.
   */
  private writeEntry(entries: EntryWriter, write: Write, timestampMs: number | null): number | null {
    try {
      const { random, table } = this.options
      if (timestampMs === null) {
        write.settle({ ok: false, error: this.clockUnknown(), isDefinite: true })
        return null
      }
      const operations = write.operations.map(operation => {
        const command = table.get(operation.command)
        if (command === undefined) throw new BrokenInvariant(`${operation.command} proposed and unknown`)
        return prepareOperation(command, operation.args, { wallMs: timestampMs, random })
      })
      return entries.add({ timestampMs, session: write.session, operations })
    } catch (error) {
      if (!isError(error)) throw error
      write.settle({ ok: false, error, isDefinite: true })
      return null
    }
  }

  /** In one append a follower; where there is no room for all of them, for as many as there is, in their order. */
  private proposeMade(made: readonly Made[]): void {
    // Raft takes a first proposal whatever its size, lest a limit stop it for good: that is meant for one entry.
    const isOne = made.length === 1
    this.lastRefusal =
      isOne || this.raft.uncommittedBytes + bytesOf(made) <= this.uncommittedBytesMax
        ? this.raft.proposeAll(made.map(({ data }) => data))
        : 'uncommittedFull'
    if (this.lastRefusal === 'ok') {
      const first = this.raft.lastIndex - made.length + 1
      for (let i = 0; i < made.length; i++) this.noteProposed(first + i, made[i]!.write)
    } else if (this.lastRefusal === 'uncommittedFull' && !isOne) {
      const half = made.length >> 1
      this.proposeMade(made.slice(0, half))
      this.proposeMade(made.slice(half))
    } else {
      for (const { write } of made) write.settle({ ok: false, error: this.refusal(), isDefinite: true })
    }
  }

  private get uncommittedBytesMax(): number {
    return this.raft.raft.config.maxUncommittedEntriesSize
  }

  /** An entry of the cluster's own: a clock entry, a sweep. */
  private proposeOwn(envelope: Envelope): number | null {
    this.lastRefusal = this.raft.propose(encodeEnvelope(envelope))
    if (this.lastRefusal !== 'ok') return null
    const index = this.raft.lastIndex
    this.noteProposed(index, null)
    return index
  }

  private noteProposed(index: number, write: Write | null): void {
    // An earlier leadership proposed another entry at this index. That one can still win while neither is committed.
    this.proposed.get(index)?.write?.settle({
      ok: false,
      error: new RoundhouseError('OUTCOME_UNKNOWN', { why: `shard ${this.group} changed its leader` }),
      isDefinite: false,
    })
    this.proposed.set(index, { term: this.raft.term, write })
  }

  private refusal(): RoundhouseError {
    if (!this.isLeader || this.lastRefusal !== 'uncommittedFull') return this.notLeader()
    const max = this.uncommittedBytesMax
    return new RoundhouseError('OVERLOADED', { what: `bytes not yet committed at shard ${this.group}`, max })
  }

  private clockUnknown(): RoundhouseError {
    const why = `it leads shard ${this.group} and has not heard the clocks of its voters yet`
    return new RoundhouseError('NOT_READY', { why })
  }

  notLeader(): RoundhouseError {
    return new RoundhouseError('NOT_LEADER', { shard: this.group, leader: this.leaderNode, address: null })
  }

  /**
   * The stamp of an entry made now: this clock, but no more than half a second off the nodes' median, so that one clock
   * that runs ahead can't expire everybody's keys, and one that is behind can't take from the time a key is given: what it
   * stamps would be over too soon by the next leader's clock. And never before the last entry's. null: this node has just
   * started and has not heard the clocks of a majority yet; its own alone decides nothing.
   */
  private stampMs(clock: Clock): number | null {
    const nodes = nodesOf(this.configuration, this.configuration.confState.voters)
    const medianMs = this.options.medianWallMs(nodes)
    if (Number.isNaN(medianMs)) return null
    const nearMs = Math.min(Math.max(clock.wall(), medianMs - stampOffMsMax), medianMs + stampOffMsMax)
    return Math.max(this.machine.logClockMs, Math.floor(nearMs))
  }

  /** A leader's housekeeping, now and then: expired rows go by a replicated sweep, one at a time. */
  sweep(): void {
    if (this.sweepEntryIndex !== null) return
    this.isSweeping = false
    if (!this.isLeader) return
    const stampMs = this.stampMs(this.options.clock)
    if (stampMs === null) return
    try {
      const due = this.machine.nextExpiry()
      if (due === null || due > stampMs) return
    } catch (error) {
      if (!isError(error, 'CORRUPT')) throw error
      this.halt(error.message)
      return
    }
    this.sweepEntryIndex = this.proposeOwn(sweepEnvelope(stampMs))
    this.isSweeping = this.sweepEntryIndex !== null
  }

  /** Asks all replicas for a digest of their rows at one entry, and answers its index; null where this one does not lead. */
  proposeVerify(): number | null {
    const stampMs = this.isLeader ? this.stampMs(this.options.clock) : null
    return stampMs === null ? null : this.proposeOwn(verifyEnvelope(stampMs))
  }

  /** A checkpoint has frozen the rows as of the mark: applying goes on, `verified` follows when it is durable. */
  beginMark(): void {
    this.marking = this.markedAt
    this.markedAt = null
  }

  endMark(): void {
    const digest = this.state.checkpointDigest
    if (this.marking !== null && digest !== null) this.verified = { index: this.marking, digest }
    this.marking = null
  }

  /** There was no room for the checkpoint: the rows as of the mark are gone, another VERIFY must come. */
  abandonMark(): void {
    this.marking = null
  }

  isMarking(index: number): boolean {
    return this.markedAt === index || this.marking === index
  }

  /** ReadIndex answers: these reads may be served once `index` is applied. */
  confirm(context: string, index: number): void {
    const reads = this.asked.get(context)
    if (reads === undefined) return
    this.asked.delete(context)
    this.confirmed.push({ index, reads })
  }

  /** Whether the hard state to be written holds another term or vote than the one before it. */
  isVoteNew(hardState: HardState | null): boolean {
    if (hardState === null) return false
    const { term, vote } = hardState
    if (this.written.term === term && this.written.vote === vote) return false
    this.written = { term, vote }
    return true
  }

  enqueueApply(entries: readonly Entry[], responses: readonly Message[]): void {
    this.applyQueue.push({ entries, responses, next: 0 })
  }

  /**
   * A snapshot is about to pass over what waits to be applied. Raft has taken its configuration already: no older change
   * of configuration may be applied after that.
   */
  dropApplicable(): void {
    for (const batch of this.applyQueue.splice(0))
      for (const response of batch.responses) this.raft.step(response)
  }

  /** Applies committed entries until `untilMs`; true when none is left. Raft hears of each batch when it is through. */
  applyCommitted(untilMs: number): boolean {
    let applied = 0
    if (this.markedAt !== null) return true
    for (let batch = this.applyQueue[0]; batch !== undefined; batch = this.applyQueue[0]) {
      while (batch.next < batch.entries.length) {
        if (++applied % entriesBetweenLooks === 0 && this.options.clock.now() > untilMs) return false
        this.applyEntry(batch.entries[batch.next]!)
        batch.next++
        if (this.halted !== null || this.markedAt !== null) return true
      }
      this.applyQueue.shift()
      for (const response of batch.responses) this.raft.step(response)
    }
    return true
  }

  private applyEntry(entry: Entry): void {
    // By the million: no message is made before it is needed.
    if (entry.index !== this.appliedIndex + 1)
      throw new BrokenInvariant(`apply ${entry.index} after ${this.appliedIndex}`)
    const waiting = this.proposed.get(entry.index)
    let settled: Settled | null = null
    try {
      if (entry.kind === 'normal')
        settled = settledOf(this.machine.apply(entry.index, entry.data, entry.term))
      else this.applyChange(entry)
    } catch (error) {
      // A disk that fails ends the process, as a failed write does: the next one reads again.
      if (!isError(error) || error.code === 'STORAGE_FAILED') throw error
      // What this version does not understand, or rows that fail their checksum: going on would make this replica differ
      // from the others for ever. It stops here and says nothing more. An upgrade cures the first; nothing was lost.
      this.halt(error.message, error.code !== 'UNSUPPORTED_ENTRY')
      return
    }
    this.appliedIndex = entry.index
    this.appliedTerm = entry.term
    if (this.machine.marked === entry.index) this.markedAt = entry.index
    this.noteCaughtUp()
    if (this.clockEntryIndex !== null && entry.index >= this.clockEntryIndex) this.clockEntryIndex = null
    if (this.sweepEntryIndex !== null && entry.index >= this.sweepEntryIndex) this.sweepEntryIndex = null
    if (waiting === undefined) return
    this.proposed.delete(entry.index)
    if (waiting.write === null) return
    // Another term at this index: the entry that was proposed here lost, and an entry exists at one index only.
    if (waiting.term !== entry.term || settled === null)
      waiting.write.settle({ ok: false, error: this.notLeader(), isDefinite: true })
    else waiting.write.settle(settled)
  }

  private applyChange(entry: Entry): void {
    const change = this.raft.decodeConfChange(entry)
    const context = decodeChange(change.context)
    // An operation names the configuration it was made for; one that comes late (its step was done by another leader,
    // or the wish has changed) changes nothing. Leaving a joint configuration has no context and always counts.
    const { index, operation } = this.configuration
    if (context !== null && (context.expectedIndex !== index || context.operation < operation)) {
      return
    }
    // The joint configuration that it would leave was never entered: this one was forced (forced.ts).
    if (context === null && !isJoint(this.configuration)) return
    const confState = this.raft.applyConfChange(change)
    this.configuration = nextConfiguration(this.configuration, entry.index, confState, context)
  }

  /** Serves the reads whose index is applied. */
  serveReads(): void {
    if (this.awaitingClock.length > 0 && this.clockEntryIndex === null) {
      const reads = this.awaitingClock
      this.awaitingClock = []
      for (const read of reads) this.serve(read)
    }
    if (this.confirmed.length === 0) return
    const waiting = this.confirmed
    this.confirmed = []
    for (const group of waiting) {
      if (group.index > this.appliedIndex) this.confirmed.push(group)
      else for (const read of group.reads) this.serve(read)
    }
  }

  private serve(read: Read): void {
    const wallNowMs = this.stampMs(this.options.clock)
    if (wallNowMs === null) {
      read.settle({ ok: false, error: this.clockUnknown(), isDefinite: true })
      return
    }
    const result = this.machine.read(read.command, read.args, { wallNowMs })
    if (result.kind === 'reply') {
      read.settle({ ok: true, replies: [result.reply], index: result.revision })
    } else if (result.kind === 'refused') {
      if (result.error.code === 'CORRUPT') this.halt(result.error.message)
      read.settle({ ok: false, error: result.error, isDefinite: true })
    } else {
      // By the wall clock the key is gone, by the log clock it is not: the answer "gone" must first be made true for
      // everybody, or the next leader, whose clock is behind, would bring it back.
      this.awaitingClock.push(read)
      this.clockEntryIndex ??= this.proposeOwn(clockEnvelope(wallNowMs))
      if (this.clockEntryIndex === null) this.failReads()
    }
  }

  // --- When things change -------------------------------------------------------------------------------------------

  /** Fails the callers whom only a leader can serve, once it leads no more. True when leadership changed either way. */
  noticeLeadership(): boolean {
    if (this.isLeader === this.wasLeader) return false
    this.wasLeader = this.isLeader
    // Entries of the cluster's own that an earlier leadership proposed may have been lost with it.
    this.clockEntryIndex = null
    this.sweepEntryIndex = null
    if (!this.isLeader) {
      const writes = this.queuedWrites
      this.queuedWrites = []
      for (const write of writes) write.settle({ ok: false, error: this.notLeader(), isDefinite: true })
      this.failReads()
    }
    return true
  }

  private failReads(): void {
    const reads = [
      ...this.queuedReads,
      ...[...this.asked.values()].flat(),
      ...this.confirmed.flatMap(group => group.reads),
      ...this.awaitingClock,
    ]
    this.queuedReads = []
    this.asked.clear()
    this.confirmed = []
    this.awaitingClock = []
    for (const read of reads) read.settle({ ok: false, error: this.notLeader(), isDefinite: true })
  }

  /** Gives up on callers whose deadline has passed. A proposed write may still be applied: its outcome is unknown. */
  expire(nowMs: number): void {
    for (const [index, { write }] of this.proposed) {
      if (write === null || write.deadline > nowMs) continue
      this.proposed.set(index, { term: this.proposed.get(index)!.term, write: null })
      const error = new RoundhouseError('OUTCOME_UNKNOWN', {
        why: `shard ${this.group} did not commit in time`,
      })
      write.settle({ ok: false, error, isDefinite: false })
    }
    const late = (read: Read) => {
      if (read.deadline > nowMs) return false
      const error = new RoundhouseError('NO_LEADER', { shard: this.group, waitedMs: 0 })
      read.settle({ ok: false, error, isDefinite: true })
      return true
    }
    for (const [context, reads] of this.asked) {
      const left = reads.filter(read => !late(read))
      if (left.length === 0) this.asked.delete(context)
      else if (left.length < reads.length) this.asked.set(context, left)
    }
    this.confirmed = this.confirmed
      .map(group => ({ index: group.index, reads: group.reads.filter(read => !late(read)) }))
      .filter(group => group.reads.length > 0)
    this.awaitingClock = this.awaitingClock.filter(read => !late(read))
  }

  /** The rows are those of a snapshot now. */
  installed(): void {
    const meta = this.state.checkpointed
    assert(meta !== null, 'a snapshot was installed and left no checkpoint')
    this.markedAt = null
    this.marking = null
    this.machine.reload()
    this.configuration = decodeConfiguration(meta.configuration)
    this.appliedIndex = meta.index
    this.appliedTerm = meta.term
    this.noteCaughtUp()
    for (const [index, { write }] of this.proposed) {
      if (index > meta.index) continue
      this.proposed.delete(index)
      // What happened at that index is inside the snapshot, and nobody can tell.
      const error = new RoundhouseError('OUTCOME_UNKNOWN', { why: 'a snapshot passed over the entry' })
      write?.settle({ ok: false, error, isDefinite: false })
    }
  }

  checkpointMeta(): { readonly index: number; readonly term: number; readonly configuration: Uint8Array } {
    return {
      index: this.appliedIndex,
      term: this.appliedTerm,
      configuration: encodeConfiguration(this.configuration),
    }
  }

  /** From here on it is mute; for good when what it promised may be lost, so that nothing it says may be counted. */
  halt(why: string, isLasting = true): void {
    if (this.halted !== null) return
    this.halted = why
    this.options.onHalt(this, why, isLasting)
    this.close(new RoundhouseError('QUARANTINED', { shard: this.group, why }))
  }

  /** Settles everybody who waits. */
  close(error: RoundhouseError): void {
    this.closed ??= error
    const writes = this.queuedWrites
    this.queuedWrites = []
    for (const write of writes) write.settle({ ok: false, error, isDefinite: true })
    const unknown = new RoundhouseError('OUTCOME_UNKNOWN', { why: error.message })
    for (const { write } of this.proposed.values())
      write?.settle({ ok: false, error: unknown, isDefinite: false })
    this.proposed.clear()
    this.failReads()
  }

  /** As far as this leader knows: the replica is being sent entries, and lacks no more than so many. */
  isCaughtUp(replica: number, lagEntriesMax: number): boolean {
    const progress = this.raft.progressOf(replica)
    if (progress?.state !== 'replicate') return false
    // Within two election timeouts: the shorter memory is empty just after each CheckQuorum, and whoever asks at the
    // same interval would be told "no" for ever.
    if (!progress.isRecentlyActive && !progress.wasActiveBefore) return false
    return progress.match + lagEntriesMax >= this.raft.lastIndex
  }

  otherVoters(): readonly number[] {
    return this.configuration.confState.voters.filter(id => id !== this.id)
  }

  proposeChange(change: ConfChange): boolean {
    return this.isLeader && this.raft.proposeConfChange(change) === 'ok'
  }
}

function settledOf(applied: Applied): Settled {
  if (applied.kind === 'refused') return { ok: false, error: applied.error, isDefinite: true }
  return { ok: true, replies: applied.replies, index: applied.revision }
}
