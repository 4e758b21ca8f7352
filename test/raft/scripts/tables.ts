/** The table scripts: quorums, and configuration changes one by one. */
import {
  type ChangeRefusal,
  type ChangeResult,
  enterJoint,
  leaveJoint,
  simple,
} from '../../../src/raft/confchange.ts'
import { jointIndex, jointVote, majorityIndex, majorityVote } from '../../../src/raft/quorum.ts'
import { ProgressTracker } from '../../../src/raft/tracker.ts'
import { argOf, argsOf, type Directive } from './datadriven.ts'
import { describeConfig, describeProgress, parseChanges } from './describe.ts'

/** `cfg=(…)` alone asks for a majority; with `cfgj` (perhaps `zero`: nobody) for a joint quorum. */
export function quorum(directive: Directive): string[] {
  const ids = (key: string) => (argsOf(directive, key) ?? []).filter(id => id !== 'zero').map(Number)
  const voters = ids('cfg')
  const outgoing = ids('cfgj')
  const all = [...new Set([...voters, ...outgoing])]
  const isJoint = argsOf(directive, 'cfgj') !== null
  if (directive.name === 'vote') {
    const votes = new Map<number, boolean>()
    for (const [i, vote] of (argsOf(directive, 'votes') ?? []).entries()) {
      if (vote !== '_') votes.set(all[i]!, vote === 'y')
    }
    const result = isJoint ? jointVote(voters, outgoing, votes) : majorityVote(voters, votes)
    return [{ won: 'VoteWon', lost: 'VoteLost', pending: 'VotePending' }[result]]
  }
  const known = new Map<number, number>()
  for (const [i, index] of (argsOf(directive, 'idx') ?? []).entries()) {
    if (index !== '_') known.set(all[i]!, Number(index))
  }
  const acked = { ackedIndex: (id: number) => known.get(id) }
  const index = isJoint ? jointIndex(voters, outgoing, acked) : majorityIndex(voters, acked)
  const text = index === Number.POSITIVE_INFINITY ? '∞' : String(index)
  return all.length === 0 ? [`<empty majority quorum>${text}`] : [...bars(all, known), text]
}

/** For each voter a bar as long as there are voters behind it. */
function bars(all: readonly number[], known: ReadonlyMap<number, number>): string[] {
  const lines = [...all]
    .sort((a, b) => a - b)
    .map(id => {
      const index = known.get(id)
      const behind = all.filter(other => (known.get(other) ?? 0) < (index ?? 0)).length
      const bar = (index === undefined ? '?' : `${'x'.repeat(behind)}>`).padEnd(all.length + 1)
      return `${bar} ${String(index ?? 0).padStart(5)}    (id=${id})`
    })
  return [`${' '.repeat(all.length)}    idx`, ...lines]
}

const refusals: Record<ChangeRefusal, string> = {
  alreadyJoint: 'config is already joint',
  notJoint: "can't leave a non-joint config",
  simpleInJoint: "can't apply simple config change in joint config",
  zeroVoterJoint: "can't make a zero-voter config joint",
  removedAllVoters: 'removed all voters',
  moreThanOneVoter: 'more than one voter changed without entering joint config',
}

/** One configuration that all directives of a script change in turn. */
export class ConfChangeScript {
  private readonly tracker = new ProgressTracker(10, 0)
  /** Grows with every directive, so that `next` shows when a progress was made. */
  private lastIndex = 0

  run(directive: Directive): string[] {
    const result = this.change(directive)
    this.lastIndex++
    if (result.kind === 'refused') return [refusals[result.reason]]
    this.tracker.switchTo(result.config, result.progress)
    const lines = this.tracker.ids.map(id => `${id}: ${describeProgress(this.tracker.progress.get(id)!)}`)
    return [describeConfig(result.config), ...lines]
  }

  private change(directive: Directive): ChangeResult {
    const changes = parseChanges(directive.input.join(' '))
    switch (directive.name) {
      case 'simple':
        return simple(this.tracker, this.lastIndex, changes)
      case 'enter-joint':
        return enterJoint(this.tracker, this.lastIndex, argOf(directive, 'autoleave') === 'true', changes)
      case 'leave-joint':
        return leaveJoint(this.tracker, this.lastIndex)
      default:
        throw new Error(`unknown directive ${directive.name}`)
    }
  }
}
