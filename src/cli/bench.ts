/**
 * The bench as a verb: its plan from flags, a bar while it runs, tables or JSON of what it found. The load itself is
 * made in src/bench, which `main.ts` hands in.
 */
import type { BenchCluster, RunBench, RunVerify } from '../bench/ports.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { againstNotes, againstOptions, benchAgainst } from './bench-against.ts'
import { BenchBar } from './bench-bar.ts'
import { benchOptions, planOf, workloads } from './bench-plan.ts'
import { reportJson, reportText } from './bench-report.ts'
import { benchVerify, verifyNotes, verifyOptions } from './bench-verify.ts'
import { fetchStats } from './calls.ts'
import { colorsFor } from './colors.ts'
import { connectionOptions, Nodes, outputOption } from './connection.ts'
import { printJson } from './print.ts'
import { exitCodeOf, exitCodes, type Input, interrupted, type Shell, type Verb } from './shell.ts'

const statsTimeout = '3s'

export function benchVerb(loadBench: () => Promise<RunBench>, loadVerify: () => Promise<RunVerify>): Verb {
  return {
    path: ['bench'],
    group: 'tools',
    summary: 'Measure a cluster: operations a second, latencies, costs; or judge it: --verify',
    positionals: [
      {
        name: 'workload',
        kind: 'many',
        describe:
          'set, get, stale-get, mixed (90 % get), mset; of streams: produce, consume (from the start), end-to-end ' +
          '(from the producer to a follower); with --against: set, get, failover; without any: set and get',
        choices: [...workloads, 'failover'],
      },
    ],
    options: {
      ...benchOptions,
      ...verifyOptions,
      ...againstOptions,
      ...outputOption,
      ...connectionOptions,
    },
    examples: [
      ['bench', 'SET and GET, 64 in flight'],
      ['bench set get --calls unary,pipelined --in-flight 1,64,256', 'twelve cases'],
      ['bench produce --calls pipelined --batch 100 --partitions 8', 'records, a hundred a request'],
      ['bench mixed --rate 2000 --in-flight 256 -d 30s', 'latencies at 2,000 a second'],
      ['bench -o json > run.json', 'the bar is on standard error'],
      ['bench --against etcd', 'SET and GET beside three nodes of etcd, A B A B, with ratios'],
      ['bench failover --against etcd', 'leaders of both killed, ten each: how long nobody could write'],
      ['bench --verify -d 1m', 'a minute of recorded reads and writes; then: were they linearizable?'],
    ],
    notes:
      'Without --rate the next operation begins when one has ended: that finds the throughput, but a stall stops the ' +
      'load too, and percentiles hide it. With --rate an operation counts from when it was due, whether or not it could ' +
      'begin: those are the latencies of people who come when they like. Keys are written before reads are measured and ' +
      'deleted at the end; so are streams. An operation of consume is one answer to a follower, of many records; end-to-end ' +
      `begins 1,000 records a second unless --rate says otherwise. Client and nodes on one machine share its processors: CPU columns say how.\n\n${againstNotes}\n\n${verifyNotes}`,
    async run(input, shell) {
      if (input.options.against !== undefined) {
        return await benchAgainst(input, shell, loadBench, () => {
          const named = Nodes.from(input, { ...shell, signal: new AbortController().signal })
          const cluster = clusterOf(named, input, shell)
          const close = () => {
            cluster.close()
            named.close()
          }
          return { cluster, close }
        })
      }
      if (input.options.verify === true) return await benchVerify(input, shell, loadVerify)
      const plan = planOf(input)
      // Ctrl-C ends the load, not the cleaning up behind it: these calls go on.
      const nodes = Nodes.from(input, { ...shell, signal: new AbortController().signal })
      const bar = new BenchBar(shell)
      const cluster = clusterOf(nodes, input, shell)
      try {
        const runBench = await loadBench()
        const left: { readonly what: string; readonly why: Error }[] = []
        const onLeft = (what: string, why: Error) => void left.push({ what, why })
        const results = await runBench(plan, cluster, each => bar.show(each), shell.signal, onLeft)
        bar.stop()
        if (input.options.output === 'json') printJson(shell.stdout, reportJson(plan, results))
        else shell.stdout.write(reportText(colorsFor(shell.stdout, shell.env), plan, results))
        for (const { what, why } of left) shell.stderr.write(`${what} not deleted: ${why.message}\n`)
        const [first] = left
        if (first !== undefined)
          return exitCodeOf(shell.signal.aborted ? interrupted(shell.signal) : first.why)
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
    map: () =>
      nodes.call('read', (call, { shards }): Promise<MapResponse> => call(shards.map.bind(shards), {})),
    stats: address => fetchStats(nodeAt(address)).catch(() => null),
    createStream: async (name, partitions) => {
      const request = { name, partitions, ifMissing: false }
      await nodes.call('write', (call, { streams }) => call(streams.create.bind(streams), request))
    },
    deleteStream: async name => {
      await nodes.call('write', (call, { streams }) => call(streams.delete.bind(streams), { name }))
    },
    close: () => {
      for (const node of open.values()) node.close()
    },
  }
}
