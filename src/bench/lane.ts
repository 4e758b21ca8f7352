/**
 * A client's way to one node, without what a client for people has: no retries, no deadlines of its own (a node answers
 * within its message_timeout), no promises. unary: one call a command. pipelined: StreamCommands, whose answers come in
 * the order of the requests.
 *
 * Several of them, in turn: gRPC hands a stream's messages to HTTP/2 one at a time, the next when the one before is in the
 * socket. So one stream writes a message an event loop turn and system call, on either side; what several streams of a
 * connection have to say leaves together.
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

/** Measured from 1 to 16 on one connection: beyond this nothing is won. */
const streamsOfLane = 8
/** Answered commands are cut off together. */
const trimAfter = 256

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
  private readonly streams: readonly CommandStream[]
  private next = 0

  constructor(client: ClusterNodeClient) {
    this.client = client
    this.streams = Array.from({ length: streamsOfLane }, () => new CommandStream(client))
  }

  send(request: CommandRequest, answer: Answer): void {
    this.next = (this.next + 1) % this.streams.length
    this.streams[this.next]!.send(request, answer)
  }

  close(): void {
    for (const stream of this.streams) stream.close()
    this.client.close()
  }
}

class CommandStream {
  private readonly client: ClusterNodeClient
  private stream: ClientDuplexStream<CommandRequest, CommandResponse> | null = null
  /** In the order of the requests; those before `head` are answered. */
  private waiting: Answer[] = []
  private head = 0
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
    this.fail('closed')
  }

  private open(): ClientDuplexStream<CommandRequest, CommandResponse> {
    const stream = this.client.streamCommand()
    stream.on('data', (response: CommandResponse) => this.answered(response))
    stream.on('error', (error: ServiceError) => this.lose(stream, failureOf(error)))
    stream.on('end', () => this.lose(stream, 'the node ended the stream'))
    return stream
  }

  private answered(response: CommandResponse): void {
    const answer = this.waiting[this.head]
    if (answer === undefined) return
    this.head += 1
    if (this.head === this.waiting.length || this.head >= trimAfter) {
      this.waiting.splice(0, this.head)
      this.head = 0
    }
    answer(refusalOf(response))
  }

  /** The next command opens another one. */
  private lose(stream: ClientDuplexStream<CommandRequest, CommandResponse>, why: string): void {
    if (this.stream !== stream) return
    this.stream = null
    this.fail(why)
  }

  private fail(why: string): void {
    const waiting = this.waiting.slice(this.head)
    this.waiting = []
    this.head = 0
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
