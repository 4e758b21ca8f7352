/**
 * What is done to the nodes, by a seeded plan. An episode is one to three faults that overlap; each heals by itself at its
 * end; then every shard must acknowledge a write within a bound before the next episode begins. So a majority may well be
 * gone for a while (clients see it, the recorded history stays true), but never for good.
 *
 * The plan (kinds, lengths, draws) is the seed's alone; who is struck follows from the draws and from who is a member
 * then, and what it meets is a matter of time: a seed repeats a run's shape, not its every step.
 *
 * One rule keeps the run fair: what is promised holds while a majority of a shard's disks is unhurt. So bits of a
 * journal are flipped only in a node that was stopped cleanly (rot within 50 ms before a crash can't be told from a torn
 * write, as the README says), and a next disk is hurt only when all replicas of the last one are whole again.
 */
import { Prng, type Random } from '../../src/lib/prng.ts'
import { flipBits } from './flip-bits.ts'
import type { Member, Members } from './members.ts'

export const faultKinds = [
  'kill',
  'kill-all',
  'freeze',
  'isolate',
  'split',
  'one-way',
  'reset',
  'slow-net',
  'throttle',
  'duplicate',
  'slow-sync',
  'stalled-sync',
  'failed-sync',
  'full-disk',
  'flipped-bits',
  'lost-disk',
  'join',
  'leave',
] as const
export type FaultKind = (typeof faultKinds)[number]

const weights: Readonly<Record<FaultKind, number>> = {
  ...{
    kill: 3,
    'kill-all': 1,
    freeze: 2,
    isolate: 2,
    split: 2,
    'one-way': 2,
    reset: 1,
    'slow-net': 1,
    throttle: 1,
  },
  ...{ duplicate: 2, 'slow-sync': 1, 'stalled-sync': 1, 'failed-sync': 1, 'full-disk': 2, 'flipped-bits': 2 },
  ...{ 'lost-disk': 1, join: 2, leave: 2 },
}

export interface Fault {
  readonly kind: FaultKind
  /** After the episode's beginning, ms. */
  readonly startMs: number
  readonly lengthMs: number
  /** 0 … 1: who, how, how much. */
  readonly draws: readonly number[]
}

export interface Episode {
  readonly faults: readonly Fault[]
  /** Quiet behind it, ms. */
  readonly restMs: number
}

const startMsMax = 2_000
const lengthMs = { min: 1_000, max: 7_000 } as const
const restMs = { min: 500, max: 2_500 } as const
const drawsPerFault = 4

/** Kinds come from a shuffled deck: each shows up about as often as it weighs, in short runs as well. */
export class Plan {
  private readonly random: Random
  private readonly kinds: readonly FaultKind[]
  private deck: FaultKind[] = []

  constructor(random: Random, kinds: readonly FaultKind[] = faultKinds) {
    this.random = random
    this.kinds = kinds
  }

  next(): Episode {
    const { random } = this
    const draw = random.next()
    const count = draw < 0.4 ? 1 : draw < 0.8 ? 2 : 3
    const faults = Array.from({ length: count }, () => ({
      kind: this.kind(),
      startMs: random.below(startMsMax),
      lengthMs: lengthMs.min + random.below(lengthMs.max - lengthMs.min),
      draws: Array.from({ length: drawsPerFault }, () => random.next()),
    }))
    return { faults, restMs: restMs.min + random.below(restMs.max - restMs.min) }
  }

  private kind(): FaultKind {
    if (this.deck.length === 0) {
      this.deck = this.kinds.flatMap(kind => Array.from({ length: weights[kind] }, () => kind))
      for (let last = this.deck.length - 1; last > 0; last--) {
        const other = this.random.below(last + 1)
        ;[this.deck[last], this.deck[other]] = [this.deck[other]!, this.deck[last]!]
      }
    }
    return this.deck.pop()!
  }
}

export interface NemesisOptions {
  readonly members: Members
  readonly plan: Plan
  /** Members that the run began with: joins and leaves keep the number near it. */
  readonly nodes: number
  readonly replicationFactor: number
  readonly tell: (what: string, facts?: object) => void
  /** By shard, when it last acknowledged a write, and the same clock now. */
  readonly acknowledgedMs: () => Readonly<Float64Array>
  readonly now: () => number
  /** Writes to a shard, once. */
  readonly probe: (shard: number) => Promise<void>
}

