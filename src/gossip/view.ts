/**
 * One node's view of all members, its own record included. Who is a member is told from outside (the meta shard's
 * register): gossip never adds anybody, it only carries news of those who are registered, each under the store id it
 * registered with. A node known under another store id has lost or swapped its volume and must not pass for itself.
 */
import { assert } from '../lib/assert.ts'
import {
  compareLeads,
  compareRecords,
  compareVersions,
  incarnationMax,
  isAccused,
  isWellFormed,
  type Leadership,
  type MemberDetails,
  type MemberRecord,
  type MemberState,
  noLoad,
} from './member.ts'

/** Members of a cluster, and so records of a payload. */
export const membersMax = 1000

export interface Registration {
  readonly nodeId: string
  readonly storeId: string
  readonly peerAddress: string
  readonly clientAddress: string
  readonly zone: string
}

/** What a call to the view brought about. Load and hints change with every heartbeat and are not told. */
export type Change =
  | { readonly kind: 'added'; readonly nodeId: string }
  | { readonly kind: 'removed'; readonly nodeId: string }
  | { readonly kind: 'state'; readonly nodeId: string; readonly from: MemberState; readonly to: MemberState }
  | { readonly kind: 'address'; readonly nodeId: string }
  /** This node was accused, or remembered from an earlier life, and raised its incarnation. */
  | { readonly kind: 'refuted'; readonly nodeId: string; readonly incarnation: number }
  | { readonly kind: 'ignored'; readonly nodeId: string; readonly why: IgnoredBecause }

export type IgnoredBecause = 'unregistered' | 'store-mismatch' | 'malformed' | 'too-many'

export class View {
  private own: MemberRecord
  /** Registered members other than this node. A Map: a member's turn in the payload is that of its registration. */
  private readonly others = new Map<string, MemberRecord>()
  private hints: Map<number, { nodeId: string; term: number }> | null = null

  /** `incarnation` should be above that of earlier lives (a start counter); if it is not, the first answer raises it. */
  constructor(self: Registration & { readonly incarnation: number }) {
    this.own = { ...self, heartbeat: 0, state: 'joining', load: noLoad, leads: [] }
    assert(isWellFormed(this.own), `this node's own record is malformed: ${JSON.stringify(this.own)}`)
  }

  get self(): MemberRecord {
    return this.own
  }

  /** This node among them. */
  get size(): number {
    return this.others.size + 1
  }

  /** The other members, dead and left ones included. */
  otherMembers(): Iterable<MemberRecord> {
    return this.others.values()
  }

  member(nodeId: string): MemberRecord | undefined {
    return nodeId === this.own.nodeId ? this.own : this.others.get(nodeId)
  }

  /** All records, this node's first. */
  records(): MemberRecord[] {
    return [this.own, ...this.others.values()]
  }

  /**
   * Makes the node a member. Known under the same store id it stays as it is, but for addresses nobody has confirmed yet;
   * under another one it starts anew.
   */
  register(member: Registration): Change[] {
    if (member.nodeId === this.own.nodeId) return []
    const known = this.others.get(member.nodeId)
    const record: MemberRecord = {
      nodeId: member.nodeId,
      storeId: member.storeId,
      peerAddress: member.peerAddress,
      clientAddress: member.clientAddress,
      zone: member.zone,
      incarnation: 0,
      heartbeat: 0,
      state: 'joining',
      load: noLoad,
      leads: [],
    }
    if (known?.storeId === member.storeId) {
      if (known.incarnation > 0 || known.heartbeat > 0) return []
      return this.replace(known, { ...record, state: known.state })
    }
    assert(this.size < membersMax || known !== undefined, `more than ${membersMax} members are registered`)
    assert(isWellFormed(record), `a malformed member is registered: ${JSON.stringify(member)}`)
    this.others.set(member.nodeId, record)
    this.hints = null
    const added: Change = { kind: 'added', nodeId: member.nodeId }
    return known === undefined ? [added] : [{ kind: 'removed', nodeId: member.nodeId }, added]
  }

  unregister(nodeId: string): Change[] {
    if (!this.others.delete(nodeId)) return []
    this.hints = null
    return [{ kind: 'removed', nodeId }]
  }

