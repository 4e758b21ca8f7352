/**
 * What clients do to a simulated cluster, and what they may rightly expect. Registers, counters and texts go into a
 * history that is searched for an order afterwards (src/history); the other families have rules of their own, that need
 * no search: nothing that was acknowledged is missing, nothing is there twice or was never written, nothing that was gone
 * comes back.
 */
import { commands } from '../../src/commands/table.ts'
import { check } from '../../src/history/check.ts'
import { kvModel } from '../../src/history/kv-model.ts'
import type { Value } from '../../src/history/operation.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { type CallCounters, Client, History, itemsOf, type Outcome } from './client.ts'
import { ConsumerGroups } from './groups.ts'
import { nextCommand, nextRelease } from './releases.ts'
import type { SimCluster, SimMachine } from './sim-cluster.ts'
import { Streams } from './streams.ts'
import { Watchers } from './watchers.ts'

export interface LoadOptions {
  /** Of each family. */
  readonly keys: number
  readonly clients: number
  /** Mean pause of a client between two calls, ms. */
  readonly thinkMs: number
  /** All clocks are right, and nothing keeps the nodes from hearing what the others' show: an expiry is exact then. */
  readonly isTimely: boolean
  /** The next release comes, with a command of its own. */
  readonly hasNext: boolean
}

/** Stamps are whole milliseconds. */
const roundingMs = 2

/** Of values of no meaning, chars. */
const longestWord = 4_096

/** Steps of the checker's search of all keys together; after that it says nothing. */
const searchStepsMax = 20_000

/** A key that expires, as its owner knows it. */
interface Lease {
  readonly value: string
  readonly begunMs: number
  /** It may be gone from then on … */
  readonly untilMs: number
  /** … and must be from then on, by clocks that are right. */
  readonly lastMs: number
  readonly state: 'setting' | 'set' | 'unsure' | 'gone'
}

type Act = (client: Client) => Promise<unknown>

export class Workload {
  readonly counters: CallCounters = { writes: 0, reads: 0, acknowledged: 0, unknown: 0, refused: 0 }
  /** What no correct cluster answers. */
  readonly violations: string[] = []
  readonly history = new History()
  private readonly cluster: SimCluster
  private readonly random: Prng
  private readonly options: LoadOptions
  private readonly families: (readonly [weight: number, act: Act])[]
  private readonly weights: number
  private readonly streams: Streams
  private readonly groups: ConsumerGroups
  private readonly watchers: Watchers
  private isRunning = true
  private active = 0
  private tokens = 0

  constructor(cluster: SimCluster, options: LoadOptions) {
    this.cluster = cluster
    this.options = options
    this.random = cluster.world.random.fork()
    this.streams = new Streams(cluster, options.keys, text => this.violated(text))
    this.groups = new ConsumerGroups(cluster, options.isTimely, text => this.violated(text))
    this.watchers = new Watchers(cluster, text => this.violated(text))
    const all: readonly Act[] = [
      client => this.register(client),
      client => this.counter(client),
      client => this.text(client),
      client => this.member(client),
      client => this.queue(client),
      client => this.field(client),
      client => this.score(client),
      client => this.expiring(client),
      client => this.pair(client),
      client => this.moving(client),
      client => this.anything(client),
      client => this.streams.act(client),
      client => this.groups.act(client),
    ]
    // Each run has its own mix, some families not at all; registers and counters always.
    this.families = all.map(
      (act, i) => [i < 2 || this.random.next() < 0.6 ? 0.2 + this.random.next() : 0, act] as const,
    )
    if (options.hasNext) this.families.push([0.5, client => this.young(client)])
    this.weights = this.families.reduce((sum, [weight]) => sum + weight, 0)
    for (let i = 0; i < options.clients; i++) {
      const ackLag = [0, 0, 3, 8][this.random.below(4)]!
      const client = new Client(cluster, `c${i}`, {
        ackLag,
        counters: this.counters,
        violations: this.violations,
      })
      this.next(client)
    }
  }

  /** Lets the calls under way end and begins no more. */
  stop(): void {
    this.isRunning = false
  }

  get isQuiet(): boolean {
    return this.active === 0
  }

