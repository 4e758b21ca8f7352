/**
 * A group of replicas on a bad network and on disks that forget, for the random test. A replica's writes wait in a queue
 * (its journal); a crash keeps a prefix of them at most, loses every response not delivered, the state machine, and
 * perhaps a commit index that was written without a sync. Every step checks the safety properties of Raft, figure 3.
 */
import assert from 'node:assert/strict'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { MemoryStorage } from '../../src/raft/memory-storage.ts'
import { productionConfig } from '../../src/raft/raft.ts'
import { RawNode } from '../../src/raft/raw-node.ts'
import {
  type ConfChange,
  type ConfState,
  type Entry,
  emptyConfState,
  isLocalTarget,
  localAppendThread,
  type Message,
  type Snapshot,
} from '../../src/raft/types.ts'

const electionTick = 6
/** Entries kept behind the applied one when a log is compacted: followers often need just these. */
const keptEntries = 2

/** Hands out snapshots of what is applied now, to those that its configuration names. */
class MemberStorage extends MemoryStorage {
  private readonly member: Member

  constructor(member: Member) {
    super()
    this.member = member
  }

  override snapshot(to: number): Snapshot | null {
    const { applied, state, confState } = this.member
    const { voters, votersOutgoing, learners } = confState
    const term = this.term(applied)
    if (term === undefined || ![...voters, ...votersOutgoing, ...learners].includes(to)) return null
    return { meta: { index: applied, term, confState }, data: fromUtf8(state) }
  }
}

class Member {
  readonly id: number
  readonly storage = new MemberStorage(this)
  raw: RawNode
  life = 0
  /** Handed out by Ready, not yet on disk; not yet applied. */
  appends: Message[] = []
  applies: Message[] = []
  /** The state machine: the chain of everything applied. */
  applied = 0
  state = ''
  confState: ConfState
  /** What a crash may throw the commit index back to. */
  syncedCommit: number

  private readonly preVote: boolean

  constructor(id: number, confState: ConfState | null, preVote: boolean) {
    this.id = id
    this.preVote = preVote
    if (confState !== null) {
      this.storage.applySnapshot({ meta: { index: 1, term: 1, confState }, data: fromUtf8('start') })
      this.storage.hardState = { term: 1, vote: 0, commit: 1 }
    }
    this.syncedCommit = this.storage.hardState.commit
    this.confState = emptyConfState
    this.raw = this.start()
  }

  start(): RawNode {
    this.life++
    this.appends = []
    this.applies = []
    const { meta, data } = this.storage.saved
    this.applied = meta.index
    this.state = toUtf8(data)
    this.confState = meta.confState
    return new RawNode(
      {
        ...productionConfig,
        id: this.id,
        preVote: this.preVote,
        checkQuorum: this.preVote,
        electionTick,
        heartbeatTick: 2,
        random: new Prng(this.id * 1_000 + this.life),
        // Storage keeps a few entries that the snapshot covers.
        applied: meta.index,
        maxSizePerMsg: 100,
        maxCommittedSizePerReady: 150,
        maxInflightMsgs: 3,
      },
      this.storage,
    )
  }
}

export class Group {
  readonly members: Member[]
  network: Message[] = []
  private side = new Set<number>()
  /** Every entry that ever was, by term and index: the log matching property says that there is one. */
  private readonly entries = new Map<string, string>()
  /** What was applied at an index, anywhere: state machine safety. */
  private readonly appliedAt = new Map<number, { term: number; state: string }>()
  private readonly leaders = new Map<number, string>()
  private readonly reads = new Map<string, number>()
  private committed = 1
  private counter = 0
  elections = 0
  readsServed = 0
  snapshotsInstalled = 0

  constructor(size: number, voters: readonly number[], preVote: boolean) {
    const confState = { ...emptyConfState, voters }
    this.members = Array.from(
      { length: size },
      (_, i) => new Member(i + 1, voters.includes(i + 1) ? confState : null, preVote),
    )
  }

