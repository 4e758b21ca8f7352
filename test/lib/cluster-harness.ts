/**
 * A cluster of real processes on this machine, for the tests in test/cluster: made, grown, damaged, waited for, and taken
 * away with everything it left behind.
 */
import { join } from 'node:path'
import { after, before, type TestContext } from 'node:test'
import type { StatusResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import { Client } from './cluster-client.ts'
import { freePort, NodeProcess, removeDirectory, temporaryDirectory } from './cluster-node.ts'
import { isFull } from './scale.ts'

export interface ClusterOptions {
  readonly nodes?: number
  readonly shardCount?: number
  /** More flags of `serve`, for all nodes. */
  readonly flags?: readonly string[]
  /** Variables beside PATH, for all nodes. */
  readonly env?: Readonly<Record<string, string>>
  /** What Node itself is told, for all nodes. */
  readonly runtime?: readonly string[]
}

type SharedTest = (cluster: Cluster, t: TestContext) => Promise<void>

/** Gossip and Raft in small steps: what takes seconds by default takes tenths. */
export const fastFlags = ['--heartbeat-interval', '200ms', '--raft-tick', '25ms'] as const

/**
 * The room for new objects is that of the program's own first line. Compilers that optimize are asked later than they would be:
 * in the seconds that a node lives here they cost a sixth of all the processor's time and give little of it back.
 */
const shortLife = isFull
  ? []
  : ['--max-semi-space-size=64', '--min-semi-space-size=16', '--interrupt-budget=400000']

/** Lines of a node's log in the report of a failure. */
const reportLines = 25

export class Cluster {
  readonly directory: string = temporaryDirectory()
  readonly client: Client = new Client()
  readonly nodes: NodeProcess[] = []
  private readonly count: number
  private readonly flags: readonly string[]
  private readonly env: Readonly<Record<string, string>>
  private readonly runtime: readonly string[]

  private constructor(options: ClusterOptions) {
    const { nodes = 3, shardCount = 16, flags = fastFlags, env = {}, runtime = shortLife } = options
    this.count = nodes
    this.flags = ['--shard-count', String(shardCount), '--log-level', 'info', ...flags]
    this.env = env
    this.runtime = runtime
  }

  /** A cluster that is there when `test` begins and gone when it ends, however it ends. */
  static async with(options: ClusterOptions, test: (cluster: Cluster) => Promise<void>): Promise<void> {
    const cluster = new Cluster(options)
    try {
      await cluster.start()
      await cluster.reported(test)
    } finally {
      await cluster.end()
    }
  }

  /**
   * A cluster for all tests of a `describe`, in their order: three nodes that start cost more than most of what is done with
   * them. The answer makes what `it` takes of a test.
   */
  static shared(options: ClusterOptions): (test: SharedTest) => (t: TestContext) => Promise<void> {
    const cluster = new Cluster(options)
    before(() => cluster.start())
    after(() => cluster.end())
    return test => t => cluster.reported(() => test(cluster, t))
  }

  private async start(): Promise<void> {
    await this.reported(async () => {
      for (let number = 1; number <= this.count; number++) (await this.add()).start()
      await this.settled()
    })
  }

  /** A failure tells the end of every node's log. */
  private async reported(test: (cluster: Cluster) => Promise<void>): Promise<void> {
    try {
      await test(this)
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.report()}`, { cause: error })
    }
  }

  /** A node that is not started yet: the first founds the cluster, the others ask those before them. */
  async add(): Promise<NodeProcess> {
    const id = `node${this.nodes.length + 1}`
    const seeds = this.nodes.map(node => node.address).join(',')
    const place = seeds === '' ? ['--bootstrap'] : ['--seed', seeds]
    const node = new NodeProcess(id, await freePort(), join(this.directory, id), [...this.flags, ...place])
    node.env = this.env
    node.runtime = this.runtime
    this.nodes.push(node)
    return node
  }

  /** node1, node2, … */
  node(number: number): NodeProcess {
    const node = this.nodes[number - 1]
    if (node === undefined) throw new Error(`there is no node${number}`)
    return node
  }

  /** Nodes that can answer. */
  get awake(): NodeProcess[] {
    return this.nodes.filter(node => node.isAwake)
  }

  /** The address of any node that can answer: another one each time, by chance. */
  readonly anyNode = (): string => {
    const awake = this.awake
    const node = awake[Math.floor(Math.random() * awake.length)] ?? this.nodes[0]!
    return node.address
  }

  status(node: NodeProcess): Promise<StatusResponse> {
    return this.client.status(node.address)
  }

  /**
   * Waits until every node that can answer says that all is in place; the answer is the first node's status. While one does not
   * say so the others are not asked: a status of many shards is work, for the nodes as for who reads it.
   */
  async settled(withinMs = 40_000): Promise<StatusResponse> {
    const members = this.awake.length
    return await eventually('the cluster is in place', withinMs, async () => {
      let first: StatusResponse | null = null
      for (const node of this.awake) {
        const status = await this.status(node)
        const trouble = unsettled(status, members)
        if (trouble !== null) throw new Error(`${node.id}: ${trouble}`)
        first ??= status
      }
      return first
    })
  }

  /** The node that leads most shards. */
  async busiestLeader(): Promise<NodeProcess> {
    const status = await this.status(this.awake[0]!)
    const most = [...status.nodes].sort((a, b) => b.leaders - a.leaders)[0]!
    return this.nodes.find(node => node.id === most.nodeId)!
  }

  /** The end of every node's log. */
  report(): string {
    return this.nodes
      .map(node => `--- ${node.id} (${node.address})\n${lastLines(node.output, reportLines)}`)
      .join('\n')
  }

  private async end(): Promise<void> {
    this.client.close()
    await Promise.all(this.nodes.map(node => node.kill()))
    removeDirectory(this.directory)
  }
}

/** What is not in place yet; null when nothing is missing. */
function unsettled(status: StatusResponse, members: number): string | null {
  const alive = status.nodes.filter(node => node.state === 'alive')
  if (alive.length !== members || status.nodes.length !== members)
    return `${alive.length} of ${status.nodes.length} members are alive, ${members} should be`
  const replicas = Math.min(3, members)
  const voters = replicas % 2 === 1 ? replicas : replicas - 1
  for (const shard of [status.meta!, ...status.shards]) {
    if (shard.leader === '') return `shard ${shard.shardId} has no leader`
    if (!alive.some(node => node.nodeId === shard.leader))
      return `shard ${shard.shardId} is led by ${shard.leader}`
  }
  for (const { shardId, voters: has, learners } of status.shards)
    if (has.length !== voters || has.length + learners.length !== replicas)
      return `shard ${shardId} has the voters ${has.join(' ')} and the learners ${learners.join(' ')}`
  const { state, blockedBy } = status.rebalance!
  return state === 'idle' ? null : `the rebalance is ${state} ${blockedBy}`
}

/** Asks again until `condition` neither throws nor answers false or null. Rejects with the last trouble at the deadline. */
export async function eventually<T>(
  what: string,
  withinMs: number,
  condition: () => Promise<T> | T,
): Promise<NonNullable<Exclude<T, false>>> {
  const untilMs = Date.now() + withinMs
  let last = 'it is not so'
  for (;;) {
    try {
      const value = await condition()
      if (value !== false && value !== null && value !== undefined)
        return value as NonNullable<Exclude<T, false>>
    } catch (error) {
      last = (error as Error).message
    }
    if (Date.now() > untilMs) throw new Error(`not within ${withinMs} ms: ${what}; last: ${last}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n')
}
