/**
 * A whole cluster inside one process, for people's own tests: `import { startCluster } from 'roundhouse/testing'`. These
 * are the nodes that `serve` runs (same disk format, same wire, real sockets), on free ports of 127.0.0.1 and in a
 * temporary directory, with shorter timers. Only what ends a process can't be had here: a node stops, it is not killed.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Channel, type ChannelCredentials, credentials, Metadata } from '@grpc/grpc-js'
import type { RunningNode } from './cli/serve.ts'
import { readSettings } from './config.ts'
import { isError } from './errors.ts'
import { AdminClient, type StatusResponse } from './gen/roundhouse/v1/admin.ts'
import { loadCertificates } from './lib/certificates.ts'
import { createLogger, silentLogger } from './lib/logger.ts'
import { TlsChannelCredentials } from './lib/tls-channel.ts'
import { startNode } from './start-node.ts'

export interface ClusterOptions {
  /** 3 by default. */
  readonly nodes?: number
  /** A power of two; 8 by default, which starts sooner than a cluster's usual 64. */
  readonly shardCount?: number
  /** More settings of the nodes by their keys, such as `{ message_timeout: '1s' }`. */
  readonly settings?: Readonly<Record<string, string>>
  /** Certificates of the nodes (paths to PEM files), and one of an admin to ask them how they are. */
  readonly tls?: { readonly ca: string; readonly node: Pair; readonly admin: Pair }
  /** Nodes log nothing by default. */
  readonly logLevel?: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** How long the start may take, ms; 30,000 by default. */
  readonly timeout?: number
}

interface Pair {
  readonly cert: string
  readonly key: string
}

export interface ClusterNode {
  readonly id: string
  /** host:port, for clients. */
  readonly address: string
  readonly isRunning: boolean
  /** Hands over what it leads and stops. Its data stays. */
  stop(): Promise<void>
  /** Starts it again, with its data; resolves when its port is open. */
  start(): Promise<void>
}

const startMsMax = 30_000
const pollMs = 20
const portTriesMax = 5
/** Enough for an event loop that all nodes and the test share. */
const timers = { heartbeat_interval: '200ms', raft_tick: '25ms', journal_budget: '64MiB' }

/** Resolves when every shard has its voters and a leader. Rejects, with nothing left behind, when that does not come. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const { nodes = 3, timeout = startMsMax } = options
  if (!Number.isInteger(nodes) || nodes < 1) throw new RangeError(`nodes: an integer from 1 up, not ${nodes}`)
  const cluster = new Cluster(await mkdtemp(join(tmpdir(), 'roundhouse-testing-')), options)
  try {
    for (let count = 0; count < nodes; count++) await cluster.add()
    await cluster.settled(timeout)
    return cluster
  } catch (error) {
    await cluster.stop()
    throw error
  }
}

export class Cluster {
  readonly nodes: readonly ClusterNode[]
  private readonly members: Member[] = []
  private readonly directory: string
  private readonly options: ClusterOptions
  private readonly credentials: ChannelCredentials
  private stopped: Promise<void> | null = null

  /** `startCluster` makes one. */
  constructor(directory: string, options: ClusterOptions) {
    this.nodes = this.members
    this.directory = directory
    this.options = options
    this.credentials = credentialsOf(options)
  }

  /** host:port of each node, for `connect`. */
  get addresses(): string[] {
    return this.nodes.map(node => node.address)
  }

  /** Starts one more node; it takes its share of the data in the background. */
  async add(): Promise<ClusterNode> {
    const id = `node${this.members.length + 1}`
    const seed = this.members.find(each => each.isRunning)?.address
    const place = seed === undefined ? { bootstrap: 'true' } : { seed }
    for (let attempt = 1; ; attempt++) {
      const member = new Member(id, await freePort(), join(this.directory, id), place, this.options)
      try {
        await member.start()
        this.members.push(member)
        return member
      } catch (error) {
        if (!isError(error, 'PORT_IN_USE') || attempt === portTriesMax) throw error
      }
    }
  }

  /** Resolves when all nodes that run are members and every shard has its voters and a leader among them. */
  async settled(timeoutMs: number = startMsMax): Promise<void> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const trouble = await this.trouble()
      if (trouble === null) return
      if (performance.now() > deadline)
        throw new Error(`the cluster is not in place after ${timeoutMs} ms: ${trouble}`)
      await new Promise(resolve => setTimeout(resolve, pollMs))
    }
  }

  /** Stops all nodes and removes their data. */
  stop(): Promise<void> {
    this.stopped ??= this.end()
    return this.stopped
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  private async end(): Promise<void> {
    await Promise.all(this.members.map(member => member.stop()))
    await rm(this.directory, { recursive: true, force: true, maxRetries: 3 })
  }

  /** What is missing; null: nothing. */
  private async trouble(): Promise<string | null> {
    const running = this.members.filter(member => member.isRunning)
    try {
      const all = await Promise.all(running.map(({ address }) => this.status(address)))
      return all.map(status => missingIn(status, running)).find(each => each !== null) ?? null
    } catch (error) {
      return (error as Error).message
    }
  }

  private status(address: string): Promise<StatusResponse> {
    const channel = new Channel(address, this.credentials, { 'grpc.use_local_subchannel_pool': 1 })
    const admin = new AdminClient(address, this.credentials, { channelOverride: channel })
    return new Promise((resolve, reject) => {
      admin.status({}, new Metadata(), { deadline: Date.now() + 2_000 }, (error, status) => {
        setImmediate(() => channel.close())
        if (error === null) resolve(status)
        else reject(error)
      })
    })
  }
}

