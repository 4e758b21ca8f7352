/**
 * Brings a call to its reply: to the leader of its key first, along hints, around nodes that don't answer, until its time
 * is up. A write keeps its session and sequence through all attempts, so it is applied once however often it is sent;
 * when nobody has said what became of it, it is given up as unknown.
 *
 *   execute → [ queue, bounded ] → [ in flight, bounded ] → lane or single call → settled
 *
 * While its leader is known a call asks that node not to forward it: the refusal names the new leader, and so the client
 * learns. When no leader is known, or it does not answer, any other node gets the call and forwards it, waiting for an
 * election if there is one.
 */
import { type ServiceError, status } from '@grpc/grpc-js'
import { splitAddress } from './addresses.ts'
import {
  aborted,
  type Call,
  type CallSpec,
  cutOff,
  type EngineReply,
  givenUp,
  lateFailure,
  newCall,
  refused,
  requestOf,
} from './call.ts'
import type { CallError } from './call-error.ts'
import { type Failure, unreachable } from './failure.ts'
import type { Answer } from './lane.ts'
import { Line } from './line.ts'
import { NodeLink } from './node-link.ts'
import { probe } from './probe.ts'
import { Sessions, type Ticket } from './sessions.ts'
import { ShardMap } from './shard-map.ts'
import type { Security } from './tls.ts'

export interface EngineOptions {
  readonly addresses: readonly string[]
  readonly security: Security
  readonly userAgent: string
  /** Calls that may be on their way at one time. */
  readonly inFlightMax: number
  /** Calls that may wait behind them, and bytes of arguments of both. */
  readonly queueMax: number
  readonly bytesMax: number
  readonly retry: RetryPolicy
}

export interface RetryPolicy {
  /** Attempts of one call; 1: none is repeated (but hints are followed). */
  readonly attemptsMax: number
  /** A node that has not answered after this long is given up and another one asked, ms. */
  readonly attemptMs: number
  /** Pause before an attempt: from min, doubled each time, to max, ms. */
  readonly pauseMs: { readonly min: number; readonly max: number }
}

/** Work beside commands, such as records on their way. */
export interface Guest {
  /** The client is destroyed: ends with CLOSED, and leaves. */
  destroy(): void
}

export interface GuestFacts {
  /** For errors, upper case. */
  readonly name: string
  readonly bytes: number
  readonly signal: AbortSignal | null
}

/** Hints followed without a pause: after so many, nodes contradict each other. */
const redirectsMax = 3
/** Nothing is sent that has less than this until its deadline. */
const attemptMsMin = 5
/** A node is told a little less than the caller waits, so that what it says of a failure still arrives. */
const answerMsMax = 100
/** Maps are asked for no more often than this, however much there is to doubt. */
const mapPauseMs = 200
/** A map of this age is renewed when the client is used: nodes come and go without refusals. */
const mapAgeMsMax = 60_000
const mapTimeoutMs = 2_000
/** Of one node that does not answer when a client connects. */
const connectPauseMs = 100

export class Engine {
  private readonly options: EngineOptions
  private readonly map: ShardMap
  private readonly links = new Map<string, NodeLink>()
  private readonly sessions = new Sessions()
  private readonly calls = new Set<Call>()
  private readonly watches = new Set<{ close(): void }>()
  private readonly guests = new Set<Guest>()
  private queue: Call[] = []
  private queueHead = 0
  private isAdmitting = false
  private inFlight = 0
  private bytes = 0
  /** Ordered calls under way, by place: a read behind one of them must not overtake it. */
  private readonly lines = new Map<number, Line<Call>>()
  private readonly aborts = new WeakMap<AbortSignal, Set<Call>>()
  private turn = Math.floor(Math.random() * 1024)
  private mapAskedMs = Number.NEGATIVE_INFINITY
  private mapAsking: Promise<void> | null = null
  private mapTimer: NodeJS.Timeout | null = null
  private isClosing = false
  private isDestroyed = false
  private onIdle: (() => void) | null = null
  private closed: Promise<void> | null = null

  constructor(options: EngineOptions) {
    this.options = options
    this.map = new ShardMap(options.addresses)
  }

