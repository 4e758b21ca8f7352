/**
 * A client's way to one node, without what a client for people has: no retries, no deadlines of its own (a node answers
 * within its message_timeout), no promises. unary: one call a request. pipelined: StreamCommand or ProduceStream calls,
 * whose answers come in the order of the requests.
 *
 * Several of them, in turn: gRPC hands a stream's messages to HTTP/2 one at a time, the next when the one before is in the
 * socket. So one stream writes a message an event loop turn and system call, on either side; what several streams of a
 * connection have to say leaves together.
 */
import { type ChannelCredentials, type ClientDuplexStream, type ServiceError, status } from '@grpc/grpc-js'
import { ClusterNodeClient, type CommandRequest, type CommandResponse } from '../gen/clusterpb/cluster.ts'
import { LogClient, type ProduceRequest, type ProduceResponse } from '../gen/log/v1/log.ts'
import type { CallKind } from './ports.ts'

/** What went wrong, or null. */
export type Answer = (failure: string | null) => void

export interface Lane<Request> {
  send(request: Request, answer: Answer): void
  /** What is under way fails. */
  close(): void
}

/** What a lane needs of a service. */
interface Contract<Request, Response> {
  unary(request: Request, answer: (error: ServiceError | null, response: Response) => void): void
  stream(): ClientDuplexStream<Request, Response>
  /** What an answer says that went wrong; null: nothing. */
  refusalOf(response: Response | undefined): string | null
  close(): void
}

/** Four and sixteen were tried on a busy machine: sixteen was no clear gain. */
const streamsOfLane = 8
/** Answered requests are cut off together. */
const trimAfter = 256

export const channelOptions = {
  // Else all clients of the process would share one connection.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': 32 * 2 ** 20,
} as const

export function openLane(
  address: string,
  kind: CallKind,
  credentials: ChannelCredentials,
): Lane<CommandRequest> {
  const client = new ClusterNodeClient(address, credentials, channelOptions)
  return laneOf<CommandRequest, CommandResponse>(kind, {
    unary: (request, answer) => client.runCommand(request, answer),
    stream: () => client.streamCommand(),
    refusalOf: response => {
      if (response === undefined || response.error === '') return null
      return response.code === '' ? response.error : response.code
    },
    close: () => client.close(),
  })
}

export function openProduceLane(
  address: string,
  kind: CallKind,
  credentials: ChannelCredentials,
): Lane<ProduceRequest> {
  const client = new LogClient(address, credentials, channelOptions)
  return laneOf<ProduceRequest, ProduceResponse>(kind, {
    unary: (request, answer) => client.produce(request, answer),
    stream: () => client.produceStream(),
    refusalOf: () => null,
    close: () => client.close(),
  })
}

function laneOf<Request, Response>(kind: CallKind, contract: Contract<Request, Response>): Lane<Request> {
  return kind === 'unary' ? new UnaryLane(contract) : new PipelinedLane(contract)
}

class UnaryLane<Request, Response> implements Lane<Request> {
  private readonly contract: Contract<Request, Response>
  private isClosed = false
  private readonly underWay = new Set<Answer>()

  constructor(contract: Contract<Request, Response>) {
    this.contract = contract
  }

  send(request: Request, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.underWay.add(answer)
    this.contract.unary(request, (error, response) => {
      if (this.underWay.delete(answer))
        answer(error === null ? this.contract.refusalOf(response) : failureOf(error))
    })
  }

  close(): void {
    this.isClosed = true
    this.contract.close()
    for (const answer of this.underWay) answer('closed')
    this.underWay.clear()
  }
}

class PipelinedLane<Request, Response> implements Lane<Request> {
  private readonly contract: Contract<Request, Response>
  private readonly streams: readonly RequestStream<Request, Response>[]
  private next = 0

  constructor(contract: Contract<Request, Response>) {
    this.contract = contract
    this.streams = Array.from({ length: streamsOfLane }, () => new RequestStream(contract))
  }

  send(request: Request, answer: Answer): void {
    this.next = (this.next + 1) % this.streams.length
    this.streams[this.next]!.send(request, answer)
  }

  close(): void {
    for (const stream of this.streams) stream.close()
    this.contract.close()
  }
}

class RequestStream<Request, Response> {
  private readonly contract: Contract<Request, Response>
  private stream: ClientDuplexStream<Request, Response> | null = null
  /** In the order of the requests; those before `head` are answered. */
  private waiting: Answer[] = []
  private head = 0
  private isClosed = false

  constructor(contract: Contract<Request, Response>) {
    this.contract = contract
  }

  send(request: Request, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.stream ??= this.open()
    this.waiting.push(answer)
    // How much may wait to be written is bounded by the requests in flight.
    this.stream.write(request)
  }

  close(): void {
    this.isClosed = true
    this.stream?.cancel()
    this.fail('closed')
  }

  private open(): ClientDuplexStream<Request, Response> {
    const stream = this.contract.stream()
    stream.on('data', (response: Response) => this.answered(response))
    stream.on('error', (error: ServiceError) => this.lose(stream, failureOf(error)))
    stream.on('end', () => this.lose(stream, 'the node ended the stream'))
    return stream
  }

  private answered(response: Response): void {
    const answer = this.waiting[this.head]
    if (answer === undefined) return
    this.head += 1
    if (this.head === this.waiting.length || this.head >= trimAfter) {
      this.waiting.splice(0, this.head)
      this.head = 0
    }
    answer(this.contract.refusalOf(response))
  }

  /** The next request opens another one. */
  private lose(stream: ClientDuplexStream<Request, Response>, why: string): void {
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

export function failureOf(error: ServiceError): string {
  return `${status[error.code] ?? error.code}: ${error.details}`
}
