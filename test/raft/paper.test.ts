/**
 * The sentences of the Raft paper that say what must or must never be, one `it` each, in our words, with the section:
 * § is of "In Search of an Understandable Consensus Algorithm" (extended version, 2014), "thesis §" of "Consensus: Bridging
 * Theory and Practice" (2014). Where this implementation does otherwise on purpose (a configuration counts from its apply
 * on, as in etcd), the line says what it does. What only holds of whole histories is in group.test.ts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyBytes, fromLatin1, fromUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { Config } from '../../src/raft/raft.ts'
import {
  type ConfChange,
  type ConfState,
  draft,
  type Entry,
  emptyConfState,
  type Message,
  type MessageKind,
  type Snapshot,
} from '../../src/raft/types.ts'
import { elect, settle, sync, type TestNode, take, testNode, voteFor } from './test-node.ts'

const electionTick = 10
const three = [1, 2, 3]

/** As the paper's chapter 5 has it, without what the thesis adds. */
const plain: Partial<Config> = { checkQuorum: false, preVote: false }

/** Entries of these terms, the first behind `after`. */
const entriesOf = (terms: readonly number[], after = 0): Entry[] =>
  terms.map((term, i) => ({ term, index: after + 1 + i, kind: 'normal', data: emptyBytes }))

const from = (sender: number, kind: MessageKind, fields: Partial<Message> = {}): Message => ({
  ...draft(kind, 1, sender, 1),
  ...fields,
})

/** A follower of nobody, in the last of these terms or in `term`, with this log on its disk and none of it committed. */
function withLog(
  terms: readonly number[],
  {
    term = terms.at(-1) ?? 1,
    voters = three,
    ...config
  }: { term?: number; voters?: number[] } & Partial<Config> = {},
): TestNode {
  const node = testNode({ voters }, { ...plain, ...config })
  const leader = voters.find(id => id !== node.raft.id) ?? 9
  const append = { ...draft('MsgApp', node.raft.id, leader, term), entries: entriesOf(terms) }
  assert.equal(node.raft.step(append), 'ok')
  settle(node)
  node.raft.forgetLeader()
  return node
}

const termsOf = ({ raft: { raft } }: TestNode): number[] =>
  Array.from({ length: raft.log.lastIndex() }, (_, i) => raft.log.term(i + 1) ?? 0)

/** Campaigns and is given these votes; its own disk has all it needs. Answers what it sends as a leader. */
function win(node: TestNode, voters: readonly number[]): Message[] {
  node.raft.campaign()
  settle(node)
  for (const id of voters)
    node.raft.step({ ...draft('MsgVoteResp', node.raft.id, id, node.raft.term), ...voteFor(node) })
  assert.equal(node.raft.isLeader, true)
  return settle(node)
}

/** Ticks until it stands for election, and how many that took. */
function ticksToCampaign({ raft }: TestNode): number {
  const { term } = raft
  for (let ticks = 1; ; ticks++) {
    assert.ok(ticks <= 10 * electionTick, 'it never campaigns')
    raft.tick()
    if (raft.term > term) return ticks
  }
}

const tick = ({ raft }: TestNode, ticks: number): void => {
  for (let i = 0; i < ticks; i++) raft.tick()
}

const kindsOf = (messages: readonly Message[]): string[] => messages.map(({ kind, to }) => `${kind} to ${to}`)
const roleOf = ({ raft }: TestNode) => raft.basicStatus().role
const commitOf = ({ raft }: TestNode) => raft.basicStatus().commit

function snapshotAt(
  index: number,
  term: number,
  confState: Partial<ConfState> = { voters: three },
): Snapshot {
  return { meta: { index, term, confState: { ...emptyConfState, ...confState } }, data: emptyBytes }
}

/** A few of them, with a network that loses what a test says. */
class Cluster {
  private readonly nodes: ReadonlyMap<number, TestNode>
  isLost: (message: Message) => boolean = () => false

  constructor(confState: Partial<ConfState>, config: Partial<Config> = plain) {
    const { voters, votersOutgoing, learners } = { ...emptyConfState, ...confState }
    const ids = [...new Set([...voters, ...votersOutgoing, ...learners])]
    this.nodes = new Map(
      ids.map(id => [id, testNode(confState, { ...config, id, random: new Prng(id) })] as const),
    )
  }

  at(id: number): TestNode {
    return this.nodes.get(id)!
  }

  /** From now on messages pass only between those in `side`. */
  only(...side: readonly number[]): void {
    this.isLost = ({ from: sender, to }) => !side.includes(sender) || !side.includes(to)
  }

  heal(): void {
    this.isLost = () => false
  }

  /** All disks write, all state machines apply, all that is not lost arrives, until nobody has anything more to say. */
  settle(): void {
    for (;;) {
      const sent = [...this.nodes.values()].flatMap(settle)
      if (sent.length === 0) return
      for (const message of sent) if (!this.isLost(message)) this.nodes.get(message.to)?.raft.step(message)
    }
  }

  campaign(id: number): void {
    this.at(id).raft.campaign()
    this.settle()
  }

  propose(id: number, data = 'x'): void {
    assert.equal(this.at(id).raft.propose(fromUtf8(data)), 'ok')
    this.settle()
  }

  heartbeat(id: number): void {
    this.at(id).raft.tick()
    this.settle()
  }
}

const roles: readonly { role: string; make: () => TestNode }[] = [
  { role: 'follower', make: () => withLog([1]) },
  {
    role: 'candidate',
    make: () => {
      const node = withLog([1])
      node.raft.campaign()
      settle(node)
      return node
    },
  },
  {
    role: 'leader',
    make: () => {
      const node = withLog([1])
      win(node, [2])
      return node
    },
  },
]

