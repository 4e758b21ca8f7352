/**
 * `bench --verify`: a recorded workload against any cluster, and the verdict. It hurts nobody itself; whoever wants to know
 * what a kill -9 costs, or a cable pulled, does that meanwhile. Its keys have a prefix of their own and are taken away.
 *
 *   load → everything read again through every node → keys deleted → history searched → verdict
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { CommandRequest } from '../../gen/clusterpb/cluster.ts'
import type { MapResponse } from '../../gen/roundhouse/v1/admin.ts'
import { Recorder } from '../../history/recorder.ts'
import { windowText } from '../../history/window-text.ts'
import { Prng } from '../../lib/prng.ts'
import type { BenchProgress, RunVerify, VerifyCluster, VerifyPlan, VerifyResult } from '../ports.ts'
import type { Kind, Outcome } from './books.ts'
import { readEverything } from './final-reads.ts'
import { HistoryFile } from './history-file.ts'
import { type Judgement, judge } from './verdict.ts'
import { Workload } from './workload.ts'

/** A history of so many calls takes 300 MiB to search; the books come on top. */
const callsMax = 500_000
const patienceMs = 15_000
const firstCallMs = 7_000
const checkMsMax = 120_000
/** Nodes come and go. */
const mapEveryMs = 1_000
const tickMs = 200
/** Keys a DEL, and DELs at a time. */
const clearKeys = 100
const clearLanes = 16

export const runVerify: RunVerify = async (plan, cluster, onProgress, signal) => {
  const places = new Places(cluster, await cluster.map())
  const prefix = `verify:${randomBytes(4).toString('hex')}:`
  await tryFirst(cluster, places, prefix)
  const path = plan.historyPath ?? join(mkdtempSync(join(tmpdir(), 'roundhouse-verify-')), 'history.jsonl')
  const isOurs = plan.historyPath === null
  const history = new HistoryFile(path)
  let isWanted = !isOurs
  try {
    const loaded = await load(plan, cluster, places, prefix, history, onProgress, signal)
    history.close()
    const judgement = await judge(path, loaded.workload.books, loaded.finalReads, {
      timeoutMs: checkMsMax,
      onProgress: done => onProgress({ phase: 'check', label, done, operationsPerSecond: null }),
    })
    isWanted ||= judgement.verdict !== 'linearizable'
    return resultOf(plan, prefix, loaded, judgement, isWanted ? path : null)
  } catch (error) {
    isWanted = true
    throw error
  } finally {
    history.close()
    if (!isWanted) rmSync(dirname(path), { recursive: true, force: true })
  }
}

const label = 'verify'

interface Loaded {
  readonly workload: Workload
  readonly durationS: number
  readonly endedBy: VerifyResult['endedBy']
  readonly finalReads: Awaited<ReturnType<typeof readEverything>>
  readonly nodesRead: readonly string[]
  readonly keysLeft: number
}

async function load(
  plan: VerifyPlan,
  cluster: VerifyCluster,
  places: Places,
  prefix: string,
  history: HistoryFile,
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
): Promise<Loaded> {
  const startMs = performance.now()
  const now = () => performance.now() - startMs
  const random = new Prng(randomBytes(4).readUInt32LE())
  const { shardCount } = places.map
  const store = {
    pick: () => places.pick(random.next()),
    addresses: () => places.addresses(),
    run: cluster.run.bind(cluster),
  }
  const recorder = new Recorder({
    model: 'kv',
    about: `bench --verify, ${plan.clients} clients, keys ${prefix}…`,
    now,
    write: line => history.write(line),
  })
  const { clients, keys, rate, durationMs } = plan
  const workload = new Workload({
    ...{ store, recorder, random: random.fork(), now, wall: Date.now, shardCount, prefix },
    ...{ clients, keys, rate, callsMax, patienceMs },
    after: ms => new Promise(resolve => setTimeout(resolve, ms)),
  })
  const meter = new Meter(onProgress)
  const isCleaning = !plan.keepsKeys
  try {
    workload.start()
    const ticks = setInterval(() => meter.tick('load', now() / durationMs, workload.callsMade), tickMs)
    try {
      await Promise.race([ended(durationMs, signal), workload.ended])
    } finally {
      clearInterval(ticks)
    }
    const endedBy = workload.isFull ? 'the number of calls' : signal.aborted ? 'signal' : 'time'
    const durationS = now() / 1_000
    await workload.stop()
    await places.refresh()
    const nodes = places.nodes()
    const finalReads = await readEverything(workload, nodes, (done, count) =>
      meter.tick('read again', done, count),
    )
    const keysLeft = isCleaning ? await clear(workload, meter) : 0
    return { workload, durationS, endedBy, finalReads, nodesRead: nodes.map(each => each.id), keysLeft }
  } catch (error) {
    if (isCleaning) await clear(workload, meter)
    throw error
  } finally {
    places.close()
  }
}

