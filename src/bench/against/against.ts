/**
 * Ours beside etcd on the same machine in the same minutes: three nodes each, durable writes and linearizable reads, A B A B.
 * Both clusters run all the time; what the one that is not asked takes for nothing is told beside every figure.
 */
import { randomBytes } from 'node:crypto'
import { Prng } from '../../lib/prng.ts'
import { drive } from '../drive.ts'
import { inPath, removeDirectory, temporaryDirectory } from '../own-process.ts'
import { ValueBlock } from '../value-block.ts'
import { keyPrefix } from '../workload.ts'
import { EtcdSide, etcdBinary } from './etcd-side.ts'
import { killLeader } from './failover.ts'
import { h2load } from './h2load.ts'
import type {
  AgainstCase,
  AgainstPlan,
  AgainstRun,
  AgainstSetting,
  Caller,
  CallName,
  FailoverResult,
  Kill,
  RunAgainst,
  SideCost,
  SideName,
} from './ports.ts'
import { inTurn, ratioOf } from './ratio.ts'
import { RoundhouseSide } from './roundhouse-side.ts'
import type { NodeReading, Side } from './side.ts'

const leadersEveryMs = 1_000
const fillInFlight = 128
const callMsMax = 10_000
const h2loadKey = `${keyPrefix}h2load`

interface Comparison {
  readonly plan: AgainstPlan
  readonly sides: Readonly<Record<SideName, Side>>
  readonly keys: readonly string[]
  readonly values: ValueBlock
  readonly random: Prng
  /** null: not in PATH, or not wanted. */
  readonly h2load: { readonly binary: string; readonly directory: string } | null
  readonly signal: AbortSignal
}

export const runAgainst: RunAgainst = async (plan, setting) => {
  // Before anything is started.
  etcdBinary()
  const notes: string[] = []
  const { signal } = setting
  const steps = new Steps(plan, setting)
  const binary = plan.mayUseH2load ? inPath('h2load') : null
  if (binary === null && plan.mayUseH2load && plan.calls.length > 0)
    notes.push('no figures by h2load: it is not in PATH (on Debian and Ubuntu, apt install nghttp2-client)')
  steps.tell('the clusters start')
  let ours: RoundhouseSide | null = null
  let etcd: EtcdSide | null = null
  const directory = temporaryDirectory()
  const keys = keyNames(plan)
  try {
    const { program, running } = setting
    const { nodes, shardCount } = plan
    ours =
      running === null
        ? await RoundhouseSide.start({ program, nodes, shardCount, signal })
        : await RoundhouseSide.running(running)
    etcd = await EtcdSide.start(nodes, signal)
    const random = new Prng(randomBytes(4).readUInt32LE())
    const comparison: Comparison = {
      ...{ plan, keys, random, signal, sides: { roundhouse: ours, etcd } },
      values: new ValueBlock(plan.valueBytes, random),
      h2load: binary === null ? null : { binary, directory },
    }
    if (plan.calls.length > 0)
      for (const side of [ours, etcd]) {
        steps.tell(`${side.name}: ${keys.length} keys are written`)
        await fill(comparison, side)
      }
    // Not counted: a server that has just started compiles while it serves, or has yet to grow its heap.
    for (const call of plan.calls)
      for (const side of ['roundhouse', 'etcd'] as const) {
        steps.next(`${call}: ${side} warms up`)
        await byOwnClient(comparison, side, call, Math.max(...plan.inFlight))
      }
    const cases: AgainstCase[] = []
    for (const { caller, call, inFlight } of casesOf(plan, binary !== null)) {
      const runs: AgainstRun[] = []
      for (const { side, round } of inTurn(plan.rounds)) {
        signal.throwIfAborted()
        steps.next(`${call}, ${inFlight} in flight, ${caller === 'own' ? 'own client' : caller}: ${side}`)
        const figures =
          caller === 'own'
            ? await byOwnClient(comparison, side, call, inFlight)
            : await byH2load(comparison, side, call, inFlight)
        runs.push({ side, round, ...figures })
      }
      cases.push(caseOf(call, caller, inFlight, runs))
    }
    let failover: FailoverResult | null = null
    if (plan.kills > 0 && running !== null)
      notes.push('no leader was killed: the cluster that was named runs for somebody')
    else if (plan.kills > 0) failover = await failovers(comparison, steps)
    if (running !== null) await ours.remove([...keys, h2loadKey])
    const sides = [ours, etcd].map((side: Side) => ({
      name: side.name,
      version: side.version,
      nodes: side.nodes.length,
    }))
    return { sides, cases, failover, notes }
  } finally {
    await Promise.all([ours?.stop(), etcd?.stop()])
    removeDirectory(directory)
  }
}

