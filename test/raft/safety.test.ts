import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyBytes, fromUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { MemoryStorage } from '../../src/raft/memory-storage.ts'
import { encodePosition } from '../../src/raft/position.ts'
import { productionConfig } from '../../src/raft/raft.ts'
import { RawNode } from '../../src/raft/raw-node.ts'
import {
  type ConfChange,
  draft,
  emptyConfState,
  isLocalTarget,
  localAppendThread,
  type Message,
  type MessageKind,
} from '../../src/raft/types.ts'

/** Replica 1 of a group founded at (term 1, index 1), with its disk. */
class Bench {
  readonly storage = new MemoryStorage()
  readonly node: RawNode
  readonly sent: Message[] = []
  readonly writes: Message[] = []
  readonly applies: Message[] = []

  constructor(voters: readonly number[], preVote = false) {
    this.storage.applySnapshot({
      meta: { index: 1, term: 1, confState: { ...emptyConfState, voters } },
      data: emptyBytes,
    })
    this.storage.hardState = { term: 1, vote: 0, commit: 1 }
    this.node = new RawNode(
      { ...productionConfig, preVote, id: 1, applied: 1, random: new Prng(1) },
      this.storage,
    )
  }

  /** Takes what is ready; nothing is written. */
  take(): void {
    while (this.node.hasReady()) {
      for (const message of this.node.ready().messages) {
        if (!isLocalTarget(message.to)) this.sent.push(message)
        else (message.to === localAppendThread ? this.writes : this.applies).push(message)
      }
    }
  }

  /** The oldest write becomes durable. */
  sync(): void {
    const { term, vote, commit, entries, responses } = this.writes.shift()!
    if (term !== 0) this.storage.hardState = { term, vote, commit }
    this.storage.append(entries)
    for (const response of responses) {
      if (response.to === 1) this.node.step(response)
      else this.sent.push(response)
    }
  }

  settle(): void {
    for (this.take(); this.writes.length > 0; this.take()) this.sync()
  }

  hear(kind: MessageKind, from: number, facts: Partial<Message> = {}) {
    return this.node.step({ ...draft(kind, 1, from, this.node.term), ...facts })
  }

  /** A vote for the log as it is. */
  vote() {
    const { log } = this.node.raft
    return { context: encodePosition(log.lastIndex(), log.lastTerm()) }
  }

  /** Leads term 2 with its first entry, 2, on disk and unacknowledged by others. */
  lead(): this {
    this.node.campaign()
    this.settle()
    if (!this.node.isLeader) this.hear('MsgVoteResp', 2, this.vote())
    this.settle()
    assert.ok(this.node.isLeader)
    this.sent.length = 0
    return this
  }

  sentKinds(): string[] {
    return this.sent.map(({ kind, to }) => `${kind} to ${to}`)
  }
}

const changeTo = (...changes: ConfChange['changes']): ConfChange => ({
  transition: 'auto',
  changes,
  context: emptyBytes,
})

describe('a candidate', () => {
  it('does not lead before its own vote is on disk, whoever else votes for it', () => {
    const bench = new Bench([1, 2, 3])
    bench.node.campaign()
    bench.take()
    bench.hear('MsgVoteResp', 2, bench.vote())
    bench.hear('MsgVoteResp', 3, bench.vote())
    assert.equal(bench.node.isLeader, false)
    bench.sync()
    assert.equal(bench.node.isLeader, true)
  })
})

