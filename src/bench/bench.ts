/**
 * Runs the cases of a plan one after another against a cluster: fills the keys where reads need them, warms up, measures,
 * and takes its keys away again. What an operation costs is asked of the nodes themselves, before and after each window.
 */
import { randomBytes } from 'node:crypto'
import type { CommandRequest } from '../gen/clusterpb/cluster.ts'
import type { MapResponse, StatsResponse } from '../gen/roundhouse/v1/admin.ts'
import { Prng } from '../lib/prng.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import { drive } from './drive.ts'
import { type Lane, openLane } from './lane.ts'
import type {
  BenchCluster,
  BenchPlan,
  BenchProgress,
  CallKind,
  CaseResult,
  NodeCost,
  RunBench,
  WorkloadName,
} from './ports.ts'
import { Workload } from './workload.ts'

/** Keys a command while keys are filled in or taken away, and commands under way. */
const fillKeys = 100
const fillInFlight = 16
/** What nodes call the counters, in Admin.Stats. */
const syncsCounter = 'journal_fsyncs'
/** Leaders move; who goes on asking the old one measures forwarding, of a stream's commands one at a time a shard. */
const mapEveryMs = 1_000
const forwardedCounter = 'calls_forwarded'

export const runBench: RunBench = async (plan, cluster, onProgress, signal) => {
  const results: CaseResult[] = []
  let hasFilled = false
  for (const name of plan.workloads) {
    const workload = workloadOf(plan, name)
    if (workload.needsKeys && !hasFilled && !signal.aborted) {
      await overKeys(plan, cluster, 'fill', onProgress, signal)
      hasFilled = true
    }
    for (const calls of plan.calls) {
      for (const inFlight of plan.inFlight) {
        if (signal.aborted) break
        const result = await runCase(plan, cluster, workload, calls, inFlight, onProgress, signal)
        results.push(result)
      }
    }
  }
  // Also after Ctrl-C: a second one ends the process.
  if (!plan.keepsKeys) await overKeys(plan, cluster, 'clean-up', onProgress, new AbortController().signal)
  return results
}

function workloadOf(plan: BenchPlan, name: WorkloadName): Workload {
  return new Workload(name, plan, plan.batch, new Prng(randomBytes(4).readUInt32LE()))
}

async function runCase(
  plan: BenchPlan,
  cluster: BenchCluster,
  workload: Workload,
  calls: CallKind,
  inFlight: number,
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
): Promise<CaseResult> {
  const router = new Router(plan, cluster, await cluster.map(), calls)
  const sessions = plan.hasSessions ? Array.from({ length: inFlight }, () => new WriteSession()) : null
  const label = `${workload.name}, ${calls}, ${inFlight} in flight`
  let before: Promise<Snapshot> | null = null
  let after: Promise<Snapshot> | null = null
  try {
    router.follow()
    // Once for nothing: what it takes to connect does not belong to the window.
    await router.snapshot()
    const driven = await drive({
      inFlight,
      rate: plan.rate,
      warmUpMs: plan.warmUpMs,
      durationMs: plan.durationMs,
      signal,
      begin: (slot, done) => {
        const { request, isWrite, bytes } = workload.next()
        if (sessions !== null && isWrite) sessions[slot]!.stamp(request)
        router.send(request, slot, failure => done(failure, bytes))
      },
      onOpen: () => {
        before = router.snapshot()
      },
      onClose: () => {
        after = router.snapshot()
      },
      onTick: (phase, done, operationsPerSecond) => onProgress({ phase, label, done, operationsPerSecond }),
    })
    const [first, last] = [await before!, await after!]
    const seconds = driven.durationMs / 1_000
    const per = (amount: number) => (driven.operations === 0 ? 0 : amount / driven.operations)
    return {
      workload: workload.name,
      calls,
      inFlight,
      durationS: seconds,
      operations: driven.operations,
      operationsPerSecond: driven.operations / seconds,
      megabytesPerSecond: driven.bytes / seconds / 1e6,
      latencyMs: driven.latency,
      failures: driven.failures,
      nodes: costs(first, last, per),
      clientCpuUsPerOperation: per(last.clientCpuUs - first.clientCpuUs),
    }
  } finally {
    router.close()
  }
}

