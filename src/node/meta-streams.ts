import type { Command } from '../commands/command.ts'
import { RoundhouseError } from '../errors.ts'
import { fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { StreamRecord } from './meta-register.ts'
import {
  type ClusterRow,
  define,
  id,
  json,
  load,
  loadCluster,
  optional,
  type Shape,
  store,
  storeCluster,
  streamsKey,
  text,
} from './meta-rows.ts'

/**
 * The catalogue of streams, a row of the meta shard. A stream's id is given out here and never again: whatever shards and
 * disks hold of a stream hangs on it, so a stream that is made anew under an old name begins empty. How many partitions a
 * stream has never changes: keys would move between them.
 */
export const streamLimits = {
  nameBytesMax: 255,
  /** Of one stream. */
  partitionsMax: 1024,
  /** Of a cluster, and of all its streams together: each partition is a log with files of its own on each replica. */
  streamsMax: 1_000,
  allPartitionsMax: 10_000,
  retentionMsMin: 1_000,
  /** Retention by size cuts whole segments, of 64 MiB: less than one can't be kept to. */
  retentionBytesMin: 64 * 1024 * 1024,
} as const

/** Where the seeds' clients produce, who know no names: made when it is first used. */
export const defaultStream = 'default'

export interface CreateStreamRequest {
  readonly name: string
  readonly partitions: number
  readonly retentionMs: number | null
  readonly retentionBytes: number | null
  /** Drawn by the asker: the same request, sent again, gets the stream that it made. */
  readonly nonce: number
  /** True: a stream that is there is as good as a new one. */
  readonly ifMissing: boolean
}

export interface DeleteStreamRequest {
  readonly name: string
  /** A request that comes late must not delete the next stream of that name. */
  readonly id: number
}

export interface FindStreamRequest {
  readonly name: string
}

/** What is absent stays as it is; null: kept for ever. */
export interface ChangeStreamRequest extends DeleteStreamRequest {
  readonly retentionMs?: number | null
  readonly retentionBytes?: number | null
}

/** Throws INVALID_ARGUMENT. */
export function checkStreamName(name: string): void {
  const bytes = fromUtf8(name)
  const isText = toUtf8(bytes) === name && !/\p{Cc}/u.test(name)
  if (isText && bytes.byteLength >= 1 && bytes.byteLength <= streamLimits.nameBytesMax) return
  throw new RoundhouseError('INVALID_ARGUMENT', {
    what: `stream name ${JSON.stringify(name.slice(0, 64))}`,
    accepted: `1 to ${streamLimits.nameBytesMax} bytes of UTF-8 without control characters`,
  })
}

/** Throws INVALID_ARGUMENT. */
export function checkPartitions(partitions: number): void {
  const max = streamLimits.partitionsMax
  if (Number.isInteger(partitions) && partitions >= 1 && partitions <= max) return
  throw new RoundhouseError('INVALID_ARGUMENT', { what: `partitions ${partitions}`, accepted: `1 to ${max}` })
}

/** Throws INVALID_ARGUMENT. */
export function checkRetention({ retentionMs, retentionBytes }: Partial<CreateStreamRequest>): void {
  checkAtLeast('retention', retentionMs, streamLimits.retentionMsMin, 'ms')
  checkAtLeast('retention by size', retentionBytes, streamLimits.retentionBytesMin, 'bytes')
}

function checkAtLeast(what: string, value: number | null | undefined, min: number, unit: string): void {
  if (value === null || value === undefined || (Number.isSafeInteger(value) && value >= min)) return
  throw new RoundhouseError('INVALID_ARGUMENT', {
    what: `${what} ${value} ${unit}`,
    accepted: `${min} ${unit} or more, or none`,
  })
}

const retention = (value: unknown) => value === null || id(value)
const loadStreams = (keyspace: Parameters<Command['run']>[0]) =>
  load<StreamRecord[]>(keyspace, streamsKey) ?? []

const createShape: Shape<CreateStreamRequest> = {
  name: text,
  partitions: id,
  retentionMs: retention,
  retentionBytes: retention,
  nonce: id,
  ifMissing: value => typeof value === 'boolean',
}

const create = define<CreateStreamRequest>('META.STREAM.CREATE', createShape, (keyspace, request) => {
  const cluster = loadCluster(keyspace)
  const { name, partitions, retentionMs, retentionBytes, nonce, ifMissing } = request
  checkStreamName(name)
  checkPartitions(partitions)
  checkRetention(request)
  const streams = loadStreams(keyspace)
  const known = streams.find(each => each.name === name)
  if (known !== undefined) {
    if (ifMissing || known.nonce === nonce) return json(known)
    throw new RoundhouseError('STREAM_EXISTS', { stream: name })
  }
  checkRoom(streams, partitions)
  const stream: StreamRecord = {
    name,
    id: nextStreamOf(cluster),
    partitions,
    retentionMs,
    retentionBytes,
    createdMs: keyspace.nowMs,
    nonce,
  }
  store(keyspace, streamsKey, [...streams, stream])
  storeCluster(keyspace, { ...cluster, nextStream: stream.id + 1 })
  return json(stream)
})

function checkRoom(streams: readonly StreamRecord[], partitions: number): void {
  const { streamsMax, allPartitionsMax } = streamLimits
  if (streams.length >= streamsMax)
    throw new RoundhouseError('OVERLOADED', { what: 'streams of the cluster', max: streamsMax })
  const all = streams.reduce((sum, each) => sum + each.partitions, partitions)
  if (all > allPartitionsMax)
    throw new RoundhouseError('OVERLOADED', { what: 'partitions of all streams', max: allPartitionsMax })
}

/** Answers {}; a stream that is gone already is no error: the request may have been sent twice. */
const remove = define<DeleteStreamRequest>('META.STREAM.DELETE', { name: text, id }, (keyspace, request) => {
  const cluster = loadCluster(keyspace)
  const streams = loadStreams(keyspace)
  const left = streams.filter(each => each.name !== request.name || each.id !== request.id)
  if (left.length === streams.length) return json({})
  store(keyspace, streamsKey, left)
  storeCluster(keyspace, cluster)
  return json({})
})

const changeShape: Shape<ChangeStreamRequest> = {
  name: text,
  id,
  retentionMs: optional(retention),
  retentionBytes: optional(retention),
}

const change = define<ChangeStreamRequest>('META.STREAM.CHANGE', changeShape, (keyspace, request) => {
  const cluster = loadCluster(keyspace)
  checkRetention(request)
  const streams = loadStreams(keyspace)
  const known = streams.find(each => each.name === request.name && each.id === request.id)
  if (known === undefined) throw new RoundhouseError('NO_SUCH_STREAM', { stream: request.name })
  const { retentionMs = known.retentionMs, retentionBytes = known.retentionBytes } = request
  const changed: StreamRecord = { ...known, retentionMs, retentionBytes }
  if (JSON.stringify(changed) === JSON.stringify(known)) return json(known)
  store(
    keyspace,
    streamsKey,
    streams.map(each => (each === known ? changed : each)),
  )
  storeCluster(keyspace, cluster)
  return json(changed)
})

/** Answers the stream; of its name nothing but this may say that there is none, for any copy of the register may be old. */
const find = define<FindStreamRequest>(
  'META.STREAM.FIND',
  { name: text },
  (keyspace, { name }) => {
    loadCluster(keyspace)
    const known = loadStreams(keyspace).find(each => each.name === name)
    if (known === undefined) throw new RoundhouseError('NO_SUCH_STREAM', { stream: name })
    return json(known)
  },
  'read',
)

export function nextStreamOf(cluster: ClusterRow): number {
  return cluster.nextStream ?? 1
}

export const streamCommands: readonly Command[] = [create, remove, change, find]
