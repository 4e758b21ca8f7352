import { type FactsOf, RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { type Bytes, equalBytes, fromLatin1, quote, toLatin1 } from '../lib/bytes.ts'
import { assign, type Strategy } from './assignment.ts'
import {
  type Beat,
  decodeBeat,
  decodeGroup,
  decodeMember,
  decodeOffset,
  encodeBeat,
  encodeGroup,
  encodeMember,
  encodeOffset,
  type GroupRow,
  groupKeys,
  type Holding,
  inOrder,
  type MemberRow,
  type OffsetRow,
  type Partition,
  partitionKey,
  readPartitionKey,
  type Subscription,
} from './group-rows.ts'
import type { Keys } from './keys.ts'
import { limits } from './limits.ts'
import { dueKey, emptyRow, endOf, numberKey, prefixes, readCount, systemRows, writeCount } from './rows.ts'

/**
 * Consumer groups: who reads which partition of which streams, and how far. A group is rows in the shard of its name
 * (group-rows.ts); what it does is decided where entries are applied, alike on every replica. Rebalancing is cooperative
 * (KIP-429) and reckoned here rather than by a member (KIP-848): whoever keeps a partition never stops reading it.
 *
 * ```
 *               rebalance: target is m            rebalance: target is n            m acknowledges a generation ≥ g,
 *   free ────────────────────────▶ m has it ─────────────────▶ m gives it up, n awaits ─────────────▶ n has it
 *                                  [from, ∞)    (generation g)      [from, g)     m leaves, m is silent   [now, ∞)
 *                                      ▲                                │
 *                                      └── a later rebalance: target is m
 * ```
 * 1. Each join, leave and expiry makes a new generation, its targets, and of each partition that shall go a revocation.
 * 2. A member learns of it from its next heartbeat's answer, stops reading what is revoked, commits that for the last
 *    time *under its old generation*, and from then on says the new one: that is the acknowledgement. Until then its
 *    heartbeats and commits say the old one; it reads what it keeps all the while, and what is new to it afterwards.
 * 3. A member that says nothing for its timeout, or does not acknowledge a revocation for five minutes, by the log clock,
 *    is taken out by the sweep, and its partitions are free.
 *
 * Invariants: in one generation a partition has one member at most (the ranges above don't meet), and a commit is taken
 * under a generation in its range only; a committed offset never goes back but by RESET; generations of a name are never
 * used twice, not even when the group was deleted between (the shard keeps the highest one).
 */
export interface Joining {
  readonly member: Bytes
  readonly timeoutMs: number
  readonly strategy: Strategy
  /** By stream, each once. */
  readonly reads: readonly Subscription[]
}

/** What a member is told: read `assigned`, stop reading `revoked`, then say `generation`. */
export interface Membership {
  readonly generation: number
  readonly assigned: readonly Partition[]
  readonly revoked: readonly Partition[]
}

/** `offset`: of the record that is to be read next; null takes the committed one away. */
export interface NewOffset extends Partition {
  readonly offset: number | null
}

export type CommittedOffset = Partition & OffsetRow

export interface GroupDescription {
  readonly generation: number
  readonly strategy: Strategy
  /** null while there are members. */
  readonly emptySinceMs: number | null
  readonly members: readonly (Beat & {
    readonly member: Bytes
    readonly generation: number
    readonly joinedMs: number
    readonly reads: readonly Subscription[]
    readonly assigned: readonly Partition[]
    readonly revoked: readonly Partition[]
    readonly awaited: readonly Partition[]
  })[]
  readonly offsets: readonly CommittedOffset[]
}

export interface GroupSummary {
  readonly name: Bytes
  readonly generation: number
  readonly members: number
}

type Members = Map<string, MemberRow>

export class Groups {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  private get nowMs(): number {
    return this.keys.logNowMs
  }

  /** Groups in this shard. */
  get count(): number {
    return readCount(this.keys.rows, systemRows.groups)
  }

  // --- Membership -----------------------------------------------------------------------------------------------------

  /**
   * Makes `member` one of the group's, which is made where there is none. One that is a member already begins anew: it
   * has what the answer says and nothing else, and what was sent under its name before is old.
   * Throws GROUP_STRATEGY, GROUP_FULL.
   */
  join(group: Bytes, { member, timeoutMs, strategy, reads }: Joining): Membership {
    const [name, id] = [toLatin1(group), toLatin1(member)]
    const row = this.load(name) ?? this.create(name, strategy)
    if (row.members === 0) row.strategy = strategy
    else if (row.strategy !== strategy)
      throw new RoundhouseError('GROUP_STRATEGY', {
        group: quote(group),
        asked: strategy,
        strategy: row.strategy,
      })
    const members = this.loadMembers(name)
    const old = members.get(id)
    if (old === undefined && row.members >= limits.groupMembersMax)
      refuseFull('members of this group', limits.groupMembersMax)
    members.set(id, {
      generation: row.generation + 1,
      joinedMs: old?.joinedMs ?? this.nowMs,
      revokedMs: null,
      reads,
      holds: old?.holds ?? new Map(),
      awaits: new Map(),
    })
    this.rebalance(name, row, members)
    const joined = members.get(id)!
    release(row, members, joined)
    this.beat(name, id, timeoutMs)
    this.file(name, row, Math.min(row.filedMs, this.nowMs + timeoutMs))
    this.store(name, row)
    this.storeMembers(name, members)
    return membershipOf(row, joined)
  }

  /**
   * The member is alive and has carried out what `generation` revoked.
   * Throws NO_SUCH_GROUP, NO_SUCH_MEMBER, STALE_GENERATION.
   */
  heartbeat(group: Bytes, member: Bytes, generation: number): Membership {
    const [name, id] = [toLatin1(group), toLatin1(member)]
    const { row, found } = this.find(group, member, generation)
    this.beat(name, id, this.beatOf(name, id).timeoutMs)
    if (generation === found.generation) return membershipOf(row, found)
    found.generation = generation
    if (isGivingUp(found, generation)) {
      const members = this.loadMembers(name)
      members.set(id, found)
      release(row, members, found)
      this.storeMembers(name, members)
    } else this.storeMember(name, id, found)
    return membershipOf(row, found)
  }

  /**
   * What the member had is free at once. null: somebody else takes it out, whatever its generation. False: there is no
   * such member. Throws STALE_GENERATION.
   */
  leave(group: Bytes, member: Bytes, generation: number | null): boolean {
    const [name, id] = [toLatin1(group), toLatin1(member)]
    const row = this.load(name)
    if (row === undefined || this.keys.rows.get(groupKeys.members(name) + id) === undefined) return false
    if (generation !== null) this.find(group, member, generation)
    this.remove(name, row, [id])
    return true
  }

  // --- Offsets --------------------------------------------------------------------------------------------------------

  /**
   * All of them or none. One that is below what is committed already changes nothing: it came late.
   * Throws NO_SUCH_GROUP, NO_SUCH_MEMBER, STALE_GENERATION, GROUP_FULL.
   */
  commit(
    group: Bytes,
    member: Bytes,
    generation: number,
    offsets: readonly (Partition & { readonly offset: number })[],
  ): void {
    const { row, found } = this.find(group, member, generation)
    for (const { stream, partition } of offsets) {
      const holding = found.holds.get(partitionKey({ stream, partition }))
      if (holding === undefined || generation < holding.from || generation >= (holding.to ?? Infinity))
        refuseStale(group, member, generation, row.generation, whose(holding, { stream, partition }))
    }
    const before = row.offsets
    for (const { stream, partition, offset } of offsets) {
      const committed = this.offsetOf(row, { stream, partition })
      if (committed === undefined || committed.offset < offset)
        this.putOffset(row, { stream, partition, offset })
    }
    if (row.offsets !== before) this.store(toLatin1(group), row)
  }

  /**
   * Sets offsets to whatever is said, back or forth. Refused while a member has one of the partitions: it would commit
   * where it stands. Forced: such members are taken out first, and begin at the new offsets when they join again.
   * Throws GROUP_ACTIVE, GROUP_FULL.
   */
  reset(group: Bytes, offsets: readonly NewOffset[], isForced: boolean): void {
    const name = toLatin1(group)
    const row = this.load(name) ?? this.create(name, 'sticky')
    const wanted = new Set(offsets.map(partitionKey))
    const holders: string[] = []
    for (const [id, { holds }] of this.loadMembers(name))
      if ([...holds.keys()].some(key => wanted.has(key))) holders.push(id)
    if (holders.length > 0 && !isForced) refuseActive(group, holders.length)
    if (holders.length > 0) this.remove(name, row, holders)
    // Within a generation offsets only grow.
    row.generation++
    for (const { stream, partition, offset } of offsets) {
      if (offset !== null) this.putOffset(row, { stream, partition, offset })
      else if (this.offsetOf(row, { stream, partition }) !== undefined) {
        this.keys.rows.delete(groupKeys.offsets(row.life) + partitionKey({ stream, partition }))
        row.offsets--
      }
    }
    if (row.members === 0) this.setEmpty(name, row)
    this.store(name, row)
  }

  /** By stream and partition; of one stream where it is given. None of a group that is not there. */
  offsets(group: Bytes, stream: number | null): CommittedOffset[] {
    const row = this.load(toLatin1(group))
    if (row === undefined) return []
    const life = groupKeys.offsets(row.life)
    const prefix = stream === null ? life : life + numberKey(stream)
    return Array.from(this.keys.rows.range(prefix, endOf(prefix)), ([key, bytes]) => ({
      ...readPartitionKey(key, life.length),
      ...decodeOffset(bytes),
    }))
  }

  // --- Groups ---------------------------------------------------------------------------------------------------------

  /** undefined: no such group. */
  describe(group: Bytes): GroupDescription | undefined {
    const name = toLatin1(group)
    const row = this.load(name)
    if (row === undefined) return undefined
    const { generation, strategy, emptySinceMs } = row
    return {
      generation,
      strategy,
      emptySinceMs,
      members: Array.from(this.loadMembers(name), ([id, member]) => ({
        member: fromLatin1(id),
        ...this.beatOf(name, id),
        generation: member.generation,
        joinedMs: member.joinedMs,
        reads: member.reads,
        assigned: membershipOf(row, member).assigned,
        revoked: membershipOf(row, member).revoked,
        awaited: inOrder(member.awaits),
      })),
      offsets: this.offsets(group, null),
    }
  }

  /** By name; where a stream is given those that read it or have an offset of it. */
  list(stream: number | null): GroupSummary[] {
    const found: GroupSummary[] = []
    const { groups } = groupKeys
    for (const [key, bytes] of this.keys.rows.range(groups, endOf(groups))) {
      const row = decodeGroup(bytes)
      if (
        stream !== null &&
        !row.streams.some(read => read.stream === stream) &&
        !this.hasOffsets(row, stream)
      )
        continue
      found.push({
        name: fromLatin1(key.slice(groups.length)),
        generation: row.generation,
        members: row.members,
      })
    }
    return found
  }

  /** False: there is none. Throws GROUP_ACTIVE while it has members, unless forced. */
  delete(group: Bytes, isForced: boolean): boolean {
    const name = toLatin1(group)
    const row = this.load(name)
    if (row === undefined) return false
    if (row.members > 0 && !isForced) refuseActive(group, row.members)
    this.drop(name, row)
    return true
  }

  /**
   * Takes out members whose time is over, or a group that has been empty for long. Answers how many rows it touched.
   *
   * A sweep that comes late itself could not come in time: the shard had no leader, and nobody's heartbeats were taken
   * either. Members get a moment to be heard then, once; so an election doesn't take every group apart.
   */
  sweep(name: string, dueMs: number): number {
    const row = this.load(name)
    assert(row?.filedMs === dueMs, `due row at ${dueMs} of a group that is filed otherwise`)
    const { nowMs } = this
    if (row.emptySinceMs !== null) {
      const endsMs = row.emptySinceMs + limits.groupEmptyMs
      if (endsMs <= nowMs) return this.drop(name, row)
      this.file(name, row, endsMs)
      this.store(name, row)
      return 1
    }
    const members = this.loadMembers(name)
    const late: string[] = []
    let graceMs: number = limits.groupGraceMs
    let nextMs = Number.MAX_SAFE_INTEGER
    for (const [id, { revokedMs }] of members) {
      const { lastMs, timeoutMs } = this.beatOf(name, id)
      const endsMs = Math.min(lastMs + timeoutMs, (revokedMs ?? Infinity) + limits.groupRevokeMs)
      if (endsMs > nowMs) nextMs = Math.min(nextMs, endsMs)
      else {
        late.push(id)
        graceMs = Math.min(graceMs, timeoutMs)
      }
    }
    row.isGraced = late.length > 0 && !row.isGraced && nowMs > dueMs + limits.groupSweepLateMs
    if (row.isGraced) {
      for (const id of late) {
        const member = members.get(id)!
        if (member.revokedMs !== null) member.revokedMs = nowMs
      }
      this.storeMembers(name, members)
      this.file(name, row, Math.min(nextMs, nowMs + graceMs))
    } else if (late.length > 0) {
      if (late.length < members.size) this.file(name, row, nextMs)
      this.remove(name, row, late)
    } else this.file(name, row, nextMs)
    this.store(name, row)
    return 1 + late.length
  }

  // --- Rebalancing ----------------------------------------------------------------------------------------------------

  /** A new generation: who is to have what, and what has to be given up for it. */
  private rebalance(name: string, row: GroupRow, members: Members): void {
    const ids = [...members.keys()].sort()
    const sizes = new Map<number, number>()
    for (const { reads } of members.values())
      for (const { stream, partitions } of reads)
        sizes.set(stream, Math.max(sizes.get(stream) ?? 0, partitions))
    const streams = [...sizes]
      .sort(([a], [b]) => a - b)
      .map(([stream, partitions]) => ({ stream, partitions }))
    const total = streams.reduce((sum, { partitions }) => sum + partitions, 0)
    if (total > limits.groupPartitionsMax)
      refuseFull('partitions that this group reads', limits.groupPartitionsMax)
    const partitions = streams.flatMap(({ stream, partitions }) =>
      Array.from({ length: partitions }, (_, partition) => ({ stream, partition })),
    )
    const places = new Map(partitions.map((partition, place) => [partitionKey(partition), place]))
    const before = new Array<number>(total).fill(-1)
    for (const [place, id] of ids.entries()) {
      // Who has it comes before who awaits it: what stays where it is need not be given up.
      for (const key of members.get(id)!.holds.keys()) if (places.has(key)) before[places.get(key)!] = place
      for (const key of members.get(id)!.awaits.keys())
        if (before[places.get(key) ?? -1] === -1) before[places.get(key)!] = place
    }
    const readers = streams.map(({ stream }) =>
      [...ids.keys()].filter(place => members.get(ids[place]!)!.reads.some(read => read.stream === stream)),
    )
    const streamOf = streams.flatMap(({ partitions }, place) => new Array<number>(partitions).fill(place))
    const targets = assign(row.strategy, { streams: streamOf, readers, members: ids.length }, before)

    row.generation++
    const held = new Set<string>()
    for (const [place, id] of ids.entries()) {
      const member = members.get(id)!
      for (const [key, holding] of member.holds) {
        held.add(key)
        const at = places.get(key)
        if (at !== undefined && targets[at] === place) holding.to = null
        else holding.to ??= row.generation
      }
      member.awaits.clear()
      this.askBack(name, row, member)
    }
    for (const [key, place] of places) {
      const target = members.get(ids[targets[place]!] ?? '')
      if (target === undefined || target.holds.has(key)) continue
      if (held.has(key)) target.awaits.set(key, partitions[place]!)
      else target.holds.set(key, { ...partitions[place]!, from: row.generation, to: null })
    }
    row.streams = streams
    row.members = members.size
    row.emptySinceMs = null
  }

  /** Whoever has something to give up has so long to do it. */
  private askBack(name: string, row: GroupRow, member: MemberRow): void {
    if (!isGivingUp(member, row.generation)) member.revokedMs = null
    else if (member.revokedMs === null) {
      member.revokedMs = this.nowMs
      this.file(name, row, Math.min(row.filedMs, this.nowMs + limits.groupRevokeMs))
    }
  }

  /** Takes members out, and shares what they had among the others. */
  private remove(name: string, row: GroupRow, ids: readonly string[]): void {
    const members = this.loadMembers(name)
    for (const id of ids) {
      members.delete(id)
      this.keys.rows.delete(groupKeys.members(name) + id)
      this.keys.rows.delete(groupKeys.beats(name) + id)
    }
    this.rebalance(name, row, members)
    if (row.members === 0) this.setEmpty(name, row)
    this.store(name, row)
    this.storeMembers(name, members)
  }

  // --- Rows -----------------------------------------------------------------------------------------------------------

  private load(name: string): GroupRow | undefined {
    const bytes = this.keys.rows.get(groupKeys.group(name))
    return bytes && decodeGroup(bytes)
  }

  /** Throws NO_SUCH_GROUP, NO_SUCH_MEMBER, STALE_GENERATION. */
  private find(group: Bytes, member: Bytes, generation: number): { row: GroupRow; found: MemberRow } {
    const name = toLatin1(group)
    const row = this.load(name)
    if (row === undefined) throw new RoundhouseError('NO_SUCH_GROUP', { group: quote(group) })
    const bytes = this.keys.rows.get(groupKeys.members(name) + toLatin1(member))
    if (bytes === undefined)
      throw new RoundhouseError('NO_SUCH_MEMBER', { group: quote(group), member: quote(member) })
    const found = decodeMember(bytes)
    if (generation < found.generation)
      refuseStale(group, member, generation, found.generation, 'it was over for this member')
    if (generation > row.generation) refuseStale(group, member, generation, row.generation, 'it never was')
    return { row, found }
  }

  private create(name: string, strategy: Strategy): GroupRow {
    if (this.count >= limits.groupsMax) refuseFull('groups in this shard', limits.groupsMax)
    writeCount(this.keys.rows, systemRows.groups, this.count + 1)
    const row: GroupRow = {
      life: this.keys.birth(),
      strategy,
      generation: readCount(this.keys.rows, systemRows.groupGeneration),
      filedMs: 0,
      isGraced: false,
      members: 0,
      offsets: 0,
      emptySinceMs: null,
      streams: [],
    }
    this.setEmpty(name, row)
    return row
  }

  /** Answers how many rows went. */
  private drop(name: string, row: GroupRow): number {
    const { rows } = this.keys
    const going = [groupKeys.group(name), dueKey(row.filedMs, 'group', name)]
    for (const prefix of [groupKeys.members(name), groupKeys.beats(name)])
      for (const [key] of rows.range(prefix, endOf(prefix))) going.push(key)
    for (const key of going) rows.delete(key)
    if (row.offsets > 0) rows.put(prefixes.garbage + row.life, emptyRow)
    writeCount(rows, systemRows.groups, this.count - 1)
    const highest = readCount(rows, systemRows.groupGeneration)
    if (row.generation > highest) writeCount(rows, systemRows.groupGeneration, row.generation)
    return going.length
  }

  private setEmpty(name: string, row: GroupRow): void {
    row.emptySinceMs = this.nowMs
    this.file(name, row, this.nowMs + limits.groupEmptyMs)
  }

  /** The sweep looks at the group then: never later than somebody's time is over. */
  private file(name: string, row: GroupRow, dueMs: number): void {
    if (row.filedMs !== 0) this.keys.rows.delete(dueKey(row.filedMs, 'group', name))
    row.filedMs = dueMs
    this.keys.rows.put(dueKey(dueMs, 'group', name), emptyRow)
  }

  private store(name: string, row: GroupRow): void {
    this.keys.rows.put(groupKeys.group(name), encodeGroup(row))
  }

  /** By id, in order. */
  private loadMembers(name: string): Members {
    const prefix = groupKeys.members(name)
    const members: Members = new Map()
    for (const [key, bytes] of this.keys.rows.range(prefix, endOf(prefix)))
      members.set(key.slice(prefix.length), decodeMember(bytes))
    return members
  }

  private storeMember(name: string, id: string, member: MemberRow): void {
    const key = groupKeys.members(name) + id
    const bytes = encodeMember(member)
    const old = this.keys.rows.get(key)
    if (old === undefined || !equalBytes(old, bytes)) this.keys.rows.put(key, bytes)
  }

  private storeMembers(name: string, members: Members): void {
    for (const [id, member] of members) this.storeMember(name, id, member)
  }

  private beat(name: string, id: string, timeoutMs: number): void {
    this.keys.rows.put(groupKeys.beats(name) + id, encodeBeat({ lastMs: this.nowMs, timeoutMs }))
  }

  private beatOf(name: string, id: string): Beat {
    const bytes = this.keys.rows.get(groupKeys.beats(name) + id)
    assert(bytes !== undefined, 'a member without a heartbeat')
    return decodeBeat(bytes)
  }

  private offsetOf(row: GroupRow, partition: Partition): OffsetRow | undefined {
    const bytes = this.keys.rows.get(groupKeys.offsets(row.life) + partitionKey(partition))
    return bytes && decodeOffset(bytes)
  }

  private putOffset(row: GroupRow, { offset, ...partition }: Partition & { readonly offset: number }): void {
    if (this.offsetOf(row, partition) === undefined && ++row.offsets > limits.groupOffsetsMax)
      refuseFull('offsets of this group', limits.groupOffsetsMax)
    this.keys.rows.put(
      groupKeys.offsets(row.life) + partitionKey(partition),
      encodeOffset({ offset, generation: row.generation, committedMs: this.nowMs }),
    )
  }

  private hasOffsets(row: GroupRow, stream: number): boolean {
    const prefix = groupKeys.offsets(row.life) + numberKey(stream)
    for (const _ of this.keys.rows.range(prefix, endOf(prefix))) return true
    return false
  }
}

function isGivingUp({ holds }: MemberRow, generation: number): boolean {
  for (const { to } of holds.values()) if (to !== null && to <= generation) return true
  return false
}

/** What the member has given up by its generation goes to those who await it. */
function release(row: GroupRow, members: Members, from: MemberRow): void {
  for (const [key, { stream, partition, to }] of from.holds) {
    if (to === null || to > from.generation) continue
    from.holds.delete(key)
    from.revokedMs = null
    for (const { awaits, holds } of members.values())
      if (awaits.delete(key)) holds.set(key, { stream, partition, from: row.generation, to: null })
  }
}

function membershipOf({ generation }: GroupRow, { holds }: MemberRow): Membership {
  const held = inOrder(holds)
  const plain = ({ stream, partition }: Partition) => ({ stream, partition })
  return {
    generation,
    assigned: held.filter(({ to }) => to === null).map(plain),
    revoked: held.filter(({ to }) => to !== null).map(plain),
  }
}

function whose(holding: Holding | undefined, { stream, partition }: Partition): string {
  const what = `partition ${partition} of stream ${stream}`
  if (holding === undefined) return `${what} is not this member's`
  const { from, to } = holding
  return `${what} is this member's from generation ${from}${to === null ? '' : ` to ${to - 1}`}`
}

function refuseStale(group: Bytes, member: Bytes, generation: number, current: number, why: string): never {
  const facts: FactsOf<'STALE_GENERATION'> = {
    group: quote(group),
    member: quote(member),
    generation,
    current,
    why,
  }
  throw new RoundhouseError('STALE_GENERATION', facts)
}

function refuseActive(group: Bytes, members: number): never {
  throw new RoundhouseError('GROUP_ACTIVE', { group: quote(group), members })
}

function refuseFull(what: string, max: number): never {
  throw new RoundhouseError('GROUP_FULL', { what, max })
}
