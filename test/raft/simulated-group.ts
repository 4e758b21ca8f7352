/**
 * Replicas, an unreliable network between them, and one op at a time. Ops are numbers, so that fast-check can generate
 * and shrink whole runs.
 */
import assert from 'node:assert/strict'
import { Prng } from '../../src/lib/prng.ts'
import type { ConfChange, ConfChangeSingle, Message, Snapshot } from '../../src/raft/types.ts'
import { type Settings, SimulatedNode } from './simulated-node.ts'
import { Truth } from './truth.ts'

const ids = [1, 2, 3, 4, 5]
const networkMax = 400

/** How often each op comes, of 100. */
const weights = {
  deliver: 27,
  sync: 16,
  apply: 10,
  tick: 10,
  propose: 10,
  drop: 2,
  duplicate: 3,
  crash: 2,
  restart: 5,
  changeConfiguration: 5,
  transfer: 1,
  checkpoint: 3,
  partition: 2,
  read: 3,
  forgetLeader: 1,
}
type Op = keyof typeof weights
const ops = Object.entries(weights).flatMap(([op, weight]) => Array<Op>(weight).fill(op as Op))

export class SimulatedGroup {
  readonly truth: Truth
  readonly nodes: SimulatedNode[]
  private network: Message[] = []
  /** Nodes on different sides don't hear each other. */
  private sideOf = new Map<number, number>()
  private proposals = 0

