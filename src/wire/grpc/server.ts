/**
 * The node's gRPC port, for clients and peers: clusterpb.ClusterNode, log.v1.Log, roundhouse.v1.Shards, Streams, Watch,
 * Admin and Peer, health, reflection.
 * Bytes that are no HTTP/2 end their own connection and nothing else.
 */
import {
  logVerbosity,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  setLogVerbosity,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import { nobodyIsChecked } from '../../peer/caller.ts'
import { PeerHandlers, peerMethods } from '../../peer/service.ts'
import { isExpected, statusOf } from '../../peer/status.ts'
import { adminHandlers, adminMethods, shardsMethods } from './admin.ts'
import { ClusterNodeHandlers, clusterNodeMethods } from './cluster-node.ts'
import { Connections } from './connections.ts'
import { DirectCalls } from './direct.ts'
import { Front } from './front.ts'
import { Gate } from './gate.ts'
import { Health } from './health.ts'
import { LogHandlers, logMethods } from './log.ts'
import { connectionLimits, connectionsWithin, type GrpcServerOptions, grpcLimits } from './options.ts'
import { addReflection } from './reflection.ts'
import { Refusals } from './refusals.ts'
import { streamsHandlers, streamsMethods } from './streams.ts'
import { WatchHandlers, watchMethods } from './watch.ts'

export type { GrpcServerOptions } from './options.ts'

export interface GrpcServer {
  /** Accepted at one time. */
  readonly connectionsMax: number
  /**
   * Binds and serves; the answer is the port (asked for 0, the one that was free). Rejects with PORT_IN_USE, or with
   * CONFIG where the address is not one of this machine or needs rights.
   */
  listen(host: string, port: number): Promise<number>
  /** Answers what was begun, for at most `graceMs`, then cuts what is left. */
  close(graceMs: number): Promise<void>
}

// grpc-js prints errors that it also returns: what is worth a line is logged where it is handled.
setLogVerbosity(logVerbosity.NONE)

export function createServer(options: GrpcServerOptions): GrpcServer {
  const refusals = new Refusals(options.clock, options.onRefused ?? (() => {}))
  const gate = options.areCallersChecked ? new Gate(options.clock, refusals) : null
  const callerOf = gate?.callerOf ?? nobodyIsChecked
  const server = new Server({
    interceptors: gate === null ? [] : [gate.interceptor],
    'grpc.max_receive_message_length': grpcLimits.messageBytesMax,
    'grpc.max_send_message_length': grpcLimits.messageBytesMax,
    'grpc.max_concurrent_streams': grpcLimits.concurrentStreamsMax,
    'grpc.enable_channelz': 0,
  })
  const connectionsMax = connectionsWithin(options.openFilesMax ?? null)
  const limits = { ...connectionLimits, connectionsMax, ...options.limits }
  const connections = new Connections(limits, options.clock, refusals)
  const direct = new DirectCalls({
    begin: connection => connections.begin(connection),
    admit: (path, { socket }) => gate?.admitDirect(path, socket) ?? null,
    remember: (metadata, caller) => gate?.remember(metadata, caller),
    denied: (path, { from }, why) => refusals.report(path, from, why),
  })
  const front = new Front(connections, direct, options.clock)
  front.standBefore(server)
  const clusterNode = new ClusterNodeHandlers(options, callerOf, connections)
  direct.add(clusterNode.directRunCommand())
  const log = new LogHandlers(options, connections)
  const watches = new WatchHandlers(options, connections)
  const answer = (error: unknown) => {
    if (!isExpected(error)) options.onUnexpected(error)
    return statusOf(error)
  }
  const peers = new PeerHandlers({
    service: options.peerService,
    statusOf: answer,
    callerOf,
    clock: options.clock,
    memoryOf: call => connections.memoryOf(call),
  })
  const health = new Health(() => options.service.isServing(), options.clock)
  const serve = (methods: ServiceDefinition, handlers: UntypedServiceImplementation) => {
    server.addService(methods, handlers)
    direct.addService(methods, handlers)
  }
  serve(clusterNodeMethods, clusterNode.handlers())
  const admin = adminHandlers(options, connections)
  serve(adminMethods, admin)
  serve(shardsMethods, { map: admin.map! })
  serve(logMethods, log.handlers())
  serve(streamsMethods, streamsHandlers(options, connections))
  serve(watchMethods, watches.handlers())
  serve(peerMethods, peers.handlers())
  const bound: string[] = []
  health.addTo(server)
  addReflection(server)

  return {
    connectionsMax: limits.connectionsMax,
    listen: async (host, port) => {
      const found = await bind(server, host, port, options.credentials ?? ServerCredentials.createInsecure())
      bound.push(addressOf(host, found))
      return found
    },
    close: graceMs =>
      new Promise(resolve => {
        health.close()
        clusterNode.endStreams()
        log.endStreams()
        watches.endStreams()
        peers.endStreams()
        front.drain()
        const cancelCut = options.clock.after(graceMs, () => front.close())
        // forceShutdown would find no session: grpc-js keeps that list for channelz only, which is off here.
        for (const address of bound) server.drain(address, graceMs)
        // A client that is stopped never closes its side: nobody waits for it.
        const done = () => {
          cancelCut()
          cancelWait()
          front.close()
          resolve()
        }
        const cancelWait = options.clock.after(graceMs + grpcLimits.cutMs, done)
        server.tryShutdown(done)
      }),
  }
}

function bind(server: Server, host: string, port: number, credentials: ServerCredentials): Promise<number> {
  const address = addressOf(host, port)
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, bound) => {
      if (error === null) resolve(bound)
      // grpc-js hands on the text of the system's error, not the error: its errno name is all there is to go by.
      else if (error.message.includes('EADDRINUSE')) reject(new RoundhouseError('PORT_IN_USE', { address }))
      else
        reject(new RoundhouseError('CONFIG', { mistakes: [`can't listen on ${address}: ${error.message}`] }))
    })
  })
}

function addressOf(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
