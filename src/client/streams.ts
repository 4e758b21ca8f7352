/** The catalogue of streams: what `client.streams` does. */
import type {
  CreateStreamResponse,
  DescribeStreamResponse,
  ListStreamsResponse,
  TruncateStreamResponse,
  StreamPartition as WirePartition,
  Stream as WireStream,
} from '../gen/roundhouse/v1/streams.ts'
import { CallError } from './call-error.ts'
import type { Engine } from './engine.ts'
import { type AskFacts, ask, once, type UnaryMethod } from './errand.ts'
import type { NodeLink } from './node-link.ts'
import type { Partitions, Patience } from './partitions.ts'

export interface Retention {
  /** How long records stay, ms; null: for ever. */
  readonly retentionMs?: number | null
  /** How much of a partition stays; null: any size. */
  readonly retentionBytes?: number | null
}

export interface CreateOptions extends Retention {
  /** 1 by default; it can't be changed later. */
  readonly partitions?: number
  /** A stream of that name that is there is as good. */
  readonly ifMissing?: boolean
}

export interface StreamInfo {
  readonly name: string
  /** Never used again, also when the name is. */
  readonly id: number
  readonly partitions: number
  readonly retentionMs: number | null
  readonly retentionBytes: number | null
  readonly createdMs: number
}

export interface PartitionInfo {
  readonly partition: number
  readonly shard: number
  /** A node id; null: none is known. */
  readonly leader: string | null
  readonly replicas: readonly string[]
  /** The first offset, and the one that the next record gets; null: `error` says why that is not known. */
  readonly start: number | null
  readonly end: number | null
  /** Of the last record; null: there was none. */
  readonly lastMs: number | null
  /** On one replica's disk, about. */
  readonly bytes: number | null
  readonly error: string | null
}

export interface StreamDescription extends StreamInfo {
  readonly parts: readonly PartitionInfo[]
}

export class Streams {
  private readonly engine: Engine
  private readonly partitions: Partitions
  private readonly patience: Patience

  constructor(engine: Engine, partitions: Partitions, patience: Patience) {
    this.engine = engine
    this.partitions = partitions
    this.patience = patience
  }

  async create(name: string, options: CreateOptions = {}): Promise<StreamInfo> {
    const { partitions = 1, ifMissing = false, ...retention } = options
    const request = {
      name,
      partitions: amount(partitions, 'partitions'),
      ifMissing,
      ...wireRetention(retention, undefined),
    }
    const { stream } = await this.send<typeof request, CreateStreamResponse>(
      { name: 'STREAM CREATE', access: 'write', isRepeatable: ifMissing },
      request,
      ({ streams }) => streams.create.bind(streams),
    )
    this.partitions.forget(name)
    return infoOf(stream)
  }

  async list(): Promise<StreamInfo[]> {
    const { streams } = await this.send<object, ListStreamsResponse>(
      { name: 'STREAM LIST', access: 'read', isRepeatable: true },
      {},
      link => link.streams.list.bind(link.streams),
    )
    return streams.map(infoOf)
  }

  /** With its partitions: where they are, what they hold. */
  async describe(name: string): Promise<StreamDescription> {
    const { stream, partitions } = await this.send<{ name: string }, DescribeStreamResponse>(
      { name: 'STREAM DESCRIBE', access: 'read', isRepeatable: true },
      { name },
      ({ streams }) => streams.describe.bind(streams),
    )
    return { ...infoOf(stream), parts: partitions.map(partOf) }
  }

  /** Changes what is given. */
  async change(name: string, retention: Retention): Promise<StreamInfo> {
    const request = { name, ...wireRetention(retention, 0n) }
    const { stream } = await this.send<typeof request, CreateStreamResponse>(
      // Twice is as good as once.
      { name: 'STREAM CHANGE', access: 'write', isRepeatable: true },
      request,
      ({ streams }) => streams.change.bind(streams),
    )
    return infoOf(stream)
  }

  /** With all its records. */
  async delete(name: string): Promise<void> {
    await this.send<{ name: string }, object>(
      { name: 'STREAM DELETE', access: 'write', isRepeatable: false },
      { name },
      ({ streams }) => streams.delete.bind(streams),
    )
    this.partitions.forget(name)
  }

  /** Removes the records before an offset; answers the first that is left. */
  async truncate(name: string, { before, partition = 0 }: TruncateOptions): Promise<number> {
    const request = {
      name,
      partition: amount(partition, 'partition'),
      beforeOffset: BigInt(amount(before, 'before')),
    }
    const { startOffset } = await this.send<typeof request, TruncateStreamResponse>(
      { name: 'STREAM TRUNCATE', access: 'write', isRepeatable: true },
      request,
      ({ streams }) => streams.truncate.bind(streams),
    )
    return Number(startOffset)
  }

  private send<Request, Answer>(
    facts: Pick<AskFacts, 'name' | 'access' | 'isRepeatable'>,
    request: Request,
    method: (link: NodeLink) => UnaryMethod<Request, Answer>,
  ): Promise<Answer> {
    return ask(this.engine, { ...facts, ...this.patience }, (link, timeoutMs, signal) =>
      once<Answer>(link, timeoutMs, signal, (metadata, options, done) =>
        method(link)(request, metadata, options, done),
      ),
    )
  }
}

export interface TruncateOptions {
  /** The first offset that stays. */
  readonly before: number
  /** 0 by default. */
  readonly partition?: number
}

/** Throws TypeError. */
function amount(value: number, what: string): number {
  if (Number.isSafeInteger(value) && value >= 0) return value
  throw new TypeError(`${what}: an integer from 0 up is accepted, not ${String(value)}`)
}

/** `none` stands for "no limit". */
function wireRetention({ retentionMs, retentionBytes }: Retention, none: bigint | undefined) {
  const wire = (value: number | null | undefined, what: string) =>
    value === undefined ? undefined : value === null ? none : BigInt(amount(value, what))
  return {
    retentionMs: wire(retentionMs, 'retentionMs'),
    retentionBytes: wire(retentionBytes, 'retentionBytes'),
  }
}

function infoOf(stream: WireStream | undefined): StreamInfo {
  if (stream === undefined)
    throw new CallError({
      code: 'UNEXPECTED_REPLY',
      message: 'an answer without a stream',
      outcome: 'unknown',
    })
  const { name, id, partitions, retentionMs, retentionBytes, createdMs } = stream
  return {
    ...{ name, partitions, id: Number(id), createdMs: Number(createdMs) },
    retentionMs: retentionMs === undefined ? null : Number(retentionMs),
    retentionBytes: retentionBytes === undefined ? null : Number(retentionBytes),
  }
}

function partOf({ partition, shardId, leader, replicas, ...rest }: WirePartition): PartitionInfo {
  const isKnown = rest.error === ''
  return {
    ...{ partition, shard: shardId, leader: leader === '' ? null : leader, replicas },
    start: isKnown ? Number(rest.startOffset) : null,
    end: isKnown ? Number(rest.endOffset) : null,
    lastMs: rest.timestampMs === 0n ? null : Number(rest.timestampMs),
    bytes: isKnown ? Number(rest.bytes) : null,
    error: isKnown ? null : rest.error,
  }
}
