import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyBytes } from '../../src/lib/bytes.ts'
import { draft, type Entry, type Message, type MessageKind, type Snapshot } from '../../src/raft/types.ts'
import { elect, settle, testNode } from './test-node.ts'

const entry = (term: number, index: number): Entry => ({ term, index, kind: 'normal', data: emptyBytes })
const snapshot = (voters: readonly number[], changed: object = {}): Snapshot => ({
  meta: {
    index: 9,
    term: 1,
    confState: { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false, ...changed },
  },
  data: emptyBytes,
})
const message = (kind: MessageKind, fields: Partial<Message>): Message => ({
  ...draft(kind, 1, 2, 1),
  ...fields,
})

const nonsense: readonly [string, Message, string][] = [
  ['for somebody else', message('MsgHeartbeat', { to: 2 }), 'malformed'],
  ['from nobody', message('MsgApp', { from: 0 }), 'malformed'],
  ['from a storage thread', message('MsgVote', { from: -1 }), 'malformed'],
  ['of no term', message('MsgApp', { term: 0 }), 'malformed'],
  ['of a term beyond all counting', message('MsgVote', { term: 2 ** 53 }), 'malformed'],
  ['of half a term', message('MsgVote', { term: 1.5 }), 'malformed'],
  ['of a kind that does not exist', message('MsgWish' as MessageKind, { term: 0 }), 'malformed'],
  ['about written entries, by a peer', message('MsgStorageAppendResp', { index: 9 }), 'localMessage'],
  ['about applied entries, by a peer', message('MsgStorageApplyResp', {}), 'localMessage'],
  ['a vote of a stranger', message('MsgVoteResp', { from: 7 }), 'unknownPeer'],
  ['an acknowledgement of a stranger', message('MsgAppResp', { from: 7, index: 1 }), 'unknownPeer'],
  ['no proposal', message('MsgProp', { term: 0 }), 'malformed'],
  ['a hole before its entries', message('MsgApp', { index: 1, entries: [entry(1, 3)] }), 'malformed'],
  ['a hole between entries', message('MsgApp', { entries: [entry(1, 1), entry(1, 3)] }), 'malformed'],
  ['terms that fall', message('MsgApp', { term: 3, entries: [entry(2, 1), entry(1, 2)] }), 'malformed'],
  ['an entry of the future', message('MsgApp', { entries: [entry(2, 1)] }), 'malformed'],
  ['an anchor of the future', message('MsgApp', { index: 1, logTerm: 2 }), 'malformed'],
  ['no snapshot', message('MsgSnap', {}), 'malformed'],
  ['a snapshot without voters', message('MsgSnap', { snapshot: snapshot([]) }), 'malformed'],
  ['a snapshot with a voter twice', message('MsgSnap', { snapshot: snapshot([1, 1]) }), 'malformed'],
  [
    'a snapshot with a voting learner',
    message('MsgSnap', { snapshot: snapshot([1], { learners: [1] }) }),
    'malformed',
  ],
  [
    'a snapshot that leaves what it is not in',
    message('MsgSnap', { snapshot: snapshot([1], { autoLeave: true }) }),
    'malformed',
  ],
  [
    'a snapshot with a learner to be that never voted',
    message('MsgSnap', { snapshot: snapshot([1, 2], { votersOutgoing: [1], learnersNext: [3] }) }),
    'malformed',
  ],
]

describe('a replica that is told nonsense', () => {
  for (const [what, told, answer] of nonsense) {
    it(`ignores ${what}`, () => {
      for (const isLeading of [false, true]) {
        const node = testNode({ voters: [1, 2, 3] })
        if (isLeading) elect(node)
        const before = node.raft.status()
        assert.equal(node.raft.step(told), answer)
        assert.deepEqual(node.raft.status(), before)
        assert.equal(node.raft.hasReady(), false)
      }
    })
  }

  it('does not count an acknowledgement of what it has not got', () => {
    const node = testNode({ voters: [1, 2, 3] })
    elect(node)
    node.raft.step(message('MsgAppResp', { index: 50 }))
    node.raft.step(message('MsgAppResp', { from: 3, index: 50 }))
    assert.equal(node.raft.status().commit, 1)
    assert.equal(node.raft.status().progress.get(2)?.match, 1)
  })

  it('says so when a leader proves that entries are gone which it had acknowledged', () => {
    const node = testNode({ voters: [1, 2, 3] })
    assert.equal(node.raft.step(message('MsgHeartbeat', { commit: 5 })), 'lostEntries')
    assert.deepEqual(settle(node), [])
  })
})
