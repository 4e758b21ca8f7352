/** roundhouse.v1.Admin, what operators ask; and Shards, the part of it that clients need who route by themselves. */
import type { ServerUnaryCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import {
  AdminService,
  LeaveRequest,
  LeaveResponse,
  MapRequest,
  MapResponse,
  RebalanceRequest,
  RebalanceResponse,
  ReplaceRequest,
  ReplaceResponse,
  StatsRequest,
  StatsResponse,
  StatusRequest,
  StatusResponse,
  VerifyRequest,
  VerifyResponse,
  type NodeStatus as WireNode,
  type RebalanceStatus as WireRebalance,
  type ShardStatus as WireShard,
} from '../../gen/roundhouse/v1/admin.ts'
import { ShardsService } from '../../gen/roundhouse/v1/shards.ts'
import type { NodeStatus, RebalanceStatus, ShardStatus } from '../../node/ports.ts'
import { encodeMessage } from '../../peer/proto-io.ts'
import type { Connections } from './connections.ts'
import { type Arrived, rawMethod, respond } from './method.ts'
import type { GrpcServerOptions } from './options.ts'

export const adminMethods = {
  status: rawMethod(AdminService.status, StatusRequest),
  map: rawMethod(AdminService.map, MapRequest),
  stats: rawMethod(AdminService.stats, StatsRequest),
  leave: rawMethod(AdminService.leave, LeaveRequest),
  verify: rawMethod(AdminService.verify, VerifyRequest),
  replace: rawMethod(AdminService.replace, ReplaceRequest),
  rebalance: rawMethod(AdminService.rebalance, RebalanceRequest),
}

/** Served by the same `map`. */
export const shardsMethods = { map: rawMethod(ShardsService.map, MapRequest) }

const rebalanceActions = ['show', 'pause', 'resume'] as const

export function adminHandlers(
  { service, onUnexpected }: GrpcServerOptions,
  connections: Connections,
): UntypedServiceImplementation {
  const unary =
    <Message>(answer: (message: Message) => Promise<Buffer> | Buffer) =>
    (call: ServerUnaryCall<Arrived<Message>, Buffer>, callback: sendUnaryData<Buffer>) =>
      respond(callback, connections.memoryOf(call), onUnexpected, () => {
        const { request } = call
        if (request.message === null) throw request.error
        return answer(request.message)
      })

  return {
    status: unary<StatusRequest>(() => {
      const status = service.status()
      return encodeMessage(StatusResponse, {
        clusterId: status.clusterId,
        epoch: BigInt(status.epoch),
        nodes: status.nodes.map(writeNode),
        featureLevel: status.level,
        shards: status.shards.map(writeShard),
        meta: writeShard(status.meta),
        rebalance: writeRebalance(status.rebalance),
      })
    }),
    map: unary<MapRequest>(() => {
      const { clusterId, epoch, shardCount, nodes, shards } = service.status()
      const leaders = Array.from({ length: shardCount }, () => '')
      for (const { shardId, leader } of shards) if (shardId < shardCount) leaders[shardId] = leader ?? ''
      return encodeMessage(MapResponse, {
        clusterId,
        epoch: BigInt(epoch),
        shardCount,
        nodes: nodes.map(writeNode),
        leaders,
      })
    }),
    stats: unary<StatsRequest>(() => {
      const cpu = process.cpuUsage()
      return encodeMessage(StatsResponse, {
        nodeId: service.nodeId,
        uptimeS: process.uptime(),
        cpuS: (cpu.user + cpu.system) / 1e6,
        rssBytes: BigInt(process.memoryUsage.rss()),
        counters: { ...service.stats(), ...connections.stats() },
      })
    }),
    leave: unary<LeaveRequest>(({ nodeId, allowUnderReplicated }) => {
      if (nodeId === '')
        throw new RoundhouseError('INVALID_ARGUMENT', { what: 'node_id', accepted: 'a node id' })
      return service.leave(nodeId, allowUnderReplicated).then(() => encodeMessage(LeaveResponse, {}))
    }),
    replace: unary<ReplaceRequest>(({ nodeId, replacement }) => {
      if (nodeId === '' || replacement === '')
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: 'replace',
          accepted: 'node_id and replacement, both node ids',
        })
      return service.replace(nodeId, replacement).then(() => encodeMessage(ReplaceResponse, {}))
    }),
    verify: unary<VerifyRequest>(({ shardId }) =>
      service.verify(shardId).then(({ shard, index, verdict, replicas }) =>
        encodeMessage(VerifyResponse, {
          shardId: shard,
          index: BigInt(index),
          verdict,
          replicas: replicas.map(({ node, replica, state, digest }) => ({
            nodeId: node,
            replica: BigInt(replica),
            state,
            rows: BigInt(digest?.count ?? 0),
            digest: digest === null ? '' : hex8(digest.sum) + hex8(digest.mixed),
          })),
        }),
      ),
    ),
    rebalance: unary<RebalanceRequest>(({ action }) => {
      const known = rebalanceActions.find(each => each === action)
      if (known === undefined) {
        const accepted = rebalanceActions.join(', ')
        throw new RoundhouseError('INVALID_ARGUMENT', { what: `action '${action}'`, accepted })
      }
      return service
        .rebalance(known)
        .then(status => encodeMessage(RebalanceResponse, { rebalance: writeRebalance(status) }))
    }),
  }
}

function hex8(value: number): string {
  return value.toString(16).padStart(8, '0')
}

function writeNode({ level, disk = 'ok', ...node }: NodeStatus): WireNode {
  return { ...node, disk, featureLevel: level }
}

function writeShard(shard: ShardStatus): WireShard {
  const [slotFrom, slotTo] = shard.slots
  return {
    shardId: shard.shardId,
    slotFrom,
    slotTo,
    term: BigInt(shard.term),
    leader: shard.leader ?? '',
    voters: [...shard.voters],
    learners: [...shard.learners],
    applied: BigInt(shard.applied),
  }
}

function writeRebalance(status: RebalanceStatus): WireRebalance {
  return {
    state: status.state,
    movesDone: status.movesDone,
    movesTotal: status.movesTotal,
    bytesDone: BigInt(status.bytesDone),
    bytesTotal: BigInt(status.bytesTotal),
    bytesPerSecond: status.bytesPerSecond,
    etaS: status.etaSeconds === null ? undefined : Math.ceil(status.etaSeconds),
    blockedBy: status.blockedBy ?? '',
  }
}
