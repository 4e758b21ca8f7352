/**
 * Nodes that come back: one of three and one alone with keys, one alone with streams (each of three would hold the same
 * bytes). One that is killed is killed in the middle of writes, so that its journal has what no checkpoint has yet.
 */
import type { OwnCluster, OwnNode } from '../../../src/bench/own-cluster.ts'
import { keyPrefix } from '../../../src/bench/workload.ts'
import { shardOfSlot, slotOf } from '../../../src/lib/slot.ts'
import { filling } from './growth.ts'
import { pause } from './pause.ts'
import { Records, recordBytes } from './records.ts'
import { roomOf } from './room.ts'
import { type Context, eachOf, measure, type Suite, sizeText, withCluster } from './suite.ts'

interface Restart {
  readonly nodes: number
  readonly holds: string
  readonly how: 'stopped' | 'killed'
  /** ms from its start until it answers; until linearizable reads through it find a key, and a key of each shard. */
  readonly answersMs: number
  readonly readsMs: number | null
  readonly readsAllMs: number | null
  /** Until it has a record of the middle of one partition, and of each. */
  readonly consumesMs: number | null
  readonly consumesAllMs: number | null
  /** Until all nodes say that all is in place. */
  readonly inPlaceMs: number
}

/** What a client may ask of a node that comes back, one thing a shard or partition. */
interface Content {
  readonly holds: string
  readonly kind: 'keys' | 'records'
  readonly questions: readonly ((node: OwnNode) => Promise<boolean>)[]
  /** Writes until the signal comes, whatever becomes of the node. */
  write(until: AbortSignal): Promise<unknown>
}

const pollMs = 10
const restartMsMax = 300_000
const stopMsMax = 120_000
/** Writes go on for so long before the kill. */
const writingMs = 2_000
/** More than they may take: the kill ends them. */
const writingMsMax = 60_000

type Place = 'keys of three' | 'keys of one' | 'records of one'

export const restart: Suite = {
  name: 'restart',
  summary: 'A node comes back',
  roomOf: ({ restartKeys, restartStreamBytes }) => {
    const ofRecords = restartStreamBytes === 0 ? 0 : roomOf(1) + restartStreamBytes * 1.1
    return Math.max(roomOf(3, restartKeys, filling.keyBytes + filling.valueBytes), ofRecords)
  },
  async run(context) {
    const { restartKeys, restartStreamBytes } = context.options
    const data: Restart[] = []
    const work = async (place: Place) => {
      const nodes = place === 'keys of three' ? 3 : 1
      const make = place === 'records of one' ? recordsOf : keysOf
      await withCluster(context, { nodes }, async cluster => {
        const content = await make(
          context,
          cluster,
          place === 'records of one' ? restartStreamBytes : restartKeys,
        )
        for (const how of ['killed', 'stopped'] as const)
          data.push({ nodes, holds: content.holds, how, ...(await again(context, cluster, content, how)) })
      })
    }
    const places: readonly Place[] = [
      ...(restartKeys > 0 ? (['keys of three', 'keys of one'] as const) : []),
      ...(restartStreamBytes > 0 ? (['records of one'] as const) : []),
    ]
    const missing = await eachOf(context, places, place => place, work)
    const seconds = (ms: number | null) => (ms === null ? null : ms / 1_000)
    return {
      tables: [
        {
          caption:
            'A node of one or three, 64 shards; s from the start of its process (files in the page cache as far as memory goes)',
          head: [
            ...['nodes', 'it holds', 'it was', 'it answers', 'a linearizable read', 'one in each shard'],
            ...['a record from the middle of a partition', 'of each partition', 'all is in place'],
          ],
          rows: data.map(each => [
            ...[each.nodes, each.holds, each.how, each.answersMs / 1_000],
            ...[each.readsMs, each.readsAllMs, each.consumesMs, each.consumesAllMs].map(seconds),
            each.inPlaceMs / 1_000,
          ]),
        },
      ],
      charts: [],
      notes: [
        'Killed: with -9, in the middle of writes. Of streams one node alone is measured: each of three would hold the same bytes.',
      ],
      missing,
      data,
    }
  },
}

