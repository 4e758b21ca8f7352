/**
 * What a replica has promised, and what a group has agreed on: the simulator's own books, kept beside the program by
 * watching its journal and its messages. A log is remembered as a rolling hash: two logs that have the same hash at an
 * index are the same up to it, so that a prefix is compared in one step (log matching, Raft §5.3).
 */
import { crc32 } from '../../src/lib/crc.ts'
import type { Entry } from '../../src/raft/types.ts'

export function mix(hash: number, value: number): number {
  const mixed = Math.imul(hash ^ value, 0x85ebca6b)
  return (mixed ^ (mixed >>> 15)) >>> 0
}

/** Every group is born with a log that ends at (1, 1); a log without entries has this hash. */
export function bornHash(index: number, term: number): number {
  return mix(mix(0x811c9dc5, index), term)
}

export function entryHash(previous: number, { term, kind, data }: Entry): number {
  return mix(mix(mix(previous, term), kind === 'normal' ? 1 : 2), crc32(data))
}

/** The books of one replica. They outlive its process. */
export class ReplicaLedger {
  readonly id: number
  readonly node: string
  group: number | null = null
  /** The log begins after this; its hash there is the first of `hashes`. */
  base = 0
  hashes: number[] = [bornHash(0, 0)]
  terms: number[] = [0]
  /** Indexes of changes of configuration, ascending. */
  changes: number[] = []
  /** What the journal was last handed, durable or not. */
  term = 0
  vote = 0
  commit = 0
  /** What the journal has confirmed. Entries up to `durableLast` must survive whatever happens. */
  durableTerm = 0
  durableVote = 0
  durableLast = 0
  isWriteInFlight = false
  /** Its disk was taken away or damaged: nothing can be asked of it. */
  isLost = false
  /** How much of it was durable before that: an acknowledgement may be on its way still. */
  lostLast = 0
  isRemoved = false
  /** … or may be: its tombstone is on its way. */
  isRemoving = false
  /** Its node keeps it mute. */
  isQuarantined = false
  /** … and has noted that, durably: no later process may forget it. */
  isQuarantineNoted = false
  /** As the process showed it last; -1 where it has shown nothing since its start. */
  seenTerm = -1
  seenVote = 0
  seenCommit = -1
  /** … without what a snapshot says that is not installed yet. */
  shownCommit = -1
  seenApplied = -1
  seenConfiguration = -1
  seenRole = ''
  /** The applied index as of which it last answered a read, in whatever life. */
  shownApplied = 0
  /** A snapshot is on its way to it. */
  isPulling = false
  /** It met an entry that its release does not understand. */
  hasMisread = false

  constructor(id: number, node: string) {
    this.id = id
    this.node = node
  }

  get last(): number {
    return this.base + this.hashes.length - 1
  }

  hashAt(index: number): number | undefined {
    return index < this.base ? undefined : this.hashes[index - this.base]
  }

  termAt(index: number): number | undefined {
    return index < this.base ? undefined : this.terms[index - this.base]
  }

  reset(index: number, hash: number, term: number): void {
    this.base = index
    this.hashes = [hash]
    this.terms = [term]
    this.changes = []
  }

  /** Keeps entries up to `last`. */
  truncate(last: number): void {
    this.hashes.length = Math.min(this.hashes.length, last - this.base + 1)
    this.terms.length = this.hashes.length
    while (this.changes.length > 0 && this.changes.at(-1)! > last) this.changes.pop()
  }

  append(entry: Entry): number {
    const hash = entryHash(this.hashes.at(-1)!, entry)
    this.hashes.push(hash)
    this.terms.push(entry.term)
    if (entry.kind === 'confChange') this.changes.push(entry.index)
    return hash
  }

  /** The process ended; another one may follow. */
  forgetProcess(): void {
    this.seenTerm = -1
    this.seenCommit = -1
    this.shownCommit = -1
    this.seenApplied = -1
    this.seenConfiguration = -1
    this.seenRole = ''
    this.isPulling = false
    this.hasMisread = false
  }
}

/** What is known of a group as a whole. */
export class GroupTruth {
  readonly id: number
  /** Hashes and terms of committed entries by index; holes where a watcher came late. */
  readonly committed: number[] = []
  readonly committedTerms: number[] = []
  commit = 0
  /** By term: the replica that led it. */
  readonly leaders = new Map<number, number>()
  /** By `index * 2^20 + term`: the one hash that a log may have there. */
  readonly places = new Map<number, number>()
  /** By applied index: the digest of all rows. */
  readonly digests = new Map<number, { readonly digest: number; readonly by: string }>()
  /** By index: who the replicas are. */
  readonly configurations = new Map<number, { readonly text: string; readonly voters: VoterSets }>()
  lastConfiguration = 0
  /** The latest stamp that a leader has given. */
  stampMs = 0
  /** Replicas that were in the configuration once and are not any more. */
  readonly removed = new Set<number>()

  constructor(id: number) {
    this.id = id
  }

  place(index: number, term: number): number {
    return index * 2 ** 20 + term
  }
}

export interface VoterSets {
  readonly voters: readonly number[]
  readonly votersOutgoing: readonly number[]
  readonly members: readonly number[]
}

/** Whether `have` holds a majority of the voters, and of the outgoing ones in a joint configuration. */
export function isQuorum({ voters, votersOutgoing }: VoterSets, have: (id: number) => boolean): boolean {
  const isMajority = (ids: readonly number[]) =>
    ids.length === 0 || ids.filter(have).length > Math.floor(ids.length / 2)
  return isMajority(voters) && isMajority(votersOutgoing)
}

/** Whether every quorum of the one has a replica in common with every quorum of the other. */
export function doIntersect(one: VoterSets, other: VoterSets): boolean {
  const ids = [...new Set([one, other].flatMap(each => [...each.voters, ...each.votersOutgoing]))]
  // A quorum of one that holds nobody of a quorum of the other: the rest of all would have to be one there.
  for (let some = 0; some < 1 << ids.length; some++) {
    const isIn = (id: number) => ((some >> ids.indexOf(id)) & 1) === 1
    if (isQuorum(one, isIn) && isQuorum(other, id => !isIn(id))) return false
  }
  return true
}
