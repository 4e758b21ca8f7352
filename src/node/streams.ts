import type { Operation } from '../commands/envelope.ts'
import { streamBatch } from '../commands/stream-batch.ts'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import { type Packed, unpack } from '../lib/packed.ts'
import type { Random } from '../lib/prng.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import type { Hash64 } from '../ring/ring.ts'
import type { Host } from '../shard/host.ts'
import type { Replica } from '../shard/replica.ts'
import { AppendQueue } from './append-queue.ts'
import { isPassing } from './controller.ts'
import { metaGroup, type Register, type StreamRecord } from './meta-register.ts'
import {
  type ChangeStreamRequest,
  type CreateStreamRequest,
  checkPartitions,
  checkRetention,
  checkStreamName,
  type DeleteStreamRequest,
  defaultStream,
  type FindStreamRequest,
} from './meta-streams.ts'
import {
  type Batch,
  type Call,
  type CallResult,
  type CopiedRecord,
  type LogServer,
  type PartitionPlace,
  type PartitionStatus,
  type Peers,
  type Produced,
  type ProducedRecord,
  plainCall,
  type ReadOptions,
  type ReadRecords,
  type StreamDescription,
  type StreamService,
  type StreamWish,
} from './ports.ts'
import type { Router } from './router.ts'
import { encodeBatch, packBatch, partitionOfKey, produceLimits } from './stream-batch.ts'
import { goneOf, keeperLimits, partitionKey, StreamKeeper } from './stream-keeper.ts'
import { readWaitRequest, StreamTails } from './stream-tails.ts'

/**
 * Streams as wires see them: names become ids by the catalogue (the meta register, which every node follows), a record's
 * partition becomes a key, and what is done to it a command of the key's shard, which takes the way of all commands.
 *
 * A batch goes to one partition and is one entry. Which one it is must not depend on the attempt: a session makes a retry
 * harmless only on the shard that saw the first try.
 */
export interface StreamsOptions {
  readonly nodeId: string
  readonly host: Host
  readonly peers: Peers
  readonly clock: Clock
  readonly log: Logger
  readonly random: Random
  readonly hash64: Hash64
  readonly router: Pick<Router, 'execute'>
  readonly register: () => Register | null
  /** Runs a command of the meta shard, waiting out an election. */
  readonly meta: <Answer>(command: string, request: unknown) => Promise<Answer>
  readonly candidates: (shard: number) => readonly string[]
  readonly leaderOf: (shard: number) => string | null
  readonly addressOf: (node: string) => string | null
  /** `message_timeout`. */
  readonly timeoutMsMax: number
  /** Waits out elections. */
  readonly pause: (ms: number) => Promise<void>
}

/** Partitions of one stream that are asked at the same time. */
const describedAtOnceMax = 32
/** Names that are being looked up in the meta shard. */
const lookupsMax = 256
/** How long this node's own copy of the register may take to show what was just changed. */
const shownMsMax = 1_000

export class Streams implements StreamService {
  private readonly options: StreamsOptions
  private readonly tails: StreamTails
  private readonly keeper: StreamKeeper
  private readonly appends: AppendQueue
  /** Under way, by name: whoever comes meanwhile waits for the same answer, in the order of coming. */
  private readonly lookups = new Map<string, Promise<StreamRecord>>()
  /** Streams that this node's register does not show yet. */
  private readonly early = new Map<string, StreamRecord>()
  private ids: ReadonlySet<number> = new Set()
  /** Where the next batch without key or session goes. */
  private turn: number
  readonly counters = { batches: 0, records: 0, reads: 0 }

  constructor(options: StreamsOptions) {
    this.options = options
    this.tails = new StreamTails(options)
    this.keeper = new StreamKeeper({
      clock: options.clock,
      log: options.log,
      register: options.register,
      led: () =>
        [...options.host.all()]
          .filter(each => each.isLeader && each.group !== metaGroup)
          .map(each => each.group),
      shardOf: key => this.shardOf(key),
      execute: call => options.router.execute(call),
    })
    this.appends = new AppendQueue({
      clock: options.clock,
      append: async (place, batches, timeoutMs) =>
        countOf(await options.router.execute(this.appendCall(place, batches, timeoutMs))),
    })
    this.turn = Math.floor(options.random.next() * 2 ** 20)
  }

