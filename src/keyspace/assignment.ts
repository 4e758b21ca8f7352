import { assert } from '../lib/assert.ts'

/**
 * Who of a consumer group is to have which partition: pure functions of numbers, so that every replica finds the same.
 * Members, streams and partitions are numbered as their caller orders them; `owners[p]` is the member of partition p, -1
 * for nobody. A stream that nobody reads stays without owners.
 *
 * - *range*: of each stream by itself, neighbouring partitions to a member, the first members get one more where it does
 *   not divide. Partition p of two streams of one size, read by the same members, goes to one member.
 * - *sticky*: over all streams together as even as subscriptions allow (an optimal semi-matching: no chain of moves takes
 *   a partition from a member to one that has two fewer; Harvey et al. 2003), moving what has to move. Where all read the
 *   same streams that is the fewest moves there are; otherwise chains are short, but not proven the cheapest.
 */
export interface AssignmentProblem {
  /** Of each partition its stream; partitions of one stream stand together, in order. */
  readonly streams: readonly number[]
  /** Of each stream the members that read it, ascending. */
  readonly readers: readonly (readonly number[])[]
  readonly members: number
}

export const strategies = ['range', 'sticky'] as const
export type Strategy = (typeof strategies)[number]

/** `before[p]` is who has the partition now; range does not look at it. */
export function assign(strategy: Strategy, problem: AssignmentProblem, before: readonly number[]): number[] {
  return strategy === 'range' ? assignRange(problem) : new Balance(problem, before).settle()
}

function assignRange({ streams, readers }: AssignmentProblem): number[] {
  const sizes = new Array<number>(readers.length).fill(0)
  for (const stream of streams) sizes[stream]!++
  const seen = new Array<number>(readers.length).fill(0)
  return streams.map(stream => {
    const [place, among] = [seen[stream]!++, readers[stream]!]
    if (among.length === 0) return -1
    const share = Math.floor(sizes[stream]! / among.length)
    const larger = sizes[stream]! % among.length
    const inLarger = larger * (share + 1)
    return place < inLarger
      ? among[Math.floor(place / (share + 1))]!
      : among[larger + Math.floor((place - inLarger) / share)]!
  })
}

/** A chain of moves: `member` passes a partition of `stream` on to the next. */
interface Hop {
  readonly member: number
  readonly stream: number
}

class Balance {
  private readonly problem: AssignmentProblem
  private readonly before: readonly number[]
  private readonly owners: number[]
  private readonly loads: number[]
  /** Partitions held, by member and then stream: those it had before, and those that were moved to it. */
  private readonly kept: number[][][]
  private readonly moved: number[][][]

  constructor(problem: AssignmentProblem, before: readonly number[]) {
    this.problem = problem
    this.before = before
    const { streams, readers, members } = problem
    this.owners = new Array<number>(streams.length).fill(-1)
    this.loads = new Array<number>(members).fill(0)
    const none = () => Array.from({ length: members }, () => readers.map((): number[] => []))
    this.kept = none()
    this.moved = none()
    const reads = readers.map(among => new Set(among))
    for (const [partition, member] of before.entries())
      if (member !== -1 && reads[streams[partition]!]!.has(member)) this.give(partition, member)
  }

  private give(partition: number, member: number): void {
    const stream = this.problem.streams[partition]!
    this.owners[partition] = member
    this.loads[member]!++
    const list = this.before[partition] === member ? this.kept : this.moved
    list[member]![stream]!.push(partition)
  }

  settle(): number[] {
    for (const [partition, owner] of this.owners.entries()) {
      if (owner !== -1) continue
      const readers = this.problem.readers[this.problem.streams[partition]!]!
      if (readers.length > 0)
        this.give(
          partition,
          readers.reduce((least, member) => (this.loads[member]! < this.loads[least]! ? member : least)),
        )
    }
    // The fullest first: whom no chain relieves then, none ever will. All whom its chains reach are about as full, chains
    // of emptier members can't end among them, and what such a chain can't end in it does not enter.
    const settled = new Array<boolean>(this.problem.members).fill(false)
    for (;;) {
      let fullest = -1
      for (let member = 0; member < this.problem.members; member++)
        if (!settled[member] && (fullest === -1 || this.loads[member]! > this.loads[fullest]!))
          fullest = member
      if (fullest === -1) return this.owners
      if (!this.relieve(fullest)) settled[fullest] = true
    }
  }

  /** Moves one partition's worth away from `source`, to the emptiest member in reach that has at least two fewer. */
  private relieve(source: number): boolean {
    const { members, readers } = this.problem
    const via = new Array<Hop | undefined>(members)
    const streamSeen = new Array<boolean>(readers.length).fill(false)
    const reached = [source]
    const memberSeen = new Array<boolean>(members).fill(false)
    memberSeen[source] = true
    let target = source
    for (const member of reached) {
      for (const [stream, among] of readers.entries()) {
        if (streamSeen[stream] || !this.holds(member, stream)) continue
        streamSeen[stream] = true
        for (const reader of among) {
          if (memberSeen[reader]) continue
          memberSeen[reader] = true
          via[reader] = { member, stream }
          reached.push(reader)
          if (this.loads[reader]! < this.loads[target]!) target = reader
        }
      }
    }
    if (this.loads[target]! > this.loads[source]! - 2) return false
    for (let to = target; to !== source; ) {
      const { member, stream } = via[to]!
      this.give(this.take(member, stream, to), to)
      to = member
    }
    return true
  }

  /** Which partition goes: one that comes home, or else one that was moved already, or else the last. */
  private take(from: number, stream: number, to: number): number {
    const moved = this.moved[from]![stream]!
    const home = moved.findIndex(partition => this.before[partition] === to)
    const [taken] = home === -1 ? [] : moved.splice(home, 1)
    const partition = taken ?? moved.pop() ?? this.kept[from]![stream]!.pop()
    assert(partition !== undefined, 'a chain of moves goes over partitions that are held')
    this.loads[from]!--
    return partition
  }

  private holds(member: number, stream: number): boolean {
    return this.kept[member]![stream]!.length > 0 || this.moved[member]![stream]!.length > 0
  }
}
