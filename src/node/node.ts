import { type Release, thisRelease } from '../commands/release.ts'
import { isError, RoundhouseError } from '../errors.ts'
import { Detector, defaultSettings } from '../gossip/detector.ts'
import type { DiskState, Leadership, Load } from '../gossip/member.ts'
import type { Change } from '../gossip/view.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import { type Deferred, deferred } from '../lib/deferred.ts'
import type { Logger } from '../lib/logger.ts'
import type { Random } from '../lib/prng.ts'
import type { Hash64 } from '../ring/ring.ts'
import { Host, type HostLimits } from '../shard/host.ts'
import type { Journal, PeerMessage, ReplicaRecovery, StateStore } from '../shard/ports.ts'
import type { RaftSettings } from '../shard/replica.ts'
import { Controller, isPassing } from './controller.ts'
import { levelOfNode } from './feature-level.ts'
import { type ClusterAnswer, type JoinAnswer, Membership } from './membership.ts'
import { type JoinRequest, metaCommands } from './meta-commands.ts'
import {
  type ClusterSettings,
  expectedOf,
  metaGroup,
  type Register,
  type RegisteredNode,
  storeExpected,
} from './meta-register.ts'
import type {
  Call,
  CallResult,
  ClusterStatus,
  Greeting,
  Identity,
  NodeDisk,
  PeerService,
  Peers,
  RebalanceStatus,
  Service,
  Transfer,
  VerifyResult,
} from './ports.ts'
import { Router } from './router.ts'
import { ClusterView } from './status.ts'
import { Streams } from './streams.ts'
import { type DigestRequest, dueLookMs, Verifier } from './verifier.ts'
import { WallClocks } from './wall-clocks.ts'
import { Watches } from './watches.ts'

/**
 * One node: its replicas' host, its place in the cluster, its two sides (`Service` for wires, `PeerService` for peers).
 * It takes all that touches the world through its options, so that a simulation runs many of them in one process.
 */
export interface NodeOptions {
  readonly nodeId: string
  readonly storeId: string
  /** null in a directory that belongs to no cluster yet. */
  readonly clusterId: string | null
  /** Rises with every start of this directory: gossip's incarnation. */
  readonly startCount: number
  readonly peerAddress: string
  readonly clientAddress: string
  readonly zone: string
  /** Addresses of nodes to ask for a cluster. */
  readonly seeds: readonly string[]
  readonly isBootstrap: boolean
  /** The addresses behind a name that stands for the cluster's nodes, at this moment. Rejects when there is none. */
  readonly discoverSeeds?: () => Promise<readonly string[]>
  /** Of a cluster that this node would found; a joiner takes the cluster's. */
  readonly cluster: ClusterSettings
  /** Those of them that a person gave: in a cluster that has others the node does not start. */
  readonly expected?: Partial<ClusterSettings>
  readonly raft: RaftSettings
  readonly hostLimits?: Partial<HostLimits>
  readonly tickMs: number
  readonly heartbeatIntervalMs: number
  readonly gossipPeerCount: number
  readonly cleanupIntervalMs: number
  readonly messageTimeoutMs: number
  /** Operations open at one time. */
  readonly rebalanceMovesMax: number
  /** A node dead for longer is taken for lost: its replicas go to others. 0: never. */
  readonly nodeDownAfterMs: number
  /** Between two comparisons of a shard's replicas. 0: only when asked. */
  readonly verifyIntervalMs: number
  readonly rebalanceBytesPerSecond: number
  /** Absent: this one. A simulation mixes releases. */
  readonly release?: Release

  readonly journal: Journal
  readonly recovered: readonly ReplicaRecovery[]
  readonly state: StateStore
  readonly peers: Peers
  readonly clock: Clock
  readonly random: Random
  readonly hash64: Hash64
  readonly log: Logger
  readonly schedule: (run: () => void) => void
  /** Durably notes which cluster this directory belongs to. */
  readonly setClusterId: (clusterId: string) => void
  /** Absent: there is always room. */
  readonly disk?: NodeDisk
  /** Bytes that the state of all replicas takes on disk, about. */
  readonly storedBytes: () => number
  /** Figures of this process for Stats, e.g. CPU seconds. */
  readonly processStats: () => Readonly<Record<string, number>>
}

