/**
 * A recorded workload: clients that read, write, compare and set, count, append, delete and let expire. Every call is
 * written down before it is sent and its answer after it came, so that a checker can judge the whole; `Books` keep what can
 * be told without one. Some calls are given up early, some writes sent to two nodes at once.
 *
 * Registers, counters and lists are left and begun anew after some use: what is unknown about them would pile up, and
 * the checker's work with it. Memory grows with the calls and is bounded by their number (`callsMax`, `onceMax`).
 */
import type { CommandResponse } from '../../gen/clusterpb/cluster.ts'
import type { Value } from '../../history/operation.ts'
import type { Recorder } from '../../history/recorder.ts'
import type { Random } from '../../lib/prng.ts'
import { shardOfSlot, slotOf } from '../../lib/slot.ts'
import { Books, type Kind, type Once, type Outcome, type Series, type SeriesKind } from './books.ts'
import { type Answer, Caller, type Patience, type Store } from './calls.ts'

export interface WorkloadOptions {
  readonly store: Store
  readonly recorder: Recorder
  readonly random: Random
  /** Milliseconds since an arbitrary start, and since 1970. */
  readonly now: () => number
  readonly wall: () => number
  readonly after: (ms: number) => Promise<void>
  readonly shardCount: number
  readonly clients: number
  /** Registers, counters and lists in use at a time, from 4. */
  readonly keys: number
  /** Operations that begin in a second, of all clients together, as long as answers come; null: the next when one has ended. */
  readonly rate: number | null
  /** After so many calls no more begin. */
  readonly callsMax: number
  /** A client asks for so long, ms. */
  readonly patienceMs: number
  /** Keys begin with it. */
  readonly prefix: string
}

const weights: Readonly<Record<Kind, number>> = {
  ...{ get: 34, set: 12, cas: 8, del: 4, incr: 12, append: 9, put: 12, remove: 5, expire: 4 },
}
const deck = (Object.keys(weights) as Kind[]).flatMap(kind =>
  Array.from({ length: weights[kind] }, () => kind),
)
/** Of the keys in use at a time. */
const shares: Readonly<Record<SeriesKind, number>> = { register: 0.5, counter: 0.25, list: 0.25 }
const seriesCallsMax = 150
/** Keys written once: all are read again at the end, through every node. Then others are written instead. */
const onceMax = 10_000
/** Registers that the watchers use, where there are so many; watchers, no more than clients; the first so many write. */
const hotRegistersMax = 3
const watchersMax = 9
const writersAtOnce = 3
/** Steps of a watcher in a second, and how long it waits for a read. */
const watcherRate = 15
const watchMs = 6_000
const doubledShare = 0.03
const impatientShare = 0.03
const impatientMs = 300
/** Values written once are small, or worth a snapshot. */
const largeShare = 0.05
const largeBytes = 24 * 1024
const expiryMs = { min: 3_000, max: 8_000 } as const
/** After a call that brought nothing, of clients without a rate. */
const restMs = 20
/** By so much a clock of the log may be ahead, or an expired key be late, ms. */
const expiryMarginMs = 2_000

export class Workload {
  readonly books: Books
  /** Longest time without an acknowledged write, ms: anywhere, and in the worst shard, if each is written to. */
  readonly gaps = { anywhereMs: 0, shardMs: 0, shard: 0 }
  private readonly options: WorkloadOptions
  private readonly ackMs: Float64Array
  private anywhereAckMs: number
  private readonly lastSeen = new Map<string, Value>()
  private readonly current: Record<SeriesKind, Series[]>
  /** Keys of `probe`. */
  private readonly probed = new Set<string>()
  /** How long the longest call took until its reply, ms. */
  longestCallMs = 0
  private calls = 0
  private isStopping = false
  private running: Promise<unknown> = Promise.resolve()

  constructor(options: WorkloadOptions) {
    this.options = options
    this.books = new Books(options.prefix)
    this.anywhereAckMs = options.now()
    this.ackMs = new Float64Array(options.shardCount).fill(this.anywhereAckMs)
    const several = (kind: SeriesKind) =>
      Array.from({ length: Math.floor(options.keys * shares[kind]) }, () => this.books.newSeries(kind))
    this.current = { register: several('register'), counter: several('counter'), list: several('list') }
  }

