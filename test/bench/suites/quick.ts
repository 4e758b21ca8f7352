/** What a change should be looked at with: writes and reads by both kinds of call; and the streams. */
import type { CaseResult } from '../../../src/bench/ports.ts'
import { roomOf, roomOfStreams } from './room.ts'
import { caseCells, caseHead, measure, type Suite, withCluster } from './suite.ts'

export const quick: Suite = {
  name: 'quick',
  summary: 'Writes and linearizable reads',
  roomOf: () => roomOf(3),
  run: context =>
    withCluster(context, {}, async cluster => {
      const { inFlight } = context.options
      const data = await measure(context, cluster, { calls: ['unary', 'pipelined'], inFlight })
      const series = [...new Set(data.map(nameOf))].map(name => ({
        name,
        points: data
          .filter(each => nameOf(each) === name)
          .map(each => ({ x: each.inFlight, y: each.operationsPerSecond })),
      }))
      return {
        tables: [
          {
            caption: '3 nodes, 64 shards, 10,000 keys of 16 B, values of 128 B, to the leader, closed loop',
            head: ['workload', 'calls', 'in flight', ...caseHead],
            rows: data.map(each => [each.workload, each.calls, each.inFlight, ...caseCells(each)]),
          },
        ],
        charts: [
          {
            name: 'in-flight',
            chart: {
              title: 'Operations a second by requests in flight',
              x: { label: 'in flight', isLog: true },
              y: { label: 'operations/s' },
              series,
            },
          },
        ],
        notes: [],
        data,
      }
    }),
}

function nameOf({ workload, calls }: CaseResult): string {
  return `${workload.toUpperCase()}, ${calls}`
}

const batches = [1, 100]
const sizes = [128, 1024]
const partitionCounts = [1, 8]

interface Shape {
  /** Records a request. */
  readonly batch: number
  readonly valueBytes: number
  readonly partitions: number
}

export const streams: Suite = {
  name: 'streams',
  summary: 'Records: produce, consume, end to end; 128 B and 1 KiB, 1 and 8 partitions',
  roomOf: roomOfStreams,
  run: context =>
    withCluster(context, {}, async cluster => {
      const results: { shape: Shape; result: CaseResult }[] = []
      const run = async (shape: Shape, changed: Parameters<typeof measure>[2]) => {
        const { batch, valueBytes, partitions } = shape
        const made = await measure(context, cluster, { records: batch, valueBytes, partitions, ...changed })
        for (const result of made) results.push({ shape, result })
      }
      for (const valueBytes of sizes)
        for (const partitions of partitionCounts) {
          for (const batch of batches)
            await run(
              { batch, valueBytes, partitions },
              { workloads: ['produce'], calls: ['pipelined'], inFlight: [64] },
            )
          await run({ batch: 100, valueBytes, partitions }, { workloads: ['consume'], keys: 200_000 })
        }
      await run(
        { batch: 1, valueBytes: 128, partitions: 8 },
        { workloads: ['end-to-end'], calls: ['pipelined'], inFlight: [64], endToEndRate: 1_000 },
      )
      return {
        tables: [
          {
            caption: '3 nodes, 64 shards; end-to-end at 1,000 records a second',
            head: ['workload', 'record', 'partitions', 'a request', 'records/s', 'MB/s', ...caseHead],
            rows: results.map(({ shape, result }) => [
              ...[result.workload, `${shape.valueBytes} B`, shape.partitions, shape.batch],
              ...[result.recordsPerSecond, result.megabytesPerSecond],
              ...caseCells(result),
            ]),
          },
        ],
        charts: [],
        notes: [],
        data: results,
      }
    }),
}