describe('terms', () => {
  for (const { role, make } of roles)
    it(`a ${role} that sees a higher term takes it over and follows (§5.1)`, () => {
      const node = make()
      assert.equal(roleOf(node), role)
      node.raft.step(from(2, 'MsgApp', { term: 7, index: 1, logTerm: 1 }))
      assert.deepEqual([roleOf(node), node.raft.term, node.raft.lead], ['follower', 7, 2])
    })

  it('a request of an older term changes nothing (§5.1)', () => {
    const node = withLog([1, 1], { term: 4 })
    const before = { ...node.raft.status(), log: termsOf(node) }
    node.raft.step(from(3, 'MsgVote', { term: 3, index: 9, logTerm: 3 }))
    node.raft.step(
      from(3, 'MsgApp', { term: 3, index: 1, logTerm: 1, entries: entriesOf([3], 1), commit: 2 }),
    )
    node.raft.step(from(3, 'MsgSnap', { term: 3, snapshot: snapshotAt(9, 3) }))
    assert.deepEqual(
      settle(node).filter(({ reject }) => !reject),
      [],
    )
    assert.deepEqual({ ...node.raft.status(), log: termsOf(node) }, before)
  })

  it('a leader of an older term is told the newer one, so that it steps down (§5.1)', () => {
    const node = withLog([1], { term: 4, checkQuorum: true })
    node.raft.step(from(3, 'MsgHeartbeat', { term: 2 }))
    const [answer] = settle(node)
    assert.deepEqual([answer?.to, answer?.term], [3, 4])
    const old = withLog([1])
    win(old, [2])
    old.raft.step({ ...answer!, to: 1, from: 2 })
    assert.deepEqual([roleOf(old), old.raft.term], ['follower', 4])
  })

  it('term and vote are on disk before an answer that depends on them leaves (§5.1, figure 2)', () => {
    const node = withLog([1])
    node.raft.step(from(2, 'MsgVote', { term: 5, index: 1, logTerm: 1 }))
    assert.deepEqual(kindsOf(take(node)), [])
    const { term, vote } = node.appends[0]!
    assert.deepEqual({ term, vote }, { term: 5, vote: 2 })
    assert.deepEqual(kindsOf(sync(node)), ['MsgVoteResp to 2'])
  })
})

describe('elections', () => {
  it('a server starts as a follower, and stays one while it hears a leader (§5.2)', () => {
    const node = testNode({ voters: three }, plain)
    assert.equal(roleOf(node), 'follower')
    for (let i = 0; i < 20; i++) {
      node.raft.step(from(2, 'MsgHeartbeat'))
      tick(node, electionTick - 1)
    }
    assert.deepEqual([roleOf(node), node.raft.term], ['follower', 1])
  })

  it('a vote granted, too, puts off an election of its own (§5.2)', () => {
    const node = withLog([1])
    node.raft.raft.setElectionTimeout(electionTick)
    tick(node, electionTick - 1)
    node.raft.step(from(2, 'MsgVote', { index: 1, logTerm: 1 }))
    tick(node, electionTick - 1)
    assert.equal(roleOf(node), 'follower')
  })

  it('a refused one does not (§5.2)', () => {
    const node = withLog([1, 2])
    node.raft.raft.setElectionTimeout(electionTick)
    tick(node, electionTick - 1)
    node.raft.step(from(2, 'MsgVote', { term: 2, index: 1, logTerm: 1 }))
    tick(node, 1)
    assert.equal(roleOf(node), 'candidate')
  })

  it('a follower that hears of nobody raises its term, votes for itself and asks all others at once (§5.2)', () => {
    const node = testNode({ voters: [1, 2, 3, 4, 5] }, plain)
    ticksToCampaign(node)
    const { role, term, vote } = node.raft.basicStatus()
    assert.deepEqual({ role, term, vote }, { role: 'candidate', term: 1, vote: 1 })
    const requests = take(node)
    assert.deepEqual(kindsOf(requests), ['MsgVote to 2', 'MsgVote to 3', 'MsgVote to 4', 'MsgVote to 5'])
    assert.ok(requests.every(each => each.term === 1))
  })

  it('a majority of all voters elects, of those that answer it does not (§5.2)', () => {
    const outcomes = [
      { size: 1, granted: 0, refused: 0, role: 'leader' },
      { size: 2, granted: 0, refused: 0, role: 'candidate' },
      { size: 2, granted: 1, refused: 0, role: 'leader' },
      { size: 3, granted: 1, refused: 0, role: 'leader' },
      { size: 3, granted: 0, refused: 1, role: 'candidate' },
      { size: 3, granted: 1, refused: 1, role: 'leader' },
      { size: 3, granted: 0, refused: 2, role: 'follower' },
      { size: 4, granted: 1, refused: 0, role: 'candidate' },
      { size: 4, granted: 2, refused: 0, role: 'leader' },
      { size: 5, granted: 1, refused: 1, role: 'candidate' },
      { size: 5, granted: 2, refused: 2, role: 'leader' },
      { size: 5, granted: 1, refused: 3, role: 'follower' },
    ]
    for (const { size, granted, refused, role } of outcomes) {
      const node = testNode({ voters: Array.from({ length: size }, (_, i) => i + 1) }, plain)
      node.raft.campaign()
      settle(node)
      for (let i = 0; i < granted; i++) node.raft.step(from(2 + i, 'MsgVoteResp', voteFor(node)))
      for (let i = 0; i < refused; i++) node.raft.step(from(2 + granted + i, 'MsgVoteResp', { reject: true }))
      assert.equal(roleOf(node), role, JSON.stringify({ size, granted, refused }))
    }
  })

  it('a vote counts once, however often it arrives (§5.2)', () => {
    const node = testNode({ voters: [1, 2, 3, 4, 5] }, plain)
    node.raft.campaign()
    settle(node)
    for (let i = 0; i < 3; i++) node.raft.step(from(2, 'MsgVoteResp', voteFor(node)))
    assert.equal(roleOf(node), 'candidate')
  })

  it('a server votes for one candidate a term, who asks first; he may ask again (§5.2)', () => {
    const node = withLog([1])
    for (const candidate of [2, 3, 2])
      node.raft.step(from(candidate, 'MsgVote', { term: 2, index: 1, logTerm: 1 }))
    const answers = settle(node).map(({ to, reject }) => [to, reject])
    assert.deepEqual(answers, [
      [2, false],
      [3, true],
      [2, false],
    ])
  })

  it('it remembers over a restart for whom it voted (§5.2, figure 2)', () => {
    const node = testNode({ voters: three }, { ...plain, hardState: { term: 2, vote: 2, commit: 0 } })
    for (const candidate of [3, 2]) node.raft.step(from(candidate, 'MsgVote', { term: 2 }))
    const answers = settle(node).map(({ to, reject }) => [to, reject])
    assert.deepEqual(answers, [
      [3, true],
      [2, false],
    ])
  })

  it('a new leader tells everybody at once (§5.2)', () => {
    const node = withLog([1])
    assert.deepEqual(kindsOf(win(node, [2])), ['MsgApp to 2', 'MsgApp to 3'])
  })

  it('a candidate that hears a leader of its term or a later one follows it, of an older one it goes on (§5.2)', () => {
    for (const [term, role] of [
      [1, 'candidate'],
      [2, 'follower'],
      [3, 'follower'],
    ] as const) {
      const node = withLog([1])
      node.raft.campaign()
      node.raft.step(from(2, 'MsgApp', { term, index: 1, logTerm: 1 }))
      assert.deepEqual([roleOf(node), node.raft.lead], [role, role === 'follower' ? 2 : 0])
    }
  })

  it('a split vote elects nobody, and each times out into a new election with a new term (§5.2)', () => {
    const cluster = new Cluster({ voters: [1, 2, 3, 4] })
    cluster.at(1).raft.campaign()
    cluster.at(2).raft.campaign()
    // 3 hears 1 first, 4 hears 2 first.
    cluster.isLost = ({ from: sender, to, kind }) =>
      kind === 'MsgVote' && ((sender === 1 && to === 4) || (sender === 2 && to === 3))
    cluster.settle()
    assert.deepEqual(
      [1, 2].map(id => roleOf(cluster.at(id))),
      ['candidate', 'candidate'],
    )
    cluster.heal()
    ticksToCampaign(cluster.at(1))
    cluster.settle()
    assert.deepEqual([roleOf(cluster.at(1)), cluster.at(1).raft.term], ['leader', 2])
  })

  it('an election timeout is drawn anew each time, evenly from T to 2T - 1 (§5.2)', () => {
    const node = testNode({ voters: three }, plain)
    const drawn = Array.from({ length: 1_000 }, () => ticksToCampaign(node))
    const counts = new Map<number, number>()
    for (const ticks of drawn) counts.set(ticks, (counts.get(ticks) ?? 0) + 1)
    assert.deepEqual(
      [...counts.keys()].sort((a, b) => a - b),
      Array.from({ length: electionTick }, (_, i) => electionTick + i),
    )
    for (const [ticks, count] of counts) assert.ok(count > 60 && count < 140, `${ticks} ticks ${count} times`)
  })

  it('mostly one server alone times out first, so split votes are rare (§5.2)', () => {
    const nodes = [1, 2, 3, 4, 5].map(seed =>
      testNode({ voters: three }, { ...plain, random: new Prng(seed) }),
    )
    let ties = 0
    for (let round = 0; round < 1_000; round++) {
      const timeouts = nodes.map(ticksToCampaign)
      const first = Math.min(...timeouts)
      if (timeouts.filter(ticks => ticks === first).length > 1) ties++
    }
    // Five draws from ten: 23 % of the lowest are not alone.
    assert.ok(ties < 300, `${ties} of 1,000`)
  })

  it('a leader sends heartbeats to all, always (§5.2)', () => {
    const node = testNode({ voters: three }, { ...plain, heartbeatTick: 3 })
    elect(node)
    for (let round = 0; round < 5; round++) {
      tick(node, 2)
      assert.deepEqual(kindsOf(settle(node)), [])
      tick(node, 1)
      assert.deepEqual(kindsOf(settle(node)), ['MsgHeartbeat to 2', 'MsgHeartbeat to 3'])
    }
  })
})