/** Settles when the time is up or Ctrl-C comes. */
function ended(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })
}

/** A write through any node: whoever may not, or reaches nobody, learns it here. Rejects with what the last node said. */
async function tryFirst({ run }: VerifyCluster, places: Places, prefix: string): Promise<void> {
  const request = CommandRequest.fromPartial({ command: 'DEL', key: `${prefix}first` })
  let last: unknown = new Error('the cluster has no node that is alive')
  for (const address of places.addresses()) {
    try {
      await run(address, request, firstCallMs)
      return
    } catch (error) {
      last = error
    }
  }
  throw last
}

/** Deletes all keys; the answer is how many may be left. */
async function clear(workload: Workload, meter: Meter): Promise<number> {
  const keys = [...workload.keys()]
  let next = 0
  let done = 0
  let left = 0
  const work = async () => {
    while (next < keys.length) {
      const [first, ...rest] = keys.slice(next, next + clearKeys)
      next += 1 + rest.length
      const answer = await workload.caller().write('DEL', first!, rest, { totalMs: patienceMs })
      if (answer.kind !== 'reply') left += 1 + rest.length
      done += 1 + rest.length
      meter.tick('clean-up', done / keys.length, done)
    }
  }
  await Promise.all(Array.from({ length: clearLanes }, work))
  return left
}

// --- Who is there ---------------------------------------------------------------------------------------------------

/** The nodes that can be asked, as the cluster says; looked up again and again, for they come and go. */
class Places {
  map: MapResponse
  private readonly cluster: VerifyCluster
  private readonly timer: NodeJS.Timeout
  private isAsking = false

  constructor(cluster: VerifyCluster, map: MapResponse) {
    this.cluster = cluster
    this.map = map
    this.timer = setInterval(() => {
      if (!this.isAsking) void this.refresh()
    }, mapEveryMs)
    this.timer.unref()
  }

  nodes(): { readonly id: string; readonly address: string }[] {
    return this.map.nodes
      .filter(node => node.clientAddress !== '' && node.state === 'alive')
      .map(node => ({ id: node.nodeId, address: node.clientAddress }))
  }

  addresses(): string[] {
    return this.nodes().map(each => each.address)
  }

  /** `draw`: 0 … 1. */
  pick(draw: number): string {
    const all = this.addresses()
    const among = all.length > 0 ? all : this.map.nodes.map(node => node.clientAddress)
    return among[Math.floor(draw * among.length)]!
  }

  /** What is known stays where nobody answers. */
  async refresh(): Promise<void> {
    this.isAsking = true
    try {
      this.map = await this.cluster.map()
    } catch {
    } finally {
      this.isAsking = false
    }
  }

  close(): void {
    clearInterval(this.timer)
  }
}

/** From counts to rates. */
class Meter {
  private readonly onProgress: (progress: BenchProgress) => void
  private phase: BenchProgress['phase'] = 'load'
  private count = 0
  private rate = 0
  private atMs = performance.now()

  constructor(onProgress: (progress: BenchProgress) => void) {
    this.onProgress = onProgress
  }

  tick(phase: BenchProgress['phase'], done: number, count: number): void {
    const nowMs = performance.now()
    if (phase !== this.phase) Object.assign(this, { phase, count: 0, rate: 0, atMs: nowMs })
    if (nowMs - this.atMs >= tickMs / 2) {
      this.rate = ((count - this.count) * 1_000) / (nowMs - this.atMs)
      this.count = count
      this.atMs = nowMs
    }
    this.onProgress({ phase, label, done: Math.min(1, done), operationsPerSecond: this.rate })
  }
}

function resultOf(
  plan: VerifyPlan,
  prefix: string,
  loaded: Loaded,
  judgement: Judgement,
  historyPath: string | null,
): VerifyResult {
  const { workload, durationS, endedBy, finalReads, nodesRead, keysLeft } = loaded
  const { books } = workload
  const { verdict, operations, keys, window, mistakes, doubts } = judgement
  return {
    ...{ verdict, prefix, durationS, endedBy, mistakes, doubts, nodesRead, keysLeft, historyPath },
    operations: Object.fromEntries(books.counts) as Record<Kind, Record<Outcome, number>>,
    retried: books.retried,
    troubles: Object.fromEntries([...books.troubles].sort(([, a], [, b]) => b - a)),
    longestGapMs: Math.round(workload.gaps.anywhereMs),
    longestCallMs: Math.round(workload.longestCallMs),
    found: books.verdicts,
    keysRead: finalReads.keys,
    checkedOperations: operations,
    checkedKeys: keys,
    window: window === null ? [] : windowText(window, plan.columns),
  }
}