function casesOf({ calls, inFlight }: AgainstPlan, hasH2load: boolean) {
  const callers: readonly Caller[] = hasH2load ? ['own', 'h2load'] : ['own']
  return callers.flatMap(caller =>
    calls.flatMap(call => inFlight.map(count => ({ caller, call, inFlight: count }))),
  )
}

function caseOf(call: CallName, caller: Caller, inFlight: number, runs: readonly AgainstRun[]): AgainstCase {
  return {
    ...{ call, caller, inFlight, runs },
    operationsRatio: ratioOf(runs.map(({ side, operationsPerSecond: value }) => ({ side, value }))),
    latencyRatio: ratioOf(runs.map(({ side, meanMs: value }) => ({ side, value }))),
  }
}

async function failovers({ plan, sides, signal }: Comparison, steps: Steps): Promise<FailoverResult> {
  const kills: Kill[] = []
  for (const { side, round } of inTurn(plan.kills)) {
    signal.throwIfAborted()
    steps.next(`${side}: leader killed, ${round + 1} of ${plan.kills}`)
    kills.push(await killLeader(sides[side], plan.valueBytes, signal))
  }
  return {
    kills,
    one: ratioOf(kills.map(({ side, gapsMs }) => ({ side, value: gapsMs[0]! }))),
    all: ratioOf(kills.map(({ side, gapsMs }) => ({ side, value: Math.max(...gapsMs) }))),
  }
}

function keyNames({ keys, keyBytes }: AgainstPlan): string[] {
  return Array.from(
    { length: keys },
    (_, number) => keyPrefix + String(number).padStart(keyBytes - keyPrefix.length, '0'),
  )
}

/** Every key, and the one of h2load. */
async function fill({ keys, values, signal }: Comparison, side: Side): Promise<void> {
  const all = [...keys, h2loadKey]
  await side.askLeaders()
  let next = 0
  const work = async () => {
    while (next < all.length) {
      signal.throwIfAborted()
      const key = all[next++]!
      await clientOf(side, key).ask(side.path('set'), side.message('set', key, values.next()), callMsMax)
    }
  }
  await Promise.all(Array.from({ length: fillInFlight }, work))
}

function clientOf(side: Side, key: string) {
  return side.client(side.leaderOf(key) ?? side.nodes[0]!.id)
}

// --- One run --------------------------------------------------------------------------------------------------------

type Figures = Omit<AgainstRun, 'side' | 'round'>

interface Moment {
  readonly atMs: number
  readonly clientCpuUs: number
  readonly nodes: readonly (NodeReading | null)[]
  readonly others: readonly (NodeReading | null)[]
}

async function momentOf({ sides }: Comparison, name: SideName): Promise<Moment> {
  const cpu = process.cpuUsage()
  const other = sides[name === 'etcd' ? 'roundhouse' : 'etcd']
  const atMs = performance.now()
  const [nodes, others] = await Promise.all([sides[name].read(), other.read()])
  return { atMs, clientCpuUs: cpu.user + cpu.system, nodes, others }
}

async function byOwnClient(
  comparison: Comparison,
  name: SideName,
  call: CallName,
  inFlight: number,
): Promise<Figures> {
  const { plan, keys, values, random, signal } = comparison
  const side = comparison.sides[name]
  await side.askLeaders()
  // A cluster that is just choosing a leader is asked again.
  const timer = setInterval(() => void side.askLeaders().catch(() => {}), leadersEveryMs)
  const path = side.path(call)
  let first: Promise<Moment> | null = null
  let last: Promise<Moment> | null = null
  try {
    const driven = await drive({
      ...{ inFlight, rate: null, signal, warmUpMs: plan.warmUpMs, durationMs: plan.durationMs },
      begin: (_slot, done) => {
        const key = keys[random.below(keys.length)]!
        const message = side.message(call, key, values.next())
        clientOf(side, key).send(path, message, failure => done(failure, 0))
      },
      onOpen: () => {
        first = momentOf(comparison, name)
      },
      onClose: () => {
        last = momentOf(comparison, name)
      },
      onTick: () => {},
    })
    signal.throwIfAborted()
    const [from, to] = [await first!, await last!]
    const { operations, durationMs, latency, failures } = driven
    return {
      operationsPerSecond: (operations * 1_000) / durationMs,
      meanMs: latency.mean,
      latencyMs: latency,
      failures,
      nodes: costsOf(from.nodes, to.nodes, operations),
      clientCpuUsPerOperation: operations === 0 ? null : (to.clientCpuUs - from.clientCpuUs) / operations,
      otherCpuPercent: idlePercent(from, to),
    }
  } finally {
    clearInterval(timer)
  }
}

