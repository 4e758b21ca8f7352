import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Message, Snapshot as RaftSnapshot } from '../raft/types.ts'
import { decodeConfiguration } from './configuration.ts'
import type { Journal, Room, Snapshot, SnapshotManifest, StagedSnapshot } from './ports.ts'
import { PullPace } from './pull-pace.ts'
import type { Replica } from './replica.ts'

/**
 * Snapshots on their way. Raft moves only the metadata (MsgSnap); the rows are pulled by the receiver.
 *
 * Sender: Raft asks for a snapshot for a follower that the log can't help any more → a checkpoint that names the follower
 * → a copy of it in files → MsgSnap with the manifest. Until the follower has caught up or gone silent the copy lives
 * and the journal behind it is kept.
 * Receiver: MsgSnap → pull, check and sync all chunks → only then is the message stepped, so that Raft never promises a
 * snapshot that is not here → install when Raft's Ready says so.
 */
export type SnapshotFetch = (
  node: string,
  request: {
    readonly shard: number
    readonly snapshot: string
    readonly part: string
    readonly position: number
    readonly length: number
  },
) => Promise<Bytes>

interface SnapshotterOptions {
  readonly nodeId: string
  readonly clock: Clock
  readonly log: Logger
  readonly fetch: SnapshotFetch
  /** How fast snapshots are pulled at most, all together. */
  readonly fetchBytesPerSecond: number
  /** What the journal's writes take now. */
  readonly syncMs: () => number
  /** Tells the node that offered a snapshot that its receiver could not get it. */
  readonly reportFailure: (node: string, group: number, receiver: number) => void
  readonly touch: (replica: Replica) => void
  readonly find: (replica: number) => Replica | undefined
  readonly journal: Pick<Journal, 'bytesAfter'>
  readonly room?: Room
}

/** What travels in MsgSnap. */
interface Offer {
  readonly node: string
  readonly manifest: Omit<SnapshotManifest, 'configuration'> & { readonly configuration: string }
}

/**
 * The journal keeps what is behind a copy, outside of its budget, while the copy is made and until its receiver has caught
 * up: not for ever, nor on a disk that fills up. Then the pin is lifted. The copy is of use as long as the log still goes
 * on where it ends; where it does not, another is taken.
 */
interface Pin {
  readonly index: number
  readonly sinceMs: number
  /** When somebody last read of the copy; until it is made, when that began. */
  usedAtMs: number
  isLifted: boolean
}

interface Outgoing {
  readonly snapshot: Snapshot
  readonly pin: Pin
  /** When somebody last asked for it or for a chunk of it, on the monotonic clock. */
  usedAtMs: number
  readonly madeAtMs: number
  readonly receivers: Set<number>
}

interface Incoming {
  readonly staged: StagedSnapshot
  readonly message: Message
  isCancelled: boolean
}

/** A copy that nobody asked for this long is given up, and the follower is probed again. */
const idleMsMax = 5_000
/** The longest that the journal behind a copy is kept while nobody reads it, and one that nobody asks for is offered again. */
const ageMsMax = 600_000
/** The most that is kept of it, a replica. */
export const pinnedBytesMax = 1024 * 1024 * 1024
/** Between two looks at what is pinned. */
const pinLookMs = 1_000
/** Receiving at one time: each holds a chunk in memory. */
export const incomingMax = 16
const fetchAttemptsMax = 5
const fetchPauseMs = 200

export class Snapshotter {
  private readonly options: SnapshotterOptions
  /** Hands work back to the loop. */
  private readonly complete: (work: () => void) => void
  /** By replica, the oldest first. An older copy lives on while somebody pulls it. */
  private readonly outgoing = new Map<number, readonly Outgoing[]>()
  /** Replicas of which a copy is wanted, and for whom; the host checkpoints them. */
  private readonly wanted = new Map<Replica, Set<number>>()
  /** Destroyed here. */
  private readonly gone = new WeakSet<Replica>()
  /** Copies being made, by replica. */
  private readonly taking = new Map<number, Pin>()
  private nextPinLookMs = 0
  private readonly incoming = new Map<number, Incoming>()
  private readonly pace: PullPace
  readonly counters = { sent: 0, received: 0, bytesSent: 0, bytesReceived: 0 }

  constructor(options: SnapshotterOptions, complete: (work: () => void) => void) {
    this.options = options
    this.complete = complete
    this.pace = new PullPace(options.clock, options.fetchBytesPerSecond)
  }

  // --- Sender -------------------------------------------------------------------------------------------------------

