import type { Command } from '../commands/command.ts'
import { RoundhouseError } from '../errors.ts'
import type { Clock } from '../lib/clock.ts'
import type { Host } from '../shard/host.ts'
import type { Replica } from '../shard/replica.ts'
import type { Peers } from './ports.ts'

/**
 * Who waits at the tail of a partition, and who wakes him: the replica of this node that applies what comes next. Nobody
 * looks now and then: an idle follower costs a row in a map. Where this node has no replica of the partition's shard, one
 * long question to a node that has (for all who wait here together) takes its place; that node answers it when its own
 * replica has applied something, or when the question is old.
 */
export interface TailsOptions {
  readonly host: Pick<Host, 'group'>
  readonly peers: Pick<Peers, 'ask'>
  readonly clock: Clock
  /** Nodes that have a replica, the likeliest leader first, without this one. */
  readonly candidates: (shard: number) => readonly string[]
  readonly addressOf: (node: string) => string | null
}

export interface TailPlace {
  readonly shard: number
  /** Of the stream. */
  readonly id: number
  readonly partition: number
}

/** What one node asks another. */
export interface WaitRequest extends TailPlace {
  readonly offset: number
  readonly timeoutMs: number
}

export const tailLimits = {
  /** Waiting at this node, for itself and for others. */
  waitersMax: 10_000,
  /** How long another node is asked to wait before it is asked again. */
  askMs: 20_000,
  /** What the way there and back may take on top. */
  askSlackMs: 5_000,
  /** A replica may come or go without anything being applied: as often as that, while somebody waits. */
  lookMs: 1_000,
  retryMs: { min: 20, max: 1_000 },
} as const

interface Waiter {
  readonly offset: number
  readonly settle: (isMore: boolean) => void
  readonly fail: (error: RoundhouseError) => void
}

interface Tail extends TailPlace {
  readonly waiters: Set<Waiter>
  /** What others said of the end; only where there is no replica here. */
  knownEnd: number
  isAsking: boolean
}

/** Not of the clients' table: it answers from a row, without looking at the disk. */
function endOf({ id, partition }: TailPlace): Command {
  return {
    name: 'STREAM.END',
    summary: 'The end of a partition',
    usage: '',
    arity: { min: 0, max: 0 },
    keys: 'none',
    access: 'read',
    isInternal: true,
    run: keyspace => ({
      kind: 'count',
      count: keyspace.partitions.find({ stream: id, partition })?.end ?? 0,
    }),
  }
}

export class StreamTails {
  private readonly options: TailsOptions
  private readonly tails = new Map<number, Map<string, Tail>>()
  private waiters = 0
  private cancelLook: (() => void) | null = null
  private isStopped = false

  constructor(options: TailsOptions) {
    this.options = options
  }

  /** Waiting now. */
  get size(): number {
    return this.waiters
  }

  /**
   * Resolves true when there may be more than `offset`, false after `timeoutMs` or when the signal says so. Rejects
   * OVERLOADED, and SHUTTING_DOWN: whoever was told "not yet" would ask again at once, for ever.
   */
  async wait(place: TailPlace, offset: number, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
    if (this.isStopped) throw new RoundhouseError('SHUTTING_DOWN', {})
    if (signal?.aborted === true) return false
    const replica = this.replicaOf(place.shard)
    const found = this.tails.get(place.shard)?.get(nameOf(place))
    const end = replica === null ? (found?.knownEnd ?? 0) : this.endAt(replica, place)
    if (end > offset) return true
    if (this.waiters >= tailLimits.waitersMax)
      throw new RoundhouseError('OVERLOADED', {
        what: 'followers of streams at this node',
        max: tailLimits.waitersMax,
      })
    const tail = found ?? this.add(place)
    return new Promise((resolve, reject) => {
      const leave = () => {
        if (!tail.waiters.delete(waiter)) return false
        this.waiters--
        cancelTimer()
        signal?.removeEventListener('abort', onAbort)
        if (tail.waiters.size === 0) this.remove(tail)
        return true
      }
      const waiter: Waiter = {
        offset,
        settle: isMore => {
          if (leave()) resolve(isMore)
        },
        fail: error => {
          if (leave()) reject(error)
        },
      }
      const onAbort = () => waiter.settle(false)
      const cancelTimer = this.options.clock.after(timeoutMs, () => waiter.settle(false))
      signal?.addEventListener('abort', onAbort, { once: true })
      tail.waiters.add(waiter)
      this.waiters++
      this.lookLater()
      if (replica === null) {
        // Whoever waits behind an offset has seen that it is there.
        this.learn(tail, offset)
        void this.ask(tail)
      }
    })
  }

  /** Another node's question: answers the end as it is here, at the latest after the time that it gives. */
  async answer(request: WaitRequest): Promise<{ readonly end: number }> {
    const { shard, offset } = request
    if (this.replicaOf(shard) === null)
      throw new RoundhouseError('NOT_READY', { why: `it has no replica of shard ${shard}` })
    await this.wait(request, offset, Math.min(request.timeoutMs, tailLimits.askMs))
    const replica = this.replicaOf(shard)
    return { end: replica === null ? 0 : this.endAt(replica, request) }
  }

