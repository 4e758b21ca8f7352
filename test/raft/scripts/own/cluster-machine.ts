/**
 * A simulated cluster of three with one shard, as a script drives it. The node that leads the shard at first is `a`, the
 * others are `b` and `c`. What depends on the simulation's seed (indexes, terms, who wins an election) is not printed.
 *
 *   boot kept=10            three nodes and their shard; a follower that lacks more than `kept` entries needs a snapshot
 *   propose                 one after another, a caller a line: `x a SET k v session=s/1/1`; `*` asks whoever leads
 *   write count=50          so many keys at whoever leads
 *   get node=c key=k        as it is there now
 *   cut node=c, heal        off from the others; until all replicas have applied the same again
 *   crash node=c, start node=c, crash all, start all    power off, and on
 *   hand-over to=c          until it leads
 *   damage node=c           its replica of the shard is found to be damaged
 *   replaced node=c         until the node holds another replica in its place, which votes
 *   status                  who leads, who votes, who has received a snapshot since, and whether all rows are the same
 */
import assert from 'node:assert/strict'
import type { Settled } from '../../../../src/shard/proposal.ts'
import type { Replica } from '../../../../src/shard/replica.ts'
import { SimCluster, type SimMachine } from '../../../sim/sim-cluster.ts'
import { argOf, type Directive } from '../datadriven.ts'
import { ask, describeSettled, parseCall, peek, Sessions } from './operations.ts'
import type { Machine } from './script.ts'

const shard = 0
const deadlineMs = 5_000
/** Simulated: how long a script waits for what must come. */
const waitMs = 60_000

export class ClusterMachine implements Machine {
  private cluster: SimCluster | null = null
  private readonly machines = new Map<string, SimMachine>()
  private readonly sessions = new Sessions()
  /** The replica of the shard that was found damaged, by node. */
  private readonly damaged = new Map<string, number>()
  /** Snapshots that each node's process had received when they were last counted. */
  private readonly counted = new Map<string, number>()

  async run(directive: Directive): Promise<readonly string[]> {
    const node = argOf(directive, 'node') ?? ''
    const isAll = directive.args.some(({ key }) => key === 'all')
    const names = isAll ? [...this.machines.keys()] : [node]
    switch (directive.name) {
      case 'boot':
        return this.boot(Number(argOf(directive, 'kept') ?? 1_000))
      case 'propose': {
        const told: string[] = []
        for (const line of directive.input) told.push(await this.propose(line))
        return told
      }
      case 'write':
        return this.write(Number(argOf(directive, 'count')))
      case 'get':
        return [peek(this.replica(node), argOf(directive, 'key') ?? '')]
      case 'cut':
        this.made.network.isolate(this.machine(node).address)
        return ['ok']
      case 'heal':
        this.made.network.heal()
        await this.until('all have applied the same', () => this.isEven())
        return ['all have applied the same']
      case 'crash':
        for (const name of names) this.machine(name).crash()
        return ['ok']
      case 'start':
        for (const name of names)
          void this.machine(name)
            .start()
            .catch(() => {})
        await this.until('all are here', () => this.leader() !== null && this.isEven())
        return ['all are here']
      case 'hand-over':
        return this.handOver(argOf(directive, 'to') ?? '')
      case 'damage':
        this.damaged.set(node, this.replica(node).id)
        this.replica(node).halt('damaged, says the script')
        return ['ok']
      case 'replaced':
        await this.until('another replica', () => this.isReplaced(node))
        return [`${node} has another replica`]
      case 'status':
        return this.status()
      default:
        throw new Error(`unknown directive ${directive.name}`)
    }
  }

  private get made(): SimCluster {
    assert.ok(this.cluster !== null, 'boot comes first')
    return this.cluster
  }

  private machine(name: string): SimMachine {
    const machine = this.machines.get(name)
    if (machine === undefined) throw new Error(`no node ${name}`)
    return machine
  }

  private replica(name: string): Replica {
    const replica = this.machine(name).node?.host.group(shard)
    if (replica === undefined) throw new Error(`${name} has no replica`)
    return replica
  }

  /** Of the shard, where there is a process and it has one. */
  private replicas(): { readonly name: string; readonly replica: Replica }[] {
    return [...this.machines].flatMap(([name, { node }]) => {
      const replica = node?.host.group(shard)
      return replica === undefined ? [] : [{ name, replica }]
    })
  }

  private leader(): { readonly name: string; readonly replica: Replica } | null {
    const term = Math.max(...this.replicas().map(({ replica }) => replica.raft.term))
    return this.replicas().find(({ replica }) => replica.isLeader && replica.raft.term === term) ?? null
  }

