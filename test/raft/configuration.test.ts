import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyBytes, fromUtf8 } from '../../src/lib/bytes.ts'
import {
  type ConfChange,
  type ConfChangeSingle,
  draft,
  type Entry,
  type Message,
  type MessageKind,
} from '../../src/raft/types.ts'
import { elect, settle, sync, type TestNode, take, testNode, voteFor } from './test-node.ts'

const entry = (term: number, index: number): Entry => ({ term, index, kind: 'normal', data: emptyBytes })
const from = (sender: number, kind: MessageKind, fields: Partial<Message>): Message => ({
  ...draft(kind, 1, sender, 1),
  ...fields,
})
const change = (...changes: ConfChangeSingle[]): ConfChange => ({
  transition: 'auto',
  changes,
  context: emptyBytes,
})
const tickToCampaign = (node: TestNode): void => {
  for (let i = 0; i < 40 && node.raft.status().role === 'follower'; i++) node.raft.tick()
}

describe('a joint configuration', () => {
  const joint = { voters: [1, 2], votersOutgoing: [1, 3, 4] }

  it('elects with a majority of both halves', () => {
    const node = testNode(joint)
    node.raft.campaign()
    settle(node)
    node.raft.step(from(2, 'MsgVoteResp', voteFor(node)))
    assert.equal(node.raft.isLeader, false)
    node.raft.step(from(4, 'MsgVoteResp', voteFor(node)))
    assert.equal(node.raft.isLeader, true)
  })

  it('is lost for a candidate when one half is', () => {
    const node = testNode(joint)
    node.raft.campaign()
    settle(node)
    node.raft.step(from(2, 'MsgVoteResp', { reject: true }))
    assert.equal(node.raft.status().role, 'follower')
  })

  it('commits with a majority of both halves', () => {
    const node = testNode(joint)
    elect(node)
    node.raft.propose(fromUtf8('a'))
    settle(node)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    assert.equal(node.raft.status().commit, 1)
    node.raft.step(from(3, 'MsgAppResp', { index: 2 }))
    assert.equal(node.raft.status().commit, 2)
  })

  it('is left by the leader as soon as it is applied', () => {
    const node = testNode({ voters: [1] })
    elect(node)
    node.raft.proposeConfChange(change({ kind: 'addNode', replica: 2 }, { kind: 'addLearner', replica: 3 }))
    settle(node)
    assert.deepEqual(node.raft.status().config.votersOutgoing, [1])
    node.raft.step(from(2, 'MsgAppResp', { index: 3 }))
    settle(node)
    const { voters, votersOutgoing, learners } = node.raft.status().config
    assert.deepEqual(
      { voters, votersOutgoing, learners },
      { voters: [1, 2], votersOutgoing: [], learners: [3] },
    )
  })
})

describe('a change of configuration', () => {
  it('keeps a replica from campaigning while it is committed and not applied', () => {
    const node = testNode({ voters: [1, 2] })
    node.raft.step(
      from(2, 'MsgApp', { entries: [{ ...entry(1, 1), kind: 'confChange' }, entry(1, 2)], commit: 1 }),
    )
    take(node)
    sync(node)
    take(node)
    assert.equal(node.applies.length, 1)
    node.raft.campaign()
    assert.equal(node.raft.status().role, 'follower')
    for (const response of node.applies.shift()!.responses) node.raft.step(response)
    node.raft.campaign()
    assert.equal(node.raft.status().role, 'candidate')
  })

  it('is the last entry of a leader whom it takes out, until he is out', () => {
    const node = testNode({ voters: [1, 2] })
    elect(node)
    assert.equal(node.raft.proposeConfChange(change({ kind: 'removeNode', replica: 1 })), 'ok')
    assert.equal(node.raft.propose(fromUtf8('a')), 'removed')
    settle(node)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    settle(node)
    assert.equal(node.raft.isLeader, false)
  })

  it('that is inherited and takes the leader out is followed by his first entry alone', () => {
    const node = testNode({ voters: [1, 2] })
    elect(node)
    node.raft.proposeConfChange(change({ kind: 'addLearner', replica: 1 }))
    settle(node)
    node.raft.step(from(2, 'MsgHeartbeat', { term: 5 }))
    tickToCampaign(node)
    settle(node)
    node.raft.step(from(2, 'MsgVoteResp', { term: 6, ...voteFor(node) }))
    assert.equal(node.raft.isLeader, true)
    assert.equal(node.raft.propose(fromUtf8('a')), 'removed')
  })

  it('that promotes a replica lets it vote before it knows', () => {
    const node = testNode({ voters: [2, 3], learners: [1] })
    node.raft.step(from(3, 'MsgVote', {}))
    assert.deepEqual(
      settle(node).map(({ kind, reject }) => [kind, reject]),
      [['MsgVoteResp', false]],
    )
  })
})

describe('a log that is told the past', () => {
  it('keeps what a late, shorter append does not speak of', () => {
    const node = testNode({ voters: [1, 2, 3] })
    node.raft.step(from(2, 'MsgApp', { entries: [entry(1, 1), entry(1, 2)] }))
    node.raft.step(from(2, 'MsgApp', { entries: [entry(1, 1)] }))
    settle(node)
    assert.equal(node.raft.lastIndex, 2)
  })
})

describe('a transfer of leadership', () => {
  it('waits until the other has all of the log, which stands still meanwhile', () => {
    const node = testNode({ voters: [1, 2, 3] })
    elect(node)
    node.raft.propose(fromUtf8('a'))
    settle(node)
    node.raft.transferLeader(2)
    assert.equal(node.raft.propose(fromUtf8('b')), 'transferring')
    const isTold = (): boolean => settle(node).some(({ kind, to }) => kind === 'MsgTimeoutNow' && to === 2)
    assert.equal(isTold(), false)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    assert.equal(isTold(), true)
  })

  it('is given up after an election timeout', () => {
    const node = testNode({ voters: [1, 2, 3] }, { checkQuorum: false })
    elect(node)
    node.raft.transferLeader(2)
    settle(node)
    for (let i = 0; i < 10; i++) node.raft.tick()
    assert.equal(node.raft.propose(fromUtf8('b')), 'ok')
  })
})

describe('a read', () => {
  it('is not confirmed by heartbeats that left before it was asked', () => {
    const node = testNode({ voters: [1, 2, 3] })
    elect(node)
    node.raft.readIndex(fromUtf8('first'))
    const early = take(node).find(({ kind }) => kind === 'MsgHeartbeat')!
    node.raft.readIndex(fromUtf8('second'))
    take(node)
    node.raft.step(from(2, 'MsgHeartbeatResp', { context: early.context }))
    const { readStates } = node.raft.ready()
    assert.deepEqual(
      readStates.map(({ context }) => context),
      [fromUtf8('first')],
    )
  })
})
