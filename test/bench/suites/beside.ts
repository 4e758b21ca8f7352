/** Beside etcd, in turn: unary calls, and leaders that are killed. */
import { runAgainst } from '../../../src/bench/against/against.ts'
import type { AgainstPlan, AgainstRun, Ratio } from '../../../src/bench/against/ports.ts'
import { cellText } from './markdown.ts'
import { roomOf } from './room.ts'
import type { Cell, Context, Suite } from './suite.ts'

function planOf({ options }: Context, changed: Partial<AgainstPlan>): AgainstPlan {
  const { durationMs, rounds, inFlight } = options
  // etcd is compiled already; ours is compiled while it runs.
  const warmUpMs = 2 * options.warmUpMs
  return {
    ...{ calls: [], inFlight, rounds, warmUpMs, durationMs, keys: 10_000, keyBytes: 16, valueBytes: 128 },
    ...{ kills: 0, mayUseH2load: true, nodes: 3, shardCount: 64 },
    ...changed,
  }
}

function run({ program, signal, say }: Context, plan: AgainstPlan) {
  return runAgainst(plan, { program, running: null, signal, onProgress: ({ text }) => say(text) })
}

const ratioCells = (ratio: Ratio | null): Cell[] =>
  ratio === null
    ? [null, null, null]
    : [
        ratio.ours,
        ratio.theirs,
        `${ratio.ratio.toFixed(2)} (${ratio.min.toFixed(2)}–${ratio.max.toFixed(2)})`,
      ]

const sum = (values: readonly number[]) => values.reduce((all, each) => all + each, 0)
const mean = (values: readonly number[]) => (values.length === 0 ? null : sum(values) / values.length)

export const etcd: Suite = {
  name: 'etcd',
  summary: 'Beside etcd, in turn',
  roomOf: () => 2 * roomOf(3),
  async run(context) {
    const result = await run(context, planOf(context, { calls: ['set', 'get'] }))
    const byName = (caller: string) => (caller === 'own' ? 'own client' : caller)
    const cpu = (runs: readonly AgainstRun[], side: string) =>
      mean(
        runs
          .filter(each => each.side === side)
          .map(({ nodes }) => sum(nodes.map(each => each.cpuUsPerOperation))),
      )
    const syncs = (runs: readonly AgainstRun[], side: string) =>
      mean(
        runs
          .filter(each => each.side === side)
          .map(({ nodes }) => sum(nodes.map(each => each.syncsPerOperation ?? 0))),
      )
    const nodeCpu = ({ nodes }: AgainstRun) => nodes.map(each => cellText(each.cpuUsPerOperation)).join(' + ')
    const failed = (runs: readonly AgainstRun[]) =>
      sum(runs.flatMap(({ failures }) => failures.map(each => each.count)))
    const groups = result.cases.filter(
      each => each.caller === (result.cases.some(({ caller }) => caller === 'h2load') ? 'h2load' : 'own'),
    )
    return {
      tables: [
        {
          caption: `Medians of ${context.options.rounds} runs of each side, A B A B; ratio of the medians, and of neighbouring runs in brackets; etcd ${result.sides[1]!.version}`,
          head: [
            ...['call', 'by', 'in flight', 'ours/s', 'etcd/s', 'ratio', 'our mean ms', 'etcd', 'ratio'],
            ...['our nodes’ CPU µs/op', 'etcd’s', 'our fsyncs/op', 'etcd’s', 'failed'],
          ],
          rows: result.cases.map(each => [
            ...[each.call, byName(each.caller), each.inFlight],
            ...ratioCells(each.operationsRatio),
            ...ratioCells(each.latencyRatio),
            ...[cpu(each.runs, 'roundhouse'), cpu(each.runs, 'etcd')],
            ...[syncs(each.runs, 'roundhouse'), syncs(each.runs, 'etcd'), failed(each.runs)],
          ]),
        },
        {
          caption: 'Each run, in the order in which they were made',
          head: [
            'call',
            'by',
            'in flight',
            'side',
            'ops/s',
            'mean ms',
            'p50',
            'p99',
            'p99.9',
            'CPU µs/op of each node',
            'client’s',
            'other side idle, % of a core',
          ],
          rows: result.cases.flatMap(each =>
            each.runs.map(made => [
              ...[each.call, byName(each.caller), each.inFlight, `${made.side} ${made.round + 1}`],
              ...[made.operationsPerSecond, made.meanMs],
              ...[made.latencyMs?.p50 ?? null, made.latencyMs?.p99 ?? null, made.latencyMs?.p999 ?? null],
              ...[nodeCpu(made), made.clientCpuUsPerOperation, made.otherCpuPercent],
            ]),
          ),
        },
      ],
      charts: [
        {
          name: 'etcd',
          chart: {
            title: `Unary calls a second beside etcd (by ${byName(groups[0]?.caller ?? 'own')})`,
            x: { label: 'call, requests in flight' },
            y: { label: 'operations/s' },
            isBars: true,
            series: (['ours', 'theirs'] as const).map(side => ({
              name: side === 'ours' ? 'Roundhouse' : 'etcd',
              points: groups.map((each, x) => ({
                x,
                y: each.operationsRatio?.[side] ?? 0,
                name: `${each.call} ${each.inFlight}`,
              })),
            })),
          },
        },
      ],
      notes: result.notes,
      data: result,
    }
  },
}

export const failover: Suite = {
  name: 'failover',
  summary: 'A leader is killed: time without writes',
  roomOf: () => 2 * roomOf(3),
  async run(context) {
    const result = await run(context, planOf(context, { kills: context.options.kills }))
    const { kills, one, all } = result.failover!
    return {
      tables: [
        {
          caption: `kill -9 of the leader, ${context.options.kills} times on each side, in turn; p50 of the times until a write that was begun after it was acknowledged`,
          head: ['', 'our ms', 'etcd’s', 'ratio'],
          rows: [
            ['one key', ...ratioCells(one)],
            ['all of up to four keys of different shards', ...ratioCells(all)],
          ],
        },
      ],
      charts: [
        {
          name: 'failover',
          chart: {
            title: 'Time without writes after kill -9 of a leader, sorted',
            x: { label: 'kill', format: String },
            y: { label: 'ms' },
            series: (['roundhouse', 'etcd'] as const).map(side => ({
              name: side === 'etcd' ? 'etcd' : 'Roundhouse, all keys tried',
              points: kills
                .filter(each => each.side === side)
                .map(({ gapsMs }) => Math.max(...gapsMs))
                .sort((a, b) => a - b)
                .map((y, x) => ({ x: x + 1, y })),
            })),
          },
        },
      ],
      notes: result.notes,
      data: result,
    }
  },
}
