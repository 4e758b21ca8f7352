/** `bench --against etcd`: its plan from flags, both sides beside each other for people and for tools. */
import type {
  AgainstCase,
  AgainstPlan,
  AgainstResult,
  AgainstRun,
  FailoverResult,
  Ratio,
} from '../bench/against/ports.ts'
import type { BenchCluster, RunBench } from '../bench/ports.ts'
import { parseSize } from '../config/forms.ts'
import { BenchBar } from './bench-bar.ts'
import { BenchFlags } from './bench-flags.ts'
import { figure, optional, whole } from './bench-report.ts'
import { type Colors, colorsFor } from './colors.ts'
import { bytesText, printJson, table } from './print.ts'
import { exitCodes, type Input, type OptionSpec, type Shell, UsageError } from './shell.ts'
import { tlsOf } from './tls.ts'

const defaults = {
  ...{ inFlight: '1,64,256', rounds: '2', kills: '10', shards: '64' },
  ...{ keys: '10000', keyBytes: '16', valueBytes: '128', warmUp: '2s', duration: '5s' },
} as const
const nodes = 3
const keyBytesMin = 16
/** Flags of the measuring bench and of --verify that mean nothing here. */
const foreign = ['calls', 'clients', 'route', 'rate', 'batch', 'partitions', 'sessions', 'keep', 'history']

export const againstOptions: Readonly<Record<string, OptionSpec>> = {
  against: {
    kind: 'text',
    describe: 'Measure beside another store on this machine, in turn, with ratios (see below)',
    choices: ['etcd'],
  },
  rounds: {
    kind: 'text',
    describe: `With --against: how often each side is measured [default: ${defaults.rounds}]`,
  },
  kills: {
    kind: 'text',
    describe: `With --against, of failover: leaders killed on each side [default: ${defaults.kills}]`,
  },
  'shard-count': {
    kind: 'text',
    describe: `With --against: shards of the cluster that is started for it [default: ${defaults.shards}]`,
  },
}

export const againstNotes =
  '--against etcd starts three nodes of etcd (from PATH) and, unless --node names a cluster, three of ours, with defaults, ' +
  'on free ports and in temporary directories, and takes all of it away again. Durable writes and linearizable reads (set, ' +
  'get) are measured A B A B, unary, each sent to the leader; where h2load is in PATH, with it as well, so that the cost ' +
  'of the own client hides less. Unless told otherwise with 1, 64 and 256 in flight, 10,000 keys, 5 s a run. failover kills leaders, also in turn, and measures how long nobody could write.'

/** Answers the exit code. */
export async function benchAgainst(
  input: Input,
  shell: Shell,
  loadBench: () => Promise<RunBench>,
  clusterOf: () => { readonly cluster: BenchCluster; close(): void },
): Promise<number> {
  const plan = againstPlanOf(input)
  const isNamed = input.options.node !== undefined || (shell.env.ROUNDHOUSE_NODE ?? '') !== ''
  // h2load would need the certificates as well.
  const isPlain = !isNamed || tlsOf(input, shell) === null
  const running = isNamed ? clusterOf() : null
  const bar = new BenchBar(shell)
  try {
    const runBench = await loadBench()
    const result = await runBench.against(
      { ...plan, mayUseH2load: isPlain },
      {
        program: shell.program,
        running: running?.cluster ?? null,
        onProgress: ({ text, done }) =>
          bar.show({ phase: 'measure', label: text, done, operationsPerSecond: null }),
        signal: shell.signal,
      },
    )
    bar.stop()
    if (input.options.output === 'json') printJson(shell.stdout, againstJson(plan, result))
    else shell.stdout.write(againstText(colorsFor(shell.stdout, shell.env), plan, result))
    const isWhole = result.cases.every(({ runs }) => runs.every(each => each.operationsPerSecond > 0))
    return isWhole ? exitCodes.done : exitCodes.failed
  } finally {
    bar.stop()
    running?.close()
  }
}