/** From the end of an episode until every shard has acknowledged a write. A node may have to be started, elected, caught up. */
const recoverMsMax = 90_000
/** A leave, or a disk made anew, under faults: only the end of the run waits for them. */
const joinedMsMax = 120_000
const checkMs = 50

export class Nemesis {
  readonly counts = new Map<FaultKind, number>()
  readonly mistakes: string[] = []
  /** From the end of each episode until all shards wrote again, ms. */
  readonly recoveriesMs: number[] = []
  private readonly options: NemesisOptions
  private readonly background = new Set<Promise<void>>()
  private busy = new Set<Member>()
  private isStopping = false
  private wakeUp: () => void = () => {}

  constructor(options: NemesisOptions) {
    this.options = options
  }

  /** Episodes until `untilMs` (by `now`); all is healed when it resolves. */
  async run(untilMs: number): Promise<void> {
    while (this.options.now() < untilMs && !this.isStopping && this.mistakes.length === 0) {
      const { faults, restMs: rest } = this.options.plan.next()
      await Promise.all(faults.map(fault => this.fault(fault, untilMs)))
      await this.heal()
      await this.recovered()
      await this.sleep(rest)
    }
    await this.heal()
  }

  /** The run is over: what is under way is healed and ends. */
  stop(): void {
    this.isStopping = true
    this.wakeUp()
  }

  /** Waits for disks that are made anew and nodes that leave, but not for ever. */
  async finished(withinMs: number): Promise<void> {
    const untilMs = this.options.now() + withinMs
    while (this.background.size > 0 && this.options.now() < untilMs)
      await new Promise(resolve => setTimeout(resolve, checkMs))
    if (this.background.size > 0)
      this.mistakes.push(
        `after ${withinMs / 1000} s disks are not made anew: ${await this.options.members.trouble()}`,
      )
    this.stop()
  }

  private get tell(): NemesisOptions['tell'] {
    return this.options.tell
  }

  private async fault(fault: Fault, untilMs: number): Promise<void> {
    await this.sleep(fault.startMs)
    if (this.isStopping || this.options.now() >= untilMs) return
    const work = this.begin(fault)
    if (work === null) return
    this.counts.set(fault.kind, (this.counts.get(fault.kind) ?? 0) + 1)
    const heal = await work()
    const left = untilMs - this.options.now()
    await this.sleep(Math.max(0, Math.min(fault.lengthMs, left)))
    await heal()
  }

