import xxhash from 'xxhash-wasm'
import { type Release, thisRelease } from '../../src/commands/release.ts'
import { systemRows } from '../../src/keyspace/rows.ts'
import { assert } from '../../src/lib/assert.ts'
import type { Logger } from '../../src/lib/logger.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { Node, type NodeOptions } from '../../src/node/node.ts'
import type { Identity } from '../../src/node/ports.ts'
import type { HostLimits, HostOptions } from '../../src/shard/host.ts'
import {
  defaultRaftSettings,
  nodeUncommittedBytesMax,
  type RaftLimits,
  type RaftSettings,
  type Replica,
} from '../../src/shard/replica.ts'
import { Journal, type OpenedJournal } from '../../src/storage/journal.ts'
import { MemoryStateStore } from '../../src/storage/memory-state.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { Invariants } from './invariants.ts'
import { type Endpoint, SimNetwork } from './network.ts'
import { teachNextVersion } from './releases.ts'
import { RottablePlatter } from './rotten-rows.ts'
import { Sightings, type Sometimes } from './sometimes.ts'
import { watchJournal, watchStates } from './watched.ts'
import { type ClockFaults, goodClock, ProcessClock, World } from './world.ts'

const { h64 } = await xxhash()

export interface SimSettings {
  readonly shardCount: number
  readonly replicationFactor: number
  readonly journalSegmentBytes: number
  readonly journalBudgetBytes: number
  /** Entries that the journal keeps in memory; what is older is read from the disk. */
  readonly journalCacheBytes: number
  /** 0: never. */
  readonly nodeDownAfterMs: number
  /** 0: never. */
  readonly verifyIntervalMs: number
  readonly raftLimits: RaftLimits
  /** Shorter timeouts: more elections in as much simulated time. */
  readonly raftTicks: Pick<RaftSettings, 'electionTicks' | 'heartbeatTicks'>
  readonly hostLimits: Partial<HostLimits>
  /** All groups of a node together. */
  readonly uncommittedBytesMax: number
  readonly snapshotPartBytes: number
  readonly streamSegmentBytes: number
  readonly rebalanceBytesPerSecond: number
  /** Whether the invariants are looked at after each event. */
  readonly isWatched: boolean
}

export const defaultSimSettings: SimSettings = {
  shardCount: 4,
  replicationFactor: 3,
  journalSegmentBytes: 256 * 1024,
  journalBudgetBytes: 2 * 1024 * 1024,
  journalCacheBytes: 64 * 1024 * 1024,
  nodeDownAfterMs: 0,
  verifyIntervalMs: 0,
  raftLimits: {},
  raftTicks: defaultRaftSettings,
  hostLimits: {},
  uncommittedBytesMax: nodeUncommittedBytesMax,
  snapshotPartBytes: 64 * 1024 * 1024,
  streamSegmentBytes: 4096,
  rebalanceBytesPerSecond: 64 * 1024 * 1024,
  isWatched: false,
}

/** What a start is told, of what a node takes. */
export type StartOptions = Partial<Pick<NodeOptions, 'isBootstrap' | 'seeds' | 'discoverSeeds' | 'expected'>>

/** One machine: what survives a crash (disk, platter, identity), and the process that runs on it, if one does. */
export class SimMachine {
  readonly nodeId: string
  private place: string
  disk: SimDisk
  readonly endpoint: Endpoint
  /** When the journal was last handed something, and when the process ended. */
  wroteAtMs = 0
  stoppedAtMs = 0
  /** Its disk has lost or changed what it had confirmed. */
  isDamaged = false
  node: Node | null = null
  clock: ProcessClock
  /** Set when a life ended by itself. */
  ended: string | null = null
  private readonly cluster: SimCluster
  private platter = new RottablePlatter()
  /** What its processes run from the next start on. */
  release: Release = thisRelease
  /** The highest feature level that a process on it supported. */
  levelShown = 0
  /** Its release does not know the envelopes that others write (releases.ts). */
  lacksNextVersion = false
  /** Entries may reach it that its release does not understand: it lags behind others that do not heed levels, or was set back. */
  mayMisread = false
  private state: MemoryStateStore | null = null
  private journal: Journal | null = null
  private storeId: string
  private clusterId: string | null = null
  private startCount = 0
  wallOffsetMs = 0
  wasStepped = false
  /** When something was last kept in its journal for somebody who gets a snapshot. */
  pinnedAtMs = 0
  /** Of the clock of each process to come. */
  readonly clockFaults: ClockFaults = { ...goodClock }
  /** How long the disk takes to sync, ms: at least, and the mean of what comes on top. */
  readonly diskDelay = { minMs: 0.1, meanMs: 0.5 }