describe('log replication', () => {
  it('a leader appends what clients bring and sends it to all others at the same time (§5.3)', () => {
    const node = testNode({ voters: three }, plain)
    elect(node)
    node.raft.propose(fromUtf8('a'))
    const sent = take(node)
    assert.deepEqual(kindsOf(sent), ['MsgApp to 2', 'MsgApp to 3'])
    const entry: Entry = { term: 1, index: 2, kind: 'normal', data: fromUtf8('a') }
    assert.deepEqual(node.appends[0]?.entries, [entry])
    for (const { index, logTerm, entries } of sent)
      assert.deepEqual({ index, logTerm, entries }, { index: 1, logTerm: 1, entries: [entry] })
  })

  it('an entry is committed once a majority has it on disk, the leader among them or not (§5.3)', () => {
    const outcomes = [
      { size: 1, acks: [1], isCommitted: true },
      { size: 3, acks: [1], isCommitted: false },
      { size: 3, acks: [1, 2], isCommitted: true },
      { size: 3, acks: [2, 3], isCommitted: true },
      { size: 4, acks: [1, 2], isCommitted: false },
      { size: 4, acks: [1, 2, 4], isCommitted: true },
      { size: 5, acks: [1, 2], isCommitted: false },
      { size: 5, acks: [1, 3, 5], isCommitted: true },
    ]
    for (const { size, acks, isCommitted } of outcomes) {
      const node = testNode({ voters: Array.from({ length: size }, (_, i) => i + 1) }, plain)
      elect(node)
      node.raft.propose(fromUtf8('a'))
      take(node)
      for (const id of acks) {
        if (id === 1) sync(node)
        else node.raft.step(from(id, 'MsgAppResp', { index: 2 }))
      }
      assert.equal(commitOf(node) === 2, isCommitted, JSON.stringify({ size, acks }))
    }
  })

  it('committing an entry commits all before it, those of former leaders too (§5.3)', () => {
    const node = withLog([1, 2, 2])
    win(node, [2])
    node.raft.step(from(2, 'MsgAppResp', { term: 3, index: 4 }))
    take(node)
    assert.deepEqual(
      node.applies.flatMap(({ entries }) => entries.map(({ term, index }) => [term, index])),
      [
        [1, 1],
        [2, 2],
        [2, 3],
        [3, 4],
      ],
    )
  })

  it('a follower that learns of a commit applies what it covers, in log order (§5.3)', () => {
    const node = testNode({ voters: three }, plain)
    node.raft.step(from(2, 'MsgApp', { entries: entriesOf([1, 1, 1]) }))
    settle(node)
    assert.equal(node.raft.basicStatus().applied, 0)
    node.raft.step(from(2, 'MsgApp', { index: 3, logTerm: 1, commit: 2 }))
    take(node)
    assert.deepEqual(
      node.applies.flatMap(({ entries }) => entries.map(({ index }) => index)),
      [1, 2],
    )
  })

  it('a follower commits no further than what the leader has just compared (§5.3, figure 2)', () => {
    const node = withLog([1, 1, 1])
    node.raft.step(from(2, 'MsgApp', { term: 2, entries: entriesOf([1]), commit: 3 }))
    assert.equal(commitOf(node), 1)
  })

  it('nor does a heartbeat tell it of more than it is known to have (§5.3)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to }) => to === 3
    cluster.propose(1)
    assert.equal(commitOf(cluster.at(1)), 2)
    tick(cluster.at(1), 1)
    const told = take(cluster.at(1)).filter(({ kind }) => kind === 'MsgHeartbeat')
    assert.deepEqual(
      told.map(({ to, commit }) => [to, commit]),
      [
        [2, 2],
        [3, 1],
      ],
    )
  })

  it('a follower refuses an append whose preceding entry it does not have (§5.3)', () => {
    for (const [index, logTerm, reject] of [
      [0, 0, false],
      [1, 1, false],
      [2, 2, false],
      [1, 2, true],
      [2, 1, true],
      [3, 3, true],
    ] as const) {
      const node = withLog([1, 2])
      node.raft.step(from(2, 'MsgApp', { term: 3, index, logTerm }))
      const [answer] = settle(node)
      assert.deepEqual([answer?.kind, answer?.index, answer?.reject], ['MsgAppResp', index, reject])
      assert.deepEqual(termsOf(node), [1, 2])
    }
  })

  it('an entry that conflicts with the leader’s goes, with all behind it; one that agrees stays (§5.3)', () => {
    for (const [after, terms, log] of [
      [2, [3], [1, 2, 3]],
      [1, [3, 4], [1, 3, 4]],
      [0, [1], [1, 2]],
      [0, [3], [3]],
      [0, [1, 2, 4], [1, 2, 4]],
    ] as const) {
      const node = withLog([1, 2])
      const logTerm = [0, 1, 2][after]!
      node.raft.step(from(2, 'MsgApp', { term: 4, index: after, logTerm, entries: entriesOf(terms, after) }))
      settle(node)
      assert.deepEqual(termsOf(node), log)
      assert.equal(node.storage.term(log.length), log.at(-1), 'on disk as well')
    }
  })

  it('the same append again changes nothing and is acknowledged again (§5.5)', () => {
    const node = withLog([1])
    const append = from(2, 'MsgApp', { term: 2, index: 1, logTerm: 1, entries: entriesOf([2, 2], 1) })
    for (let i = 0; i < 2; i++) {
      node.raft.step(append)
      assert.deepEqual(
        settle(node).map(({ index, reject }) => [index, reject]),
        [[3, false]],
      )
      assert.deepEqual(termsOf(node), [1, 2, 2])
    }
  })

  // Figure 7: what a leader of term 8 may find.
  const leaderLog = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
  const figure7: readonly { name: string; terms: readonly number[] }[] = [
    { name: 'lacks an entry', terms: [1, 1, 1, 4, 4, 5, 5, 6, 6] },
    { name: 'lacks many', terms: [1, 1, 1, 4] },
    { name: 'has one more', terms: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6] },
    { name: 'has more of a later term', terms: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7] },
    { name: 'has others at the end', terms: [1, 1, 1, 4, 4, 4, 4] },
    { name: 'has others of two terms', terms: [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3] },
  ]
  for (const { name, terms } of figure7)
    it(`a leader makes the log equal to its own of a follower that ${name} (§5.3, figure 7)`, () => {
      const leader = withLog(leaderLog, { term: 7 })
      const follower = withLog(terms, { term: 7, id: 2 })
      let inFlight = win(leader, [3])
      let appends = 0
      while (inFlight.length > 0) {
        const forFollower = inFlight.filter(({ to }) => to === 2)
        appends += forFollower.length
        for (const message of forFollower) follower.raft.step(message)
        for (const answer of settle(follower)) leader.raft.step(answer)
        inFlight = settle(leader)
      }
      assert.deepEqual(termsOf(leader), [...leaderLog, 8], 'it never overwrites or deletes its own entries')
      assert.deepEqual(termsOf(follower), termsOf(leader))
      assert.equal(leader.raft.progressOf(2)?.match, 11)
      // A refusal names a term, not an entry: the fork is found in a round trip a term, and two more finish it.
      assert.ok(appends <= 4, `${appends} appends`)
    })

  it('a leader repeats what was lost until the follower has it, also after it answered its client (§5.3)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to }) => to === 3
    for (let i = 0; i < 5; i++) cluster.propose(1)
    assert.deepEqual([commitOf(cluster.at(1)), cluster.at(3).raft.lastIndex], [6, 1])
    cluster.heal()
    cluster.heartbeat(1)
    assert.deepEqual([cluster.at(3).raft.lastIndex, commitOf(cluster.at(3))], [6, 6])
  })

  it('one slow follower holds nobody up (§5.3, §2)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to }) => to === 3
    for (let i = 0; i < 20; i++) cluster.propose(1)
    assert.deepEqual(
      [1, 2].map(id => commitOf(cluster.at(id))),
      [21, 21],
    )
  })
})

