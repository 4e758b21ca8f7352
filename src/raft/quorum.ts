/**
 * Majorities, single and joint. The two questions of Raft: up to which index has a quorum stored the log (§5.3), and
 * has a vote been won (§5.2)? In a joint configuration the answer must hold in both voter lists at once (§6): an index
 * is the smaller of the two, a vote is lost as soon as one half lost it.
 */
export type VoteResult = 'won' | 'lost' | 'pending'

/** What each voter has stored; undefined = nothing heard of it yet. */
export interface AckedIndexes {
  ackedIndex(id: number): number | undefined
}

export const quorumOf = (voters: readonly number[]): number => (voters.length >> 1) + 1

/** Sorted in place for each question: Raft runs in one thread and a group is small, so one array serves all. */
const scratch: number[] = []

/** The highest index that a majority stored. No voters commit everything (∞): the empty half of a joint pair must not hinder. */
export function majorityIndex(voters: readonly number[], acked: AckedIndexes): number {
  const count = voters.length
  if (count === 0) return Number.POSITIVE_INFINITY
  // Insertion sort, ascending: for 3, 5 or 7 voters nothing beats it, and it allocates nothing.
  for (let i = 0; i < count; i++) {
    const index = acked.ackedIndex(voters[i]!) ?? 0
    let at = i
    for (; at > 0 && scratch[at - 1]! > index; at--) scratch[at] = scratch[at - 1]!
    scratch[at] = index
  }
  // Exactly `quorum` voters stored at least the value at this place.
  return scratch[count - quorumOf(voters)]!
}

export function jointIndex(
  voters: readonly number[],
  outgoing: readonly number[],
  acked: AckedIndexes,
): number {
  return Math.min(majorityIndex(voters, acked), majorityIndex(outgoing, acked))
}

/** No voters win every vote, for the same reason. */
export function majorityVote(voters: readonly number[], votes: ReadonlyMap<number, boolean>): VoteResult {
  if (voters.length === 0) return 'won'
  let granted = 0
  let missing = 0
  for (const id of voters) {
    const vote = votes.get(id)
    if (vote === undefined) missing++
    else if (vote) granted++
  }
  const quorum = quorumOf(voters)
  if (granted >= quorum) return 'won'
  return granted + missing >= quorum ? 'pending' : 'lost'
}

export function jointVote(
  voters: readonly number[],
  outgoing: readonly number[],
  votes: ReadonlyMap<number, boolean>,
): VoteResult {
  const one = majorityVote(voters, votes)
  const two = majorityVote(outgoing, votes)
  if (one === two) return one
  return one === 'lost' || two === 'lost' ? 'lost' : 'pending'
}
