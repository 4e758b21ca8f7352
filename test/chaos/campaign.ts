/**
 * One chaos run: a cluster of real processes, a recorded workload, faults by a seed's plan; then everything is healed, and
 * the run is judged: every answer by the linearizability checker, what was acknowledged by reading all of it through
 * every node, the replicas by `roundhouse verify`, the time it takes to be whole by a limit.
 */
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Kind, Outcome, Verdicts } from '../../src/bench/verify/books.ts'
import { type FinalReads, readEverything } from '../../src/bench/verify/final-reads.ts'
import { HistoryFile } from '../../src/bench/verify/history-file.ts'
import { type Judgement, judge } from '../../src/bench/verify/verdict.ts'
import { Workload } from '../../src/bench/verify/workload.ts'
import { Recorder } from '../../src/history/recorder.ts'
import { Prng } from '../../src/lib/prng.ts'
import { programPath } from '../lib/cluster-program.ts'
import { Members } from './members.ts'
import { type FaultKind, faultKinds, Nemesis, Plan } from './nemesis.ts'
import { RecordLoad } from './records.ts'

export interface ChaosOptions {
  readonly seed: number
  readonly minutes: number
  readonly nodes: number
  readonly shardCount: number
  readonly clients: number
  /** Operations a second, of all clients. */
  readonly rate: number
  readonly kinds: readonly FaultKind[]
  /** Where history, script and logs go. */
  readonly directory: string
  readonly onProgress: (line: string) => void
}

export interface ChaosResult {
  readonly seed: number
  readonly minutes: number
  readonly nodes: number
  /** From the end of the faults until the verdict, s. */
  readonly judgedS: number
  readonly operations: Readonly<Record<Kind, Record<Outcome, number>>>
  readonly retried: number
  readonly troubles: Readonly<Record<string, number>>
  readonly faults: Readonly<Record<string, number>>
  /** Longest time without an acknowledged write, ms. */
  readonly unavailableMs: { readonly anywhere: number; readonly worstShard: number; readonly shard: number }
  /** From the end of an episode until every shard wrote, ms. */
  readonly recoveryMs: { readonly median: number; readonly max: number }
  /** From the last heal until all replicas were in place, ms; null: never. */
  readonly settledMs: number | null
  readonly verdicts: Verdicts
  readonly keysRead: number
  readonly records: RecordLoad['counts']
  readonly verdict: Judgement['verdict']
  readonly checkedOperations: number
  readonly replicasEqual: boolean
  /** All that is wrong; empty: the run has passed. */
  readonly mistakes: readonly string[]
}

const fast = ['--heartbeat-interval', '200ms']
/** A small journal budget, so that who was away for long needs a snapshot. */
const flags = [...fast, '--journal-budget', '64MiB', '--cleanup-interval', '2s', '--log-level', 'info']
const patienceMs = 15_000
const keysAtOnce = 24
/** More than an hour makes. */
const callsMax = 1_000_000
const settleMsMax = 180_000
const checkMsMax = 120_000
const replicationFactor = 3
/** Exit status of a verb that may succeed later. */
const tryAgain = 75
const verifyTriesMax = 3
/** More say nothing new. */
const recordMistakesMax = 20