/** How a node's life ends by itself. */
export type NodeEnd = { readonly kind: 'left' } | { readonly kind: 'failed'; readonly error: Error }

const lookIntervalMs = 50
const askTimeoutMs = 3_000
/** The longest that a chunk of a snapshot waits because the journal is slow. */
const chunkPauseMsMax = 100
/** Of a clean stop: for handing over, and for that and the last checkpoints together. */
const handOverMsMax = 2_000
const stopMsMax = 3_500

export class Node implements Service, PeerService {
  readonly nodeId: string
  readonly host: Host
  readonly controller: Controller
  readonly router: Router
  readonly detector: Detector
  readonly streams: Streams
  readonly watches: Watches
  /** Settled when the node left the cluster or can't go on. */
  readonly ended: Promise<NodeEnd>
  private readonly options: NodeOptions
  private readonly end: Deferred<NodeEnd> = deferred<NodeEnd>()
  private readonly view: ClusterView
  private readonly membership: Membership
  private readonly verifier: Verifier
  private readonly timers = new Set<() => void>()
  private readonly wallClocks: WallClocks
  private readonly addresses = new Map<string, { readonly peer: string; readonly client: string }>()
  private isStopping = false
  private isReady = false

  constructor(options: NodeOptions) {
    this.options = options
    this.nodeId = options.nodeId
    this.ended = this.end.promise
    this.wallClocks = new WallClocks(options.nodeId, options.clock)
    const { clock, random, peers, log, nodeId } = options
    const { commands } = options.release ?? thisRelease
    const self = {
      nodeId,
      storeId: options.storeId,
      peerAddress: options.peerAddress,
      clientAddress: options.clientAddress,
      zone: options.zone,
      incarnation: options.startCount,
    }
    const gossip = defaultSettings(options.heartbeatIntervalMs, options.gossipPeerCount)
    this.detector = new Detector(self, gossip, random, clock.now())
    this.host = new Host({
      nodeId,
      journal: options.journal,
      state: options.state,
      outbox: peers,
      clock,
      random,
      log,
      raft: options.raft,
      ...(options.hostLimits === undefined ? {} : { limits: options.hostLimits }),
      schedule: options.schedule,
      tableOf: group => (group === metaGroup ? metaCommands : commands),
      medianWallMs: nodes => this.wallClocks.medianWallMs(nodes),
      fetch: (node, request) => this.fetch(node, request),
      fetchBytesPerSecond: options.rebalanceBytesPerSecond,
      reportFailure: (node, group, receiver) => this.reportFailure(node, group, receiver),
      room: {
        isFull: () => options.disk?.state === 'full',
        // By gossip, so a leader hears of it within a round or a few. Nothing depends on its hearing in time: what it sends
        // meanwhile finds the room between "nearly full" and "full", and a full node just takes in nothing.
        isNearlyFull: node => this.isDiskFull(node),
        isOfUsers: group => group !== metaGroup,
      },
      onFatal: error => this.fail(error),
      onProgress: replicas => {
        for (const replica of replicas) {
          if (replica.group === metaGroup) this.controller.refresh()
          else {
            this.controller.progressed(replica)
            this.streams.progressed(replica)
            this.watches.progressed(replica)
          }
        }
      },
    })
    this.controller = new Controller({
      nodeId,
      host: this.host,
      peers,
      clock,
      log,
      hash64: options.hash64,
      isDown: node => this.isDown(node),
      isLost: node => this.isLost(node),
      isFull: node => this.isDiskFull(node),
      isStopping: node => this.detector.view.member(node)?.isStopping === true,
      isDiskSick: node => ['full', 'hung'].includes(this.diskOf(node)),
      clockOffMs: node => this.wallClocks.offMs(node),
      movesMax: options.rebalanceMovesMax,
      leaderOf: shard => this.view.leaderOf(shard)?.nodeId ?? null,
      addressOf: node => this.addressOf(node),
      members: () => [...this.addresses.keys()],
      onRegister: register => this.onRegister(register),
    })
    this.membership = new Membership({
      node: options,
      host: this.host,
      controller: this.controller,
      isStopping: () => this.isStopping,
      pause: ms => this.pause(ms),
      addresses: () => [...this.addresses.values()].map(({ peer }) => peer),
      onMembers: nodes => {
        for (const { nodeId: id, peerAddress, clientAddress } of nodes)
          this.addresses.set(id, { peer: peerAddress, client: clientAddress })
      },
      onLeft: () => this.left(),
      onFatal: error => this.fail(error),
    })
    this.verifier = new Verifier({
      nodeId,
      host: this.host,
      peers,
      clock,
      random,
      log,
      intervalMs: options.verifyIntervalMs,
      addressOf: node => this.addressOf(node),
      isDown: node => this.isDown(node),
      leaderOf: group => this.view.leaderOf(group)?.nodeId ?? null,
    })
    this.view = new ClusterView(this.host, this.controller, this.detector, clock)
    this.router = new Router({
      nodeId,
      host: this.host,
      peers,
      clock,
      random,
      commands,
      register: () => this.controller.register,
      shardCount: () => this.controller.register?.settings.shardCount ?? null,
      candidates: shard => this.view.candidates(shard),
      addressOf: node => this.addressOf(node),
      clientAddressOf: node => this.addresses.get(node)?.client ?? null,
      timeoutMsMax: options.messageTimeoutMs,
    })
    this.streams = new Streams({
      nodeId,
      host: this.host,
      peers,
      clock,
      log,
      random,
      hash64: options.hash64,
      router: this.router,
      register: () => this.controller.register,
      meta: (command, request) => this.retryBriefly(() => this.controller.execute(command, request)),
      candidates: shard => this.view.candidates(shard),
      leaderOf: shard => this.view.leaderOf(shard)?.nodeId ?? null,
      addressOf: node => this.addressOf(node),
      timeoutMsMax: options.messageTimeoutMs,
      pause: ms => this.pause(ms),
    })
    this.watches = new Watches({
      host: this.host,
      peers,
      clock,
      router: this.router,
      shardCount: () => this.controller.register?.settings.shardCount ?? null,
      candidates: shard => this.view.candidates(shard),
      addressOf: node => this.addressOf(node),
      timeoutMsMax: options.messageTimeoutMs,
    })
    peers.onRefused(node => this.host.refused(node))
  }

