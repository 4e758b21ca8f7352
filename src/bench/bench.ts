/**
 * Runs the cases of a plan one after another against a cluster: fills the keys and streams where reads need them, warms
 * up, measures, and takes away what it made. What an operation costs is asked of the nodes themselves, before and after
 * each window.
 */
import { runAgainst } from './against/against.ts'
import { BenchStream } from './bench-stream.ts'
import { clientCost, costs, type Snapshot } from './cost.ts'
import { drive } from './drive.ts'
import { KeyLoad, overKeys, workloadOf } from './key-load.ts'
import type { Load } from './load.ts'
import type {
  BenchCluster,
  BenchPlan,
  BenchProgress,
  CaseResult,
  KeyWorkload,
  RunBench,
  StreamWorkload,
  WorkloadName,
} from './ports.ts'
import {
  ConsumeLoad,
  EndToEndLoad,
  fillStream,
  type Place,
  ProduceLoad,
  type TailState,
} from './stream-load.ts'

interface Run {
  readonly plan: BenchPlan
  readonly cluster: BenchCluster
  readonly onProgress: (progress: BenchProgress) => void
  readonly signal: AbortSignal
  readonly onLeft: Parameters<RunBench>[4]
}

export const runBench: RunBench = Object.assign(runCases, { against: runAgainst })

async function runCases(
  ...[plan, cluster, onProgress, signal, onLeft]: Parameters<RunBench>
): Promise<CaseResult[]> {
  const run: Run = { plan, cluster, onProgress, signal, onLeft }
  const results: CaseResult[] = []
  let hasKeys = false
  let hasFilled = plan.hasKeys === true
  for (const name of plan.workloads) {
    if (signal.aborted) break
    if (isStreamWorkload(name)) {
      results.push(...(await streamCases(run, name)))
      continue
    }
    hasKeys = true
    if (!hasFilled && workloadOf(plan, name).needsKeys) {
      await overKeys(plan, cluster, 'fill', onProgress, signal)
      hasFilled = true
    }
    results.push(...(await keyCases(run, name)))
  }
  // Also after Ctrl-C: a second one ends the process.
  if (hasKeys && !plan.keepsKeys) {
    const unending = new AbortController().signal
    await overKeys(plan, cluster, 'clean-up', onProgress, unending).catch(why => onLeft('keys', why))
  }
  return results
}

async function keyCases(run: Run, name: KeyWorkload): Promise<CaseResult[]> {
  const { plan, cluster, signal } = run
  const workload = workloadOf(plan, name)
  const results: CaseResult[] = []
  for (const { calls, inFlight } of casesOf(plan)) {
    if (signal.aborted) break
    const load = new KeyLoad(plan, cluster, await cluster.map(), workload, calls, inFlight)
    results.push(await runCase(run, { name, calls, inFlight, rate: plan.rate }, load))
  }
  return results
}

/** In a stream of their own, which is gone afterwards. */
async function streamCases(run: Run, name: StreamWorkload): Promise<CaseResult[]> {
  const { plan, cluster, signal } = run
  const stream = await BenchStream.create(cluster, plan.partitions)
  const place = async (): Promise<Place> => ({ plan, cluster, stream, map: await cluster.map() })
  const results: CaseResult[] = []
  try {
    if (name === 'consume') {
      await fillStream(await place(), run.onProgress, signal)
      for (const inFlight of plan.followers) {
        if (signal.aborted) break
        const load = new ConsumeLoad(await place(), inFlight)
        results.push(await runCase(run, { name, calls: 'stream', inFlight, rate: plan.rate }, load))
      }
      return results
    }
    const tails: TailState = { number: 0, offsets: Array.from({ length: stream.partitions }, () => 0) }
    for (const { calls, inFlight } of casesOf(plan)) {
      if (signal.aborted) break
      const rate = name === 'produce' ? plan.rate : plan.endToEndRate
      const load =
        name === 'produce'
          ? new ProduceLoad(await place(), calls, inFlight)
          : new EndToEndLoad(await place(), calls, inFlight, tails)
      results.push(await runCase(run, { name, calls, inFlight, rate }, load))
    }
    return results
  } finally {
    if (!plan.keepsKeys)
      await cluster.deleteStream(stream.name).catch(why => run.onLeft(`stream ${stream.name}`, why))
  }
}

interface Case {
  readonly name: WorkloadName
  readonly calls: CaseResult['calls']
  readonly inFlight: number
  readonly rate: number | null
}

async function runCase(run: Run, { name, calls, inFlight, rate }: Case, load: Load): Promise<CaseResult> {
  const { plan, onProgress, signal } = run
  const label =
    calls === 'stream' ? `${name}, ${inFlight} followers` : `${name}, ${calls}, ${inFlight} in flight`
  let before: Promise<Snapshot> | null = null
  let after: Promise<Snapshot> | null = null
  try {
    load.follow()
    // Once for nothing: what it takes to connect does not belong to the window.
    await load.snapshot()
    const driven = await drive({
      inFlight,
      rate,
      warmUpMs: plan.warmUpMs,
      durationMs: plan.durationMs,
      signal,
      begin: load.begin,
      onOpen: () => {
        before = load.snapshot()
      },
      onClose: () => {
        after = load.snapshot()
      },
      onTick: (phase, done, operationsPerSecond) => onProgress({ phase, label, done, operationsPerSecond }),
    })
    const [first, last] = [await before!, await after!]
    const seconds = driven.durationMs / 1_000
    const { operations } = driven
    const isOfRecords = isStreamWorkload(name)
    return {
      workload: name,
      calls,
      inFlight,
      rate,
      durationS: seconds,
      operations,
      operationsPerSecond: operations / seconds,
      records: isOfRecords ? driven.records : null,
      recordsPerSecond: isOfRecords ? driven.records / seconds : null,
      megabytesPerSecond: driven.bytes / seconds / 1e6,
      latencyMs: driven.latency,
      failures: driven.failures,
      nodes: costs(first, last, operations),
      clientCpuUsPerOperation: clientCost(first, last, operations),
    }
  } finally {
    load.close()
  }
}

function casesOf({ calls, inFlight }: BenchPlan) {
  return calls.flatMap(kind => inFlight.map(count => ({ calls: kind, inFlight: count })))
}

function isStreamWorkload(name: WorkloadName): name is StreamWorkload {
  return name === 'produce' || name === 'consume' || name === 'end-to-end'
}