describe('a candidate that crashed', () => {
  it('counts no vote of its earlier life for a log that it lost', () => {
    const bench = new Bench([1, 2, 3])
    bench.node.campaign()
    bench.settle()
    bench.hear('MsgVoteResp', 2, { context: encodePosition(5, 1) })
    assert.equal(bench.node.isLeader, false)
    bench.hear('MsgVoteResp', 2, bench.vote())
    assert.equal(bench.node.isLeader, true)
  })

  it('learns from a refusal what is committed of the log it has', () => {
    const bench = new Bench([1, 2, 3])
    const entries = [2, 3].map(index => ({ term: 1, index, kind: 'normal' as const, data: emptyBytes }))
    bench.hear('MsgApp', 2, { index: 1, logTerm: 1, entries })
    bench.node.campaign()
    bench.settle()
    bench.hear('MsgVoteResp', 2, { reject: true, context: encodePosition(3, 2) })
    assert.equal(bench.node.basicStatus().commit, 1)
    bench.hear('MsgVoteResp', 3, { reject: true, context: encodePosition(3, 1) })
    assert.equal(bench.node.basicStatus().commit, 3)
  })
})

describe('a follower', () => {
  it('sends its vote only when the vote is on disk', () => {
    const bench = new Bench([1, 2, 3])
    bench.hear('MsgVote', 2, { term: 2, index: 1, logTerm: 1 })
    bench.take()
    assert.deepEqual(bench.sentKinds(), [])
    bench.sync()
    assert.deepEqual(bench.sentKinds(), ['MsgVoteResp to 2'])
    assert.deepEqual(bench.storage.hardState, { term: 2, vote: 2, commit: 1 })
  })

  it('refuses a second candidate of the same term', () => {
    const bench = new Bench([1, 2, 3])
    bench.hear('MsgVote', 2, { term: 2, index: 1, logTerm: 1 })
    bench.hear('MsgVote', 3, { term: 2, index: 1, logTerm: 1 })
    bench.settle()
    assert.deepEqual(
      bench.sent.map(({ to, reject }) => ({ to, reject })),
      [
        { to: 2, reject: false },
        { to: 3, reject: true },
      ],
    )
  })

  it('refuses a candidate whose log ends earlier (Raft §5.4.1)', () => {
    const bench = new Bench([1, 2, 3])
    bench.hear('MsgVote', 2, { term: 2, index: 0, logTerm: 0 })
    bench.settle()
    assert.equal(bench.sent[0]!.reject, true)
  })

  it('reports that it lost entries when a leader proves it, and changes nothing', () => {
    const bench = new Bench([1, 2, 3])
    const before = bench.node.basicStatus()
    assert.equal(bench.hear('MsgHeartbeat', 2, { term: 5, commit: 9 }), 'lostEntries')
    assert.deepEqual(bench.node.basicStatus(), before)
  })

  it('keeps entries unstable that were replaced and came back while the first write was under way (ABA)', () => {
    const bench = new Bench([1, 2, 3])
    const entry = (term: number) => ({ term, index: 2, kind: 'normal' as const, data: emptyBytes })
    const append = (term: number, entryTerm: number) =>
      bench.hear('MsgApp', 2, { term, index: 1, logTerm: 1, entries: [entry(entryTerm)] })
    append(2, 2)
    bench.take()
    const first = bench.writes[0]!.responses.find(({ kind }) => kind === 'MsgStorageAppendResp')!
    append(3, 3)
    append(4, 2)
    bench.take()
    bench.node.step(first)
    assert.equal(bench.node.raft.log.unstable.entries.length, 1)
    bench.settle()
    assert.equal(bench.node.raft.log.unstable.entries.length, 0)
    assert.equal(bench.storage.term(2), 2)
  })

  it('hints at the last entry whose term the leader may have', () => {
    const bench = new Bench([1, 2, 3])
    const entries = [2, 3, 4].map(index => ({ term: 3, index, kind: 'normal' as const, data: emptyBytes }))
    bench.hear('MsgApp', 2, { term: 3, index: 1, logTerm: 1, entries })
    bench.hear('MsgApp', 3, { term: 5, index: 4, logTerm: 2 })
    bench.settle()
    const { index, reject, rejectHint, logTerm } = bench.sent.at(-1)!
    assert.deepEqual(
      { index, reject, rejectHint, logTerm },
      { index: 4, reject: true, rejectHint: 1, logTerm: 1 },
    )
  })
})

