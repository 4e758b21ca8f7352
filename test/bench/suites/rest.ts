/** Nodes that have nothing to do, and data that moves while people write. */
import { calm } from './calm.ts'
import { filling } from './growth.ts'
import { type Memory, memoryOf } from './memory.ts'
import { pause } from './pause.ts'
import { roomOf } from './room.ts'
import {
  type Cell,
  caseCells,
  caseHead,
  eachOf,
  measure,
  type Suite,
  sizeText,
  withCluster,
} from './suite.ts'

// --- idle -----------------------------------------------------------------------------------------------------------

interface Idle {
  readonly shards: number
  /** % of a core, of each node. */
  readonly cpuPercent: readonly number[]
  readonly memory: Memory | null
}

/** After all is in place leaders still go to where they are wished, and the compiler works: as many times as long as is looked at. */
const settleFactor = 6

export const idle: Suite = {
  name: 'idle',
  summary: 'Nothing to do',
  roomOf: () => roomOf(3),
  async run(context) {
    const { idleMs, idleShards } = context.options
    const data: Idle[] = []
    const work = (shards: number) =>
      withCluster(context, { shardCount: shards }, async cluster => {
        context.say(`${shards} shards: ${(settleFactor * idleMs) / 1_000} s to settle`)
        await pause(settleFactor * idleMs, context.signal)
        context.say(`${shards} shards: looked at for ${idleMs / 1_000} s`)
        const cpu = () => cluster.nodes.map(({ process }) => process.cpuS() ?? Number.NaN)
        const [startedMs, before] = [performance.now(), cpu()]
        await pause(idleMs, context.signal)
        const seconds = (performance.now() - startedMs) / 1_000
        const cpuPercent = cpu().map((after, place) => ((after - before[place]!) * 100) / seconds)
        data.push({ shards, cpuPercent, memory: await memoryOf(cluster) })
      })
    const missing = await eachOf(context, idleShards, shards => `${shards} shards`, work)
    return {
      tables: [
        {
          caption: `3 nodes that nobody asks anything, over ${idleMs / 1_000} s, ${(settleFactor * idleMs) / 1_000} s after all was in place`,
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
      missing,
      data,
    }
  },
}

// --- move -----------------------------------------------------------------------------------------------------------

const movedValueBytes = 4_096
const movedKeyBytes = 24
const moveMsMax = 1_800_000
/** More than it may take, so that the move ends the window. */
const windowMs = moveMsMax
const inFlight = [256]
const tellEveryMs = 10_000

/** Of three nodes each has everything; of four each has three quarters. */
const dataOf = (moveBytes: number) => (moveBytes * 4) / 3
const keysOf = (moveBytes: number) => Math.max(1, Math.ceil(dataOf(moveBytes) / movedValueBytes))

export const move: Suite = {
  name: 'move',
  summary: 'A node joins and data moves while people write',
  roomOf: ({ moveBytes }) =>
    roomOf(4, keysOf(moveBytes), movedKeyBytes + movedValueBytes) +
    // The new node's own, and what of it is on its way: copies at the senders, chunks at the receiver.
    4 * moveBytes,
  run: context =>
    withCluster(context, {}, async cluster => {
      const { moveBytes, moveRate, moveQuietMs } = context.options
      // Names of another length: what is measured does not write over what moves.
      const data = {
        ...filling,
        keys: keysOf(moveBytes),
        keyBytes: movedKeyBytes,
        valueBytes: movedValueBytes,
        workloads: ['get'] as const,
      }
      await measure(context, cluster, data)
      const writes = { workloads: ['set'] as const, inFlight, rate: moveRate, keepsKeys: true }
      await calm(context, cluster)
      context.say('writes while nothing moves')
      const [quiet] = await measure(context, cluster, { ...writes, durationMs: moveQuietMs })
      context.say(`node4 joins; ${sizeText(dataOf(moveBytes))} are there, three quarters of it come to it`)
      const moved = new AbortController()
      const end = AbortSignal.any([context.signal, moved.signal])
      const startedMs = performance.now()
      const { address } = await cluster.addNode()
      const received = async () =>
        (await cluster.bench.stats(address))?.counters.snapshot_bytes_received ?? null
      const tells = setInterval(
        () =>
          void received().then(bytes => {
            const seconds = Math.round((performance.now() - startedMs) / 1_000)
            if (!moved.signal.aborted)
              context.say(`data moves for ${seconds} s; as snapshots came ${sizeText(bytes ?? 0)}`)
          }),
        tellEveryMs,
      )
      const moving = cluster
        .ready(moveMsMax)
        .then(() => performance.now() - startedMs)
        .finally(() => {
          clearInterval(tells)
          moved.abort()
        })
      const measuring = measure(context, cluster, { ...writes, warmUpMs: 0, durationMs: windowMs }, end)
      const [moveMs, [meanwhile]] = await Promise.all([moving, measuring])
      const receivedBytes = await received()
      await calm(context, cluster)
      context.say('writes after it')
      const [after] = await measure(context, cluster, { ...writes, durationMs: moveQuietMs })
      const ratio = meanwhile!.latencyMs.p99 / quiet!.latencyMs.p99
      const row = (what: string, result: typeof quiet): Cell[] => [
        what,
        result!.durationS,
        ...caseCells(result!),
      ]
      return {
        tables: [
          {
            caption: `SET of 128 B at ${moveRate} a second (each counts from when it was due); 3 nodes with ${sizeText(dataOf(moveBytes))} of values of 4 KiB, then a fourth, to which ${sizeText(moveBytes)} of them belong`,
            head: ['', 's', ...caseHead],
            rows: [row('quiet', quiet), row('a node joins', meanwhile), row('after it', after)],
          },
        ],
        charts: [],
        notes: [
          `p99 while data moves is ${ratio.toFixed(2)} × the quiet one before it. All was in place after ` +
            `${(moveMs / 1_000).toFixed(1)} s${receivedBytes === null ? '' : `; ${sizeText(receivedBytes)} came to the new node as snapshots, the rest as entries`}.`,
        ],
        data: { quiet, meanwhile, after, moveMs, received: receivedBytes, ratio },
      }
    }),
}
