import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { emptyBytes } from '../../src/lib/bytes.ts'
import type { ConfChange, ConfChangeSingle } from '../../src/raft/types.ts'
import { Group } from './group.ts'

const size = 5
/** Mostly the first voters, so that things come together. */
const id = fc.constantFrom(1, 1, 2, 2, 3, 3, 4, 5)
const at = fc.nat({ max: 30 })

const single: fc.Arbitrary<ConfChangeSingle> = fc.record({
  kind: fc.constantFrom('addNode', 'addLearner', 'removeNode'),
  replica: id,
})
const everybody = Array.from({ length: size }, (_, i) => i + 1)
/** These vote and no one else: of few that stay, or none, is the joint configuration made that forgives least. */
const swap: fc.Arbitrary<ConfChangeSingle[]> = fc
  .subarray(everybody, { minLength: 1, maxLength: 3 })
  .map(voters =>
    everybody.map(replica => ({ kind: voters.includes(replica) ? 'addNode' : 'removeNode', replica })),
  )
const change: fc.Arbitrary<ConfChange> = fc.record({
  transition: fc.constantFrom('auto', 'implicit', 'explicit'),
  // No changes at all leave a joint configuration.
  changes: fc.oneof(fc.array(single, { maxLength: 3 }), swap),
  context: fc.constant(emptyBytes),
})

type Act = (group: Group) => void
const act = <A extends unknown[]>(
  weight: number,
  args: fc.Arbitrary<A>,
  run: (group: Group, ...args: A) => void,
) => ({
  weight,
  arbitrary: args.map((values): Act => {
    const step: Act = group => run(group, ...values)
    return Object.assign(step, { [fc.toStringMethod]: () => `${run} of ${JSON.stringify(values)}` })
  }),
})

const one = fc.tuple(id)
const acts = fc.oneof(
  act(24, fc.tuple(at), (group, k) => group.deliver(k)),
  act(8, one, (group, a) => group.turn(a)),
  act(3, fc.tuple(at), (group, k) => group.drop(k)),
  act(3, fc.tuple(at), (group, k) => group.duplicate(k)),
  act(6, one, (group, a) => group.tick(a)),
  act(10, one, (group, a) => group.ready(a)),
  act(8, one, (group, a) => group.append(a)),
  act(6, one, (group, a) => group.apply(a)),
  act(4, one, (group, a) => group.propose(a)),
  act(4, one, (group, a) => group.campaign(a)),
  act(4, one, (group, a) => group.read(a)),
  act(4, one, (group, a) => group.compact(a)),
  act(1, fc.tuple(id, id), (group, a, b) => group.transfer(a, b)),
  act(2, fc.tuple(id, fc.constantFrom(0, 0, 1, 3)), (group, a, survivors) => group.crash(a, survivors)),
  act(2, fc.tuple(id, change), (group, a, wanted) => group.change(a, wanted)),
  act(1, fc.tuple(fc.subarray(everybody)), (group, side) => group.cut(side)),
  act(1, fc.tuple(fc.integer({ min: 1, max: 12 })), (group, rounds) => group.heal(rounds)),
)

describe('a group on a network that drops, repeats and reorders, with replicas that crash', () => {
  it('keeps every safety property, and agrees when all is well again', () => {
    const asked = process.env.RAFT_RUNS
    const seen = { elections: 0, reads: 0, snapshots: 0 }
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(acts, { minLength: 300, maxLength: 1_500, size: 'max' }),
        (preVote, steps) => {
          const group = new Group(size, [1, 2, 3], preVote)
          for (const step of steps) step(group)
          group.heal(80)
          // Without pre-vote and CheckQuorum there is safety but no promise of progress: removed replicas that were not
          // told campaign for ever, and a leader that was cut off never learns it (thesis §4.2.3, §6.2).
          if (!preVote) return
          const leader = group.members.find(({ raw }) => raw.isLeader)
          assert.ok(leader !== undefined, 'nobody leads')
          group.propose(leader.id)
          group.read(leader.id)
          group.heal(10)
          const { config, commit, lastIndex } = leader.raw.status()
          assert.equal(commit, lastIndex)
          for (const voter of config.voters) {
            const { applied, state } = group.member(voter)
            assert.deepEqual({ voter, applied, state }, { voter, applied: commit, state: leader.state })
          }
          seen.elections += group.elections
          seen.reads += group.readsServed
          seen.snapshots += group.snapshotsInstalled
        },
      ),
      {
        // The same runs every time; whoever asks for a number of them gets others.
        ...(asked === undefined ? { seed: 1, numRuns: 300 } : { numRuns: Number(asked) }),
        includeErrorInReport: true,
        endOnFailure: true,
      },
    )
    // It proves nothing about what did not happen.
    for (const [what, count] of Object.entries(seen)) assert.ok(count > 0, `no ${what}`)
  })
})