  // --- Life ---------------------------------------------------------------------------------------------------------

  /** Brings back what is on disk, then founds, joins or resumes. Resolves when the node is a member; rejects when it can't be. */
  async start(): Promise<void> {
    const { options } = this
    this.host.recover(options.recovered)
    if (options.clusterId !== null) this.membership.checkSeeds()
    this.every(options.tickMs, () => this.host.tick())
    this.every(options.heartbeatIntervalMs, () => this.gossip())
    this.every(lookIntervalMs, () => this.controller.lookNowAndThen())
    this.every(options.cleanupIntervalMs, () => this.host.sweep())
    this.every(dueLookMs, () => this.verifier.lookForDue())
    this.every(Streams.retainMs, () => this.streams.retain())
    this.every(Streams.sweepMs, () => this.streams.sweep())
    this.every(Watches.fitMs, () => this.watches.fit())
    if (this.host.group(metaGroup) === undefined || this.membership.clusterId === null)
      await this.membership.enter()
    this.controller.refresh()
    // Whoever leads soon has to know the others' clocks by then.
    this.greetAll()
    for (let waited = 0; !this.isStopping && !this.isMember(); waited++) {
      await this.pause(20)
      if (waited % 150 === 149 && this.controller.register === null) await this.membership.enterAgain()
    }
    this.membership.refuseOtherSettings()
    this.membership.refuseOlderRelease()
    this.isReady = true
    void this.membership.announce()
  }

