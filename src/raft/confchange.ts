/**
 * Configuration arithmetic (Raft §6): from one configuration and a list of changes to the next, or a refusal. Pure: the
 * tracker given is never touched, so a proposal can be tried before it is appended.
 *
 * The invariant is that quorums of a configuration and of its successor overlap. A simple change moves at most one
 * voter; everything else goes through a joint configuration, in which both majorities must agree.
 */
import { assert } from '../lib/assert.ts'
import { leavesJoint, transitionOf } from './conf-change.ts'
import type { Progress, ProgressTracker } from './tracker.ts'
import type { ConfChange, ConfChangeSingle, ConfState } from './types.ts'

export type ChangeRefusal =
  | 'alreadyJoint'
  | 'notJoint'
  | 'simpleInJoint'
  | 'zeroVoterJoint'
  | 'removedAllVoters'
  | 'moreThanOneVoter'

export type ChangeResult =
  | { readonly kind: 'changed'; readonly config: ConfState; readonly progress: Map<number, Progress> }
  | { readonly kind: 'refused'; readonly reason: ChangeRefusal }

const refused = (reason: ChangeRefusal): ChangeResult => ({ kind: 'refused', reason })

/** `lastIndex`: where probing of a new replica starts. It will mostly be refused and get a snapshot, which is right. */
export function change(tracker: ProgressTracker, lastIndex: number, change: ConfChange): ChangeResult {
  if (leavesJoint(change)) return leaveJoint(tracker, lastIndex)
  const transition = transitionOf(change)
  if (transition === 'simple') return simple(tracker, lastIndex, change.changes)
  return enterJoint(tracker, lastIndex, transition === 'autoLeave', change.changes)
}

/** The majorities of C(old) stay a condition while those of C(new) become one. */
export function enterJoint(
  tracker: ProgressTracker,
  lastIndex: number,
  autoLeave: boolean,
  changes: readonly ConfChangeSingle[],
): ChangeResult {
  if (tracker.isJoint()) return refused('alreadyJoint')
  // There is no majority of nobody that could agree to the change.
  if (tracker.config.voters.length === 0) return refused('zeroVoterJoint')
  const next = new Configuration(tracker, lastIndex)
  for (const id of tracker.config.voters) next.outgoing.add(id)
  next.apply(changes)
  return next.voters.size === 0 ? refused('removedAllVoters') : next.result(autoLeave)
}

export function leaveJoint(tracker: ProgressTracker, lastIndex: number): ChangeResult {
  if (!tracker.isJoint()) return refused('notJoint')
  const next = new Configuration(tracker, lastIndex)
  for (const id of next.learnersNext) {
    next.learners.add(id)
    next.progress.get(id)!.isLearner = true
  }
  next.learnersNext.clear()
  for (const id of next.outgoing) {
    if (!next.voters.has(id) && !next.learners.has(id)) next.progress.delete(id)
  }
  next.outgoing.clear()
  return next.result(false)
}

export function simple(
  tracker: ProgressTracker,
  lastIndex: number,
  changes: readonly ConfChangeSingle[],
): ChangeResult {
  if (tracker.isJoint()) return refused('simpleInJoint')
  const next = new Configuration(tracker, lastIndex)
  next.apply(changes)
  if (next.voters.size === 0) return refused('removedAllVoters')
  // Two voters moved at once could leave two majorities without a common member.
  let moved = 0
  for (const id of tracker.config.voters) if (!next.voters.has(id)) moved++
  for (const id of next.voters) if (!tracker.config.voters.includes(id)) moved++
  return moved > 1 ? refused('moreThanOneVoter') : next.result(false)
}

/**
 * Rebuilds `state` in an empty tracker by the same steps that led to it: first the outgoing half voter by voter, then
 * the joint step, so that a restored configuration has passed every check that a grown one passes.
 */
