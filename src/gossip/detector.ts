/**
 * Who is alive: a state machine over the view, with time and randomness passed in. Each interval the node raises its
 * heartbeat and names a few random members to exchange views with, and one that is suspect or dead, so that a healed
 * partition finds together. Heartbeats travel with the views: a member is judged by how long nothing newer of it was
 * heard, by whatever way. A failed call says nothing by itself (SWIM §3.1 asks others before it suspects; here the others'
 * views are that answer), so one lost message never marks anybody.
 *
 * Silence is measured on a clock that runs only while this node runs: after a pause (stopped, swapped, a laptop's lid)
 * everybody gets a fresh period of grace, else the sleeper would wake and declare the cluster dead.
 */
import { assert } from '../lib/assert.ts'
import type { Random } from '../lib/prng.ts'
import { compareVersions, isAccused, type MemberDetails, type MemberRecord } from './member.ts'
import { type Change, membersMax, type Registration, View } from './view.ts'

export interface DetectorSettings {
  /** `heartbeat_interval`, in ms. */
  readonly heartbeatIntervalMs: number
  /** `gossip_peer_count`: random members a heartbeat. */
  readonly gossipPeerCount: number
  /** Silence after which a member is suspect, and after which it is dead. */
  readonly suspectAfterMs: number
  readonly deadAfterMs: number
}

/** Seven and fifteen missed heartbeats. */
export function defaultSettings(heartbeatIntervalMs = 1000, gossipPeerCount = 2): DetectorSettings {
  return {
    heartbeatIntervalMs,
    gossipPeerCount,
    suspectAfterMs: 7 * heartbeatIntervalMs,
    deadAfterMs: 15 * heartbeatIntervalMs,
  }
}

/** Ticks further apart than this many intervals mean that this node itself was away. */
export const pauseIntervals = 3
/** What a shorter gap counts at most: a slow node doubts itself rather than the others. */
const countedIntervalsMax = 1.5
/** A timer that fires this part of an interval early is on time. */
const earlyIntervals = 0.25

export interface TickResult {
  /** Nodes to exchange views with now: send `payload()`, give the answer to `receive`. */
  readonly probe: readonly string[]
  readonly changes: readonly Change[]
}

export class Detector {
  readonly view: View
  private readonly settings: DetectorSettings
  private readonly random: Random
  /** Milliseconds that this node was running: the clock of silence. */
  private awake = 0
  private lastTick: number
  private nextBeat: number
  /** By member: `awake` when something newer of it was last heard. */
  private readonly heard = new Map<string, number>()
  /** By dead member: `now` when it was found dead here. */
  private readonly down = new Map<string, number>()
  private readonly failedCalls = new Map<string, number>()

  constructor(
    self: Registration & { readonly incarnation: number },
    settings: DetectorSettings,
    random: Random,
    now: number,
  ) {
    assert(settings.heartbeatIntervalMs > 0, 'heartbeat interval must be positive')
    assert(Number.isInteger(settings.gossipPeerCount) && settings.gossipPeerCount >= 1, 'gossip peer count')
    assert(
      settings.deadAfterMs >= settings.suspectAfterMs &&
        settings.suspectAfterMs > settings.heartbeatIntervalMs,
      'heartbeat interval < suspect after ≤ dead after',
    )
    this.view = new View(self)
    this.settings = settings
    this.random = random
    this.lastTick = now
    this.nextBeat = now
  }

  /** Makes the node a member (the register says so); its silence counts from now. */
  register(member: Registration): Change[] {
    const changes = this.view.register(member)
    if (changes.some(change => change.kind === 'added')) {
      this.forget(member.nodeId)
      this.heard.set(member.nodeId, this.awake)
    }
    return changes
  }

  unregister(nodeId: string): Change[] {
    this.forget(nodeId)
    return this.view.unregister(nodeId)
  }

  /** What this node says of itself: its state, addresses, load, the shards it leads. Goes out with the next payload. */
  update(changed: Partial<MemberDetails> & { readonly state?: 'alive' | 'leaving' | 'left' }): Change[] {
    return this.view.update(changed)
  }

  /** Call it once an interval or more often; `now` never goes back. */
  tick(now: number): TickResult {
    assert(now >= this.lastTick, `time went back from ${this.lastTick} to ${now}`)
    const interval = this.settings.heartbeatIntervalMs
    const gap = now - this.lastTick
    this.lastTick = now
    this.awake += Math.min(gap, countedIntervalsMax * interval)
    if (gap > pauseIntervals * interval) this.grace()
    const isBeat = now >= this.nextBeat - earlyIntervals * interval
    if (isBeat) {
      this.view.beat()
      this.nextBeat = Math.max(this.nextBeat + interval, now + interval / 2)
    }
    const changes = this.judge(now)
    return { probe: isBeat && this.view.self.state !== 'left' ? this.choose() : [], changes }
  }

