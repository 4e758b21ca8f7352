/** Nodes that speak the real contracts over real sockets, with answers that a test chooses. */

import { BinaryWriter } from '@bufbuild/protobuf/wire'
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type ServiceError,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import type { Output, Shell } from '../../src/cli/shell.ts'
import { ClusterNodeService, type CommandRequest, CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import { HealthCheckResponse_ServingStatus, HealthService } from '../../src/gen/grpc/health/v1/health.ts'
import {
  AdminService,
  type LeaveRequest,
  type MapResponse,
  RebalanceStatus,
  type StatsResponse,
  type StatusResponse,
} from '../../src/gen/roundhouse/v1/admin.ts'
import { ShardsService } from '../../src/gen/roundhouse/v1/shards.ts'
import { type WatchRequest, type WatchResponse, WatchService } from '../../src/gen/roundhouse/v1/watch.ts'

export interface FakeAnswers {
  command?: (request: CommandRequest) => CommandResponse | ServiceError | 'silence'
  status?: () => StatusResponse
  rebalance?: (action: string) => RebalanceStatus
  leave?: (request: LeaveRequest) => ServiceError | null
  stats?: () => StatsResponse
  map?: () => MapResponse
  watch?: (call: ServerWritableStream<WatchRequest, WatchResponse>) => void
  isServing?: boolean
}

export interface FakeNode {
  readonly address: string
  readonly requests: CommandRequest[]
  close(): void
}

const unimplemented = Object.assign(new Error('not in this test'), {
  code: status.UNIMPLEMENTED,
}) as ServiceError

export async function fakeNode(answers: FakeAnswers, port = 0): Promise<FakeNode> {
  const requests: CommandRequest[] = []
  const server = new Server()
  const reply = <T>(callback: sendUnaryData<T>, answer: T | ServiceError | undefined) => {
    if (answer === undefined) callback(unimplemented)
    else if (answer instanceof Error) callback(answer as ServiceError)
    else callback(null, answer)
  }
  server.addService(ClusterNodeService, {
    heartbeat: (_call, callback) => callback(unimplemented),
    streamCommand: call => {
      if (answers.command === undefined) {
        call.destroy(unimplemented)
        return
      }
      call.on('data', (request: CommandRequest) => {
        requests.push(request)
        const answer = answers.command!(request)
        if (answer instanceof Error) call.emit('error', answer)
        else if (answer !== 'silence') call.write(answer)
      })
      call.on('end', () => call.end())
    },
    runCommand: (call, callback) => {
      requests.push(call.request)
      const answer = answers.command?.(call.request)
      if (answer !== 'silence') reply(callback, answer)
    },
  } as import('../../src/gen/clusterpb/cluster.ts').ClusterNodeServer)
  server.addService(AdminService, {
    status: (_call, callback) => reply(callback, answers.status?.()),
    map: (_call, callback) => reply(callback, answers.map?.()),
    stats: (_call, callback) => reply(callback, answers.stats?.()),
    leave: (call, callback) => reply(callback, answers.leave?.(call.request) ?? {}),
    rebalance: (call, callback) => {
      const rebalance = answers.rebalance?.(call.request.action)
      reply(callback, rebalance === undefined ? undefined : { rebalance })
    },
  } as import('../../src/gen/roundhouse/v1/admin.ts').AdminServer)
  server.addService(ShardsService, {
    map: (_call, callback) => reply(callback, answers.map?.()),
  } as import('../../src/gen/roundhouse/v1/shards.ts').ShardsServer)
  server.addService(WatchService, {
    watch: call => {
      if (answers.watch === undefined) call.destroy(unimplemented)
      else answers.watch(call)
    },
  } as import('../../src/gen/roundhouse/v1/watch.ts').WatchServer)
  server.addService(HealthService, {
    check: (_call, callback) => {
      const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus
      callback(null, { status: answers.isServing === false ? NOT_SERVING : SERVING })
    },
    watch: call => call.destroy(unimplemented),
  } as import('../../src/gen/grpc/health/v1/health.ts').HealthServer)
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, found) =>
      error === null ? resolve(found) : reject(error),
    )
  })
  return { address: `127.0.0.1:${bound}`, requests, close: () => server.forceShutdown() }
}

