/** Nodes that are only their wire: real servers on free ports, which note what they are asked and answer what a test says. */
import { type CallError, type Client, type ConnectOptions, connect } from '../../src/client/entry.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import type { Call, CallResult, ClusterStatus, NodeStatus } from '../../src/node/ports.ts'
import { createServer, type GrpcServer } from '../../src/wire/grpc/server.ts'
import { FakePeerService, FakeService, someStatus } from '../wire/grpc/fake-service.ts'

export const shardCount = 4

export class FakeNode extends FakeService {
  readonly id: string
  address = ''
  /** Why it gives no map. */
  mapError: RoundhouseError | null = null
  private readonly cluster: FakeNodes
  private server: GrpcServer | null = null

  constructor(id: string, cluster: FakeNodes) {
    super()
    this.id = id
    this.cluster = cluster
  }

  async listen(): Promise<void> {
    this.server = createServer({
      service: this,
      peerService: new FakePeerService(),
      isKeyed: () => true,
      messageTimeoutMs: 5_000,
      clock: systemClock,
      onUnexpected: error => {
        throw error
      },
    })
    const port = await this.server.listen('127.0.0.1', Number(this.address.split(':')[1] ?? 0))
    this.address = `127.0.0.1:${port}`
  }

  async close(graceMs = 50): Promise<void> {
    const { server } = this
    this.server = null
    await server?.close(graceMs)
  }

  override status(): ClusterStatus {
    if (this.mapError !== null) throw this.mapError
    const [node] = someStatus.nodes
    const nodes = this.cluster.nodes.map(
      ({ id, address }): NodeStatus => ({ ...node!, nodeId: id, address, clientAddress: address }),
    )
    const shards = this.cluster.leaders.map((leader, shardId) => ({
      ...someStatus.shards[0]!,
      shardId,
      leader: leader === null ? null : this.cluster.nodes[leader]!.id,
    }))
    return { ...someStatus, shardCount, nodes, shards }
  }

  /** What it was asked, as text. */
  get commands(): string[] {
    return this.calls.map(({ command, args }) =>
      [command, ...args.map(arg => Buffer.from(arg).toString())].join(' '),
    )
  }
}

export class FakeNodes {
  readonly nodes: FakeNode[] = []
  /** By shard, the place of the node that the map names; null: none. */
  leaders: (number | null)[] = Array.from({ length: shardCount }, () => 0)

  static async start(count: number): Promise<FakeNodes> {
    const fakes = new FakeNodes()
    for (let place = 0; place < count; place++) {
      const node = new FakeNode(`n${place}`, fakes)
      await node.listen()
      fakes.nodes.push(node)
    }
    return fakes
  }

  connect(options: Partial<ConnectOptions> = {}): Promise<Client> {
    return connect({ addresses: this.nodes.map(node => node.address), ...options })
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map(node => node.close()))
  }
}

export function shardOf(key: string): number {
  return shardOfSlot(slotOf(Buffer.from(key)), shardCount)
}

export const done: CallResult = { reply: { kind: 'success', success: true }, revision: 1, lagMs: 0 }
export const count = (value: number): CallResult => ({
  reply: { kind: 'count', count: value },
  revision: 1,
  lagMs: 0,
})

export function notLeader(address: string | null): RoundhouseError {
  return new RoundhouseError('NOT_LEADER', { shard: 0, leader: address === null ? null : 'other', address })
}

/** Never answers, until its caller is gone. */
export const silence = (call: Call): Promise<CallResult> =>
  new Promise((_resolve, reject) => {
    const timer = setTimeout(
      () => reject(new RoundhouseError('DEADLINE', { afterMs: 0, what: 'silence' })),
      20_000,
    )
    timer.unref()
    call.signal?.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(new RoundhouseError('DEADLINE', { afterMs: 0, what: 'cancelled' }))
    })
  })

/** The error of a call that is to fail. */
export async function errorOf(call: Promise<unknown>): Promise<CallError> {
  try {
    await call
  } catch (error) {
    return error as CallError
  }
  throw new Error('the call did not fail')
}
