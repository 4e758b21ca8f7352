/** Nodes that have nothing to do, nodes that come back, and data that moves while people write. */
import type { OwnCluster } from '../../../src/bench/own-cluster.ts'
import { filling } from './growth.ts'
import { type Memory, memoryOf } from './memory.ts'
import {
  type Cell,
  type Context,
  caseCells,
  caseHead,
  measure,
  type Suite,
  sizeText,
  withCluster,
} from './suite.ts'

const pollMs = 20

/** Rejects when the bench shall end. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    }, ms)
    signal.addEventListener('abort', stop, { once: true })
  })
}

// --- idle -----------------------------------------------------------------------------------------------------------

interface Idle {
  readonly shards: number
  /** % of a core, of each node. */
  readonly cpuPercent: readonly number[]
  readonly memory: Memory | null
}

/** After all is in place, leaders may still go to where they are wished. */
const settleMs = 3_000

export const idle: Suite = {
  name: 'idle',
  summary: 'Nothing to do',
  async run(context) {
    const { idleMs, idleShards } = context.options
    const data: Idle[] = []
    for (const shards of idleShards)
      await withCluster(context, { shardCount: shards }, async cluster => {
        await pause(Math.min(settleMs, idleMs), context.signal)
        context.say(`${shards} shards: looked at for ${idleMs / 1_000} s`)
        const cpu = () => cluster.nodes.map(({ process }) => process.cpuS() ?? Number.NaN)
        const [startedMs, before] = [performance.now(), cpu()]
        await pause(idleMs, context.signal)
        const seconds = (performance.now() - startedMs) / 1_000
        const cpuPercent = cpu().map((after, place) => ((after - before[place]!) * 100) / seconds)
        data.push({ shards, cpuPercent, memory: await memoryOf(cluster) })
      })
    return {
      tables: [
        {
          caption: `3 nodes that nobody asks anything, over ${idleMs / 1_000} s`,
          head: ['shards', 'CPU of each node, % of a core', 'mean', 'private MiB', 'of files MiB'],
          rows: data.map(({ shards, cpuPercent, memory }) => [
            ...[shards, cpuPercent.map(each => each.toFixed(1)).join(' · ')],
            cpuPercent.reduce((sum, each) => sum + each, 0) / cpuPercent.length,
            ...(memory === null ? [null, null] : [memory.privateMib, memory.filesMib]),
          ]),
        },
      ],
      charts: [],
      notes: [],
      data,
    }
  },
}

// --- restart --------------------------------------------------------------------------------------------------------

interface Restart {
  readonly holds: string
  readonly how: 'stopped' | 'killed'
  /** ms from its start until it answers, until a linearizable read through it is answered, until all is in place. */
  readonly answersMs: number
  readonly readsMs: number
  readonly inPlaceMs: number
}

const streamRecordBytes = 1_024
const restartMsMax = 300_000

export const restart: Suite = {
  name: 'restart',
  summary: 'A node comes back',
  run: context =>
    withCluster(context, {}, async cluster => {
      const { restartKeys, streamBytes } = context.options
      await measure(context, cluster, { ...filling, workloads: ['get'], keys: restartKeys })
      const all = `${restartKeys.toLocaleString('en')} keys of 100 B`
      const data = await restarts(context, cluster, all)
      if (streamBytes > 0) {
        const records = Math.ceil(streamBytes / streamRecordBytes)
        const stream = { keys: records, records: 100, valueBytes: streamRecordBytes }
        await measure(context, cluster, { ...filling, ...stream, workloads: ['consume'] })
        data.push(...(await restarts(context, cluster, `${all}, ${sizeText(streamBytes)} of records`)))
      }
      return {
        tables: [
          {
            caption: 'One of 3 nodes (64 shards); s from the start of its process',
            head: [
              'it holds',
              'it was',
              'it answers',
              'it has a linearizable read answered',
              'all is in place',
            ],
            rows: data.map(({ holds, how, answersMs, readsMs, inPlaceMs }) => [
              ...[holds, how, answersMs / 1_000, readsMs / 1_000, inPlaceMs / 1_000],
            ]),
          },
        ],
        charts: [],
        notes: [],
        data,
      }
    }),
}

