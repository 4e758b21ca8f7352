import { RoundhouseError } from '../errors.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Message, Snapshot as RaftSnapshot } from '../raft/types.ts'
import { decodeConfiguration } from './configuration.ts'
import type { Snapshot, SnapshotManifest, StagedSnapshot } from './ports.ts'
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
  readonly onFatal: (error: Error) => void
}

/** What travels in MsgSnap. */
interface Offer {
  readonly node: string
  readonly manifest: Omit<SnapshotManifest, 'configuration'> & { readonly configuration: string }
}

interface Outgoing {
  readonly snapshot: Snapshot
  /** When somebody last asked for it or for a chunk of it, on the monotonic clock. */
  usedAtMs: number
  readonly receivers: Set<number>
}

interface Incoming {
  readonly staged: StagedSnapshot
  readonly message: Message
  isCancelled: boolean
}

/** A copy that nobody asked for this long is given up, and the follower is probed again. */
const idleMsMax = 15_000
/** Receiving at one time: each holds a chunk in memory. */
const incomingMax = 16
const fetchAttemptsMax = 5
const fetchPauseMs = 200

export class Snapshotter {
  private readonly options: SnapshotterOptions
  /** Hands work back to the loop. */
  private readonly complete: (work: () => void) => void
  private readonly outgoing = new Map<number, Outgoing>()
  /** Replicas for which a copy is wanted; the host checkpoints them. */
  private readonly wanted = new Map<number, Replica>()
  private readonly taking = new Set<number>()
  private readonly incoming = new Map<number, Incoming>()
  readonly counters = { sent: 0, received: 0, bytesSent: 0, bytesReceived: 0 }

  constructor(options: SnapshotterOptions, complete: (work: () => void) => void) {
    this.options = options
    this.complete = complete
  }

  // --- Sender -------------------------------------------------------------------------------------------------------

  /** Raft's question: a snapshot for that follower, or null and another question at the next heartbeat. */
  offer(replica: Replica, to: number): RaftSnapshot | null {
    const ready = this.outgoing.get(replica.id)
    if (ready !== undefined && this.isGoodFor(replica, ready, to)) {
      ready.receivers.add(to)
      ready.usedAtMs = this.options.clock.now()
      const { manifest } = ready.snapshot
      const configuration = toUtf8(manifest.configuration)
      const offer: Offer = { node: this.options.nodeId, manifest: { ...manifest, configuration } }
      const { confState } = decodeConfiguration(manifest.configuration)
      const meta = { index: manifest.index, term: manifest.term, confState }
      return { meta, data: fromUtf8(JSON.stringify(offer)) }
    }
    if (!this.taking.has(replica.id)) this.wanted.set(replica.id, replica)
    this.takeIfCheckpointed(replica, to)
    return null
  }

  /** It must name the receiver (Raft ignores one that does not), and the log must go on where it ends. */
  private isGoodFor(replica: Replica, { snapshot }: Outgoing, to: number): boolean {
    const { configuration, index } = snapshot.manifest
    return namesReplica(configuration, to) && replica.raft.firstIndex <= index + 1
  }

  /** The host checkpoints these soon, whatever their memtables hold. */
  wantsCheckpoint(replica: Replica): boolean {
    return this.wanted.has(replica.id)
  }

  private takeIfCheckpointed(replica: Replica, to: number): void {
    const meta = replica.state.checkpointed
    if (meta === null || this.taking.has(replica.id) || !namesReplica(meta.configuration, to)) return
    if (replica.raft.firstIndex > meta.index + 1) return
    this.wanted.delete(replica.id)
    this.taking.add(replica.id)
    replica.state.takeSnapshot().then(
      snapshot =>
        this.complete(() => {
          this.taking.delete(replica.id)
          this.outgoing.get(replica.id)?.snapshot.release()
          this.outgoing.set(replica.id, {
            snapshot,
            usedAtMs: this.options.clock.now(),
            receivers: new Set(),
          })
          this.counters.sent++
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

  /** Bytes of a copy that this node holds. */
  read(id: string, part: string, position: number, length: number): Bytes {
    for (const outgoing of this.outgoing.values()) {
      if (outgoing.snapshot.manifest.id !== id) continue
      outgoing.usedAtMs = this.options.clock.now()
      const bytes = outgoing.snapshot.read(part, position, length)
      this.counters.bytesSent += bytes.byteLength
      return bytes
    }
    throw new RoundhouseError('NO_SUCH_TRANSFER', { id })
  }

  /** The index behind which the journal must keep the replica's entries, null when nothing is on its way. */
  pinnedIndex(replica: Replica): number | null {
    return this.outgoing.get(replica.id)?.snapshot.manifest.index ?? null
  }

  tick(): void {
    const now = this.options.clock.now()
    for (const [id, outgoing] of this.outgoing) {
      if (now - outgoing.usedAtMs < idleMsMax) continue
      this.outgoing.delete(id)
      outgoing.snapshot.release()
      this.onIdle(id, outgoing.receivers)
    }
  }

  /** Set by the host: tells Raft that those followers are to be probed again. */
  onIdle: (replica: number, receivers: ReadonlySet<number>) => void = () => {}

  forget(id: number): void {
    this.outgoing.get(id)?.snapshot.release()
    this.outgoing.delete(id)
    this.wanted.delete(id)
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
    if (running !== undefined) return
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
    const incoming: Incoming = { staged: replica.state.stage(manifest), message, isCancelled: false }
    this.incoming.set(replica.id, incoming)
    this.options.log.debug('snapshot pull', {
      group: replica.group,
      replica: replica.id,
      index: manifest.index,
    })
    void this.pull(replica, offer.node, incoming)
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
        if (!incoming.isCancelled) this.incoming.delete(replica.id)
      })
    }
  }

  private async pullParts(replica: Replica, node: string, incoming: Incoming): Promise<void> {
    const { staged } = incoming
    let failures = 0
    for (let next = staged.next(); next !== null && !incoming.isCancelled; next = staged.next()) {
      try {
        const bytes = await this.options.fetch(node, {
          shard: replica.group,
          snapshot: staged.manifest.id,
          ...next,
        })
        staged.write(next.part, next.position, bytes)
        this.counters.bytesReceived += bytes.byteLength
        failures = 0
      } catch (error) {
        if (++failures >= fetchAttemptsMax) throw error
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