/** Throws UsageError with everything that is wrong. */
export function againstPlanOf({ positionals, options }: Input): AgainstPlan {
  const flags = new BenchFlags()
  const { mistakes } = flags
  const textOf = (name: string, fallback: string) => String(options[name] ?? fallback)
  for (const name of foreign)
    if (options[name] !== undefined)
      mistakes.push(`--${name}: not with --against, which is unary and to the leader`)
  if (options.verify === true) mistakes.push('--verify, --against: one of them')
  const strange = positionals.filter(each => !['set', 'get', 'failover'].includes(each))
  if (strange.length > 0)
    mistakes.push(`${strange.join(', ')}: with --against there are set, get and failover`)
  const calls = (['set', 'get'] as const).filter(
    each => positionals.length === 0 || positionals.includes(each),
  )
  const integer = (name: string, fallback: string, min: number, max: number, parse?: typeof parseSize) =>
    flags.integer(name, textOf(name, fallback), min, max, parse)
  const keys = integer('keys', defaults.keys, 1, 1_000_000)
  const least = Math.max(keyBytesMin, 'bench:'.length + String(keys - 1).length)
  const shardCount = integer('shard-count', defaults.shards, 1, 4_096)
  if (!Number.isInteger(Math.log2(shardCount))) mistakes.push('--shard-count: a power of two')
  const hasKills = positionals.length === 0 ? options.kills !== undefined : positionals.includes('failover')
  const plan: AgainstPlan = {
    ...{ calls, keys, nodes, shardCount, mayUseH2load: true },
    inFlight: [...new Set(textOf('in-flight', defaults.inFlight).split(','))].map(each =>
      flags.integer('in-flight', each.trim(), 1, 10_000),
    ),
    rounds: integer('rounds', defaults.rounds, 1, 100),
    keyBytes: integer('key-bytes', defaults.keyBytes, least, 1_024, parseSize),
    valueBytes: integer('value-bytes', defaults.valueBytes, 1, 2 ** 20, parseSize),
    warmUpMs: flags.duration('warm-up', textOf('warm-up', defaults.warmUp), 0),
    durationMs: flags.duration('duration', textOf('duration', defaults.duration), 100),
    kills: hasKills ? integer('kills', defaults.kills, 1, 1_000) : 0,
  }
  if (mistakes.length > 0) throw new UsageError(mistakes)
  return plan
}

// --- For people -----------------------------------------------------------------------------------------------------

export function againstText(colors: Colors, plan: AgainstPlan, result: AgainstResult): string {
  const parts = [
    `${sidesText(result)}; ${plan.keys} keys of ${bytesText(plan.keyBytes)}, values of ${bytesText(plan.valueBytes)}; ` +
      `unary, to the leader; ${plan.durationMs / 1_000} s a run, ${plan.rounds} of each side, in turn`,
    ...(result.cases.length > 0
      ? [ratioTable(colors, result.cases), runTable(colors, result.cases), costTable(colors, result.cases)]
      : []),
    ...(result.failover === null ? [] : [failoverText(colors, result.failover)]),
    ...failuresOf(colors, result.cases),
    ...result.notes,
  ]
  return `${parts.join('\n\n')}\n`
}

function sidesText({ sides }: AgainstResult): string {
  return sides.map(({ name, version, nodes: all }) => `${name} (${version}, ${all} nodes)`).join(' and ')
}

function nameOf({ call, caller }: AgainstCase): string[] {
  return [call, caller === 'own' ? 'own client' : caller]
}

function ratioText(ratio: Ratio | null): string {
  if (ratio === null) return '-'
  return `${ratio.ratio.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`
}

/** Medians. */
function ratioTable(colors: Colors, cases: readonly AgainstCase[]): string {
  const head = [
    ...['CALL', 'BY', 'IN FLIGHT', 'OURS/S', 'ETCD/S', 'RATIO (OF PAIRS)'],
    ...['OUR MEAN MS', 'ETCD', 'RATIO (OF PAIRS)'],
  ]
  const rows = cases.map(each => [
    ...nameOf(each),
    each.inFlight,
    each.operationsRatio === null ? '-' : whole(each.operationsRatio.ours),
    each.operationsRatio === null ? '-' : whole(each.operationsRatio.theirs),
    ratioText(each.operationsRatio),
    optional(each.latencyRatio?.ours ?? null),
    optional(each.latencyRatio?.theirs ?? null),
    ratioText(each.latencyRatio),
  ])
  return table(colors, head, rows)
}

function runsOf(cases: readonly AgainstCase[]): { case: AgainstCase; run: AgainstRun }[] {
  return cases.flatMap(each => each.runs.map(run => ({ case: each, run })))
}

function runTable(colors: Colors, cases: readonly AgainstCase[]): string {
  const head = ['RUN', 'BY', 'IN FLIGHT', 'SIDE', 'OPS/S', 'MEAN MS', 'P50', 'P99', 'P99.9', 'MAX', 'FAILED']
  const rows = runsOf(cases).map(({ case: of, run }) => {
    const failed = run.failures.reduce((sum, each) => sum + each.count, 0)
    const { latencyMs: ms } = run
    return [
      ...nameOf(of),
      of.inFlight,
      `${run.side} ${run.round + 1}`,
      whole(run.operationsPerSecond),
      figure(run.meanMs),
      ...[ms?.p50, ms?.p99, ms?.p999, ms?.max].map(each => optional(each ?? null)),
      failed === 0 ? '-' : colors.red(String(failed)),
    ]
  })
  return table(colors, head, rows)
}

