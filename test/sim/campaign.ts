import type { Logger } from '../../src/lib/logger.ts'
import { SimCluster, type SimMachine } from './sim-cluster.ts'
import { Workload, type WorkloadCounters } from './workload.ts'

/** What one seed showed. */
export interface RunResult {
  readonly seed: number
  readonly hash: string
  readonly events: number
  readonly simulatedMs: number
  readonly faults: Readonly<Record<string, number>>
  readonly workload: WorkloadCounters
  /** Empty when all that was promised held. */
  readonly violations: readonly string[]
}

export interface RunOptions {
  readonly seed: number
  /** Of faults and load; then everything heals. */
  readonly chaosMs?: number
  readonly logs?: (cluster: SimCluster) => (node: string) => Logger
}

/** After healing, everything has to be in order within this time. */
const healMs = 60_000

/**
 * One seed: a cluster of three, clients, and faults whose kinds and rates the seed draws (swarm testing, Groce et al.
 * 2012: a run without a kind of fault reaches states that one with all kinds never does). Then all heals, and everything
 * acknowledged must be there.
 */
export async function runSeed({ seed, chaosMs = 15_000, logs }: RunOptions): Promise<RunResult> {
  const segment = [32, 64, 256][seed % 3]! * 1024
  const settings = {
    shardCount: [1, 2, 4][seed % 3]!,
    journalSegmentBytes: segment,
    journalBudgetBytes: segment * 6,
    isWatched: true,
  }
  const cluster: SimCluster = new SimCluster(seed, settings, node => logs?.(cluster)(node) ?? silent)
  const { world, network } = cluster
  const random = world.random.fork()
  const violations: string[] = []
  const faults: Record<string, number> = {}
  const note = (kind: string) => {
    faults[kind] = (faults[kind] ?? 0) + 1
    world.note(kind)
  }
  const finish = (workload: Workload | null): RunResult => ({
    seed,
    hash: world.hash.toString(16).padStart(8, '0'),
    events: world.eventCount,
    simulatedMs: Math.round(world.nowMs),
    faults,
    workload: workload?.counters ?? { writes: 0, reads: 0, acknowledged: 0, unknown: 0, refused: 0 },
    violations: [
      ...violations,
      ...(workload?.violations ?? []),
      ...cluster.violations,
      ...(cluster.invariants?.violations ?? []),
    ],
  })
  if (!(await cluster.boot(3))) {
    violations.push('three nodes did not form a cluster in time')
    return finish(null)
  }
  const workload = new Workload(cluster, 8, 6)
  const swarm = {
    crash: draw(0.4),
    pause: draw(0.2),
    isolate: draw(0.3),
    oneWay: draw(0.2),
    join: random.next() < 0.4,
    leave: random.next() < 0.3,
    loss: random.next() < 0.5 ? random.next() * 0.1 : 0,
    duplication: random.next() < 0.5 ? random.next() * 0.1 : 0,
    delayMeanMs: random.next() < 0.3 ? 10 : 0.4,
  }
  function draw(rate: number): number {
    return random.next() < 0.5 ? 0 : random.next() * rate
  }
  Object.assign(network.faults, {
    loss: swarm.loss,
    duplication: swarm.duplication,
    delayMeanMs: swarm.delayMeanMs,
  })

  const endMs = world.nowMs + chaosMs
  let leaver: SimMachine | null = null
  while (world.nowMs < endMs) {
    await world.run(world.nowMs + 250)
    const machine = cluster.machines[random.below(cluster.machines.length)]!
    if (machine !== leaver && random.next() < swarm.crash) {
      note('crash')
      machine.crash()
      world.at(random.next() * 4_000, () => restart(machine))
    }
    if (machine.node !== null && random.next() < swarm.pause) {
      note('pause')
      const { clock } = machine
      clock.isPaused = true
      world.at(random.next() * 6_000, () => clock.resume())
    }
    if (random.next() < swarm.isolate) {
      note('isolate')
      network.isolate(machine.address)
      world.at(random.next() * 4_000, () => network.heal())
    }
    if (random.next() < swarm.oneWay) {
      note('one-way')
      network.cut(machine.address, cluster.machines[random.below(cluster.machines.length)]!.address)
      world.at(random.next() * 4_000, () => network.heal())
    }
    if (swarm.join && cluster.machines.length < 5 && random.next() < 0.05) {
      note('join')
      const joiner = cluster.add()
      restart(joiner)
    }
    if (swarm.leave && leaver === null && cluster.machines.length > 3 && random.next() < 0.05) {
      const via = cluster.machines.find(each => each.node?.isServing())
      const going = cluster.machines[random.below(3)]!
      if (via?.node && going.node !== null) {
        note('leave')
        leaver = going
        via.node.leave(going.nodeId, false).catch(() => {
          leaver = null
        })
      }
    }
  }
  Object.assign(network.faults, { loss: 0, duplication: 0, delayMeanMs: 0.4 })
  network.heal()
  for (const machine of cluster.machines) {
    machine.clock.resume()
    restart(machine)
  }
  const isWell = () => {
    const left = cluster.machines.filter(each => each.ended === 'left').length
    return cluster.isSettled(cluster.machines.length - left)
  }
  // A pause or a restart that was still to come may come now; all is over when it stays well.
  if (!(await world.run(world.nowMs + healMs, isWell))) {
    violations.push(`not settled ${healMs} ms after healing: ${JSON.stringify(cluster.describe())}`)
  }
  workload.stop()
  await world.run(world.nowMs + 15_000, () => workload.isQuiet)
  let isChecked = false
  void workload.check().then(() => {
    isChecked = true
  })
  if (!(await world.run(world.nowMs + 120_000, () => isChecked)))
    violations.push('the final reads did not end')
  cluster.compareReplicas()
  return finish(workload)

  function restart(machine: SimMachine): void {
    if (machine.node !== null || machine.ended === 'left') return
    const seeds = cluster.machines.map(each => each.address)
    machine.start({ seeds }).catch((error: Error) => {
      if (error.name === 'BrokenInvariant' || error instanceof TypeError)
        violations.push(`${machine.nodeId}: ${error.stack}`)
    })
  }
}

const silent: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silent,
}
