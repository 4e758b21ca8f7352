/** What the bench is told, what it needs of a cluster, and what it answers. */
import type { ChannelCredentials } from '@grpc/grpc-js'
import type { MapResponse, StatsResponse } from '../gen/roundhouse/v1/admin.ts'

/** mixed: nine reads to a write. */
export type WorkloadName = 'set' | 'get' | 'stale-get' | 'mixed' | 'mset'

/** unary: a call a command. pipelined: all commands of a client and node over one StreamCommand. */
export type CallKind = 'unary' | 'pipelined'

/** leader: each command goes to the node that leads its shard. any: to a node by chance, which forwards. */
export type Route = 'leader' | 'any'

export interface BenchPlan {
  /** Every one of these with every kind of call and every number in flight is a case. */
  readonly workloads: readonly WorkloadName[]
  readonly calls: readonly CallKind[]
  /** Commands under way at a time, of all clients together. */
  readonly inFlight: readonly number[]
  /** Each has a connection to every node. */
  readonly clients: number
  readonly route: Route
  /** Different keys, named by number. */
  readonly keys: number
  readonly keyBytes: number
  readonly valueBytes: number
  /** Keys of one MSET. */
  readonly batch: number
  readonly warmUpMs: number
  readonly durationMs: number
  /** Operations a second that begin whatever becomes of those before them; null: the next begins when one has ended. */
  readonly rate: number | null
  /** Writes carry sessions, so that a retry would be applied once. */
  readonly hasSessions: boolean
  /** Leave the keys. */
  readonly keepsKeys: boolean
}

export interface BenchCluster {
  readonly credentials: ChannelCredentials
  map(): Promise<MapResponse>
  /** Of the node at this address; null when it does not answer. */
  stats(address: string): Promise<StatsResponse | null>
}

export interface BenchProgress {
  readonly phase: 'fill' | 'warm-up' | 'measure' | 'clean-up'
  /** The case, such as `set, unary, 64 in flight`; empty outside of cases. */
  readonly label: string
  /** 0 … 1, of this phase. */
  readonly done: number
  /** Since the last progress. */
  readonly operationsPerSecond: number
}

export type RunBench = (
  plan: BenchPlan,
  cluster: BenchCluster,
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
) => Promise<readonly CaseResult[]>

export interface CaseResult {
  readonly workload: WorkloadName
  readonly calls: CallKind
  readonly inFlight: number
  /** Of the window in which was measured. */
  readonly durationS: number
  /** Answered in the window. */
  readonly operations: number
  readonly operationsPerSecond: number
  /** Keys and values, in millions of bytes a second. */
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