  constructor(cluster: SimCluster, nodeId: string) {
    const { world, network } = cluster
    this.cluster = cluster
    this.nodeId = nodeId
    this.place = `${nodeId}:1`
    this.storeId = `store-${nodeId}`
    this.clock = new ProcessClock(world)
    this.disk = this.newDisk()
    const machine = this
    this.endpoint = {
      get address() {
        return machine.place
      },
      identity: (): Identity => ({ clusterId: machine.clusterId ?? '', nodeId, storeId: machine.storeId }),
      get service() {
        return machine.node
      },
      get isPaused() {
        return machine.clock.isPaused
      },
      soon: (ms, run) => this.clock.soon(ms, run),
    }
    network.attach(this.endpoint)
  }

  private newDisk(): SimDisk {
    const { world } = this.cluster
    const delay = () => this.diskDelay.minMs + this.diskDelay.meanMs * 2 * world.random.next()
    return new SimDisk({ schedule: run => this.clock.soon(delay(), run) })
  }

  /** Starts the process. The promise of the start is the caller's to watch; it may never settle. */
  start(options: StartOptions = {}): Promise<void> {
    const { world, network, settings } = this.cluster
    this.clock = new ProcessClock(world, { ...this.clockFaults }, this)
    this.clock.wallOffsetMs = this.wallOffsetMs
    const { clock } = this
    const random = world.random.fork()
    const { invariants } = this.cluster
    let opened: OpenedJournal
    try {
      opened = Journal.open({
        disk: this.disk,
        directory: 'journal',
        clock,
        random: random.fork(),
        segmentBytes: settings.journalSegmentBytes,
        budgetBytes: settings.journalBudgetBytes,
        cacheBytes: settings.journalCacheBytes,
      })
    } catch (error) {
      this.clock.isAlive = false
      this.ended = (error as Error).message
      if (!isFromTheDisk(error)) this.cluster.violations.push(`${this.nodeId}: ${(error as Error).stack}`)
      return Promise.reject(error)
    }
    const { journal, recovered } = opened
    this.journal = journal
    invariants?.recovered(this.nodeId, opened)
    this.state = new MemoryStateStore({
      platter: this.platter.platter,
      schedule: run => clock.soon(0.5 + 2 * world.random.next(), run),
      random: random.fork(),
      snapshotPartBytes: settings.snapshotPartBytes,
      recordHome: {
        ...{ disk: this.disk, map: heapMapper(this.disk), random: random.fork(), warm: new WarmSegments(4) },
        segmentBytesMax: settings.streamSegmentBytes,
      },
    })
    if (invariants !== null) {
      const { nodeId } = this
      let copied = 0
      const lookForCopies = () => {
        if (invariants.onCopied === null) return
        const { bytesCopied } = journal.stats()
        if (bytesCopied > copied) invariants.onCopied(nodeId)
        copied = bytesCopied
      }
      watchJournal(journal, {
        writing: batch => {
          this.wroteAtMs = world.nowMs
          invariants.writing(nodeId, batch)
        },
        written: batch => {
          invariants.written(batch)
          lookForCopies()
        },
        removing: replica => invariants.removing(replica),
        removed: replica => invariants.removed(replica),
      })
      const { platter } = this
      watchStates(
        this.state,
        read => platter.look(read),
        (key, value) => invariants.bounds.lookAtRow(key, value),
      )
    }
    const peers = network.peersOf(this.endpoint, node => this.node?.addressOf(node) ?? null)
    const node = new Node({
      nodeId: this.nodeId,
      storeId: this.storeId,
      clusterId: this.clusterId,
      startCount: ++this.startCount,
      peerAddress: this.address,
      clientAddress: this.address,
      zone: '',
      seeds: options.seeds ?? [],
      isBootstrap: options.isBootstrap ?? false,
      ...(options.discoverSeeds === undefined ? {} : { discoverSeeds: options.discoverSeeds }),
      ...(options.expected === undefined ? {} : { expected: options.expected }),
      cluster: {
        shardCount: settings.shardCount,
        replicationFactor: settings.replicationFactor,
        vNodeCount: 32,
      },
      raft: { ...settings.raftTicks, limits: settings.raftLimits },
      hostLimits: settings.hostLimits,
      tickMs: 50,
      heartbeatIntervalMs: 1000,
      gossipPeerCount: 2,
      cleanupIntervalMs: 1000,
      messageTimeoutMs: 5000,
      rebalanceMovesMax: 24,
      nodeDownAfterMs: settings.nodeDownAfterMs,
      verifyIntervalMs: settings.verifyIntervalMs,
      rebalanceBytesPerSecond: settings.rebalanceBytesPerSecond,
      release: this.release,
      journal,
      recovered,
      state: this.state,
      peers,
      clock,
      random: random.fork(),
      hash64: text => h64(text),
      log: this.cluster.logOf(this.nodeId),
      schedule: run => clock.soon(0, run),
      setClusterId: id => {
        this.clusterId = id
      },
      storedBytes: () => 0,
      processStats: () => ({}),
    })
    this.node = node
    this.ended = null
    this.levelShown = Math.max(this.levelShown, this.release.level)
    const { options: ofHost } = node.host as unknown as { options: HostOptions }
    Object.assign(ofHost, {
      uncommittedBytesMax: settings.uncommittedBytesMax,
    } satisfies Partial<HostOptions>)
    const { cluster } = this
    if (cluster.knowsNextVersion && !this.lacksNextVersion)
      teachNextVersion(node, random.fork(), () => cluster.writesNextVersion)
    if (this.cluster.invariants !== null) this.scrubLater(clock)
    void node.ended.then(end => {
      if (this.node !== node) return
      this.end(end.kind === 'left' ? 'left' : end.error.message)
    })
    const started = node.start()
    // A refused start is the caller's to look at; a fault of the program is everybody's.
    started.catch((error: Error) => {
      if (error.name !== 'RoundhouseError' && error.name !== 'RemoteError')
        this.cluster.violations.push(`${this.nodeId}: ${error.stack}`)
    })
    return started
  }

