/**
 * Which node leads a key's shard, as far as this client knows. A map of all shards comes from a node when the client
 * connects and when it has reason to doubt; between two maps, what refusals say of leaders wins. Without a map (a node
 * of another release may not give it) leaders are learnt slot by slot, by the same refusals.
 */
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { isShardCount, shardOfSlot, slotOf } from '../lib/slot.ts'

interface Member {
  readonly nodeId: string
  readonly address: string
  readonly clientAddress: string
}

interface Hint {
  readonly address: string
  /** When it was learnt, in the order of this client's events. */
  readonly at: number
}

const goneStates = ['dead', 'left']

export class ShardMap {
  private readonly seeds: readonly string[]
  private readonly seen = { epoch: 0n, shardCount: 0, events: 0 }
  private members: readonly Member[] = []
  /** By shard; an address or null. */
  private leaders: readonly (string | null)[] = []
  /** By place. At most as many as there are slots. */
  private readonly hints = new Map<number, Hint>()
  /** Whether the seeds are nodes' addresses for peers: then the others are reached by that kind, too. */
  private usesPeerAddresses = false

  constructor(seeds: readonly string[]) {
    this.seeds = seeds
  }

  get isKnown(): boolean {
    return this.seen.shardCount > 0
  }

  /** What keys have in common that one node leads: the shard, or without a map the slot. */
  placeOf(key: Uint8Array): number {
    const slot = slotOf(key)
    return this.isKnown ? shardOfSlot(slot, this.seen.shardCount) : slot
  }

  /** host:port, or null. */
  leaderOf(place: number): string | null {
    return this.hints.get(place)?.address ?? this.leaders[place] ?? null
  }

  /** Members that may answer first, then the seeds. */
  addresses(): string[] {
    return [...new Set([...this.members.map(member => this.addressOf(member)), ...this.seeds])]
  }

  /** A node said that `address` leads. It may say so by either kind of address. */
  learn(place: number, address: string): string {
    const member = this.members.find(each => each.clientAddress === address || each.address === address)
    const known = member === undefined ? address : this.addressOf(member)
    this.hints.set(place, { address: known, at: ++this.seen.events })
    return known
  }

  /** `address` does not lead, or does not answer. */
  forget(place: number, address: string): void {
    if (this.hints.get(place)?.address === address) this.hints.delete(place)
    if (this.leaders[place] === address) this.leaders = this.leaders.with(place, null)
  }

  /** For `take`: what is learnt while a map is on its way is newer than the map. */
  mark(): number {
    return this.seen.events
  }

  /** False where the map is older than the one that is known. */
  take(map: MapResponse, askedAt: number): boolean {
    const { epoch, shardCount, nodes, leaders } = map
    if (!isShardCount(shardCount) || epoch < this.seen.epoch) return false
    if (shardCount !== this.seen.shardCount) this.hints.clear()
    this.seen.epoch = epoch
    this.seen.shardCount = shardCount
    this.members = nodes.filter(({ state }) => !goneStates.includes(state))
    const isOf = (kind: 'address' | 'clientAddress') => nodes.some(node => this.seeds.includes(node[kind]))
    this.usesPeerAddresses = isOf('address') && !isOf('clientAddress')
    const byId = new Map(nodes.map(node => [node.nodeId, this.addressOf(node)]))
    this.leaders = leaders.map(id => byId.get(id) ?? null)
    for (const [place, hint] of this.hints) if (hint.at <= askedAt) this.hints.delete(place)
    return true
  }

  private addressOf({ address, clientAddress }: Member): string {
    return this.usesPeerAddresses || clientAddress === '' ? address : clientAddress
  }
}
