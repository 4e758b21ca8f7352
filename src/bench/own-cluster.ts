/**
 * A cluster of ours that the bench starts for itself: one process a node, free ports of 127.0.0.1, a temporary directory,
 * and the defaults of the product whatever the environment says. Its nodes can be killed and started again one by one,
 * which those of `dev start` can't. Everything is gone when it is stopped.
 */
import { join } from 'node:path'
import { Channel, type ChannelCredentials, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { ClusterNodeClient, CommandRequest, type CommandResponse } from '../gen/clusterpb/cluster.ts'
import { ConsumeRequest, type ConsumeResponse, LogClient } from '../gen/log/v1/log.ts'
import { AdminClient, type StatsResponse, type StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import { StreamsClient } from '../gen/roundhouse/v1/streams.ts'
import { freePort, OwnProcess, removeDirectory, temporaryDirectory } from './own-process.ts'
import type { BenchCluster } from './ports.ts'

const pollMs = 100
/** Between tries to reach a node that is down: the finest step of what a restart takes. */
const redialMs = 20
const callMsMax = 3_000
const streamMsMax = 15_000
/** A machine that others use too may take its time. */
const readyMsMax = 180_000

export interface OwnClusterOptions {
  /** What starts a node, to be followed by `serve …`. */
  readonly program: readonly string[]
  readonly nodes: number
  readonly shardCount: number
  /** More flags of `serve`. */
  readonly flags?: readonly string[]
  readonly signal: AbortSignal
}

export interface OwnNode {
  readonly id: string
  readonly address: string
  readonly process: OwnProcess
}

export class OwnCluster {
  readonly bench: BenchCluster
  private readonly options: OwnClusterOptions
  private readonly directory = temporaryDirectory()
  private readonly members: OwnNode[] = []
  private readonly channels = new Map<string, Channel>()
  private readonly credentials: ChannelCredentials = credentials.createInsecure()

  private constructor(options: OwnClusterOptions) {
    this.options = options
    this.bench = {
      credentials: this.credentials,
      map: () => this.anywhere((admin, call) => admin.map({}, new Metadata(), ...call)),
      stats: address =>
        this.ask<StatsResponse>(address, callMsMax, (channel, call) =>
          adminOf(address, channel).stats({}, new Metadata(), ...call),
        ).catch(() => null),
      createStream: async (name, partitions) => {
        const request = { name, partitions, ifMissing: false }
        await this.ofStreams((streams, call) => streams.create(request, new Metadata(), ...call))
      },
      deleteStream: async name => {
        await this.ofStreams((streams, call) => streams.delete({ name }, new Metadata(), ...call))
      },
    }
  }

  /** Resolves when every shard has its voters and a leader. Rejects, with nothing left behind, when that does not come. */
  static async start(options: OwnClusterOptions): Promise<OwnCluster> {
    const cluster = new OwnCluster(options)
    try {
      for (let number = 1; number <= options.nodes; number++) await cluster.spawn(number)
      await cluster.ready()
      return cluster
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  get nodes(): readonly OwnNode[] {
    return this.members
  }

  node(id: string): OwnNode {
    const node = this.members.find(each => each.id === id)
    if (node === undefined) throw new Error(`there is no ${id}`)
    return node
  }

  /** One node more; resolves when its process has started. */
  addNode(): Promise<OwnNode> {
    return this.spawn(this.members.length + 1)
  }

  async kill(id: string): Promise<void> {
    await this.node(id).process.kill()
  }

  /** A node that has ended, with its data. */
  restart(id: string): void {
    const place = this.members.findIndex(each => each.id === id)
    const { address } = this.members[place]!
    const seeds = this.members.filter(each => each.id !== id).map(each => each.address)
    const known = seeds.length === 0 ? [] : ['--seed', seeds.join(',')]
    const node = { id, address, process: this.process(id, address, known) }
    this.members[place] = node
  }

  status(): Promise<StatusResponse> {
    return this.anywhere((admin, call) => admin.status({}, new Metadata(), ...call))
  }

  /** As one node sees it. */
  statusOf(node: OwnNode): Promise<StatusResponse> {
    return this.ask(node.address, callMsMax, (channel, call) =>
      adminOf(node.address, channel).status({}, new Metadata(), ...call),
    )
  }

  /** Whether a linearizable read of a key is answered through this node, and finds it. */
  async reads(node: OwnNode, key: string): Promise<boolean> {
    const request = CommandRequest.fromPartial({ command: 'GET', key })
    const { error, response } = await this.ask<CommandResponse>(node.address, callMsMax, (channel, call) =>
      new ClusterNodeClient(node.address, this.credentials, { channelOverride: channel }).runCommand(
        request,
        new Metadata(),
        ...call,
      ),
    )
    return error === '' && response?.$case === 'value' && response.value.length > 0
  }

  /** Whether this node has this record of a stream, and knows by a linearizable question that it is no old state. */
  async consumes(node: OwnNode, stream: string, partition: number, offset: bigint): Promise<boolean> {
    const request = ConsumeRequest.fromPartial({ stream, partition, offset, linearizable: true })
    const { record } = await this.ask<ConsumeResponse>(node.address, callMsMax, (channel, call) =>
      new LogClient(node.address, this.credentials, { channelOverride: channel }).consume(
        request,
        new Metadata(),
        ...call,
      ),
    )
    return record?.offset === offset && record.value.length > 0
  }

  /**
   * Waits until every node that runs says that all are members, every shard has its voters and a leader, and nothing is on
   * its way: one that has just come back knows last, and counts for nothing before.
   */
  async ready(msMax = readyMsMax): Promise<void> {
    const untilMs = performance.now() + msMax
    for (;;) {
      const trouble = await this.trouble()
      if (trouble === null) return
      this.options.signal.throwIfAborted()
      const ended = this.members.find(({ process }) => !process.isRunning)
      if (ended !== undefined) throw new Error(`${ended.id} has ended:\n${ended.process.lastLines()}`)
      if (performance.now() > untilMs)
        throw new Error(`the cluster is not in place after ${msMax / 1_000} s: ${trouble}`)
      await new Promise(resolve => setTimeout(resolve, pollMs))
    }
  }

  async stop(): Promise<void> {
    for (const channel of this.channels.values()) channel.close()
    this.channels.clear()
    await Promise.all(this.members.map(({ process }) => process.stop()))
    removeDirectory(this.directory)
  }

  /** What is not in place; null: nothing. */
  private async trouble(): Promise<string | null> {
    try {
      const running = this.running()
      const all = await Promise.all(running.map(node => this.statusOf(node)))
      return all.map(status => missingIn(status, running)).find(each => each !== null) ?? null
    } catch (error) {
      return (error as Error).message
    }
  }

  // --- Small parts --------------------------------------------------------------------------------------------------

  private running(): OwnNode[] {
    return this.members.filter(({ process }) => process.isRunning)
  }

  private async spawn(number: number): Promise<OwnNode> {
    const id = `node${number}`
    const address = `127.0.0.1:${await freePort()}`
    const seeds = this.running().map(each => each.address)
    const place = seeds.length === 0 ? ['--bootstrap'] : ['--seed', seeds.join(',')]
    const node = { id, address, process: this.process(id, address, place) }
    this.members.push(node)
    return node
  }

  private process(id: string, address: string, place: readonly string[]): OwnProcess {
    const { program, shardCount, flags = [] } = this.options
    const [host, port] = address.split(':')
    const own = ['--node-id', id, '--host', host!, '--port', port!, '--data-dir', join(this.directory, id)]
    const settings = ['--shard-count', String(shardCount), '--log-level', 'warn', ...flags]
    return new OwnProcess({
      name: id,
      command: [...program, 'serve', ...own, ...settings, ...place],
      env: { PATH: process.env.PATH ?? '', ROUNDHOUSE_SUPERVISED: '1' },
      // No .env of whoever runs the bench.
      directory: this.directory,
      isSupervised: true,
    })
  }

  private anywhere<T>(make: (admin: AdminClient, call: CallEnd<T>) => { cancel(): void }): Promise<T> {
    const tried = this.running().map(({ address }) =>
      this.ask<T>(address, callMsMax, (channel, call) => make(adminOf(address, channel), call)),
    )
    return Promise.any(tried).catch((error: AggregateError) => {
      throw error.errors[0] ?? new Error('no node runs')
    })
  }

  private async ofStreams<T>(
    make: (streams: StreamsClient, call: CallEnd<T>) => { cancel(): void },
  ): Promise<void> {
    const { address } = this.running()[0]!
    await this.ask<T>(address, streamMsMax, (channel, call) =>
      make(new StreamsClient(address, this.credentials, { channelOverride: channel }), call),
    )
  }

  private ask<T>(
    address: string,
    msMax: number,
    make: (channel: Channel, call: CallEnd<T>) => { cancel(): void },
  ): Promise<T> {
    let channel = this.channels.get(address)
    if (channel === undefined) {
      // Nodes that were killed are back soon.
      const options = {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.initial_reconnect_backoff_ms': redialMs,
        'grpc.max_reconnect_backoff_ms': redialMs,
        'grpc.max_receive_message_length': 32 * 2 ** 20,
      }
      channel = new Channel(address, this.credentials, options)
      this.channels.set(address, channel)
    }
    return new Promise((resolve, reject) => {
      make(channel, [
        { deadline: Date.now() + msMax },
        (error, response) => (error === null ? resolve(response) : reject(error)),
      ])
    })
  }
}

/** The last arguments of a generated client's method. */
type CallEnd<T> = [{ readonly deadline: number }, (error: ServiceError | null, response: T) => void]

function adminOf(address: string, channel: Channel): AdminClient {
  return new AdminClient(address, credentials.createInsecure(), { channelOverride: channel })
}

/** What is not in place; null: nothing. */
function missingIn(
  { nodes, shards, meta, rebalance }: StatusResponse,
  running: readonly OwnNode[],
): string | null {
  const alive = nodes.filter(node => node.state === 'alive').map(node => node.nodeId)
  const absent = running.find(({ id }) => !alive.includes(id))
  if (absent !== undefined) return `${absent.id} is no member yet`
  // A node that has just joined has its share still to come.
  const waiting = nodes.find(({ nodeId, replicas }) => alive.includes(nodeId) && replicas === 0)
  const replicas = Math.min(3, running.length)
  const voters = replicas % 2 === 1 ? replicas : replicas - 1
  for (const shard of [...(meta === undefined ? [] : [meta]), ...shards]) {
    if (!alive.includes(shard.leader)) return `shard ${shard.shardId} has no leader`
    if (shard !== meta && shard.voters.length < voters)
      return `shard ${shard.shardId} has ${shard.voters.length} of ${voters} voters`
    if (shard !== meta && shard.voters.length + shard.learners.length !== replicas)
      return `shard ${shard.shardId} has ${shard.learners.length} learners`
  }
  if (shards.length === 0) return 'the cluster has no shards yet'
  if (waiting !== undefined && shards.length * replicas >= running.length)
    return `${waiting.nodeId} has no replica yet`
  return rebalance === undefined || rebalance.state === 'idle' ? null : `the rebalance is ${rebalance.state}`
}