  /** kill -9 and the loss of power at once: what was not synced may be lost, kept, torn or garbled. */
  crash(): void {
    if (this.node === null) return
    this.cluster.invariants?.crashed(this.nodeId)
    this.stopProcess()
    this.powerCycle()
  }

  get address(): string {
    return this.place
  }

  /** While no process runs: the next one is reached there, and nobody where it was. */
  moveTo(address: string): void {
    assert(this.node === null, `${this.nodeId}: a process runs`)
    this.cluster.network.detach(this.endpoint)
    this.place = address
    this.cluster.network.attach(this.endpoint)
  }

  /** Power off and on while no process runs. */
  powerCycle(): void {
    assert(this.node === null, `${this.nodeId}: a process runs`)
    this.disk.crash(this.cluster.world.random.fork())
    this.state?.crash()
    this.state = null
  }

  /** Ends the process as SIGTERM does; what the disk has not synced stays in its cache. */
  async stop(): Promise<void> {
    const { node, journal, state } = this
    if (node === null || journal === null || state === null) return
    await node.stop()
    if (this.node !== node) return
    await new Promise<void>(resolve => journal.close(() => resolve()))
    await state.close()
    if (this.node === node) this.stopProcess()
  }

  /** The process ended by itself, for this reason. */
  end(why: string): void {
    this.ended = why
    this.stopProcess()
  }

  /** The process is gone, and with it everything on the disk: the machine comes back with an empty one. */
  wipe(): void {
    this.crash()
    this.disk = this.newDisk()
    this.platter = new RottablePlatter()
    this.storeId = `store-${this.nodeId}-${this.cluster.world.random.uint32()}`
    this.clusterId = null
    this.startCount = 0
    this.ended = null
    this.cluster.invariants?.lost(this.nodeId)
  }