  private isMember(): boolean {
    const own = this.controller.register?.nodes.find(node => node.nodeId === this.nodeId)
    return own !== undefined && own.state !== 'joining'
  }

  /** Hands over what it leads, then stops. Journal, state and peers are closed by whoever opened them. */
  async stop(): Promise<void> {
    if (this.isStopping) return
    const { clock } = this.options
    const startedMs = clock.now()
    this.isReady = false
    this.streams.stop()
    this.watches.stop()
    this.host.standDown()
    this.sayGoodbye()
    // Alone or without followers there is nobody to hand over to, and nothing to wait for.
    while (this.controller.handOver() > 0 && clock.now() < startedMs + handOverMsMax) await this.pause(50)
    await this.host.checkpointAll(startedMs + stopMsMax)
    this.isStopping = true
    for (const cancel of this.timers) cancel()
    await this.host.stop()
  }

  private fail(error: Error): void {
    if (this.isStopping) return
    if (isError(error)) this.options.log.error(error.message, { code: error.code })
    else this.options.log.error('this node can not go on', { error })
    this.isReady = false
    this.isStopping = true
    for (const cancel of this.timers) cancel()
    void this.host.stop()
    this.end.resolve({ kind: 'failed', error })
  }

  private every(ms: number, run: () => void): void {
    const again = () => {
      const cancel = this.options.clock.after(ms, () => {
        this.timers.delete(cancel)
        if (this.isStopping) return
        run()
        again()
      })
      this.timers.add(cancel)
    }
    again()
  }

  private pause(ms: number): Promise<void> {
    return new Promise(resolve => void this.options.clock.after(ms, resolve))
  }

  // --- Members, addresses, clocks -----------------------------------------------------------------------------------

  private onRegister(register: Register): void {
    const known = new Set(register.nodes.filter(node => node.state !== 'left').map(node => node.nodeId))
    for (const node of register.nodes) {
      if (node.state === 'left') {
        this.noteChanges(this.detector.unregister(node.nodeId))
        this.wallClocks.forget(node.nodeId)
        if (node.nodeId === this.nodeId && node.storeId === this.options.storeId) this.left()
        continue
      }
      this.addresses.set(node.nodeId, { peer: node.peerAddress, client: node.clientAddress })
      this.noteChanges(this.detector.register(node))
      if (node.nodeId === this.nodeId)
        this.noteChanges(this.detector.update({ state: node.state === 'leaving' ? 'leaving' : 'alive' }))
    }
    for (const node of this.addresses.keys()) if (!known.has(node)) this.addresses.delete(node)
    this.streams.registered(register)
    if (this.isReady) void this.membership.announce()
  }