describe('safety', () => {
  it('a request for a vote says where the candidate’s log ends (§5.4.1)', () => {
    const node = withLog([1, 2, 2])
    node.raft.campaign()
    for (const { kind, term, index, logTerm } of take(node))
      assert.deepEqual({ kind, term, index, logTerm }, { kind: 'MsgVote', term: 3, index: 3, logTerm: 2 })
  })

  it('a voter denies its vote when its own log is more up to date: by last term, then by length (§5.4.1)', () => {
    for (const [own, index, logTerm, reject] of [
      [[1], 1, 1, false],
      [[1], 2, 1, false],
      [[1, 1], 1, 1, true],
      [[1], 1, 2, false],
      [[1], 2, 2, false],
      [[1, 1], 1, 2, false],
      [[2], 1, 1, true],
      [[2], 9, 1, true],
      [[1, 2], 1, 1, true],
    ] as const) {
      const node = withLog(own)
      node.raft.step(from(3, 'MsgVote', { term: 3, index, logTerm }))
      const [answer] = settle(node)
      assert.equal(answer?.reject, reject, JSON.stringify({ own, index, logTerm }))
    }
  })

  it('nobody is elected who lacks a committed entry (§5.4.1)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to }) => to === 3
    cluster.propose(1)
    cluster.only(2, 3)
    cluster.campaign(3)
    assert.equal(cluster.at(3).raft.isLeader, false)
    cluster.campaign(2)
    assert.equal(cluster.at(2).raft.isLeader, true)
    assert.deepEqual(termsOf(cluster.at(3)).slice(0, 2), [1, 1])
  })

  it('entries of an earlier term are not committed by counting who has them (§5.4.2)', () => {
    for (const [acknowledged, commit] of [
      [1, 0],
      [2, 0],
      [3, 3],
    ] as const) {
      const node = withLog([1, 2])
      win(node, [2])
      node.raft.step(from(2, 'MsgAppResp', { term: 3, index: acknowledged }))
      assert.equal(commitOf(node), commit, `acknowledged to ${acknowledged}`)
    }
  })

  /**
   * Figure 8 up to (c). 1 led term 1 and brought entry 2 to 2 alone; 5 led term 2 and brought its own entry 2 to nobody;
   * now 1 leads term 3, brings the old entry 2 to 3 and 4 as well, and its first entry of term 3 to nobody yet.
   */
  function figure8(): Cluster {
    // One entry a message, so that the network may lose one and not the other.
    const cluster = new Cluster({ voters: [1, 2, 3, 4, 5] }, { ...plain, maxSizePerMsg: 1 })
    cluster.campaign(1)
    cluster.only(1, 2)
    cluster.propose(1)
    cluster.isLost = ({ kind, to }) => kind === 'MsgApp' || to === 1 || to === 2
    cluster.campaign(5)
    assert.equal(cluster.at(5).raft.isLeader, true)
    cluster.isLost = ({ from: sender, to, index, entries }) =>
      sender === 5 ||
      to === 5 ||
      (entries.some(({ term }) => term === 3) && cluster.at(to).raft.lastIndex === index)
    comesBack(cluster, 1)
    const logs = [1, 2, 3, 4, 5].map(id => termsOf(cluster.at(id)))
    assert.deepEqual(logs, [
      [1, 1, 3],
      [1, 1],
      [1, 1],
      [1, 1],
      [1, 2],
    ])
    return cluster
  }

  /** It had led and was down, and stands twice: the first time the others have voted in its term already. */
  function comesBack(cluster: Cluster, id: number): void {
    cluster.at(id).raft.stepDown()
    cluster.campaign(id)
    cluster.campaign(id)
  }

  /** 1 is down, and 5 is back and stands until the others have seen its term. */
  function fifthStands(cluster: Cluster): void {
    cluster.only(2, 3, 4, 5)
    comesBack(cluster, 5)
  }

  it('an entry of an earlier term may be lost though a majority has it: it was never called committed (§5.4.2, figure 8 d)', () => {
    const cluster = figure8()
    assert.deepEqual(
      [3, 4].map(id => cluster.at(1).raft.progressOf(id)?.match),
      [2, 2],
    )
    assert.equal(commitOf(cluster.at(1)), 1)
    fifthStands(cluster)
    assert.deepEqual(
      [2, 3, 4, 5].map(id => termsOf(cluster.at(id))),
      Array(4).fill([1, 2, 4]),
    )
  })

  it('with an entry of the leader’s own term behind it, it is committed and can’t be lost (§5.4.2, figure 8 e)', () => {
    const cluster = figure8()
    cluster.only(1, 3, 4)
    cluster.heartbeat(1)
    assert.equal(commitOf(cluster.at(1)), 3)
    fifthStands(cluster)
    assert.equal(cluster.at(5).raft.isLeader, false)
    cluster.campaign(3)
    assert.deepEqual(
      [2, 3, 4, 5].map(id => termsOf(cluster.at(id)).slice(0, 3)),
      Array(4).fill([1, 1, 3]),
    )
  })
})