  private next(client: Client): void {
    const { world } = this.cluster
    world.at(0.5 - this.options.thinkMs * Math.log(1 - client.random.next()), () => {
      if (!this.isRunning) return
      this.active++
      this.act(client)
        .catch((error: Error) => this.violations.push(`the workload failed: ${error.stack}`))
        .finally(() => {
          this.active--
          this.next(client)
        })
    })
  }

  private act(client: Client): Promise<unknown> {
    let draw = client.random.next() * this.weights
    for (const [weight, act] of this.families) {
      draw -= weight
      if (draw < 0) return act(client)
    }
    return this.register(client)
  }

  private violated(text: string): void {
    this.violations.push(`${Math.round(this.cluster.world.nowMs)} ms: ${text}`)
  }

  /** Each is written once, so that a read says which write it saw. */
  private token(client: Client): string {
    return `${client.name}-${++this.tokens}`
  }

  private key(client: Client, name: string): string {
    return `${name}${client.random.below(this.options.keys)}`
  }

  // --- A history of single keys: registers with compare-and-set chains, counters, texts ------------------------------

  /** Values begun by key: the only ones that a read, stale or not, may answer. */
  private readonly begun = new Map<string, Set<string>>()
  /** What clients saw last: what they compare with. */
  private readonly seen = new Map<string, string | null>()

  private async register(client: Client): Promise<void> {
    const key = this.key(client, 'r')
    const draw = client.random.next()
    if (draw < 0.08) return this.staleRead(client, key)
    if (draw < 0.35) {
      const value = await this.noted(client, 'get', key, 'GET', [], outcome => outcome.text)
      if (value !== undefined) this.seen.set(key, value)
      return
    }
    if (draw < 0.42) {
      await this.noted(client, 'del', key, 'DEL', [], outcome => outcome.text)
      return
    }
    const value = this.token(client)
    const values = this.begun.get(key) ?? new Set()
    this.begun.set(key, values.add(value))
    const expected = this.seen.get(key) ?? null
    if (draw < 0.7 || expected === null) {
      const done = await this.noted(client, 'set', key, 'SET', [value], () => undefined)
      if (done !== undefined) this.seen.set(key, value)
      return
    }
    const { sightings } = this.cluster
    const answer = await this.noted(
      client,
      'cas',
      key,
      'SET',
      [value, 'IFEQ', expected],
      outcome => outcome.text,
      [expected, value],
    )
    if (answer === 'true') {
      this.seen.set(key, value)
      sightings.see('compareMet')
    } else if (answer === 'false') sightings.see('compareFailed')
  }

  /** `null` for a done call that answers nothing, undefined where it was not done. */
  private async noted(
    client: Client,
    f: string,
    key: string,
    command: string,
    args: readonly string[],
    resultOf: (outcome: Outcome & { kind: 'done' }) => Value | undefined,
    said: readonly string[] = args,
  ): Promise<Value | undefined> {
    const call = { process: client.process, f, key, args: said, calledAt: this.history.begin() }
    const outcome = await this.run(client, command, [key, ...args], f === 'get')
    const result = outcome.kind === 'done' ? resultOf(outcome) : undefined
    this.history.end(call, outcome, result)
    return outcome.kind === 'done' ? (result ?? null) : undefined
  }

  private async staleRead(client: Client, key: string): Promise<void> {
    const outcome = await client.read('GET', [key], 'stale')
    if (outcome.kind !== 'done') return
    this.cluster.sightings.see('staleServed')
    if (outcome.text !== null && this.begun.get(key)?.has(outcome.text) !== true)
      this.violated(`a stale read of ${key} answered ${outcome.text}, which nobody wrote`)
  }

  /** A process has just begun: whoever asks it now must not be told less than it told before. */
  greet(machine: SimMachine): void {
    const { world, settings } = this.cluster
    const { node } = machine
    for (const delayMs of [1, 5, 20, 60, 150, 300])
      world.at(delayMs, () => {
        if (!this.isRunning || node === null || machine.node !== node || machine.clock.isPaused) return
        for (let shard = 0; shard < settings.shardCount; shard++) {
          const call = { command: 'GET', args: [fromUtf8('x')], session: null, read: 'stale' as const }
          // What it answers is looked at where it answers (invariants.ts).
          node.execute({ ...call, forward: false, hops: 1, shard, timeoutMs: 1 }).catch(() => {})
        }
      })
  }

