import { changeLimits } from '../../src/keyspace/changes.ts'
import { limits } from '../../src/keyspace/limits.ts'
import { type Logger, silentLogger } from '../../src/lib/logger.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { CallCounters } from './client.ts'
import { forkLogs, stallFollower } from './fork.ts'
import { nextRelease } from './releases.ts'
import { SimCluster, type SimMachine } from './sim-cluster.ts'
import type { Sometimes } from './sometimes.ts'
import { drawSwarm, type Fault, type FaultKind, type Swarm } from './swarm.ts'
import { Trouble } from './trouble.ts'
import { Workload } from './workload.ts'

/** What one seed showed. */
export interface RunResult {
  readonly seed: number
  readonly hash: string
  readonly events: number
  readonly simulatedMs: number
  readonly swarm: Swarm
  /** Faults that really happened, by kind. */
  readonly faults: Readonly<Record<string, number>>
  readonly workload: CallCounters
  readonly elections: number
  readonly seen: ReadonlyMap<Sometimes, number>
  /** Empty when all that was promised held. */
  readonly violations: readonly string[]
  /** When the first one was seen, ms after trouble began; null: at the end, or never. */
  readonly violatedAtMs: number | null
}

export interface RunOptions {
  readonly seed: number
  /** Of faults and load; then everything heals. Drawn if not given. */
  readonly chaosMs?: number
  /** Only these kinds of faults, all of them. */
  readonly only?: readonly FaultKind[]
  /** Of the plan's faults only these, by id: a failure with fewer of them is easier to read. */
  readonly faults?: readonly number[]
  readonly logs?: (cluster: SimCluster) => (node: string) => Logger
}

/** What makes clocks wrong, or what is heard of others' clocks old. */
const untimely: ReadonlySet<FaultKind> = new Set([
  'pause',
  'clog',
  'slow-network',
  'clock-drift',
  'wall-step',
])
/** After healing, everything has to be in order within this time. */
const healMs = 60_000
/** A busy run ends sooner: more seeds show more than longer ones. */
const eventsOfTroubleMax = 30_000
/** … and one that never ends shows nothing: in the time that healing may take, two nodes asking each other in vain. */
const eventsOfHealingMax = 1_500_000
const lookMs = 250
/** Elections a minute and group while nothing but one-way cuts happens (PreVote and CheckQuorum are to see to that). */
const electionsAMinuteMax = 60

/**
 * One seed: a cluster, clients, and faults whose kinds and rates the seed draws. Then all heals, and everything
 * acknowledged must be there.
 */
export async function runSeed(options: RunOptions): Promise<RunResult> {
  const { seed, logs } = options
  const swarm = drawSwarm(new Prng(seed), { chaosMs: options.chaosMs ?? null, only: options.only ?? null })
  const kept = options.faults
  const faults = kept === undefined ? swarm.faults : swarm.faults.filter(fault => kept.includes(fault.id))
  const { sessionSequencesMax, sessionsMax } = limits
  const { sessionSequencesMax: sequences, sessionsMax: sessions } = swarm
  const { changesMax } = changeLimits
  Object.assign(limits, { sessionSequencesMax: sequences, sessionsMax: sessions })
  Object.assign(changeLimits, { changesMax: swarm.changesMax })
  try {
    return await run(seed, swarm, faults, logs)
  } finally {
    Object.assign(limits, { sessionSequencesMax, sessionsMax })
    Object.assign(changeLimits, { changesMax })
  }
}

