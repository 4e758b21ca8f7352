/**
 * Consumer groups under load, and what is never to be seen of them: two members with one partition in one generation, a
 * commit of a member that has acknowledged that its partition goes, a committed offset that goes back, or that nobody
 * committed, a generation that was there before, a member that is taken out before its time. Each client is a member,
 * and says now and then what it must not say any more.
 */
import { readMembership } from '../../src/commands/groups.ts'
import type { Membership } from '../../src/keyspace/groups.ts'
import type { Client, Outcome } from './client.ts'
import { itemsOf } from './client.ts'
import type { SimCluster } from './sim-cluster.ts'

const streamId = '1'
const partitionCount = 4
const stepsMax = 4
const timeoutsMs = [1_500, 6_000, 30_000] as const
/** Stamps may be half a second ahead of the median clock. */
const stampSlackMs = 700

interface Member {
  readonly group: Group
  readonly id: string
  timeoutMs: number
  /** The last membership that it was told; null: it has to join. */
  membership: Membership | null
  /** The generation that it acknowledged last, as it knows for certain. */
  acknowledged: number
  /** When its last heartbeat began that was taken; NaN: it may be out. */
  beatMs: number
}

interface Group {
  readonly name: string
  /** Somebody deletes it now and then: its offsets begin anew, its generations do not. */
  readonly isDeleted: boolean
  readonly members: Map<string, Member>
  /** The highest one that anybody was told. */
  generation: number
  /** By generation and partition: whose commits were taken. */
  readonly owners: Map<string, string>
  /** By partition: the last generation under which a commit was taken, and of whom. */
  readonly last: Map<number, { readonly generation: number; readonly member: string }>
  /** By partition: acknowledged or seen, and what was ever begun. */
  readonly committed: Map<number, number>
  readonly begun: Map<number, Set<number>>
}

export class ConsumerGroups {
  private readonly cluster: SimCluster
  private readonly violated: (text: string) => void
  private readonly isTimely: boolean
  private readonly groups: readonly Group[]

  constructor(cluster: SimCluster, isTimely: boolean, violated: (text: string) => void) {
    this.cluster = cluster
    this.isTimely = isTimely
    this.violated = violated
    this.groups = [groupOf('g', false), groupOf('d', true)]
  }

  /** Some things that a member does one after the other. */
  async act(client: Client): Promise<void> {
    const { random } = client
    const group = this.groups[random.next() < 0.7 ? 0 : 1]!
    for (let steps = 1 + random.below(stepsMax); steps > 0; steps--) await this.step(client, group)
  }

  private async step(client: Client, group: Group): Promise<void> {
    const { random } = client
    const member = this.memberOf(group, client)
    const draw = random.next()
    if (member.membership === null) {
      if (draw < 0.85) await this.join(client, member)
      else await this.look(client, group)
    } else if (draw < 0.25) await this.heartbeat(client, member, member.membership.generation)
    else if (draw < 0.7) await this.commit(client, member, member.membership)
    else if (draw < 0.8) await this.commitLate(client, member)
    else if (draw < 0.9) await this.look(client, group)
    else if (draw < 0.94) await this.leave(client, member)
    else if (draw < 0.97 && group.isDeleted) await this.delete(client, group)
    else await this.join(client, member)
  }

  private memberOf(group: Group, { name: id }: Client): Member {
    const known = group.members.get(id)
    if (known !== undefined) return known
    const member = { group, id, timeoutMs: 0, membership: null, acknowledged: 0, beatMs: Number.NaN }
    group.members.set(id, member)
    return member
  }

  private async join(client: Client, member: Member): Promise<void> {
    const { group, id } = member
    const before = group.generation
    const begunMs = this.cluster.world.nowMs
    const timeoutMs = timeoutsMs[client.random.below(timeoutsMs.length)]!
    member.beatMs = Number.NaN
    const args = [group.name, id, String(timeoutMs), 'sticky', streamId, String(partitionCount)]
    const outcome = await client.write('GROUP.JOIN', args)
    if (outcome.kind === 'done') {
      const membership = this.told(group, outcome, before)
      if (membership.generation <= before)
        this.violated(
          `${group.name}: ${id} joined in generation ${membership.generation}, ${before} was there`,
        )
      Object.assign(member, { timeoutMs, membership, beatMs: begunMs, acknowledged: membership.generation })
      this.cluster.sightings.see('groupJoined')
    } else {
      // It may have begun anew, or not: it has to join again to know.
      member.membership = null
      this.refused(member, outcome, 'a join', begunMs)
    }
  }