  /** Raft's question: a snapshot for that follower, or null: it is being prepared, and `onReady` will tell. */
  offer(replica: Replica, to: number): RaftSnapshot | null {
    const ready = this.newestGoodFor(replica, to)
    if (ready !== null) {
      ready.receivers.add(to)
      ready.usedAtMs = this.options.clock.now()
      const { manifest } = ready.snapshot
      const configuration = toUtf8(manifest.configuration)
      const offer: Offer = { node: this.options.nodeId, manifest: { ...manifest, configuration } }
      const { confState } = decodeConfiguration(manifest.configuration)
      const meta = { index: manifest.index, term: manifest.term, confState }
      return { meta, data: fromUtf8(JSON.stringify(offer)) }
    }
    const waiting = this.wanted.get(replica)
    if (waiting === undefined) this.wanted.set(replica, new Set([to]))
    else waiting.add(to)
    this.takeIfCheckpointed(replica)
    return null
  }

  /** It must name the receiver (Raft ignores one that does not), and the log must go on where it ends. */
  private newestGoodFor(replica: Replica, to: number): Outgoing | null {
    for (const outgoing of [...this.outgoingOf(replica.id)].reverse()) {
      const { configuration, index } = outgoing.snapshot.manifest
      if (namesReplica(configuration, to) && replica.raft.firstIndex <= index + 1) return outgoing
    }
    return null
  }

  private outgoingOf(replica: number): readonly Outgoing[] {
    return this.outgoing.get(replica) ?? []
  }

  /** The host checkpoints these soon, whatever their memtables hold. */
  wantsCheckpoint(replica: Replica): boolean {
    return this.wanted.size > 0 && this.wanted.has(replica) && !this.taking.has(replica.id)
  }

  /** The host finished a checkpoint. */
  checkpointed(replica: Replica): void {
    const receivers = this.wanted.get(replica)
    if (receivers === undefined) return
    // Whom the configuration does not name any more needs no snapshot.
    for (const to of receivers)
      if (!replica.configuration.members.some(each => each.replica === to)) receivers.delete(to)
    if (receivers.size === 0) this.wanted.delete(replica)
    else this.takeIfCheckpointed(replica)
  }

  private takeIfCheckpointed(replica: Replica): void {
    const meta = replica.state.checkpointed
    const receivers = this.wanted.get(replica)
    if (meta === null || receivers === undefined || this.taking.has(replica.id)) return
    if (![...receivers].some(to => namesReplica(meta.configuration, to))) return
    if (replica.raft.firstIndex > meta.index + 1) return
    this.wanted.delete(replica)
    const beganMs = this.options.clock.now()
    const pin: Pin = { index: meta.index, sinceMs: beganMs, usedAtMs: beganMs, isLifted: false }
    this.taking.set(replica.id, pin)
    replica.state.takeSnapshot().then(
      snapshot =>
        this.complete(() => {
          this.taking.delete(replica.id)
          if (this.isGone(replica)) {
            snapshot.release()
            return
          }
          if (replica.raft.firstIndex > snapshot.manifest.index + 1) {
            // The log went on without it: whom it was for must not wait for ever.
            snapshot.release()
            for (const to of receivers) this.offer(replica, to)
            this.options.touch(replica)
            return
          }
          const now = this.options.clock.now()
          const outgoing = { snapshot, pin, usedAtMs: now, madeAtMs: now, receivers: new Set<number>() }
          this.outgoing.set(replica.id, [...this.outgoingOf(replica.id), outgoing])
          this.counters.sent++
          for (const to of receivers) replica.raft.retry(to)
          this.options.touch(replica)
        }),
      (error: Error) =>
        this.complete(() => {
          this.taking.delete(replica.id)
          this.options.log.warn('snapshot failed', {
            group: replica.group,
            replica: replica.id,
            error: error.message,
          })
        }),
    )
  }

  private isGone(replica: Replica): boolean {
    return this.gone.has(replica)
  }

  /** Bytes of a copy that this node holds. */
  read(id: string, part: string, position: number, length: number): Bytes {
    for (const each of this.outgoing.values()) {
      const outgoing = each.find(({ snapshot }) => snapshot.manifest.id === id)
      if (outgoing === undefined) continue
      outgoing.usedAtMs = this.options.clock.now()
      // However slow the pull is, it gets on: the journal behind it is kept, up to `pinnedBytesMax`.
      outgoing.pin.usedAtMs = outgoing.usedAtMs
      const bytes = outgoing.snapshot.read(part, position, length)
      this.counters.bytesSent += bytes.byteLength
      return bytes
    }
    throw new RoundhouseError('NO_SUCH_TRANSFER', { id })
  }