describe('a configuration', () => {
  const change = (...changes: ConfChange['changes']): ConfChange => ({
    transition: 'auto',
    changes,
    context: emptyBytes,
  })
  const joint = { voters: [1, 4, 5], votersOutgoing: three }

  it('that is joint elects with majorities of the old and of the new, apart (§6)', () => {
    for (const [granted, isElected] of [
      [[2, 3], false],
      [[4, 5], false],
      [[2, 4], true],
    ] as const) {
      const node = testNode(joint, plain)
      node.raft.campaign()
      settle(node)
      for (const id of granted) node.raft.step(from(id, 'MsgVoteResp', voteFor(node)))
      assert.equal(node.raft.isLeader, isElected, granted.join())
    }
  })

  it('that is joint commits with majorities of both, and sends every entry to both (§6)', () => {
    const node = testNode(joint, plain)
    elect(node)
    node.raft.propose(fromUtf8('a'))
    assert.deepEqual(
      settle(node).map(({ to }) => to),
      [2, 3, 4, 5],
    )
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    node.raft.step(from(3, 'MsgAppResp', { index: 2 }))
    assert.equal(commitOf(node), 1, 'all of the old have it')
    node.raft.step(from(4, 'MsgAppResp', { index: 2 }))
    assert.equal(commitOf(node), 2)
    node.raft.propose(fromUtf8('b'))
    settle(node)
    node.raft.step(from(4, 'MsgAppResp', { index: 3 }))
    node.raft.step(from(5, 'MsgAppResp', { index: 3 }))
    assert.equal(commitOf(node), 2, 'all of the new have it')
    node.raft.step(from(2, 'MsgAppResp', { index: 3 }))
    assert.equal(commitOf(node), 3)
  })

  it('that is joint may be led by a server of the old that is not of the new (§6)', () => {
    const node = testNode({ voters: [2, 3], votersOutgoing: [1, 2, 3] }, plain)
    elect(node)
    assert.equal(node.raft.isLeader, true)
  })

  it('counts from where its entry is applied, on every server at the same index (§6, here as in etcd)', () => {
    const node = testNode({ voters: three }, plain)
    elect(node)
    node.raft.proposeConfChange(change({ kind: 'removeNode', replica: 3 }))
    settle(node)
    assert.deepEqual(node.raft.status().config.voters, three)
    node.raft.step(from(3, 'MsgAppResp', { index: 2 }))
    settle(node)
    assert.deepEqual(node.raft.status().config.voters, [1, 2])
  })

  it('changes one at a time: the next change is refused until the last one is applied (thesis §4.1)', () => {
    const node = testNode({ voters: three }, plain)
    elect(node)
    const add = (replica: number) => node.raft.proposeConfChange(change({ kind: 'addNode', replica }))
    assert.deepEqual([add(4), add(5)], ['ok', 'confChangePending'])
    settle(node)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    settle(node)
    assert.equal(add(5), 'ok')
  })

  it('is not changed by a new leader before it has applied all that it inherited (thesis §4.1)', () => {
    const node = withLog([1, 1])
    win(node, [2])
    const add = () => node.raft.proposeConfChange(change({ kind: 'addNode', replica: 4 }))
    assert.equal(add(), 'confChangePending')
    node.raft.step(from(2, 'MsgAppResp', { term: 2, index: 3 }))
    settle(node)
    assert.equal(add(), 'ok')
  })

  it('that no longer has the leader makes it step down once it is committed, not before (§6)', () => {
    const node = testNode({ voters: three }, plain)
    elect(node)
    node.raft.proposeConfChange(change({ kind: 'removeNode', replica: 1 }))
    settle(node)
    assert.equal(node.raft.isLeader, true)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    settle(node)
    assert.equal(roleOf(node), 'follower')
    tick(node, 5 * electionTick)
    assert.equal(roleOf(node), 'follower')
  })

  it('is safe from those it has removed: who hears a leader ignores requests for votes, their term too (§6)', () => {
    const node = testNode({ voters: three })
    node.raft.raft.setElectionTimeout(2 * electionTick)
    node.raft.step(from(2, 'MsgHeartbeat'))
    settle(node)
    tick(node, electionTick - 1)
    const request = from(9, 'MsgVote', { term: 7 })
    node.raft.step(request)
    assert.deepEqual([settle(node), node.raft.term], [[], 1])
    tick(node, 1)
    node.raft.step(request)
    assert.deepEqual(
      settle(node).map(({ kind, term, reject }) => [kind, term, reject]),
      [['MsgVoteResp', 7, false]],
    )
  })

  it('brings a newcomer the log before it counts its vote: a learner is sent entries and commits nothing (thesis §4.2.1)', () => {
    const node = testNode({ voters: [1, 2], learners: [3] }, plain)
    elect(node)
    node.raft.step(from(3, 'MsgAppResp', { index: 1 }))
    settle(node)
    node.raft.propose(fromUtf8('a'))
    assert.deepEqual(kindsOf(settle(node)), ['MsgApp to 2', 'MsgApp to 3'])
    node.raft.step(from(3, 'MsgAppResp', { index: 2 }))
    assert.equal(commitOf(node), 1)
    node.raft.step(from(2, 'MsgAppResp', { index: 2 }))
    assert.equal(commitOf(node), 2)
  })

  it('lets no learner stand for election (thesis §4.2.1)', () => {
    const node = testNode({ voters: [2, 3], learners: [1] }, plain)
    tick(node, 5 * electionTick)
    node.raft.campaign()
    assert.deepEqual([roleOf(node), settle(node)], ['follower', []])
  })

  it('takes a leader that a learner has not heard for an election timeout for gone', () => {
    const node = testNode({ voters: [2, 3], learners: [1] }, plain)
    node.raft.step(from(2, 'MsgHeartbeat', { term: 1 }))
    tick(node, electionTick - 1)
    assert.equal(node.raft.lead, 2)
    tick(node, electionTick)
    assert.deepEqual([node.raft.lead, roleOf(node)], [0, 'follower'])
    node.raft.step(from(3, 'MsgHeartbeat', { term: 2 }))
    assert.equal(node.raft.lead, 3)
  })

  it('asks no learner for its vote (thesis §4.2.1)', () => {
    const node = testNode({ voters: [1, 2], learners: [3] }, plain)
    node.raft.campaign()
    assert.deepEqual(kindsOf(take(node)), ['MsgVote to 2'])
  })
})