  member(id: number): Member {
    return this.members[id - 1]!
  }

  // What may happen.

  tick(id: number): void {
    this.member(id).raw.tick()
    this.check()
  }

  campaign(id: number): void {
    this.member(id).raw.campaign()
    this.check()
  }

  propose(id: number): void {
    this.member(id).raw.proposeAll([fromUtf8(`${++this.counter}`), fromUtf8(`${++this.counter}`)])
    this.check()
  }

  change(id: number, change: ConfChange): void {
    this.member(id).raw.proposeConfChange(change)
    this.check()
  }

  transfer(id: number, to: number): void {
    this.member(id).raw.transferLeader(to)
  }

  read(id: number): void {
    const context = `read ${++this.counter}`
    // Whatever is committed anywhere when a read arrives, it must see.
    this.reads.set(context, this.committed)
    this.member(id).raw.readIndex(fromUtf8(context))
  }

  ready(id: number): void {
    const member = this.member(id)
    if (!member.raw.hasReady()) return
    const ready = member.raw.ready()
    for (const { index, context } of ready.readStates) {
      this.readsServed++
      assert.ok(index >= this.reads.get(toUtf8(context))!, `a stale read at ${index}`)
    }
    for (const message of ready.messages) {
      if (!isLocalTarget(message.to)) this.network.push(message)
      else if (message.to === localAppendThread) member.appends.push(message)
      else member.applies.push(message)
    }
  }

  /** A replica with a fast disk. */
  turn(id: number): void {
    this.ready(id)
    this.append(id)
    this.apply(id)
  }

  /** The oldest write becomes durable, and its responses leave. */
  append(id: number): void {
    const member = this.member(id)
    const write = member.appends.shift()
    if (write === undefined) return
    this.write(member, write)
    for (const response of write.responses) {
      if (response.to === id) this.step(response)
      else this.network.push(response)
    }
    this.check()
  }

  private write(member: Member, { term, vote, commit, entries, snapshot }: Message): void {
    const { storage } = member
    const isSynced = entries.length > 0 || snapshot !== null || term !== storage.hardState.term
    if (term !== 0) storage.hardState = { term, vote, commit }
    if (snapshot !== null) {
      this.snapshotsInstalled++
      storage.applySnapshot(snapshot)
      member.applied = snapshot.meta.index
      member.state = toUtf8(snapshot.data)
      member.confState = snapshot.meta.confState
      this.checkState(member, snapshot.meta.term)
    }
    if (isSynced) member.syncedCommit = Math.max(member.syncedCommit, storage.hardState.commit)
    storage.append(entries)
    for (const entry of entries) this.recordEntry(entry, storage.term(entry.index - 1)!)
  }

  apply(id: number): void {
    const member = this.member(id)
    const work = member.applies.shift()
    if (work === undefined) return
    for (const entry of work.entries) {
      // A snapshot has overtaken it, or is about to.
      if (entry.index <= member.applied || member.raw.hasPendingSnapshot) continue
      assert.equal(entry.index, member.applied + 1)
      member.applied = entry.index
      member.state = chain(member.state, entry)
      if (entry.kind === 'confChange') {
        member.confState = member.raw.applyConfChange(member.raw.decodeConfChange(entry))
      }
      this.checkState(member, entry.term)
    }
    for (const response of work.responses) this.step(response)
    this.check()
  }

  deliver(at: number): void {
    if (this.network.length === 0) return
    const message = this.network.splice(at % this.network.length, 1)[0]!
    if (this.side.has(message.from) === this.side.has(message.to)) this.step(message)
  }

  /** From now on those in `side` hear only each other, and the rest too. */
  cut(side: readonly number[]): void {
    this.side = new Set(side)
  }

  duplicate(at: number): void {
    if (this.network.length > 0) this.step(this.network[at % this.network.length]!)
  }

  drop(at: number): void {
    if (this.network.length > 0) this.network.splice(at % this.network.length, 1)
  }