  /** The index behind which the journal must keep the replica's entries, null when nothing is on its way. */
  pinnedIndex(replica: Replica): number | null {
    const indexes = this.pinsOf(replica.id)
      .filter(({ isLifted }) => !isLifted)
      .map(({ index }) => index)
    return indexes.length === 0 ? null : Math.min(...indexes)
  }

  private pinsOf(replica: number): Pin[] {
    const taking = this.taking.get(replica)
    return [...this.outgoingOf(replica).map(({ pin }) => pin), ...(taking === undefined ? [] : [taking])]
  }

  private liftPins(): void {
    const { clock, journal, log, nodeId, room } = this.options
    const now = clock.now()
    if (now < this.nextPinLookMs) return
    this.nextPinLookMs = now + pinLookMs
    for (const replica of new Set([...this.taking.keys(), ...this.outgoing.keys()])) {
      for (const pin of this.pinsOf(replica)) {
        if (pin.isLifted) continue
        const bytes = journal.bytesAfter(replica, pin.index)
        const isTooMuch = bytes > pinnedBytesMax || now - pin.usedAtMs > ageMsMax
        if (!isTooMuch && room?.isNearlyFull(nodeId) !== true) continue
        pin.isLifted = true
        log.warn('the journal behind a snapshot is kept no longer', {
          ...{ replica, index: pin.index, bytes, ms: Math.round(now - pin.sinceMs) },
        })
      }
    }
  }

  /** A receiver could not get what was offered: its leader probes it anew, and offers again. */
  failed(replica: Replica, receiver: number): void {
    replica.raft.reportSnapshot(receiver, false)
    replica.raft.retry(receiver)
    this.options.touch(replica)
  }

  tick(): void {
    this.liftPins()
    const now = this.options.clock.now()
    for (const [id, each] of this.outgoing) {
      const idle = each.filter(({ usedAtMs }) => now - usedAtMs >= idleMsMax)
      if (idle.length === 0) continue
      const replica = this.options.find(id)
      for (const outgoing of idle) {
        const { madeAtMs, receivers, snapshot } = outgoing
        // Raft still waits for a receiver: the offer or its answer was lost, or it installs for long. It is offered the
        // copy again (a receiver that has it already ignores that), and so the copy lives on.
        const waiting = [...receivers].filter(to => replica?.raft.progressOf(to)?.state === 'snapshot')
        if (replica !== undefined && waiting.length > 0 && now - madeAtMs < ageMsMax) {
          outgoing.usedAtMs = now
          for (const to of waiting) this.failed(replica, to)
          continue
        }
        snapshot.release()
        const left = this.outgoingOf(id).filter(other => other !== outgoing)
        if (left.length === 0) this.outgoing.delete(id)
        else this.outgoing.set(id, left)
      }
    }
  }

  forget(replica: Replica): void {
    const { id } = replica
    this.gone.add(replica)
    for (const { snapshot } of this.outgoingOf(id)) snapshot.release()
    this.outgoing.delete(id)
    this.wanted.delete(replica)
    const incoming = this.incoming.get(id)
    if (incoming !== undefined) {
      incoming.isCancelled = true
      this.incoming.delete(id)
    }
  }

  // --- Receiver -----------------------------------------------------------------------------------------------------

  /** MsgSnap arrived. It is stepped when all that it names is here and synced; a second one meanwhile is dropped. */
  receive(replica: Replica, message: Message): void {
    const { snapshot } = message
    if (snapshot === null || snapshot === undefined) return
    const running = this.incoming.get(replica.id)
    if (running !== undefined) {
      // Raft would not take the first any more, and whoever offered it may be gone: a later leader's comes instead.
      if (message.term <= running.message.term) return
      this.drop(replica, running)
    }
    if (this.incoming.size >= incomingMax || snapshot.meta.index <= replica.appliedIndex) {
      // Too many at once: the sender asks again. Too old: Raft answers with what this replica has.
      if (snapshot.meta.index <= replica.appliedIndex) replica.step(message)
      return
    }
    const offer = parseOffer(snapshot.data)
    if (offer === null) {
      this.options.log.warn('malformed snapshot offer', { group: replica.group, from: message.from })
      return
    }
    const manifest = { ...offer.manifest, configuration: fromUtf8(offer.manifest.configuration) }
    const staged = this.stage(replica, manifest)
    if (staged === null) return
    const incoming: Incoming = { staged, message, isCancelled: false }
    this.incoming.set(replica.id, incoming)
    this.options.log.debug('snapshot pull', {
      group: replica.group,
      replica: replica.id,
      index: manifest.index,
    })
    void this.pull(replica, offer.node, incoming)
  }

