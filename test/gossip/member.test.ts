import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  isWellFormed,
  leadsMax,
  type MemberRecord,
  memberStates,
  mergeRecords,
  noLoad,
  textCharsMax,
} from '../../src/gossip/member.ts'

const plain: MemberRecord = {
  nodeId: 'node1',
  storeId: 'store1',
  peerAddress: 'a:1',
  clientAddress: 'a:2',
  zone: '',
  load: noLoad,
  leads: [],
  incarnation: 1,
  heartbeat: 1,
  state: 'alive',
}
const report = (incarnation: number, heartbeat: number, state: MemberRecord['state']): MemberRecord => ({
  ...plain,
  incarnation,
  heartbeat,
  state,
})

/** Few values of each field, so that ties of every depth come up. */
const anyReport: fc.Arbitrary<MemberRecord> = fc.record(
  {
    nodeId: fc.constant('node1'),
    storeId: fc.constant('store1'),
    peerAddress: fc.constantFrom('a:1', 'b:1'),
    clientAddress: fc.constantFrom('a:2', 'b:2'),
    zone: fc.constantFrom('', 'z'),
    load: fc.constantFrom(noLoad, { ...noLoad, leaders: 1 }, { ...noLoad, storedBytes: 5 }),
    leads: fc.array(fc.record({ shard: fc.nat(1), term: fc.nat(1) }, { noNullPrototype: true }), {
      maxLength: 2,
    }),
    incarnation: fc.nat(2),
    heartbeat: fc.nat(2),
    state: fc.constantFrom(...memberStates),
  },
  // deepEqual tells prototypes apart; reports come from one parser.
  { noNullPrototype: true },
)

describe('merging two reports', () => {
  it('is commutative', () => {
    fc.assert(
      fc.property(anyReport, anyReport, (a, b) => assert.deepEqual(mergeRecords(a, b), mergeRecords(b, a))),
      { numRuns: 2000 },
    )
  })

  it('is associative', () => {
    fc.assert(
      fc.property(anyReport, anyReport, anyReport, (a, b, c) =>
        assert.deepEqual(mergeRecords(mergeRecords(a, b), c), mergeRecords(a, mergeRecords(b, c))),
      ),
      { numRuns: 2000 },
    )
  })

  it('is idempotent, and gives one of the two', () => {
    fc.assert(
      fc.property(anyReport, anyReport, (a, b) => {
        const merged = mergeRecords(a, b)
        assert.ok(merged === a || merged === b)
        assert.deepEqual(mergeRecords(merged, a), merged)
        assert.deepEqual(mergeRecords(merged, merged), merged)
      }),
    )
  })

  it('believes the worse state of one incarnation and heartbeat', () => {
    for (const [i, worse] of memberStates.entries()) {
      for (const better of memberStates.slice(0, i)) {
        assert.equal(mergeRecords(report(1, 5, better), report(1, 5, worse)).state, worse)
      }
    }
  })

  it('believes a later heartbeat, and before that a higher incarnation', () => {
    assert.equal(mergeRecords(report(1, 5, 'dead'), report(1, 6, 'alive')).state, 'alive')
    assert.equal(mergeRecords(report(1, 9, 'dead'), report(2, 0, 'alive')).state, 'alive')
    assert.equal(mergeRecords(report(2, 0, 'suspect'), report(1, 9, 'alive')).state, 'suspect')
  })

  it('never forgets that a member has left', () => {
    assert.equal(mergeRecords(report(1, 5, 'left'), report(7, 9, 'alive')).state, 'left')
  })
})

describe('a well-formed report', () => {
  it('keeps the limits', () => {
    assert.ok(isWellFormed(plain))
    const wrong: Partial<MemberRecord>[] = [
      { nodeId: '' },
      { storeId: '' },
      { zone: 'z'.repeat(textCharsMax + 1) },
      { incarnation: -1 },
      { incarnation: 2 ** 53 },
      { heartbeat: 0.5 },
      { heartbeat: Number.NaN },
      { load: { ...noLoad, storedBytes: Number.POSITIVE_INFINITY } },
      { leads: [{ shard: -1, term: 0 }] },
      { leads: Array.from({ length: leadsMax + 1 }, (_, shard) => ({ shard, term: 1 })) },
      { state: 'gone' as MemberRecord['state'] },
    ]
    for (const each of wrong)
      assert.equal(isWellFormed({ ...plain, ...each }), false, Object.keys(each).join())
  })
})