  /** A replica of this node has applied something. */
  progressed(replica: Replica): void {
    const tails = this.tails.get(replica.group)
    if (tails === undefined) return
    for (const tail of [...tails.values()]) this.wake(tail, this.endAt(replica, tail))
  }

  /** The stream is gone: whoever waits shall find out. */
  dropped(id: number): void {
    for (const tails of [...this.tails.values()])
      for (const tail of [...tails.values()]) if (tail.id === id) this.wake(tail, Number.POSITIVE_INFINITY)
  }

  stop(): void {
    this.isStopped = true
    this.cancelLook?.()
    for (const tails of [...this.tails.values()])
      for (const tail of [...tails.values()])
        for (const waiter of [...tail.waiters]) waiter.fail(new RoundhouseError('SHUTTING_DOWN', {}))
  }

  private replicaOf(shard: number): Replica | null {
    const replica = this.options.host.group(shard)
    return replica === undefined || replica.halted !== null ? null : replica
  }

  private endAt(replica: Replica, place: TailPlace): number {
    const reply = replica.peek(endOf(place), [])
    return reply?.kind === 'count' ? Number(reply.count) : 0
  }

  private wake(tail: Tail, end: number): void {
    for (const waiter of [...tail.waiters]) if (waiter.offset < end) waiter.settle(true)
  }

  private learn(tail: Tail, end: number): void {
    if (end <= tail.knownEnd) return
    tail.knownEnd = end
    this.wake(tail, end)
  }

  private add({ shard, id, partition }: TailPlace): Tail {
    const tail: Tail = { shard, id, partition, waiters: new Set(), knownEnd: 0, isAsking: false }
    const tails = this.tails.get(shard)
    if (tails === undefined) this.tails.set(shard, new Map([[nameOf(tail), tail]]))
    else tails.set(nameOf(tail), tail)
    return tail
  }

  private remove(tail: Tail): void {
    const tails = this.tails.get(tail.shard)
    if (tails?.get(nameOf(tail)) !== tail) return
    tails.delete(nameOf(tail))
    if (tails.size === 0) this.tails.delete(tail.shard)
  }

  private lookLater(): void {
    if (this.cancelLook !== null) return
    this.cancelLook = this.options.clock.after(tailLimits.lookMs, () => {
      this.cancelLook = null
      for (const [shard, tails] of [...this.tails]) {
        const replica = this.replicaOf(shard)
        if (replica !== null) this.progressed(replica)
        else for (const tail of tails.values()) void this.ask(tail)
      }
      if (this.tails.size > 0 && !this.isStopped) this.lookLater()
    })
  }

  /** Asks others for as long as somebody waits and no replica is here. */
  private async ask(tail: Tail): Promise<void> {
    if (tail.isAsking) return
    tail.isAsking = true
    for (let attempt = 0; tail.waiters.size > 0 && !this.isStopped; ) {
      if (this.replicaOf(tail.shard) !== null) break
      const end = await this.askOnce(tail, attempt)
      if (end !== null) {
        attempt = 0
        this.learn(tail, end)
        continue
      }
      const pauseMs = Math.min(tailLimits.retryMs.max, tailLimits.retryMs.min * 2 ** attempt++)
      await new Promise<void>(resolve => void this.options.clock.after(pauseMs, resolve))
    }
    tail.isAsking = false
  }

  /** null: nobody answered. */
  private async askOnce({ shard, id, partition, waiters }: Tail, attempt: number): Promise<number | null> {
    const { candidates, addressOf, peers } = this.options
    const nodes = candidates(shard)
    const address = nodes.length === 0 ? null : addressOf(nodes[attempt % nodes.length]!)
    if (address === null) return null
    const offset = Math.min(...[...waiters].map(waiter => waiter.offset))
    const { askMs, askSlackMs } = tailLimits
    const request: WaitRequest = { shard, id, partition, offset, timeoutMs: askMs }
    try {
      const answer = await peers.ask(address, 'STREAM.WAIT', JSON.stringify(request), askMs + askSlackMs)
      const { end } = JSON.parse(answer) as { end: unknown }
      return Number.isSafeInteger(end) ? (end as number) : null
    } catch {
      return null
    }
  }
}

/** Throws INVALID_ARGUMENT. */
export function readWaitRequest(request: unknown): WaitRequest {
  const { shard, id, partition, offset, timeoutMs } = request as Record<keyof WaitRequest, unknown>
  const numbers = [shard, id, partition, offset, timeoutMs]
  if (!numbers.every(each => Number.isSafeInteger(each) && (each as number) >= 0))
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: 'question STREAM.WAIT',
      accepted: 'shard, id, partition, offset and timeoutMs, all integers',
    })
  return request as WaitRequest
}

function nameOf({ id, partition }: TailPlace): string {
  return `${id}/${partition}`
}