/** One key, to its leader. h2load sees no gRPC status: calls of our own look before and after, and the server counts. */
async function byH2load(
  comparison: Comparison,
  name: SideName,
  call: CallName,
  inFlight: number,
): Promise<Figures> {
  const { plan, values, signal } = comparison
  const { binary, directory } = comparison.h2load!
  const side = comparison.sides[name]
  await side.askLeaders()
  const leader = side.leaderOf(h2loadKey)
  if (leader === null) throw new Error(`${name} has no leader`)
  const value = values.next()
  await clientOf(side, h2loadKey).ask(side.path('set'), side.message('set', h2loadKey, value), callMsMax)
  await assertReads(side, value)
  const from = await momentOf(comparison, name)
  const figures = await h2load(
    {
      ...{ binary, directory, inFlight, path: side.path(call) },
      address: side.nodes.find(({ id }) => id === leader)!.address,
      message: side.message(call, h2loadKey, value),
      warmUpMs: plan.warmUpMs,
      durationMs: plan.durationMs,
    },
    signal,
  )
  const to = await momentOf(comparison, name)
  await assertReads(side, value)
  await side.askLeaders()
  const servedAt = (moment: Moment) =>
    moment.nodes.find(each => each?.nodeId === leader)?.served?.[call] ?? null
  const [before, after] = [servedAt(from), servedAt(to)]
  const served = before === null || after === null ? null : after - before
  const failures = []
  if (figures.failed > 0) failures.push({ what: 'failed as HTTP calls', count: figures.failed })
  // Those of the warm-up are served as well, so it must be more.
  if (served !== null && served < figures.succeeded)
    failures.push({ what: 'answered by HTTP, not served', count: figures.succeeded - served })
  if (side.leaderOf(h2loadKey) !== leader) failures.push({ what: 'the leader changed meanwhile', count: 1 })
  // With the warm-up, as the processor time.
  const operations = served ?? (figures.requestsPerSecond * (to.atMs - from.atMs)) / 1_000
  return {
    operationsPerSecond: figures.requestsPerSecond,
    meanMs: figures.meanMs,
    latencyMs: null,
    failures,
    nodes: costsOf(from.nodes, to.nodes, operations),
    clientCpuUsPerOperation:
      figures.cpuS === null || operations === 0 ? null : (figures.cpuS * 1e6) / operations,
    otherCpuPercent: idlePercent(from, to),
  }
}

async function assertReads(side: Side, value: Uint8Array): Promise<void> {
  const path = side.path('get')
  const answer = await clientOf(side, h2loadKey).ask(path, side.message('get', h2loadKey, value), callMsMax)
  const found = side.valueIn(answer)
  if (found === null || Buffer.compare(found, value) !== 0)
    throw new Error(`${side.name}: the key of h2load does not hold what was written`)
}

export function costsOf(
  from: readonly (NodeReading | null)[],
  to: readonly (NodeReading | null)[],
  operations: number,
): SideCost[] {
  return from.flatMap(before => {
    const after = to.find(each => each?.nodeId === before?.nodeId)
    if (before === null || after === null || after === undefined || operations === 0) return []
    if (before.cpuS === null || after.cpuS === null || after.cpuS < before.cpuS) return []
    const hasSyncs = before.syncs !== null && after.syncs !== null
    return {
      nodeId: after.nodeId,
      cpuUsPerOperation: ((after.cpuS - before.cpuS) * 1e6) / operations,
      syncsPerOperation: hasSyncs ? (after.syncs! - before.syncs!) / operations : null,
    }
  })
}

/** Of one core. */
function idlePercent(from: Moment, to: Moment): number | null {
  const seconds = (to.atMs - from.atMs) / 1_000
  const taken = from.others.map((before, place) => {
    const after = to.others[place]
    const isKnown = before?.cpuS !== null && before?.cpuS !== undefined
    return isKnown && after?.cpuS !== null && after?.cpuS !== undefined ? after.cpuS - before.cpuS! : null
  })
  if (seconds <= 0 || taken.some(each => each === null)) return null
  return (taken.reduce<number>((sum, each) => sum + each!, 0) * 100) / seconds
}

class Steps {
  private readonly onProgress: AgainstSetting['onProgress']
  private readonly total: number
  private made = 0

  constructor(plan: AgainstPlan, { onProgress }: AgainstSetting) {
    this.onProgress = onProgress
    const cases = casesOf(plan, plan.mayUseH2load && inPath('h2load') !== null).length
    this.total = Math.max(1, 2 * (plan.calls.length + cases * plan.rounds + plan.kills))
  }

  tell(text: string): void {
    this.onProgress({ text, done: this.made / this.total })
  }

  /** Begins one. */
  next(text: string): void {
    this.tell(text)
    this.made += 1
  }
}