export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const { seed, directory, onProgress } = options
  mkdirSync(directory, { recursive: true })
  const random = new Prng(seed)
  const startMs = performance.now()
  const now = () => performance.now() - startMs
  const history = new HistoryFile(join(directory, 'history.jsonl'))
  const script = createWriteStream(join(directory, 'script.jsonl'))
  const tell = (what: string, facts: object = {}) => {
    script.write(`${JSON.stringify({ atMs: Math.round(now()), what, ...facts })}\n`)
    onProgress(`${(now() / 1000).toFixed(1).padStart(6)} s  ${what}  ${summary(facts)}`)
  }
  tell('seed', { seed, nodes: options.nodes, minutes: options.minutes, shards: options.shardCount })
  const members = new Members({
    ...{ nodes: options.nodes, shardCount: options.shardCount, flags, tell },
    random: random.fork(),
  })
  const plan = new Plan(random.fork(), options.kinds)
  const mistakes: string[] = []
  const attempt = async (what: string, work: () => Promise<void>) => {
    try {
      await work()
    } catch (error) {
      mistakes.push(`${what}: ${(error as Error).message}`)
    }
  }
  // However it ends: a run that is ended from outside is one to look at.
  const writeLogs = () => {
    for (const { id, process: its } of members.all) writeFileSync(join(directory, `${id}.log`), its.output)
  }
  process.once('exit', writeLogs)
  let workload: Workload | null = null
  let nemesis: Nemesis | null = null
  let records: RecordLoad | null = null
  const stop = () => nemesis?.stop()
  process.once('SIGINT', stop)
  try {
    await members.start()
    tell('the cluster is in place')
    const recorder = new Recorder({
      model: 'kv',
      about: `chaos, seed ${seed}`,
      now,
      write: line => history.write(line),
    })
    workload = new Workload({
      store: {
        pick: members.pick,
        addresses: () => members.members.map(each => each.process.address),
        run: (address, request, timeoutMs) => members.client.send(address, request, timeoutMs),
      },
      ...{ recorder, random: random.fork(), now, wall: Date.now, shardCount: options.shardCount },
      after: ms => new Promise(resolve => setTimeout(resolve, ms)),
      ...{ clients: options.clients, keys: keysAtOnce, rate: options.rate, callsMax, patienceMs },
      prefix: 'chaos:',
    })
    workload.start()
    records = new RecordLoad({ random: random.fork(), pick: members.pick })
    await records.start()
    const { acknowledgedMs } = workload
    nemesis = new Nemesis({
      ...{ members, plan, nodes: options.nodes, replicationFactor, tell, now },
      acknowledgedMs: () => acknowledgedMs,
      probe: shard => workload!.probe(shard),
    })
    await nemesis.run(now() + options.minutes * 60_000)
    const healedMs = now()
    tell('all is healed')
    await attempt('background', () => nemesis!.finished(settleMsMax))
    await attempt('the workload', () => workload!.stop())
    await attempt('the producers', () => records!.stop())
    let settledMs: number | null = null
    await attempt('after the faults', async () => {
      await members.whole(settleMsMax)
      settledMs = now() - healedMs
    })
    tell('settled', { ms: settledMs === null ? null : Math.round(settledMs) })
    const addresses = members.members.map(({ id, process }) => ({ id, address: process.address }))
    let finalReads: FinalReads = { keys: 0, unreadable: ['nothing was read at the end'] }
    await attempt('the final reads', async () => {
      finalReads = await readEverything(workload!, addresses)
    })
    await attempt('the records', () => records!.readEverything(addresses))
    tell('read', { keys: finalReads.keys, nodes: addresses.length, records: records.counts.read })
    let replicasEqual = false
    await attempt('verify', async () => {
      await verify(addresses[0]!.address)
      replicasEqual = true
    })
    history.close()
    const judgement = await judge(history.path, workload.books, finalReads, {
      timeoutMs: checkMsMax,
      onProgress: () => {},
    })
    tell('checked', { operations: judgement.operations, verdict: judgement.verdict })
    mistakes.push(...judgement.mistakes, ...judgement.doubts, ...nemesis.mistakes, ...members.deaths)
    mistakes.push(...records.mistakes.slice(0, recordMistakesMax))
    return resultOf(options, workload, nemesis, {
      ...{ settledMs, replicasEqual, mistakes, judgedS: (now() - healedMs) / 1000 },
      ...{ keysRead: finalReads.keys, verdict: judgement.verdict, checkedOperations: judgement.operations },
      records: records.counts,
    })
  } finally {
    process.removeListener('SIGINT', stop)
    nemesis?.stop()
    records?.close()
    // A run that broke off has its own reason to tell; clients that go on would hide it.
    await workload?.stop().catch(() => {})
    writeLogs()
    process.removeListener('exit', writeLogs)
    await members.close()
    script.end()
    history.close()
  }
}

/** Throws unless all replicas of all shards are equal. "Try again" is an answer of a busy machine, and is taken at its word. */
async function verify(address: string): Promise<void> {
  const args = [programPath(), 'verify', '-o', 'json', '--node', address]
  for (let tries = 1; ; tries++) {
    const env = { PATH: process.env.PATH ?? '' }
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env })
    let text = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
    const code = await new Promise<number | null>(resolve => child.once('close', resolve))
    if (code === 0) return
    if (code !== tryAgain || tries === verifyTriesMax)
      throw new Error(`roundhouse verify ended with ${code}: ${text.slice(0, 2_000)}`)
  }
}

type Rest = Pick<
  ChaosResult,
  | 'settledMs'
  | 'keysRead'
  | 'records'
  | 'replicasEqual'
  | 'mistakes'
  | 'judgedS'
  | 'verdict'
  | 'checkedOperations'
>

function resultOf(options: ChaosOptions, workload: Workload, nemesis: Nemesis, rest: Rest): ChaosResult {
  const { books, gaps } = workload
  const recoveries = [...nemesis.recoveriesMs].sort((a, b) => a - b)
  return {
    ...{ seed: options.seed, minutes: options.minutes, nodes: options.nodes },
    operations: Object.fromEntries(books.counts) as Record<Kind, Record<Outcome, number>>,
    retried: books.retried,
    troubles: Object.fromEntries([...books.troubles].sort(([, a], [, b]) => b - a)),
    faults: Object.fromEntries(
      faultKinds.flatMap(kind => (nemesis.counts.has(kind) ? [[kind, nemesis.counts.get(kind)!]] : [])),
    ),
    unavailableMs: {
      anywhere: Math.round(gaps.anywhereMs),
      worstShard: Math.round(gaps.shardMs),
      shard: gaps.shard,
    },
    recoveryMs: {
      median: Math.round(recoveries[recoveries.length >> 1] ?? 0),
      max: Math.round(recoveries.at(-1) ?? 0),
    },
    verdicts: books.verdicts,
    ...rest,
  }
}

const summary = (facts: object): string =>
  Object.entries(facts)
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join('  ')
