/**
 * Load whose every answer is judged. Each key is a register with one writer that writes 1, 2, 3, …: then linearizability
 * comes down to two bounds, checked at every read, during trouble as well as after it. A read must not be older than what
 * was acknowledged, or read by anybody, before it began; and not newer than what the writer had sent by its end. A key
 * that was acknowledged and is "not found" reads as 0 and breaks the first bound.
 * Counters are incremented by many sessions: every reply must be another number, and the sum must be the count of replies.
 */
import type { CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import type { Client, Session } from './cluster-client.ts'
import { scale } from './scale.ts'

/** Between two calls of a client: the machine has other tests to run at the same time. */
const thinkMs = scale(60, 0)
/** A client gives up after this: far more than any failure may last. */
const patienceMs = 60_000
/** Of the mistakes found, so many are told. */
const violationsMax = 10

export interface LoadOptions {
  readonly prefix: string
  readonly keys: number
  readonly writers: number
  readonly readers: number
  /** Counters beside the registers, and sessions that increment them. */
  readonly counters?: number
  readonly incrementers?: number
  /** Bytes of a value. */
  readonly valueBytes?: number
  /** Where each try goes. */
  readonly pick: () => string
}

export class Load {
  readonly violations: string[] = []
  readonly counts = { writes: 0, reads: 0, increments: 0, retried: 0 }
  private readonly client: Client
  private readonly options: LoadOptions
  /** By key: the highest number that was sent, and the one below which no read may be. */
  private readonly sent: Uint32Array
  private readonly floor: Uint32Array
  private readonly replies: Set<number>[]
  private readonly padding: string
  private running: Promise<unknown> = Promise.resolve()
  private isStopping = false
  private failure: Error | null = null
  private listeners = new Set<() => void>()

  constructor(client: Client, options: LoadOptions) {
    this.client = client
    this.options = options
    this.sent = new Uint32Array(options.keys)
    this.floor = new Uint32Array(options.keys)
    this.replies = Array.from({ length: options.counters ?? 0 }, () => new Set<number>())
    this.padding = ' '.repeat(Math.max(0, (options.valueBytes ?? 0) - 10))
  }

  get keys(): number {
    return this.options.keys
  }

  /** Writes every key once. */
  async fill(sessions = 64): Promise<void> {
    let next = 0
    await Promise.all(
      Array.from({ length: sessions }, async () => {
        const session = this.client.session()
        while (next < this.keys) await this.write(session, next++)
      }),
    )
  }

  /** Writes, reads and increments until `stop`. */
  start(): void {
    const { writers, readers, incrementers = 0 } = this.options
    const forever = async (work: () => Promise<void>) => {
      try {
        while (!this.isStopping && this.failure === null) {
          await work()
          if (thinkMs > 0) await new Promise(resolve => setTimeout(resolve, thinkMs))
        }
      } catch (error) {
        this.failure ??= error as Error
      }
    }
    this.isStopping = false
    const clients = []
    for (let writer = 0; writer < writers; writer++) {
      const session = this.client.session()
      const own = Math.floor((this.keys - 1 - writer) / writers) + 1
      clients.push(forever(() => this.write(session, writer + writers * random(own))))
    }
    for (let reader = 0; reader < readers; reader++)
      clients.push(forever(() => this.read(random(this.keys), this.options.pick)))
    for (let each = 0; each < incrementers; each++) {
      const session = this.client.session()
      clients.push(forever(() => this.increment(session, random(this.replies.length))))
    }
    this.running = Promise.all(clients)
  }

  /** Resolves after so many more acknowledged writes (of registers or counters). */
  async writesMore(count: number): Promise<void> {
    const until = this.counts.writes + this.counts.increments + count
    await new Promise<void>((resolve, reject) => {
      const check = () => {
        if (this.failure === null && this.counts.writes + this.counts.increments < until) return
        this.listeners.delete(check)
        if (this.failure === null) resolve()
        else reject(this.failure)
      }
      this.listeners.add(check)
    })
  }

  /** Ends the load; what is under way is settled first. */
  async stop(): Promise<void> {
    this.isStopping = true
    await this.running
    if (this.failure !== null) throw this.failure
  }

  /** Every key, through every one of these nodes. */
  async verify(addresses: readonly string[], clients = 64): Promise<void> {
    const total = this.keys * addresses.length
    let next = 0
    await Promise.all(
      Array.from({ length: clients }, async () => {
        while (next < total) {
          const each = next++
          const address = addresses[each % addresses.length]!
          await this.read(Math.floor(each / addresses.length), () => address)
        }
      }),
    )
    for (const [counter, replies] of this.replies.entries()) {
      const name = this.counterName(counter)
      for (const address of addresses) {
        const response = await this.client.read(
          () => address,
          { command: 'GET', key: name },
          Date.now() + patienceMs,
        )
        const value = numberOf(response)
        if (value !== replies.size)
          this.violate(`${name} is ${value} through ${address} after ${replies.size} increments`)
      }
    }
  }

  private async write(session: Session, key: number): Promise<void> {
    const version = ++this.sent[key]!
    const retriedBefore = session.retried
    const args = [`${version}${this.padding}`]
    await session.write(
      this.options.pick,
      { command: 'SET', key: this.keyName(key), args },
      Date.now() + patienceMs,
    )
    this.floor[key] = Math.max(this.floor[key]!, version)
    this.counts.retried += session.retried - retriedBefore
    this.counts.writes += 1
    for (const listener of this.listeners) listener()
  }

  /** One judged read. */
  async read(key: number, pick: () => string): Promise<void> {
    const floor = this.floor[key]!
    const name = this.keyName(key)
    let address = ''
    const choose = () => {
      address = pick()
      return address
    }
    const response = await this.client.read(choose, { command: 'GET', key: name }, Date.now() + patienceMs)
    const value = numberOf(response)
    const sent = this.sent[key]!
    if (value < floor) {
      const what = response.response === undefined ? 'not found' : String(value)
      this.violate(`${name} is ${what} through ${address}, though ${floor} was known before the read began`)
    } else if (value > sent || Number.isNaN(value))
      this.violate(`${name} is ${value} through ${address}, though only ${sent} were written`)
    else this.floor[key] = Math.max(this.floor[key]!, value)
    this.counts.reads += 1
  }

  private async increment(session: Session, counter: number): Promise<void> {
    const name = this.counterName(counter)
    const retriedBefore = session.retried
    const response = await session.write(
      this.options.pick,
      { command: 'INCR', key: name },
      Date.now() + patienceMs,
    )
    const replies = this.replies[counter]!
    const value = numberOf(response)
    if (replies.has(value)) this.violate(`two increments of ${name} were answered ${value}`)
    replies.add(value)
    this.counts.retried += session.retried - retriedBefore
    this.counts.increments += 1
    for (const listener of this.listeners) listener()
  }

  private keyName(key: number): string {
    return `${this.options.prefix}:${key}`
  }

  private counterName(counter: number): string {
    return `${this.options.prefix}:counter:${counter}`
  }

  private violate(what: string): void {
    if (this.violations.length < violationsMax) this.violations.push(what)
  }
}

/** The number in a value or a count; 0 of a missing key. */
export function numberOf({ response }: CommandResponse): number {
  switch (response?.$case) {
    case undefined:
      return 0
    case 'value':
      return Number(response.value.toString('latin1'))
    case 'count':
      return Number(response.value)
    default:
      return Number.NaN
  }
}

/** A value as text; null of a missing key. */
export function textOf({ response }: CommandResponse): string | null {
  return response?.$case === 'value' ? response.value.toString() : null
}

function random(below: number): number {
  return Math.floor(Math.random() * below)
}