  start(): void {
    this.anywhereAckMs = this.options.now()
    this.ackMs.fill(this.anywhereAckMs)
    const clients = Array.from(
      { length: this.options.clients },
      (_, number) => new WorkloadClient(this, number),
    )
    const { rate } = this.options
    const length = Math.min(watchersMax, clients.length)
    const watchers = Array.from({ length }, (_, number) => new Watcher(this, number))
    this.running = Promise.all([
      ...clients.map(client => this.drive(client, rate === null ? null : rate / clients.length)),
      ...watchers.map(watcher => this.drive(watcher, watcherRate)),
    ])
  }

  /** No more calls begin; those under way are settled. Rejects with what no client should meet. */
  async stop(): Promise<void> {
    this.isStopping = true
    await this.running
    for (let shard = 0; shard < this.ackMs.length; shard++) this.noteGap(shard, this.options.now())
  }

  /** Settles when it has ended: by `stop`, by `callsMax`, or with what `stop` rejects with. */
  get ended(): Promise<unknown> {
    return this.running
  }

  get callsMade(): number {
    return this.calls
  }

  get isFull(): boolean {
    return this.calls >= this.options.callsMax
  }

  /** Every key that may be there. */
  *keys(): Generator<string> {
    yield* this.books.keys()
    yield* this.probed
  }

  /** When each shard last acknowledged a write, by `now`. */
  get acknowledgedMs(): Readonly<Float64Array> {
    return this.ackMs
  }

  series(kind: SeriesKind): Series {
    const { random } = this.options
    const its = this.current[kind]
    // Some are hot: a stale read can only be seen of what has just been changed.
    const place = Math.floor(its.length * random.next() ** 2)
    const series = its[place]!
    series.calls += 1
    if (series.calls >= seriesCallsMax) its[place] = this.books.newSeries(kind)
    return series
  }

  /** One of those that change most. */
  hot(): Series {
    const { register } = this.current
    const series = register[this.options.random.below(Math.min(hotRegistersMax, register.length))]!
    series.calls += 1
    return series
  }

  seen(key: string, value?: Value): Value {
    if (value !== undefined) this.lastSeen.set(key, value)
    return this.lastSeen.get(key) ?? null
  }

  acknowledged(key: string): void {
    const shard = shardOf(key, this.options.shardCount)
    const nowMs = this.options.now()
    this.noteGap(shard, nowMs)
    this.ackMs[shard] = nowMs
    this.anywhereAckMs = nowMs
  }

  /** One write to a key of a shard, beside the history. */
  async probe(shard: number): Promise<void> {
    const { shardCount, prefix } = this.options
    for (let number = 0; ; number++) {
      const key = `${prefix}probe:${number}`
      if (shardOf(key, shardCount) !== shard) continue
      this.probed.add(key)
      const answer = await this.caller().write('SET', key, [String(number)], { totalMs: 0 })
      if (answer.kind === 'reply') this.acknowledged(key)
      return
    }
  }

  /** `pick`: where its calls go, when not to any node. */
  caller(pick: () => string = () => this.options.store.pick()): Caller {
    const { store } = this.options
    const run: Store['run'] = (address, request, timeoutMs) => store.run(address, request, timeoutMs)
    return new Caller({
      ...this.options,
      store: { pick, run, addresses: () => store.addresses() },
      onTrouble: code => this.books.trouble(code),
    })
  }

  get settings(): WorkloadOptions {
    return this.options
  }

  private noteGap(shard: number, nowMs: number): void {
    const { gaps } = this
    gaps.anywhereMs = Math.max(gaps.anywhereMs, nowMs - this.anywhereAckMs)
    const gap = nowMs - this.ackMs[shard]!
    if (gap <= gaps.shardMs) return
    gaps.shardMs = gap
    gaps.shard = shard
  }

  /** `rate`: steps that begin in a second. */
  private async drive(client: { step(): Promise<Answer> }, rate: number | null): Promise<void> {
    const { random, after, now } = this.options
    while (!this.isStopping && !this.isFull) {
      this.calls += 1
      const begunMs = now()
      const answer = await client.step()
      if (answer.kind === 'reply') this.longestCallMs = Math.max(this.longestCallMs, now() - begunMs)
      if (rate === null) {
        if (answer.kind !== 'reply') await after(restMs)
        continue
      }
      // Poisson arrivals, less what the call took.
      const leftMs = (-Math.log(1 - random.next()) * 1000) / rate - (now() - begunMs)
      if (leftMs > 0) await after(leftMs)
    }
  }
}

