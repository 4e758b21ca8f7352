import type { Detector } from '../gossip/detector.ts'
import type { Clock } from '../lib/clock.ts'
import { slotsOfShard } from '../lib/slot.ts'
import { nodesOf } from '../shard/configuration.ts'
import type { Host } from '../shard/host.ts'
import type { Controller } from './controller.ts'
import { levelOfNode } from './feature-level.ts'
import { membersOf, metaGroup, type Register, storeExpected } from './meta-register.ts'
import type { ClusterStatus, NodeStatus, RebalanceStatus, ShardStatus } from './ports.ts'

/** The cluster as this node sees it: its own replicas first, then gossip's hints, then the register. */
export class ClusterView {
  private readonly host: Host
  private readonly controller: Controller
  private readonly detector: Detector
  private readonly clock: Clock
  /** Of the rebalance under way: where it began. */
  private run: { readonly startedMs: number; readonly doneBefore: number; readonly epoch: number } | null =
    null

  constructor(host: Host, controller: Controller, detector: Detector, clock: Clock) {
    this.host = host
    this.controller = controller
    this.detector = detector
    this.clock = clock
  }

  /** Who leads a group, and in which term, as far as this node knows. */
  leaderOf(group: number): { readonly nodeId: string; readonly term: number } | null {
    const replica = this.host.group(group)
    const hint = this.detector.view.leaderHint(group)
    if (replica === undefined || replica.halted !== null) return hint
    const nodeId = replica.leaderNode
    const own = nodeId === null ? null : { nodeId, term: replica.raft.term }
    // A hint of a later term than this replica's knows of an election that has not come here yet.
    return hint !== null && hint.term > (own?.term ?? replica.raft.term) ? hint : own
  }

  /** Nodes that may lead `shard`, the likeliest first, without this one. */
  candidates(shard: number): string[] {
    const self = this.detector.view.self.nodeId
    const leader = this.leaderOf(shard)?.nodeId
    const record = this.controller.register?.shards.get(shard)
    const voters = record === undefined ? [] : [...record.voters, ...(record.operation?.voters ?? [])]
    const nodes = [...(leader === undefined ? [] : [leader]), ...voters.map(member => member.node)]
    return [...new Set(nodes)].filter(node => node !== self)
  }

  status(): ClusterStatus {
    const { register } = this.controller
    const shardCount = register?.settings.shardCount ?? 0
    const shards = Array.from({ length: shardCount }, (_, shard) => this.shardStatus(shard, register))
    return {
      clusterId: register?.clusterId ?? '',
      epoch: register?.epoch ?? 0,
      level: register?.level ?? 0,
      shardCount,
      nodes: this.nodes(register, shards),
      shards,
      meta: this.shardStatus(metaGroup, register),
      rebalance: this.rebalance(),
    }
  }

  private shardStatus(group: number, register: Register | null): ShardStatus {
    const replica = this.host.group(group)
    const record = register?.shards.get(group)
    const leader = this.leaderOf(group)
    const isMeta = group === metaGroup || register === null
    const { from, to } = isMeta ? { from: 0, to: 0 } : slotsOfShard(group, register.settings.shardCount)
    const configuration = replica?.configuration
    const knows =
      configuration !== undefined && configuration.index > 0 && configuration.index >= (record?.index ?? 0)
    return {
      shardId: group,
      slots: [from, to],
      term: leader?.term ?? replica?.raft.term ?? 0,
      leader: leader?.nodeId ?? null,
      voters: knows
        ? nodesOf(configuration, configuration.confState.voters)
        : (record?.voters.map(m => m.node) ?? []),
      learners: knows
        ? nodesOf(configuration, configuration.confState.learners)
        : (record?.learners.map(m => m.node) ?? []),
      applied: replica?.appliedIndex ?? 0,
    }
  }

  private nodes(register: Register | null, shards: readonly ShardStatus[]): NodeStatus[] {
    const registered = register?.nodes.filter(node => node.state !== 'left') ?? []
    return registered.map(node => {
      const { nodeId, storeId, peerAddress, clientAddress, zone, state } = node
      const heard = this.detector.view.member(nodeId)?.state ?? 'joining'
      const seen = storeId === storeExpected ? 'dead' : heard
      const replicas = [...(register?.shards ?? [])].filter(
        ([group, record]) => group !== metaGroup && membersOf(record).some(member => member.node === nodeId),
      ).length
      return {
        nodeId,
        address: peerAddress,
        clientAddress,
        state: state === 'joining' ? 'joining' : state === 'leaving' && seen === 'alive' ? 'leaving' : seen,
        zone,
        replicas,
        leaders: shards.filter(shard => shard.leader === nodeId).length,
        disk: this.detector.view.member(nodeId)?.disk ?? 'ok',
        level: levelOfNode(node),
      }
    })
  }

  rebalance(): RebalanceStatus {
    const plan = this.controller.plan()
    const { register } = this.controller
    if (plan === null || register === null) {
      return { ...idle, state: 'blocked', blockedBy: 'the meta register is not known yet' }
    }
    const isOpen = [...register.shards.values()].some(record => record.operation !== null)
    const isDraining = register.nodes.some(node => node.state === 'leaving' || node.state === 'joining')
    const isBusy = plan.movesLeft > 0 || isOpen || plan.operations.length > 0 || isDraining
    if (!isBusy) {
      this.run = null
      return { ...idle, state: register.isPaused ? 'paused' : 'idle' }
    }
    this.run ??= { startedMs: this.clock.now(), doneBefore: register.movesDone, epoch: register.epoch }
    const movesDone = register.movesDone - this.run.doneBefore
    const movesTotal = movesDone + plan.movesLeft
    const bytesPerReplica = this.bytesPerReplica()
    const seconds = (this.clock.now() - this.run.startedMs) / 1000
    const bytesDone = Math.round(movesDone * bytesPerReplica)
    const rate = seconds > 0 ? movesDone / seconds : 0
    return {
      state: register.isPaused ? 'paused' : plan.blockedBy !== null ? 'blocked' : 'running',
      movesDone,
      movesTotal,
      bytesDone,
      bytesTotal: Math.round(movesTotal * bytesPerReplica),
      bytesPerSecond: seconds > 0 ? bytesDone / seconds : 0,
      etaSeconds: rate > 0 ? Math.ceil(plan.movesLeft / rate) : null,
      blockedBy: register.isPaused ? 'paused by the operator' : plan.blockedBy,
    }
  }

  /** What a replica holds on average, by what the nodes say of themselves. */
  private bytesPerReplica(): number {
    let replicas = 0
    let bytes = 0
    for (const { load } of this.detector.view.records()) {
      replicas += load.replicas
      bytes += load.storedBytes
    }
    return replicas === 0 ? 0 : bytes / replicas
  }
}

const idle: RebalanceStatus = {
  state: 'idle',
  movesDone: 0,
  movesTotal: 0,
  bytesDone: 0,
  bytesTotal: 0,
  bytesPerSecond: 0,
  etaSeconds: null,
  blockedBy: null,
}