  private noteChanges(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind !== 'state') continue
      const { nodeId, from, to } = change
      if (to === 'dead' || to === 'suspect')
        this.options.log.warn('member state', { member: nodeId, from, to })
      else this.options.log.info('member state', { member: nodeId, from, to })
    }
  }

  /** For peers' transport too: where a node is reached by other nodes. */
  addressOf(node: string): string | null {
    return this.addresses.get(node)?.peer ?? this.detector.view.member(node)?.peerAddress ?? null
  }

  private isDown(node: string): boolean {
    const state = this.detector.view.member(node)?.state
    return state === 'dead' || state === 'left' || this.isExpected(node)
  }

  /** Down for so long that nobody should wait for it. */
  private isLost(node: string): boolean {
    const { nodeDownAfterMs, clock } = this.options
    const since = this.detector.downSince(node)
    return nodeDownAfterMs > 0 && since !== null && clock.now() - since > nodeDownAfterMs
  }

  /** Its directory was given up, and nobody has come with another yet. */
  private isExpected(node: string): boolean {
    return this.controller.register?.nodes.find(each => each.nodeId === node)?.storeId === storeExpected
  }

  /** What the node says of its disk; of this one, what is so now. */
  private diskOf(node: string): DiskState {
    if (node !== this.nodeId) return this.detector.view.member(node)?.disk ?? 'ok'
    return this.host.isDiskHung ? 'hung' : (this.options.disk?.state ?? 'ok')
  }

  private isDiskFull(node: string): boolean {
    return ['nearly_full', 'full'].includes(this.diskOf(node))
  }

  private gossip(): void {
    const { clock } = this.options
    const disk = this.diskOf(this.nodeId)
    this.noteChanges(this.detector.update({ load: this.load(), leads: this.leads(), disk }))
    const { probe, changes } = this.detector.tick(clock.now())
    this.noteChanges(changes)
    for (const nodeId of probe) {
      const address = this.addressOf(nodeId)
      if (address === null) continue
      this.membership.askWhetherLeft(address, this.detector.view.self.heartbeat)
      this.greet(nodeId, address)
    }
  }

  private greet(nodeId: string, address: string): void {
    this.options.peers.heartbeat(address, this.greeting(), this.options.heartbeatIntervalMs * 2).then(
      answer => {
        // Another node may be there now.
        this.detector.noteCall(nodeId, answer.view[0]?.nodeId === nodeId)
        this.hear(answer)
      },
      () => this.detector.noteCall(nodeId, false),
    )
  }

  private greetAll(): void {
    for (const [nodeId, { peer }] of this.addresses) if (nodeId !== this.nodeId) this.greet(nodeId, peer)
  }

  /** To all at once: the next round of gossip would reach some of them when this node is gone. */
  private sayGoodbye(): void {
    this.noteChanges(this.detector.update({ isStopping: true }))
    this.detector.view.beat()
    this.greetAll()
  }

  private left(): void {
    this.options.log.info('left the cluster')
    this.end.resolve({ kind: 'left' })
  }

  private greeting(): Greeting {
    return {
      clusterId: this.membership.clusterId ?? '',
      view: this.detector.payload(),
      wallMs: this.options.clock.wall(),
    }
  }

  private hear({ clusterId, view, wallMs }: Greeting): void {
    const sender = view[0]
    if (sender === undefined || clusterId === '' || clusterId !== this.membership.clusterId) return
    if (wallMs > 0 && this.detector.view.member(sender.nodeId)?.storeId === sender.storeId)
      this.wallClocks.hear(sender.nodeId, wallMs)
    this.noteChanges(this.detector.receive(view, this.options.clock.now()))
    // Without a register that is kept up to date whoever speaks is the way to it.
    const { nodeId, peerAddress: peer, clientAddress: client } = sender
    if (this.isBlind() && nodeId !== this.nodeId && !this.addresses.has(nodeId))
      this.addresses.set(nodeId, { peer, client })
  }

  /** Whether nobody whom the register names would tell of new members: it is behind, and its leader may be new. */
  private isBlind(): boolean {
    const { register } = this.controller
    const leader = this.host.group(metaGroup)?.leaderNode ?? null
    return register === null || leader === null || !register.nodes.some(node => node.nodeId === leader)
  }

  private leads(): Leadership[] {
    const leads: Leadership[] = []
    for (const replica of this.host.all())
      if (replica.isLeader && replica.group !== metaGroup)
        leads.push({ shard: replica.group, term: replica.raft.term })
    return leads.sort((a, b) => a.shard - b.shard)
  }

  private load(): Load {
    let replicas = 0
    let leaders = 0
    for (const replica of this.host.all()) {
      if (replica.group === metaGroup) continue
      replicas++
      if (replica.isLeader) leaders++
    }
    return {
      replicas,
      leaders,
      storedBytes: this.options.storedBytes(),
      freeBytes: this.options.disk?.freeBytes ?? 0,
      operationsPerSecond: 0,
    }
  }

  private fetch(node: string, request: Transfer): Promise<Bytes> {
    const address = this.addressOf(node)
    if (address === null)
      return Promise.reject(
        new RoundhouseError('UNREACHABLE', { address: node, why: 'its address is not known' }),
      )
    return this.options.peers.fetchChunk(address, request, askTimeoutMs * 3)
  }

  private reportFailure(node: string, group: number, receiver: number): void {
    const address = this.addressOf(node)
    if (address === null) return
    const body = JSON.stringify({ group, receiver })
    this.options.peers.ask(address, 'snapshot-failed', body, askTimeoutMs).catch(() => {
      // The sender finds out by itself when nobody has asked for the copy for a while.
    })
  }

  // --- Service: what wires call -------------------------------------------------------------------------------------

  execute(call: Call): Promise<CallResult> {
    if (this.isStopping) return Promise.reject(new RoundhouseError('SHUTTING_DOWN', {}))
    return this.router.execute(call)
  }

  heartbeat(greeting: Greeting): Greeting {
    this.hear(greeting)
    return this.greeting()
  }

  /** As late as a write to the journal would be answered now: who pulls asks the more rarely (shard/pull-pace.ts). */
  async readChunk({ snapshot, part, position, length }: Transfer): Promise<Bytes> {
    const { syncMs } = this.host
    if (syncMs > 0) await this.pause(Math.min(syncMs, chunkPauseMsMax))
    return this.host.snapshotter.read(snapshot, part, position, length)
  }

  status(): ClusterStatus {
    return this.view.status()
  }

  stats(): Readonly<Record<string, number>> {
    const { turns, messagesIn, messagesDropped, messagesWithoutRoom, checkpoints, applied } =
      this.host.counters
    return {
      ...this.options.processStats(),
      loop_turns: turns,
      messages_in: messagesIn,
      messages_dropped: messagesDropped,
      messages_without_room: messagesWithoutRoom,
      checkpoints,
      entries_applied: applied,
      calls: this.router.counters.calls,
      calls_forwarded: this.router.counters.forwarded,
      calls_retried: this.router.counters.retried,
      calls_refused: this.router.counters.refused,
      stream_batches: this.streams.counters.batches,
      stream_records: this.streams.counters.records,
      stream_reads: this.streams.counters.reads,
      stream_waiting: this.streams.waiting,
      watches: this.watches.size,
      snapshots_sent: this.host.snapshotter.counters.sent,
      snapshots_received: this.host.snapshotter.counters.received,
      snapshot_bytes_sent: this.host.snapshotter.counters.bytesSent,
      snapshot_bytes_received: this.host.snapshotter.counters.bytesReceived,
    }
  }

  async leave(node: string, allowUnderReplicated: boolean): Promise<void> {
    const { register } = this.controller
    if (register === null) throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    const members = register.nodes.filter(each => each.state === 'member')
    const known = register.nodes.find(each => each.nodeId === node && each.state !== 'left')
    if (known === undefined)
      throw new RoundhouseError('UNKNOWN_NODE', { node, known: members.map(each => each.nodeId).join(' ') })
    const left = members.filter(each => each !== known).length
    if (left === 0) throw new RoundhouseError('LEAVE_REFUSED', { node, why: 'it is the last member' })
    const { replicationFactor } = register.settings
    if (left < replicationFactor && members.length >= replicationFactor && !allowUnderReplicated)
      throw new RoundhouseError('LEAVE_REFUSED', {
        node,
        why: `${left} members would be left for a replication factor of ${replicationFactor} (--allow-under-replicated lets it go)`,
      })
    await this.retryBriefly(() => this.controller.execute('META.STATE', { nodeId: node, state: 'leaving' }))
  }

  /**
   * Gives up a dead node's directory. Under its own name it may come back with an empty one; under another, which has
   * joined already, its replicas go to the others like those of any node that leaves.
   */
  async replace(dead: string, replacement: string): Promise<void> {
    const { register } = this.controller
    if (register === null) throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    const nodes = register.nodes.filter(each => each.state !== 'left')
    for (const node of [dead, replacement]) {
      if (!nodes.some(each => each.nodeId === node))
        throw new RoundhouseError('UNKNOWN_NODE', {
          node,
          known: nodes.map(each => each.nodeId).join(' '),
        })
    }
    if (!this.isDown(dead))
      throw new RoundhouseError('REPLACE_REFUSED', {
        node: dead,
        why: 'it is not dead: let it leave instead, or stop it and wait until status shows it dead',
      })
    if (dead === replacement) {
      await this.retryBriefly(() => this.controller.execute('META.REPLACE', { nodeId: dead }))
      return
    }
    if (nodes.find(each => each.nodeId === replacement)?.state !== 'member' || this.isDown(replacement))
      throw new RoundhouseError('REPLACE_REFUSED', {
        node: dead,
        why: `${replacement} is not a living member`,
      })
    await this.retryBriefly(() => this.controller.execute('META.STATE', { nodeId: dead, state: 'leaving' }))
  }

  async verify(shard: number): Promise<VerifyResult> {
    const { register } = this.controller
    if (register === null) throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    const { shardCount } = register.settings
    if (shard !== metaGroup && !(Number.isInteger(shard) && shard >= 0 && shard < shardCount))
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: `shard ${shard}`,
        accepted: `0 to ${shardCount - 1}, or ${metaGroup} for the meta shard`,
      })
    return this.retryBriefly(() => this.verifier.verify(shard))
  }

  async rebalance(action: 'show' | 'pause' | 'resume'): Promise<RebalanceStatus> {
    if (action !== 'show') await this.pauseRebalance(action === 'pause')
    return this.view.rebalance()
  }

  /** Resolves when this node's copy of the register shows it too, or should by now. */
  private async pauseRebalance(isPaused: boolean): Promise<void> {
    await this.retryBriefly(() => this.controller.execute('META.PAUSE', { isPaused }))
    const untilMs = this.options.clock.now() + 1_000
    while (this.controller.register?.isPaused !== isPaused && this.options.clock.now() < untilMs)
      await this.pause(10)
  }

  /** An operator's command waits out an election, no longer. */
  private async retryBriefly<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    const untilMs = this.options.clock.now() + this.options.messageTimeoutMs
    for (;;) {
      try {
        return await work()
      } catch (error) {
        if (!isPassing(error) || this.options.clock.now() > untilMs) throw error
        await this.pause(100)
      }
    }
  }

  isServing(): boolean {
    return this.isReady && !this.host.isDiskHung
  }

  // --- PeerService: what peers call ---------------------------------------------------------------------------------

  admit({ clusterId, nodeId, storeId }: Identity): void {
    if (this.membership.clusterId === null || clusterId !== this.membership.clusterId)
      throw new RoundhouseError('WRONG_CLUSTER', {
        ours: this.membership.clusterId ?? 'none yet',
        theirs: clusterId,
      })
    const { register } = this.controller
    // A joiner has no register before its first messages: the cluster's secret-free id is all that it can check.
    if (register === null) return
    const known = register.nodes.find(node => node.nodeId === nodeId)
    if (known === undefined) {
      // This copy of the register may be behind the one that admitted the caller. While nobody is known to lead the meta
      // shard it is not caught up either: the caller may be that leader, who joined while this node was away.
      if (this.isReady && !this.isBlind()) throw new RoundhouseError('NOT_MEMBER', { node: nodeId })
      return
    }
    if (known.state === 'left') throw new RoundhouseError('NOT_MEMBER', { node: nodeId })
    if (known.storeId !== storeId)
      throw new RoundhouseError('STORE_MISMATCH', {
        node: nodeId,
        registered: known.storeId,
        offered: storeId,
      })
  }

  receive(from: string, messages: readonly PeerMessage[]): void {
    this.host.receive(from, messages)
  }

  async ask(from: Identity, method: string, body: string): Promise<string> {
    const request = parse(body)
    if (method === 'cluster') {
      const known = this.controller.register?.nodes.find(node => node.nodeId === from.nodeId)
      const hasLeft = known?.storeId === from.storeId && known.state === 'left'
      return JSON.stringify({ clusterId: this.membership.clusterId, hasLeft } satisfies ClusterAnswer)
    }
    if (method === 'join') {
      const joiner = request as JoinRequest
      // A certificate speaks for one node only.
      if (joiner.nodeId !== from.nodeId)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: 'join request',
          accepted: 'the asker’s own id',
        })
      return this.admitJoiner(joiner)
    }
    // Perhaps it was a member and has lost its volume: whoever still takes it for one asks another node soon.
    if (this.membership.clusterId === null)
      throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    if (from.clusterId !== this.membership.clusterId)
      throw new RoundhouseError('WRONG_CLUSTER', {
        ours: this.membership.clusterId ?? 'none yet',
        theirs: from.clusterId,
      })
    if (method === 'meta') {
      const { command, request: inner } = request as { command: string; request: unknown }
      if (!metaCommands.has(command)) throw new RoundhouseError('UNKNOWN_COMMAND', { command })
      return JSON.stringify(await this.controller.execute(command, inner, 1))
    }
    if (method === 'verify') {
      const { group } = request as { group: number }
      return JSON.stringify(await this.verifier.verify(group, 1))
    }
    if (method === 'digest') return JSON.stringify(this.verifier.digestAt(request as DigestRequest))
    if (method === 'odd') {
      this.verifier.halt(request as DigestRequest)
      return '{}'
    }
    if (method === 'transfer') {
      const { group, to } = request as { group: number; to: string }
      this.controller.transfer(group, to)
      return '{}'
    }
    const ofStreams = this.streams.answer(method, request)
    if (ofStreams !== null) return JSON.stringify(await ofStreams)
    const ofWatches = this.watches.answer(method, request)
    if (ofWatches !== null) return JSON.stringify(await ofWatches)
    if (method === 'snapshot-failed') {
      const { group, receiver } = request as { group: number; receiver: number }
      const replica = this.host.group(group)
      if (replica?.isLeader) this.host.snapshotter.failed(replica, receiver)
      return '{}'
    }
    throw new RoundhouseError('UNKNOWN_COMMAND', { command: method })
  }

  private async admitJoiner(request: JoinRequest): Promise<string> {
    if (this.membership.clusterId === null)
      throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    const fields = [request.nodeId, request.storeId, request.peerAddress, request.clientAddress, request.zone]
    if (!fields.every(field => typeof field === 'string' && field.length <= 300))
      throw new RoundhouseError('INVALID_ARGUMENT', {
        what: 'join request',
        accepted: 'node, store, addresses, zone',
      })
    const [nodeId, storeId, peerAddress, clientAddress, zone] = fields as [
      string,
      string,
      string,
      string,
      string,
    ]
    const expected = expectedOf(request.expected)
    const level = levelOfNode(request)
    const joiner: JoinRequest = { nodeId, storeId, peerAddress, clientAddress, zone, level, expected }
    const node = await this.controller.execute<RegisteredNode>('META.JOIN', joiner)
    const nodes = this.controller.register?.nodes.filter(each => each.state !== 'left') ?? []
    return JSON.stringify({ clusterId: this.membership.clusterId, node, nodes } satisfies JoinAnswer)
  }
}

function parse(body: string): unknown {
  try {
    const value: unknown = JSON.parse(body)
    if (typeof value === 'object' && value !== null) return value
  } catch {}
  throw new RoundhouseError('INVALID_ARGUMENT', { what: 'question', accepted: 'a JSON object' })
}