  // --- Rows that rot ----------------------------------------------------------------------------------------------------

  /** The replica of which a row can't be read any more; null where none has rows. */
  rotRow(): number | null {
    return this.platter.rot(this.cluster.world.random)
  }

  /** Of this replica only the row is left that every start reads. */
  rotRows(replica: number): void {
    this.isDamaged = true
    this.platter.rotAll(replica, key => key === systemRows.clock)
  }

  /** Reads all rows, as the scrub beside a node does, and condemns the replicas whose rows are broken. */
  scrub(): void {
    const { node } = this
    if (node === null) return
    for (const replica of this.platter.broken()) {
      if (node.host.replica(replica)?.halted !== null) continue
      this.cluster.sightings.see('rowRotScrubbed')
      node.host.condemn(replica, 'the scrub found broken rows')
    }
  }

  private scrubLater(clock: ProcessClock): void {
    clock.soon(scrubMs, () => {
      this.scrub()
      this.scrubLater(clock)
    })
  }

  /** Runs what reads rows for the simulator's own sake. */
  look<Seen>(run: () => Seen): Seen {
    return this.platter.look(run)
  }

  /** Steps the wall clock, of this process and of those to come. */
  setWall(offsetMs: number): void {
    if (offsetMs !== 0) this.wasStepped = true
    this.wallOffsetMs = offsetMs
    this.clock.wallOffsetMs = offsetMs
  }

  /** Its disk takes what it is given, its process runs, and its journal does not call for other replicas' checkpoints first. */
  get isWell(): boolean {
    const { disk, clock } = this
    const { stalled } = disk as unknown as { readonly stalled: unknown }
    return (
      stalled === null &&
      disk.fault === null &&
      !Number.isFinite(disk.capacityBytes) &&
      !clock.isPaused &&
      this.journal?.pinnedBy().length === 0
    )
  }

  /** Bytes that the journal has in use, of its budget; null while no process runs. */
  journalStats(): ReturnType<Journal['stats']> | null {
    return this.node === null || this.journal === null ? null : this.journal.stats()
  }

  private stopProcess(): void {
    this.clock.isAlive = false
    this.node = null
    this.stoppedAtMs = this.cluster.world.nowMs
  }
}

/** Nodes of a simulated cluster with all that is between them. */
export class SimCluster {
  readonly world: World
  readonly network: SimNetwork
  readonly settings: SimSettings
  readonly machines: SimMachine[] = []
  /** Found by the cluster's own checks. */
  readonly violations: string[] = []
  readonly sightings = new Sightings()
  readonly invariants: Invariants | null
  private readonly logs: ((node: string) => Logger) | null
  /** All but some machines read envelopes of another version, and write them. */
  knowsNextVersion = false
  writesNextVersion = false
  /** The highest feature level that any node has seen. */
  level = 0

  constructor(
    seed: number,
    settings: Partial<SimSettings> = {},
    logs: ((node: string) => Logger) | null = null,
  ) {
    this.world = new World(seed)
    this.network = new SimNetwork(this.world)
    this.settings = { ...defaultSimSettings, ...settings }
    this.logs = logs
    this.invariants = this.settings.isWatched
      ? new Invariants(
          this.sightings,
          () => this.world.nowMs,
          node =>
            this.machines.some(each => each.nodeId === node && each.node === null && each.ended !== 'left'),
          node => this.machines.some(each => each.nodeId === node && each.isDamaged),
          () => this.latestWallMs(),
          node => this.machines.some(each => each.nodeId === node && each.mayMisread),
        )
      : null
    const { invariants } = this
    if (invariants === null) return
    this.network.onSend = (from, messages) =>
      invariants.sent(this.machines.find(machine => machine.address === from)?.node ?? null, messages)
    this.world.onCrash = (owner, error) => {
      if (!(owner instanceof SimMachine)) throw error
      if (!isFromTheDisk(error)) this.violations.push(`${owner.nodeId}: ${error.stack}`)
      else this.sightings.see('diskFailed')
      if (owner.node !== null) owner.end(`uncaught: ${error.message}`)
    }
    this.world.onEvent = () => {
      const machine = this.world.current
      if (!(machine instanceof SimMachine) || machine.node === null) return
      invariants.look(machine.node)
      this.lookAtLevel(machine.node)
    }
  }

