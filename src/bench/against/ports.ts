/** What a comparison with another store is told, and what it answers. */
import type { BenchCluster, Failure, Latency } from '../ports.ts'

export type SideName = 'roundhouse' | 'etcd'

export type CallName = 'set' | 'get'

/** own: the bench's client in this process. h2load: a process of its own in C, so that the client's cost hides less. */
export type Caller = 'own' | 'h2load'

export interface AgainstPlan {
  /** Every one of these with every number in flight and every caller is a case. Reads are linearizable on both sides. */
  readonly calls: readonly CallName[]
  readonly inFlight: readonly number[]
  /** Each side is measured so often, in turn. */
  readonly rounds: number
  readonly warmUpMs: number
  readonly durationMs: number
  /** Different keys; h2load knows one. */
  readonly keys: number
  readonly keyBytes: number
  readonly valueBytes: number
  /** Leaders that are killed on each side; 0: none. */
  readonly kills: number
  /** h2load is used where it is in PATH. */
  readonly mayUseH2load: boolean
  /** Of the cluster that is started for it. */
  readonly nodes: number
  readonly shardCount: number
}

export interface AgainstSetting {
  /** What starts a node, to be followed by `serve …`. */
  readonly program: readonly string[]
  /** A cluster that runs already; null: one is started, and gone at the end. Nobody's leader is killed but of our own. */
  readonly running: BenchCluster | null
  readonly onProgress: (progress: AgainstProgress) => void
  readonly signal: AbortSignal
}

export interface AgainstProgress {
  readonly text: string
  /** 0 … 1, of the whole. */
  readonly done: number
}

export type RunAgainst = (plan: AgainstPlan, setting: AgainstSetting) => Promise<AgainstResult>

export interface AgainstResult {
  /** Name, version and nodes of each side. */
  readonly sides: readonly { readonly name: SideName; readonly version: string; readonly nodes: number }[]
  readonly cases: readonly AgainstCase[]
  /** null: none were asked for. */
  readonly failover: FailoverResult | null
  /** What could not be measured, and why. */
  readonly notes: readonly string[]
}

export interface AgainstCase {
  readonly call: CallName
  readonly caller: Caller
  readonly inFlight: number
  /** In the order in which they were made. */
  readonly runs: readonly AgainstRun[]
  /** By operations a second, and by mean latency: ours to theirs. null: a side has no run. */
  readonly operationsRatio: Ratio | null
  readonly latencyRatio: Ratio | null
}

export interface AgainstRun {
  readonly side: SideName
  readonly round: number
  readonly operationsPerSecond: number
  readonly meanMs: number
  /** null: h2load tells the mean only. */
  readonly latencyMs: Latency | null
  readonly failures: readonly Failure[]
  readonly nodes: readonly SideCost[]
  /** Processor time of this process or of h2load to an operation; null: not known. */
  readonly clientCpuUsPerOperation: number | null
  /** What the nodes of the other side took meanwhile for nothing, in % of one core; null: not known. */
  readonly otherCpuPercent: number | null
}

export interface SideCost {
  readonly nodeId: string
  readonly cpuUsPerOperation: number
  /** null: the node does not count them. */
  readonly syncsPerOperation: number | null
}

export interface Ratio {
  /** Median of our runs, median of theirs. */
  readonly ours: number
  readonly theirs: number
  readonly ratio: number
  /** Of the pairs of runs that were made one after the other. */
  readonly min: number
  readonly max: number
}

export interface FailoverResult {
  /** In the order in which they were made. */
  readonly kills: readonly Kill[]
  /** p50 of the first key of each kill: one shard. And of the last of all keys that were tried. ms. */
  readonly one: Ratio | null
  readonly all: Ratio | null
}

/** ms from `kill -9` of a leader. */
export interface Kill {
  readonly side: SideName
  readonly nodeId: string
  /** Until a write that was begun after it was acknowledged, for each key that was tried; each in another shard. */
  readonly gapsMs: readonly number[]
}
