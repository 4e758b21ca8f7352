import type { ConfChangeSingle } from '../raft/types.ts'
import { type Configuration, isJoint, type Member } from '../shard/configuration.ts'
import type { Operation } from './meta-register.ts'

/**
 * The next step from a group's configuration towards an operation's wish: pure, and decided anew each time from what the
 * configuration is, so it does not matter which leader took the step before.
 *
 *   learners in, one after another → all future voters caught up → ONE joint change (new voters in, old ones to learners)
 *   → those nobody wishes for out → closed
 *
 * Nobody votes who has not caught up: a joint change with an empty voter could leave the group without a quorum that has
 * the log.
 */
export type Step =
  | {
      readonly kind: 'change'
      readonly changes: readonly ConfChangeSingle[]
      readonly added: readonly Member[]
    }
  | { readonly kind: 'wait'; readonly for: string }
  /** The leader itself is to stop voting: it hands over first, to one of these. */
  | { readonly kind: 'transfer'; readonly to: readonly number[] }
  | { readonly kind: 'close' }

export function nextStep(
  operation: Operation,
  configuration: Configuration,
  leader: number,
  isCaughtUp: (replica: number) => boolean,
  isDown: (node: string) => boolean,
): Step {
  const { confState } = configuration
  if (isJoint(configuration)) return { kind: 'wait', for: 'the joint configuration to end' }
  const voters = new Set(confState.voters)
  const learners = new Set(confState.learners)
  const wished = [...operation.voters, ...operation.learners]
  const missing = wished.find(({ replica }) => !voters.has(replica) && !learners.has(replica))
  if (missing !== undefined) {
    return { kind: 'change', changes: [{ kind: 'addLearner', replica: missing.replica }], added: [missing] }
  }
  const promoted = operation.voters.filter(({ replica }) => !voters.has(replica))
  const late = promoted.find(({ replica }) => !isCaughtUp(replica))
  if (late !== undefined) return { kind: 'wait', for: `${late.node} to catch up` }
  const wishedVoters = new Set(operation.voters.map(({ replica }) => replica))
  const demoted = confState.voters.filter(replica => !wishedVoters.has(replica))
  if (promoted.length > 0 || demoted.length > 0) {
    if (demoted.includes(leader)) {
      const heirs = operation.voters.map(({ replica }) => replica).filter(replica => voters.has(replica))
      // The only voter hands over when the new ones vote beside it: until then it stays in.
      if (heirs.length > 0) return { kind: 'transfer', to: heirs }
      return change(
        promoted,
        demoted.filter(replica => replica !== leader),
      )
    }
    return change(promoted, demoted)
  }
  const unwished = confState.learners.find(replica => !wished.some(member => member.replica === replica))
  if (unwished !== undefined) {
    return { kind: 'change', changes: [{ kind: 'removeNode', replica: unwished }], added: [] }
  }
  // A learner whose node is down catches up when it comes back; waiting for it would hold up all that comes after.
  const waiting = operation.learners.find(({ node, replica }) => !isDown(node) && !isCaughtUp(replica))
  // Before it closes, an operation has taken a step of its own: after that no older one can, by whatever leader.
  if (waiting === undefined && configuration.operation < operation.id) {
    return { kind: 'change', changes: [{ kind: 'updateNode', replica: leader }], added: [] }
  }
  return waiting === undefined ? { kind: 'close' } : { kind: 'wait', for: `${waiting.node} to catch up` }
}

function change(promoted: readonly Member[], demoted: readonly number[]): Step {
  const changes: ConfChangeSingle[] = [
    ...promoted.map(({ replica }): ConfChangeSingle => ({ kind: 'addNode', replica })),
    ...demoted.map((replica): ConfChangeSingle => ({ kind: 'addLearner', replica })),
  ]
  return { kind: 'change', changes, added: [] }
}