export function restore(tracker: ProgressTracker, lastIndex: number, state: ConfState): void {
  assert(tracker.progress.size === 0, 'a configuration is restored into an empty tracker')
  const incoming: ConfChangeSingle[] = [
    ...state.votersOutgoing.map(replica => ({ kind: 'removeNode', replica }) as const),
    ...state.voters.map(replica => ({ kind: 'addNode', replica }) as const),
    ...state.learners.map(replica => ({ kind: 'addLearner', replica }) as const),
    ...state.learnersNext.map(replica => ({ kind: 'addLearner', replica }) as const),
  ]
  const isJoint = state.votersOutgoing.length > 0
  const first = isJoint
    ? state.votersOutgoing.map(replica => ({ kind: 'addNode', replica }) as const)
    : incoming
  const take = (result: ChangeResult): void => {
    assert(result.kind === 'changed', `a configuration that can't be restored: ${JSON.stringify(state)}`)
    tracker.switchTo(result.config, result.progress)
  }
  for (const single of first) take(simple(tracker, lastIndex, [single]))
  if (isJoint) take(enterJoint(tracker, lastIndex, state.autoLeave, incoming))
}

/** A configuration under construction. */
class Configuration {
  readonly voters: Set<number>
  readonly outgoing: Set<number>
  readonly learners: Set<number>
  readonly learnersNext: Set<number>
  readonly progress = new Map<number, Progress>()
  private readonly tracker: ProgressTracker
  private readonly lastIndex: number

  constructor(tracker: ProgressTracker, lastIndex: number) {
    this.tracker = tracker
    this.lastIndex = lastIndex
    this.voters = new Set(tracker.config.voters)
    this.outgoing = new Set(tracker.config.votersOutgoing)
    this.learners = new Set(tracker.config.learners)
    this.learnersNext = new Set(tracker.config.learnersNext)
    for (const [id, progress] of tracker.progress) this.progress.set(id, progress.copy())
  }

  /** Every change is idempotent: removing the absent or adding the present does nothing. */
  apply(changes: readonly ConfChangeSingle[]): void {
    for (const { kind, replica: id } of changes) {
      if (id === 0) continue
      if (kind === 'addNode') this.makeVoter(id)
      else if (kind === 'addLearner') this.makeLearner(id)
      else if (kind === 'removeNode') this.remove(id)
    }
  }

  private makeVoter(id: number): void {
    const progress = this.progress.get(id)
    this.learners.delete(id)
    this.learnersNext.delete(id)
    this.voters.add(id)
    if (progress !== undefined) progress.isLearner = false
    else this.start(id, false)
  }

  private makeLearner(id: number): void {
    const progress = this.progress.get(id)
    if (progress === undefined) {
      this.learners.add(id)
      this.start(id, true)
      return
    }
    if (progress.isLearner) return
    this.remove(id)
    this.progress.set(id, progress)
    // An outgoing voter can't be a learner yet: it still counts in the outgoing quorum. It turns on leaving.
    if (this.outgoing.has(id)) {
      this.learnersNext.add(id)
    } else {
      progress.isLearner = true
      this.learners.add(id)
    }
  }

  private remove(id: number): void {
    this.voters.delete(id)
    this.learners.delete(id)
    this.learnersNext.delete(id)
    // An outgoing voter keeps its progress: without it the outgoing quorum could not be counted.
    if (!this.outgoing.has(id)) this.progress.delete(id)
  }

  private start(id: number, isLearner: boolean): void {
    const progress = this.tracker.newProgress(Math.max(this.lastIndex, 1), isLearner)
    // A newcomer gets the benefit of the doubt, or the next CheckQuorum could depose the leader that added it.
    progress.isRecentlyActive = true
    this.progress.set(id, progress)
  }

  result(autoLeave: boolean): ChangeResult {
    for (const ids of [this.voters, this.outgoing, this.learners, this.learnersNext]) {
      for (const id of ids) assert(this.progress.has(id), `no progress of replica ${id}`)
    }
    for (const id of this.learnersNext) assert(this.outgoing.has(id), `${id} was no voter`)
    for (const id of this.learners) {
      assert(!this.voters.has(id) && !this.outgoing.has(id), `${id} is voter and learner`)
    }
    const sorted = (ids: Set<number>): number[] => [...ids].sort((a, b) => a - b)
    const config: ConfState = {
      voters: sorted(this.voters),
      votersOutgoing: sorted(this.outgoing),
      learners: sorted(this.learners),
      learnersNext: sorted(this.learnersNext),
      autoLeave,
    }
    return { kind: 'changed', config, progress: this.progress }
  }
}