  private async counter(client: Client): Promise<void> {
    const key = this.key(client, 'c')
    const draw = client.random.next()
    const answered = (outcome: Outcome & { kind: 'done' }) => outcome.text
    if (draw < 0.3) await this.noted(client, 'get', key, 'GET', [], answered)
    else if (draw < 0.7) await this.noted(client, 'incr', key, 'INCR', [], answered)
    else if (draw < 0.85) await this.noted(client, 'decr', key, 'DECR', [], answered)
    else await this.noted(client, 'incr', key, 'INCRBY', [String(client.random.below(1_000))], answered)
  }

  /** A counter that only the next release has: nobody may be told that it counted before all members know how. */
  private async young(client: Client, isAsked = false): Promise<boolean> {
    const { sightings } = this.cluster
    const key = 'n'
    if (!isAsked && client.random.next() < 0.3) {
      await this.noted(client, 'get', key, 'GET', [], outcome => outcome.text)
      return true
    }
    const done = await this.noted(client, 'incr', key, nextCommand, [], outcome => outcome.text)
    if (done === undefined) return false
    sightings.see('nextApplied')
    if (this.cluster.level < nextRelease.level)
      this.violated(`${nextCommand} was applied at feature level ${this.cluster.level}`)
    return true
  }

  private async text(client: Client): Promise<void> {
    const key = this.key(client, 't')
    const draw = client.random.next()
    if (draw < 0.35) await this.noted(client, 'get', key, 'GET', [], outcome => outcome.text)
    // Texts stay short: a state of the search is a whole text.
    else if (draw < 0.5) await this.noted(client, 'set', key, 'SET', [''], () => undefined)
    else await this.noted(client, 'append', key, 'APPEND', [`${this.token(client)} `], () => undefined)
  }

  /** A refusal that no family expects is a violation. */
  private async run(
    client: Client,
    command: string,
    args: readonly string[],
    isRead: boolean,
  ): Promise<Outcome> {
    const outcome = isRead ? await client.read(command, args) : await client.write(command, args)
    if (outcome.kind !== 'refused' || outcome.error === null) return outcome
    const { code, message } = outcome.error
    // Also later: a leader that has just started may have an old copy of the register.
    if (code === 'LEVEL_TOO_LOW' && command === nextCommand) this.cluster.sightings.see('levelRefused')
    else if (!isExpected(code)) this.violated(`${command} ${args.join(' ')}: ${message}`)
    return outcome
  }

  // --- A set that only grows ------------------------------------------------------------------------------------------

  private readonly members = { begun: new Set<string>(), acknowledged: new Set<string>() }

  private async member(client: Client): Promise<void> {
    const { begun, acknowledged } = this.members
    const known = [...acknowledged]
    if (known.length > 0 && client.random.next() < 0.4) {
      const member = known[client.random.below(known.length)]!
      const outcome = await this.run(client, 'SISMEMBER', ['s', member], true)
      if (outcome.kind === 'done' && outcome.text !== '1' && outcome.text !== 'true')
        this.violated(`the set lacks ${member}, which was acknowledged`)
      return
    }
    const member = this.token(client)
    begun.add(member)
    const outcome = await this.run(client, 'SADD', ['s', member], false)
    if (outcome.kind === 'done') acknowledged.add(member)
  }

  // --- A queue: what goes in comes out once ---------------------------------------------------------------------------

  private readonly pushed = { begun: new Set<string>(), acknowledged: new Set<string>() }
  private readonly popped = new Set<string>()
  private popsUnknown = 0

  private async queue(client: Client): Promise<void> {
    if (client.random.next() < 0.55) {
      const element = this.token(client)
      this.pushed.begun.add(element)
      const outcome = await this.run(client, 'RPUSH', ['q', element], false)
      if (outcome.kind === 'done') this.pushed.acknowledged.add(element)
      return
    }
    const outcome = await this.run(client, 'LPOP', ['q'], false)
    if (outcome.kind === 'unknown') this.popsUnknown++
    if (outcome.kind === 'done' && outcome.text !== null) this.taken(outcome.text)
  }