/** Of each node in turn; the other side's is what it took meanwhile though nobody asked it anything. */
function costTable(colors: Colors, cases: readonly AgainstCase[]): string {
  const head = [
    ...['PER OPERATION', 'BY', 'IN FLIGHT', 'SIDE', 'CPU µs OF EACH NODE', 'ALL', 'CLIENT µs', 'FSYNCS'],
    'OTHER SIDE IDLE, % OF A CORE',
  ]
  const rows = runsOf(cases).map(({ case: of, run }) => [
    ...nameOf(of),
    of.inFlight,
    `${run.side} ${run.round + 1}`,
    run.nodes.map(({ cpuUsPerOperation }) => figure(cpuUsPerOperation)).join(' + ') || '-',
    figure(run.nodes.reduce((sum, each) => sum + each.cpuUsPerOperation, 0)),
    optional(run.clientCpuUsPerOperation),
    run.nodes.map(({ syncsPerOperation }) => optional(syncsPerOperation)).join(' + ') || '-',
    optional(run.otherCpuPercent),
  ])
  return table(colors, head, rows)
}

function failoverText(colors: Colors, { kills, one, all }: FailoverResult): string {
  const head = ['LEADER KILLED', 'OUR MS', 'ETCD MS', 'RATIO (OF PAIRS)']
  const row = (what: string, ratio: Ratio | null) => [
    what,
    optional(ratio?.ours ?? null),
    optional(ratio?.theirs ?? null),
    ratioText(ratio),
  ]
  const each = kills.map(({ side, nodeId, gapsMs }) => `${side} ${nodeId} ${gapsMs.map(whole).join('/')}`)
  return (
    `${table(colors, head, [
      row('p50 without writes, one key', one),
      row('p50 without writes, until all keys that were tried', all),
    ])}\n` + `each kill, ms for each key: ${each.join(', ')}`
  )
}

function failuresOf(colors: Colors, cases: readonly AgainstCase[]): string[] {
  return runsOf(cases).flatMap(({ case: of, run }) =>
    run.failures.map(
      ({ what, count }) =>
        `${colors.red('failed')} ${count} × ${what} (${run.side}, ${nameOf(of).join(', ')}, ${of.inFlight} in flight)`,
    ),
  )
}

// --- For tools ------------------------------------------------------------------------------------------------------

const ratioJson = (ratio: Ratio | null) =>
  ratio === null
    ? null
    : { roundhouse: ratio.ours, etcd: ratio.theirs, ratio: ratio.ratio, min: ratio.min, max: ratio.max }

export function againstJson(plan: AgainstPlan, result: AgainstResult): Record<string, unknown> {
  return {
    plan: {
      keys: plan.keys,
      key_bytes: plan.keyBytes,
      value_bytes: plan.valueBytes,
      rounds: plan.rounds,
      warm_up_s: plan.warmUpMs / 1_000,
      duration_s: plan.durationMs / 1_000,
      kills: plan.kills,
    },
    sides: result.sides,
    cases: result.cases.map(each => ({
      call: each.call,
      by: each.caller,
      in_flight: each.inFlight,
      operations_per_second: ratioJson(each.operationsRatio),
      mean_ms: ratioJson(each.latencyRatio),
      runs: each.runs.map(run => ({
        side: run.side,
        round: run.round + 1,
        operations_per_second: run.operationsPerSecond,
        mean_ms: run.meanMs,
        latency_ms:
          run.latencyMs === null
            ? null
            : {
                ...{ p50: run.latencyMs.p50, p90: run.latencyMs.p90, p99: run.latencyMs.p99 },
                ...{ p99_9: run.latencyMs.p999, max: run.latencyMs.max },
              },
        failures: run.failures,
        nodes: run.nodes.map(node => ({
          node_id: node.nodeId,
          cpu_us_per_operation: node.cpuUsPerOperation,
          fsyncs_per_operation: node.syncsPerOperation,
        })),
        client_cpu_us_per_operation: run.clientCpuUsPerOperation,
        other_side_idle_cpu_percent: run.otherCpuPercent,
      })),
    })),
    failover:
      result.failover === null
        ? null
        : {
            one_key_p50_ms: ratioJson(result.failover.one),
            all_keys_p50_ms: ratioJson(result.failover.all),
            kills: result.failover.kills.map(({ side, nodeId, gapsMs }) => ({
              side,
              node_id: nodeId,
              without_writes_ms: gapsMs,
            })),
          },
    notes: result.notes,
  }
}
