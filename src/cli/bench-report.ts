/** What the bench found, for people and for tools. */
import type { BenchPlan, CaseResult } from '../bench/ports.ts'
import { isOfStreams } from './bench-plan.ts'
import type { Colors } from './colors.ts'
import { bytesText, table } from './print.ts'

export function reportText(colors: Colors, plan: BenchPlan, results: readonly CaseResult[]): string {
  if (results.length === 0) return 'nothing was measured\n'
  const parts = [`${planText(plan)}\n`, resultTable(colors, results), '', costTable(colors, results)]
  const failed = results.flatMap(result =>
    result.failures.map(
      ({ what, count }) =>
        `${colors.red('failed')} ${count} × ${what} (${result.workload}, ${result.inFlight} in flight)`,
    ),
  )
  return `${[...parts, ...(failed.length > 0 ? ['', ...failed] : [])].join('\n')}\n`
}

function planText(plan: BenchPlan): string {
  const rate =
    plan.rate === null ? 'the next when one has ended' : `${plan.rate}/s, counted from when they were due`
  const values = bytesText(plan.valueBytes)
  const what = [
    ...(plan.workloads.every(isOfStreams)
      ? []
      : [`${plan.keys} keys of ${bytesText(plan.keyBytes)}, values of ${values}`]),
    ...(plan.workloads.some(isOfStreams) ? [`records of ${values}, ${recordsText(plan)}`] : []),
  ]
  return (
    `${what.join('; ')}; ` +
    `${plan.clients} client${plan.clients === 1 ? '' : 's'}, to ${plan.route === 'leader' ? 'the leader' : 'any node'}, ` +
    `${plan.hasSessions ? 'with' : 'no'} sessions; ${rate}; ${plan.durationMs / 1_000} s a case`
  )
}

function recordsText({ workloads, records, partitions, keys, rate, endToEndRate }: BenchPlan): string {
  return [
    `${records} a request`,
    `${partitions} partition${partitions === 1 ? '' : 's'}`,
    ...(workloads.includes('consume') ? [`${keys} to consume`] : []),
    ...(workloads.includes('end-to-end') && rate === null
      ? [`end-to-end ${figure(endToEndRate)} requests/s, counted from when they were due`]
      : []),
  ].join(', ')
}

function resultTable(colors: Colors, results: readonly CaseResult[]): string {
  const hasRecords = results.some(each => each.recordsPerSecond !== null)
  const head = [
    'WORKLOAD',
    'CALLS',
    'IN FLIGHT',
    'OPS/S',
    ...(hasRecords ? ['RECORDS/S'] : []),
    'MB/S',
    'P50 MS',
    'P90',
    'P99',
    'P99.9',
    'MAX',
    'FAILED',
  ]
  return table(
    colors,
    head,
    results.map(result => {
      const { p50, p90, p99, p999, max } = result.latencyMs
      const failed = result.failures.reduce((sum, each) => sum + each.count, 0)
      return [
        ...[result.workload, result.calls, result.inFlight],
        whole(result.operationsPerSecond),
        ...(hasRecords ? [result.recordsPerSecond === null ? '-' : whole(result.recordsPerSecond)] : []),
        figure(result.megabytesPerSecond),
        ...[p50, p90, p99, p999, max].map(figure),
        failed === 0 ? '-' : colors.red(String(failed)),
      ]
    }),
  )
}

/** Of each operation, whoever led its shard: processor time and fsyncs of each node, commands passed on by all. */
function costTable(colors: Colors, results: readonly CaseResult[]): string {
  const ids = [...new Set(results.flatMap(result => result.nodes.map(node => node.nodeId)))]
  const countsSyncs = results.some(({ nodes }) => nodes.some(node => node.syncsPerOperation !== null))
  const head = [
    ...['PER OPERATION', 'CALLS', 'IN FLIGHT'],
    ...ids.map(id => `${id} µs`),
    'client µs',
    ...(countsSyncs ? ids.map(id => `${id} fsyncs`) : []),
    'FORWARDED',
  ]
  const rows = results.map(({ workload, calls, inFlight, nodes, clientCpuUsPerOperation }) => {
    const byId = new Map(nodes.map(node => [node.nodeId, node]))
    const forwarded = nodes.reduce((sum, node) => sum + (node.forwardedPerOperation ?? 0), 0)
    return [
      ...[workload, calls, inFlight],
      ...ids.map(id => optional(byId.get(id)?.cpuUsPerOperation ?? null)),
      figure(clientCpuUsPerOperation),
      ...(countsSyncs ? ids.map(id => optional(byId.get(id)?.syncsPerOperation ?? null)) : []),
      figure(forwarded),
    ]
  })
  const note = countsSyncs ? '' : '\n(these nodes do not count their fsyncs)'
  return `${table(colors, head, rows)}${note}`
}

export function optional(value: number | null): string {
  return value === null ? '-' : figure(value)
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString('en')
}

/** Three digits that count. */
export function figure(value: number): string {
  return value === 0 ? '0' : value >= 100 ? String(Math.round(value)) : value.toFixed(value >= 10 ? 1 : 2)
}

export function reportJson(plan: BenchPlan, results: readonly CaseResult[]): Record<string, unknown> {
  return {
    plan: {
      keys: plan.keys,
      key_bytes: plan.keyBytes,
      value_bytes: plan.valueBytes,
      batch: plan.batch,
      records_per_request: plan.records,
      partitions: plan.partitions,
      clients: plan.clients,
      route: plan.route,
      rate: plan.rate,
      sessions: plan.hasSessions,
      warm_up_s: plan.warmUpMs / 1_000,
      duration_s: plan.durationMs / 1_000,
    },
    cases: results.map(result => ({
      workload: result.workload,
      calls: result.calls,
      in_flight: result.inFlight,
      rate: result.rate,
      duration_s: result.durationS,
      operations: result.operations,
      operations_per_second: result.operationsPerSecond,
      records: result.records,
      records_per_second: result.recordsPerSecond,
      megabytes_per_second: result.megabytesPerSecond,
      latency_ms: {
        mean: result.latencyMs.mean,
        p50: result.latencyMs.p50,
        p90: result.latencyMs.p90,
        p99: result.latencyMs.p99,
        p99_9: result.latencyMs.p999,
        max: result.latencyMs.max,
      },
      failures: result.failures,
      nodes: result.nodes.map(node => ({
        node_id: node.nodeId,
        cpu_us_per_operation: node.cpuUsPerOperation,
        fsyncs_per_operation: node.syncsPerOperation,
        forwarded_per_operation: node.forwardedPerOperation,
      })),
      client_cpu_us_per_operation: result.clientCpuUsPerOperation,
    })),
  }
}