  private taken(element: string): void {
    if (!this.pushed.begun.has(element)) this.violated(`the queue gave ${element}, which nobody pushed`)
    if (this.popped.has(element)) this.violated(`the queue gave ${element} twice`)
    this.popped.add(element)
  }

  // --- Sums in a hash and in a sorted set -----------------------------------------------------------------------------

  private readonly sums = new Map<string, { least: number; most: number }>()

  private async field(client: Client): Promise<void> {
    const field = `f${client.random.below(3)}`
    if (client.random.next() < 0.3) return this.readSum(client, `h ${field}`, 'HGET', ['h', field])
    await this.addTo(client, `h ${field}`, 'HINCRBY', by => ['h', field, by])
  }

  private async score(client: Client): Promise<void> {
    const member = `m${client.random.below(3)}`
    if (client.random.next() < 0.3) return this.readSum(client, `z ${member}`, 'ZSCORE', ['z', member])
    await this.addTo(client, `z ${member}`, 'ZINCRBY', by => ['z', by, member])
  }

  private sumOf(name: string): { least: number; most: number } {
    const known = this.sums.get(name) ?? { least: 0, most: 0 }
    this.sums.set(name, known)
    return known
  }

  private async addTo(
    client: Client,
    name: string,
    command: string,
    argsOf: (by: string) => string[],
  ): Promise<void> {
    const by = 1 + client.random.below(9)
    const sum = this.sumOf(name)
    sum.most += by
    const outcome = await this.run(client, command, argsOf(String(by)), false)
    if (outcome.kind === 'done') sum.least += by
    if (outcome.kind === 'refused') sum.most -= by
  }

  private async readSum(
    client: Client,
    name: string,
    command: string,
    args: readonly string[],
  ): Promise<void> {
    const sum = this.sumOf(name)
    const { least } = sum
    let most = sum.most
    const outcome = await this.run(client, command, args, true)
    if (outcome.kind !== 'done') return
    // What was begun meanwhile may be in it; what was refused meanwhile is not in `most` any more, and not in it.
    most = Math.max(most, sum.most)
    const seen = Number(outcome.text ?? '0')
    if (!(seen >= least && seen <= most))
      this.violated(`${name}: ${seen}, and it is between ${least} and ${most}`)
  }

  // --- Keys that expire: each has one owner ---------------------------------------------------------------------------

  private readonly leases = new Map<string, Lease>()

  private async expiring(client: Client): Promise<void> {
    const { world } = this.cluster
    // A write of unknown outcome may take effect later: then its client goes on with another key.
    const key = `e-${client.process}`
    const lease = this.leases.get(key)
    if (lease?.state === 'gone' && client.random.next() < 0.5) {
      // Gone is gone, under whatever leader and by whatever clock.
      const outcome = await this.run(client, 'GET', [key], true)
      if (outcome.kind === 'done' && outcome.text !== null && this.leases.get(key) === lease)
        this.violated(`${key} is back with ${outcome.text}, it had expired`)
      return
    }
    if (lease === undefined || lease.state === 'gone' || client.random.next() < 0.2) {
      const isShort = client.random.next() < 0.4
      const ttlMs = isShort ? 20 + client.random.below(300) : 300 + client.random.below(6_000)
      const value = this.token(client)
      const mine = { value, begunMs: world.nowMs, untilMs: 0, lastMs: 0, state: 'setting' as const }
      this.leases.set(key, mine)
      const outcome = await this.run(client, 'SET', [key, value, 'PX', String(ttlMs)], false)
      const isDone = outcome.kind === 'done'
      const untilMs = mine.begunMs + ttlMs
      const lastMs = world.nowMs + ttlMs + roundingMs
      const made = { ...mine, untilMs, lastMs, state: isDone ? 'set' : 'unsure' } as const
      this.leases.set(key, made)
      if (!isShort || !isDone) return
      // Just when it expires: by the wall clock it is gone, by the log's, which only writes move, perhaps not yet.
      await new Promise<void>(resolve => world.at(ttlMs + client.random.below(60), resolve))
      await this.readLease(client, key, made)
      return
    }
    await this.readLease(client, key, lease)
  }