/** Writes all keys, or deletes them. Throws when the cluster refuses. */
async function overKeys(
  plan: BenchPlan,
  cluster: BenchCluster,
  phase: 'fill' | 'clean-up',
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const router = new Router(plan, cluster, await cluster.map(), 'unary')
  const workload = workloadOf(plan, 'set')
  const startedMs = performance.now()
  let next = 0
  let done = 0
  const work = async (slot: number) => {
    while (next < plan.keys && !signal.aborted) {
      const from = next
      const to = Math.min(plan.keys, from + fillKeys)
      next = to
      const { request } = phase === 'fill' ? workload.fill(from, to) : workload.clear(from, to)
      const failure = await new Promise<string | null>(resolve => router.send(request, slot, resolve))
      if (failure !== null) throw new Error(`${phase}: ${failure}`)
      done += to - from
      const operationsPerSecond = (done * 1_000) / (performance.now() - startedMs)
      onProgress({ phase, label: '', done: done / plan.keys, operationsPerSecond })
    }
  }
  try {
    await Promise.all(Array.from({ length: fillInFlight }, (_, slot) => work(slot)))
  } finally {
    router.close()
  }
}

// --- Where a command goes -------------------------------------------------------------------------------------------

class Router {
  private readonly plan: BenchPlan
  private readonly cluster: BenchCluster
  private readonly map: MapResponse
  private readonly nodes: readonly { readonly id: string; readonly address: string }[]
  /** By client, then by node. */
  private readonly lanes: readonly (readonly Lane[])[]
  /** By shard: the place of its leader among `nodes`, or -1. */
  private leaders: readonly number[]
  private timer: NodeJS.Timeout | null = null
  private isAsking = false

  constructor(plan: BenchPlan, cluster: BenchCluster, map: MapResponse, calls: CallKind) {
    this.plan = plan
    this.cluster = cluster
    this.map = map
    this.nodes = map.nodes
      .filter(node => node.state === 'alive' && node.clientAddress !== '')
      .map(node => ({ id: node.nodeId, address: node.clientAddress }))
    if (this.nodes.length === 0) throw new Error('the cluster has no node that is alive')
    this.lanes = Array.from({ length: plan.clients }, () =>
      this.nodes.map(({ address }) => openLane(address, calls, cluster.credentials)),
    )
    this.leaders = this.leadersOf(map)
  }

  /** From now on asks who leads. A node that joins meanwhile gets nothing sent. */
  follow(): void {
    this.timer = setInterval(() => {
      if (this.isAsking || this.plan.route === 'any') return
      this.isAsking = true
      this.cluster
        .map()
        .then(
          map => {
            this.leaders = this.leadersOf(map)
          },
          () => {},
        )
        .finally(() => {
          this.isAsking = false
        })
    }, mapEveryMs)
  }

  send(request: CommandRequest, slot: number, answer: (failure: string | null) => void): void {
    const lanes = this.lanes[slot % this.lanes.length]!
    lanes[this.placeOf(request)]!.send(request, answer)
  }

  /** Costs of all nodes as they are now. */
  async snapshot(): Promise<Snapshot> {
    const cpu = process.cpuUsage()
    const nodes = await Promise.all(this.nodes.map(({ address }) => this.cluster.stats(address)))
    return { clientCpuUs: cpu.user + cpu.system, nodes }
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer)
    for (const lane of this.lanes.flat()) lane.close()
  }

  private leadersOf(map: MapResponse): number[] {
    return map.leaders.map(leader => this.nodes.findIndex(node => node.id === leader))
  }

  private placeOf({ key }: CommandRequest): number {
    const anywhere = Math.floor(Math.random() * this.nodes.length)
    if (this.plan.route === 'any') return anywhere
    const leader = this.leaders[shardOfSlot(slotOf(Buffer.from(key)), this.map.shardCount)] ?? -1
    return leader === -1 ? anywhere : leader
  }
}

/** One a slot: its commands go one after another. */
class WriteSession {
  private readonly id = Buffer.alloc(16)
  private sequence = 0n

  constructor() {
    this.id.writeUIntBE(Date.now(), 0, 6)
    randomBytes(10).copy(this.id, 6)
  }

  stamp(request: CommandRequest): void {
    this.sequence += 1n
    request.session = this.id
    request.sequence = this.sequence
    request.ackedBelow = this.sequence
  }
}

// --- What it cost ---------------------------------------------------------------------------------------------------

interface Snapshot {
  readonly clientCpuUs: number
  /** null: the node did not answer. */
  readonly nodes: readonly (StatsResponse | null)[]
}

function costs(first: Snapshot, last: Snapshot, per: (amount: number) => number): NodeCost[] {
  return first.nodes.flatMap((before, place) => {
    const after = last.nodes[place]
    // A node that was restarted in between counts from zero again.
    if (before === null || after === null || after === undefined || after.cpuS < before.cpuS) return []
    const counted = (name: string) => {
      const [from, to] = [before.counters[name], after.counters[name]]
      return from === undefined || to === undefined ? null : per(to - from)
    }
    return {
      nodeId: after.nodeId,
      cpuUsPerOperation: per((after.cpuS - before.cpuS) * 1e6),
      syncsPerOperation: counted(syncsCounter),
      forwardedPerOperation: counted(forwardedCounter),
    }
  })
}
