import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyBytes, fromUtf8 } from '../../src/lib/bytes.ts'
import type { Config } from '../../src/raft/raft.ts'
import { draft, type Entry, type Message } from '../../src/raft/types.ts'
import { settle, type TestNode, take, testNode } from './test-node.ts'

const voters = [1, 2, 3]
const config: Partial<Config> = { checkQuorum: false, commitMessages: true }

const answer = (from: number, index: number): Message => ({ ...draft('MsgAppResp', 1, from, 1), index })
const commitsOf = (messages: readonly Message[]) =>
  messages.flatMap(({ kind, to, commit, leaderCommit }) =>
    kind === 'MsgCommit' ? [{ to, commit, leaderCommit }] : [],
  )

/** Leads term 1; both others have its first entry and know that it is committed. */
function leader(more: Partial<Config> = {}): TestNode {
  const node = testNode({ voters }, { ...config, ...more })
  node.raft.campaign()
  settle(node)
  node.raft.step({ ...draft('MsgVoteResp', 1, 2, 1), context: voteContext(node) })
  settle(node)
  for (const from of [2, 3]) node.raft.step(answer(from, 1))
  settle(node)
  assert.equal(node.raft.basicStatus().commit, 1)
  return node
}

/** A grant echoes the log position that was asked about. */
function voteContext(node: TestNode): Uint8Array {
  const probe = testNode({ voters }, { ...config, id: 2 })
  probe.raft.step({ ...draft('MsgVote', 2, 1, node.raft.term), index: 0, logTerm: 0 })
  return settle(probe).find(({ kind }) => kind === 'MsgVoteResp')!.context
}

describe('a commit', () => {
  it('is told to whoever has acknowledged it, at once to the first and later to the second, and only once', () => {
    const node = leader()
    assert.equal(node.raft.propose(fromUtf8('x')), 'ok')
    settle(node)
    node.raft.step(answer(2, 2))
    assert.deepEqual(commitsOf(take(node)), [{ to: 2, commit: 2, leaderCommit: 2 }])
    node.raft.step(answer(3, 2))
    assert.deepEqual(commitsOf(take(node)), [{ to: 3, commit: 2, leaderCommit: 2 }])
    for (const from of [2, 3, 2, 3]) node.raft.step(answer(from, 2))
    assert.deepEqual(take(node), [])
  })

  it('travels with entries where there are some to send', () => {
    const node = leader({ maxInflightMsgs: 1 })
    for (const data of ['x', 'y']) assert.equal(node.raft.propose(fromUtf8(data)), 'ok')
    settle(node)
    node.raft.step(answer(2, 2))
    const sent = settle(node).filter(({ to }) => to === 2)
    assert.deepEqual(
      sent.map(({ kind, entries, commit }) => [kind, entries.length, commit]),
      [['MsgApp', 1, 2]],
    )
  })

  it('is an append that asks to be answered where the leader does not know how far the logs agree', () => {
    const node = leader()
    node.raft.reportUnreachable(3)
    assert.equal(node.raft.propose(fromUtf8('x')), 'ok')
    settle(node)
    node.raft.step(answer(2, 2))
    assert.deepEqual(
      take(node).map(({ kind, to }) => `${kind} to ${to}`),
      ['MsgCommit to 2'],
    )
    node.raft.step({ ...draft('MsgHeartbeatResp', 1, 3, 1) })
    assert.deepEqual(
      take(node).map(({ kind, to }) => `${kind} to ${to}`),
      ['MsgApp to 3'],
    )
  })

  const follower = (): TestNode => {
    const node = testNode({ voters }, config)
    const entries: Entry[] = [1, 2, 3].map(index => ({ term: 1, index, kind: 'normal', data: emptyBytes }))
    node.raft.step({ ...draft('MsgApp', 1, 2, 1), entries })
    settle(node)
    return node
  }

  it('is believed without an answer, and never taken back', () => {
    const node = follower()
    assert.equal(node.raft.step({ ...draft('MsgCommit', 1, 2, 1), commit: 2 }), 'ok')
    assert.equal(node.raft.basicStatus().commit, 2)
    assert.equal(node.raft.step({ ...draft('MsgCommit', 1, 2, 1), commit: 1 }), 'ok')
    assert.equal(node.raft.basicStatus().commit, 2)
    assert.deepEqual(take(node), [])
  })

  it('of entries that it does not have proves to a replica that it has lost them', () => {
    for (const term of [1, 2]) {
      const node = follower()
      assert.equal(node.raft.step({ ...draft('MsgCommit', 1, 2, term), commit: 4 }), 'lostEntries')
      assert.equal(node.raft.term, 1)
    }
  })

  it('of an earlier term changes nothing; one of this or a later term makes a candidate follow', () => {
    const node = follower()
    node.raft.forgetLeader()
    node.raft.campaign()
    settle(node)
    assert.equal(node.raft.term, 2)
    node.raft.step({ ...draft('MsgCommit', 1, 2, 1), commit: 2 })
    assert.equal(node.raft.basicStatus().commit, 0)
    node.raft.step({ ...draft('MsgCommit', 1, 3, 2), commit: 2 })
    assert.deepEqual([node.raft.lead, node.raft.basicStatus().commit], [3, 2])
  })
})
