/** Which of a client's lanes leads to the node that a key's shard is led by, or to any node where the plan says so. */
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import type { Snapshot } from './cost.ts'
import type { BenchCluster, BenchPlan } from './ports.ts'

/** Leaders move; who goes on asking the old one measures forwarding, of a stream's commands one at a time a shard. */
const mapEveryMs = 1_000

export class Router<Lane extends { close(): void }> {
  private readonly plan: BenchPlan
  private readonly cluster: BenchCluster
  private readonly map: MapResponse
  private readonly nodes: readonly { readonly id: string; readonly address: string }[]
  /** By client, then by node. */
  private readonly lanes: readonly (readonly Lane[])[]
  /** By shard: the place of its leader among `nodes`, or -1. */
  private leaders: readonly number[]
  private timer: NodeJS.Timeout | null = null
  private isAsking = false

  constructor(plan: BenchPlan, cluster: BenchCluster, map: MapResponse, open: (address: string) => Lane) {
    this.plan = plan
    this.cluster = cluster
    this.map = map
    this.nodes = map.nodes
      .filter(node => node.state === 'alive' && node.clientAddress !== '')
      .map(node => ({ id: node.nodeId, address: node.clientAddress }))
    if (this.nodes.length === 0) throw new Error('the cluster has no node that is alive')
    this.lanes = Array.from({ length: plan.clients }, () => this.nodes.map(({ address }) => open(address)))
    this.leaders = this.leadersOf(map)
  }

  /** From now on asks who leads. A node that joins meanwhile gets nothing sent. */
  follow(): void {
    this.timer = setInterval(() => {
      if (this.isAsking || this.plan.route === 'any') return
      this.isAsking = true
      this.cluster
        .map()
        .then(
          map => {
            this.leaders = this.leadersOf(map)
          },
          () => {},
        )
        .finally(() => {
          this.isAsking = false
        })
    }, mapEveryMs)
  }

  /** Slots belong to clients in turn. */
  lane(key: string, slot: number): Lane {
    const lanes = this.lanes[slot % this.lanes.length]!
    return lanes[this.placeOf(key)]!
  }

  /** Costs of all nodes as they are now. */
  async snapshot(): Promise<Snapshot> {
    const cpu = process.cpuUsage()
    const nodes = await Promise.all(this.nodes.map(({ address }) => this.cluster.stats(address)))
    return { clientCpuUs: cpu.user + cpu.system, nodes }
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer)
    for (const lane of this.lanes.flat()) lane.close()
  }

  private leadersOf(map: MapResponse): number[] {
    return map.leaders.map(leader => this.nodes.findIndex(node => node.id === leader))
  }

  private placeOf(key: string): number {
    const anywhere = Math.floor(Math.random() * this.nodes.length)
    if (this.plan.route === 'any') return anywhere
    const leader = this.leaders[shardOfSlot(slotOf(Buffer.from(key)), this.map.shardCount)] ?? -1
    return leader === -1 ? anywhere : leader
  }
}