/** A refusal as a node makes it: google.rpc.Status { 3: Any { type_url, ErrorInfo { reason, domain } } }. */
export function refusal(grpcStatus: number, code: string, message: string): ServiceError {
  const info = new BinaryWriter().uint32(10).string(code).uint32(18).string('roundhouse').finish()
  const any = new BinaryWriter().uint32(10).string('type.googleapis.com/google.rpc.ErrorInfo')
  const details = new BinaryWriter()
    .uint32(8)
    .int32(grpcStatus)
    .uint32(18)
    .string(message)
    .uint32(26)
    .bytes(any.uint32(18).bytes(info).finish())
    .finish()
  const metadata = new Metadata()
  metadata.set('grpc-status-details-bin', Buffer.from(details))
  return Object.assign(new Error(message), { code: grpcStatus, details: message, metadata }) as ServiceError
}

export const value = (text: string | Uint8Array): CommandResponse =>
  CommandResponse.fromPartial({ response: { $case: 'value', value: Buffer.from(text) }, revision: 7n })
export const nil = (): CommandResponse => CommandResponse.fromPartial({ revision: 7n })
export const success = (done: boolean, affected?: bigint): CommandResponse =>
  CommandResponse.fromPartial({ response: { $case: 'success', value: done }, affected, revision: 7n })
export const count = (number: bigint): CommandResponse =>
  CommandResponse.fromPartial({ response: { $case: 'count', value: number }, revision: 7n })

/** A cluster of `nodes`, every one with as many replicas as shards, all led by the first. */
export function statusOf(
  nodes: Readonly<Record<string, string>>,
  more: Partial<StatusResponse> = {},
): StatusResponse {
  const ids = Object.keys(nodes)
  const shard = (shardId: number) => ({
    shardId,
    slotFrom: shardId * 8192,
    slotTo: (shardId + 1) * 8192,
    term: 3n,
    leader: ids[0]!,
    voters: ids,
    learners: [],
    applied: 12n,
  })
  return {
    clusterId: 'c1',
    epoch: 5n,
    nodes: Object.entries(nodes).map(([nodeId, address], place) => ({
      nodeId,
      address,
      clientAddress: address,
      state: 'alive',
      zone: '',
      replicas: 2,
      leaders: place === 0 ? 2 : 0,
      disk: 'ok',
      featureLevel: 1,
    })),
    featureLevel: 1,
    shards: [shard(0), shard(1)],
    meta: { ...shard(0), slotTo: 0 },
    rebalance: rebalanceOf({ state: 'idle' }),
    ...more,
  }
}

export function rebalanceOf(partial: Partial<RebalanceStatus>): RebalanceStatus {
  return RebalanceStatus.fromPartial(partial as Parameters<typeof RebalanceStatus.fromPartial>[0])
}

export interface FakeShell extends Shell {
  readonly stdout: Output & { text(): string }
  readonly stderr: Output & { text(): string }
  readonly controller: AbortController
}

export function fakeShell(
  env: Record<string, string> = {},
  isTerminal = false,
  stdin: NodeJS.ReadableStream | null = null,
): FakeShell {
  const output = () => {
    const chunks: Buffer[] = []
    return {
      isTerminal,
      columns: 100,
      stream: null,
      write: (data: string | Uint8Array) => {
        chunks.push(Buffer.from(data as string))
      },
      text: () => Buffer.concat(chunks).toString('utf8'),
    }
  }
  const controller = new AbortController()
  return {
    stdin: { isTerminal, stream: stdin },
    stdout: output(),
    stderr: output(),
    env,
    signal: controller.signal,
    controller,
    program: [],
    onFatal: () => {},
  }
}
