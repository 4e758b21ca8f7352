/**
 * A cluster of detectors on a simulated network: each ticks once an interval at its own phase, exchanges views with the
 * members it names, and calls get lost, cut off or delayed. One seed, one run.
 */

import { Detector, type DetectorSettings, defaultSettings } from '../../src/gossip/detector.ts'
import type { MemberState } from '../../src/gossip/member.ts'
import type { Change, Registration } from '../../src/gossip/view.ts'
import { Prng } from '../../src/lib/prng.ts'

export interface Seen {
  readonly at: number
  readonly by: string
  readonly change: Change
}

export function registration(index: number): Registration {
  return {
    nodeId: `node${index}`,
    storeId: `store${index}`,
    peerAddress: `10.0.0.${index}:7000`,
    clientAddress: `host${index}:8080`,
    zone: '',
  }
}

export class Network {
  readonly nodes: Detector[]
  readonly interval: number
  readonly seen: Seen[] = []
  now = 0
  calls = 0
  failedCalls = 0
  /** Chance that a request is lost, and again that its answer is. */
  loss = 0
  /** Whether `from` can call `to`. */
  connects: (from: number, to: number) => boolean = () => true
  private readonly stopped = new Set<number>()
  private readonly random: Prng
  private readonly phases: number[]
  private beats = 0

  constructor(count: number, seed: number, settings: DetectorSettings = defaultSettings()) {
    this.random = new Prng(seed)
    this.interval = settings.heartbeatIntervalMs
    this.phases = Array.from({ length: count }, () => this.random.below(this.interval))
    this.nodes = Array.from(
      { length: count },
      (_, i) => new Detector({ ...registration(i), incarnation: 1 }, settings, this.random.fork(), 0),
    )
    for (const node of this.nodes) {
      for (let i = 0; i < count; i++) node.register(registration(i))
      node.update({ state: 'alive' })
    }
  }

  stop(index: number): void {
    this.stopped.add(index)
  }

  resume(index: number): void {
    this.stopped.delete(index)
  }

  /** One interval: every running node ticks once, in the order of the phases. */
  round(): void {
    const start = this.beats++ * this.interval
    const order = this.nodes.map((_, i) => i).sort((a, b) => this.phases[a]! - this.phases[b]! || a - b)
    for (const index of order) {
      if (this.stopped.has(index)) continue
      this.now = start + this.phases[index]!
      const { probe, changes } = this.nodes[index]!.tick(this.now)
      this.note(index, changes)
      for (const nodeId of probe) this.exchange(index, Number(nodeId.slice(4)))
    }
  }

  /** Rounds until `holds`, at most `roundsMax`; -1 if it never does. */
  roundsUntil(holds: () => boolean, roundsMax: number): number {
    for (let round = 0; round <= roundsMax; round++) {
      if (holds()) return round
      this.round()
    }
    return -1
  }

  /** Whether all running nodes see all of `indexes` in `state`. */
  agreeOn(state: MemberState, indexes: readonly number[] = this.nodes.map((_, i) => i)): boolean {
    return this.nodes.every(
      (node, by) =>
        this.stopped.has(by) || indexes.every(index => node.view.member(`node${index}`)?.state === state),
    )
  }

  deaths(): Seen[] {
    return this.seen.filter(({ change }) => change.kind === 'state' && change.to === 'dead')
  }

  private exchange(from: number, to: number): void {
    const reaches = (a: number, b: number) => this.connects(a, b) && this.random.next() >= this.loss
    const caller = this.nodes[from]!
    const callee = this.nodes[to]!
    let answered = false
    if (!this.stopped.has(to) && reaches(from, to)) {
      this.note(to, callee.receive(caller.payload(), this.now))
      if (reaches(to, from)) {
        this.note(from, caller.receive(callee.payload(), this.now))
        answered = true
      }
    }
    this.calls++
    if (!answered) this.failedCalls++
    caller.noteCall(`node${to}`, answered)
  }

  private note(index: number, changes: readonly Change[]): void {
    for (const change of changes) this.seen.push({ at: this.now, by: `node${index}`, change })
  }
}
