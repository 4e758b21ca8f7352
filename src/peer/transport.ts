/**
 * How this node reaches the others: Raft's frames over links by node id; questions, gossip, forwarded calls and chunks by
 * address. Everything is made when it is first needed and closed when it is not needed any more.
 */
import { type ChannelCredentials, credentials as grpcCredentials } from '@grpc/grpc-js'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import {
  CommandRequest,
  CommandResponse,
  HeartbeatRequest,
  HeartbeatResponse,
} from '../gen/clusterpb/cluster.ts'
import { AskRequest, AskResponse } from '../gen/roundhouse/v1/peer.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Random } from '../lib/prng.ts'
import type { Call, CallResult, Greeting, Identity, Peers, Transfer } from '../node/ports.ts'
import type { PeerMessage } from '../shard/ports.ts'
import { BulkStream } from './bulk.ts'
import { readResponse, writeRequest } from './call-codec.ts'
import { Channels } from './channel.ts'
import type { Lane } from './frames.ts'
import { Link, type LinkCounters } from './link.ts'
import { readMembers, writeMember } from './member-codec.ts'
import { decodeMessage, encodeMessage, toSafeInteger } from './proto-io.ts'

export interface GrpcPeersOptions {
  /** Who this node is; asked at every dial, for a joiner learns its cluster late. */
  readonly identity: () => Identity
  /** host:port for peers of a node; null: not a member (any more). */
  readonly addressOf: (node: string) => string | null
  readonly clock: Clock
  readonly random: Random
  /** Insecure where it is left out. */
  readonly credentials?: ChannelCredentials
  /** Why an address can't be reached, where more is to be known than gRPC says; null: nothing more. */
  readonly explain?: (address: string) => Promise<string | null>
  /** A link to a peer broke or does not come about: once for each reason. It is tried again, and so it goes on. */
  readonly onLost?: (node: string, address: string, why: string) => void
}

/** What was unused for this long is closed. */
export const idleMs = 120_000
const sweepMs = 30_000

export class GrpcPeers implements Peers {
  private readonly options: GrpcPeersOptions
  private readonly credentials: ChannelCredentials
  private readonly channels: Channels
  private readonly bulkChannels: Channels
  private readonly links = new Map<string, Link>()
  private readonly bulk = new Map<string, BulkStream>()
  private readonly refusedListeners: ((node: string) => void)[] = []
  private readonly counters: LinkCounters = { framesSent: 0, bytesSent: 0, messagesDropped: 0, connects: 0 }
  private cancelSweep: () => void = () => {}
  private isClosed = false

  constructor(options: GrpcPeersOptions) {
    this.options = options
    const credentials = options.credentials ?? grpcCredentials.createInsecure()
    this.credentials = credentials
    const now = () => options.clock.now()
    this.channels = new Channels(credentials, now)
    this.bulkChannels = new Channels(credentials, now)
    this.scheduleSweep()
  }

  send(node: string, lane: Lane, frame: readonly PeerMessage[]): void {
    if (frame.length === 0 || this.isClosed) return
    const link = this.linkTo(node)
    if (link === null) this.counters.messagesDropped += frame.length
    else link.send(lane, frame)
  }

  async ask(address: string, method: string, body: string, timeoutMs: number): Promise<string> {
    const request = encodeMessage(AskRequest, {
      from: { ...this.options.identity(), lane: '' },
      method,
      body,
    })
    try {
      const answer = await this.channels.to(address).unary('/roundhouse.v1.Peer/Ask', request, timeoutMs)
      return answered(address, () => decodeMessage(AskResponse, answer).body)
    } catch (error) {
      const why = isError(error, 'UNREACHABLE') ? await this.options.explain?.(address) : null
      throw typeof why === 'string' ? new RoundhouseError('UNREACHABLE', { address, why }) : error
    }
  }