  /** It rises when every member supports more: whatever is written from then on, all of them can read. */
  private lookAtLevel({ nodeId, controller: { register } }: Node): void {
    if (register === null || register.level <= this.level) return
    const { level } = register
    if (this.level > 0) this.sightings.see('levelRaised')
    this.level = level
    for (const { nodeId: member, state } of register.nodes) {
      const machine = this.machines.find(each => each.nodeId === member)
      if (state !== 'left' && (machine?.levelShown ?? 0) < level)
        this.violations.push(`${nodeId} knows of feature level ${level}, and ${member} never supported it`)
    }
  }

  /** The lowest feature level that a running node knows of. */
  get levelEverywhere(): number {
    return Math.min(
      ...this.machines.flatMap(({ node }) => (node === null ? [] : [node.controller.register?.level ?? 0])),
    )
  }

  /** The latest time that a clock shows which nobody stepped; NaN while more than one was ever stepped. */
  private latestWallMs(): number {
    if (this.machines.filter(each => each.wasStepped).length > 1) return Number.NaN
    return Math.max(...this.machines.map(({ clock }) => clock.wall() - clock.wallOffsetMs))
  }

  logOf(node: string): Logger {
    const logger = this.logs?.(node) ?? silentLogger
    if (this.invariants === null) return logger
    const see = (message: string) => {
      const name = sightingsByLine.get(message)
      if (name !== undefined) this.sightings.see(name)
    }
    return {
      ...logger,
      info: (message, fields) => {
        see(message)
        logger.info(message, fields)
      },
      warn: (message, fields) => {
        see(message)
        logger.warn(message, fields)
      },
    }
  }

  add(): SimMachine {
    const machine = new SimMachine(this, `node${this.machines.length + 1}`)
    this.machines.push(machine)
    return machine
  }

  /** Starts `count` nodes, the first founding the cluster, and runs until all shards have their voters and leaders. */
  async boot(
    count: number,
    beforeStart: (machine: SimMachine, i: number) => void = () => {},
  ): Promise<boolean> {
    for (let i = 0; i < count; i++) {
      const machine = this.add()
      beforeStart(machine, i)
      void machine
        .start(i === 0 ? { isBootstrap: true } : { seeds: [this.machines[0]!.address] })
        .catch(() => {})
    }
    return this.world.run(this.world.nowMs + 120_000, () => this.isSettled(count))
  }

  /** For a failure's text: who leads, who votes, what is open. */
  describe(): unknown {
    return this.machines.map(({ nodeId, node, ended }) => {
      if (node === null) return { nodeId, ended }
      const status = node.status()
      const shards = status.shards.map(({ shardId, leader, term, voters, learners, applied }) =>
        [shardId, leader, term, voters.join(), learners.join(), applied].join(' '),
      )
      const nodes = status.nodes.map(each => `${each.nodeId} ${each.state}`)
      const halted = [...node.host.all()]
        .filter(each => each.halted !== null)
        .map(each => `${each.group}: ${each.halted}`)
      const leads = [...node.host.all()]
        .filter(each => each.isLeader)
        .map(({ group, raft, configuration, configuration: { confState } }) => ({
          group,
          lastIndex: raft.lastIndex,
          confState,
          operation: configuration.operation,
          open: node.controller.register?.shards.get(group)?.operation,
          progress: [...raft.status().progress].map(([id, { state, match, next, isRecentlyActive }]) =>
            [id, state, match, next, isRecentlyActive].join(' '),
          ),
        }))
      return { nodeId, nodes, shards, leads, meta: status.meta, rebalance: status.rebalance, halted }
    })
  }