async function keysOf(context: Context, cluster: OwnCluster, keys: number): Promise<Content> {
  await measure(context, cluster, { ...filling, workloads: ['get'], keys })
  const { shardCount } = await cluster.bench.map()
  const ofShard = new Map<number, string>()
  for (let number = 0; number < keys && ofShard.size < shardCount; number++) {
    const key = keyPrefix + String(number).padStart(filling.keyBytes - keyPrefix.length, '0')
    const shard = shardOfSlot(slotOf(Buffer.from(key)), shardCount)
    if (!ofShard.has(shard)) ofShard.set(shard, key)
  }
  return {
    holds: `${keys.toLocaleString('en')} keys of 100 B`,
    kind: 'keys',
    questions: [...ofShard.values()].map(key => (node: OwnNode) => cluster.reads(node, key)),
    write: until =>
      measure(
        context,
        cluster,
        { ...filling, workloads: ['set'], inFlight: [64], keys, durationMs: writingMsMax },
        until,
      ),
  }
}

async function recordsOf(context: Context, cluster: OwnCluster, bytes: number): Promise<Content> {
  const records = await Records.create(cluster)
  const startedMs = performance.now()
  await records.fill(bytes, context.say, context.signal)
  const seconds = (performance.now() - startedMs) / 1_000
  context.say(`${sizeText(records.bytes)} of records in ${seconds.toFixed(1)} s`)
  return {
    holds: `${sizeText(bytes)} of records of ${sizeText(recordBytes)} in ${records.partitions} partitions`,
    kind: 'records',
    questions: Array.from(
      { length: records.partitions },
      (_, partition) => () => records.hasMiddleOf(partition),
    ),
    write: () => records.writeUntilItDies(),
  }
}

/** Ends a node, starts it again, and asks it until it has answered everything. */
async function again(
  context: Context,
  cluster: OwnCluster,
  content: Content,
  how: Restart['how'],
): Promise<Omit<Restart, 'nodes' | 'holds' | 'how'>> {
  const { signal } = context
  context.say(`a node with ${content.holds} is ${how} and started again`)
  const { id } = cluster.nodes.at(-1)!
  if (how === 'killed') {
    const end = new AbortController()
    const writing = content.write(AbortSignal.any([signal, end.signal])).catch(() => {})
    await pause(writingMs, signal)
    await cluster.kill(id)
    end.abort()
    await writing
  } else if (!(await cluster.node(id).process.stop(stopMsMax)))
    throw new Error(`${id} does not stop within ${stopMsMax / 1_000} s`)
  const startedMs = performance.now()
  cluster.restart(id)
  const node = cluster.node(id)
  const since = async (holds: () => Promise<boolean>) => {
    while (!(await holds().catch(() => false))) {
      if (!node.process.isRunning) throw new Error(`${id} has ended:\n${node.process.lastLines()}`)
      if (performance.now() - startedMs > restartMsMax) throw new Error(`${id} does not come back`)
      await pause(pollMs, signal)
    }
    return performance.now() - startedMs
  }
  const answersMs = await since(async () => (await cluster.bench.stats(node.address)) !== null)
  const answered = await Promise.all(content.questions.map(ask => since(() => ask(node))))
  await cluster.ready()
  const inPlaceMs = performance.now() - startedMs
  const [first, all] = [Math.min(...answered), Math.max(...answered)]
  return content.kind === 'keys'
    ? { answersMs, readsMs: first, readsAllMs: all, consumesMs: null, consumesAllMs: null, inPlaceMs }
    : { answersMs, readsMs: null, readsAllMs: null, consumesMs: first, consumesAllMs: all, inPlaceMs }
}