describe('snapshots', () => {
  it('a leader sends one to a follower whose next entry it has discarded, and entries behind it (§7)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to }) => to === 3
    for (let i = 0; i < 4; i++) cluster.propose(1)
    const { storage } = cluster.at(1)
    storage.saveSnapshot(snapshotAt(4, 1))
    storage.compact(4)
    cluster.heal()
    const sent: string[] = []
    cluster.isLost = ({ kind, to }) => {
      if (to === 3) sent.push(kind)
      return false
    }
    cluster.heartbeat(1)
    assert.equal(sent.filter(kind => kind === 'MsgSnap').length, 1)
    const { raft, storage: received } = cluster.at(3)
    assert.deepEqual([received.saved.meta.index, raft.firstIndex, raft.lastIndex], [4, 5, 5])
    assert.equal(commitOf(cluster.at(3)), 5)
  })

  it('one that brings news takes the place of the whole log, and its configuration counts (§7)', () => {
    const node = withLog([1, 1, 2])
    const snapshot = snapshotAt(7, 3, { voters: [1, 2, 4] })
    node.raft.step(from(2, 'MsgSnap', { term: 3, snapshot }))
    assert.deepEqual(
      settle(node).map(({ kind, index, reject }) => [kind, index, reject]),
      [['MsgAppResp', 7, false]],
    )
    const { commit, applied, lastIndex, config } = node.raft.status()
    assert.deepEqual([commit, applied, lastIndex, config.voters], [7, 7, 7, [1, 2, 4]])
  })

  it('it is acknowledged when it is on disk, not before (§7)', () => {
    const node = withLog([1])
    node.raft.step(from(2, 'MsgSnap', { term: 3, snapshot: snapshotAt(7, 3) }))
    assert.deepEqual(take(node), [])
    assert.deepEqual(kindsOf(sync(node)), ['MsgAppResp to 2'])
  })

  it('one that describes the beginning of the log leaves the entries behind it (§7)', () => {
    const node = withLog([1, 1, 2, 2])
    node.raft.step(from(2, 'MsgSnap', { term: 2, snapshot: snapshotAt(3, 2) }))
    settle(node)
    assert.deepEqual([node.raft.firstIndex, termsOf(node), commitOf(node)], [1, [1, 1, 2, 2], 3])
  })

  it('one that is older than what a former one brought changes nothing (§7)', () => {
    const node = withLog([1, 1, 2])
    node.raft.step(from(2, 'MsgSnap', { term: 3, snapshot: snapshotAt(7, 3) }))
    settle(node)
    node.raft.step(from(2, 'MsgSnap', { term: 3, snapshot: snapshotAt(5, 3) }))
    const [answer] = settle(node)
    assert.deepEqual([answer?.index, node.raft.lastIndex, commitOf(node)], [7, 7, 7])
  })

  it('its last index and term serve the consistency check of the entry behind it (§7)', () => {
    for (const [logTerm, reject] of [
      [3, false],
      [2, true],
    ] as const) {
      const node = withLog([1])
      node.raft.step(from(2, 'MsgSnap', { term: 3, snapshot: snapshotAt(7, 3) }))
      settle(node)
      node.raft.step(from(2, 'MsgApp', { term: 4, index: 7, logTerm, entries: entriesOf([4], 7) }))
      assert.deepEqual(
        settle(node).map(each => each.reject),
        [reject],
      )
    }
  })
})