  /** How often the node is to call `retain` and `sweep`, ms. */
  static readonly retainMs = keeperLimits.retainMs
  static readonly sweepMs = keeperLimits.sweepMs

  retain(): void {
    void this.keeper.retain()
  }

  sweep(): void {
    void this.keeper.sweep()
  }

  /** Replicas of this node applied something. */
  progressed(replica: Replica): void {
    this.tails.progressed(replica)
  }

  registered({ streams, nextStream }: Register): void {
    for (const [name, { id }] of this.early) if (id < nextStream) this.early.delete(name)
    const ids = new Set([...streams.values()].map(each => each.id))
    const gone = [...this.ids].filter(id => !ids.has(id))
    this.ids = ids
    for (const id of gone) this.tails.dropped(id)
    if (gone.length > 0) this.sweep()
  }

  stop(): void {
    this.tails.stop()
  }

  /** Followers that wait, here and for other nodes. */
  get waiting(): number {
    return this.tails.size
  }

  // --- The catalogue ------------------------------------------------------------------------------------------------

  async create(wish: StreamWish): Promise<StreamRecord> {
    checkStreamName(wish.name)
    checkPartitions(wish.partitions)
    checkRetention(wish)
    const { name, partitions, retentionMs, retentionBytes, ifMissing } = wish
    const nonce = Math.floor(this.options.random.next() * 2 ** 48)
    const request: CreateStreamRequest = { name, partitions, retentionMs, retentionBytes, nonce, ifMissing }
    return this.noteEarly(await this.options.meta<StreamRecord>('META.STREAM.CREATE', request))
  }

  async change(
    name: string,
    retention: { readonly retentionMs?: number | null; readonly retentionBytes?: number | null },
  ): Promise<StreamRecord> {
    checkRetention(retention)
    const { id } = await this.stream(name)
    const request: ChangeStreamRequest = { name: named(name), id, ...retention }
    return this.options.meta('META.STREAM.CHANGE', request)
  }

  async delete(name: string): Promise<void> {
    checkStreamName(named(name))
    const { id, partitions } = this.known(named(name)) ?? (await this.lookUp(named(name)))
    await this.options.meta('META.STREAM.DELETE', { name: named(name), id } satisfies DeleteStreamRequest)
    this.early.delete(named(name))
    const untilMs = this.options.clock.now() + shownMsMax
    while (this.options.register()?.streams.get(named(name))?.id === id && this.options.clock.now() < untilMs)
      await this.options.pause(5)
    const register = this.options.register()
    // Nobody here knows yet which of the ids before it are gone: the sweep of those who do follows soon.
    if (register === null || id >= register.nextStream) return
    const streams = new Map([...register.streams].filter(([, each]) => each.id !== id))
    const gone = goneOf({ streams, nextStream: register.nextStream })
    const shards = range(0, partitions).map(each => this.shardOf(partitionKey(named(name), each)))
    // Whom it does not reach now is told by the sweep of whoever leads that shard then.
    await Promise.allSettled([...new Set(shards)].map(shard => this.keeper.drop(shard, gone)))
  }