async function run(
  seed: number,
  swarm: Swarm,
  faults: readonly Fault[],
  logs: RunOptions['logs'],
): Promise<RunResult> {
  const settings = { ...swarm.settings, isWatched: true }
  const cluster: SimCluster = new SimCluster(seed, settings, node => logs?.(cluster)(node) ?? silentLogger)
  const { world, sightings } = cluster
  const violations: string[] = []
  const trouble = new Trouble(cluster)
  const { keys, clients, thinkMs } = swarm
  let workload: Workload | null = null
  let beganMs = 0
  const finish = (): RunResult => ({
    seed,
    hash: world.hash.toString(16).padStart(8, '0'),
    events: world.eventCount,
    simulatedMs: Math.round(world.nowMs),
    swarm,
    faults: trouble.counts,
    workload: workload?.counters ?? { writes: 0, reads: 0, acknowledged: 0, unknown: 0, refused: 0 },
    elections: cluster.invariants?.elections ?? 0,
    seen: sightings.counts,
    // What was seen first comes first: that nothing went on afterwards only follows.
    violations: [
      ...(cluster.invariants?.violations ?? []),
      ...(workload?.violations ?? []),
      ...cluster.violations,
      ...violations,
    ],
    violatedAtMs:
      cluster.invariants?.firstViolationMs == null ? null : cluster.invariants.firstViolationMs - beganMs,
  })
  if (faults.some(({ kind }) => kind === 'joint-trouble')) trouble.disturbJoints(world.random.fork())
  if (faults.some(({ kind }) => kind === 'copy-trouble')) trouble.crashCopies(world.random.fork())
  const older = faults.find(({ kind }) => kind === 'older-release')
  const olderIndex = older === undefined ? null : older.pick % swarm.nodes
  const isVersion = older !== undefined && older.amount >= 0.5
  cluster.knowsNextVersion = isVersion
  const rolling = faults.find(({ kind }) => kind === 'rolling-upgrade')
  if (rolling !== undefined) trouble.newest = nextRelease
  const beforeStart = (machine: SimMachine, i: number) => {
    // The founder is of this release: the level of a cluster begins with its founder's.
    const isNew = rolling !== undefined && i > rolling.pick % swarm.nodes
    if (isNew) machine.release = nextRelease
    if (i === olderIndex) trouble.makeOlder(machine, isVersion ? null : swarm.newCommand)
  }
  if (!(await cluster.boot(swarm.nodes, beforeStart))) {
    violations.push(
      `${swarm.nodes} nodes did not form a cluster in time: ${JSON.stringify(cluster.describe())}`,
    )
    return finish()
  }
  beganMs = world.nowMs
  const isTimely = !faults.some(({ kind }) => untimely.has(kind))
  const hasNext = rolling !== undefined
  workload = new Workload(cluster, { keys, clients, thinkMs, isTimely, hasNext })
  trouble.onStart = machine => workload?.greet(machine)
  trouble.begin(faults)
  // What follows from a broken promise is noise, and may have no end.
  const isBroken = () =>
    cluster.invariants!.violations.length + cluster.violations.length + workload!.violations.length > 0
  world.isOver = isBroken
  const electionsBefore = cluster.invariants!.elections
  const eventsMax = world.eventCount + eventsOfTroubleMax
  for (const endMs = beganMs + swarm.chaosMs; world.nowMs < endMs && world.eventCount < eventsMax; ) {
    await world.run(Math.min(endMs, world.nowMs + lookMs))
    if (isBroken()) return finish()
    cluster.census()
  }
  if (faults.every(({ kind }) => kind === 'one-way')) {
    const groups = 1 + (swarm.settings.shardCount ?? 0)
    const elections = cluster.invariants!.elections - electionsBefore
    const most = groups * (2 + (electionsAMinuteMax * swarm.chaosMs) / 60_000)
    if (elections > most) violations.push(`${elections} elections under one-way cuts: ${most} are bearable`)
  }
  trouble.end()
  const isWell = () => {
    const left = cluster.machines.filter(each => each.ended === 'left').length
    if (trouble.isMending || cluster.levelEverywhere !== trouble.newest.level) return false
    return cluster.isSettled(cluster.machines.length - left)
  }
  /** Says what is wrong where the cluster is not well in time. */
  const settle = async (after: string) => {
    const eventsMax = world.eventCount + eventsOfHealingMax
    const isLong = () => world.eventCount > eventsMax
    const isEnded = await world.run(world.nowMs + healMs, () => isLong() || isWell())
    if (isBroken() || (isEnded && !isLong())) return
    const what = isLong() ? `${eventsOfHealingMax} events` : `${healMs} ms`
    violations.push(`not settled ${what} after ${after}: ${JSON.stringify(cluster.describe())}`)
  }
  // What was still to come when all was healed may come now; all is over when it stays well.
  await settle('healing')
  if (isBroken()) return finish()
  // Damage that nobody has met yet would be met in the play, and one copy more is hurt then than a group can do without.
  const isWhole = !cluster.machines.some(machine => machine.isDamaged)
  if (swarm.isForked && isWhole && violations.length === 0) {
    const random = new Prng(seed)
    const play = random.next() < 0.6 ? forkLogs : stallFollower
    const wrong = await play(cluster, trouble, random)
    if (isBroken()) return finish()
    if (wrong !== null) violations.push(wrong)
    await settle('a fork')
    if (isBroken()) return finish()
  }
  cluster.census()
  workload.stop()
  const { isQuiet } = { isQuiet: () => workload?.isQuiet === true }
  if (!(await world.run(world.nowMs + 15_000, isQuiet))) violations.push('calls did not end')
  let isChecked = false
  void workload.finish().then(
    () => {
      isChecked = true
    },
    (error: Error) => violations.push(`the final reads failed: ${error.stack}`),
  )
  if (!(await world.run(world.nowMs + 120_000, () => isChecked)))
    violations.push('the final reads did not end')
  // Followers hear of the last commit index with a heartbeat.
  await world.run(world.nowMs + 1_000)
  cluster.compareReplicas()
  return finish()
}