  /** Resolves when a node has answered with the map, or with why it gives none. Rejects at the deadline. */
  async connect(timeoutMs: number, signal: AbortSignal | null): Promise<void> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      for (const address of this.options.addresses) {
        if (signal?.aborted) throw aborted('', signal)
        const link = this.link(address)
        if (!(await link.ready())) continue
        await this.refresh()
        return
      }
      if (performance.now() + connectPauseMs >= deadline) break
      await new Promise(resolve => setTimeout(resolve, connectPauseMs))
    }
    throw refused('', 'UNREACHABLE', `no node answers: ${await this.whyUnreachable()}`)
  }

  /** Rejects with CallError. */
  execute(spec: CallSpec): Promise<EngineReply> {
    return new Promise((resolve, reject) => {
      const bytes = spec.args.reduce((sum, arg) => sum + arg.byteLength, 0)
      const refusal = this.refusalOf(spec, bytes)
      if (refusal !== null) {
        reject(refusal)
        return
      }
      const call = newCall(spec, bytes, resolve, reject)
      this.bytes += bytes
      this.calls.add(call)
      if (spec.signal !== null) this.listen(call, spec.signal)
      if (this.waiting > 0 || !this.admit(call)) {
        this.queue.push(call)
        this.wait(call, call.deadlineMs)
      }
    })
  }

  /**
   * A node for a call of its own: the leader of the key, else any that answers, another than `not` where there is one. null: it can't
   * be reached.
   */
  async nodeFor(key: Buffer | null, not: string | null): Promise<NodeLink | null> {
    const leader = key === null ? null : this.map.leaderOf(this.map.placeOf(key))
    const isWell = leader !== null && leader !== not && !this.link(leader).isSuspect
    const link = this.link(isWell ? leader : this.anyNode({ address: not, tries: 0 }))
    if (await link.ready()) return link
    link.suspect()
    this.refreshSoon()
    return null
  }

  /** It is closed with the client. False: the client is closed already. */
  watching(watch: { close(): void }): boolean {
    if (!this.isClosing) this.watches.add(watch)
    return !this.isClosing
  }

  unwatch(watch: { close(): void }): void {
    this.watches.delete(watch)
  }

  /** Closing waits for it, and the limits count it. What it is refused with; null: it is in, and leaves when it is settled. */
  enter(guest: Guest, { name, bytes, signal }: GuestFacts): CallError | null {
    const refusal = this.refusalOf({ command: name, signal }, bytes)
    if (refusal !== null) return refusal
    const { inFlightMax, queueMax } = this.options
    if (this.guests.size >= inFlightMax + queueMax) {
      const text = `too many calls: ${this.guests.size} are not answered, which is the limit (maxInFlight and maxQueued)`
      return refused(name, 'QUEUE_FULL', text)
    }
    this.bytes += bytes
    this.guests.add(guest)
    return null
  }

  leave(guest: Guest, bytes: number): void {
    if (!this.guests.delete(guest)) return
    this.bytes -= bytes
    this.settled()
  }

  /** For one write; null: too many hang. */
  ticket(): Ticket | null {
    return this.sessions.take()
  }

  get retry(): RetryPolicy {
    return this.options.retry
  }

  /** `address` did not answer as the leader of the key does. */
  doubt(key: Buffer | null, address: string): void {
    if (key !== null) this.map.forget(this.map.placeOf(key), address)
    this.refreshSoon()
  }

  /** One listener a signal, however many calls it has: Node.js warns of many. */
  private listen(call: Call, signal: AbortSignal): void {
    let calls = this.aborts.get(signal)
    if (calls === undefined) {
      const listening = new Set<Call>()
      calls = listening
      this.aborts.set(signal, calls)
      const onAbort = () => {
        for (const each of listening) this.fail(each, aborted(each.command, signal, each))
      }
      signal.addEventListener('abort', onAbort, { once: true })
    }
    calls.add(call)
  }

  /** Takes no more calls; resolves when those that it has are settled. */
  close(): Promise<void> {
    this.isClosing = true
    for (const watch of [...this.watches]) watch.close()
    this.closed ??= new Promise<void>(resolve => {
      this.onIdle = resolve
      if (this.isIdle) resolve()
    }).then(() => this.end())
    return this.closed
  }

  /** Settles all calls now: what was not sent is refused, of writes under way the outcome is unknown. */
  destroy(): Promise<void> {
    this.isDestroyed = true
    const closed = this.close()
    for (const call of [...this.calls]) this.fail(call, cutOff(call))
    for (const guest of [...this.guests]) guest.destroy()
    return closed
  }

  private get isIdle(): boolean {
    return this.calls.size === 0 && this.guests.size === 0
  }

  private end(): void {
    if (this.mapTimer !== null) clearTimeout(this.mapTimer)
    for (const link of this.links.values()) link.close()
    this.links.clear()
  }

  // --- Admission ----------------------------------------------------------------------------------------------------

  private get waiting(): number {
    return this.queue.length - this.queueHead
  }

  private refusalOf(
    { command, signal }: Pick<CallSpec, 'command' | 'signal'>,
    bytes: number,
  ): CallError | null {
    const { queueMax, bytesMax } = this.options
    if (this.isClosing) return refused(command, 'CLOSED', 'the client is closed')
    if (signal?.aborted) return aborted(command, signal)
    if (!this.hasRoom && this.waiting >= queueMax) {
      const text = `too many calls: ${this.inFlight} are under way and ${queueMax} wait, which is the limit (maxQueued)`
      return refused(command, 'QUEUE_FULL', text)
    }
    if (this.bytes + bytes > bytesMax && !this.isIdle) {
      const text = `too many bytes: calls under way and waiting may hold ${bytesMax} (maxBytes)`
      return refused(command, 'QUEUE_FULL', text)
    }
    return null
  }

  private get hasRoom(): boolean {
    return this.waiting === 0 && this.inFlight < this.options.inFlightMax
  }

  /** False: it has to wait. */
  private admit(call: Call): boolean {
    if (this.inFlight >= this.options.inFlightMax) return false
    if (call.access === 'write') {
      call.ticket = this.sessions.take()
      if (call.ticket === null) return false
    }
    call.isInFlight = true
    this.inFlight++
    this.locate(call)
    this.standInLine(call)
    this.attempt(call)
    return true
  }

  private standInLine(call: Call): void {
    const { place, access, isStale, isOrdered } = call
    if (place === null || isStale) return
    let line = this.lines.get(place)
    if (access === 'read' && !isOrdered && line === undefined) return
    if (line === undefined) {
      line = new Line(place)
      this.lines.set(place, line)
    }
    line.add(call)
    call.line = line
  }

  /** What is settled on the way would come back here: the loop goes on with it, at any depth of the queue. */
  private admitMore(): void {
    if (this.isAdmitting) return
    this.isAdmitting = true
    try {
      while (this.waiting > 0 && !this.isDestroyed) {
        const call = this.queue[this.queueHead]!
        const isLate = !call.isSettled && call.deadlineMs - performance.now() < attemptMsMin
        if (isLate) this.outOfPatience(call)
        else if (!call.isSettled && !this.admit(call)) return
        this.queueHead++
        if (this.queueHead === this.queue.length || this.queueHead >= 1024) {
          this.queue.splice(0, this.queueHead)
          this.queueHead = 0
        }
      }
    } finally {
      this.isAdmitting = false
    }
  }

  // --- One attempt --------------------------------------------------------------------------------------------------

  private attempt(call: Call): void {
    if (call.isSettled) return
    call.cancel = null
    call.lane = null
    // Between attempts the map may have come, or changed.
    if (call.generation > 0) this.locate(call)
    const target = this.target(call)
    const link = this.link(target.address)
    if (call.line?.mayGo(call, !target.isLeader || !link.isReady) === false) {
      this.wait(call, call.deadlineMs)
      return
    }
    call.isUnderWay = true
    call.isToLeader = target.isLeader
    call.address = target.address
    const number = ++call.generation
    const { attemptMs } = this.options.retry
    this.wait(call, Math.min(call.deadlineMs, performance.now() + attemptMs))
    const settle = (answer: Answer) => this.answered(call, number, link.address, answer)
    if (link.isReady) this.send(call, link, settle)
    else {
      void link.ready().then(isReady => {
        if (call.isSettled || number !== call.generation) return
        if (isReady) this.send(call, link, settle)
        else {
          link.suspect()
          settle({ ok: false, failure: unreachable(link.address, 'no connection') })
        }
      })
    }
  }

  private locate(call: Call): void {
    const [first] = call.keys
    const place = first === undefined ? null : this.map.placeOf(first)
    const isOne = call.keys.every(key => key === first || this.map.placeOf(key) === place)
    call.place = isOne ? place : null
  }

  private target(call: Call): { readonly address: string; readonly isLeader: boolean } {
    const { place, hint } = call
    if (place !== null && !call.isStale && !call.mustForward) {
      const leader = hint ?? this.map.leaderOf(place)
      if (leader !== null && !this.link(leader).isSuspect) return { address: leader, isLeader: true }
      // Without a map one node is as good as another, and its refusal tells who leads.
      if (leader === null && !this.map.isKnown) return { address: this.anyNode(call), isLeader: true }
    }
    return { address: this.anyNode(call), isLeader: false }
  }

  /** Another one than the last, one that answers where there is one. */
  private anyNode(call: Pick<Call, 'address' | 'tries'>): string {
    const all = this.map.addresses()
    const others = all.filter(address => address !== call.address)
    const candidates = others.length > 0 ? others : all
    const well = candidates.filter(address => !this.link(address).isSuspect)
    const ready = well.filter(address => this.link(address).isReady)
    // At first all that are not known to be in trouble, so that the work is spread; after a failure a sure one.
    const among = ready.length > 0 && call.tries > 0 ? ready : well.length > 0 ? well : candidates
    return among[this.turn++ % among.length]!
  }

  private send(call: Call, link: NodeLink, settle: (answer: Answer) => void): void {
    const request = requestOf(call)
    call.attempts++
    call.isSent = true
    if (!call.isToLeader) {
      const left = Math.max(1, call.deadlineMs - performance.now())
      call.cancel = link.sendAlone(request, Math.max(1, left - Math.min(answerMsMax, left / 10)), settle)
    } else if (call.line === null) call.lane = link.sendRead(request, settle)
    else call.lane = link.sendOrdered(call.place!, request, settle)
  }

  private answered(call: Call, number: number, address: string, answer: Answer): void {
    if (answer.ok || answer.failure.isHeard) this.links.get(address)?.heard()
    if (call.isSettled) return
    if (answer.ok) {
      // Also of an attempt that was given up: the sequence is the same, and so is the reply.
      if (call.mustForward && call.place !== null) this.refreshSoon()
      if (call.isToLeader) call.line?.trust()
      this.settle(call, true)
      call.resolve({ response: answer.response, address })
      return
    }
    if (number === call.generation) this.failed(call, address, answer.failure)
  }

  // --- After a failure ----------------------------------------------------------------------------------------------

  private failed(call: Call, address: string, failure: Failure): void {
    call.last = failure
    call.isSent = false
    if (call.access === 'write' && failure.outcome === 'unknown') call.undecided ??= failure
    if (failure.retry === 'never') {
      this.giveUp(call)
      return
    }
    const isHint = failure.retry === 'now' && call.place !== null && call.redirects < redirectsMax
    if (call.place !== null) {
      this.map.forget(call.place, address)
      call.hint = isHint ? this.map.learn(call.place, failure.leader) : null
      call.mustForward = !isHint
    }
    if (failure.code !== 'NOT_LEADER' || !isHint) this.refreshSoon()
    const now = performance.now()
    let pause = 0
    if (isHint) call.redirects++
    else {
      call.redirects = 0
      const { attemptsMax, pauseMs } = this.options.retry
      const tries = ++call.tries
      // A first try elsewhere needs no pause.
      if (tries > 1 || failure.code === 'OVERLOADED')
        pause = Math.min(pauseMs.max, pauseMs.min * 2 ** Math.max(0, tries - 2))
      if (tries >= attemptsMax || now + pause + attemptMsMin >= call.deadlineMs) {
        this.giveUp(call)
        return
      }
    }
    call.notBeforeMs = now + pause
    const { line } = call
    if (line === null) {
      call.isUnderWay = false
      this.afterPause(call)
      return
    }
    if (call.isUnderWay) line.cameBack(call)
    call.isUnderWay = false
    this.wait(call, call.deadlineMs)
    this.proceed(line)
  }

  private proceed(line: Line<Call>): void {
    for (const call of line.next()) if (!call.isPausing) this.afterPause(call)
  }

  private afterPause(call: Call): void {
    if (call.notBeforeMs <= performance.now()) {
      this.attempt(call)
      return
    }
    call.isPausing = true
    this.wait(call, call.notBeforeMs, () => {
      call.isPausing = false
      this.attempt(call)
    })
  }

  /** Where those before it found their leader, a call that came back looks again. */
  private forgetDetours(calls: readonly Call[]): void {
    for (const call of calls) {
      call.hint = null
      call.mustForward = false
      call.redirects = 0
    }
  }

  private leaveLine(call: Call, isAnswered: boolean): void {
    const { line } = call
    if (line === null) return
    line.remove(call, call.isUnderWay)
    call.isUnderWay = false
    if (line.size > 0) {
      if (isAnswered) this.forgetDetours(line.next())
      this.proceed(line)
      return
    }
    this.lines.delete(line.place)
  }

  /** One timer a call: the end of its attempt, of its pause, or of its time. */
  private wait(call: Call, atMs: number, then: () => void = () => this.outOfPatience(call)): void {
    if (call.timer !== null) clearTimeout(call.timer)
    call.timer = setTimeout(then, Math.max(0, atMs - performance.now()))
  }

  private outOfPatience(call: Call): void {
    const now = performance.now()
    const waitedMs = Math.round(now - call.startedMs)
    if (!call.isInFlight) {
      const text = `waited ${waitedMs} ms for its turn behind ${this.inFlight} calls under way`
      this.fail(call, refused(call.command, 'DEADLINE', text))
      return
    }
    // The timer rounds: the deadline may be a fraction ahead.
    const isOver = now >= call.deadlineMs - 2
    const address = call.address ?? ''
    if (!call.isUnderWay) {
      call.last ??= lateFailure(`waited ${waitedMs} ms behind earlier calls of its shard`)
      this.giveUp(call)
      return
    }
    if (!isOver) {
      const silentSince = now - this.options.retry.attemptMs
      // It is slow, but others before it are answered: sent again it would only be one more.
      if (call.lane !== null && call.lane.heardMs > silentSince) {
        this.wait(call, Math.min(call.deadlineMs, call.lane.heardMs + this.options.retry.attemptMs))
        return
      }
      // What hangs must not hold back what comes later.
      call.lane?.retire()
      const link = this.links.get(address)
      if (link !== undefined && link.heardMs <= silentSince) link.suspect()
    }
    call.cancel?.()
    call.generation++
    this.failed(call, address, {
      code: 'DEADLINE',
      text: `${address} did not answer`,
      leader: '',
      outcome: call.isSent ? 'unknown' : 'refused',
      retry: isOver ? 'never' : 'later',
      isAnswer: false,
      isHeard: false,
    })
  }

  private giveUp(call: Call): void {
    this.fail(call, givenUp(call))
  }

  private fail(call: Call, error: CallError): void {
    if (call.isSettled) return
    call.cancel?.()
    this.settle(call, false)
    call.reject(error)
  }

  private settle(call: Call, isAnswered: boolean): void {
    call.isSettled = true
    if (call.timer !== null) clearTimeout(call.timer)
    if (call.signal !== null) this.aborts.get(call.signal)?.delete(call)
    call.ticket?.settle()
    this.bytes -= call.bytes
    this.calls.delete(call)
    if (call.isInFlight) this.inFlight--
    this.leaveLine(call, isAnswered)
    if (this.waiting > 0) this.admitMore()
    this.settled()
  }

  private settled(): void {
    if (this.isIdle) this.onIdle?.()
    if (performance.now() - this.mapAskedMs > mapAgeMsMax) this.refreshSoon()
  }

  // --- Nodes --------------------------------------------------------------------------------------------------------

  private link(address: string): NodeLink {
    let link = this.links.get(address)
    if (link === undefined) {
      link = new NodeLink(address, this.options.security, this.options.userAgent)
      this.links.set(address, link)
    }
    return link
  }

  private refreshSoon(): void {
    if (this.isClosing || this.mapTimer !== null || this.mapAsking !== null) return
    const dueMs = Math.max(0, this.mapAskedMs + mapPauseMs - performance.now())
    this.mapTimer = setTimeout(() => {
      this.mapTimer = null
      void this.refresh()
    }, dueMs)
    this.mapTimer.unref()
  }

  /** Asks nodes that answer, one after another, until one gives a newer map. Never rejects: calls find their way without. */
  private refresh(): Promise<void> {
    this.mapAskedMs = performance.now()
    this.mapAsking ??= this.askForMap().finally(() => {
      this.mapAsking = null
    })
    return this.mapAsking
  }

  private async askForMap(): Promise<void> {
    const isKnownWell = (address: string) => !this.link(address).isSuspect
    const addresses = this.map.addresses()
    for (const address of [
      ...addresses.filter(isKnownWell),
      ...addresses.filter(each => !isKnownWell(each)),
    ]) {
      const link = this.link(address)
      if (this.isClosing || !(await link.ready())) continue
      const askedAt = this.map.mark()
      try {
        if (this.map.take(await link.map(mapTimeoutMs), askedAt)) break
      } catch (error) {
        // It does not give the map, and neither do the others: refusals will tell.
        if ((error as ServiceError).code === status.PERMISSION_DENIED) break
      }
    }
    this.dropLinks()
  }

  /** Links to nodes that are gone, once nobody waits for them. */
  private dropLinks(): void {
    const wanted = new Set(this.map.addresses())
    const used = new Set([...this.calls].map(call => call.address))
    for (const [address, link] of this.links) {
      if (wanted.has(address) || used.has(address)) continue
      this.links.delete(address)
      link.close()
    }
  }

  private async whyUnreachable(): Promise<string> {
    const certificates = this.options.security.certificates()
    const reasons = await Promise.all(
      this.options.addresses.map(async address => {
        const { host, port } = splitAddress(address)
        return `${address}: ${await probe(host, port, certificates)}`
      }),
    )
    return reasons.join('; ')
  }
}
