/** How cost grows: with nodes, shards, the size of values and the number of keys. */
import type { CaseResult } from '../../../src/bench/ports.ts'
import { calm } from './calm.ts'
import { kneeText } from './markdown.ts'
import { type Memory, memoryOf } from './memory.ts'
import { roomOf } from './room.ts'
import {
  caseCells,
  caseHead,
  eachOf,
  measure,
  nodesCpuOf,
  type Suite,
  type SuiteResult,
  sizeText,
  withCluster,
} from './suite.ts'

interface Grown {
  readonly size: number
  readonly results: readonly CaseResult[]
}

interface About {
  readonly name: string
  readonly title: string
  readonly label: string
  readonly caption: string
  readonly format: (size: number) => string
}

function resultOf(about: About, grown: readonly Grown[], missing: readonly string[]): SuiteResult {
  const workloads = [...new Set(grown.flatMap(({ results }) => results.map(each => each.workload)))]
  const series = (value: (result: CaseResult) => number) =>
    workloads.map(workload => ({
      name: workload.toUpperCase(),
      points: grown.flatMap(({ size, results }) =>
        results.filter(each => each.workload === workload).map(each => ({ x: size, y: value(each) })),
      ),
    }))
  const rates = series(each => each.operationsPerSecond)
  const x = { label: about.label, isLog: true, format: about.format }
  return {
    tables: [
      {
        caption: about.caption,
        head: [about.label, 'workload', 'MB/s', ...caseHead],
        rows: grown.flatMap(({ size, results }) =>
          results.map(each => [
            ...[about.format(size), each.workload, each.megabytesPerSecond],
            ...caseCells(each),
          ]),
        ),
      },
    ],
    charts: [
      {
        name: about.name,
        chart: { title: about.title, x, y: { label: 'operations/s', isLog: true }, series: rates },
      },
      {
        name: `${about.name}-cpu`,
        chart: {
          title: `Processor time of all nodes: ${about.title.toLowerCase()}`,
          x,
          y: { label: 'µs an operation', isLog: true },
          series: series(nodesCpuOf),
        },
      },
    ],
    notes: rates.map(({ name, points }) => kneeText(`${name}/s`, points, about.format)),
    missing,
    data: grown,
  }
}

const countOf = (count: number) => count.toLocaleString('en')
const load = { inFlight: [64] }

export const nodes: Suite = {
  name: 'nodes',
  summary: 'Growth: nodes',
  roomOf: ({ nodes }) => roomOf(Math.max(...nodes)),
  async run(context) {
    const grown: Grown[] = []
    const missing = await eachOf(
      context,
      context.options.nodes,
      size => `${size} nodes`,
      async size => {
        const results = await withCluster(context, { nodes: size }, cluster =>
          measure(context, cluster, load),
        )
        grown.push({ size, results })
      },
    )
    return resultOf(
      {
        ...{ name: 'nodes', title: 'Operations a second by nodes', label: 'nodes', format: String },
        caption: 'All nodes on this machine, 64 shards, up to three replicas each, unary, 64 in flight',
      },
      grown,
      missing,
    )
  },
}

export const shards: Suite = {
  name: 'shards',
  summary: 'Growth: shards',
  roomOf: () => roomOf(3),
  async run(context) {
    const grown: Grown[] = []
    const missing = await eachOf(
      context,
      context.options.shards,
      size => `${countOf(size)} shards`,
      async shardCount => {
        const results = await withCluster(context, { shardCount }, cluster => measure(context, cluster, load))
        grown.push({ size: shardCount, results })
      },
    )
    return resultOf(
      {
        ...{ name: 'shards', title: 'Operations a second by shards', label: 'shards' },
        ...{ format: countOf, caption: '3 nodes, unary, 64 in flight' },
      },
      grown,
      missing,
    )
  },
}

/** Of all keys of a case together. */
const valueBytesMax = 64 * 2 ** 20

export const values: Suite = {
  name: 'values',
  summary: 'Growth: the size of values',
  // Values that are written over leave pages behind, until the next ones take them.
  roomOf: () => roomOf(3) + 3 * 8 * valueBytesMax,
  run: context =>
    withCluster(context, {}, async cluster => {
      const grown: Grown[] = []
      const missing = await eachOf(context, context.options.values, sizeText, async size => {
        const keys = Math.max(16, Math.min(10_000, Math.floor(valueBytesMax / size)))
        const results = await measure(context, cluster, { valueBytes: size, keys, inFlight: [16] })
        grown.push({ size, results })
      })
      return resultOf(
        {
          ...{ name: 'values', title: 'Operations a second by the size of values', label: 'value' },
          ...{ format: sizeText, caption: '3 nodes, 64 shards, unary, 16 in flight' },
        },
        grown,
        missing,
      )
    }),
}

export const keys: Suite = {
  name: 'keys',
  summary: 'Growth: keys, and the memory of a node',
  roomOf: ({ keys }) => roomOf(3, Math.max(...keys), filling.keyBytes + filling.valueBytes),
  run: context =>
    withCluster(context, {}, async cluster => {
      const grown: (Grown & { fillS: number; memory: Memory | null; memoryAfter: Memory | null })[] = []
      const work = async (size: number) => {
        const startedMs = performance.now()
        // Written once; reads and writes follow.
        await measure(context, cluster, { ...filling, keys: size, workloads: ['get'] })
        const fillS = (performance.now() - startedMs - filling.durationMs) / 1_000
        await calm(context, cluster)
        const memory = await memoryOf(cluster)
        const results = await measure(context, cluster, {
          ...load,
          keys: size,
          valueBytes: 100,
          hasKeys: true,
          keepsKeys: true,
        })
        grown.push({ size, results, fillS, memory, memoryAfter: await memoryOf(cluster) })
      }
      const missing = await eachOf(context, context.options.keys, size => `${countOf(size)} keys`, work)
      const about = {
        ...{ name: 'keys', title: 'Operations a second by keys', label: 'keys' },
        format: countOf,
        caption: '3 nodes, 64 shards, values of 100 B, unary, 64 in flight',
      }
      const made = resultOf(about, grown, missing)
      return {
        ...made,
        tables: [
          ...made.tables,
          {
            caption:
              'Memory of a node, the largest of three, once it is calm after the keys were written: private (RssAnon), and pages of files, which the system takes back',
            head: [
              ...['keys', 'filled in s', 'private MiB', 'of files MiB'],
              'private MiB after SET and GET',
              'both, most ever',
            ],
            rows: grown.map(({ size, fillS, memory, memoryAfter }) => [
              ...[about.format(size), fillS],
              ...[memory?.privateMib ?? null, memory?.filesMib ?? null],
              ...[memoryAfter?.privateMib ?? null, memoryAfter?.mostMib ?? null],
            ]),
          },
        ],
        charts: [
          ...made.charts,
          {
            name: 'memory',
            chart: {
              title: 'Memory of a node by keys, without pages of files',
              x: { label: 'keys', isLog: true },
              y: { label: 'MiB' },
              series: [
                {
                  name: 'private memory, the largest of three nodes',
                  points: grown.map(({ size, memory }) => ({ x: size, y: memory?.privateMib ?? 0 })),
                },
              ],
            },
          },
        ],
      }
    }),
}

/** A short case that makes the bench write all keys first. */
export const filling = {
  ...{ inFlight: [1], warmUpMs: 0, durationMs: 100, keepsKeys: true },
  ...{ keyBytes: 16, valueBytes: 100 },
} as const