  async heartbeat(address: string, greeting: Greeting, timeoutMs: number): Promise<Greeting> {
    const [self, ...peers] = greeting.view.map(writeMember)
    const { clusterId, wallMs } = greeting
    const request = encodeMessage(HeartbeatRequest, { self, peers, clusterId, wallMs: BigInt(wallMs) })
    const bytes = await this.channels
      .to(address)
      .unary('/clusterpb.ClusterNode/Heartbeat', request, timeoutMs)
    return answered(address, () => {
      const answer = decodeMessage(HeartbeatResponse, bytes)
      return {
        clusterId: answer.clusterId,
        view: readMembers(undefined, answer.peers),
        wallMs: toSafeInteger(answer.wallMs, 'wall_ms'),
      }
    })
  }

  execute(address: string, call: Call): Promise<CallResult> {
    const request = encodeMessage(CommandRequest, writeRequest(call))
    return this.channels
      .to(address)
      .unary('/clusterpb.ClusterNode/RunCommand', request, call.timeoutMs, call.signal)
      .then(
        bytes => answered(address, () => readResponse(decodeMessage(CommandResponse, bytes))),
        (error: unknown) => {
          throw asForwarder(error, address)
        },
      )
  }

  fetchChunk(address: string, transfer: Transfer, timeoutMs: number): Promise<Bytes> {
    let stream = this.bulk.get(address)
    if (stream === undefined) {
      const made = new BulkStream(this.bulkChannels.to(address), this.options.clock, () => {
        if (this.bulk.get(address) === made) this.bulk.delete(address)
      })
      this.bulk.set(address, made)
      stream = made
    }
    return stream.fetch(transfer, timeoutMs)
  }

  onRefused(listener: (node: string) => void): void {
    this.refusedListeners.push(listener)
  }

  /** Since the start, but for `queuedBytes`, which is now. */
  stats(): Readonly<Record<string, number>> {
    let queuedBytes = 0
    for (const link of this.links.values()) queuedBytes += link.queued
    return {
      ...this.counters,
      queuedBytes,
      links: this.links.size,
      channels: this.channels.size + this.bulkChannels.size,
    }
  }

  close(): Promise<void> {
    this.isClosed = true
    this.cancelSweep()
    for (const link of this.links.values()) link.close()
    for (const stream of [...this.bulk.values()]) stream.close()
    this.links.clear()
    this.channels.close()
    this.bulkChannels.close()
    return Promise.resolve()
  }

  private linkTo(node: string): Link | null {
    const address = this.options.addressOf(node)
    const known = this.links.get(node)
    if (known !== undefined && known.address === address) return known
    // The node moved, or is no member any more.
    known?.close()
    this.links.delete(node)
    if (address === null) return null
    const { identity, clock, random } = this.options
    const onRefused = () => {
      for (const listener of this.refusedListeners) listener(node)
    }
    const { credentials, channels, counters } = this
    const onLost = (why: string) => this.options.onLost?.(node, address, why)
    const link = new Link({
      address,
      credentials,
      channels,
      identity,
      clock,
      random,
      counters,
      onRefused,
      onLost,
    })
    this.links.set(node, link)
    return link
  }

  private scheduleSweep(): void {
    this.cancelSweep = this.options.clock.after(sweepMs, () => {
      for (const [node, link] of this.links) {
        if (this.options.addressOf(node) === link.address) continue
        link.close()
        this.links.delete(node)
      }
      for (const stream of [...this.bulk.values()]) if (stream.idleMs >= idleMs) stream.close()
      this.channels.closeUnused(idleMs)
      this.bulkChannels.closeUnused(idleMs)
      this.scheduleSweep()
    })
  }
}

/** What the other node has against this one is not the client's to mend: to it, the leader can't be reached. */
function asForwarder(error: unknown, address: string): unknown {
  const isOurs = error instanceof RemoteError && (error.code === 'UNAUTHENTICATED' || error.code === 'DENIED')
  return isOurs ? new RoundhouseError('UNREACHABLE', { address, why: error.message }) : error
}

/** An answer came, so what was asked was done or not: one that can't be read does not say which. */
function answered<T>(address: string, read: () => T): T {
  try {
    return read()
  } catch {
    throw new RoundhouseError('OUTCOME_UNKNOWN', { why: `${address} gave an answer that can't be read` })
  }
}
