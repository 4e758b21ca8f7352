/** Nodes that share one log in memory and speak the real contracts of streams over real sockets. */
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type ServiceError,
} from '@grpc/grpc-js'
import {
  type ConsumeRequest,
  ConsumeResponse,
  type LogServer,
  LogService,
  type ProduceRequest,
  ProduceResponse,
  Record,
} from '../../src/gen/log/v1/log.ts'
import {
  type AdminServer,
  AdminService,
  MapResponse,
  StatsResponse,
} from '../../src/gen/roundhouse/v1/admin.ts'
import { type ShardsServer, ShardsService } from '../../src/gen/roundhouse/v1/shards.ts'
import {
  CreateStreamResponse,
  type StreamsServer,
  StreamsService,
} from '../../src/gen/roundhouse/v1/streams.ts'

export const shardCount = 4

export interface FakeStreams {
  readonly addresses: readonly string[]
  /** By node. */
  readonly produced: readonly ProduceRequest[][]
  readonly consumed: readonly ConsumeRequest[][]
  readonly created: { readonly name: string; readonly partitions: number }[]
  readonly deleted: string[]
  /** By `stream/partition`. */
  readonly records: ReadonlyMap<string, readonly Record[]>
}

export interface FakeBehaviour {
  /** Called with each request to produce, before it is appended; an error refuses it. */
  onProduce?: (request: ProduceRequest) => ServiceError | 'no answer' | undefined
  /** Sends a follower what it should get, or something else. */
  deliver?: (records: readonly Record[], send: (records: readonly Record[]) => void) => void
  /** Records of one response. */
  responseRecords?: number
}

/** Two nodes: they lead the even and the odd shards. */
export async function withStreams(
  behaviour: FakeBehaviour,
  use: (streams: FakeStreams) => Promise<void>,
): Promise<void> {
  const addresses: string[] = []
  const records = new Map<string, Record[]>()
  const wakers = new Set<() => void>()
  const streams = {
    ...{ addresses, records },
    produced: [[], []] as ProduceRequest[][],
    consumed: [[], []] as ConsumeRequest[][],
    created: [] as { name: string; partitions: number }[],
    deleted: [] as string[],
  }
  const append = (request: ProduceRequest): ProduceResponse => {
    const { stream, partition = 0 } = request
    const key = `${stream}/${partition}`
    const log = records.get(key) ?? []
    records.set(key, log)
    const offset = BigInt(log.length)
    for (const each of request.records)
      log.push(
        Record.fromPartial({
          ...each,
          offset: BigInt(log.length),
          term: 3n,
          timestampMs: 1_800_000_000_000n,
        }),
      )
    for (const wake of wakers) wake()
    return ProduceResponse.fromPartial({ offset, partition, count: request.records.length })
  }
  const follow = (call: ServerWritableStream<ConsumeRequest, ConsumeResponse>) => {
    const { stream, partition, idleMs } = call.request
    let next = Number(call.request.offset)
    const send = (some: readonly Record[]) => {
      if (!call.cancelled)
        call.write(ConsumeResponse.fromPartial({ records: [...some], endOffset: 9n, lagMs: 2 }))
    }
    const wake = () => {
      const log = records.get(`${stream}/${partition}`) ?? []
      const step = behaviour.responseRecords ?? 100
      for (; next < log.length; next = Math.min(log.length, next + step)) {
        const some = log.slice(next, next + step)
        if (behaviour.deliver === undefined) send(some)
        else behaviour.deliver(some, send)
      }
      if (idleMs === 0) call.end()
    }
    wake()
    if (idleMs === 0) return
    wakers.add(wake)
    call.once('cancelled', () => wakers.delete(wake))
  }
  const servers = [0, 1].map(place => {
    const server = new Server()
    server.addService(LogService, {
      produce: (call, callback) => {
        streams.produced[place]!.push(call.request)
        const answer = behaviour.onProduce?.(call.request)
        if (answer instanceof Error) callback(answer)
        else {
          const response = append(call.request)
          if (answer !== 'no answer') callback(null, response)
        }
      },
      produceStream: (call: ServerDuplexStream<ProduceRequest, ProduceResponse>) => {
        call.on('data', (request: ProduceRequest) => {
          streams.produced[place]!.push(request)
          const answer = behaviour.onProduce?.(request)
          if (answer instanceof Error) call.emit('error', answer)
          else call.write(append(request))
        })
        call.on('end', () => call.end())
      },
      consumeStream: call => {
        streams.consumed[place]!.push(call.request)
        follow(call)
      },
    } as LogServer)
    server.addService(StreamsService, {
      create: ({ request: { name, partitions } }, callback) => {
        streams.created.push({ name, partitions })
        callback(null, CreateStreamResponse.fromPartial({ stream: { name, partitions } }))
      },
      delete: ({ request: { name } }, callback) => {
        streams.deleted.push(name)
        callback(null, {})
      },
    } as StreamsServer)
    server.addService(ShardsService, {
      map: (_call, callback) => {
        const nodes = addresses.map((clientAddress, number) => ({
          nodeId: `n${number}`,
          clientAddress,
          state: 'alive',
        }))
        callback(null, MapResponse.fromPartial({ shardCount, nodes, leaders: ['n0', 'n1', 'n0', 'n1'] }))
      },
    } as ShardsServer)
    server.addService(AdminService, {
      stats: (_call, callback) => callback(null, StatsResponse.fromPartial({ nodeId: `n${place}`, cpuS: 1 })),
    } as AdminServer)
    return server
  })
  try {
    for (const server of servers) {
      const port = await new Promise<number>((resolve, reject) => {
        server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        )
      })
      addresses.push(`127.0.0.1:${port}`)
    }
    await use(streams)
  } finally {
    for (const server of servers) server.forceShutdown()
  }
}