async function restarts(context: Context, cluster: OwnCluster, holds: string): Promise<Restart[]> {
  const made: Restart[] = []
  for (const how of ['stopped', 'killed'] as const) {
    context.say(`a node with ${holds} is ${how} and started again`)
    const { id } = cluster.nodes[1]!
    if (how === 'killed') await cluster.kill(id)
    else await cluster.node(id).process.stop()
    const startedMs = performance.now()
    cluster.restart(id)
    const node = cluster.node(id)
    const since = async (holdsNow: () => Promise<boolean>) => {
      while (!(await holdsNow().catch(() => false))) {
        if (!node.process.isRunning) throw new Error(`${id} has ended:\n${node.process.lastLines()}`)
        if (performance.now() - startedMs > restartMsMax) throw new Error(`${id} does not come back`)
        await pause(pollMs, context.signal)
      }
      return performance.now() - startedMs
    }
    const answersMs = await since(async () => (await cluster.bench.stats(node.address)) !== null)
    const readsMs = await since(() => cluster.reads(node))
    await cluster.ready()
    made.push({ holds, how, answersMs, readsMs, inPlaceMs: performance.now() - startedMs })
  }
  return made
}

// --- move -----------------------------------------------------------------------------------------------------------

const movedValueBytes = 4_096
const moveMsMax = 1_800_000
/** More than it may take, so that the move ends the window. */
const windowMs = moveMsMax
const inFlight = [256]

export const move: Suite = {
  name: 'move',
  summary: 'A node joins and data moves while people write',
  run: context =>
    withCluster(context, {}, async cluster => {
      const { moveBytes, moveRate, durationMs } = context.options
      const keys = Math.max(1, Math.ceil(moveBytes / movedValueBytes))
      // Names of another length: what is measured does not write over what moves.
      const data = {
        ...filling,
        keys,
        keyBytes: 24,
        valueBytes: movedValueBytes,
        workloads: ['get'] as const,
      }
      await measure(context, cluster, data)
      const writes = { workloads: ['set'] as const, inFlight, rate: moveRate, keepsKeys: true }
      context.say('writes while nothing moves')
      const [quiet] = await measure(context, cluster, { ...writes, durationMs: 2 * durationMs })
      context.say(`node4 joins; ${sizeText(moveBytes)} are there`)
      const moved = new AbortController()
      const end = AbortSignal.any([context.signal, moved.signal])
      const startedMs = performance.now()
      await cluster.addNode()
      const moving = cluster
        .ready(moveMsMax)
        .then(() => performance.now() - startedMs)
        .finally(() => moved.abort())
      const measuring = measure(context, cluster, { ...writes, warmUpMs: 0, durationMs: windowMs }, end)
      const [moveMs, [meanwhile]] = await Promise.all([moving, measuring])
      const [p99Quiet, p99Moving] = [quiet!.latencyMs.p99, meanwhile!.latencyMs.p99]
      const received = (await cluster.bench.stats(cluster.nodes.at(-1)!.address))?.counters
        .snapshot_bytes_received
      const row = (what: string, result: typeof quiet): Cell[] => [
        what,
        result!.durationS,
        ...caseCells(result!),
      ]
      return {
        tables: [
          {
            caption: `SET of 128 B at ${moveRate} a second (each counts from when it was due); 3 nodes with ${sizeText(moveBytes)} of values of 4 KiB, then a fourth`,
            head: ['', 's', ...caseHead],
            rows: [row('quiet', quiet), row('a node joins', meanwhile)],
          },
        ],
        charts: [],
        notes: [
          `p99 while data moves is ${(p99Moving / p99Quiet).toFixed(2)} × the quiet one. All was in place after ` +
            `${(moveMs / 1_000).toFixed(1)} s${received === undefined ? '' : `; ${sizeText(received)} came to the new node as snapshots, the rest as entries`}.`,
        ],
        data: { quiet, meanwhile, moveMs, received: received ?? null, ratio: p99Moving / p99Quiet },
      }
    }),
}