  private async until(what: string, isSo: () => boolean): Promise<void> {
    const { world } = this.made
    if (!(await world.run(world.nowMs + waitMs, isSo))) throw new Error(`not within ${waitMs} ms: ${what}`)
  }

  private async boot(entriesKept: number): Promise<string[]> {
    this.cluster = new SimCluster(1, {
      shardCount: 1,
      hostLimits: { entriesKept, entriesBetweenCheckpointsMax: 2 * entriesKept },
    })
    assert.ok(await this.cluster.boot(3), 'the cluster does not settle')
    const [...left] = this.cluster.machines
    const first = left.findIndex(({ node }) => node!.host.group(shard)!.isLeader)
    for (const [i, machine] of [...left.splice(first, 1), ...left].entries())
      this.machines.set('abc'[i]!, machine)
    for (const name of this.machines.keys()) this.snapshotsSince(name)
    return ['a leads']
  }

  private async propose(line: string): Promise<string> {
    const call = parseCall(line)
    const settled = await this.ask(call)
    return `${call.caller}: ${settled === null ? 'no answer' : describeSettled(settled, false)}`
  }

  private async ask(call: ReturnType<typeof parseCall>): Promise<Settled | null> {
    if (call.where === '*') await this.until('a leader', () => this.leader() !== null)
    const name = call.where === '*' ? this.leader()!.name : call.where
    const { clock, node } = this.machine(name)
    const replica = this.replica(name)
    const told: Settled[] = []
    const session = this.sessions.use(call.session, clock.wall())
    ask(replica, call, session, clock.now() + deadlineMs, settled => void told.push(settled))
    node!.host.touch(replica)
    const { world } = this.made
    await world.run(world.nowMs + 2 * deadlineMs, () => told.length > 0)
    return told[0] ?? null
  }

  private async write(count: number): Promise<string[]> {
    let done = 0
    for (let i = 0; i < count; i++) {
      const settled = await this.ask(parseCall(`w * SET key${i} v`))
      if (settled?.ok) done++
    }
    return [`${done} done`]
  }

  private isEven(): boolean {
    const all = this.replicas()
    const indexes = new Set(all.map(({ replica }) => replica.appliedIndex))
    return all.length === this.machines.size && indexes.size === 1
  }

  private async handOver(to: string): Promise<string[]> {
    const { world } = this.made
    for (let tries = 0; tries < 20 && this.leader()?.name !== to; tries++) {
      const leader = this.leader()
      if (leader !== null) {
        leader.replica.raft.transferLeader(this.replica(to).id)
        this.machine(leader.name).node!.host.touch(leader.replica)
      }
      await world.run(world.nowMs + 500, () => this.leader()?.name === to)
    }
    // Its first entry makes it know all that is committed.
    await this.until('its first commit', () => this.replica(to).appliedTerm === this.replica(to).raft.term)
    return this.leader()?.name === to ? [`${to} leads`] : [`${to} does not lead`]
  }

  private isReplaced(name: string): boolean {
    const old = this.damaged.get(name)
    const replica = this.machine(name).node?.host.group(shard)
    const leader = this.leader()?.replica
    return (
      old !== undefined &&
      replica !== undefined &&
      leader !== undefined &&
      replica.id > old &&
      !this.machine(name).node!.host.knows(old) &&
      leader.configuration.confState.voters.includes(replica.id) &&
      !leader.configuration.members.some(member => member.replica === old) &&
      this.isEven()
    )
  }

  private snapshotsSince(name: string): number {
    const { received } = this.machine(name).node!.host.snapshotter.counters
    const before = this.counted.get(name) ?? 0
    this.counted.set(name, received)
    return received - before
  }

  private status(): string[] {
    const leader = this.leader()
    const voters = leader?.replica.configuration.confState.voters ?? []
    const lines = [...this.machines].map(([name, { node }]) => {
      if (node === null) return `${name} is down`
      const replica = node.host.group(shard)
      if (replica === undefined) return `${name} has no replica`
      const role = leader?.name === name ? 'leads' : voters.includes(replica.id) ? 'votes' : 'does not vote'
      const received = this.snapshotsSince(name)
      const halted = replica.halted === null ? '' : `, quarantined: ${replica.halted}`
      return `${name} ${role}${received === 0 ? '' : `, has received ${received} snapshot`}${halted}`
    })
    this.made.compareReplicas()
    return [...lines, ...this.made.violations.map(violation => `violation: ${violation}`)]
  }
}
