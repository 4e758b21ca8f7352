/**
 * The way to one node: a channel, lanes for what must keep its order, lanes for reads (a node runs the reads of one lane
 * and shard one after another), and single calls for what may take long. Also what is known of the node's health.
 */
import {
  Channel,
  type ClientReadableStream,
  connectivityState,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js'
import { ClusterNodeClient, type CommandRequest } from '../gen/clusterpb/cluster.ts'
import { LogClient } from '../gen/log/v1/log.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { ShardsClient } from '../gen/roundhouse/v1/shards.ts'
import { StreamsClient } from '../gen/roundhouse/v1/streams.ts'
import { WatchClient, type WatchRequest, type WatchResponse } from '../gen/roundhouse/v1/watch.ts'
import { inBandFailure, statusFailure } from './failure.ts'
import { Lane, type Listener } from './lane.ts'
import type { Security } from './tls.ts'

/** A node that is stopped or cut off accepts no connection in this time; another one is asked. */
const connectMsMax = 1_500
/** By shard: an answer waits for those before it on its lane, whatever their shards. */
const orderedLanes = 4
/** In turn. */
const readLanes = 4
/** Lanes that were left and still have calls: beyond it the node gets none until some are answered or given up. */
const retiredLanesMax = 8
/** A node that did not answer in time is asked again after this, doubled each time in a row; others before. */
const suspectMs = { min: 1_000, max: 10_000 }
/** A reply, or a command, is 8 MiB at most; its frame needs some more. */
const messageBytesMax = 32 * 2 ** 20

export class NodeLink {
  readonly address: string
  private readonly channel: Channel
  readonly cluster: ClusterNodeClient
  readonly log: LogClient
  readonly streams: StreamsClient
  private readonly shards: ShardsClient
  private readonly watches: WatchClient
  private readonly ordered: (Lane | null)[] = Array.from({ length: orderedLanes }, () => null)
  private readonly reads: (Lane | null)[] = Array.from({ length: readLanes }, () => null)
  private readonly lanes = new Set<Lane>()
  private nextRead = 0
  private connecting: Promise<boolean> | null = null
  private suspectMs = suspectMs.min
  /** When it last answered any call, of performance.now(). */
  heardMs = Number.NEGATIVE_INFINITY
  private suspectUntil = Number.NEGATIVE_INFINITY

  constructor(address: string, { credentials }: Security, userAgent: string) {
    this.address = address
    this.channel = new Channel(address, credentials, {
      'grpc.primary_user_agent': userAgent,
      'grpc.max_receive_message_length': messageBytesMax,
      'grpc.max_send_message_length': messageBytesMax,
      // The pool of the process remembers a failed dial and would hold back the next for a second.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.min_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 1_000,
      // A peer that vanished without a word is found even while nothing else is sent.
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 5_000,
      'grpc.enable_channelz': 0,
    })
    const options = { channelOverride: this.channel }
    this.cluster = new ClusterNodeClient(address, credentials, options)
    this.log = new LogClient(address, credentials, options)
    this.streams = new StreamsClient(address, credentials, options)
    this.shards = new ShardsClient(address, credentials, options)
    this.watches = new WatchClient(address, credentials, options)
  }

  get isReady(): boolean {
    return this.channel.getConnectivityState(false) === connectivityState.READY
  }

  /** It failed to answer or to be reached a moment ago. */
  get isSuspect(): boolean {
    return (
      performance.now() < this.suspectUntil || this.lanes.size > retiredLanesMax + readLanes + orderedLanes
    )
  }

  suspect(): void {
    // Calls that fail together are one failure.
    if (this.isSuspect) return
    this.suspectUntil = performance.now() + this.suspectMs
    this.suspectMs = Math.min(suspectMs.max, 2 * this.suspectMs)
  }

  /** It answered: whatever is slow, the node is there. */
  heard(): void {
    this.heardMs = performance.now()
    this.suspectMs = suspectMs.min
  }

  /** False: nobody listens there, or does not answer. Callers that wait together resume in the order they came. */
  ready(): Promise<boolean> {
    if (this.isReady) return Promise.resolve(true)
    this.connecting ??= this.connect().finally(() => {
      this.connecting = null
    })
    return this.connecting
  }

  /** In order with all that were sent this way before for the same place. */
  sendOrdered(place: number, request: CommandRequest, settle: Listener): Lane {
    return this.sendOn(this.ordered, place % orderedLanes, request, settle)
  }

  sendRead(request: CommandRequest, settle: Listener): Lane {
    return this.sendOn(this.reads, this.nextRead++ % readLanes, request, settle)
  }

  /** `timeoutMs`: what the node is told it has. */
  sendAlone(request: CommandRequest, timeoutMs: number, settle: Listener): () => void {
    const options = { deadline: Date.now() + timeoutMs }
    const call = this.cluster.runCommand(request, new Metadata(), options, (error, response) => {
      if (error !== null) settle({ ok: false, failure: statusFailure(error, this.address) })
      else if (response.code !== '') settle({ ok: false, failure: inBandFailure(response) })
      else settle({ ok: true, response })
    })
    // See Lane: never cancelled from within a callback.
    return () => void setImmediate(() => call.cancel())
  }

  map(timeoutMs: number): Promise<MapResponse> {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + timeoutMs }
      this.shards.map({}, new Metadata(), options, (error: ServiceError | null, map) => {
        if (error === null) resolve(map)
        else reject(error)
      })
    })
  }

  watch(request: WatchRequest): ClientReadableStream<WatchResponse> {
    return this.watches.watch(request)
  }

  close(): void {
    for (const lane of [...this.lanes]) lane.close()
    this.lanes.clear()
    setImmediate(() => this.channel.close())
  }

  private sendOn(lanes: (Lane | null)[], place: number, request: CommandRequest, settle: Listener): Lane {
    let lane = lanes[place] ?? null
    if (lane === null) {
      lane = this.openLane(ended => {
        if (lanes[place] === ended) lanes[place] = null
      })
      lanes[place] = lane
    }
    lane.send(request, settle)
    return lane
  }

  private openLane(onEnd: (lane: Lane) => void): Lane {
    const lane: Lane = new Lane(this.cluster.streamCommand(), this.address, () => onEnd(lane))
    this.lanes.add(lane)
    lane.onGone = () => void this.lanes.delete(lane)
    return lane
  }

  private async connect(): Promise<boolean> {
    const deadline = Date.now() + connectMsMax
    for (;;) {
      const state = this.channel.getConnectivityState(true)
      if (state === connectivityState.READY) return true
      if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) return false
      const changed = await new Promise<boolean>(resolve => {
        this.channel.watchConnectivityState(state, deadline, error => resolve(error === undefined))
      })
      if (!changed) return false
    }
  }
}