describe('clients', () => {
  it('a leader commits an empty entry at the start of its term, to know what is committed (§8)', () => {
    const node = withLog([1])
    win(node, [2])
    const { entries } = node.raft.raft.log.unstable
    assert.deepEqual(termsOf(node), [1, 2])
    assert.deepEqual([entries, node.storage.entries(2, 3, 1_000)], [[], [{ ...entriesOf([2], 1)[0] }]])
    assert.equal(commitOf(node), 0)
    node.raft.step(from(3, 'MsgAppResp', { term: 2, index: 2 }))
    assert.equal(commitOf(node), 2)
  })

  it('a server that does not lead takes no proposal, and says so for certain (§8)', () => {
    const node = withLog([1])
    assert.equal(node.raft.propose(fromUtf8('a')), 'noLeader')
    node.raft.step(from(2, 'MsgHeartbeat'))
    assert.equal(node.raft.propose(fromUtf8('a')), 'notLeader')
    assert.deepEqual(termsOf(node), [1])
  })

  /** What a leader of three answers to a read, once these have answered the heartbeat that it sends for it. */
  function read(node: TestNode, answering: readonly number[]): readonly number[] {
    node.raft.readIndex(fromUtf8('r'))
    const heartbeats = node.raft.ready().messages.filter(({ kind }) => kind === 'MsgHeartbeat')
    for (const { to, context } of heartbeats)
      if (answering.includes(to))
        node.raft.step(from(to, 'MsgHeartbeatResp', { term: node.raft.term, context }))
    return node.raft.hasReady() ? node.raft.ready().readStates.map(({ index }) => index) : []
  }

  it('a read is answered when a majority has confirmed that the leader still leads, and not before (§8, thesis §6.4)', () => {
    for (const [answering, answers] of [
      [[], []],
      [[3], [1]],
      [[2, 3], [1]],
    ] as const) {
      const node = testNode({ voters: three }, plain)
      elect(node)
      assert.deepEqual(read(node, answering), answers)
    }
  })

  it('a leader answers none before its own first commit: it may not know all that is committed (§8, thesis §6.4)', () => {
    const node = withLog([1, 1])
    win(node, [2])
    assert.deepEqual(read(node, [2, 3]), [])
    node.raft.step(from(2, 'MsgAppResp', { term: 2, index: 3 }))
    const heartbeat = take(node).find(({ kind }) => kind === 'MsgHeartbeat')!
    node.raft.step(from(2, 'MsgHeartbeatResp', { term: 2, context: heartbeat.context }))
    assert.deepEqual(
      node.raft.ready().readStates.map(({ index }) => index),
      [3],
    )
  })

  it('a follower’s read waits for an index from its leader, who confirms it like its own (thesis §6.4)', () => {
    const follower = testNode({ voters: three }, plain)
    follower.raft.step(from(2, 'MsgHeartbeat'))
    follower.raft.readIndex(fromUtf8('r'))
    const asked = settle(follower).find(({ kind }) => kind === 'MsgReadIndex')!
    assert.equal(asked.to, 2)
    const leader = testNode({ voters: three }, plain)
    elect(leader)
    leader.raft.step({ ...asked, to: 1, from: 3 })
    const heartbeat = take(leader).find(({ to }) => to === 2)!
    leader.raft.step(from(2, 'MsgHeartbeatResp', { context: heartbeat.context }))
    const answer = take(leader).find(({ kind }) => kind === 'MsgReadIndexResp')!
    assert.deepEqual([answer.to, answer.index], [3, 1])
    follower.raft.step({ ...answer, to: 1, from: 2 })
    assert.deepEqual(follower.raft.ready().readStates, [{ index: 1, context: fromUtf8('r') }])
  })
})