  /** What a member is told of its partitions. */
  private told(group: Group, outcome: Outcome & { kind: 'done' }, before: number): Membership {
    const items = itemsOf(outcome.reply).map(({ key, value }) => [key ?? '', value ?? ''] as const)
    const membership = readMembership(items)
    if (membership.generation < before)
      this.violated(`${group.name}: generation ${membership.generation} after ${before}`)
    group.generation = Math.max(group.generation, membership.generation)
    return membership
  }

  private async heartbeat(client: Client, member: Member, generation: number): Promise<void> {
    const { group, id } = member
    const before = group.generation
    const begunMs = this.cluster.world.nowMs
    const outcome = await client.write('GROUP.HEARTBEAT', [group.name, id, String(generation)])
    if (outcome.kind !== 'done') {
      if (outcome.kind === 'unknown') member.beatMs = Number.NaN
      this.refused(member, outcome, 'a heartbeat', begunMs)
      return
    }
    const membership = this.told(group, outcome, before)
    member.acknowledged = Math.max(member.acknowledged, generation)
    member.membership = membership
    member.beatMs = begunMs
    if (membership.revoked.length > 0) this.cluster.sightings.see('partitionRevoked')
  }

  /** Mostly further on; now and then what comes late, which changes nothing. */
  private async commit(client: Client, member: Member, membership: Membership): Promise<void> {
    const { random } = client
    const mine = [...membership.assigned, ...membership.revoked]
    const partition = mine[random.below(Math.max(1, mine.length))]?.partition
    if (partition === undefined) return this.heartbeat(client, member, membership.generation)
    // Until it has acknowledged what the last answer said it commits under the generation before.
    const isNew = random.next() < 0.5
    const generation = isNew ? membership.generation : member.acknowledged
    await this.commitUnder(client, member, partition, generation, random.next() < 0.2)
  }

  private async commitUnder(
    client: Client,
    member: Member,
    partition: number,
    generation: number,
    isBack: boolean,
  ): Promise<void> {
    const { group, id } = member
    const known = group.committed.get(partition) ?? 0
    const offset = isBack ? client.random.below(known + 1) : known + 1 + client.random.below(5)
    const begun = group.begun.get(partition) ?? new Set()
    group.begun.set(partition, begun.add(offset))
    const lastBefore = group.last.get(partition)
    const acknowledgedBefore = member.acknowledged
    const begunMs = this.cluster.world.nowMs
    const args = [group.name, id, String(generation), streamId, String(partition), String(offset)]
    const outcome = await client.write('GROUP.COMMIT', args)
    if (outcome.kind !== 'done') {
      this.refused(member, outcome, 'a commit', begunMs)
      return
    }
    const where = `${group.name}: a commit of partition ${partition} by ${id} under generation ${generation}`
    if (generation < acknowledgedBefore)
      this.violated(`${where} was taken, it had acknowledged ${acknowledgedBefore}`)
    if (lastBefore !== undefined && lastBefore.member !== id && lastBefore.generation > generation)
      this.violated(`${where} was taken after one by ${lastBefore.member} under ${lastBefore.generation}`)
    const place = `${generation} ${partition}`
    const owner = group.owners.get(place)
    if (owner !== undefined && owner !== id) this.violated(`${where} was taken, and one by ${owner} as well`)
    group.owners.set(place, id)
    if (generation >= (group.last.get(partition)?.generation ?? 0))
      group.last.set(partition, { generation, member: id })
    group.committed.set(partition, Math.max(group.committed.get(partition) ?? 0, offset))
    this.cluster.sightings.see('offsetCommitted')
  }