/**
 * Reads hot registers through one node and writes them through any, by turns of two clients: a leader that was cut off or
 * frozen and does not know it yet is asked for what others have just changed.
 */
class Watcher {
  private readonly workload: Workload
  private readonly name: string
  private readonly number: number
  private readonly caller: Caller
  private made = 0

  constructor(workload: Workload, number: number) {
    this.workload = workload
    this.number = number
    this.name = `w${number}`
    const { store } = workload.settings
    const readsFrom = () => {
      const addresses = store.addresses()
      return addresses[(number - writersAtOnce) % addresses.length] ?? store.pick()
    }
    this.caller = workload.caller(number < writersAtOnce ? () => store.pick() : readsFrom)
  }

  async step(): Promise<Answer> {
    const { workload, name, caller } = this
    const { recorder, patienceMs } = workload.settings
    const series = workload.hot()
    const isWriter = this.number < writersAtOnce
    if (!isWriter) {
      const patience = { totalMs: 0, attemptMs: watchMs }
      const { answer } = await recordedRead(recorder, name, series.key, 'register', caller, patience)
      workload.books.count('get', outcomeOf(answer))
      return answer
    }
    this.made += 1
    const value = `${name}.${this.made}`
    const call = recorder.invoke(name, 'set', series.key, [value])
    const answer = await caller.write('SET', series.key, [value], { totalMs: patienceMs })
    workload.books.count('set', outcomeOf(answer))
    if (answer.kind === 'reply') {
      call.ok()
      workload.acknowledged(series.key)
    } else call[answer.kind === 'unknown' ? 'unknown' : 'fail'](answer.code)
    return answer
  }
}

/** One client: a call at a time. */
class WorkloadClient {
  private readonly workload: Workload
  private readonly name: string
  private readonly caller: Caller
  private made = 0
  /** Its own, of those written once: to be read again, deleted, or found expired. */
  private readonly own: Once[] = []

  constructor(workload: Workload, number: number) {
    this.workload = workload
    this.name = `c${number}`
    this.caller = workload.caller()
  }

  async step(): Promise<Answer> {
    const { random } = this.workload.settings
    const drawn = deck[random.below(deck.length)]!
    const isOnce = drawn === 'put' || drawn === 'expire'
    const kind = isOnce && this.workload.books.once.length >= onceMax ? 'set' : drawn
    const retriedBefore = this.caller.retried
    const answer = await this.run(kind)
    const { books } = this.workload
    books.count(kind, outcomeOf(answer))
    books.retried += this.caller.retried - retriedBefore
    if (answer.kind === 'refused' && !isExpectedRefusal(answer.code))
      books.fault(`${kind} by ${this.name} was refused: ${answer.text}`)
    return answer
  }

  private run(kind: Kind): Promise<Answer> {
    switch (kind) {
      case 'get':
        return this.look()
      case 'set':
        return this.change('register', 'set', series => ['SET', [this.newValue()], series])
      case 'cas':
        return this.change('register', 'cas', series => {
          const expected = this.workload.seen(series.key)
          return ['SET', expected === null ? [this.newValue()] : [this.newValue(), 'IFEQ', expected], series]
        })
      case 'del':
        return this.change('register', 'del', series => ['DEL', [], series])
      case 'incr':
        return this.change('counter', 'incr', series => ['INCR', [], series])
      case 'append':
        return this.change('list', 'append', series => ['RPUSH', [this.newValue()], series])
      case 'put':
        return this.put(null)
      case 'expire': {
        const { random } = this.workload.settings
        return this.put(expiryMs.min + random.below(expiryMs.max - expiryMs.min))
      }
      case 'remove':
        return this.remove()
    }
  }

