/** Our side: a cluster that runs already, or one that is started for the comparison. Each call goes to the key's leader. */
import { ClusterNodeService, CommandRequest, CommandResponse, Read } from '../../gen/clusterpb/cluster.ts'
import type { MapResponse } from '../../gen/roundhouse/v1/admin.ts'
import { shardOfSlot, slotOf } from '../../lib/slot.ts'
import { OwnCluster, type OwnClusterOptions } from '../own-cluster.ts'
import type { BenchCluster } from '../ports.ts'
import type { CallName } from './ports.ts'
import { RawClient } from './raw-client.ts'
import type { NodeReading, Side, SideNode } from './side.ts'

const keysPerDelete = 100
const deleteMsMax = 10_000

export class RoundhouseSide implements Side {
  readonly name = 'roundhouse'
  readonly version: string
  private readonly cluster: BenchCluster
  private readonly own: OwnCluster | null
  private map: MapResponse
  private readonly clients = new Map<string, RawClient>()

  private constructor(cluster: BenchCluster, own: OwnCluster | null, map: MapResponse) {
    this.cluster = cluster
    this.own = own
    this.map = map
    this.version = `${map.shardCount} shards`
  }

  static async start(options: OwnClusterOptions): Promise<RoundhouseSide> {
    const own = await OwnCluster.start(options)
    try {
      return new RoundhouseSide(own.bench, own, await own.bench.map())
    } catch (error) {
      await own.stop()
      throw error
    }
  }

  static async running(cluster: BenchCluster): Promise<RoundhouseSide> {
    return new RoundhouseSide(cluster, null, await cluster.map())
  }

  get nodes(): readonly SideNode[] {
    return this.map.nodes
      .filter(node => node.clientAddress !== '' && node.state !== 'left')
      .map(node => ({ id: node.nodeId, address: node.clientAddress }))
  }

  leaderOf(key: string): string | null {
    const leader = this.map.leaders[this.shardOf(key)] ?? ''
    return this.map.nodes.some(node => node.nodeId === leader) ? leader : null
  }

  async askLeaders(): Promise<void> {
    this.map = await this.cluster.map()
  }

  keysLedBy(nodeId: string, most: number): readonly string[] {
    const byShard = new Map<number, string>()
    const led = this.map.leaders.filter(leader => leader === nodeId).length
    for (let number = 0; byShard.size < Math.min(most, led); number++) {
      const key = `bench:kill${number}`
      const shard = this.shardOf(key)
      if (this.map.leaders[shard] === nodeId && !byShard.has(shard)) byShard.set(shard, key)
    }
    return [...byShard.values()]
  }

  path(): string {
    return ClusterNodeService.runCommand.path
  }

  message(call: CallName, key: string, value: Uint8Array): Uint8Array {
    const request = CommandRequest.create()
    request.command = call === 'set' ? 'SET' : 'GET'
    request.key = key
    request.args = call === 'set' ? [Buffer.from(value.buffer, value.byteOffset, value.byteLength)] : []
    request.read = Read.LINEARIZABLE
    return CommandRequest.encode(request).finish()
  }

  valueIn(response: Uint8Array): Uint8Array | null {
    const { response: reply } = CommandResponse.decode(response)
    return reply?.$case === 'value' ? reply.value : null
  }

  client(nodeId: string): RawClient {
    const known = this.clients.get(nodeId)
    if (known !== undefined) return known
    const node = this.nodes.find(each => each.id === nodeId)
    if (node === undefined) throw new Error(`there is no ${nodeId}`)
    const client = new RawClient(node.address, this.cluster.credentials)
    this.clients.set(nodeId, client)
    return client
  }

  read(): Promise<readonly (NodeReading | null)[]> {
    return Promise.all(
      this.nodes.map(async ({ id, address }) => {
        const stats = await this.cluster.stats(address)
        if (stats === null) return null
        const { counters } = stats
        // Whatever the command: while one side is measured nobody else asks it anything.
        const calls = counters.calls
        const served = calls === undefined ? null : calls - (counters.calls_refused ?? 0)
        return {
          nodeId: id,
          cpuS: stats.cpuS,
          syncs: counters.journal_fsyncs ?? null,
          served: served === null ? null : { set: served, get: served },
        }
      }),
    )
  }

  async kill(nodeId: string): Promise<void> {
    if (this.own === null) throw new Error('nodes that run already are not killed')
    await this.own.kill(nodeId)
  }

  async restart(nodeId: string): Promise<void> {
    this.own?.restart(nodeId)
    await this.own?.ready()
    await this.askLeaders()
  }

  async stop(): Promise<void> {
    for (const client of this.clients.values()) client.close()
    await this.own?.stop()
  }

  /** Where somebody's cluster was measured. */
  async remove(keys: readonly string[]): Promise<void> {
    const node = this.nodes[0]!
    for (let from = 0; from < keys.length; from += keysPerDelete) {
      const [first, ...rest] = keys.slice(from, from + keysPerDelete)
      const request = CommandRequest.create()
      request.command = 'DEL'
      request.key = first!
      request.args = rest.map(key => Buffer.from(key))
      await this.client(node.id).ask(this.path(), CommandRequest.encode(request).finish(), deleteMsMax)
    }
  }

  private shardOf(key: string): number {
    return shardOfSlot(slotOf(Buffer.from(key)), this.map.shardCount)
  }
}
