/**
 * What can be known of a message before Raft looks at it.
 *
 * Messages come from other machines. A shape that no correct replica gives to its kind is refused here, so that the code
 * behind may rely on it: entries follow their anchor, terms never fall, a snapshot is there and can be restored. What
 * only the state can tell (an old term, an unknown sender) stays with raft.ts.
 */
import type { ConfState, Entry, Message } from './types.ts'

/** Far below 2^53: what grows from a number in a message stays a safe integer. */
const numberMax = 2 ** 52

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && value <= numberMax

/** Of messages between replicas; what a replica's own storage says is its host's word. */
export function isWellFormed(message: Message): boolean {
  const { kind, from, term, logTerm, index, entries, commit, leaderCommit, rejectHint, snapshot } = message
  if (!isCount(from) || !isCount(term) || !isCount(logTerm) || !isCount(index)) return false
  if (!isCount(commit) || !isCount(leaderCommit) || !isCount(rejectHint)) return false
  switch (kind) {
    // These three belong to no term: whoever asks may know of none.
    case 'MsgProp':
      return entries.length > 0
    case 'MsgReadIndex':
    case 'MsgTransferLeader':
      return from !== 0
    case 'MsgApp':
      return from !== 0 && term !== 0 && areConsecutive(entries, index, logTerm, term)
    case 'MsgSnap':
      return (
        from !== 0 &&
        term !== 0 &&
        snapshot !== null &&
        isCount(snapshot.meta.index) &&
        isCount(snapshot.meta.term) &&
        snapshot.meta.term <= term &&
        isConfState(snapshot.meta.confState)
      )
    default:
      return from !== 0 && term !== 0
  }
}

/** Indexes go up by one, terms never fall, and none is of the future (Raft §5.3). */
function areConsecutive(entries: readonly Entry[], index: number, logTerm: number, term: number): boolean {
  let lastTerm = logTerm
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!
    if (entry.index !== index + 1 + i || !(entry.term >= lastTerm)) return false
    lastTerm = entry.term
  }
  return lastTerm <= term
}

/** Could a sequence of changes have led to it (confchange.ts)? */
function isConfState({ voters, votersOutgoing, learners, learnersNext, autoLeave }: ConfState): boolean {
  if (voters.length === 0) return false
  for (const ids of [voters, votersOutgoing, learners, learnersNext]) {
    if (new Set(ids).size !== ids.length) return false
    if (!ids.every(id => isCount(id) && id > 0)) return false
  }
  if (votersOutgoing.length === 0 && (learnersNext.length > 0 || autoLeave)) return false
  if (learners.some(id => voters.includes(id) || votersOutgoing.includes(id))) return false
  return learnersNext.every(id => votersOutgoing.includes(id) && !voters.includes(id))
}