  /** Replicas of a group with the same applied index must hold the same rows (state machine safety, Raft figure 3). */
  compareReplicas(): void {
    const seen = new Map<string, { readonly text: string; readonly by: string }>()
    for (const machine of this.machines) {
      const { nodeId, node } = machine
      if (node === null) continue
      for (const replica of node.host.all()) {
        if (replica.halted !== null || replica.isInstalling) continue
        const place = `group ${replica.group} at ${replica.appliedIndex}`
        const rows = machine.look(() => [...replica.state.range('', '\u00ff'.repeat(8))])
        const text = rows.map(([key, value]) => `${key}=${Buffer.from(value).toString('latin1')}`).join('\n')
        const other = seen.get(place)
        if (other === undefined) seen.set(place, { text, by: nodeId })
        else if (other.text !== text)
          this.violations.push(`${place}: ${nodeId} and ${other.by} hold different rows`)
      }
    }
  }

  /** What must be bounded is, and states that are looked for now and then. */
  census(): void {
    const { invariants, sightings } = this
    if (invariants === null) return
    if (this.world.waiting > waitingMax)
      invariants.violated(`${this.world.waiting} events wait: something piles up`)
    for (const machine of this.machines) {
      const { node, nodeId } = machine
      if (node === null) continue
      const stats = machine.journalStats()
      const { journalSegmentBytes, journalBudgetBytes } = this.settings
      const { nowMs } = this.world
      // What a snapshot's receiver will need is kept beside the budget.
      if ([...node.host.all()].some(each => node.host.snapshotter.pinnedIndex(each) !== null))
        machine.pinnedAtMs = nowMs
      const isFree = nowMs - machine.pinnedAtMs > pinReleaseMs
      if (stats !== null && isFree && stats.usedBytes > 4 * journalBudgetBytes + 4 * journalSegmentBytes)
        invariants.violated(`${nodeId}: the journal takes ${stats.usedBytes} bytes`)
      if (stats !== null && stats.bytesCopied > 0) sightings.see('entriesCopied')
      if (stats !== null) {
        const heldBytes = (stats.segments + stats.freeSegments) * journalSegmentBytes
        if (stats.bytesWritten > heldBytes) sightings.see('segmentRecycled')
      }
      if (Number.isFinite(machine.disk.capacityBytes) && machine.disk.freeBytes() < 512)
        sightings.see('diskFull')
      if (node.host.counters.checkpoints > 0) sightings.see('checkpoint')
      if (Math.abs(machine.wallOffsetMs) > 5_000 && [...node.host.all()].some(each => each.isLeader))
        sightings.see('clockHandOver')
      for (const replica of node.host.all()) this.censusOf(replica)
      invariants.bounds.lookAtMemtables(node, machine.isWell)
    }
    if (this.network.counters.dropped > 0) sightings.see('queueFull')
  }

  private censusOf(replica: Replica): void {
    if (!replica.isLeader) return
    for (const [, { inflights }] of replica.raft.status().progress)
      if (inflights.isFull()) this.sightings.see('windowFull')
  }

  /** Every member alive, nothing to move, every shard with its voters and a leader that all agree on. */
  isSettled(members: number): boolean {
    const running = this.machines.filter(machine => machine.node !== null)
    const status = running[0]?.node?.status()
    if (status === undefined || status.shards.length === 0) return false
    const voters = Math.min(this.settings.replicationFactor, members)
    const voterCount = voters - ((voters + 1) % 2)
    return (
      status.nodes.length === members &&
      status.nodes.every(node => node.state === 'alive') &&
      status.rebalance.state === 'idle' &&
      status.shards.every(shard => shard.leader !== null && shard.voters.length === voterCount)
    )
  }
}

/** After a snapshot's pin went, so long until the journal has let go of what it held. */
const pinReleaseMs = 3_000
/** Between two scrubs of a node's rows. */
const scrubMs = 2_500

/** Events of a simulation that wait; a few hundred a node is usual, and each client's call leaves a timer. */
const waitingMax = 100_000

/** What a log says of a state that is not to be seen from outside. */
const sightingsByLine: ReadonlyMap<string, Sometimes> = new Map([
  ['snapshot pull failed', 'snapshotPullFailed'],
])

/** What a disk may say at any time, as against what the program must never do. */
function isFromTheDisk(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return error.name === 'RoundhouseError' || ('code' in error && error.name !== 'BrokenInvariant')
}