class Member implements ClusterNode {
  readonly id: string
  readonly address: string
  private readonly flags: Readonly<Record<string, string>>
  private running: RunningNode | null = null

  constructor(
    id: string,
    port: number,
    dataDir: string,
    place: Readonly<Record<string, string>>,
    { shardCount = 8, settings = {}, tls, logLevel = 'silent' }: ClusterOptions,
  ) {
    this.id = id
    this.address = `127.0.0.1:${port}`
    const files =
      tls === undefined
        ? {}
        : { tls_ca_path: tls.ca, tls_cert_path: tls.node.cert, tls_key_path: tls.node.key }
    const own = { node_id: id, host: '127.0.0.1', port: `${port}`, data_dir: dataDir, log_level: logLevel }
    const all = { ...timers, shard_count: `${shardCount}`, ...settings, ...files, ...own, ...place }
    this.flags = Object.fromEntries(
      Object.entries(all).map(([key, value]) => [key.replaceAll('_', '-'), value]),
    )
  }

  get isRunning(): boolean {
    return this.running !== null
  }

  async start(): Promise<void> {
    if (this.running !== null) throw new Error(`${this.id} runs already`)
    const settings = readSettings(this.flags, {})
    const level = settings.logLevel
    const log = level === 'silent' ? silentLogger : createLogger({ level, pretty: false, descriptor: 2 })
    const running = await startNode(settings, log.child({ node: this.id }), new AbortController().signal)
    this.running = running
    void running.finished.then(() => {
      if (this.running === running) this.running = null
    })
  }

  async stop(): Promise<void> {
    const { running } = this
    this.running = null
    await running?.stop()
  }
}

function missingIn({ nodes, shards, meta }: StatusResponse, running: readonly Member[]): string | null {
  const alive = nodes.filter(node => node.state === 'alive').map(node => node.nodeId)
  const absent = running.find(({ id }) => !alive.includes(id))
  if (absent !== undefined) return `${absent.id} has not joined`
  const replicas = Math.min(3, nodes.length)
  const voters = replicas % 2 === 1 ? replicas : replicas - 1
  for (const shard of [...(meta === undefined ? [] : [meta]), ...shards]) {
    if (!running.some(({ id }) => id === shard.leader)) return `shard ${shard.shardId} has no leader`
    if (
      shard !== meta &&
      (shard.voters.length < voters || shard.voters.length + shard.learners.length < replicas)
    )
      return `shard ${shard.shardId} has ${shard.voters.length} voters and ${shard.learners.length} learners`
  }
  return shards.length === 0 ? 'the cluster has no shards yet' : null
}

function credentialsOf({ tls }: ClusterOptions): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure()
  const loaded = loadCertificates({ ca: tls.ca, ...tls.admin }, Date.now())
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'))
  return new TlsChannelCredentials(() => loaded.value)
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen({ host: '127.0.0.1', port: 0, exclusive: true }, () => {
      const { port } = probe.address() as { port: number }
      probe.close(() => resolve(port))
    })
  })
}