  /** Raises this node's heartbeat. */
  beat(): void {
    this.own = { ...this.own, heartbeat: this.own.heartbeat + 1 }
  }

  /** What this node says of itself from now on. A node that leaves does not come back to life: alive → leaving → left. */
  update(changed: Partial<MemberDetails> & { readonly state?: 'alive' | 'leaving' | 'left' }): Change[] {
    const before = this.own
    assert(before.state !== 'left' || (changed.state ?? 'left') === 'left', 'this node has left the cluster')
    const isBack = before.state === 'leaving' && changed.state === 'alive'
    // A leave that was called off: the raised incarnation overrides the "leaving" that others know.
    this.own = { ...before, ...changed, incarnation: before.incarnation + (isBack ? 1 : 0) }
    assert(isWellFormed(this.own), `this node's own record is malformed: ${JSON.stringify(this.own)}`)
    this.hints = null
    return differences(before, this.own)
  }

  /** Merges what another node reported of somebody. */
  merge(record: MemberRecord): Change[] {
    if (!isWellFormed(record)) return [{ kind: 'ignored', nodeId: record.nodeId, why: 'malformed' }]
    const known = this.member(record.nodeId)
    if (known === undefined) return [{ kind: 'ignored', nodeId: record.nodeId, why: 'unregistered' }]
    if (known.storeId !== record.storeId) {
      return [{ kind: 'ignored', nodeId: record.nodeId, why: 'store-mismatch' }]
    }
    if (known === this.own) return this.mergeOwn(record)
    return compareRecords(record, known) > 0 ? this.replace(known, record) : []
  }

  /** Worsens a member's state at its present incarnation and heartbeat. */
  accuse(nodeId: string, state: 'suspect' | 'dead'): Change[] {
    const known = this.others.get(nodeId)
    assert(known !== undefined, `${nodeId} is accused and no member`)
    return this.merge({ ...known, state })
  }

  /** The node that said with the highest term that it leads `shard`, unless it is dead or gone. A hint only. */
  leaderHint(shard: number): { nodeId: string; term: number } | null {
    this.hints ??= this.collectHints()
    return this.hints.get(shard) ?? null
  }

  /** Only this node writes its record: others may accuse it, remember an earlier life, or know that it has left. */
  private mergeOwn(record: MemberRecord): Change[] {
    const before = this.own
    if (record.state === 'left') {
      this.own = { ...before, state: 'left' }
      return differences(before, this.own)
    }
    const isAccusation = isAccused(record.state) && record.incarnation >= before.incarnation
    const isEarlierLife = compareVersions(record, before) > 0
    if (before.state === 'left' || !(isAccusation || isEarlierLife)) return []
    if (record.incarnation === incarnationMax) {
      return [{ kind: 'ignored', nodeId: record.nodeId, why: 'malformed' }]
    }
    this.own = { ...before, incarnation: record.incarnation + 1 }
    return [{ kind: 'refuted', nodeId: before.nodeId, incarnation: this.own.incarnation }]
  }

  private replace(before: MemberRecord, after: MemberRecord): Change[] {
    this.others.set(after.nodeId, after)
    const mayHint = (state: MemberState) => state !== 'dead' && state !== 'left'
    if (compareLeads(before.leads, after.leads) !== 0 || mayHint(before.state) !== mayHint(after.state)) {
      this.hints = null
    }
    return differences(before, after)
  }

  private collectHints(): Map<number, { nodeId: string; term: number }> {
    const hints = new Map<number, { nodeId: string; term: number }>()
    const offer = (nodeId: string, { shard, term }: Leadership) => {
      if (term > (hints.get(shard)?.term ?? -1)) hints.set(shard, { nodeId, term })
    }
    for (const record of this.records()) {
      if (record.state === 'dead' || record.state === 'left') continue
      for (const lead of record.leads) offer(record.nodeId, lead)
    }
    return hints
  }
}

function differences(before: MemberRecord, after: MemberRecord): Change[] {
  const { nodeId } = after
  const changes: Change[] = []
  if (before.state !== after.state)
    changes.push({ kind: 'state', nodeId, from: before.state, to: after.state })
  if (before.peerAddress !== after.peerAddress || before.clientAddress !== after.clientAddress) {
    changes.push({ kind: 'address', nodeId })
  }
  return changes
}