describe('a leader', () => {
  it('counts its own disk only when it has written', () => {
    const bench = new Bench([1, 2, 3]).lead()
    bench.hear('MsgAppResp', 2, { index: 2 })
    bench.settle()
    bench.node.propose(fromUtf8('x'))
    bench.take()
    bench.hear('MsgAppResp', 2, { index: 3 })
    assert.equal(bench.node.basicStatus().commit, 2)
    bench.sync()
    assert.equal(bench.node.basicStatus().commit, 3)
  })

  it('commits entries of earlier terms only with one of its own (Raft §5.4.2)', () => {
    const bench = new Bench([1, 2, 3])
    const entries = [{ term: 2, index: 2, kind: 'normal' as const, data: emptyBytes }]
    bench.hear('MsgApp', 2, { term: 2, index: 1, logTerm: 1, entries })
    bench.settle()
    bench.node.forgetLeader()
    bench.lead()
    bench.hear('MsgAppResp', 2, { index: 2 })
    assert.equal(bench.node.basicStatus().commit, 1)
    bench.hear('MsgAppResp', 2, { index: 3 })
    assert.equal(bench.node.basicStatus().commit, 3)
  })

  it('postpones reads until it has committed in its term, then confirms them by one round of heartbeats', () => {
    const bench = new Bench([1, 2, 3]).lead()
    assert.equal(bench.node.readIndex(fromUtf8('early')), 'postponed')
    bench.hear('MsgAppResp', 2, { index: 2 })
    assert.equal(bench.node.readIndex(fromUtf8('late')), 'ok')
    const heartbeats = bench.node.ready().messages.filter(({ kind }) => kind === 'MsgHeartbeat')
    assert.deepEqual(
      heartbeats.map(({ to }) => to),
      [2, 3],
    )
    bench.hear('MsgHeartbeatResp', 3, { context: heartbeats[1]!.context })
    assert.deepEqual(bench.node.ready().readStates, [
      { index: 2, context: fromUtf8('early') },
      { index: 2, context: fromUtf8('late') },
    ])
  })

  it('refuses what it can not append, says why, and appends nothing', () => {
    const bench = new Bench([1, 2, 3]).lead()
    const add = changeTo({ kind: 'addNode', replica: 4 })
    bench.hear('MsgAppResp', 2, { index: 2 })
    bench.settle()
    for (const { responses } of bench.applies.splice(0)) bench.node.step(responses[0]!)
    assert.equal(bench.node.proposeConfChange(changeTo()), 'notJoint')
    assert.equal(bench.node.lastIndex, 2)
    assert.equal(bench.node.proposeConfChange(add), 'ok')
    assert.equal(bench.node.proposeConfChange(add), 'confChangePending')
    bench.node.transferLeader(3)
    assert.equal(bench.node.propose(fromUtf8('x')), 'transferring')
    assert.equal(bench.node.lastIndex, 3)
  })

  it('refuses proposals beyond the uncommitted limit until some are applied', () => {
    const bench = new Bench([1]).lead()
    const half = new Uint8Array(productionConfig.maxUncommittedEntriesSize / 2)
    assert.equal(bench.node.propose(half), 'ok')
    assert.equal(bench.node.propose(half), 'ok')
    assert.equal(bench.node.propose(half), 'uncommittedFull')
    bench.settle()
    for (let left = 4; left > 0; left--) {
      for (const { responses } of bench.applies.splice(0)) bench.node.step(responses[0]!)
      bench.settle()
    }
    assert.equal(bench.node.propose(half), 'ok')
  })

  it('steps down when no quorum answered for an election timeout', () => {
    const bench = new Bench([1, 2, 3]).lead()
    for (let tick = 0; tick < 2 * productionConfig.electionTick; tick++) bench.node.tick()
    assert.equal(bench.node.isLeader, false)
  })
})