  /** `survivors`: how many of the waiting writes reached the disk; nobody hears of it. */
  crash(id: number, survivors: number): void {
    const member = this.member(id)
    for (const write of member.appends.slice(0, survivors)) this.write(member, write)
    const { storage } = member
    const commit = Math.max(member.syncedCommit, storage.saved.meta.index)
    storage.hardState = { ...storage.hardState, commit: Math.min(commit, storage.hardState.commit) }
    member.raw = member.start()
    this.check()
  }

  compact(id: number): void {
    const { storage, applied, state, confState } = this.member(id)
    const to = applied - keptEntries
    if (to < storage.firstIndex()) return
    const term = storage.term(applied)!
    storage.saveSnapshot({ meta: { index: applied, term, confState }, data: fromUtf8(state) })
    // The snapshot is synced with the commit index it implies.
    storage.hardState = { ...storage.hardState, commit: Math.max(storage.hardState.commit, applied) }
    storage.compact(to)
  }

  /** All is well for `rounds`: everything is delivered, written and applied, and time passes. */
  heal(rounds: number): void {
    this.cut([])
    for (let round = 0; round < rounds; round++) {
      for (const { id, raw } of this.members) {
        this.tick(id)
        for (const [to, { state }] of raw.status().progress)
          if (state === 'snapshot') raw.reportSnapshot(to, false)
      }
      for (let turn = 0; turn < 6; turn++) {
        for (const { id } of this.members) this.ready(id)
        for (let waiting = this.network.length; waiting > 0; waiting--) this.deliver(0)
        for (const { id } of this.members) {
          this.append(id)
          this.apply(id)
        }
      }
    }
  }

  private step(message: Message): void {
    const result = this.member(message.to).raw.step(message)
    assert.notEqual(result, 'lostEntries')
    this.check()
  }

  // What must hold.

  private check(): void {
    for (const { id, life, raw } of this.members) {
      this.committed = Math.max(this.committed, raw.raft.log.committed)
      if (!raw.isLeader) continue
      const leader = this.leaders.get(raw.term)
      // Election safety (§5.2), and more: one leader a term, in one life.
      if (leader !== undefined)
        assert.equal(leader, `${id} in life ${life}`, `term ${raw.term} has two leaders`)
      else this.checkNewLeader(raw, `${id} in life ${life}`)
      const { entries } = raw.raft.log.unstable
      for (const entry of entries) this.recordEntry(entry, raw.raft.log.term(entry.index - 1)!)
    }
  }

  private checkNewLeader(raw: RawNode, name: string): void {
    this.leaders.set(raw.term, name)
    this.elections++
    // Leader completeness (§5.4): nothing that was applied anywhere is missing.
    for (const [index, { term }] of this.appliedAt) {
      const own = raw.raft.log.term(index)
      if (index >= raw.firstIndex) assert.equal(own, term, `the leader of ${raw.term} lacks ${term}/${index}`)
    }
  }

  private recordEntry(entry: Entry, previousTerm: number): void {
    const key = `${entry.term}/${entry.index}`
    const value = `${entry.kind} ${toUtf8(entry.data)} after ${previousTerm}`
    const known = this.entries.get(key)
    if (known === undefined) this.entries.set(key, value)
    else assert.equal(value, known, `two entries ${key}`)
  }

  private checkState({ applied, state }: Member, term: number): void {
    const known = this.appliedAt.get(applied)
    if (known === undefined) this.appliedAt.set(applied, { term, state })
    else assert.deepEqual({ term, state }, known, `two states at ${applied}`)
  }
}

/** A digest of all that was applied: 32 bits of FNV-1a over the previous one and the entry. */
function chain(state: string, { term, index, data }: Entry): string {
  let hash = 0x811c9dc5
  for (const char of `${state}|${term}|${index}|${toUtf8(data)}`) {
    hash = Math.imul(hash ^ char.codePointAt(0)!, 0x01000193) >>> 0
  }
  return hash.toString(16)
}
