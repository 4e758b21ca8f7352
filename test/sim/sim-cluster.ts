import xxhash from 'xxhash-wasm'
import type { Logger } from '../../src/lib/logger.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { Node, type NodeOptions } from '../../src/node/node.ts'
import type { Identity } from '../../src/node/ports.ts'
import { defaultRaftSettings } from '../../src/shard/replica.ts'
import { Journal } from '../../src/storage/journal.ts'
import { MemoryStateStore, StatePlatter } from '../../src/storage/memory-state.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { type Endpoint, SimNetwork } from './network.ts'
import { ProcessClock, World } from './world.ts'

const { h64 } = await xxhash()

export interface SimSettings {
  readonly shardCount: number
  readonly replicationFactor: number
  readonly journalSegmentBytes: number
  readonly journalBudgetBytes: number
  /** 0: never. */
  readonly nodeDownAfterMs: number
}

export const defaultSimSettings: SimSettings = {
  shardCount: 4,
  replicationFactor: 3,
  journalSegmentBytes: 256 * 1024,
  journalBudgetBytes: 2 * 1024 * 1024,
  nodeDownAfterMs: 0,
}

/** What a start is told, of what a node takes. */
export type StartOptions = Partial<Pick<NodeOptions, 'isBootstrap' | 'seeds' | 'discoverSeeds' | 'expected'>>

/** One machine: what survives a crash (disk, platter, identity), and the process that runs on it, if one does. */
export class SimMachine {
  readonly nodeId: string
  readonly address: string
  readonly disk: SimDisk
  readonly endpoint: Endpoint
  node: Node | null = null
  clock: ProcessClock
  /** Set when a life ended by itself. */
  ended: string | null = null
  private readonly cluster: SimCluster
  private readonly platter = new StatePlatter()
  private state: MemoryStateStore | null = null
  private readonly storeId: string
  private clusterId: string | null = null
  private startCount = 0
  wallOffsetMs = 0

  constructor(cluster: SimCluster, nodeId: string) {
    const { world, network } = cluster
    this.cluster = cluster
    this.nodeId = nodeId
    this.address = `${nodeId}:1`
    this.storeId = `store-${nodeId}`
    this.clock = new ProcessClock(world)
    this.disk = new SimDisk({ schedule: run => this.clock.soon(0.1 + world.random.next(), run) })
    const machine = this
    this.endpoint = {
      address: this.address,
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

  /** Starts the process. The promise of the start is the caller's to watch; it may never settle. */
  start(options: StartOptions = {}): Promise<void> {
    const { world, network, settings } = this.cluster
    this.clock = new ProcessClock(world)
    this.clock.wallOffsetMs = this.wallOffsetMs
    const { clock } = this
    const random = world.random.fork()
    const { journal, recovered } = Journal.open({
      disk: this.disk,
      directory: 'journal',
      clock,
      random: random.fork(),
      segmentBytes: settings.journalSegmentBytes,
      budgetBytes: settings.journalBudgetBytes,
    })
    this.state = new MemoryStateStore({
      platter: this.platter,
      schedule: run => clock.soon(0.5 + 2 * world.random.next(), run),
      random: random.fork(),
    })
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
      raft: defaultRaftSettings,
      tickMs: 50,
      heartbeatIntervalMs: 1000,
      gossipPeerCount: 2,
      cleanupIntervalMs: 1000,
      messageTimeoutMs: 5000,
      rebalanceMovesMax: 24,
      nodeDownAfterMs: settings.nodeDownAfterMs,
      rebalanceBytesPerSecond: 64 * 1024 * 1024,
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
    void node.ended.then(end => {
      if (this.node !== node) return
      this.ended = end.kind === 'left' ? 'left' : end.error.message
      this.stopProcess()
    })
    const started = node.start()
    // A refused start is the caller's to look at; a fault of the program is everybody's.
    started.catch((error: Error) => {
      if (error.name !== 'RoundhouseError') this.cluster.violations.push(`${this.nodeId}: ${error.stack}`)
    })
    return started
  }

  /** kill -9 and the loss of power at once: what was not synced may be lost, kept, torn or garbled. */
  crash(): void {
    if (this.node === null) return
    this.stopProcess()
    this.disk.crash(this.cluster.world.random.fork())
    this.state?.crash()
  }

  private stopProcess(): void {
    this.clock.isAlive = false
    this.node = null
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
  private readonly logs: ((node: string) => Logger) | null

  constructor(
    seed: number,
    settings: Partial<SimSettings> = {},
    logs: ((node: string) => Logger) | null = null,
  ) {
    this.world = new World(seed)
    this.network = new SimNetwork(this.world)
    this.settings = { ...defaultSimSettings, ...settings }
    this.logs = logs
  }

  logOf(node: string): Logger {
    return this.logs?.(node) ?? silentLogger
  }

  add(): SimMachine {
    const machine = new SimMachine(this, `node${this.machines.length + 1}`)
    this.machines.push(machine)
    return machine
  }

  /** Starts `count` nodes, the first founding the cluster, and runs until all shards have their voters and leaders. */
  async boot(count: number): Promise<boolean> {
    for (let i = 0; i < count; i++) {
      const machine = this.add()
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
    for (const { nodeId, node } of this.machines) {
      if (node === null) continue
      for (const replica of node.host.all()) {
        if (replica.halted !== null || replica.isInstalling) continue
        const place = `group ${replica.group} at ${replica.appliedIndex}`
        const rows = [...replica.state.range('', '\u00ff'.repeat(8))]
        const text = rows.map(([key, value]) => `${key}=${Buffer.from(value).toString('latin1')}`).join('\n')
        const other = seen.get(place)
        if (other === undefined) seen.set(place, { text, by: nodeId })
        else if (other.text !== text)
          this.violations.push(`${place}: ${nodeId} and ${other.by} hold different rows`)
      }
    }
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