  /** A write to one of the series. */
  private async change(
    kind: SeriesKind,
    f: 'set' | 'cas' | 'del' | 'incr' | 'append',
    make: (series: Series) => readonly [command: string, args: readonly string[], series: Series],
  ): Promise<Answer> {
    const { recorder } = this.workload.settings
    const [command, args, series] = make(this.workload.series(kind))
    const { key } = series
    const isCas = f === 'cas' && args.length > 1
    const recorded = isCas ? [args[2]!, args[0]!] : f === 'append' ? [`${args[0]},`] : args
    if (f === 'append') series.sent.add(args[0]!)
    const call = recorder.invoke(this.name, f === 'cas' && !isCas ? 'set' : f, key, recorded)
    const answer = await this.caller.write(command, key, args, this.patience())
    if (answer.kind !== 'reply') {
      if (answer.kind === 'unknown') series.unknown += 1
      call[answer.kind === 'unknown' ? 'unknown' : 'fail'](answer.code)
      return answer
    }
    this.workload.acknowledged(key)
    series.acknowledged += 1
    const { response } = answer.response
    const amount = response?.$case === 'count' ? response.value.toString() : null
    if (isCas) call.ok(String(response?.$case === 'success' && response.value))
    else if (f === 'incr' || f === 'del') call.ok(amount ?? `no count: ${response?.$case}`)
    else call.ok()
    if (f === 'append') series.elements.add(args[0]!)
    if (f === 'incr' && amount !== null) {
      if (series.elements.has(amount))
        this.workload.books.mistake(`two increments of ${key} were answered ${amount}`, 'lost')
      series.elements.add(amount)
    }
    if (f === 'set' || f === 'cas') this.workload.seen(key, args[0])
    return answer
  }

  /** A read of something: a series, or a key of this client's own. */
  private async look(): Promise<Answer> {
    const { random } = this.workload.settings
    const draw = random.next()
    if (draw < 0.3 && this.own.length > 0)
      return await this.lookAtOnce(this.own[random.below(this.own.length)]!)
    const kind = draw < 0.75 ? 'register' : draw < 0.88 ? 'counter' : 'list'
    const { key } = this.workload.series(kind)
    const { answer, value } = await this.read(this.name, key, kind, this.caller, this.patience())
    if (kind === 'register' && value !== undefined) this.workload.seen(key, value)
    return answer
  }

  /** Reads into the history. `value` undefined: there is no answer. */
  private async read(
    process: string,
    key: string,
    kind: SeriesKind,
    caller: Caller,
    patience: Patience,
  ): Promise<{ answer: Answer; value: Value | undefined }> {
    return await recordedRead(this.workload.settings.recorder, process, key, kind, caller, patience)
  }

  private async lookAtOnce(once: Once): Promise<Answer> {
    const { recorder, now } = this.workload.settings
    const begunMs = now()
    const answer =
      once.expiry === null
        ? (await recordedRead(recorder, this.name, once.key, 'register', this.caller, this.patience())).answer
        : await this.caller.read('GET', once.key, [], this.patience())
    if (answer.kind !== 'reply') return answer
    const isThere = answer.response.response !== undefined
    const text = shortOf(textOf(answer.response))
    this.workload.books.judgeOnce(once, text, begunMs, now(), expiryMarginMs, this.name)
    // Of those that are gone some stay to be looked at: they must not come back.
    if (!isThere && this.own.length > 40) this.own.splice(this.own.indexOf(once), 1)
    return answer
  }

  /** A key that is written once. `lifeMs` null: it stays. */
  private async put(lifeMs: number | null): Promise<Answer> {
    const { recorder, random, now } = this.workload.settings
    const { books } = this.workload
    const key = books.newKey(lifeMs === null ? 'put' : 'expire')
    const small = this.newValue()
    const value = random.next() < largeShare ? small.padEnd(largeBytes, '.') : small
    const sentMs = now()
    const once: Once = { key, value: digestOf(value), written: 'unknown', removed: null, expiry: null }
    books.once.push(once)
    // The checker's model knows no time.
    const call = lifeMs === null ? recorder.invoke(this.name, 'set', key, [digestOf(value)]) : null
    const expiry = lifeMs === null ? [] : ['PX', String(lifeMs)]
    if (lifeMs !== null) once.expiry = { earliestMs: sentMs + lifeMs, latestMs: Number.POSITIVE_INFINITY }
    const answer = await this.caller.write('SET', key, [value, ...expiry], this.patience())
    once.written = outcomeOf(answer)
    if (answer.kind === 'reply') {
      call?.ok()
      this.workload.acknowledged(key)
      if (lifeMs !== null) once.expiry = { earliestMs: sentMs + lifeMs, latestMs: now() + lifeMs }
      if (this.own.length < 200) this.own.push(once)
    } else call?.[answer.kind === 'unknown' ? 'unknown' : 'fail'](answer.code)
    return answer
  }