describe('a hand-over', () => {
  it('goes to a server that has the whole log, which stands at once, in a new term (thesis §3.10)', () => {
    const cluster = new Cluster({ voters: three })
    cluster.campaign(1)
    cluster.isLost = ({ to, kind }) => to === 3 && kind === 'MsgApp'
    cluster.propose(1)
    cluster.at(1).raft.transferLeader(3)
    cluster.settle()
    assert.equal(cluster.at(1).raft.isLeader, true, 'it waits for the entries')
    cluster.heal()
    cluster.heartbeat(1)
    assert.deepEqual(
      [roleOf(cluster.at(1)), roleOf(cluster.at(3)), cluster.at(3).raft.term],
      ['follower', 'leader', 2],
    )
  })

  it('stops new proposals, and is given up after an election timeout (thesis §3.10)', () => {
    const node = testNode({ voters: three }, plain)
    elect(node)
    node.raft.transferLeader(2)
    assert.equal(node.raft.propose(fromUtf8('a')), 'transferring')
    tick(node, electionTick)
    assert.equal(node.raft.propose(fromUtf8('a')), 'ok')
  })

  it('is no disturbance: its requests for votes are heeded by who hears a leader (thesis §4.2.3)', () => {
    const node = testNode({ voters: three })
    node.raft.step(from(2, 'MsgHeartbeat'))
    node.raft.step(from(3, 'MsgVote', { term: 2, context: fromLatin1('CampaignTransfer') }))
    assert.deepEqual(
      settle(node)
        .filter(({ kind }) => kind === 'MsgVoteResp')
        .map(({ to, term, reject }) => [to, term, reject]),
      [[3, 2, false]],
    )
  })

  it('does not go to a learner (thesis §3.10, §4.2.1)', () => {
    const node = testNode({ voters: [1, 2], learners: [3] }, plain)
    elect(node)
    node.raft.step(from(3, 'MsgAppResp', { index: 1 }))
    settle(node)
    node.raft.transferLeader(3)
    assert.deepEqual(kindsOf(settle(node)), [])
    assert.equal(node.raft.propose(fromUtf8('a')), 'ok')
  })
})

describe('a leader that is cut off', () => {
  it('steps down when an election timeout passes without an answer of a majority (thesis §6.2)', () => {
    for (const [answering, isLeader] of [
      [[], false],
      [[2], false],
      [[2, 3], true],
    ] as const) {
      const node = testNode({ voters: [1, 2, 3, 4, 5] })
      elect(node)
      for (let i = 0; i < 3 * electionTick; i++) {
        tick(node, 1)
        for (const id of answering) node.raft.step(from(id, 'MsgHeartbeatResp'))
      }
      assert.equal(node.raft.isLeader, isLeader, `answered by ${answering.join()}`)
    }
  })
})

describe('a pre-vote', () => {
  const asking = { preVote: true, checkQuorum: true }

  it('comes before a term is raised: only who could win makes others change theirs (thesis §9.6)', () => {
    const node = testNode({ voters: three }, asking)
    node.raft.campaign()
    assert.deepEqual(
      take(node).map(({ kind, term }) => [kind, term]),
      [
        ['MsgPreVote', 1],
        ['MsgPreVote', 1],
      ],
    )
    settle(node)
    assert.deepEqual([roleOf(node), node.raft.term], ['preCandidate', 0])
    node.raft.step(from(2, 'MsgPreVoteResp', voteFor(node)))
    assert.deepEqual([roleOf(node), node.raft.term], ['candidate', 1])
    assert.deepEqual(kindsOf(take(node)), ['MsgVote to 2', 'MsgVote to 3'])
  })

  it('is tried again only when another election timeout has passed (§5.2, thesis §9.6)', () => {
    const node = testNode({ voters: three }, asking)
    node.raft.campaign()
    settle(node)
    tick(node, electionTick - 1)
    assert.deepEqual(settle(node), [])
    tick(node, electionTick)
    assert.deepEqual(kindsOf(settle(node)), ['MsgPreVote to 2', 'MsgPreVote to 3'])
  })

  it('that is refused by a majority leaves everything as it was (thesis §9.6)', () => {
    const node = testNode({ voters: three }, asking)
    node.raft.campaign()
    settle(node)
    for (const id of [2, 3]) node.raft.step(from(id, 'MsgPreVoteResp', { reject: true }))
    assert.deepEqual([roleOf(node), node.raft.term], ['follower', 1])
  })

  it('binds nobody: it is granted to all who ask, and changes neither term nor vote (thesis §9.6)', () => {
    const node = withLog([1], asking)
    const before = node.raft.hardState()
    for (const id of [2, 3]) node.raft.step(from(id, 'MsgPreVote', { term: 2, index: 1, logTerm: 1 }))
    assert.deepEqual(
      settle(node).map(({ to, term, reject }) => [to, term, reject]),
      [
        [2, 2, false],
        [3, 2, false],
      ],
    )
    assert.deepEqual(node.raft.hardState(), before)
  })

  it('is not granted to a log that is behind, nor by who hears a leader (thesis §9.6)', () => {
    const behind = withLog([1, 1], asking)
    behind.raft.step(from(3, 'MsgPreVote', { term: 2, index: 1, logTerm: 1 }))
    assert.deepEqual(
      settle(behind).map(({ reject }) => reject),
      [true],
    )
    const content = withLog([1], asking)
    content.raft.step(from(2, 'MsgHeartbeat'))
    settle(content)
    content.raft.step(from(3, 'MsgPreVote', { term: 2, index: 1, logTerm: 1 }))
    assert.deepEqual(settle(content), [])
  })

  it('keeps a server that was cut off from deposing the leader when it comes back (thesis §9.6)', () => {
    const cluster = new Cluster({ voters: three }, asking)
    cluster.campaign(1)
    cluster.only(1, 2)
    for (let i = 0; i < 5 * electionTick; i++) {
      cluster.heartbeat(1)
      tick(cluster.at(3), 1)
      cluster.settle()
    }
    assert.equal(cluster.at(3).raft.term, 1)
    cluster.heal()
    cluster.campaign(3)
    cluster.heartbeat(1)
    assert.deepEqual(
      [cluster.at(1).raft.isLeader, cluster.at(3).raft.lead, cluster.at(3).raft.term],
      [true, 1, 1],
    )
  })
})
