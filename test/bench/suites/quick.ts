/** What a change should be looked at with: writes and reads by both kinds of call; and the streams. */
import type { CaseResult } from '../../../src/bench/ports.ts'
import { caseCells, caseHead, measure, type Suite, withCluster } from './suite.ts'

export const quick: Suite = {
  name: 'quick',
  summary: 'Writes and linearizable reads',
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

export const streams: Suite = {
  name: 'streams',
  summary: 'Records: produce, consume, end to end',
  run: context =>
    withCluster(context, {}, async cluster => {
      const results: { batch: number; result: CaseResult }[] = []
      const run = async (batch: number, changed: Parameters<typeof measure>[2]) => {
        const made = await measure(context, cluster, { records: batch, ...changed })
        for (const result of made) results.push({ batch, result })
      }
      for (const batch of batches)
        await run(batch, { workloads: ['produce'], calls: ['unary', 'pipelined'], inFlight: [64] })
      await run(100, { workloads: ['consume'], keys: 200_000 })
      await run(1, { workloads: ['end-to-end'], calls: ['pipelined'], inFlight: [64], endToEndRate: 1_000 })
      return {
        tables: [
          {
            caption:
              '3 nodes, 64 shards, 8 partitions, records of 128 B; end-to-end at 1,000 records a second',
            head: ['workload', 'calls', 'records a request', 'in flight', 'records/s', 'MB/s', ...caseHead],
            rows: results.map(({ batch, result }) => [
              ...[result.workload, result.calls, batch, result.inFlight],
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
