/**
 * A gRPC client as a user would write one over the public contracts: one channel a node, sessions of 16 bytes whose first
 * six are the creation time, and a write that is sent again, with its session and sequence, until somebody says what
 * became of it.
 */
import { randomBytes } from 'node:crypto'
import { Channel, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { errorOf } from '../../src/cli/remote-error.ts'
import type { RemoteError, RoundhouseError } from '../../src/errors.ts'
import { ClusterNodeClient, CommandRequest, type CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import {
  AdminClient,
  type RebalanceResponse,
  type StatsResponse,
  type StatusResponse,
} from '../../src/gen/roundhouse/v1/admin.ts'

/** More than a node's message_timeout, so that its own answer comes first. */
const attemptMsMax = 6_000
const retryPauseMs = 20

export type CallFailure = RemoteError | RoundhouseError

export interface Command {
  readonly command: string
  readonly key?: string
  readonly args?: readonly (string | Uint8Array)[]
  readonly session?: Uint8Array
  readonly sequence?: number
  readonly ackedBelow?: number
  readonly isStale?: boolean
  readonly noForward?: boolean
}

export function requestOf(command: Command): CommandRequest {
  const { key, args = [], session, sequence, ackedBelow } = command
  return CommandRequest.fromPartial({
    command: command.command,
    ...(key === undefined ? {} : { key }),
    args: args.map(each => Buffer.from(each as string)),
    ...(session === undefined ? {} : { session: Buffer.from(session) }),
    ...(sequence === undefined ? {} : { sequence: BigInt(sequence) }),
    ...(ackedBelow === undefined ? {} : { ackedBelow: BigInt(ackedBelow) }),
    read: command.isStale ? 1 : 0,
    noForward: command.noForward ?? false,
  })
}

type Method<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: Response) => void,
) => unknown

interface Stubs {
  readonly channel: Channel
  readonly cluster: ClusterNodeClient
  readonly admin: AdminClient
}

export class Client {
  private readonly stubs = new Map<string, Stubs>()
  private isClosed = false

  /** One try. Rejects with the node's error, or with what is known when there is none. */
  async run(address: string, command: Command, timeoutMs = attemptMsMax): Promise<CommandResponse> {
    return await this.send(address, requestOf(command), timeoutMs)
  }

  /** The same of a request that is made already. */
  async send(address: string, request: CommandRequest, timeoutMs = attemptMsMax): Promise<CommandResponse> {
    const { cluster } = this.to(address)
    return this.call(address, cluster.runCommand.bind(cluster), request, timeoutMs)
  }

  status(address: string, timeoutMs = 3_000): Promise<StatusResponse> {
    const { admin } = this.to(address)
    return this.call(address, admin.status.bind(admin), {}, timeoutMs)
  }

  stats(address: string): Promise<StatsResponse> {
    const { admin } = this.to(address)
    return this.call(address, admin.stats.bind(admin), {}, attemptMsMax)
  }

  replace(address: string, nodeId: string, replacement: string): Promise<unknown> {
    const { admin } = this.to(address)
    return this.call(address, admin.replace.bind(admin), { nodeId, replacement }, attemptMsMax)
  }

  leave(address: string, nodeId: string): Promise<unknown> {
    const { admin } = this.to(address)
    return this.call(address, admin.leave.bind(admin), { nodeId, allowUnderReplicated: false }, attemptMsMax)
  }

  rebalance(address: string, action: 'show' | 'pause' | 'resume'): Promise<RebalanceResponse> {
    const { admin } = this.to(address)
    return this.call(address, admin.rebalance.bind(admin), { action }, attemptMsMax)
  }

  stream(address: string): ReturnType<ClusterNodeClient['streamCommand']> {
    return this.to(address).cluster.streamCommand()
  }

  /** A read that is asked again, through `pick`'s next node, until one answers. */
  async read(pick: () => string, command: Command, untilMs: number): Promise<CommandResponse> {
    return await retried(command, untilMs, () => this.run(pick(), command))
  }

  session(): Session {
    return new Session(this)
  }

  /** Whoever still tries gives up. */
  close(): void {
    this.isClosed = true
    for (const { channel } of this.stubs.values()) channel.close()
    this.stubs.clear()
  }

  private call<Request, Response>(
    address: string,
    method: Method<Request, Response>,
    request: Request,
    timeoutMs: number,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      method(request, new Metadata(), { deadline: Date.now() + timeoutMs }, (error, response) => {
        if (error === null) resolve(response)
        else reject(errorOf(error, address, timeoutMs))
      })
    })
  }

  private to(address: string): Stubs {
    const known = this.stubs.get(address)
    if (known !== undefined) return known
    if (this.isClosed) throw new Error('the client is closed')
    const insecure = credentials.createInsecure()
    const channel = new Channel(address, insecure, {
      'grpc.max_receive_message_length': 32 * 2 ** 20,
      'grpc.use_local_subchannel_pool': 1,
      // A node that was killed is back soon: nobody waits a second, then two, to find out.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.min_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 200,
    })
    const options = { channelOverride: channel }
    const made = {
      channel,
      cluster: new ClusterNodeClient(address, insecure, options),
      admin: new AdminClient(address, insecure, options),
    }
    this.stubs.set(address, made)
    return made
  }
}

/** One write at a time: every sequence below the next one is settled. */
export class Session {
  readonly id: Uint8Array = newSession()
  private readonly client: Client
  private sequence = 0
  /** Writes that had to be sent more than once. */
  retried = 0

  constructor(client: Client) {
    this.client = client
  }

  /** Sent again, through `pick`'s next node, until the reply is there; rejects at `untilMs` or with a refusal. */
  async write(pick: () => string, command: Command, untilMs: number): Promise<CommandResponse> {
    this.sequence += 1
    const request = { ...command, session: this.id, sequence: this.sequence, ackedBelow: this.sequence }
    let attempts = 0
    return await retried(command, untilMs, () => {
      attempts += 1
      if (attempts === 2) this.retried += 1
      return this.client.run(pick(), request)
    })
  }
}

async function retried<T>(command: Command, untilMs: number, attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (!isPassing(error)) throw error
      if (Date.now() > untilMs)
        throw new Error(`${command.command} ${command.key}: no answer in time, last: ${error.message}`)
      await new Promise(resolve => setTimeout(resolve, retryPauseMs))
    }
  }
}

/** RESOURCE_EXHAUSTED is not among them: no test but the one of overload brings so much that it would be right. */
function isPassing(error: unknown): error is CallFailure {
  const kind = (error as { kind?: string }).kind
  return kind === 'unavailable' || kind === 'outcome_unknown'
}

/** 16 bytes: the time in ms, six bytes big-endian, then ten random ones. */
export function newSession(): Uint8Array {
  const session = Buffer.alloc(16)
  session.writeUIntBE(Date.now(), 0, 6)
  randomBytes(10).copy(session, 6)
  return session
}