  list(): readonly StreamRecord[] {
    const all = new Map([...this.early, ...(this.options.register()?.streams ?? [])])
    return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  async describe(name: string): Promise<StreamDescription> {
    const stream = await this.stream(name)
    const partitions: PartitionStatus[] = []
    for (let from = 0; from < stream.partitions; from += describedAtOnceMax) {
      const several = range(from, Math.min(stream.partitions, from + describedAtOnceMax))
      partitions.push(...(await Promise.all(several.map(each => this.statusOf(stream, each)))))
    }
    return { stream, partitions }
  }

  private async statusOf(stream: StreamRecord, partition: number): Promise<PartitionStatus> {
    const { register, leaderOf } = this.options
    const place = this.placeOf(stream, partition)
    const { shard } = place
    const record = register()?.shards.get(shard)
    const replicas = [...(record?.voters ?? []), ...(record?.learners ?? [])].map(member => member.node)
    const where = { partition, shard, leader: leaderOf(shard), replicas }
    try {
      const [start, end, timestampMs, bytes] = await this.info(place)
      return { ...where, start, end, timestampMs, bytes, error: null }
    } catch (error) {
      if (!isPassing(error)) throw error
      return { ...where, start: 0, end: 0, timestampMs: 0, bytes: 0, error: (error as Error).message }
    }
  }

  async truncate(name: string, partition: number, before: number): Promise<number> {
    const place = await this.find(name, partition)
    try {
      return await this.count('STREAM.TRIM', place, [String(before)])
    } catch (error) {
      throw await this.withRange(error, place, before)
    }
  }

  servers(name: string, partition: number): readonly LogServer[] {
    const leader = this.options.leaderOf(this.shardOf(partitionKey(named(name), partition)))
    const nodes = this.options.register()?.nodes.filter(node => node.state !== 'left') ?? []
    return nodes.map(({ nodeId, clientAddress }) => ({ nodeId, clientAddress, isLeader: nodeId === leader }))
  }

  // --- From a name to a place ---------------------------------------------------------------------------------------

  async find(name: string, partition: number, id = 0): Promise<PartitionPlace> {
    let stream = await this.stream(name)
    // They only grow: this node has not heard of that one yet.
    if (stream.id < id) stream = await this.ask(stream.name, () => this.lookUp(stream.name))
    if (id !== 0 && stream.id !== id)
      throw new RoundhouseError('STREAM_REMADE', { stream: stream.name, asked: id, id: stream.id })
    return this.placeOf(stream, partition)
  }

  private placeOf({ name, id, partitions }: StreamRecord, partition: number): PartitionPlace {
    if (!Number.isInteger(partition) || partition < 0 || partition >= partitions)
      throw new RoundhouseError('NO_SUCH_PARTITION', { stream: name, partition, partitions })
    const key = partitionKey(name, partition)
    return { stream: name, id, partition, shard: this.shardOf(key), key }
  }

  private shardOf(key: Bytes): number {
    const register = this.options.register()
    if (register === null) throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    return shardOfSlot(slotOf(key), register.settings.shardCount)
  }

  /** What this node knows of a name; undefined: nothing, which may be because it is behind. */
  private known(name: string): StreamRecord | undefined {
    return this.early.get(name) ?? this.options.register()?.streams.get(name)
  }

  /** At once where the name is known here; those who wait for a name come before those who ask after it. */
  private stream(given: string): StreamRecord | Promise<StreamRecord> {
    const name = named(given)
    const pending = this.lookups.get(name)
    if (pending !== undefined) return pending
    const known = this.known(name)
    if (known !== undefined) return known
    checkStreamName(name)
    return this.ask(name, () =>
      name === defaultStream
        ? this.create({ name, partitions: 1, retentionMs: null, retentionBytes: null, ifMissing: true })
        : this.lookUp(name),
    )
  }

  /** One question a name at a time. */
  private ask(name: string, question: () => Promise<StreamRecord>): Promise<StreamRecord> {
    const pending = this.lookups.get(name)
    if (pending !== undefined) return pending
    if (this.lookups.size >= lookupsMax)
      throw new RoundhouseError('OVERLOADED', { what: 'streams being looked up', max: lookupsMax })
    const settled = question().finally(() => this.lookups.delete(name))
    this.lookups.set(name, settled)
    return settled
  }

  /**
   * By a linearizable read: a register that lacks a name, the meta leader's too until it has applied what is committed,
   * proves nothing.
   */
  private async lookUp(name: string): Promise<StreamRecord> {
    const request: FindStreamRequest = { name }
    return this.noteEarly(await this.options.meta<StreamRecord>('META.STREAM.FIND', request))
  }

  private noteEarly(stream: StreamRecord): StreamRecord {
    if (stream.id >= (this.options.register()?.nextStream ?? 0)) this.early.set(stream.name, stream)
    return stream
  }

  // --- Records ------------------------------------------------------------------------------------------------------

  async produce(batch: Batch): Promise<Produced> {
    const { session, timeoutMs, signal, order } = batch
    const packed = packBatch(batch.records)
    const found = this.stream(batch.stream)
    const stream = found instanceof Promise ? await found : found
    const place = this.placeOf(stream, batch.partition ?? this.partitionOf(batch, stream.partitions))
    let offset: number
    if (session === null) {
      const isCalledOff = batch.isCalledOff ?? (() => signal?.aborted === true)
      offset = await this.appends.append(place, packed, timeoutMs, isCalledOff)
    } else {
      const result = await this.options.router.execute({
        ...this.appendCall(place, [packed], timeoutMs),
        session,
        ...(signal === undefined ? {} : { signal }),
        ...(order === undefined ? {} : { order }),
      })
      offset = countOf(result)
    }
    this.counters.batches++
    this.counters.records += packed.count
    return { partition: place.partition, offset, count: packed.count }
  }

  /** While a member of the cluster can't read packed records, one by one. */
  private appendCall(place: PartitionPlace, batches: readonly Packed[], timeoutMs: number): Call {
    const bytes = batches.map(batch => batch.bytes)
    const isKnown = (this.options.register()?.level ?? 1) >= streamBatch.since!
    if (isKnown)
      return { ...plainCall(streamBatch.name, [...argsOf(place), ...bytes], timeoutMs), isChecked: true }
    return plainCall('STREAM.APPEND', [...argsOf(place), ...bytes.flatMap(unpack)], timeoutMs)
  }

  async copy(
    name: string,
    partition: number,
    offset: number,
    records: readonly CopiedRecord[],
  ): Promise<number> {
    const encoded = encodeBatch(records, produceLimits.copiedRecordsMax)
    const place = await this.find(name, partition)
    const pairs = encoded.flatMap((record, i) => [text(records[i]!.timestampMs), record])
    const call = plainCall(
      'STREAM.COPY',
      [...argsOf(place), text(offset), ...pairs],
      this.options.timeoutMsMax,
    )
    try {
      return countOf(await this.options.router.execute(call))
    } catch (error) {
      throw await this.withRange(error, place, offset)
    }
  }

  async operationOf(name: string, partition: number, records: readonly ProducedRecord[]): Promise<Operation> {
    const encoded = encodeBatch(records)
    return { command: 'STREAM.APPEND', args: [...argsOf(await this.find(name, partition)), ...encoded] }
  }

  /** By key; a batch whose keys are of several partitions is refused, for it can't be one entry. */
  private partitionOf({ stream, records, session }: Batch, partitions: number): number {
    if (partitions === 1) return 0
    let found: number | null = null
    for (const { key } of records) {
      if (key === null) continue
      const partition = partitionOfKey(this.options.hash64, key, partitions)
      if (found !== null && found !== partition)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: `batch: its keys are of partitions ${found} and ${partition} of ${named(stream)}`,
          accepted: 'records of one partition, or a partition by its number',
        })
      found = partition
    }
    if (found !== null) return found
    if (session === null) return this.turn++ % partitions
    const id = Buffer.from(session.id.buffer, session.id.byteOffset, session.id.byteLength).toString('hex')
    return Number(this.options.hash64(`${id} ${session.sequence}`) % BigInt(partitions))
  }

  async read(place: PartitionPlace, from: number, options: ReadOptions): Promise<ReadRecords> {
    this.counters.reads++
    this.checkPlace(place)
    const { isLinearizable } = options
    try {
      const found = await this.readOnce(place, from, options)
      return found
    } catch (error) {
      if (!isOutOfRange(error)) throw error
      // A replica that lags does not know yet what its leader has told others.
      if (!isLinearizable) return this.read(place, from, { ...options, isLinearizable: true })
      throw await this.withRange(error, place, from)
    }
  }

  private async readOnce(place: PartitionPlace, from: number, options: ReadOptions): Promise<ReadRecords> {
    const { bytesMax, isLinearizable, timeoutMs, signal } = options
    const args = [...argsOf(place), text(from), text(bytesMax)]
    const { reply, lagMs } = await this.options.router.execute({
      ...plainCall('STREAM.READ', args, timeoutMs),
      read: isLinearizable ? 'linearizable' : 'stale',
      ...(signal === undefined ? {} : { signal }),
    })
    if (reply.kind !== 'list' || reply.cursor === undefined)
      throw new RoundhouseError('UNSUPPORTED_ENTRY', { what: 'the answer of another node' })
    const [start = 0, end = 0] = toUtf8(reply.cursor).split(' ').map(Number)
    return { kept: reply.items.map(item => item.value!), start, end, lagMs }
  }

  async seek(place: PartitionPlace, timestampMs: number): Promise<number> {
    this.checkPlace(place)
    return this.count('STREAM.SEEK', place, [String(timestampMs)])
  }

  async rangeOf(place: PartitionPlace): Promise<{ readonly start: number; readonly end: number }> {
    this.checkPlace(place)
    const [start, end] = await this.info(place)
    return { start, end }
  }

  wait(place: PartitionPlace, offset: number, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    this.checkPlace(place)
    return this.tails.wait(place, offset, timeoutMs, signal)
  }

  /** What other nodes ask; null: nothing of streams. */
  answer(method: string, request: unknown): Promise<unknown> | null {
    return method === 'STREAM.WAIT' ? this.tails.answer(readWaitRequest(request)) : null
  }

  /** Throws NO_SUCH_STREAM where the stream is gone, though another may have its name. */
  private checkPlace({ stream, id }: PartitionPlace): void {
    const register = this.options.register()
    if (register === null || id >= register.nextStream || register.streams.get(stream)?.id === id) return
    throw new RoundhouseError('NO_SUCH_STREAM', { stream })
  }

  private async info(place: PartitionPlace): Promise<[number, number, number, number]> {
    const call = plainCall('STREAM.INFO', argsOf(place), this.options.timeoutMsMax)
    const { reply } = await this.options.router.execute(call)
    const values = reply.kind === 'list' ? reply.items.map(item => Number(toUtf8(item.value!))) : []
    const [start = 0, end = 0, timestampMs = 0, bytes = 0] = values
    return [start, end, timestampMs, bytes]
  }

  private async count(command: string, place: PartitionPlace, more: readonly string[]): Promise<number> {
    const call = plainCall(command, [...argsOf(place), ...more.map(text)], this.options.timeoutMsMax)
    return countOf(await this.options.router.execute(call))
  }

  /** The error with the stream's name and the range that there is: facts do not travel between nodes. */
  private async withRange(error: unknown, place: PartitionPlace, offset: number): Promise<unknown> {
    if (!isOutOfRange(error)) return error
    const what = `${place.stream}/${place.partition}`
    if (isError(error, 'OFFSET_OUT_OF_RANGE'))
      return new RoundhouseError('OFFSET_OUT_OF_RANGE', { ...error.facts, what })
    const [start, end] = await this.info(place)
    return new RoundhouseError('OFFSET_OUT_OF_RANGE', { what, offset, start, end })
  }
}

function named(name: string): string {
  return name === '' ? defaultStream : name
}

function argsOf({ key, id, partition }: PartitionPlace): Bytes[] {
  return [key, text(id), text(partition)]
}

const text = (value: number | string) => fromUtf8(String(value))

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}

function countOf({ reply }: CallResult): number {
  return reply.kind === 'count' ? Number(reply.count) : 0
}

function isOutOfRange(error: unknown): boolean {
  return (isError(error) || error instanceof RemoteError) && error.code === 'OFFSET_OUT_OF_RANGE'
}
