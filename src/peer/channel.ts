/**
 * One connection to one address, shared by everything that goes there but bulk data, which has its own (a megabyte of a
 * snapshot must not stand before a vote). Tells, for a call that failed, whether it certainly never left this node: while
 * it was open the channel was not once connected. (grpc-js knows that of every call and does not hand it on; its error
 * texts are no interface.)
 */
import { type ChannelCredentials, Client, connectivityState, type ServiceError, status } from '@grpc/grpc-js'
import { type RemoteError, RoundhouseError } from '../errors.ts'
import { cancelSoon } from './cancel.ts'
import { remoteErrorOf } from './status.ts'

export const channelOptions = {
  // Connections are not shared between channels: bulk data would find its way back onto the others' connection.
  'grpc.use_local_subchannel_pool': 1,
  // A proxy of the environment is for the outside.
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  // Nothing is sent twice behind our back but what the server's HTTP/2 says it never saw.
  'grpc.enable_retries': 0,
  'grpc.enable_channelz': 0,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 1000,
  // A container that comes back may have another address under its name.
  'grpc.dns_min_time_between_resolutions_ms': 1000,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_receive_message_length': 20 * 1024 * 1024,
  // What may be on its way to us unread: 64 KiB, the default, is 3 MB/s over a line of 20 ms.
  'grpc-node.flow_control_window': 2 * 1024 * 1024,
} as const

const identity = (bytes: Buffer) => bytes

export class Channel {
  readonly address: string
  readonly client: Client
  /** Calls and streams that are open. */
  private open = 0
  private idleSinceMs: number
  private readonly now: () => number
  private isClosed = false
  private isConnected = false
  /** How often the connection was made. */
  private connections = 0

  constructor(address: string, credentials: ChannelCredentials, now: () => number) {
    this.address = address
    this.now = now
    this.idleSinceMs = now()
    this.client = new Client(address, credentials, channelOptions)
    this.watch()
  }

  /** For how long nothing was open, ms. */
  get idleMs(): number {
    return this.open > 0 ? 0 : this.now() - this.idleSinceMs
  }

  get hasFailed(): boolean {
    return !this.isClosed && this.state() === connectivityState.TRANSIENT_FAILURE
  }

  /** Call it as a call begins; the answer's `neverSent` is asked when it has failed, `end` when it is over. */
  begin(): { readonly neverSent: () => boolean; readonly end: () => void } {
    const wasConnected = this.isConnected
    const connections = this.connections
    this.open++
    return {
      neverSent: () => !wasConnected && this.connections === connections,
      end: () => {
        this.open--
        this.idleSinceMs = this.now()
      },
    }
  }

  /** One request, one answer. Rejects with RemoteError, UNREACHABLE (it certainly was not executed), DEADLINE, OUTCOME_UNKNOWN. */
  unary(path: string, request: Buffer, timeoutMs: number, signal?: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const { neverSent, end } = this.begin()
      const deadline = Date.now() + timeoutMs
      const call = this.client.makeUnaryRequest(
        path,
        identity,
        identity,
        request,
        { deadline },
        (error, answer) => {
          signal?.removeEventListener('abort', cancel)
          end()
          if (error === null) resolve(answer!)
          else reject(this.failure(error, neverSent(), path, timeoutMs))
        },
      )
      const cancel = () => cancelSoon(call)
      if (signal?.aborted) cancel()
      else signal?.addEventListener('abort', cancel, { once: true })
    })
  }

  /** What a failed call means to those above. */
  failure(
    error: ServiceError,
    neverSent: boolean,
    what: string,
    timeoutMs: number,
  ): RemoteError | RoundhouseError {
    const remote = remoteErrorOf(error)
    if (remote !== null) return remote
    if (neverSent || error.code === status.UNIMPLEMENTED) {
      return new RoundhouseError('UNREACHABLE', { address: this.address, why: error.details })
    }
    if (error.code === status.DEADLINE_EXCEEDED) {
      return new RoundhouseError('DEADLINE', { afterMs: timeoutMs, what: `${what} at ${this.address}` })
    }
    return new RoundhouseError('OUTCOME_UNKNOWN', { why: `${what} at ${this.address}: ${error.details}` })
  }

  close(): void {
    this.isClosed = true
    this.client.close()
  }

  private state(): connectivityState {
    return this.client.getChannel().getConnectivityState(false)
  }

  private watch(): void {
    if (this.isClosed) return
    const state = this.state()
    if (state === connectivityState.SHUTDOWN) return
    this.isConnected = state === connectivityState.READY
    if (this.isConnected) this.connections++
    this.client.getChannel().watchConnectivityState(state, Number.POSITIVE_INFINITY, () => this.watch())
  }
}

/** The channels in use, made on demand and closed when unused. */
export class Channels {
  private readonly credentials: ChannelCredentials
  private readonly now: () => number
  private readonly byAddress = new Map<string, Channel>()

  constructor(credentials: ChannelCredentials, now: () => number) {
    this.credentials = credentials
    this.now = now
  }

  get size(): number {
    return this.byAddress.size
  }

  to(address: string): Channel {
    let channel = this.byAddress.get(address)
    if (channel === undefined) {
      channel = new Channel(address, this.credentials, this.now)
      this.byAddress.set(address, channel)
    }
    return channel
  }

  /** A channel that failed waits before it tries again: who knows that it is worth it now takes a new one. */
  renew(address: string): void {
    const channel = this.byAddress.get(address)
    if (channel === undefined || !channel.hasFailed) return
    this.byAddress.delete(address)
    channel.close()
  }

  closeUnused(idleMs: number): void {
    for (const [address, channel] of this.byAddress) {
      if (channel.idleMs < idleMs) continue
      this.byAddress.delete(address)
      channel.close()
    }
  }

  close(): void {
    for (const channel of this.byAddress.values()) channel.close()
    this.byAddress.clear()
  }
}