  /** What it said it would not do any more: a process that was stopped in the middle of a commit. */
  private async commitLate(client: Client, member: Member): Promise<void> {
    const { acknowledged } = member
    if (acknowledged < 2) return
    const generation = 1 + client.random.below(acknowledged - 1)
    const partition = client.random.below(partitionCount)
    await this.commitUnder(client, member, partition, generation, false)
  }

  private async leave(client: Client, member: Member): Promise<void> {
    const { group, id, membership } = member
    member.membership = null
    member.beatMs = Number.NaN
    const args = [group.name, id, ...(membership === null ? [] : [String(membership.generation)])]
    const outcome = await client.write('GROUP.LEAVE', args)
    this.refused(member, outcome, 'a leave', this.cluster.world.nowMs)
  }

  private async delete(client: Client, group: Group): Promise<void> {
    for (const member of group.members.values()) member.beatMs = Number.NaN
    const outcome = await client.write('GROUP.DELETE', [group.name, 'FORCE'])
    for (const member of group.members.values()) member.beatMs = Number.NaN
    if (outcome.kind === 'refused' && outcome.error !== null) this.unexpected(outcome, 'a delete')
  }

  /** Refusals that a member must expect; whatever it was, it joins again. */
  private refused(member: Member, outcome: Outcome, what: string, begunMs: number): void {
    if (outcome.kind !== 'refused' || outcome.error === null) return
    const { code, message } = outcome.error
    const { beatMs, timeoutMs, group, id } = member
    const { world, sightings } = this.cluster
    if (code === 'STALE_GENERATION') {
      sightings.see('commitFenced')
      return
    }
    if (code !== 'NO_SUCH_MEMBER' && code !== 'NO_SUCH_GROUP') {
      this.unexpected(outcome, what)
      return
    }
    // Its time counts from its last heartbeat, by the log clock.
    const silentMs = world.nowMs - beatMs
    const isEarly = !Number.isNaN(beatMs) && beatMs <= begunMs && silentMs < timeoutMs - stampSlackMs
    // A group that somebody deletes is gone with all its members, and a delete without an answer may come later.
    if (isEarly && this.isTimely && !group.isDeleted)
      this.violated(
        `${group.name}: ${id} is out ${Math.round(silentMs)} ms after a heartbeat, its time-out is ${timeoutMs} ms: ${message}`,
      )
    if (!Number.isNaN(beatMs)) sightings.see('memberTakenOut')
    member.membership = null
    member.beatMs = Number.NaN
  }

  private unexpected({ error }: Outcome & { kind: 'refused' }, what: string): void {
    const { code, message } = error!
    if (!code.startsWith('SESSION_') && code !== 'UNKNOWN_COMMAND') this.violated(`${what}: ${message}`)
  }

  /** What is committed: no less than before, and nothing that nobody committed. */
  private async look(client: Client, group: Group): Promise<void> {
    const before = new Map(group.committed)
    const outcome = await client.read('GROUP.OFFSETS', [group.name])
    if (outcome.kind !== 'done') return
    const seen = new Map<number, number>()
    for (const { key, value } of itemsOf(outcome.reply)) seen.set(Number(key?.split(' ')[1]), Number(value))
    for (const [partition, offset] of seen)
      if (group.begun.get(partition)?.has(offset) !== true)
        this.violated(`${group.name}: ${offset} is committed of partition ${partition}, by nobody`)
    if (group.isDeleted) return
    for (const [partition, offset] of before)
      if ((seen.get(partition) ?? -1) < offset)
        this.violated(
          `${group.name}: ${seen.get(partition)} is committed of partition ${partition}, it was ${offset}`,
        )
    for (const [partition, offset] of seen)
      group.committed.set(partition, Math.max(group.committed.get(partition) ?? 0, offset))
  }

  /** When all is quiet: what was committed is there, through this client's node. */
  async finish(client: Client): Promise<void> {
    for (const group of this.groups) await this.look(client, group)
  }
}

function groupOf(name: string, isDeleted: boolean): Group {
  return {
    ...{ name, isDeleted, members: new Map(), generation: 0, owners: new Map(), last: new Map() },
    ...{ committed: new Map(), begun: new Map() },
  }
}
