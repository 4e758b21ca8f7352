import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type MemberRecord, memberStates, noLoad } from '../../src/gossip/member.ts'
import { membersMax, View } from '../../src/gossip/view.ts'
import { registration } from './network.ts'

function view(count = 3): View {
  const made = new View({ ...registration(0), incarnation: 1 })
  for (let i = 0; i < count; i++) made.register(registration(i))
  return made
}

function report(index: number, changed: Partial<MemberRecord> = {}): MemberRecord {
  return {
    ...registration(index),
    load: noLoad,
    leads: [],
    incarnation: 1,
    heartbeat: 1,
    state: 'alive',
    ...changed,
  }
}

describe('View', () => {
  it('holds this node first, then those registered, unheard of', () => {
    assert.deepEqual(
      view()
        .records()
        .map(each => [each.nodeId, each.state, each.incarnation]),
      [
        ['node0', 'joining', 1],
        ['node1', 'joining', 0],
        ['node2', 'joining', 0],
      ],
    )
  })

  it('tells what a report changed', () => {
    const mine = view()
    assert.deepEqual(mine.merge(report(1)), [
      { kind: 'state', nodeId: 'node1', from: 'joining', to: 'alive' },
    ])
    assert.deepEqual(mine.merge(report(1)), [])
    assert.deepEqual(mine.merge(report(1, { heartbeat: 2, peerAddress: 'elsewhere:1' })), [
      { kind: 'address', nodeId: 'node1' },
    ])
    assert.deepEqual(mine.merge(report(1, { heartbeat: 1, state: 'dead' })), [])
  })

  it('adds nobody who is not registered', () => {
    const mine = view()
    assert.deepEqual(mine.merge(report(7)), [{ kind: 'ignored', nodeId: 'node7', why: 'unregistered' }])
    assert.equal(mine.member('node7'), undefined)
    assert.equal(mine.size, 3)
  })

  it('ignores a known node with another store', () => {
    const mine = view()
    mine.merge(report(1))
    const impostor = report(1, { storeId: 'another', incarnation: 9 })
    assert.deepEqual(mine.merge(impostor), [{ kind: 'ignored', nodeId: 'node1', why: 'store-mismatch' }])
    assert.deepEqual(mine.member('node1'), report(1))
    const twin = report(0, { storeId: 'another', incarnation: 9, state: 'dead' })
    assert.deepEqual(mine.merge(twin), [{ kind: 'ignored', nodeId: 'node0', why: 'store-mismatch' }])
  })

  it('ignores what exceeds the limits', () => {
    assert.deepEqual(view().merge(report(1, { heartbeat: -1 })), [
      { kind: 'ignored', nodeId: 'node1', why: 'malformed' },
    ])
  })

  it('starts anew with a node that is registered with a new store', () => {
    const mine = view()
    mine.merge(report(1, { state: 'left' }))
    const replaced = { ...registration(1), storeId: 'fresh' }
    assert.deepEqual(mine.register(replaced), [
      { kind: 'removed', nodeId: 'node1' },
      { kind: 'added', nodeId: 'node1' },
    ])
    assert.equal(mine.member('node1')!.state, 'joining')
    assert.deepEqual(mine.merge(report(1, { storeId: 'fresh' })).length, 1)
  })

  it('takes registered addresses until the node itself was heard', () => {
    const mine = view()
    assert.deepEqual(mine.register({ ...registration(1), peerAddress: 'moved:1' }), [
      { kind: 'address', nodeId: 'node1' },
    ])
    mine.merge(report(1))
    assert.deepEqual(mine.register({ ...registration(1), peerAddress: 'stale:1' }), [])
    assert.equal(mine.member('node1')!.peerAddress, report(1).peerAddress)
  })

  it('forgets a node that is unregistered, whatever others still tell', () => {
    const mine = view()
    mine.merge(report(1))
    assert.deepEqual(mine.unregister('node1'), [{ kind: 'removed', nodeId: 'node1' }])
    assert.deepEqual(mine.unregister('node1'), [])
    assert.deepEqual(mine.merge(report(1, { heartbeat: 5 })), [
      { kind: 'ignored', nodeId: 'node1', why: 'unregistered' },
    ])
  })

  it('refutes what others say of this node by a higher incarnation', () => {
    for (const state of ['suspect', 'dead'] as const) {
      const mine = view()
      mine.update({ state: 'alive' })
      assert.deepEqual(mine.merge(report(0, { incarnation: 1, heartbeat: 0, state })), [
        { kind: 'refuted', nodeId: 'node0', incarnation: 2 },
      ])
      assert.equal(mine.self.state, 'alive')
      assert.deepEqual(mine.merge(report(0, { incarnation: 1, state })), [], 'the old accusation is answered')
      const theirs = view()
      theirs.merge(report(0, { incarnation: 1, state }))
      assert.deepEqual(mine.merge(report(0, { incarnation: 5, state })), [
        { kind: 'refuted', nodeId: 'node0', incarnation: 6 },
      ])
    }
  })

  it('rises above an earlier life that others remember', () => {
    const mine = view()
    assert.deepEqual(mine.merge(report(0, { incarnation: 1, heartbeat: 5000 })), [
      { kind: 'refuted', nodeId: 'node0', incarnation: 2 },
    ])
  })

  it('does not refute that it has left', () => {
    const mine = view()
    assert.deepEqual(mine.merge(report(0, { state: 'left' })), [
      { kind: 'state', nodeId: 'node0', from: 'joining', to: 'left' },
    ])
    assert.deepEqual(mine.merge(report(0, { incarnation: 9, state: 'dead' })), [])
    assert.throws(() => mine.update({ state: 'alive' }), /has left/)
  })

  it('says that it leaves, and can take it back', () => {
    const mine = view()
    const theirs = new View({ ...registration(1), incarnation: 1 })
    theirs.register(registration(0))
    mine.update({ state: 'alive' })
    mine.beat()
    theirs.merge(mine.self)
    assert.deepEqual(mine.update({ state: 'leaving' }), [
      { kind: 'state', nodeId: 'node0', from: 'alive', to: 'leaving' },
    ])
    theirs.merge(mine.self)
    assert.equal(theirs.member('node0')!.state, 'leaving')
    mine.update({ state: 'alive' })
    theirs.merge(mine.self)
    assert.equal(theirs.member('node0')!.state, 'alive')
  })

  it('hints at the leader of the highest term among those not dead', () => {
    const mine = view()
    assert.equal(mine.leaderHint(5), null)
    mine.merge(report(1, { leads: [{ shard: 5, term: 3 }] }))
    mine.merge(report(2, { leads: [{ shard: 5, term: 4 }] }))
    assert.deepEqual(mine.leaderHint(5), { nodeId: 'node2', term: 4 })
    mine.accuse('node2', 'dead')
    assert.deepEqual(mine.leaderHint(5), { nodeId: 'node1', term: 3 })
    mine.update({ leads: [{ shard: 5, term: 6 }] })
    assert.deepEqual(mine.leaderHint(5), { nodeId: 'node0', term: 6 })
    mine.update({ leads: [] })
    mine.unregister('node1')
    assert.equal(mine.leaderHint(5), null)
  })

  it('ends the same in whatever order, and how often, reports arrive', () => {
    const reports = fc.array(
      fc.record({
        index: fc.nat(3),
        incarnation: fc.nat(3),
        heartbeat: fc.nat(3),
        state: fc.constantFrom(...memberStates),
      }),
      { maxLength: 12 },
    )
    fc.assert(
      fc.property(
        reports.chain(some =>
          fc.tuple(
            fc.constant(some),
            fc.shuffledSubarray([...some, ...some], { minLength: some.length * 2 }),
          ),
        ),
        ([inOrder, shuffled]) => {
          const others = (all: typeof inOrder) => {
            const mine = view(3)
            for (const { index, ...rest } of all) mine.merge(report(index, rest))
            return mine.records().slice(1)
          }
          assert.deepEqual(others(inOrder), others(shuffled))
        },
      ),
      { numRuns: 500 },
    )
  })

  it('is full at a thousand members', () => {
    const mine = view(membersMax)
    assert.equal(mine.size, membersMax)
    assert.throws(() => mine.register(registration(membersMax)), /more than 1000/)
  })
})
