/**
 * A client's way to one node, without what a client for people has: no retries, no deadlines of its own (a node answers
 * within its message_timeout), no promises. unary: one call a request. pipelined: StreamCommand or ProduceStream calls,
 * whose answers come in the order of the requests; several of them, for a node takes 256 requests of
 * each at a time.
 */
import { type ChannelCredentials, type ServiceError, status } from '@grpc/grpc-js'
import { ClusterNodeService, type CommandRequest, type CommandResponse } from '../gen/clusterpb/cluster.ts'
import { LogService, type ProduceRequest, type ProduceResponse } from '../gen/log/v1/log.ts'
import type { CallKind } from './ports.ts'
import { Wire, type WireCall } from './wire.ts'

/** What went wrong, or null. */
export type Answer = (failure: string | null) => void

export interface Lane<Request> {
  send(request: Request, answer: Answer): void
  /** What is under way fails. */
  close(): void
}

/** What a lane needs of a service. */
interface Contract<Request, Response> {
  readonly unary: Method<Request, Response>
  readonly stream: Method<Request, Response>
  /** What an answer says that went wrong; null: nothing. */
  readonly refusalOf: (response: Response) => string | null
}

interface Method<Request, Response> {
  readonly path: string
  readonly requestSerialize: (request: Request) => Buffer
  readonly responseDeserialize: (bytes: Buffer) => Response
}

const streamsOfLane = 8
/** Answered requests are cut off together. */
const trimAfter = 256

export const channelOptions = {
  // Else all clients of the process would share one connection.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.max_receive_message_length': 32 * 2 ** 20,
} as const

const commands: Contract<CommandRequest, CommandResponse> = {
  unary: ClusterNodeService.runCommand,
  stream: ClusterNodeService.streamCommand,
  refusalOf: ({ error, code }) => {
    if (error === '') return null
    return code === '' ? error : code
  },
}
const batches: Contract<ProduceRequest, ProduceResponse> = {
  unary: LogService.produce,
  stream: LogService.produceStream,
  refusalOf: () => null,
}

export function openLane(
  address: string,
  kind: CallKind,
  credentials: ChannelCredentials,
): Lane<CommandRequest> {
  return laneOf(kind, commands, new Wire(address, credentials))
}

export function openProduceLane(
  address: string,
  kind: CallKind,
  credentials: ChannelCredentials,
): Lane<ProduceRequest> {
  return laneOf(kind, batches, new Wire(address, credentials))
}

function laneOf<Request, Response>(
  kind: CallKind,
  contract: Contract<Request, Response>,
  wire: Wire,
): Lane<Request> {
  return kind === 'unary' ? new UnaryLane(contract, wire) : new PipelinedLane(contract, wire)
}

class UnaryLane<Request, Response> implements Lane<Request> {
  private readonly contract: Contract<Request, Response>
  private readonly wire: Wire
  private isClosed = false
  private readonly underWay = new Set<Answer>()

  constructor(contract: Contract<Request, Response>, wire: Wire) {
    this.contract = contract
    this.wire = wire
  }

  send(request: Request, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.underWay.add(answer)
    const { unary, refusalOf } = this.contract
    let refusal: string | null = null
    const call = this.wire.call(unary.path, {
      message: bytes => {
        refusal = refusalOf(unary.responseDeserialize(bytes))
      },
      end: failure => {
        if (this.underWay.delete(answer)) answer(failure ?? refusal)
      },
    })
    call.send(unary.requestSerialize(request))
    call.finish()
  }

  close(): void {
    this.isClosed = true
    this.wire.close()
    for (const answer of this.underWay) answer('closed')
    this.underWay.clear()
  }
}

class PipelinedLane<Request, Response> implements Lane<Request> {
  private readonly wire: Wire
  private readonly streams: readonly RequestStream<Request, Response>[]
  private next = 0

  constructor(contract: Contract<Request, Response>, wire: Wire) {
    this.wire = wire
    this.streams = Array.from({ length: streamsOfLane }, () => new RequestStream(contract, wire))
  }

  send(request: Request, answer: Answer): void {
    this.next = (this.next + 1) % this.streams.length
    this.streams[this.next]!.send(request, answer)
  }

  close(): void {
    for (const stream of this.streams) stream.close()
    this.wire.close()
  }
}

class RequestStream<Request, Response> {
  private readonly contract: Contract<Request, Response>
  private readonly wire: Wire
  private stream: WireCall | null = null
  /** In the order of the requests; those before `head` are answered. */
  private waiting: Answer[] = []
  private head = 0
  private isClosed = false

  constructor(contract: Contract<Request, Response>, wire: Wire) {
    this.contract = contract
    this.wire = wire
  }

  send(request: Request, answer: Answer): void {
    if (this.isClosed) {
      answer('closed')
      return
    }
    this.waiting.push(answer)
    this.stream ??= this.open()
    // How much may wait to be written is bounded by the requests in flight.
    this.stream?.send(this.contract.stream.requestSerialize(request))
  }

  close(): void {
    this.isClosed = true
    this.stream?.cancel()
    this.fail('closed')
  }

  /** null: it has ended already, and the requests with it. */
  private open(): WireCall | null {
    const { stream, refusalOf } = this.contract
    let call: WireCall | null = null
    let hasEnded = false
    call = this.wire.call(stream.path, {
      message: bytes => this.answered(refusalOf(stream.responseDeserialize(bytes))),
      end: failure => {
        hasEnded = true
        // The next request opens another one.
        if (call === null || this.stream === call) this.lose(failure ?? 'the node ended the stream')
      },
    })
    return hasEnded ? null : call
  }

  private answered(refusal: string | null): void {
    const answer = this.waiting[this.head]
    if (answer === undefined) return
    this.head += 1
    if (this.head === this.waiting.length || this.head >= trimAfter) {
      this.waiting.splice(0, this.head)
      this.head = 0
    }
    answer(refusal)
  }

  private lose(why: string): void {
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