  /** null: it can't be done now. The answer does it and gives back how it is healed. */
  private begin({
    kind,
    draws,
    lengthMs: length,
  }: Fault): (() => Promise<() => Promise<void> | void>) | null {
    const { members } = this.options
    const { network } = members
    const [who, how, much] = draws as [number, number, number]
    const free = members.members.filter(each => each.wish === 'up' && !this.busy.has(each))
    const victim = free[Math.floor(who * free.length)]
    if (victim === undefined) return null
    const others = members.members.filter(each => each !== victim)
    const pairs = (from: readonly Member[], to: readonly Member[]) =>
      from.flatMap(one => to.map((other): readonly [string, string] => [one.id, other.id]))
    const note = (facts: object = {}) => this.tell(kind, { node: victim.id, ms: length, ...facts })
    /** Paths are changed, and healed at the end. */
    const onPaths = (
      its: readonly (readonly [string, string])[],
      change: Parameters<typeof network.change>[1],
    ) => {
      network.change(its, change)
      return () => {
        network.heal(its)
        // Either what was kept arrives late, or the connections are gone for good.
        if (change.isSilent && (draws[3] ?? 0) < 0.5) for (const [from, to] of its) network.reset(from, to)
      }
    }
    const silentOrRefusing = how < 0.7 ? { isSilent: true } : { isRefusing: true }

    switch (kind) {
      case 'kill':
        return async () => {
          note()
          this.busy.add(victim)
          await members.down(victim, 'kill')
          return () => {
            members.up(victim)
            this.busy.delete(victim)
          }
        }
      case 'kill-all':
        return async () => {
          const all = free
          this.tell(kind, { nodes: all.map(each => each.id).join(' ') })
          for (const each of all) this.busy.add(each)
          await Promise.all(all.map(each => members.down(each, 'kill')))
          return () => {
            for (const each of all) {
              members.up(each)
              this.busy.delete(each)
            }
          }
        }
      case 'freeze':
        return async () => {
          note()
          this.busy.add(victim)
          members.freeze(victim)
          return () => {
            members.thaw(victim)
            this.busy.delete(victim)
          }
        }
      case 'isolate':
        return async () => {
          note(silentOrRefusing)
          return onPaths([...pairs([victim], others), ...pairs(others, [victim])], silentOrRefusing)
        }
      case 'split':
        return async () => {
          const shuffled = [...members.members].sort(
            (a, b) => ((a.number * 7919 * how) % 1) - ((b.number * 7919 * how) % 1),
          )
          const half = shuffled.slice(0, Math.floor(shuffled.length / 2))
          const rest = shuffled.slice(half.length)
          this.tell(kind, { from: half.map(each => each.id).join(' '), ms: length, ...silentOrRefusing })
          return onPaths([...pairs(half, rest), ...pairs(rest, half)], silentOrRefusing)
        }
      case 'one-way':
        return async () => {
          const isDeaf = how < 0.5
          note({ isDeaf })
          return onPaths(isDeaf ? pairs(others, [victim]) : pairs([victim], others), { isSilent: true })
        }
      case 'reset':
        return async () => {
          let count = 0
          for (const each of others) count += network.reset(victim.id, each.id)
          note({ connections: count })
          return () => {}
        }
      case 'slow-net':
        return async () => {
          const delayMs = Math.round(10 + how * 150)
          const jitterMs = Math.round(much * 2 * delayMs)
          note({ delayMs, jitterMs })
          return onPaths([...pairs([victim], others), ...pairs(others, [victim])], { delayMs, jitterMs })
        }
      case 'throttle':
        return async () => {
          const bytesPerSecond = Math.round(8_192 * 2 ** (how * 6))
          note({ bytesPerSecond })
          return onPaths([...pairs([victim], others), ...pairs(others, [victim])], { bytesPerSecond })
        }
      case 'duplicate':
        return async () => {
          let count = 0
          for (const each of others)
            count += network.replay(victim.id, each.id) + network.replay(each.id, victim.id)
          note({ connections: count })
          return () => {}
        }
      case 'slow-sync':
        return async () => this.onDisk(victim, 'slowMs', Math.round(5 + how * 200), note)
      case 'stalled-sync':
        return async () => this.onDisk(victim, 'stall', 1, note)
      case 'full-disk':
        return async () => this.onDisk(victim, 'full', 1, note)
      case 'failed-sync':
        return async () => this.onDisk(victim, 'failSync', 1, note)
      case 'flipped-bits':
        if (members.members.some(each => each.hurt !== null)) return null
        return async () => {
          const folder = how < 0.4 ? 'journal' : how < 0.65 ? 'state' : 'streams'
          return await this.flip(victim, folder, new Prng(much * 2 ** 32))
        }
      case 'lost-disk':
        if (members.members.some(each => each.hurt !== null || each.isLeaving) || free.length < 3) return null
        return async () => await this.loseDisk(victim)
      case 'join':
        if (members.members.length > this.options.nodes) return null
        return async () => {
          const member = await members.add()
          this.tell(kind, { node: member.id })
          return () => {}
        }
      case 'leave':
        if (members.members.some(each => each.isLeaving || each.hurt !== null)) return null
        if (members.members.length <= this.options.replicationFactor) return null
        return async () => {
          this.tell(kind, { node: victim.id })
          this.inBackground(members.leave(victim, Date.now() + joinedMsMax))
          return () => {}
        }
    }
  }

  private onDisk(
    victim: Member,
    wheel: 'slowMs' | 'stall' | 'full' | 'failSync',
    value: number,
    note: (facts?: object) => void,
  ): () => void {
    note(wheel === 'slowMs' ? { syncMs: value } : {})
    const { members } = this.options
    members.turn(victim, wheel, value)
    return () => members.turn(victim, wheel, 0)
  }

