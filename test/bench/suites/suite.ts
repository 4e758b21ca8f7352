/** What a suite of `npm run bench` is given and what it answers: tables, plots and the figures behind them. */

import { runBench } from '../../../src/bench/bench.ts'
import { OwnCluster } from '../../../src/bench/own-cluster.ts'
import type { BenchPlan, BenchProgress, CaseResult } from '../../../src/bench/ports.ts'
import type { Chart } from './plot.ts'

export interface Suite {
  readonly name: string
  /** In the list of suites, and the heading of its part. */
  readonly summary: string
  /** Bytes on the disk, at most; it holds one cluster at a time, or that and one of etcd. */
  roomOf(options: SuiteOptions): number
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
  /** Values of the records that a node alone holds. */
  readonly restartStreamBytes: number
  /** What comes to the node that joins. */
  readonly moveBytes: number
  /** Looked at before anything moves, and after it. */
  readonly moveQuietMs: number
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
  /** What of it could not be measured, and why. */
  readonly missing?: readonly string[]
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

/**
 * Each in turn. One that can't be measured does not take away what others found: it is named. Throws where none could be.
 */
export async function eachOf<T>(
  { signal, say }: Context,
  items: readonly T[],
  nameOf: (item: T) => string,
  work: (item: T) => Promise<void>,
): Promise<string[]> {
  const missing: string[] = []
  let first: unknown = null
  for (const item of items) {
    try {
      signal.throwIfAborted()
      await work(item)
    } catch (error) {
      first ??= error
      const text = error instanceof Error ? error.message : String(error)
      missing.push(`${nameOf(item)}: ${lineOf(text)}`)
      say(`not measured: ${nameOf(item)}: ${text}`)
    }
  }
  if (missing.length === items.length) throw first ?? new Error('nothing was asked for')
  return missing
}

/** Of a text of many lines. */
export const lineOf = (text: string) =>
  text
    .trim()
    .replaceAll(/\s*\n\s*/g, ' | ')
    .slice(0, 400)

/** Something that takes long tells of itself so often. */
const tellEveryMs = 10_000

/** Says what changes at once, else how far it is, now and then. */
export function telling(
  say: (line: string) => void,
): (text: string, done: number, perSecond: number) => void {
  let last = ''
  let [startedMs, toldMs] = [0, 0]
  return (text, done, perSecond) => {
    const nowMs = performance.now()
    if (text !== last) {
      say(text)
      ;[last, startedMs, toldMs] = [text, nowMs, nowMs]
    } else if (nowMs - toldMs >= tellEveryMs && done > 0 && done < 1) {
      toldMs = nowMs
      const leftS = ((nowMs - startedMs) * (1 - done)) / done / 1_000
      const rate = Math.round(perSecond).toLocaleString('en')
      say(`${text}: ${Math.floor(done * 100)} %, ${rate} a second, about ${Math.ceil(leftS)} s more`)
    }
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
  const tell = telling(say)
  const onProgress = ({ phase, label, done, operationsPerSecond }: BenchProgress) =>
    tell(label === '' ? `${phase} of keys` : label, phase === 'fill' ? done : 0, operationsPerSecond ?? 0)
  const results = await runBench(
    { ...plan, warmUpMs, durationMs, ...changed },
    cluster.bench,
    onProgress,
    until,
    (what, why) => {
      throw new Error(`${what} not deleted`, { cause: why })
    },
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
