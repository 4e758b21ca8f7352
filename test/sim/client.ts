import type { Reply } from '../../src/commands/command.ts'
import { RemoteError, RoundhouseError } from '../../src/errors.ts'
import type { Operation, Value } from '../../src/history/operation.ts'
import { type Bytes, emptyBytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import type { SimCluster } from './sim-cluster.ts'

/** What a client knows of a call in the end. */
export type Outcome =
  | { readonly kind: 'done'; readonly reply: Reply; readonly text: string | null; readonly revision: number }
  /** It certainly had no effect. */
  | { readonly kind: 'refused'; readonly error: RoundhouseError | RemoteError | null }
  /** It may have had one. */
  | { readonly kind: 'unknown' }

export interface CallCounters {
  writes: number
  reads: number
  acknowledged: number
  unknown: number
  refused: number
}

/** A client gives up after this long, ms. */
export const patienceMs = 5_000
/** … and does not wait longer for one node. */
const attemptMsMax = 2_000
const pauseMs = 20

/** What clients see, for the checker: every call gets its place among all calls and returns. */
export class History {
  readonly operations: Operation[] = []
  private place = 0

  begin(): number {
    return ++this.place
  }

  /** `result` undefined where the answer says nothing; a refused call is not noted at all. */
  end(
    call: Pick<Operation, 'process' | 'f' | 'key' | 'args' | 'calledAt'>,
    outcome: Outcome,
    result: Value | undefined,
  ): void {
    if (outcome.kind === 'refused') return
    const returnedAt = outcome.kind === 'done' ? ++this.place : Number.POSITIVE_INFINITY
    this.operations.push({
      ...call,
      result: outcome.kind === 'done' ? result : undefined,
      returnedAt,
      calledMs: null,
      returnedMs: null,
    })
  }
}

/** Text stands for its UTF-8. */
export type Argument = string | Bytes

/** A write that was done. */
interface Written {
  readonly command: string
  readonly args: readonly Argument[]
  readonly session: NonNullable<Call['session']>
  readonly outcome: Outcome & { kind: 'done' }
}

/** Of those a client remembers so many, to send them again. */
const recentMax = 6

/** Sends one call after the other, each through a random node, and again through others with the same sequence. */
export class Client {
  readonly name: string
  readonly random: Prng
  private readonly cluster: SimCluster
  private readonly counters: CallCounters
  private readonly violations: string[]
  private session: Bytes
  private sequence = 0
  /** How many sequences it leaves unacknowledged. */
  private readonly ackLag: number
  private epoch = 0
  /** What the last try that failed was told. */
  lastTrouble = ''
  private readonly recent: Written[] = []
  /** The only node to ask; null: any. */
  through: string | null = null

  constructor(
    cluster: SimCluster,
    name: string,
    options: { readonly ackLag: number; readonly counters: CallCounters; readonly violations: string[] },
  ) {
    this.cluster = cluster
    this.name = name
    this.random = cluster.world.random.fork()
    this.counters = options.counters
    this.violations = options.violations
    this.ackLag = options.ackLag
    this.session = this.newSession()
  }

  /** A process of a history ends with a call of unknown outcome: another one goes on. */
  get process(): string {
    return `${this.name}.${this.epoch}`
  }

  /** 6 bytes of time, 10 of chance. */
  private newSession(): Bytes {
    const id = this.random.bytes(16)
    let ms = Math.floor(this.cluster.world.wallMs)
    for (let i = 5; i >= 0; i--) {
      id[i] = ms % 256
      ms = Math.floor(ms / 256)
    }
    this.sequence = 0
    return id
  }

  read(command: string, args: readonly Argument[], read: Call['read'] = 'linearizable'): Promise<Outcome> {
    this.counters.reads++
    return this.call(command, args, null, read)
  }

  async write(command: string, args: readonly Argument[]): Promise<Outcome> {
    this.counters.writes++
    const { sightings } = this.cluster
    const sequence = ++this.sequence
    const session = { id: this.session, sequence, ackedBelow: Math.max(0, sequence - this.ackLag) }
    const outcome = await this.call(command, args, session, 'linearizable')
    if (outcome.kind === 'unknown') {
      this.epoch++
      this.session = this.newSession()
    }
    if (outcome.kind === 'refused' && outcome.error?.code === 'SESSION_FULL') {
      sightings.see('sessionRowFull')
      this.session = this.newSession()
    }
    // A copy of a write that was answered, as a network that repeats itself would bring it.
    if (outcome.kind === 'done') {
      this.recent.push({ command, args, session, outcome })
      if (this.recent.length > recentMax) this.recent.shift()
      // The last one most often, but one before it as well: a session remembers a window of sequences.
      if (this.random.next() < 0.07) {
        const early = this.recent[this.random.below(this.recent.length)]!
        const again = this.random.next() < 0.5 ? early : this.recent.at(-1)!
        if (again.session.id === this.session) await this.repeat(again)
      }
    }
    return outcome
  }

  private async repeat({ command, args, session, outcome: first }: Written): Promise<void> {
    const { sightings } = this.cluster
    const isAcked = this.random.next() < 0.3
    const again = isAcked ? { ...session, ackedBelow: session.sequence + 1 } : session
    const outcome = await this.call(command, args, again, 'linearizable')
    if (outcome.kind === 'done') {
      sightings.see('answeredTwice')
      if (isAcked)
        this.violations.push(`${command} ${args.join(' ')}: answered after its client had acknowledged it`)
      else if (outcome.text !== first.text)
        this.violations.push(
          `${command} ${args.join(' ')}: answered ${first.text} and, as a repetition, ${outcome.text}`,
        )
    } else if (outcome.kind === 'refused' && outcome.error?.code === 'SESSION_STALE')
      sightings.see('sessionStale')
  }

  /** One try at one node; rejects as the node answers, or with OUTCOME_UNKNOWN where none comes. */
  private try(
    command: string,
    args: readonly Bytes[],
    session: Call['session'],
    read: Call['read'],
    timeoutMs: number,
  ): Promise<CallResult> | null {
    const { machines, world } = this.cluster
    const any = machines[this.random.below(machines.length)]!
    const machine = this.through === null ? any : (machines.find(each => each.nodeId === this.through) ?? any)
    const { node } = machine
    if (node === null || machine.clock.isPaused) return null
    const call: Call = {
      command,
      args,
      session,
      read,
      forward: true,
      hops: 0,
      shard: null,
      timeoutMs,
    }
    // A process that dies never settles its promises: the client's own patience ends the wait.
    return new Promise((resolve, reject) => {
      const served = servedBy(machine)
      const key = toUtf8(args[0] ?? emptyBytes)
      const before = served.get(key) ?? 0
      node.execute(call).then(result => {
        if (read === 'stale') {
          // However old, never older than what this node has answered before, also before its last start.
          if (result.revision < before)
            this.violations.push(
              `${machine.nodeId} answers a stale read of ${key} as of ${result.revision}, after one as of ${before}`,
            )
          served.set(key, Math.max(result.revision, served.get(key) ?? 0))
        }
        resolve(result)
      }, reject)
      world.at(Math.min(timeoutMs, attemptMsMax), () => reject(noAnswer))
    })
  }

  private async call(
    command: string,
    args: readonly Argument[],
    session: Call['session'],
    read: Call['read'],
  ): Promise<Outcome> {
    const { world, sightings } = this.cluster
    const bytes = args.map(each => (typeof each === 'string' ? fromUtf8(each) : each))
    const untilMs = world.nowMs + patienceMs
    let mayBeApplied = false
    while (world.nowMs < untilMs) {
      const attempt = this.try(command, bytes, session, read, Math.max(1, untilMs - world.nowMs))
      if (attempt !== null) {
        try {
          const { reply, revision } = await attempt
          this.counters.acknowledged++
          return { kind: 'done', reply, text: textOf(reply), revision }
        } catch (error) {
          if (!(error instanceof RoundhouseError) && !(error instanceof RemoteError)) throw error
          this.lastTrouble = error.message
          if (read === 'stale' && error.code === 'NOT_READY') sightings.see('staleRefused')
          if (error.code === 'UNKNOWN_COMMAND') sightings.see('commandUnknown')
          if (error.code === 'OVERLOADED') sightings.see('uncommittedFull')
          if (error.kind === 'outcome_unknown') mayBeApplied = true
          else if (!isPassing(error)) return mayBeApplied ? this.gaveUp(true) : { kind: 'refused', error }
        }
      }
      await new Promise<void>(resolve => world.at(pauseMs, resolve))
    }
    return this.gaveUp(mayBeApplied && session !== null)
  }

  private gaveUp(mayBeApplied: boolean): Outcome {
    if (!mayBeApplied) {
      this.counters.refused++
      return { kind: 'refused', error: null }
    }
    this.counters.unknown++
    this.cluster.sightings.see('outcomeUnknown')
    return { kind: 'unknown' }
  }
}

/** By machine and key: the latest revision that a stale read answered. */
const revisionsServed = new WeakMap<object, Map<string, number>>()

function servedBy(machine: object): Map<string, number> {
  const known = revisionsServed.get(machine) ?? new Map<string, number>()
  revisionsServed.set(machine, known)
  return known
}

/** Another node, or the same one later, may answer otherwise. */
function isPassing({ code, kind }: RoundhouseError | RemoteError): boolean {
  if (code === 'SESSION_FULL') return false
  // A node of an older release; another one may know it.
  if (code === 'UNKNOWN_COMMAND') return true
  return kind === 'unavailable' || kind === 'exhausted' || kind === 'data_loss'
}

const noAnswer = new RoundhouseError('OUTCOME_UNKNOWN', { why: 'no answer' })

/** A reply as one line; null for a missing value. */
export function textOf(reply: Reply): string | null {
  switch (reply.kind) {
    case 'nil':
      return null
    case 'value':
      return toUtf8(reply.value)
    case 'success':
      return String(reply.success)
    case 'count':
      return String(reply.count)
    case 'list':
      return JSON.stringify(
        reply.items.map(({ key, value }) => [
          key === undefined ? null : toUtf8(key),
          value === undefined ? null : toUtf8(value),
        ]),
      )
  }
}

export function itemsOf(
  reply: Reply,
): readonly { readonly key: string | null; readonly value: string | null }[] {
  if (reply.kind !== 'list') return []
  return reply.items.map(({ key, value }) => ({
    key: key === undefined ? null : toUtf8(key),
    value: value === undefined ? null : toUtf8(value),
  }))
}
