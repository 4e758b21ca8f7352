/**
 * Records: produced to the leaders of partitions, read from the start, or timed from the producer to a follower.
 *
 * End to end, a request is recognised by the type of its last record, which is the request's number. Its answer to the
 * producer is not waited for: a follower may well be told before.
 */
import { randomBytes } from 'node:crypto'
import { LogClient, type ProduceRequest } from '../gen/log/v1/log.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { Prng } from '../lib/prng.ts'
import type { Arrived } from './arrived.ts'
import { Batches, type BenchStream } from './bench-stream.ts'
import type { Done } from './drive.ts'
import { Reader, Tail } from './follower.ts'
import { channelOptions, type Lane, openProduceLane } from './lane.ts'
import { type Load, sendAll } from './load.ts'
import type { BenchCluster, BenchPlan, BenchProgress, CallKind } from './ports.ts'
import { Router } from './router.ts'
import { WriteSession } from './write-session.ts'

/** Records and bytes of one request that fills a stream. */
const fillRecordsMax = 1_000
const fillBytesMax = 256 * 1024

/** A cluster as it was when the case began. */
export interface Place {
  readonly plan: BenchPlan
  readonly cluster: BenchCluster
  readonly map: MapResponse
  readonly stream: BenchStream
}

export class ProduceLoad implements Load {
  protected readonly place: Place
  private readonly router: Router<Lane<ProduceRequest>>
  private readonly batches: Batches
  private readonly sessions: readonly WriteSession[] | null

  constructor(place: Place, calls: CallKind, inFlight: number) {
    this.place = place
    this.router = producers(place, calls)
    this.batches = batchesOf(place)
    this.sessions = WriteSession.forSlots(place.plan.hasSessions, inFlight)
  }

  readonly begin = (slot: number, done: Done): void => this.operate(slot, done)

  follow(): void {
    this.router.follow()
  }

  snapshot() {
    return this.router.snapshot()
  }

  close(): void {
    this.router.close()
  }

  protected operate(slot: number, done: Done): void {
    const { records, valueBytes } = this.place.plan
    this.produce(slot, 0, failure => done(failure, records * valueBytes, records))
  }

  protected produce(slot: number, type: number, answer: (failure: string | null) => void): void {
    const { plan, stream } = this.place
    const request = this.batches.next(plan.records, type)
    if (this.sessions !== null) this.sessions[slot]!.stamp(request)
    this.router.lane(stream.keyOf(request.partition), slot).send(request, answer)
  }
}

/** What a stream's cases of end-to-end hand on to the next one. */
export interface TailState {
  /** Of the last request: 0 stands for none. */
  number: number
  /** By partition. */
  readonly offsets: number[]
}

const numberMax = 0xffff_ffff

export class EndToEndLoad extends ProduceLoad {
  private readonly state: TailState
  private readonly clients: Router<LogClient>
  private readonly tails: readonly Tail[]
  /** By number; as many as are in flight. */
  private readonly waiting = new Map<number, Done>()

  constructor(place: Place, calls: CallKind, inFlight: number, state: TailState) {
    super(place, calls, inFlight)
    const { stream } = place
    this.state = state
    this.clients = followers(place)
    const on = {
      arrived: ({ types }: Arrived) => {
        for (const number of types) this.settle(number, null)
      },
      broken: (why: string) => {
        for (const number of [...this.waiting.keys()]) this.settle(number, why)
      },
    }
    this.tails = state.offsets.map(
      (from, partition) =>
        new Tail(stream, partition, from, () => this.clients.lane(stream.keyOf(partition), partition), on),
    )
  }

  protected override operate(slot: number, done: Done): void {
    const { state } = this
    state.number = state.number === numberMax ? 1 : state.number + 1
    const { number } = state
    this.waiting.set(number, done)
    this.produce(slot, number, failure => {
      if (failure !== null) this.settle(number, failure)
    })
  }

  override follow(): void {
    super.follow()
    this.clients.follow()
  }

  override close(): void {
    super.close()
    this.tails.forEach((tail, partition) => {
      tail.close()
      this.state.offsets[partition] = tail.offset
    })
    this.clients.close()
  }

  private settle(number: number, failure: string | null): void {
    const done = this.waiting.get(number)
    if (done === undefined) return
    this.waiting.delete(number)
    const { records, valueBytes } = this.place.plan
    done(failure, records * valueBytes, records)
  }
}

export class ConsumeLoad implements Load {
  private readonly clients: Router<LogClient>
  private readonly readers: readonly Reader[]

  constructor(place: Place, count: number) {
    this.clients = followers(place)
    const { stream } = place
    this.readers = Array.from(
      { length: count },
      (_, slot) => new Reader(stream, slot, partition => this.clients.lane(stream.keyOf(partition), slot)),
    )
  }

  readonly begin = (slot: number, done: Done): void =>
    this.readers[slot]!.next((failure, arrived) =>
      done(failure, arrived?.valueBytes ?? 0, arrived?.records ?? 0),
    )

  follow(): void {
    this.clients.follow()
  }

  snapshot() {
    return this.clients.snapshot()
  }

  close(): void {
    for (const reader of this.readers) reader.close()
    this.clients.close()
  }
}

/** Writes `plan.keys` records, evenly over the partitions; each gets one at least. Throws when the cluster refuses. */
export async function fillStream(
  place: Place,
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const { plan, stream } = place
  const router = producers(place, 'unary')
  const batches = batchesOf(place)
  const total = Math.max(plan.keys, stream.partitions)
  // No fewer requests than partitions.
  const ofPartition = Math.floor(total / stream.partitions)
  const ofBytes = Math.floor(fillBytesMax / Math.max(1, plan.valueBytes))
  const step = Math.max(1, Math.min(fillRecordsMax, ofPartition, ofBytes))
  try {
    await sendAll({
      ...{ phase: 'fill', label: 'consume', total },
      ...{ onProgress, signal },
      parts: stepsOf(total, step),
      sizeOf: records => records,
      send: (records, slot, answer) => {
        const request = batches.next(records)
        router.lane(stream.keyOf(request.partition), slot).send(request, answer)
      },
    })
  } finally {
    router.close()
  }
}

function* stepsOf(total: number, step: number): Generator<number> {
  for (let left = total; left > 0; left -= step) yield Math.min(left, step)
}

function producers({ plan, cluster, map }: Place, calls: CallKind): Router<Lane<ProduceRequest>> {
  return new Router(plan, cluster, map, address => openProduceLane(address, calls, cluster.credentials))
}

function followers({ plan, cluster, map }: Place): Router<LogClient> {
  return new Router(
    plan,
    cluster,
    map,
    address => new LogClient(address, cluster.credentials, channelOptions),
  )
}

function batchesOf({ plan, stream }: Place): Batches {
  return new Batches(stream, plan.valueBytes, new Prng(randomBytes(4).readUInt32LE()))
}
