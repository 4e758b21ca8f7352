/**
 * The bench as a verb: its plan from flags, a bar while it runs, tables or JSON of what it found. The load itself is
 * made in src/bench, which `main.ts` hands in.
 */
import type {
  BenchCluster,
  BenchPlan,
  CallKind,
  CaseResult,
  Route,
  RunBench,
  RunVerify,
  WorkloadName,
} from '../bench/ports.ts'
import { parseSize } from '../config/forms.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { BenchBar } from './bench-bar.ts'
import { BenchFlags } from './bench-flags.ts'
import { benchVerify, verifyNotes, verifyOptions } from './bench-verify.ts'
import { fetchStats } from './calls.ts'
import { type Colors, colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { bytesText, printJson, table } from './print.ts'
import { exitCodes, type Input, type OptionSpec, type Shell, UsageError, type Verb } from './shell.ts'

const workloads: readonly WorkloadName[] = ['set', 'get', 'stale-get', 'mixed', 'mset']
const callKinds: readonly CallKind[] = ['unary', 'pipelined']
const routes: readonly Route[] = ['leader', 'any']
const statsTimeout = '3s'
/** As `bench:` and seven digits. */
const keyBytesMin = 16

const defaults = {
  calls: 'unary',
  'in-flight': '64',
  clients: '1',
  route: 'leader',
  keys: '100000',
  'key-bytes': '16',
  'value-bytes': '128',
  batch: '10',
  'warm-up': '2s',
  duration: '10s',
} as const

const option = (name: keyof typeof defaults, describe: string, more: Partial<OptionSpec> = {}) => ({
  [name]: { kind: 'text', describe, fallback: defaults[name], ...more } satisfies OptionSpec,
})

export function benchVerb(loadBench: () => Promise<RunBench>, loadVerify: () => Promise<RunVerify>): Verb {
  return {
    path: ['bench'],
    group: 'tools',
    summary: 'Measure a cluster: operations a second, latencies, costs; or judge it: --verify',
    positionals: [
      {
        name: 'workload',
        kind: 'many',
        describe: 'set, get, stale-get, mixed (90 % get), mset; without any: set and get',
        choices: workloads,
      },
    ],
    options: {
      ...option(
        'calls',
        'unary: a call a command; pipelined: a few streams a client and node; or both, with a comma',
      ),
      ...option('in-flight', 'Commands under way, all clients together; several with commas', { alias: 'c' }),
      ...option('clients', 'Clients, each with a connection to every node'),
      ...option(
        'route',
        "To the key's leader, as a client that knows the map; or to any node, which forwards",
        {
          choices: routes,
        },
      ),
      rate: {
        kind: 'text',
        describe: 'Operations a second, begun whatever becomes of those before (see below)',
      },
      ...option('duration', 'Measured for so long, each case', { alias: 'd' }),
      ...option('warm-up', 'Before that, not measured'),
      ...option('keys', 'Different keys'),
      ...option('key-bytes', `Length of a key, from ${keyBytesMin}`),
      ...option('value-bytes', 'Length of a value', { elsewhere: ['size', 'value-size'] }),
      ...option('batch', 'Keys of one mset'),
      sessions: { kind: 'boolean', describe: 'Writes carry sessions: a retry would be applied once' },
      keep: { kind: 'boolean', describe: 'Leave the keys (bench:… or verify:…) where they are' },
      ...verifyOptions,
      ...outputOption,
      ...connectionOptions,
    },
    examples: [
      ['bench', 'SET and GET, 64 in flight'],
      ['bench set get --calls unary,pipelined --in-flight 1,64,256', 'twelve cases'],
      ['bench mixed --rate 2000 --in-flight 256 -d 30s', 'latencies at 2,000 a second'],
      ['bench -o json > run.json', 'the bar is on standard error'],
      ['bench --verify -d 1m', 'a minute of recorded reads and writes; then: were they linearizable?'],
    ],
    notes:
      'Without --rate the next operation begins when one has ended: that finds the throughput, but a stall stops the ' +
      'load too, and percentiles hide it. With --rate an operation counts from when it was due, whether or not it could ' +
      'begin: those are the latencies of people who come when they like. Keys are written before reads are measured and ' +
      `deleted at the end. Client and nodes on one machine share its processors: CPU columns say how.\n\n${verifyNotes}`,
    async run(input, shell) {
      if (input.options.verify === true) return await benchVerify(input, shell, loadVerify)
      const plan = planOf(input)
      // Ctrl-C ends the load, not the cleaning up behind it: these calls go on.
      const nodes = Nodes.from(input, { ...shell, signal: new AbortController().signal })
      const bar = new BenchBar(shell)
      const cluster = clusterOf(nodes, input, shell)
      try {
        const runBench = await loadBench()
        const results = await runBench(plan, cluster, each => bar.show(each), shell.signal)
        bar.stop()
        if (input.options.output === 'json') printJson(shell.stdout, reportJson(plan, results))
        else shell.stdout.write(reportText(colorsFor(shell.stdout, shell.env), plan, results))
        return results.every(each => each.operations > 0) ? exitCodes.done : exitCodes.failed
      } finally {
        bar.stop()
        cluster.close()
        nodes.close()
      }
    },
  }
}

function clusterOf(nodes: Nodes, input: Input, shell: Shell): BenchCluster & { close(): void } {
  // Kept open: a connection that must be made first would make a reading late.
  const open = new Map<string, Nodes>()
  const nodeAt = (address: string) => {
    const known = open.get(address)
    if (known !== undefined) return known
    const options = { ...input.options, node: address, timeout: statsTimeout }
    const node = Nodes.from({ ...input, options }, { ...shell, signal: new AbortController().signal })
    open.set(address, node)
    return node
  }
  return {
    credentials: nodes.credentials,
    map: () => nodes.call('read', (call, { admin }): Promise<MapResponse> => call(admin.map.bind(admin), {})),
    stats: address => fetchStats(nodeAt(address)).catch(() => null),
    close: () => {
      for (const node of open.values()) node.close()
    },
  }
}

// --- The plan -------------------------------------------------------------------------------------------------------

/** Throws UsageError with everything that is wrong. */
export function planOf({ positionals, options }: Input): BenchPlan {
  const flags = new BenchFlags()
  const { mistakes } = flags
  const textOf = (name: keyof typeof defaults) => String(options[name] ?? defaults[name])
  const integer = flags.integer.bind(flags)
  const duration = (name: 'duration' | 'warm-up', min: number) => flags.duration(name, textOf(name), min)
  if (options.history !== undefined) mistakes.push('--history: there is one with --verify only')
  const calls = textOf('calls')
    .split(',')
    .map(each => callKinds.find(kind => kind === each.trim()))
  if (calls.includes(undefined)) mistakes.push('--calls: accepted are unary, pipelined, and unary,pipelined')
  const keys = integer('keys', textOf('keys'), 1, 100_000_000)
  const least = Math.max(keyBytesMin, 'bench:'.length + String(keys - 1).length)
  const plan: BenchPlan = {
    workloads:
      positionals.length === 0 ? ['set', 'get'] : workloads.filter(each => positionals.includes(each)),
    calls: [...new Set(calls.filter(each => each !== undefined))],
    inFlight: [...new Set(textOf('in-flight').split(','))].map(each =>
      integer('in-flight', each.trim(), 1, 10_000),
    ),
    clients: integer('clients', textOf('clients'), 1, 1_000),
    route: routes.find(each => each === textOf('route')) ?? 'leader',
    keys,
    keyBytes: integer('key-bytes', textOf('key-bytes'), least, 1_024, parseSize),
    valueBytes: integer('value-bytes', textOf('value-bytes'), 0, 8 * 2 ** 20, parseSize),
    batch: integer('batch', textOf('batch'), 1, 1_000),
    warmUpMs: duration('warm-up', 0),
    durationMs: duration('duration', 100),
    rate: options.rate === undefined ? null : integer('rate', String(options.rate), 1, 1_000_000),
    hasSessions: options.sessions === true,
    keepsKeys: options.keep === true,
  }
  if (mistakes.length > 0) throw new UsageError(mistakes)
  return plan
}

// --- The report -----------------------------------------------------------------------------------------------------

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
  return (
    `${plan.keys} keys of ${bytesText(plan.keyBytes)}, values of ${bytesText(plan.valueBytes)}; ` +
    `${plan.clients} client${plan.clients === 1 ? '' : 's'}, to ${plan.route === 'leader' ? 'the leader' : 'any node'}, ` +
    `${plan.hasSessions ? 'with' : 'no'} sessions; ${rate}; ${plan.durationMs / 1_000} s a case`
  )
}

function resultTable(colors: Colors, results: readonly CaseResult[]): string {
  const head = [
    'WORKLOAD',
    'CALLS',
    'IN FLIGHT',
    'OPS/S',
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
        Math.round(result.operationsPerSecond).toLocaleString('en'),
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

function optional(value: number | null): string {
  return value === null ? '-' : figure(value)
}

/** Three digits that count. */
function figure(value: number): string {
  return value === 0 ? '0' : value >= 100 ? String(Math.round(value)) : value.toFixed(value >= 10 ? 1 : 2)
}

export function reportJson(plan: BenchPlan, results: readonly CaseResult[]): Record<string, unknown> {
  return {
    plan: {
      keys: plan.keys,
      key_bytes: plan.keyBytes,
      value_bytes: plan.valueBytes,
      batch: plan.batch,
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
      duration_s: result.durationS,
      operations: result.operations,
      operations_per_second: result.operationsPerSecond,
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
