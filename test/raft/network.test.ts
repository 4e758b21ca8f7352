import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { SimulatedGroup } from './simulated-group.ts'

/** RAFT_RUNS asks for more than a test run has time for. */
const runs = Number(process.env['RAFT_RUNS'] ?? 800)

describe('a group on a network that drops, reorders and repeats, with crashes and changes of configuration', () => {
  it('keeps the safety properties of Raft, and agrees once it is left in peace', () => {
    const seen = { elections: 0, reads: 0, snapshots: 0, confChanges: 0, commits: 0 }
    const settings = fc.record({ preVote: fc.boolean(), checkQuorum: fc.boolean() })
    // Unbiased: small numbers are no more telling than others here, and would make most ops the same one.
    const op = fc.noBias(fc.tuple(fc.nat(99), fc.nat(9_999), fc.nat(9_999)))
    fc.assert(
      fc.property(
        settings,
        fc.array(op, { minLength: 300, maxLength: 1_200, size: 'max' }),
        (settings, steps) => {
          const group = new SimulatedGroup(settings)
          for (const [kind, a, b] of steps) group.run(kind, a, b)
          group.recover()
          seen.elections += group.truth.elections
          seen.reads += group.truth.reads
          seen.snapshots += group.truth.snapshots
          seen.confChanges += group.truth.confChanges
          seen.commits += group.truth.commitIndex
        },
      ),
      { numRuns: runs },
    )
    // A run that reached none of these would prove nothing.
    assert.ok(seen.commits > runs * 4, `${seen.commits} commits`)
    for (const [what, count] of Object.entries(seen)) assert.ok(count > runs / 5, `${count} ${what}`)
  })
})