  private async readLease(client: Client, key: string, lease: Lease): Promise<void> {
    const { world, sightings } = this.cluster
    const { begunMs, untilMs, lastMs, state, value } = lease
    const askedMs = world.nowMs
    const outcome = await this.run(client, 'GET', [key], true)
    if (outcome.kind !== 'done' || this.leases.get(key) !== lease) return
    if (outcome.text === null) {
      // Stamps may be half a second ahead of the median clock, and clocks drift.
      const slackMs = 600 + 0.05 * (world.nowMs - begunMs) + 0.05 * world.nowMs
      if (state === 'set' && world.nowMs < untilMs - slackMs)
        this.violated(`${key} is gone ${Math.round(untilMs - world.nowMs)} ms before it may expire`)
      if (state !== 'set') return
      sightings.see('keyExpired')
      this.leases.set(key, { ...lease, state: 'gone' })
      await this.readExpired(client, key, outcome.revision)
      return
    }
    if (state === 'set' && this.options.isTimely && askedMs > lastMs)
      this.violated(`${key} is read ${Math.round(askedMs - lastMs)} ms after its time`)
    if (state === 'set' && outcome.text !== value)
      this.violated(`${key} holds ${outcome.text}, its owner wrote ${value}`)
  }

  /**
   * "Gone" was made true for everybody before it was said: rows that are no older than the answer have no such key, whoever
   * reads them and whatever clock he has.
   */
  private async readExpired(client: Client, key: string, revision: number): Promise<void> {
    const { machines, sightings, settings } = this.cluster
    const lease = this.leases.get(key)
    const group = shardOfSlot(slotOf(fromUtf8(key)), settings.shardCount)
    const leader = machines.find(({ node }) => node?.host.group(group)?.isLeader === true)
    client.through = leader?.nodeId ?? null
    const again = await client.read('GET', [key], 'stale')
    client.through = null
    if (again.kind !== 'done' || again.revision < revision || this.leases.get(key) !== lease) return
    sightings.see('readAgainExpired')
    if (again.text !== null)
      this.violated(
        `${key} had expired as of ${revision}, and holds ${again.text} in rows as of ${again.revision}`,
      )
  }

  // --- One hash tag: two keys that are always written together, and one that moves ------------------------------------

  private async pair(client: Client): Promise<void> {
    const tag = `{p${client.random.below(this.options.keys)}}`
    const keys = [`${tag}a`, `${tag}b`] as const
    if (client.random.next() < 0.5) {
      const value = this.token(client)
      await this.run(client, 'MSET', [keys[0], value, keys[1], value], false)
      return
    }
    const outcome = await this.run(client, 'MGET', keys, true)
    if (outcome.kind !== 'done') return
    const [a, b] = itemsOf(outcome.reply)
    if (a?.value !== b?.value) this.violated(`${tag}: half of an MSET, ${a?.value} and ${b?.value}`)
  }

  private isTokenMade = false

  private async moving(client: Client): Promise<void> {
    const places = ['{m}a', '{m}b'] as const
    if (!this.isTokenMade) {
      this.isTokenMade = true
      const made = await this.run(client, 'SET', [places[0], 'token'], false)
      // Of unknown outcome it might still be made later, while the other one moves.
      this.isTokenMade = made.kind !== 'refused'
      this.isMoving = made.kind === 'done'
      return
    }
    if (!this.isMoving) return
    if (client.random.next() < 0.5) {
      const outcome = await this.run(client, 'EXISTS', places, true)
      if (outcome.kind === 'done' && outcome.text !== '1')
        this.violated(`the token that is only renamed is at ${outcome.text} places`)
      return
    }
    const [from, to] = client.random.next() < 0.5 ? places : [places[1], places[0]]
    // A missing source is a refusal that is expected here.
    await client.write('RENAME', [from, to])
  }

  private isMoving = false

  // --- Every other command: nothing is expected but that all replicas agree -------------------------------------------

  /** Streams are left to those who know what is in them. */
  private readonly names = [...commands.values()].filter(
    ({ isInternal, name }) => isInternal !== true && !name.startsWith('STREAM.'),
  )

