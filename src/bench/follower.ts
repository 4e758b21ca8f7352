/**
 * ConsumeStream calls. A Reader goes through partitions from the start to the end, one after another, and hands out one
 * response a time: while nobody asks for the next, it reads none. A Tail follows one partition for as long as it is open.
 * Both check that no offset is left out.
 */
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js'
import { ConsumeRequest, type LogClient, LogService } from '../gen/log/v1/log.ts'
import { type Arrived, readArrived } from './arrived.ts'
import type { BenchStream } from './bench-stream.ts'
import { failureOf } from './lane.ts'

/** Before a call that broke is made again. */
const pauseMs = 100

function consume(
  client: LogClient,
  stream: BenchStream,
  partition: number,
  from: number,
  idleMs?: number,
): ClientReadableStream<Arrived> {
  const request = ConsumeRequest.create()
  request.stream = stream.name
  request.partition = partition
  request.offset = BigInt(from)
  request.batches = true
  request.idleMs = idleMs
  const { path, requestSerialize } = LogService.consumeStream
  return client.makeServerStreamRequest(path, requestSerialize, readArrived, request)
}

/** What a follower is told: a response, or why there is none. */
export type Next = (failure: string | null, arrived: Arrived | null) => void

export class Reader {
  private readonly stream: BenchStream
  private readonly clientOf: (partition: number) => LogClient
  private partition: number
  private call: ClientReadableStream<Arrived> | null = null
  private offset = 0
  private hasArrived = false
  private waiting: Next | null = null
  /** Came while nobody asked: the call is paused meanwhile. */
  private readonly early: Arrived[] = []

  /** Begins with the partition `first`. */
  constructor(stream: BenchStream, first: number, clientOf: (partition: number) => LogClient) {
    this.stream = stream
    this.clientOf = clientOf
    this.partition = first % stream.partitions
  }

  /** One at a time. */
  next(answer: Next): void {
    this.waiting = answer
    if (this.early.length > 0) setImmediate(() => this.take(this.early.shift()!))
    else if (this.call === null) this.open()
    else this.call.resume()
  }

  close(): void {
    const { call } = this
    this.call = null
    call?.cancel()
    this.answer('closed', null)
  }

  private open(): void {
    this.offset = 0
    this.hasArrived = false
    const call = consume(this.clientOf(this.partition), this.stream, this.partition, 0, 0)
    this.call = call
    call.on('data', (arrived: Arrived) => {
      if (this.call !== call) return
      this.hasArrived = true
      if (this.waiting !== null && this.early.length === 0) this.take(arrived)
      else {
        this.early.push(arrived)
        call.pause()
      }
    })
    call.on('end', () => {
      if (this.call === call) this.pass()
    })
    call.on('error', (error: ServiceError) => {
      if (this.call !== call) return
      this.call = null
      this.answer(failureOf(error), null)
    })
  }

  private take(arrived: Arrived): void {
    const due = this.offset
    this.offset = arrived.to
    if (arrived.from === due) this.answer(null, arrived)
    else this.answer(`offset ${arrived.from} where ${due} was due`, null)
  }

  /** At the end of a partition: the next one, from its start. */
  private pass(): void {
    this.call = null
    this.partition = (this.partition + 1) % this.stream.partitions
    if (!this.hasArrived) this.answer('a partition without records', null)
    // Else it is opened when what came early is taken.
    else if (this.waiting !== null && this.early.length === 0) this.open()
  }

  private answer(failure: string | null, arrived: Arrived | null): void {
    const { waiting } = this
    this.waiting = null
    waiting?.(failure, arrived)
  }
}

export class Tail {
  private readonly open: () => ClientReadableStream<Arrived>
  private readonly onArrived: (arrived: Arrived) => void
  private readonly onBroken: (why: string) => void
  private call: ClientReadableStream<Arrived> | null = null
  private timer: NodeJS.Timeout | null = null
  /** The next that is due. */
  offset: number

  constructor(
    stream: BenchStream,
    partition: number,
    from: number,
    client: () => LogClient,
    on: { readonly arrived: (arrived: Arrived) => void; readonly broken: (why: string) => void },
  ) {
    this.open = () => consume(client(), stream, partition, this.offset)
    this.onArrived = on.arrived
    this.onBroken = on.broken
    this.offset = from
    this.start()
  }

  close(): void {
    if (this.timer !== null) clearTimeout(this.timer)
    const { call } = this
    this.call = null
    call?.cancel()
  }

  private start(): void {
    const call = this.open()
    this.call = call
    call.on('data', (arrived: Arrived) => {
      if (this.call !== call) return
      if (arrived.from !== this.offset) this.lose(call, `offset ${arrived.from} where ${this.offset} was due`)
      else {
        this.offset = arrived.to
        this.onArrived(arrived)
      }
    })
    call.on('end', () => this.lose(call, 'the node ended the stream'))
    call.on('error', (error: ServiceError) => this.lose(call, failureOf(error)))
  }

  private lose(call: ClientReadableStream<Arrived>, why: string): void {
    if (this.call !== call) return
    this.call = null
    call.cancel()
    this.timer = setTimeout(() => this.start(), pauseMs)
    this.onBroken(`follower: ${why}`)
  }
}