  /**
   * Stopped, some bits of its files turned over, started again; the replicas that suffered are made anew. Rows and records
   * are all read again behind a kill -9, so that is how it ends there.
   */
  private async flip(
    victim: Member,
    folder: 'journal' | 'state' | 'streams',
    random: Random,
  ): Promise<() => void> {
    const { members } = this.options
    this.busy.add(victim)
    victim.hurt = folder
    const exit = await members.down(victim, folder === 'journal' ? 'stop' : 'kill')
    if (folder !== 'journal' || exit.code === 0) {
      const flips = flipBits(victim.process.dataDir, folder, random)
      if (flips.length === 0) victim.hurt = null
      this.tell('flipped-bits', { node: victim.id, flips })
    } else {
      victim.hurt = null
      this.tell('flipped-bits: left out, for the stop was not clean', { node: victim.id, ...exit })
    }
    return () => {
      members.up(victim)
      this.busy.delete(victim)
      if (victim.hurt !== null) this.inBackground(this.wholeAgain())
    }
  }

  /** Everything it had is gone: it is given up, comes back empty under its name, and gets all from the others. */
  private async loseDisk(victim: Member): Promise<() => void> {
    const { members } = this.options
    this.busy.add(victim)
    victim.hurt = 'all'
    this.tell('lost-disk', { node: victim.id })
    await members.down(victim, 'kill')
    members.removeData(victim)
    return () => {
      this.inBackground(
        (async () => {
          const untilMs = Date.now() + joinedMsMax
          let told = ''
          for (;;) {
            try {
              await members.client.replace(members.pick(), victim.id, victim.id)
              break
            } catch (error) {
              // It must be known as dead first, and somebody must lead.
              const why = (error as Error).message
              if (why !== told) this.tell('replace is refused', { node: victim.id, why })
              told = why
              if (Date.now() > untilMs) {
                this.mistakes.push(`${victim.id} can't be replaced: ${(error as Error).message}`)
                return
              }
              await new Promise(resolve => setTimeout(resolve, 500))
            }
          }
          this.tell('replaced', { node: victim.id })
          members.up(victim)
          this.busy.delete(victim)
          await this.wholeAgain()
        })(),
      )
    }
  }

  /** Looks from time to time; with faults going on it may not come about before the run's end. */
  private async wholeAgain(): Promise<void> {
    const { members } = this.options
    let told = ''
    while (!this.isStopping && members.members.some(each => each.hurt !== null)) {
      await members.whole(2_000).catch((error: Error) => {
        if (error.message !== told) this.tell('not whole yet', { why: error.message })
        told = error.message
      })
      await this.sleep(500)
    }
  }

  private inBackground(work: Promise<void>): void {
    const tracked = work
      .catch((error: Error) => {
        this.mistakes.push(error.message)
      })
      .finally(() => this.background.delete(tracked))
    this.background.add(tracked)
  }

  /** What an episode may have left behind. */
  private async heal(): Promise<void> {
    const { members } = this.options
    const ids = members.all.map(each => each.id)
    members.network.heal(ids.flatMap(from => ids.map((to): readonly [string, string] => [from, to])))
    for (const member of members.members) {
      for (const wheel of ['stall', 'full', 'slowMs', 'failSync'] as const) members.turn(member, wheel, 0)
      members.thaw(member)
    }
  }

  private async recovered(): Promise<void> {
    const { acknowledgedMs, now } = this.options
    const fromMs = now()
    for (;;) {
      const waiting = [...acknowledgedMs()].flatMap((ms, shard) => (ms > fromMs ? [] : [shard]))
      if (waiting.length === 0 || this.isStopping) break
      if (now() - fromMs > recoverMsMax) {
        this.mistakes.push(
          `all faults were healed, and after ${recoverMsMax / 1000} s the shards ${waiting.join(' ')} took no write`,
        )
        return
      }
      await Promise.all(waiting.map(shard => this.options.probe(shard)))
      await new Promise(resolve => setTimeout(resolve, checkMs))
    }
    this.recoveriesMs.push(now() - fromMs)
  }

  private sleep(ms: number): Promise<void> {
    if (this.isStopping || ms <= 0) return Promise.resolve()
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      const before = this.wakeUp
      this.wakeUp = () => {
        before()
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
