/**
 * How the shell reaches a cluster: a list of addresses, and the first node that answers. A call that broke off is made
 * again through another node, which is safe for reads and for writes with a session (the cluster applies those once);
 * what is still undecided when the time is up is reported as unknown, never as failed.
 */
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import {
  type CallOptions,
  Channel,
  type ChannelCredentials,
  type ChannelInterface,
  type ClientUnaryCall,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js'
import { formatDuration, joinAddress, parseDuration, splitAddress } from '../config/forms.ts'
import { type RemoteError, RoundhouseError } from '../errors.ts'
import { ClusterNodeClient } from '../gen/clusterpb/cluster.ts'
import { HealthClient } from '../gen/grpc/health/v1/health.ts'
import { LogClient } from '../gen/log/v1/log.ts'
import { AdminClient } from '../gen/roundhouse/v1/admin.ts'
import { ShardsClient } from '../gen/roundhouse/v1/shards.ts'
import { StreamsClient } from '../gen/roundhouse/v1/streams.ts'
import type { Certificates } from '../lib/certificates.ts'
import { TlsChannelCredentials } from '../lib/tls-channel.ts'
import { tlsTrouble } from '../lib/tls-trouble.ts'
import { errorOf } from './remote-error.ts'
import { type Input, interrupted, type OptionSpec, type Shell, UsageError } from './shell.ts'
import { tlsOf, tlsOptionSpecs } from './tls.ts'

/** Three nodes of `npm start`, then a `serve` with its default port. */
export const defaultNodes = '127.0.0.1:8081,8082,8083,8080'
const defaultTimeoutMs = 15_000
/** A node that is stopped or cut off accepts no connection in this time; the next one is asked. */
const connectMsMax = 1_500
/** More than a node's `message_timeout`, so that its own answer comes before we give up on it. */
const attemptMsMax = 7_000
/** Of a look at what is wrong with a name. */
const lookUpMsMax = 1_500
/** Between two rounds over the nodes. */
const pauseMs = 150
/** A reply is 8 MiB at most; its frame and the status of a large cluster need some more. */
const receiveBytesMax = 32 * 2 ** 20
/** HTTP/2's 64 KiB would be a round trip for every one of them, and a stream of records has many. */
const receiveWindowBytes = 2 * 2 ** 20

export const connectionOptions: Readonly<Record<string, OptionSpec>> = {
  node: {
    kind: 'list',
    alias: 'n',
    describe: `Nodes to ask, the first that answers: host:port,host:port or host:port,port [ROUNDHOUSE_NODE]`,
    fallback: defaultNodes,
    elsewhere: [
      'server',
      'servers',
      'addr',
      'address',
      'host',
      'port',
      'endpoint',
      'endpoints',
      'url',
      'nodes',
    ],
  },
  timeout: { kind: 'text', describe: 'How long to try', fallback: formatDuration(defaultTimeoutMs) },
  ...tlsOptionSpecs,
}

export const outputOption: Readonly<Record<string, OptionSpec>> = {
  output: {
    kind: 'text',
    alias: 'o',
    describe: 'For people or for tools',
    choices: ['text', 'json'],
    fallback: 'text',
    elsewhere: ['format', 'json'],
  },
}

/** Addresses of `host:port,port,…`: a bare port is at the host before it, a bare host at port 8080. */
export function parseNodes(text: string, where: string): string[] {
  let host = '127.0.0.1'
  return text.split(',').map(raw => {
    const item = raw.trim()
    const isPort = /^[0-9]+$/.test(item)
    const parts = splitAddress(isPort ? joinAddress(host, Number(item)) : item)
    if (parts === undefined) {
      throw new UsageError([
        `${where}: ${JSON.stringify(item)} is not host:port, host or a port from 1 to 65535`,
      ])
    }
    host = parts.host
    return joinAddress(host, parts.port ?? 8080)
  })
}

export interface Connection {
  readonly address: string
  readonly cluster: ClusterNodeClient
  readonly admin: AdminClient
  readonly health: HealthClient
  readonly log: LogClient
  readonly shards: ShardsClient
  readonly streams: StreamsClient
  readonly channel: ChannelInterface
}

/** A generated client's method, bound: `connection.admin.status.bind(connection.admin)`. */
type Method<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall

/** Makes one call on the node that a `Nodes` chose. */
export type Caller = <Request, Response>(
  method: Method<Request, Response>,
  request: Request,
) => Promise<Response>

/** once: a write without a session, which is not sent again where it is not certain that it was not applied. */
export type Access = 'read' | 'write' | 'once'

export class Nodes {
  readonly timeoutMs: number
  private addresses: readonly string[]
  private readonly signal: AbortSignal
  private readonly interrupted = new AbortController()
  private readonly tls: Certificates | null
  /** For connections beside its own. */
  readonly credentials: ChannelCredentials
  private connection: Connection | null = null
  private dialing: { readonly address: string; readonly connected: Promise<Connection | null> } | null = null

  /** `tls`: what to show the nodes and to ask of them; null: plain connections. */
  constructor(
    addresses: readonly string[],
    timeoutMs: number,
    signal: AbortSignal,
    tls: Certificates | null = null,
  ) {
    this.tls = tls
    this.credentials = tls === null ? credentials.createInsecure() : new TlsChannelCredentials(() => tls)
    this.addresses = addresses
    this.timeoutMs = timeoutMs
    this.signal = AbortSignal.any([signal, this.interrupted.signal])
  }

  /** From `--node`, else ROUNDHOUSE_NODE, else the default list. */
  static from(input: Input, shell: Shell): Nodes {
    const flag = input.options.node
    const variable = shell.env.ROUNDHOUSE_NODE ?? ''
    const addresses =
      flag !== undefined
        ? parseNodes([flag].flat().join(','), '--node')
        : variable !== ''
          ? parseNodes(variable, 'ROUNDHOUSE_NODE')
          : parseNodes(defaultNodes, 'default')
    const timeout = input.options.timeout
    const timeoutMs = timeout === undefined ? defaultTimeoutMs : parseDuration(String(timeout))
    if (timeoutMs === undefined || timeoutMs <= 0 || timeoutMs > 3_600_000) {
      throw new UsageError([
        `--timeout: ${JSON.stringify(timeout)} is not a duration up to 1h, such as 500ms or 10s`,
      ])
    }
    return new Nodes([...new Set(addresses)], timeoutMs, shell.signal, tlsOf(input, shell))
  }

  /** The node that answered last. */
  get address(): string | null {
    return this.connection?.address ?? null
  }

  /** More places to ask, after those that were named: a node that leaves can't tell that it is gone. */
  also(addresses: readonly string[]): void {
    this.addresses = [...new Set([...this.addresses, ...addresses])]
  }

  /** Asks that node first from now on. */
  prefer(address: string): void {
    this.addresses = [...new Set([address, ...this.addresses])]
    if (this.connection?.address !== address) this.drop()
  }

  /**
   * Calls until a node gives a definite answer. Throws what it refused with, UNREACHABLE when no node could be reached,
   * TLS when one could but for its or our certificates, and, of a write, OUTCOME_UNKNOWN or DEADLINE when a call
   * broke off and nothing settled it since.
   */
  async call<T>(access: Access, attempt: (call: Caller, connection: Connection) => Promise<T>): Promise<T> {
    const deadline = Date.now() + this.timeoutMs
    let undecided: Error | null = null
    let refusal: RemoteError | RoundhouseError | null = null
    for (;;) {
      const tried: string[] = []
      let reached = 0
      for (const address of this.inOrder()) {
        if (Date.now() >= deadline || this.signal.aborted) break
        const connection = await this.connect(address, deadline)
        if (connection === null) {
          tried.push(address)
          continue
        }
        reached += 1
        try {
          return await attempt(this.caller(connection, deadline), connection)
        } catch (error) {
          if (!isTrouble(error)) throw error
          if (error.kind === 'outcome_unknown') {
            if (access === 'once') throw error
            undecided = access === 'write' ? error : unanswered(error, address)
          } else if (error.kind === 'unavailable') refusal = error
          else if (access === 'write' && undecided !== null && isBeforeApply(error)) throw undecided
          else throw error
          if (error instanceof RoundhouseError && this.connection === connection) this.drop()
        }
      }
      if (undecided === null && reached === 0 && refusal === null) {
        if (this.signal.aborted) throw interrupted(this.signal)
        const [tls, names] = await Promise.all([this.tlsTrouble(tried), nameTrouble(tried)])
        throw tls ?? unreachable(tried.length > 0 ? tried : this.addresses, names)
      }
      if (Date.now() + pauseMs >= deadline || this.signal.aborted)
        throw undecided ?? refusal ?? unreachable(tried)
      await new Promise(resolve => setTimeout(resolve, pauseMs))
    }
  }

  close(): void {
    this.drop()
  }

  /** What is under way fails, and so does whatever is asked later. */
  interrupt(): void {
    this.interrupted.abort()
    this.drop()
  }

  /** Of nodes that could not be reached; null where TLS is not why. */
  private async tlsTrouble(tried: readonly string[]): Promise<RoundhouseError | null> {
    const found = await Promise.all(
      tried.map(async address => {
        const { host, port = 8080 } = splitAddress(address)!
        return { address, why: await tlsTrouble(host, port, this.tls) }
      }),
    )
    const [first] = found.filter(each => each.why !== null)
    if (first === undefined) return null
    const address = found.filter(each => each.why === first.why).map(each => each.address)
    return new RoundhouseError('TLS', { address: address.join(', '), why: first.why! })
  }

  /** The node that answered last comes first. */
  private inOrder(): readonly string[] {
    const first = this.connection?.address
    return first === undefined ? this.addresses : [first, ...this.addresses.filter(each => each !== first)]
  }

  private drop(): void {
    this.connection?.channel.close()
    this.connection = null
  }

  /** null: no node listens at the address, or it does not answer. Then nothing was sent. */
  private async connect(address: string, deadline: number): Promise<Connection | null> {
    const open = this.connection
    if (open?.address === address && open.channel.getConnectivityState(false) === connectivityState.READY)
      return open
    // Calls that are made at the same time share what one of them dials.
    if (this.dialing?.address === address) return this.dialing.connected
    const dialing = { address, connected: this.dial(address, deadline) }
    this.dialing = dialing
    try {
      return await dialing.connected
    } finally {
      if (this.dialing === dialing) this.dialing = null
    }
  }

  private async dial(address: string, deadline: number): Promise<Connection | null> {
    this.drop()
    const channel = new Channel(address, this.credentials, {
      'grpc.max_receive_message_length': receiveBytesMax,
      // The pool of the process remembers a failed dial and would hold back the next for a second.
      'grpc.use_local_subchannel_pool': 1,
      // Who follows a stream would wait for ever on a node that is stopped or cut off.
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc-node.flow_control_window': receiveWindowBytes,
    })
    if (!(await isReady(channel, Math.min(deadline, Date.now() + connectMsMax)))) {
      channel.close()
      return null
    }
    // Somebody may have dialled another one meanwhile.
    this.drop()
    const options = { channelOverride: channel }
    this.connection = {
      address,
      channel,
      cluster: new ClusterNodeClient(address, this.credentials, options),
      admin: new AdminClient(address, this.credentials, options),
      health: new HealthClient(address, this.credentials, options),
      log: new LogClient(address, this.credentials, options),
      shards: new ShardsClient(address, this.credentials, options),
      streams: new StreamsClient(address, this.credentials, options),
    }
    return this.connection
  }

  private caller(connection: Connection, deadline: number): Caller {
    const startedMs = Date.now()
    const until = Math.min(deadline, startedMs + attemptMsMax)
    return (method, request) =>
      new Promise((resolve, reject) => {
        const call = method(request, new Metadata(), { deadline: until }, (error, response) => {
          this.signal.removeEventListener('abort', cancel)
          if (error === null) resolve(response)
          else reject(errorOf(error, connection.address, until - startedMs))
        })
        const cancel = () => void setImmediate(() => call.cancel())
        this.signal.addEventListener('abort', cancel, { once: true })
      })
  }
}

/** A refusal that was made without a look at what has been applied: of an earlier copy of the write it says nothing. */
function isBeforeApply(error: RemoteError | RoundhouseError): boolean {
  return error.kind === 'exhausted' || error.code === 'SESSION_STALE'
}

function isTrouble(error: unknown): error is RemoteError | RoundhouseError {
  return error instanceof Error && 'kind' in error
}

/** `names`: what is wrong with the names among them. */
function unreachable(tried: readonly string[], names: readonly string[] = []): RoundhouseError {
  const advice =
    names.length > 0 ? names.join(', ') : '"npm start" starts a cluster here, --node names one elsewhere'
  return new RoundhouseError('UNREACHABLE', {
    address: tried.length === 1 ? tried[0]! : 'any node',
    why: `no node answers at ${tried.join(', ')}; ${advice}`,
  })
}

/** Which hosts of these addresses have names that stand for no address, in words. */
async function nameTrouble(addresses: readonly string[]): Promise<readonly string[]> {
  const hosts = new Set(addresses.map(address => splitAddress(address)!.host))
  const late = new Promise<string>(resolve => setTimeout(resolve, lookUpMsMax, 'no answer').unref())
  const codeOf = ({ code = 'unknown' }: NodeJS.ErrnoException) => code
  const found = await Promise.all(
    [...hosts]
      .filter(host => isIP(host) === 0)
      .map(async host => {
        const looked = lookup(host).then(() => null, codeOf)
        return { host, why: await Promise.race([looked, late]) }
      }),
  )
  return found
    .filter(({ why }) => why !== null)
    .map(
      ({ host, why }) => `the name ${host} can't be resolved (${why === 'ENOTFOUND' ? 'no such host' : why})`,
    )
}

/** A read that broke off changed nothing: all there is to say is that nobody answered. */
function unanswered(error: Error, address: string): RoundhouseError {
  return new RoundhouseError('UNREACHABLE', { address, why: error.message })
}

async function isReady(channel: ChannelInterface, deadline: number): Promise<boolean> {
  for (;;) {
    const state = channel.getConnectivityState(true)
    if (state === connectivityState.READY) return true
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) return false
    const changed = await new Promise<boolean>(resolve => {
      channel.watchConnectivityState(state, deadline, error => resolve(error === undefined))
    })
    if (!changed) return false
  }
}
