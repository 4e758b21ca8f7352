/** What a suite of `npm run bench` is given and what it answers: tables, plots and the figures behind them. */

import { runBench } from '../../../src/bench/bench.ts'
import { OwnCluster } from '../../../src/bench/own-cluster.ts'
import type { BenchPlan, CaseResult } from '../../../src/bench/ports.ts'
import type { Chart } from './plot.ts'

export interface Suite {
  readonly name: string
  /** In the list of suites, and the heading of its part. */
  readonly summary: string
  run(context: Context): Promise<SuiteResult>
}

export interface SuiteOptions {
  readonly durationMs: number
  readonly warmUpMs: number
  /** Of the suites that measure beside etcd. */
  readonly rounds: number
  readonly kills: number
  readonly inFlight: readonly number[]
  readonly nodes: readonly number[]
  readonly shards: readonly number[]
  readonly values: readonly number[]
  readonly keys: readonly number[]
  /** Of the simulated clusters. */
  readonly simulated: readonly number[]
  readonly idleMs: number
  readonly idleShards: readonly number[]
  readonly restartKeys: number
  readonly streamBytes: number
  readonly moveBytes: number
  /** Writes a second while data moves. */
  readonly moveRate: number
}

export interface Context {
  readonly options: SuiteOptions
  readonly program: readonly string[]
  readonly say: (line: string) => void
  readonly signal: AbortSignal
}

export interface SuiteResult {
  readonly tables: readonly Table[]
  readonly charts: readonly NamedChart[]
  /** Sentences. */
  readonly notes: readonly string[]
  /** As it was measured. */
  readonly data: unknown
}

export interface NamedChart {
  /** File name without its ending. */
  readonly name: string
  readonly chart: Chart
}

export type Cell = string | number | null

export interface Table {
  readonly caption: string
  readonly head: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
}

/** A cluster that is there for `work` and gone after it. */
export async function withCluster<T>(
  { program, signal, say }: Context,
  { nodes = 3, shardCount = 64 }: { readonly nodes?: number; readonly shardCount?: number },
  work: (cluster: OwnCluster) => Promise<T>,
): Promise<T> {
  say(`${nodes} node${nodes === 1 ? '' : 's'} with ${shardCount} shard${shardCount === 1 ? '' : 's'} start`)
  const cluster = await OwnCluster.start({ program, nodes, shardCount, signal })
  try {
    return await work(cluster)
  } finally {
    await cluster.stop()
  }
}

const plan: Omit<BenchPlan, 'warmUpMs' | 'durationMs'> = {
  ...{ workloads: ['set', 'get'], calls: ['unary'], inFlight: [64], followers: [8], clients: 1 },
  ...{ route: 'leader', keys: 10_000, keyBytes: 16, valueBytes: 128, batch: 10, records: 1 },
  ...{ partitions: 8, rate: null, endToEndRate: 1_000, hasSessions: false, keepsKeys: false },
}

export async function measure(
  { options, signal, say }: Context,
  cluster: OwnCluster,
  changed: Partial<BenchPlan>,
  until: AbortSignal = signal,
): Promise<readonly CaseResult[]> {
  const { warmUpMs, durationMs } = options
  let last = ''
  const onProgress = ({ phase, label }: { phase: string; label: string }) => {
    const text = label === '' ? `${phase} of keys` : label
    if (text !== last) say(text)
    last = text
  }
  const results = await runBench(
    { ...plan, warmUpMs, durationMs, ...changed },
    cluster.bench,
    onProgress,
    until,
  )
  signal.throwIfAborted()
  return results
}

export const failedOf = (result: CaseResult): number =>
  result.failures.reduce((sum, each) => sum + each.count, 0)

/** µs of all nodes together. */
export const nodesCpuOf = (result: CaseResult): number =>
  result.nodes.reduce((sum, each) => sum + each.cpuUsPerOperation, 0)

export const syncsOf = (result: CaseResult): number =>
  result.nodes.reduce((sum, each) => sum + (each.syncsPerOperation ?? 0), 0)

export const caseHead = [
  'ops/s',
  'p50 ms',
  'p99',
  'p99.9',
  'max',
  'nodes’ CPU µs/op',
  'client’s',
  'fsyncs/op',
  'failed',
]

export function caseCells(result: CaseResult): Cell[] {
  const { p50, p99, p999, max } = result.latencyMs
  return [
    ...[result.operationsPerSecond, p50, p99, p999, max],
    ...[nodesCpuOf(result), result.clientCpuUsPerOperation, syncsOf(result), failedOf(result)],
  ]
}

/** 16 B, 4 KiB, 1 MiB. */
export function sizeText(bytes: number): string {
  if (bytes >= 2 ** 30) return `${figureOf(bytes / 2 ** 30)} GiB`
  if (bytes >= 2 ** 20) return `${figureOf(bytes / 2 ** 20)} MiB`
  return bytes >= 2 ** 10 ? `${figureOf(bytes / 2 ** 10)} KiB` : `${bytes} B`
}

/** At most three digits that count, without zeros that say nothing. */
function figureOf(value: number): string {
  return String(Number(value.toPrecision(3)))
}