  /**
   * Merges a payload or an answer to one. Its first record is the sender's own. Unregistered senders and strangers among
   * the records come back as `ignored`; answer them all the same.
   */
  receive(records: readonly MemberRecord[], now: number): Change[] {
    const changes: Change[] = []
    records.slice(0, membersMax).forEach((record, i) => {
      const before = this.view.member(record.nodeId)
      const merged = this.view.merge(record)
      changes.push(...merged)
      const after = this.view.member(record.nodeId)
      if (before === undefined || after === undefined || before === this.view.self) return
      if (merged.some(change => change.kind === 'ignored')) return
      // The sender lives if this is no message from its past, whether or not its heartbeat came by another way before.
      const isNews = compareVersions(after, before) > 0 || (i === 0 && compareVersions(record, before) >= 0)
      if (isNews) this.heard.set(record.nodeId, this.awake)
    })
    const extra = records[membersMax]
    if (extra !== undefined) changes.push({ kind: 'ignored', nodeId: extra.nodeId, why: 'too-many' })
    this.noteDeaths(changes, now)
    return changes
  }

  /** The records to send: this node's first, at most `membersMax` in all. */
  payload(): MemberRecord[] {
    return this.view.records()
  }

  /** How a call to a member ended. A success is a sign of life; failures are only counted. */
  noteCall(nodeId: string, succeeded: boolean): void {
    if (!this.heard.has(nodeId)) return
    if (!succeeded) {
      this.failedCalls.set(nodeId, this.failedCallsOf(nodeId) + 1)
      return
    }
    this.failedCalls.delete(nodeId)
    this.heard.set(nodeId, this.awake)
  }

  /** Calls to the member that failed since the last one that succeeded. */
  failedCallsOf(nodeId: string): number {
    return this.failedCalls.get(nodeId) ?? 0
  }

  /** `now` of the tick or message that found the member dead, as long as it stays dead; else null. */
  downSince(nodeId: string): number | null {
    return this.down.get(nodeId) ?? null
  }

  private grace(): void {
    for (const nodeId of this.heard.keys()) this.heard.set(nodeId, this.awake)
  }

  private judge(now: number): Change[] {
    const changes: Change[] = []
    for (const { nodeId, state } of [...this.view.otherMembers()]) {
      if (state === 'left' || state === 'dead') continue
      const silence = this.awake - this.heard.get(nodeId)!
      if (silence >= this.settings.deadAfterMs) changes.push(...this.view.accuse(nodeId, 'dead'))
      else if (silence >= this.settings.suspectAfterMs && state !== 'suspect') {
        changes.push(...this.view.accuse(nodeId, 'suspect'))
      }
    }
    this.noteDeaths(changes, now)
    return changes
  }

  private noteDeaths(changes: readonly Change[], now: number): void {
    for (const change of changes) {
      if (change.kind !== 'state' || change.nodeId === this.view.self.nodeId) continue
      if (change.to === 'dead') this.down.set(change.nodeId, now)
      else this.down.delete(change.nodeId)
    }
  }

  /** Random members to talk to: `gossipPeerCount` that live, one that seems not to, more of those where few live. */
  private choose(): string[] {
    const up: string[] = []
    const downs: string[] = []
    for (const { nodeId, state } of this.view.otherMembers()) {
      if (state !== 'left') (isAccused(state) ? downs : up).push(nodeId)
    }
    const chosen = this.draw(up, this.settings.gossipPeerCount)
    return [...chosen, ...this.draw(downs, this.settings.gossipPeerCount + 1 - chosen.length)]
  }

  /** At most `count` of `ids`, each equally likely (Fisher, Yates). */
  private draw(ids: string[], count: number): string[] {
    const drawn = Math.min(count, ids.length)
    for (let i = 0; i < drawn; i++) {
      const j = i + this.random.below(ids.length - i)
      const swapped = ids[i]!
      ids[i] = ids[j]!
      ids[j] = swapped
    }
    return ids.slice(0, drawn)
  }

  private forget(nodeId: string): void {
    this.heard.delete(nodeId)
    this.down.delete(nodeId)
    this.failedCalls.delete(nodeId)
  }
}