  private async anything(client: Client): Promise<void> {
    const { random } = client
    const command = this.names[random.below(this.names.length)]!
    const { min, max } = command.arity
    const count = Math.min(max, min + random.below(4))
    // Now and then one that fills sectors: what is torn by a crash is torn inside of it.
    const long = random.next() < 0.1 ? 'y'.repeat(random.below(longestWord)) : null
    const word = () =>
      long ?? [String(random.below(20)), `w${random.below(4)}`, '0', '-1', '1', 'x'][random.below(6)]!
    const args = Array.from({ length: count }, (_, i) => {
      const isKey =
        command.keys !== 'none' && command.keys !== 'every-shard' && (i === 0 || command.keys !== 'first')
      return isKey && (command.keys !== 'alternate' || i % 2 === 0) ? `{x}${random.below(3)}` : word()
    })
    if (command.access === 'read') await client.read(command.name, args)
    else await client.write(command.name, args)
  }

  // --- The end --------------------------------------------------------------------------------------------------------

  /** After all has healed: what must be there is there, through every node. */
  async finish(): Promise<void> {
    const client = new Client(this.cluster, 'end', {
      ackLag: 0,
      counters: this.counters,
      violations: this.violations,
    })
    await this.watchers.finish()
    const { keys } = this.options
    for (const { nodeId, node } of this.cluster.machines) {
      if (node === null) continue
      client.through = nodeId
      for (const name of ['r', 'c', 't'])
        for (let i = 0; i < keys; i++) {
          const seen = await this.noted(client, 'get', `${name}${i}`, 'GET', [], ({ text }) => text)
          if (seen === undefined)
            this.violated(`${name}${i} can't be read through ${nodeId} at the end: ${client.lastTrouble}`)
        }
      for (const [name] of this.sums) {
        const [key, field] = name.split(' ') as [string, string]
        await this.readSum(client, name, key === 'h' ? 'HGET' : 'ZSCORE', [key, field])
      }
      const set = await this.run(client, 'SMEMBERS', ['s'], true)
      await this.streams.finish(client)
      await this.groups.finish(client)
      // Every member runs the next release now, and knows that all do.
      const isRefused = this.options.hasNext && !(await this.young(client, true))
      // A shard that has all the sessions it may have takes no new one, whatever is asked.
      if (isRefused && !client.lastTrouble.startsWith('SESSION_FULL'))
        this.violated(`${nextCommand} is refused through ${nodeId} at the end: ${client.lastTrouble}`)
      if (set.kind === 'done') this.finishSet(new Set(itemsOf(set.reply).map(({ key }) => key ?? '')))
    }
    const rest = await this.run(client, 'LRANGE', ['q', '0', '-1'], true)
    if (rest.kind === 'done')
      this.finishQueue(itemsOf(rest.reply).map(({ key, value }) => value ?? key ?? ''))
    this.checkHistory()
  }

  private finishSet(members: ReadonlySet<string>): void {
    for (const member of this.members.acknowledged)
      if (!members.has(member)) this.violated(`the set lacks ${member} at the end`)
    for (const member of members)
      if (!this.members.begun.has(member)) this.violated(`the set has ${member}, which nobody added`)
  }

  private finishQueue(rest: readonly string[]): void {
    for (const element of rest) this.taken(element)
    const missing = [...this.pushed.acknowledged].filter(element => !this.popped.has(element))
    if (missing.length > this.popsUnknown)
      this.violated(
        `the queue lost ${missing.join(' ')}: at most ${this.popsUnknown} may have gone to calls without an answer`,
      )
  }

  private checkHistory(): void {
    // Steps are counted by looks at this clock, so that a verdict does not depend on the machine.
    let steps = 0
    const verdict = check(this.history.operations, kvModel(null), {
      now: () => steps++,
      timeoutMs: searchStepsMax,
      windowMs: searchStepsMax,
    })
    if (verdict.kind === 'linearizable' && verdict.figures.unknown > 0)
      this.cluster.sightings.see('historyChecked')
    if (verdict.kind !== 'not-linearizable') return
    const { key, operations } = verdict.window
    const lines = operations.map(
      ({ process, f, args, result, calledAt, returnedAt }) =>
        `    ${process} ${f} ${args.join(' ')} → ${result} [${calledAt}, ${returnedAt}]`,
    )
    this.violated(`the history of ${key} is not linearizable:\n${lines.join('\n')}`)
  }
}

/** Refusals that any call may meet. */
function isExpected(code: string): boolean {
  return code.startsWith('SESSION_') || code === 'UNKNOWN_COMMAND'
}
