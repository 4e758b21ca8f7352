/**
 * A client's way to one node, without what a client for people has: no retries, no deadlines of its own (a node answers
 * within its message_timeout), no promises. unary: one call a command. pipelined: one StreamCommand, whose answers come
 * in the order of the requests.
 */
import { type ChannelCredentials, type ClientDuplexStream, type ServiceError, status } from '@grpc/grpc-js'
import { ClusterNodeClient, type CommandRequest, type CommandResponse } from '../gen/clusterpb/cluster.ts'
import type { CallKind } from './ports.ts'

/** What went wrong, or null. */
export type Answer = (failure: string | null) => void

export interface Lane {
  send(request: CommandRequest, answer: Answer): void
  /** What is under way fails. */
  close(): void
}

export function openLane(address: string, kind: CallKind, credentials: ChannelCredentials): Lane {
  const client = new ClusterNodeClient(address, credentials, {
    // Else all clients of the process would share one connection.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.max_receive_message_length': 32 * 2 ** 20,
  })
  return kind === 'unary' ? new UnaryLane(client) : new PipelinedLane(client)
}

class UnaryLane implements Lane {
  private readonly client: ClusterNodeClient
  private isClosed = false
  private readonly underWay = new Set<Answer>()

  constructor(client: ClusterNodeClient) {
    this.client = client
  }

  send(request: CommandRequest, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.underWay.add(answer)
    this.client.runCommand(request, (error, response) => {
      if (this.underWay.delete(answer)) answer(error === null ? refusalOf(response) : failureOf(error))
    })
  }

  close(): void {
    this.isClosed = true
    this.client.close()
    for (const answer of this.underWay) answer('closed')
    this.underWay.clear()
  }
}

class PipelinedLane implements Lane {
  private readonly client: ClusterNodeClient
  private stream: ClientDuplexStream<CommandRequest, CommandResponse> | null = null
  /** In the order of the requests. */
  private waiting: Answer[] = []
  private isClosed = false

  constructor(client: ClusterNodeClient) {
    this.client = client
  }

  send(request: CommandRequest, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.stream ??= this.open()
    this.waiting.push(answer)
    // How much may wait to be written is bounded by the commands in flight.
    this.stream.write(request)
  }

  close(): void {
    this.isClosed = true
    this.stream?.cancel()
    this.client.close()
    this.fail('closed')
  }

  private open(): ClientDuplexStream<CommandRequest, CommandResponse> {
    const stream = this.client.streamCommand()
    stream.on('data', (response: CommandResponse) => this.waiting.shift()?.(refusalOf(response)))
    stream.on('error', (error: ServiceError) => this.lose(stream, failureOf(error)))
    stream.on('end', () => this.lose(stream, 'the node ended the stream'))
    return stream
  }

  /** The next command opens another one. */
  private lose(stream: ClientDuplexStream<CommandRequest, CommandResponse>, why: string): void {
    if (this.stream !== stream) return
    this.stream = null
    this.fail(why)
  }

  private fail(why: string): void {
    const waiting = this.waiting
    this.waiting = []
    for (const answer of waiting) answer(why)
  }
}

function refusalOf(response: CommandResponse | undefined): string | null {
  if (response === undefined || response.error === '') return null
  return response.code === '' ? response.error : response.code
}

function failureOf(error: ServiceError): string {
  return `${status[error.code] ?? error.code}: ${error.details}`
}