  /** null: no room for it now, or a manifest that nobody here would write. The sender offers it again. */
  private stage(replica: Replica, manifest: SnapshotManifest): StagedSnapshot | null {
    try {
      return replica.state.stage(manifest)
    } catch (error) {
      const why = (error as Error).message
      this.options.log.warn('snapshot not taken', { group: replica.group, replica: replica.id, why })
      return null
    }
  }

  private async pull(replica: Replica, node: string, incoming: Incoming): Promise<void> {
    try {
      await this.pullParts(replica, node, incoming)
      if (incoming.isCancelled) return
      await incoming.staged.verify()
      this.complete(() => {
        if (incoming.isCancelled) return
        this.counters.received++
        replica.step(incoming.message)
        this.options.touch(replica)
        // Raft had no use for it (a newer leader, a longer log): then no install comes.
        if (!replica.raft.hasPendingSnapshot) this.drop(replica, incoming)
      })
    } catch (error) {
      this.complete(() => {
        const { message } = error as Error
        this.options.log.warn('snapshot pull failed', {
          group: replica.group,
          replica: replica.id,
          node,
          error: message,
        })
        if (incoming.isCancelled) return
        this.incoming.delete(replica.id)
        this.options.reportFailure(node, replica.group, replica.id)
      })
    }
  }

  private async pullParts(replica: Replica, node: string, incoming: Incoming): Promise<void> {
    const { staged } = incoming
    let failures = 0
    for (let next = staged.next(); next !== null && !incoming.isCancelled; next = staged.next()) {
      try {
        await this.pace.turn(next.length)
        if (incoming.isCancelled) return
        const askedMs = this.options.clock.now()
        const bytes = await this.options.fetch(node, {
          shard: replica.group,
          snapshot: staged.manifest.id,
          ...next,
        })
        if (incoming.isCancelled) return
        staged.write(next.part, next.position, bytes)
        this.counters.bytesReceived += bytes.byteLength
        this.pace.note(Math.max(this.options.clock.now() - askedMs, this.options.syncMs()))
        failures = 0
      } catch (error) {
        if (++failures >= fetchAttemptsMax || isGoneAtSender(error)) throw error
        await new Promise<void>(resolve => this.options.clock.after(fetchPauseMs, resolve))
      }
    }
  }

  /** Makes the staged rows the replica's. `done` runs in the loop. */
  install(replica: Replica, snapshot: RaftSnapshot, done: (error: Error | null) => void): void {
    const incoming = this.incoming.get(replica.id)
    if (incoming === undefined || incoming.staged.manifest.index !== snapshot.meta.index) {
      done(
        new RoundhouseError('CORRUPT', {
          where: `replica ${replica.id}`,
          what: 'a snapshot to install was never staged',
        }),
      )
      return
    }
    incoming.staged.install().then(
      () =>
        this.complete(() => {
          this.incoming.delete(replica.id)
          done(null)
        }),
      (error: Error) => this.complete(() => done(error)),
    )
  }

  private drop(replica: Replica, incoming: Incoming): void {
    incoming.isCancelled = true
    this.incoming.delete(replica.id)
    incoming.staged.discard()
  }
}

function isGoneAtSender(error: unknown): boolean {
  return (isError(error) || error instanceof RemoteError) && error.code === 'NO_SUCH_TRANSFER'
}

function namesReplica(configuration: Bytes, replica: number): boolean {
  return decodeConfiguration(configuration).members.some(member => member.replica === replica)
}

function parseOffer(data: Bytes): Offer | null {
  try {
    const offer = JSON.parse(toUtf8(data)) as Offer
    const { manifest } = offer
    const fits =
      typeof offer.node === 'string' &&
      /^[0-9a-f]{8,64}$/.test(manifest.id) &&
      Number.isSafeInteger(manifest.index) &&
      Number.isSafeInteger(manifest.term) &&
      typeof manifest.configuration === 'string' &&
      manifest.parts.every(
        part =>
          /^[a-z0-9.-]{1,64}$/.test(part.name) &&
          Number.isSafeInteger(part.bytes) &&
          part.bytes >= 0 &&
          Number.isSafeInteger(part.crc),
      )
    return fits ? offer : null
  } catch {
    return null
  }
}
