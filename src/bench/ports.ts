/** What the bench is told, what it needs of a cluster, and what it answers. */
import type { ChannelCredentials } from '@grpc/grpc-js'
import type { CommandRequest, CommandResponse } from '../gen/clusterpb/cluster.ts'
import type { MapResponse, StatsResponse } from '../gen/roundhouse/v1/admin.ts'
import type { RunAgainst } from './against/ports.ts'
import type { Kind, Outcome, Verdicts } from './verify/books.ts'

/** Commands on keys. mixed: nine reads to a write. */
export type KeyWorkload = 'set' | 'get' | 'stale-get' | 'mixed' | 'mset'

/**
 * Records, in a stream of the bench's own. produce: a request is one batch. consume: followers read partitions from the
 * start, again and again; an operation is one answer, of many records. end-to-end: from a request to the arrival of its
 * last record at a follower of the tail.
 */
export type StreamWorkload = 'produce' | 'consume' | 'end-to-end'

export type WorkloadName = KeyWorkload | StreamWorkload

/** unary: a call a request. pipelined: all requests of a client and node over a few StreamCommands or ProduceStreams. */
export type CallKind = 'unary' | 'pipelined'

/** leader: each request goes to the node that leads its shard. any: to a node by chance, which forwards. */
export type Route = 'leader' | 'any'

export interface BenchPlan {
  /** Every one of these with every kind of call and every number in flight is a case. */
  readonly workloads: readonly WorkloadName[]
  readonly calls: readonly CallKind[]
  /** Requests under way at a time, of all clients together. */
  readonly inFlight: readonly number[]
  /** In the place of both for consume: ConsumeStream calls at a time. */
  readonly followers: readonly number[]
  /** Each has a connection to every node. */
  readonly clients: number
  readonly route: Route
  /** Different keys, named by number; records that consume finds. */
  readonly keys: number
  readonly keyBytes: number
  readonly valueBytes: number
  /** Keys of one MSET. */
  readonly batch: number
  /** Of one request to produce. */
  readonly records: number
  readonly partitions: number
  readonly warmUpMs: number
  readonly durationMs: number
  /** Operations a second that begin whatever becomes of those before them; null: the next begins when one has ended. */
  readonly rate: number | null
  /** The same for end-to-end, which is about nothing else. */
  readonly endToEndRate: number
  /** Writes carry sessions, so that a retry would be applied once. */
  readonly hasSessions: boolean
  /** Leave the keys and streams. */
  readonly keepsKeys: boolean
  /** They are there from a run before: reads need not write them first. */
  readonly hasKeys?: boolean
}

export interface BenchCluster {
  readonly credentials: ChannelCredentials
  map(): Promise<MapResponse>
  /** Of the node at this address; null when it does not answer. */
  stats(address: string): Promise<StatsResponse | null>
  createStream(name: string, partitions: number): Promise<void>
  deleteStream(name: string): Promise<void>
}

export interface BenchProgress {
  readonly phase: 'fill' | 'warm-up' | 'measure' | 'load' | 'read again' | 'check' | 'clean-up'
  /** The case, such as `set, unary, 64 in flight`; empty outside of cases. */
  readonly label: string
  /** 0 … 1, of this phase. */
  readonly done: number
  /** Since the last progress; null where nothing is sent. */
  readonly operationsPerSecond: number | null
}

export interface RunBench {
  (
    plan: BenchPlan,
    cluster: BenchCluster,
    onProgress: (progress: BenchProgress) => void,
    signal: AbortSignal,
    /** Told of what it made and could not take away at the end, and why: what was measured stands. */
    onLeft: (what: string, why: Error) => void,
  ): Promise<readonly CaseResult[]>
  /** Beside another store, in turn. */
  readonly against: RunAgainst
}

export interface CaseResult {
  readonly workload: WorkloadName
  /** stream: ConsumeStream. */
  readonly calls: CallKind | 'stream'
  readonly inFlight: number
  /** null: closed loop. */
  readonly rate: number | null
  /** Of the window in which was measured. */
  readonly durationS: number
  /** Answered in the window. */
  readonly operations: number
  readonly operationsPerSecond: number
  /** Those of the operations; null: it is about keys. */
  readonly records: number | null
  readonly recordsPerSecond: number | null
  /** Keys and values, or the values of records, in millions of bytes a second. */
  readonly megabytesPerSecond: number
  /** Of operations that began in the window, or, at a fixed rate, should have. */
  readonly latencyMs: Latency
  readonly failures: readonly Failure[]
  readonly nodes: readonly NodeCost[]
  /** Of this process: it shares the machine where it runs beside the nodes. */
  readonly clientCpuUsPerOperation: number
}

export interface Latency {
  readonly mean: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

export interface Failure {
  readonly what: string
  readonly count: number
}

export interface NodeCost {
  readonly nodeId: string
  readonly cpuUsPerOperation: number
  /** null: the node does not count them. */
  readonly syncsPerOperation: number | null
  /** Commands that it passed on to another node, to one operation. */
  readonly forwardedPerOperation: number | null
}

// --- bench --verify -------------------------------------------------------------------------------------------------

export interface VerifyPlan {
  /** Each has a call under way. */
  readonly clients: number
  /** That are changed again and again, at a time. */
  readonly keys: number
  /** Calls a second that begin; null: the next begins when one has ended. */
  readonly rate: number | null
  readonly durationMs: number
  /** Where what was recorded is kept; null: nowhere, unless the verdict is not good. */
  readonly historyPath: string | null
  /** Leave the keys. */
  readonly keepsKeys: boolean
  /** How wide the picture of a violation may be. */
  readonly columns: number
}

export interface VerifyCluster {
  map(): Promise<MapResponse>
  /** One try. Rejects with an error that has `code` and `kind`, as errors.ts has them. */
  run(address: string, request: CommandRequest, timeoutMs: number): Promise<CommandResponse>
}

export type RunVerify = (
  plan: VerifyPlan,
  cluster: VerifyCluster,
  onProgress: (progress: BenchProgress) => void,
  /** Ends the load; what was written is judged all the same. */
  signal: AbortSignal,
) => Promise<VerifyResult>

export interface VerifyResult {
  readonly verdict: 'linearizable' | 'not-linearizable' | 'unknown'
  /** All keys began with it. */
  readonly prefix: string
  /** Of the load, and what ended it. */
  readonly durationS: number
  readonly endedBy: 'time' | 'signal' | 'the number of calls'
  readonly operations: Readonly<Record<Kind, Readonly<Record<Outcome, number>>>>
  /** Calls that were sent more than once, and tries that brought no reply, by code. */
  readonly retried: number
  readonly troubles: Readonly<Record<string, number>>
  /** Longest time without an acknowledged write, and of the calls that were answered the one that took longest, ms. */
  readonly longestGapMs: number
  readonly longestCallMs: number
  readonly found: Readonly<Verdicts>
  /** Read again at the end, each through each of these nodes. */
  readonly keysRead: number
  readonly nodesRead: readonly string[]
  readonly checkedOperations: number
  readonly checkedKeys: number
  /** What proves the verdict "not", and what keeps it from being "linearizable". */
  readonly mistakes: readonly string[]
  readonly doubts: readonly string[]
  /** The smallest part of the history that can't be put in order, as lines; none: []. */
  readonly window: readonly string[]
  /** null: not kept. */
  readonly historyPath: string | null
  /** Keys that could not be taken away. */
  readonly keysLeft: number
}