  constructor(settings: Settings) {
    const none = { votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
    const founded: Snapshot = {
      meta: { index: 1, term: 1, confState: { voters: [1, 2, 3], ...none } },
      data: new Uint8Array(4),
    }
    const empty: Snapshot = {
      meta: { index: 0, term: 0, confState: { voters: [], ...none } },
      data: new Uint8Array(0),
    }
    this.truth = new Truth(founded)
    this.nodes = ids.map(
      id =>
        new SimulatedNode(
          id,
          settings,
          id <= 3 ? founded : empty,
          this.truth,
          message => this.network.push(message),
          snapshot => this.report(id, snapshot !== null),
        ),
    )
  }

  /** `op`, `a` and `b` are any non-negative numbers. */
  run(op: number, a: number, b: number): void {
    const random = new Prng(a * 65_537 + b)
    const node = this.nodes[a % this.nodes.length]!
    const leaders = this.nodes.filter(each => each.isAlive && each.raft.isLeader)
    const leader = leaders[a % (leaders.length || 1)] ?? node
    switch (ops[op % ops.length]!) {
      case 'deliver':
        for (let i = b % 24; i >= 0; i--) this.deliver(random.below(this.network.length || 1))
        break
      case 'sync':
        if (node.isAlive) node.sync(1 + (b % 4))
        break
      case 'apply':
        for (let i = b % 3; i >= 0 && node.isAlive; i--) node.apply()
        break
      case 'tick':
        // One clock runs ahead, or all go on.
        for (let i = b % 8; i >= 0; i--) this.tick(node)
        if (b % 2 === 0) for (const each of this.nodes) this.tick(each)
        break
      case 'propose':
        if (leader.isAlive) this.propose(leader, b % 40)
        break
      case 'drop':
        for (let i = b % 5; i >= 0; i--) this.lose(random.below(this.network.length || 1))
        break
      case 'duplicate': {
        const message = this.network[random.below(this.network.length || 1)]
        if (message !== undefined) this.network.push(message)
        break
      }
      case 'crash':
        if (node.isAlive) this.crash(node, b)
        break
      case 'restart':
        if (!node.isAlive) node.start()
        break
      case 'changeConfiguration':
        if (leader.isAlive) {
          leader.raft.proposeConfChange(this.anyChange(random))
          leader.drain()
        }
        break
      case 'transfer':
        if (leader.isAlive) {
          leader.raft.transferLeader(1 + (b % ids.length))
          leader.drain()
        }
        break
      case 'checkpoint':
        if (node.isAlive) node.checkpoint(b % 4)
        break
      case 'partition':
        // Whole again, or a leader alone, or any two sides.
        this.sideOf = new Map(
          ids.map(id => [id, [0, 0, id === leader.id ? 1 : 0, random.below(2)][b % 4]!] as const),
        )
        break
      case 'read':
        if (leader.isAlive) leader.read()
        break
      case 'forgetLeader':
        if (node.isAlive) node.raft.forgetLeader()
        break
    }
    while (this.network.length > networkMax) this.lose(random.below(this.network.length))
  }

  private anyChange(random: Prng): ConfChange {
    const kinds = ['addNode', 'addNode', 'addLearner', 'removeNode'] as const
    const transitions = ['auto', 'auto', 'implicit', 'explicit'] as const
    const changes: ConfChangeSingle[] = []
    for (let i = random.below(4); i > 0; i--)
      changes.push({ kind: kinds[random.below(4)]!, replica: 1 + random.below(ids.length) })
    // No changes at all leaves a joint configuration.
    const transition = changes.length === 0 ? 'auto' : transitions[random.below(4)]!
    return { transition, changes, context: new Uint8Array(0) }
  }

  private tick(node: SimulatedNode): void {
    if (!node.isAlive) return
    node.raft.tick()
    node.drain()
  }

  private propose(node: SimulatedNode, bytes: number): boolean {
    const data = new Uint8Array(4 + bytes)
    new DataView(data.buffer).setUint32(0, ++this.proposals)
    const result = node.raft.propose(data)
    node.drain()
    return result === 'ok'
  }

  private crash(node: SimulatedNode, surviving: number): void {
    node.crash(surviving % (node.unsynced + 1))
    for (const other of this.nodes) {
      if (!other.isAlive) continue
      other.raft.reportUnreachable(node.id)
      other.raft.reportSnapshot(node.id, false)
      other.drain()
    }
  }

  private deliver(at: number): void {
    const message = this.take(at)
    if (message === undefined) return
    const receiver = this.nodes[message.to - 1]!
    const isCut = this.sideOf.get(message.from) !== this.sideOf.get(message.to)
    if (isCut || !receiver.isAlive) {
      this.undelivered(message)
      return
    }
    receiver.raft.step(message)
    // Of no use to its receiver, or an entry of its log anyway: there is nothing to install, it has arrived.
    if (message.kind === 'MsgSnap' && !receiver.raft.hasPendingSnapshot) this.report(message.to, true)
    receiver.drain()
  }

  private lose(at: number): void {
    const message = this.take(at)
    if (message !== undefined) this.undelivered(message)
  }

  private undelivered(message: Message): void {
    if (message.kind === 'MsgSnap') this.report(message.to, false)
  }

  private report(to: number, isDelivered: boolean): void {
    for (const node of this.nodes) {
      if (!node.isAlive) continue
      node.raft.reportSnapshot(to, isDelivered)
      node.drain()
    }
  }

  private take(at: number): Message | undefined {
    const message = this.network[at]
    if (message === undefined) return undefined
    const last = this.network.pop()!
    if (at < this.network.length) this.network[at] = last
    return message
  }

  /** After everything: the network is whole again and nobody crashes. The group must get going and all must agree. */
  recover(): void {
    this.sideOf = new Map()
    for (const node of this.nodes) if (!node.isAlive) node.start()
    const target = this.truth.commitIndex
    let proposedAt: number | null = null
    for (let round = 0; round < 2_000; round++) {
      if (round % 3 === 0) for (const node of this.nodes) this.tick(node)
      for (let i = this.network.length; i > 0; i--) this.deliver(0)
      for (const node of this.nodes) {
        node.sync(node.unsynced)
        while (!node.isIdle && node.unsynced === 0) node.apply()
      }
      const leader = this.nodes.find(each => each.raft.isLeader)
      if (leader === undefined) continue
      if (proposedAt === null && this.propose(leader, 0)) proposedAt = round
      else if (proposedAt !== null && this.isSettled(leader, target)) return
    }
    assert.fail(
      `no agreement; leaders: ${this.nodes.filter(each => each.raft.isLeader).map(each => each.id)}`,
    )
  }

  private isSettled(leader: SimulatedNode, target: number): boolean {
    const { voters, votersOutgoing, learners } = leader.confState
    const members = new Set([...voters, ...votersOutgoing, ...learners])
    return (
      this.truth.commitIndex > target &&
      this.nodes.every(node => !members.has(node.id) || node.applied === this.truth.commitIndex)
    )
  }
}
