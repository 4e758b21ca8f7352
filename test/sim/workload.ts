import { RemoteError, RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import type { SimCluster } from './sim-cluster.ts'

/**
 * Clients of a simulated cluster and what they may rightly expect. Each key has one writer at a time, so that without a
 * search over histories it is known what a linearizable read may answer: at least what was acknowledged before it began,
 * at most what was begun before it ended.
 */
interface Register {
  readonly key: string
  /** Values are numbers that rise with each write. */
  begun: number
  acknowledged: number
  isBusy: boolean
}

interface Counter {
  readonly key: string
  /** Increments: begun at all, acknowledged, and of unknown outcome. */
  acknowledged: number
  unknown: number
}

export interface WorkloadCounters {
  writes: number
  reads: number
  acknowledged: number
  unknown: number
  refused: number
}

/** A client gives up after this long, ms. */
const patienceMs = 5_000

export class Workload {
  readonly counters: WorkloadCounters = { writes: 0, reads: 0, acknowledged: 0, unknown: 0, refused: 0 }
  /** What no correct cluster answers. */
  readonly violations: string[] = []
  private readonly cluster: SimCluster
  private readonly random: Prng
  private readonly registers: Register[]
  private readonly increments: Counter[]
  private isRunning = true
  private active = 0

  constructor(cluster: SimCluster, keys: number, clients: number) {
    this.cluster = cluster
    this.random = cluster.world.random.fork()
    this.registers = Array.from({ length: keys }, (_, i) => ({
      key: `r${i}`,
      begun: 0,
      acknowledged: 0,
      isBusy: false,
    }))
    this.increments = Array.from({ length: keys }, (_, i) => ({ key: `c${i}`, acknowledged: 0, unknown: 0 }))
    for (let i = 0; i < clients; i++) this.soon(() => this.client(i))
  }

  /** Lets the calls under way end and begins no more. */
  stop(): void {
    this.isRunning = false
  }

  get isQuiet(): boolean {
    return this.active === 0
  }

  private soon(run: () => void): void {
    this.cluster.world.at(1 + 20 * this.random.next(), run)
  }

  private client(id: number): void {
    if (!this.isRunning) return
    this.active++
    void this.act().finally(() => {
      this.active--
      this.soon(() => this.client(id))
    })
  }

  private act(): Promise<void> {
    const draw = this.random.next()
    const register = this.registers[this.random.below(this.registers.length)]!
    if (draw < 0.35 && !register.isBusy) return this.write(register)
    if (draw < 0.7) return this.read(register)
    return this.increment(this.increments[this.random.below(this.increments.length)]!)
  }

  private async write(register: Register): Promise<void> {
    register.isBusy = true
    const value = ++register.begun
    this.counters.writes++
    const outcome = await this.call('SET', [register.key, String(value)], this.session())
    if (outcome.kind === 'done') register.acknowledged = value
    register.isBusy = false
  }

  private async read(register: Register): Promise<void> {
    this.counters.reads++
    const least = register.acknowledged
    const outcome = await this.call('GET', [register.key], null)
    if (outcome.kind !== 'done') return
    const { reply } = outcome.result
    const seen = reply.kind === 'nil' ? 0 : reply.kind === 'value' ? Number(toUtf8(reply.value)) : Number.NaN
    if (seen >= least && seen <= register.begun) return
    this.violations.push(
      `${register.key}: read ${seen}, ${least} was acknowledged before and ${register.begun} begun`,
    )
  }

  private async increment(counter: Counter): Promise<void> {
    this.counters.writes++
    const outcome = await this.call('INCR', [counter.key], this.session())
    if (outcome.kind === 'done') counter.acknowledged++
    else if (outcome.kind === 'unknown') counter.unknown++
  }

  /** A new session for each write: 6 bytes of time, 10 of chance. */
  private session(): Call['session'] {
    const id = this.random.bytes(16)
    let ms = Math.floor(this.cluster.world.wallMs)
    for (let i = 5; i >= 0; i--) {
      id[i] = ms % 256
      ms = Math.floor(ms / 256)
    }
    return { id, sequence: 1, ackedBelow: 0 }
  }

  /** Through a random node, through another one when that fails, with the same session until patience ends. */
  private async call(
    command: string,
    args: readonly string[],
    session: Call['session'],
  ): Promise<{ kind: 'done'; result: CallResult } | { kind: 'unknown' } | { kind: 'refused' }> {
    const { world } = this.cluster
    const untilMs = world.nowMs + patienceMs
    let mayBeApplied = false
    while (world.nowMs < untilMs) {
      const machine = this.cluster.machines[this.random.below(this.cluster.machines.length)]!
      const { node } = machine
      if (node !== null && !machine.clock.isPaused) {
        const timeoutMs = Math.max(1, untilMs - world.nowMs)
        const call: Call = {
          command,
          args: args.map(fromUtf8),
          session,
          read: 'linearizable',
          forward: true,
          hops: 0,
          shard: null,
          timeoutMs,
        }
        try {
          const result = await this.within(node.execute(call), timeoutMs)
          this.counters.acknowledged++
          return { kind: 'done', result }
        } catch (error) {
          if (!(error instanceof RoundhouseError) && !(error instanceof RemoteError)) throw error
          if (error.kind === 'outcome_unknown') mayBeApplied = true
          else if (error.kind !== 'unavailable' && error.kind !== 'exhausted') {
            this.violations.push(`${command} ${args.join(' ')}: ${error.message}`)
            break
          }
        }
      }
      await new Promise<void>(resolve => world.at(20, resolve))
    }
    if (mayBeApplied) this.counters.unknown++
    else this.counters.refused++
    return { kind: mayBeApplied ? 'unknown' : 'refused' }
  }

  /** A process that dies never settles its promises: the client's own patience ends the wait. */
  private within<T>(promise: Promise<T>, ms: number): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(resolve, reject)
      const error = new RoundhouseError('OUTCOME_UNKNOWN', { why: 'no answer' })
      this.cluster.world.at(Math.min(ms, 2_000), () => reject(error))
    })
  }

  /** After all has healed: every register and counter, read through every node. */
  async check(): Promise<void> {
    for (const machine of this.cluster.machines) {
      if (machine.node === null) continue
      for (const register of this.registers) {
        const seen = Number(await this.final(machine.node, register.key))
        if (seen < register.acknowledged || seen > register.begun)
          this.violations.push(
            `${register.key} through ${machine.nodeId}: ${seen} at the end, ${register.acknowledged} acknowledged, ${register.begun} begun`,
          )
      }
      for (const { key, acknowledged, unknown } of this.increments) {
        const seen = Number(await this.final(machine.node, key))
        if (seen < acknowledged || seen > acknowledged + unknown)
          this.violations.push(
            `${key} through ${machine.nodeId}: ${seen} at the end, ${acknowledged} acknowledged, ${unknown} unknown`,
          )
      }
    }
  }

  private async final(node: { execute(call: Call): Promise<CallResult> }, key: string): Promise<string> {
    const args = [fromUtf8(key)]
    const call = {
      command: 'GET',
      args,
      session: null,
      read: 'linearizable',
      forward: true,
      hops: 0,
      shard: null,
    } as const
    try {
      const { reply } = await node.execute({ ...call, timeoutMs: patienceMs })
      return reply.kind === 'value' ? toUtf8(reply.value) : '0'
    } catch (error) {
      return `NaN (${(error as Error).message})`
    }
  }
}
