import { decodeEnvelope } from '../commands/envelope.ts'
import type { CommandTable } from '../commands/machine.ts'
import { isError, RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { toLatin1 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Random } from '../lib/prng.ts'
import type { Entry, HardState, Message } from '../raft/types.ts'
import {
  birthConfiguration,
  blankConfiguration,
  bornAt,
  type Configuration,
  decodeConfiguration,
  encodeConfiguration,
  type Member,
  startOf,
} from './configuration.ts'
import { JournalBatch } from './journal-batch.ts'
import type {
  Journal,
  JournalRecord,
  Outbox,
  PeerMessage,
  ReplicaRecovery,
  Room,
  StateStore,
} from './ports.ts'
import { nodeUncommittedBytesMax, type RaftSettings, Replica, type UncommittedRoom } from './replica.ts'
import { type SnapshotFetch, Snapshotter } from './snapshotter.ts'

/**
 * The loop that drives all replicas of a node. It is free of clocks and I/O of its own: frames, completions, callers and
 * ticks come in, effects go out through ports, and the order of a turn is always the same:
 *
 *   inbound frames → completions → proposals → at most one tick → the Ready of every dirty replica in id order → frames out
 *   → one journal batch → apply → reads
 *
 * Appends to followers leave at once; ONE journal batch is in flight and the next fills meanwhile: that is the group
 * commit, without a timer. Messages that promise something (acks, votes) are responses of the batch that makes it
 * durable: they leave when it is, not before (Raft §5.2, §5.3: persist before you answer).
 */
export interface HostOptions {
  readonly nodeId: string
  readonly journal: Journal
  readonly state: StateStore
  readonly outbox: Outbox
  readonly clock: Clock
  readonly random: Random
  readonly log: Logger
  readonly raft: RaftSettings
  /** Proposed and not committed, all groups together; nodeUncommittedBytesMax if not given. */
  readonly uncommittedBytesMax?: number
  /** In place of hostLimits: a simulation makes them small, so that it meets them. */
  readonly limits?: Partial<HostLimits>
  /** Calls `run` soon, not within this call (setImmediate). */
  readonly schedule: (run: () => void) => void
  readonly tableOf: (group: number) => CommandTable
  readonly medianWallMs: (nodes: readonly string[]) => number
  readonly fetch: SnapshotFetch
  /** How fast snapshots are pulled at most, all together. */
  readonly fetchBytesPerSecond: number
  /** Tells the node that offered a snapshot that its receiver could not get it. */
  readonly reportFailure: (node: string, group: number, receiver: number) => void
  /** Absent: there is always room. */
  readonly room?: Room
  /** A durable promise can't be kept any more (failed sync, failed commit): the node must stop serving. */
  readonly onFatal: (error: Error) => void
  /** After a turn: replicas that applied entries or whose leadership or configuration changed. */
  readonly onProgress: (replicas: ReadonlySet<Replica>) => void
}

export interface HostLimits {
  /** A replica is checkpointed when its memtable holds this much. */
  readonly memtableBytesMax: number
  /** … or its log has grown so long since the last one that a restart would be slow, or that one is so old. */
  readonly entriesBetweenCheckpointsMax: number
  readonly checkpointAgeMsMax: number
  /** Checkpointed entries that stay in the journal while there is room. */
  readonly entriesKept: number
  /** Messages waiting for a turn; what comes on top is dropped, Raft repeats it. */
  readonly inboxMax: number
}

export const hostLimits: HostLimits = {
  memtableBytesMax: 1024 * 1024,
  entriesBetweenCheckpointsMax: 4_000,
  checkpointAgeMsMax: 30_000,
  entriesKept: 4_000,
  inboxMax: 100_000,
}

/** How long applying may keep the loop, ms. */
const applyBudgetMs = 10
/** A journal write that takes longer is worth a line. */
const slowSyncMs = 500
/** Within this time of its begin a journal write says what the next one would take. */
const freshSyncMs = 1_000
/** After a checkpoint or an install that found no room, ms until the next try. */
const noSpaceRetryMs = 1_000
/** Between two tries to read the files of a replica that a start could not read. */
const unreadableRetryMs = 2_000
/** Entries that a follower may lack to be given the leadership: it gets them before it campaigns. */
const lagOfHeirMax = 1_000

const noRoomNeeded: UncommittedRoom = { bytesLeft: 0 }

interface Recovered {
  readonly id: number
  readonly configuration: Configuration
  readonly applied: { readonly index: number; readonly term: number }
  readonly hardState: HardState
}

export class Host {
  readonly snapshotter: Snapshotter
  private readonly options: HostOptions
  private readonly limits: HostLimits
  private readonly replicas = new Map<number, Replica>()
  private readonly groups = new Map<number, Replica>()
  private readonly quarantined = new Map<number, { readonly group: number | null; readonly why: string }>()
  /** By id: replicas whose files the disk did not give back at the start. */
  private readonly unreadable = new Map<number, ReplicaRecovery>()
  /** Entries up to an index that can't be read from the journal any more, and are in memory still. */
  private readonly mending = new Map<number, number>()
  private readonly dirty = new Set<Replica>()
  private progressed = new Set<Replica>()
  private inbox: { readonly from: string; readonly message: Message }[] = []
  private completions: (() => void)[] = []
  private batch = new JournalBatch()
  private isWriting = false
  /** Of the journal write under way, or the last one, on the monotonic clock; how long the last one took. */
  private writeBeganMs = 0
  private lastWriteMs = 0
  /** The batch that is on its way to the disk. */
  private writing: JournalBatch | null = null
  private isTickDue = false
  private isScheduled = false
  private isStopped = false
  private isCheckpointing = false
  /** After one that found no room, on the monotonic clock. */
  private nextCheckpointMs = 0
  private ticks = 0
  /** Ticks since the journal write under way began. */
  private writingTicks = 0
  private readonly frames = new Map<string, { appends: PeerMessage[]; control: PeerMessage[] }>()
  private refusals: string[] = []
  private readonly campaigns = new Map<Replica, number>()
  private isStandingDown = false
  readonly counters = {
    turns: 0,
    messagesIn: 0,
    messagesDropped: 0,
    /** Entries and snapshots not taken in on a full disk. */
    messagesWithoutRoom: 0,
    checkpoints: 0,
    applied: 0,
  }

  constructor(options: HostOptions) {
    this.options = options
    this.limits = { ...hostLimits, ...options.limits }
    this.snapshotter = new Snapshotter(
      {
        ...options,
        syncMs: () => this.syncMs,
        touch: replica => this.touch(replica),
        find: id => this.replicas.get(id),
      },
      work => this.complete(work),
    )
  }

  // --- Replicas come and go -----------------------------------------------------------------------------------------

  /** Brings back what the journal and the state remember. Call once, before anything else. */
  recover(recoveries: readonly ReplicaRecovery[]): void {
    const found: { readonly recovery: ReplicaRecovery; readonly recovered: Recovered }[] = []
    for (const recovery of recoveries) {
      try {
        const recovered = this.examine(recovery)
        if (typeof recovered !== 'string') found.push({ recovery, recovered })
        else this.quarantine(recovery, recovered)
      } catch (error) {
        this.notBroughtBack(recovery, error)
      }
    }
    if (this.batch.size > 0) this.writeBatch()
    for (const { recovery, recovered } of found.sort((a, b) => a.recovered.id - b.recovered.id))
      this.bringBack(recovery, recovered)
    this.wake()
  }

  private bringBack(recovery: ReplicaRecovery, recovered: Recovered): void {
    const { id, configuration, applied, hardState } = recovered
    try {
      const replica = this.adopt(id, configuration, applied, hardState)
      this.unreadable.delete(id)
      // There is nobody to hear of a leader from, so waiting for one would only cost an election timeout.
      const { voters, votersOutgoing } = configuration.confState
      if (votersOutgoing.length === 0 && voters.length === 1 && voters[0] === id)
        this.campaigns.set(replica, 0)
      this.compact(replica, this.limits.entriesKept)
    } catch (error) {
      // A row that it begins with can't be read.
      this.notBroughtBack(recovery, error)
    }
  }

  /** One group's trouble: the others go on. */
  private notBroughtBack(recovery: ReplicaRecovery, error: unknown): void {
    if (isError(error, 'CORRUPT')) this.quarantine(recovery, error.message)
    else if (isError(error, 'STORAGE_FAILED'))
      this.bringBackLater(recovery, `${error.facts.what}: ${error.facts.why}`)
    else throw error
  }

  /**
   * A disk that did not give back a replica's files may do so in a moment. Until then the replica is mute, which is safe: it
   * is as if it were down. A verdict would be for good, and disks that fail together would cost the group all it has.
   */
  private bringBackLater(recovery: ReplicaRecovery, why: string): void {
    const { replica: id } = recovery
    this.options.log.error('a replica can not be read, it is tried again', { replica: id, why })
    this.unreadable.set(id, recovery)
    this.options.clock.after(unreadableRetryMs, () =>
      this.complete(() => {
        if (!this.unreadable.has(id) || this.isStopped) return
        try {
          const recovered = this.examine(recovery)
          if (typeof recovered === 'string') this.quarantine(recovery, recovered)
          // The reset that an unfinished install still needs must be in the journal before Raft reads there.
          else if (this.batch.isWaitedFor(id)) {
            const bringBack = () =>
              !this.isStopped && this.unreadable.has(id) && this.bringBack(recovery, recovered)
            this.extra.push(error => error === null && this.complete(bringBack))
            this.wake()
          } else this.bringBack(recovery, recovered)
        } catch (error) {
          this.notBroughtBack(recovery, error)
        }
      }),
    )
  }

  /** What to go on with, or why this replica must not. */
  private examine(recovery: ReplicaRecovery): Recovered | string {
    const { journal, state } = this.options
    const id = recovery.replica
    const noted = recovery.configuration === null ? null : decodeConfiguration(recovery.configuration)
    if (noted?.quarantined !== undefined) return noted.quarantined
    const start = startOf(noted, state.open(id).checkpointed)
    if (start === null) return 'nobody knows its configuration'
    // Throws CORRUPT where records are missing, which is a reason as good as any.
    state.open(id).openRecords()
    const { configuration, applied } = start
    const { damaged, snapshotPoint, lastIndex, hardState } = recovery
    if (damaged !== null && damaged.to > applied.index + 1)
      return damaged.to > lastIndex + 1
        ? `its log is damaged from entry ${damaged.from} on`
        : `entries ${damaged.from} to ${damaged.to - 1} of its log are damaged`
    // The commit index is written with the entries it covers: a log that ends before it has lost what it promised.
    if (hardState.commit > Math.max(lastIndex, applied.index))
      return `commit ${hardState.commit} is past its last entry ${lastIndex}`
    if (applied.index < snapshotPoint.index)
      return `its log begins after ${snapshotPoint.index}, its checkpoint ends at ${applied.index}`
    const term = journal.term(id, applied.index)
    const isUnfinishedInstall =
      applied.index > lastIndex ||
      (term !== undefined && term !== applied.term && hardState.commit < applied.index)
    if (isUnfinishedInstall) {
      // A snapshot was installed (the state flip is durable) and the crash came before the journal's reset: the log
      // begins after it. (A checkpoint never passes the synced log by itself: entries are applied once durable here.)
      const after = {
        term: Math.max(hardState.term, applied.term),
        vote: hardState.vote,
        commit: applied.index,
      }
      const reset = { index: applied.index, term: applied.term }
      this.batch.add({ replica: id, hardState: after, entries: [], reset }, [])
      return { id, configuration, applied, hardState: after }
    }
    if (term !== undefined && term !== applied.term)
      return `its log has another entry ${applied.index} than its checkpoint`
    // Damage below the checkpoint is of no use to anybody: nothing may read it again.
    if (damaged !== null && term !== undefined) journal.compact(id, applied.index, applied.term)
    return {
      id,
      configuration,
      applied,
      // Of a try again after an install's reset was written: the term went up with it.
      hardState: {
        ...hardState,
        term: Math.max(hardState.term, applied.term),
        commit: Math.max(hardState.commit, applied.index),
      },
    }
  }

  /** Keeps a replica out for good: it sends nothing, votes never, and is remembered as such over restarts. */
  private quarantine(recovery: ReplicaRecovery, why: string): void {
    const id = recovery.replica
    let configuration: Configuration | null = null
    try {
      const noted = recovery.configuration === null ? null : decodeConfiguration(recovery.configuration)
      // Rot may have taken the record of whose it is. Its checkpoint says that, too, and the verdict must be written: a start that
      // finds the checkpoint, and no trace of the damage any more, would let it speak again.
      configuration = noted ?? startOf(null, this.options.state.open(id).checkpointed)?.configuration ?? null
    } catch {
      // It stays nameless; the id is what counts. Without checkpoint and configuration no start lets it speak.
    }
    const group = configuration?.group ?? null
    this.options.log.error('replica is quarantined', { group, replica: id, why })
    this.unreadable.delete(id)
    this.quarantined.set(id, { group, why })
    if (configuration !== null && configuration.quarantined === undefined)
      this.noteQuarantine(id, configuration, why)
  }

  private noteQuarantine(id: number, configuration: Configuration, why: string): void {
    const bytes = encodeConfiguration({ ...configuration, quarantined: why })
    this.batch.add({ replica: id, hardState: null, entries: [], configuration: bytes }, [])
    this.wake()
  }

  /** Whether this node has the replica, well or not. */
  knows(id: number): boolean {
    return this.replicas.has(id) || this.quarantined.has(id) || this.unreadable.has(id)
  }

  /** Somebody who looked found the replica's rows broken: it goes no further, and is replaced. */
  condemn(id: number, why: string): void {
    const recovery = this.unreadable.get(id)
    if (recovery === undefined) this.replicas.get(id)?.halt(why)
    else this.quarantine(recovery, why)
  }

  /**
   * An entry of a replica can't be read from the journal any more. What it did is in memory, if it was applied: the next
   * checkpoint makes that durable, and then nobody needs the entry. Otherwise a promise is lost.
   */
  entryLost(id: number, index: number, why: string): void {
    const replica = this.replicas.get(id)
    if (replica === undefined || replica.halted !== null) return
    this.options.log.error('an entry of the journal is broken', {
      group: replica.group,
      replica: id,
      index,
      why,
    })
    if (index > replica.appliedIndex) replica.halt(why)
    else this.mending.set(id, Math.max(index, this.mending.get(id) ?? 0))
    this.touch(replica)
  }

  /** A replica whose checkpoint would make broken entries needless. */
  private mendable(): Replica | null {
    for (const [id, index] of this.mending) {
      const replica = this.replicas.get(id)
      const checkpointed = replica?.state.checkpointed?.index ?? 0
      if (replica === undefined || replica.halted !== null) this.mending.delete(id)
      else if (checkpointed < index) {
        if (this.isBehind(replica, 1)) return replica
      } else {
        // A snapshot on its way may still need them; it is let go in time.
        this.compact(replica, 0)
        if (this.options.journal.firstIndex(id) > index) this.mending.delete(id)
      }
    }
    return null
  }

  /** Replicas that can't go on, found at the start or since: id → group (null: unknown) and why. */
  unfit(): ReadonlyMap<number, { readonly group: number | null; readonly why: string }> {
    return this.quarantined
  }

  /** By id the group: replicas that are tried again, for the disk did not give them back at the start. */
  unread(): ReadonlyMap<number, number> {
    const found = new Map<number, number>()
    for (const [id, { configuration }] of this.unreadable)
      if (configuration !== null) found.set(id, decodeConfiguration(configuration).group)
    return found
  }

  private adopt(
    id: number,
    configuration: Configuration,
    applied: { readonly index: number; readonly term: number },
    hardState: HardState,
  ): Replica {
    const { journal, state, clock, random, raft, medianWallMs, tableOf, log, room } = this.options
    const replica = new Replica({
      id,
      journal,
      state: state.open(id),
      table: tableOf(configuration.group),
      clock,
      random,
      raft,
      hardState,
      configuration,
      applied,
      onHalt: (halted, why, isLasting) => {
        log.error('replica is quarantined', { group: halted.group, replica: id, why })
        if (isLasting) {
          this.quarantined.set(id, { group: halted.group, why })
          this.noteQuarantine(id, halted.configuration, why)
        }
        this.progressed.add(halted)
      },
      snapshotFor: (of, to) => this.snapshotter.offer(of, to),
      medianWallMs,
      ...(room?.isOfUsers(configuration.group) ? { isNearlyFull: node => room.isNearlyFull(node) } : {}),
    })
    this.replicas.set(id, replica)
    const sibling = this.groups.get(replica.group)
    if (sibling === undefined || sibling.id < id) this.groups.set(replica.group, replica)
    this.touch(replica)
    return replica
  }

  /** Makes the only voter of a new group. Resolves when it is durable. */
  async found(group: number, id: number): Promise<void> {
    const replica = await this.make(id, birthConfiguration(group, { replica: id, node: this.options.nodeId }))
    replica.raft.campaign()
    this.wake()
  }

  /**
   * Makes a replica that waits to be spoken to: only because meta gave out its id, never because a message came. `birth`
   * is the group's first replica: what the group was at its birth is known to everybody, so that a group whose log still
   * reaches back to it (a new cluster's) needs no snapshot.
   */
  async create(group: number, id: number, birth: Member | null = null): Promise<void> {
    if (this.knows(id)) return
    await this.make(id, birth === null ? blankConfiguration(group) : birthConfiguration(group, birth))
  }

  private async make(id: number, configuration: Configuration): Promise<Replica> {
    const born = bornAt(configuration)
    const hardState = { term: born.term, vote: 0, commit: born.index }
    const reset = born.index > 0 ? { reset: born } : {}
    const bytes = encodeConfiguration(configuration)
    await this.persist({ replica: id, hardState, entries: [], configuration: bytes, ...reset })
    return this.replicas.get(id) ?? this.adopt(id, configuration, born, hardState)
  }

  /** Destroys a replica that is out of its group for good, as meta confirmed. The journal's tombstone is synced first. */
  async destroy(id: number): Promise<void> {
    if (!this.knows(id)) return
    const replica = this.replicas.get(id)
    this.quarantined.delete(id)
    this.unreadable.delete(id)
    if (replica !== undefined) {
      replica.close(new RoundhouseError('NOT_LEADER', { shard: replica.group, leader: null, address: null }))
      this.replicas.delete(id)
      this.dirty.delete(replica)
      this.campaigns.delete(replica)
      if (this.groups.get(replica.group) === replica) this.groups.delete(replica.group)
      this.snapshotter.forget(replica)
    }
    // What waits to be written for it would make it anew behind its tombstone.
    this.batch.drop(id)
    await new Promise<void>((resolve, reject) => {
      this.removals.push({ id, done: error => (error === null ? resolve() : reject(error)) })
      this.wake()
    })
    await this.options.state.destroy(id)
  }

  replica(id: number): Replica | undefined {
    return this.replicas.get(id)
  }

  /** This node's replica of a group, the newest if there are two. */
  group(group: number): Replica | undefined {
    return this.groups.get(group)
  }

  all(): Iterable<Replica> {
    return this.replicas.values()
  }

  // --- What comes in ------------------------------------------------------------------------------------------------

  /** Frames of a peer. */
  receive(from: string, messages: readonly PeerMessage[]): void {
    for (const { message } of messages) {
      if (this.inbox.length >= this.limits.inboxMax) {
        this.counters.messagesDropped++
        continue
      }
      this.inbox.push({ from, message })
    }
    this.wake()
  }

  /** Time passed. Ticks that a stalled loop missed are not made up for: a burst would start elections by itself. */
  tick(): void {
    this.isTickDue = true
    this.wake()
  }

  /** A replica has new callers or must be looked at. */
  touch(replica: Replica): void {
    this.dirty.add(replica)
    this.wake()
  }

  /** The process of `node` certainly does not run: its leaders are gone, and waiting for a time-out helps nobody. */
  refused(node: string): void {
    this.refusals.push(node)
    this.wake()
  }

  /**
   * From now on nothing here stands for election, asked by its leader or not: this node is about to stop, and what it were
   * given would have to change hands again. What it leads it goes on leading, as the only voter of a group to its end.
   */
  standDown(): void {
    this.isStandingDown = true
  }

  /** Checkpoints what is not yet, as far as time allows: what is left, the next start replays from the journal. */
  async checkpointAll(untilMs: number): Promise<void> {
    const { clock } = this.options
    for (const replica of this.replicas.values()) {
      while (this.isCheckpointing && clock.now() < untilMs)
        await new Promise<void>(resolve => void clock.after(2, resolve))
      if (clock.now() >= untilMs || this.isStopped) return
      if (clock.now() < this.nextCheckpointMs) return
      if (!this.isCheckpointing && this.isBehind(replica, 1)) await this.checkpoint(replica)
    }
  }

  /** Settles everybody who waits, and resolves when no write is under way any more: the ports may then be closed. */
  async stop(): Promise<void> {
    this.isStopped = true
    const error = new RoundhouseError('SHUTTING_DOWN', {})
    for (const replica of this.replicas.values()) replica.close(error)
    // No turn comes any more: what is complete already is noted here.
    for (const work of this.completions.splice(0)) work()
    if (this.isWriting || this.isCheckpointing) await new Promise<void>(resolve => (this.onQuiet = resolve))
  }

  private onQuiet: (() => void) | null = null

  private complete(work: () => void): void {
    if (!this.isStopped) {
      this.completions.push(work)
      this.wake()
      return
    }
    work()
    if (!this.isWriting && !this.isCheckpointing) this.onQuiet?.()
  }

  private wake(): void {
    if (this.isScheduled || this.isStopped) return
    this.isScheduled = true
    this.options.schedule(() => {
      this.isScheduled = false
      if (!this.isStopped) this.turn()
    })
  }

  // --- A turn -------------------------------------------------------------------------------------------------------

  private turn(): void {
    this.counters.turns++
    this.stepInbox()
    const completions = this.completions
    this.completions = []
    for (const work of completions) work()
    this.forgetRefused()
    const isTick = this.isTickDue
    if (isTick) this.tickAll()
    const dirty = [...this.dirty].sort((a, b) => a.id - b.id)
    this.dirty.clear()
    const room = dirty.some(replica => replica.hasQueued) ? this.uncommittedRoom() : noRoomNeeded
    for (const replica of dirty) {
      if (replica.noticeLeadership()) this.noteLeadership(replica)
      replica.proposeQueued(room)
    }
    for (const replica of dirty) this.takeReady(replica)
    this.sendFrames()
    this.writeBatch()
    this.applyAndServe(dirty)
    if (isTick || completions.length > 0) this.startCheckpoint()
    if (this.progressed.size > 0) {
      const progressed = this.progressed
      this.progressed = new Set()
      this.options.onProgress(progressed)
    }
  }

  private uncommittedRoom(): UncommittedRoom {
    let bytesLeft = this.options.uncommittedBytesMax ?? nodeUncommittedBytesMax
    for (const replica of this.replicas.values()) bytesLeft -= replica.raft.uncommittedBytes
    return { bytesLeft }
  }

  private stepInbox(): void {
    if (this.inbox.length === 0) return
    const inbox = this.inbox
    this.inbox = []
    this.counters.messagesIn += inbox.length
    const isFull = this.options.room?.isFull() === true
    for (const { from, message } of inbox) {
      const replica = this.replicas.get(message.to)
      // Not one of ours (any more): dropped. A replica is never made because a message arrived.
      if (replica === undefined || replica.halted !== null) continue
      if (this.isStandingDown && message.kind === 'MsgTimeoutNow') continue
      if (isFull && this.brings(message, replica)) {
        this.counters.messagesWithoutRoom++
        continue
      }
      replica.noteSender(message.from, from)
      if (message.kind === 'MsgSnap') this.snapshotter.receive(replica, message)
      else replica.step(message)
      this.dirty.add(replica)
    }
  }

  /**
   * Whether a message brings entries of users. On a full disk they are not taken in, and so never acknowledged: the
   * leader offers them again and again, and goes on once there is room. Heartbeats and votes pass, so the replica
   * follows, votes and confirms reads as before. Entries that only take away pass, in the room that the reserve left: where
   * a majority is full there is no other way out.
   */
  private brings({ kind, entries }: Message, replica: Replica): boolean {
    if (this.options.room?.isOfUsers(replica.group) !== true) return false
    return kind === 'MsgSnap' || (kind === 'MsgApp' && entries.some(entry => !this.takesAway(entry, replica)))
  }

  private takesAway({ kind, data }: Entry, { group }: Replica): boolean {
    // A new leader's empty entry passes: without it committed nobody could read.
    if (data.byteLength === 0) return true
    if (kind !== 'normal') return false
    try {
      const table = this.options.tableOf(group)
      return decodeEnvelope(data).operations.every(({ command }) => table.get(command)?.frees === true)
    } catch {
      return false
    }
  }

  // --- A disk that hangs --------------------------------------------------------------------------------------------

  /** A journal write has been under way for half of the least time that followers wait for a leader. */
  get isDiskHung(): boolean {
    return this.isWriting && this.writingTicks >= this.hungTicks
  }

  /** What journal writes take now, ms: how long the last one took, or how long the next has been taking. 0: none was of late. */
  get syncMs(): number {
    const sinceMs = this.options.clock.now() - this.writeBeganMs
    if (this.isWriting) return Math.max(sinceMs, this.lastWriteMs)
    return sinceMs < freshSyncMs ? this.lastWriteMs : 0
  }

  /** Half, so that others lead before followers of a leader that had died would even have noticed. */
  private get hungTicks(): number {
    return Math.ceil(this.options.raft.electionTicks / 2)
  }

  /**
   * While the disk hangs this node can acknowledge nothing, and what it leads stands still: leadership goes to a follower
   * that has all, for which nothing needs to be written here. Where nobody has taken it by an election timeout the leader
   * steps down. Until the disk is back nothing here campaigns: the vote for itself would be a write as well. A sole
   * voter goes on leading: there is nobody else, and what is committed can still be read.
   */
  private heedDisk(): void {
    if (!this.isWriting) return
    this.writingTicks++
    const { electionTicks } = this.options.raft
    const isFirst = this.writingTicks === this.hungTicks
    if (!isFirst && this.writingTicks !== electionTicks) return
    if (isFirst)
      this.options.log.warn('the disk hangs: a journal write does not end, leadership goes to others', {
        ticks: this.writingTicks,
      })
    for (const replica of this.replicas.values()) {
      const others = replica.otherVoters()
      if (!replica.isLeader || others.length === 0) continue
      const heir = others.find(id => replica.isCaughtUp(id, lagOfHeirMax))
      if (isFirst && heir !== undefined) replica.raft.transferLeader(heir)
      else replica.raft.stepDown()
      this.dirty.add(replica)
    }
  }

  private tickAll(): void {
    this.isTickDue = false
    this.ticks++
    this.heedDisk()
    const now = this.options.clock.now()
    const campaignsNot = this.isDiskHung || this.isStandingDown
    if (this.isStandingDown) this.campaigns.clear()
    for (const [replica, ticks] of this.campaigns) {
      if (ticks > 0) this.campaigns.set(replica, ticks - 1)
      else {
        this.campaigns.delete(replica)
        if (replica.raft.lead === 0) replica.raft.campaign()
      }
    }
    for (const replica of this.replicas.values()) {
      if (replica.halted !== null) continue
      if (!campaignsNot || replica.isLeader) replica.raft.tick()
      if (replica.isSweeping) replica.sweep()
      if (replica.raft.hasReady()) this.dirty.add(replica)
      if (replica.waitsForDeadlines) replica.expire(now)
    }
    this.snapshotter.tick()
  }

  /** Followers of a dead process forget their leader and ask for votes after a few ticks, each another number. */
  private forgetRefused(): void {
    const refusals = this.refusals
    this.refusals = []
    for (const node of refusals)
      for (const replica of this.replicas.values()) {
        if (replica.isLeader || replica.leaderNode !== node || replica.halted !== null) continue
        replica.raft.forgetLeader()
        this.campaigns.set(replica, 1 + this.options.random.below(6))
        this.dirty.add(replica)
      }
  }

  private takeReady(replica: Replica): void {
    while (replica.halted === null && replica.raft.hasReady()) {
      const ready = replica.raft.ready()
      for (const { context, index } of ready.readStates) replica.confirm(toLatin1(context), index)
      for (const message of ready.messages) this.dispatch(replica, message)
    }
    if (replica.noticeLeadership()) this.noteLeadership(replica)
  }

  private noteLeadership(replica: Replica): void {
    this.progressed.add(replica)
    if (!replica.isLeader) return
    // All leaders of this node in one tick: each with a phase of its own, a node of many groups would send a frame to every
    // peer at nearly every tick. Safe: the next heartbeat comes no later than without it, and Raft counts on nothing else.
    replica.raft.alignHeartbeat(this.ticks % this.options.raft.heartbeatTicks)
    this.options.log.info('leads', { group: replica.group, replica: replica.id, term: replica.raft.term })
  }

  private dispatch(replica: Replica, message: Message): void {
    const isForStorage = message.kind === 'MsgStorageAppend' || message.kind === 'MsgStorageApply'
    if (isForStorage && replica.isInstalling) {
      // Behind the install, in order. Meanwhile it still votes and answers heartbeats as far as that promises nothing new.
      replica.heldForInstall.push(message)
      return
    }
    if (message.kind === 'MsgStorageAppend') this.append(replica, message)
    else if (message.kind === 'MsgStorageApply') {
      replica.enqueueApply(message.entries, message.responses)
      this.dirty.add(replica)
    } else this.send(replica, message)
  }

  private append(replica: Replica, message: Message): void {
    if (this.replicas.get(replica.id) !== replica) return
    // Term, vote and commit come together (a vote of 0 is none); a message that changes none of them has a term of 0.
    const hardState =
      message.term === 0 ? null : { term: message.term, vote: message.vote, commit: message.commit }
    const { entries, responses, snapshot } = message
    if (snapshot === null) {
      const isNews = replica.isVoteNew(hardState) || entries.length > 0
      // A refused vote, an append that brought only a commit index: what they promise is on disk when nothing of this
      // replica is on its way there, and a sync for nothing would cost as much as any.
      const isDurable =
        !isNews && !this.batch.isWaitedFor(replica.id) && this.writing?.isWaitedFor(replica.id) !== true
      const isUrgent = !isDurable && (isNews || responses.length > 0)
      if (hardState !== null || isUrgent)
        this.batch.add({ replica: replica.id, hardState, entries }, isDurable ? [] : responses, isUrgent)
      if (isDurable) for (const response of responses) this.send(replica, response)
      return
    }
    // State flip durable → journal reset durable → AppendResp. Until then nothing else of this replica goes on.
    replica.isInstalling = true
    replica.dropApplicable()
    const { index, term } = snapshot.meta
    const install = () => this.snapshotter.install(replica, snapshot, installed)
    const installed = (error: Error | null) => {
      if (this.replicas.get(replica.id) !== replica) return
      if (isError(error, 'NO_SPACE')) {
        this.options.log.warn('no snapshot installed', { group: replica.group, error: error.message })
        this.options.clock.after(noSpaceRetryMs, install)
        return
      }
      if (isError(error, 'CORRUPT')) {
        // Raft has taken the snapshot for its own already: without its rows this replica is none.
        replica.isInstalling = false
        replica.halt(error.message)
        return
      }
      if (error !== null) {
        this.options.onFatal(error)
        return
      }
      replica.isInstalling = false
      replica.installed()
      this.batch.add({ replica: replica.id, hardState, entries, reset: { index, term } }, responses)
      for (const held of replica.heldForInstall.splice(0)) this.dispatch(replica, held)
      this.dirty.add(replica)
      this.progressed.add(replica)
    }
    install()
  }

  private send(replica: Replica, message: Message): void {
    if (message.to === replica.id) {
      replica.step(message)
      this.dirty.add(replica)
      return
    }
    const node = replica.nodeOf(message.to)
    if (node === null) return
    const frame = this.frames.get(node) ?? { appends: [], control: [] }
    this.frames.set(node, frame)
    const lane = message.kind === 'MsgApp' || message.kind === 'MsgSnap' ? frame.appends : frame.control
    lane.push({ group: replica.group, message })
  }

  private sendFrames(): void {
    for (const [node, { appends, control }] of this.frames) {
      if (control.length > 0) this.options.outbox.send(node, 'control', control)
      if (appends.length > 0) this.options.outbox.send(node, 'appends', appends)
    }
    this.frames.clear()
  }

  // --- The journal: one write in flight -----------------------------------------------------------------------------

  private removals: { readonly id: number; readonly done: (error: Error | null) => void }[] = []
  private extra: ((error: Error | null) => void)[] = []

  /** Writes a record outside of any Ready. */
  private persist(record: JournalRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      this.batch.add(record, [])
      this.extra.push(error => (error === null ? resolve() : reject(error)))
      this.wake()
    })
  }

  private writeBatch(): void {
    if (this.isWriting) return
    const removal = this.removals.shift()
    if (removal !== undefined) {
      this.beginWrite()
      this.options.journal.remove(removal.id, error => {
        this.written(error, () => removal.done(error))
      })
      return
    }
    if (!this.batch.isUrgent) return
    const { batch, extra } = this
    this.batch = new JournalBatch()
    this.extra = []
    this.writing = batch
    this.beginWrite()
    this.options.journal.write(batch.recordsInOrder(), error => {
      const ms = Math.round(this.options.clock.now() - this.writeBeganMs)
      if (ms >= slowSyncMs) this.options.log.warn('slow sync', { ms, replicas: batch.size })
      this.written(error, () => {
        for (const done of extra) done(error)
        if (error === null) this.deliver(batch)
      })
    })
  }

  private beginWrite(): void {
    this.isWriting = true
    this.writingTicks = 0
    this.writeBeganMs = this.options.clock.now()
  }

  private written(error: Error | null, then: () => void): void {
    this.lastWriteMs = this.options.clock.now() - this.writeBeganMs
    this.complete(() => {
      if (this.isDiskHung && error === null)
        this.options.log.warn('the disk is back', { ticks: this.writingTicks })
      this.isWriting = false
      this.writing = null
      then()
      // A sync that failed once is never tried again: the kernel may have dropped the pages and would report success.
      if (error !== null) this.options.onFatal(error)
    })
  }

  private deliver(batch: JournalBatch): void {
    for (const { replica: id, responses } of batch.responses()) {
      const replica = this.replicas.get(id)
      if (replica === undefined || replica.halted !== null) continue
      for (const response of responses) this.send(replica, response)
      this.dirty.add(replica)
    }
  }

  // --- Apply, reads, checkpoints ------------------------------------------------------------------------------------

  private applyAndServe(dirty: readonly Replica[]): void {
    const untilMs = this.options.clock.now() + applyBudgetMs
    for (const replica of dirty) {
      if (replica.halted !== null || replica.isInstalling) continue
      const before = replica.appliedIndex
      const isThrough = replica.applyCommitted(untilMs)
      replica.serveReads()
      if (replica.appliedIndex > before) {
        this.counters.applied += replica.appliedIndex - before
        this.progressed.add(replica)
      }
      if (replica.halted !== null) continue
      if (!isThrough || replica.raft.hasReady() || replica.hasQueued) this.touch(replica)
    }
  }

  /** A leader's housekeeping, once every cleanup_interval. */
  sweep(): void {
    for (const replica of this.replicas.values()) {
      replica.sweep()
      if (replica.raft.hasReady()) this.touch(replica)
    }
  }

  /** Checkpoints go round one at a time: whom the journal waits for first, then full memtables, long logs, old ones. */
  private startCheckpoint(): void {
    if (this.isCheckpointing || this.isStopped || this.options.clock.now() < this.nextCheckpointMs) return
    const replica = this.checkpointCandidate()
    if (replica !== null) void this.checkpoint(replica)
  }

  private checkpointCandidate(): Replica | null {
    for (const replica of this.replicas.values())
      if (replica.markedAt !== null && replica.halted === null && !replica.isInstalling) return replica
    const broken = this.mendable()
    if (broken !== null) return broken
    for (const id of this.options.journal.pinnedBy()) {
      const replica = this.replicas.get(id)
      if (replica === undefined || replica.halted !== null) continue
      if (this.isBehind(replica, 1) && this.snapshotter.pinnedIndex(replica) === null) return replica
      this.compact(replica, 0)
    }
    const { memtableBytesMax, entriesBetweenCheckpointsMax, checkpointAgeMsMax } = this.limits
    const oldMs = this.options.clock.now() - checkpointAgeMsMax
    for (const replica of this.replicas.values()) {
      if (!this.isBehind(replica, 1)) continue
      if (this.snapshotter.wantsCheckpoint(replica)) return replica
      if (replica.state.memtableBytes >= memtableBytesMax) return replica
      if (replica.checkpointedAtMs < oldMs || this.isBehind(replica, entriesBetweenCheckpointsMax))
        return replica
    }
    return null
  }

  /** Nothing is lost by waiting: the journal has the entries, memory the rows. */
  private postponeCheckpoints(error: Error): void {
    this.isCheckpointing = false
    if (this.nextCheckpointMs === 0) this.options.log.error('no checkpoint', { error: error.message })
    this.nextCheckpointMs = this.options.clock.now() + noSpaceRetryMs
  }

  /** Lets the journal forget what is checkpointed, but for `kept` entries: a follower that was away a moment needs those. */
  private compact(replica: Replica, kept: number): void {
    const { journal } = this.options
    const checkpoint = replica.state.checkpointed?.index ?? 0
    const index = Math.min(
      checkpoint - kept,
      this.snapshotter.pinnedIndex(replica) ?? Number.MAX_SAFE_INTEGER,
    )
    if (index < journal.firstIndex(replica.id)) return
    const term = journal.term(replica.id, index)
    if (term !== undefined) journal.compact(replica.id, index, term)
  }

  private isBehind(replica: Replica, entries: number): boolean {
    if (replica.halted !== null || replica.isInstalling) return false
    return replica.appliedIndex - (replica.state.checkpointed?.index ?? 0) >= entries
  }

  /** Makes the replica's rows durable as of now; after it the journal may forget the entries behind them. */
  async checkpoint(replica: Replica): Promise<void> {
    assert(!this.isCheckpointing, 'two checkpoints at a time')
    this.isCheckpointing = true
    const started = this.options.clock.now()
    const meta = replica.checkpointMeta()
    replica.checkpointedAtMs = started
    try {
      // The rows are frozen when the call returns: whoever waited for that goes on applying.
      const durable = replica.state.checkpoint(meta)
      replica.beginMark()
      this.touch(replica)
      await durable
    } catch (error) {
      if (!isError(error, 'NO_SPACE')) this.options.onFatal(error as Error)
      else
        this.complete(() => {
          replica.abandonMark()
          this.postponeCheckpoints(error)
        })
      return
    }
    this.complete(() => {
      this.isCheckpointing = false
      this.nextCheckpointMs = 0
      replica.endMark()
      this.counters.checkpoints++
      const ms = Math.round(this.options.clock.now() - started)
      this.options.log.debug('checkpoint', {
        group: replica.group,
        replica: replica.id,
        index: meta.index,
        ms,
      })
      if (this.replicas.get(replica.id) === replica) this.compact(replica, this.limits.entriesKept)
      this.snapshotter.checkpointed(replica)
      this.touch(replica)
    })
  }
}