  /** Deletes a key of its own, for good. */
  private async remove(): Promise<Answer> {
    const { recorder, random } = this.workload.settings
    const candidates = this.own.filter(each => each.removed === null && each.expiry === null)
    const once = candidates[random.below(Math.max(1, candidates.length))]
    if (once === undefined) return await this.look()
    const call = recorder.invoke(this.name, 'del', once.key)
    once.removed = 'unknown'
    const answer = await this.caller.write('DEL', once.key, [], this.patience())
    once.removed = answer.kind === 'refused' ? null : outcomeOf(answer)
    if (answer.kind === 'reply') {
      const { response } = answer.response
      call.ok(response?.$case === 'count' ? response.value.toString() : `no count: ${response?.$case}`)
      this.workload.acknowledged(once.key)
    } else call[answer.kind === 'unknown' ? 'unknown' : 'fail'](answer.code)
    return answer
  }

  private newValue(): string {
    this.made += 1
    return `${this.name}.${this.made}`
  }

  private patience(): Patience {
    const { random, patienceMs } = this.workload.settings
    if (random.next() < impatientShare) return { totalMs: 0, attemptMs: impatientMs }
    return { totalMs: patienceMs, isDoubled: random.next() < doubledShare }
  }
}

const shardOf = (key: string, shardCount: number): number => shardOfSlot(slotOf(Buffer.from(key)), shardCount)

/** Reads a key of a kind into the history. `value` undefined: there is no answer. */
export async function recordedRead(
  recorder: Recorder,
  process: string,
  key: string,
  kind: SeriesKind,
  caller: Caller,
  patience: Patience,
): Promise<{ answer: Answer; value: Value | undefined }> {
  const call = recorder.invoke(process, 'get', key)
  const answer =
    kind === 'list'
      ? await caller.read('LRANGE', key, ['0', '-1'], patience)
      : await caller.read('GET', key, [], patience)
  if (answer.kind !== 'reply') {
    call.fail(answer.code)
    return { answer, value: undefined }
  }
  const text = kind === 'list' ? listTextOf(answer.response) : textOf(answer.response)
  const value = shortOf(text)
  call.ok(value)
  return { answer, value }
}

/** Of a long value history and books keep its beginning and whether the rest is what belongs there. */
export function digestOf(value: string): string {
  if (!value.includes('.'.repeat(8))) return value
  const name = value.replace(/\.+$/, '')
  const rest = value === name.padEnd(largeBytes, '.') ? '…' : ` and ${value.length - name.length} bytes`
  return `${name}${rest}`
}

/** What is found, in short. */
export const shortOf = (text: string | null): string | null => (text === null ? null : digestOf(text))

/** null: there is no such key. */
export function textOf({ response }: CommandResponse): string | null {
  if (response === undefined) return null
  return response.$case === 'value' ? response.value.toString() : `a ${response.$case}`
}

/** The elements with a comma behind each; null: there is no such list. */
export function listTextOf({ response }: CommandResponse): string | null {
  if (response?.$case !== 'list') return response === undefined ? null : `a ${response.$case}`
  const elements = response.value.list.map(({ value }) => `${(value ?? Buffer.alloc(0)).toString()},`)
  return elements.length === 0 ? null : elements.join('')
}

export function outcomeOf(answer: Answer): Outcome {
  return answer.kind === 'reply' ? 'ok' : answer.kind
}

/** Of what passes, when patience ended first. */
function isExpectedRefusal(code: string): boolean {
  return ![
    'SESSION_STALE',
    'WRONG_TYPE',
    'NOT_INTEGER',
    'OVERFLOW',
    'SYNTAX',
    'CROSS_SHARD',
    'UNKNOWN_COMMAND',
  ].includes(code)
}
