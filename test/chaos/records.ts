/**
 * Records under the same faults: producers with sessions fill the partitions of a stream, some megabytes, so that there are
 * files for bits to flip in. What is acknowledged has a place for good; in the end every partition is read through every
 * node, from its first record to its last: nothing acknowledged is missing or elsewhere, nothing is there twice, nothing was
 * never produced.
 */
import { randomBytes } from 'node:crypto'
import { credentials, type ServiceError, status } from '@grpc/grpc-js'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  LogClient,
  ProduceRequest,
} from '../../src/gen/log/v1/log.ts'
import { CreateStreamRequest, StreamsClient } from '../../src/gen/roundhouse/v1/streams.ts'
import type { Random } from '../../src/lib/prng.ts'

export interface RecordLoadOptions {
  readonly random: Random
  /** The address of a node. */
  readonly pick: () => string
}

const stream = 'chaos'
const partitions = 6
const producers = 2
const batchMax = 8
const valueBytes = { min: 100, max: 6_000 } as const
const pauseMs = 60
const attemptMsMax = 3_000
/** After so long the outcome of a batch is given up as unknown. */
const patienceMs = 20_000
const retryMs = 100
const readMsMax = 60_000

export class RecordLoad {
  /** What is wrong; empty: nothing is. */
  readonly mistakes: string[] = []
  readonly counts = { produced: 0, unknown: 0, read: 0 }
  private readonly options: RecordLoadOptions
  private readonly clients = new Map<string, LogClient>()
  /** By partition: what was acknowledged at an offset. */
  private readonly places = Array.from({ length: partitions }, () => new Map<number, string>())
  /** All that may be there. */
  private readonly begun = new Set<string>()
  private made = 0
  private isStopping = false
  private running: Promise<unknown> = Promise.resolve()

  constructor(options: RecordLoadOptions) {
    this.options = options
  }

  /** Makes the stream, and begins. */
  async start(): Promise<void> {
    const streams = new StreamsClient(this.options.pick(), credentials.createInsecure())
    try {
      const request = CreateStreamRequest.fromPartial({ name: stream, partitions, ifMissing: true })
      await new Promise<void>((resolve, reject) =>
        streams.create(request, error => (error === null ? resolve() : reject(error))),
      )
    } finally {
      streams.close()
    }
    this.running = Promise.all(Array.from({ length: producers }, () => this.produceAll()))
  }

  async stop(): Promise<void> {
    this.isStopping = true
    await this.running
  }

  close(): void {
    this.isStopping = true
    for (const client of this.clients.values()) client.close()
    this.clients.clear()
  }

  private at(address: string): LogClient {
    const known = this.clients.get(address)
    if (known !== undefined) return known
    const client = new LogClient(address, credentials.createInsecure())
    this.clients.set(address, client)
    return client
  }

  private async produceAll(): Promise<void> {
    const { random } = this.options
    let session = newSession()
    let sequence = 0n
    while (!this.isStopping) {
      const partition = random.below(partitions)
      const values = Array.from({ length: 1 + random.below(batchMax) }, () => this.value())
      for (const value of values) this.begun.add(idOf(value))
      const records = values.map(value => ({ value: Buffer.from(value) }))
      sequence++
      const request = { stream, partition, records, session, sequence, ackedBelow: sequence }
      const offset = await this.produce(ProduceRequest.fromPartial(request))
      if (offset === null) {
        this.counts.unknown++
        session = newSession()
        sequence = 0n
      } else {
        this.counts.produced += values.length
        for (const [i, value] of values.entries()) this.acknowledged(partition, offset + i, idOf(value))
      }
      await new Promise(resolve => setTimeout(resolve, pauseMs))
    }
  }

  /** A name that is its own, and something to fill files with. */
  private value(): string {
    const { random } = this.options
    const bytes = valueBytes.min + random.below(valueBytes.max - valueBytes.min)
    return `${++this.made} ${'.'.repeat(bytes)}`
  }

  private acknowledged(partition: number, offset: number, id: string): void {
    const places = this.places[partition]!
    const known = places.get(offset)
    if (known !== undefined)
      this.mistakes.push(
        `${stream}/${partition}: record ${known} and record ${id} were acknowledged at ${offset}`,
      )
    places.set(offset, id)
  }

  /** The offset of its first record; null: it may be there or not. */
  private async produce(request: ProduceRequest): Promise<number | null> {
    const untilMs = Date.now() + patienceMs
    while (Date.now() < untilMs) {
      try {
        return await new Promise<number>((resolve, reject) =>
          this.at(this.options.pick()).produce(
            request,
            { deadline: Date.now() + attemptMsMax } as never,
            (error: ServiceError | null, answer) =>
              error === null ? resolve(Number(answer.offset)) : reject(error),
          ),
        )
      } catch (error) {
        const { code, details } = error as ServiceError
        if (!passing.has(code)) {
          this.mistakes.push(`a batch of records is refused: ${details}`)
          return null
        }
      }
      await new Promise(resolve => setTimeout(resolve, retryMs))
    }
    return null
  }

  /** Reads all of it through each of these nodes. */
  async readEverything(
    addresses: readonly { readonly id: string; readonly address: string }[],
  ): Promise<void> {
    for (const { id, address } of addresses)
      for (let partition = 0; partition < partitions; partition++) {
        const untilMs = Date.now() + readMsMax
        for (;;) {
          try {
            this.check(id, partition, await this.read(address, partition))
            break
          } catch (error) {
            if (Date.now() < untilMs && passing.has((error as ServiceError).code)) continue
            this.mistakes.push(
              `${stream}/${partition} can't be read through ${id}: ${(error as Error).message}`,
            )
            break
          }
        }
      }
  }

  private async read(address: string, partition: number): Promise<readonly string[]> {
    const found: string[] = []
    const request = { stream, partition, from: From.EARLIEST, idleMs: 0, linearizable: true, batches: true }
    const call = this.at(address).consumeStream(ConsumeRequest.fromPartial(request))
    for await (const { records } of call as AsyncIterable<ConsumeResponse>)
      for (const record of records) {
        if (Number(record.offset) !== found.length)
          this.mistakes.push(`${stream}/${partition}: ${record.offset} comes after ${found.length - 1}`)
        found.push(idOf(record.value.toString()))
      }
    return found
  }

  private check(node: string, partition: number, found: readonly string[]): void {
    const where = `${stream}/${partition}, read through ${node}`
    for (const [offset, id] of this.places[partition]!)
      if (found[offset] !== id)
        this.mistakes.push(
          `${where}: ${found[offset] ?? 'nothing'} is at ${offset}, ${id} was acknowledged there`,
        )
    const seen = new Set<string>()
    for (const [offset, id] of found.entries()) {
      if (!this.begun.has(id)) this.mistakes.push(`${where}: ${id} at ${offset}, which nobody produced`)
      if (seen.has(id)) this.mistakes.push(`${where}: ${id} is there twice, at ${offset} again`)
      seen.add(id)
    }
    this.counts.read += found.length
  }
}

/** Another node, or the same one later, may answer otherwise. */
const passing: ReadonlySet<number> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.CANCELLED,
  status.DATA_LOSS,
])

const idOf = (value: string) => value.slice(0, value.indexOf(' '))

function newSession(): Buffer {
  const id = randomBytes(16)
  id.writeUIntBE(Date.now(), 0, 6)
  return id
}
