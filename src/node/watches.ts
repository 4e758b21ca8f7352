import { RoundhouseError } from '../errors.ts'
import { ChangeRing, type Target } from '../keyspace/changes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Host } from '../shard/host.ts'
import type { Replica } from '../shard/replica.ts'
import { type OpenWatch, type Peers, plainCall, type WatchService, type WatchWish } from './ports.ts'
import type { Router } from './router.ts'
import { Watch, type WatchOwner } from './watch.ts'
import { type FeedRead, type Source, type Subscription, WatchFeed } from './watch-feed.ts'
import {
  readAnswer,
  readQuestion,
  type WatchAnswer,
  type WatchQuestion,
  writeAnswer,
} from './watch-question.ts'
import { placesFrom, shardsOf, targetOf } from './watch-target.ts'

/**
 * Watches: changes of a key or of all keys with a prefix, in the order of each shard, from a cursor on.
 *
 * A shard's changes come from the ring of this node's replica. Where it has none, one for all who watch here follows
 * another node's (a *mirror*): one long question is open at a time. What a ring does not reach back to any more is asked
 * of the other replicas, whose rings are of other lengths; what none of them has is COMPACTED.
 *
 * A watch costs its subscriptions and what of it is on its way to the client. One that is slow reads from the ring when it
 * is ready for more, and is compacted when the ring has moved past it.
 */
export interface WatchesOptions {
  readonly host: Pick<Host, 'group' | 'all'>
  readonly peers: Pick<Peers, 'ask'>
  readonly clock: Clock
  readonly router: Pick<Router, 'execute'>
  /** null until this node knows the cluster. */
  readonly shardCount: () => number | null
  /** Nodes that have a replica, the likeliest leader first, without this one. */
  readonly candidates: (shard: number) => readonly string[]
  readonly addressOf: (node: string) => string | null
  /** `message_timeout`. */
  readonly timeoutMsMax: number
}

export const watchLimits = {
  /** Of this node, those of other nodes that wait here among them. */
  watchesMax: 10_000,
  /** A watch has one for each shard that its keys may be in. */
  subscriptionsMax: 200_000,
  /** What the rings of all replicas of a node may take, as far as each can be given its least. */
  nodeBytesMax: 64 * 1024 * 1024,
  /** Of one answer of another node. */
  answerBytesMax: 512 * 1024,
  /** Questions about the past under way. */
  recallsMax: 16,
  recallMs: 3_000,
  /** How often all are asked while one of them can't tell. */
  recallRounds: 4,
  /** How long another node is asked to wait before it is asked again, and what the way may take on top. */
  askMs: 20_000,
  askSlackMs: 5_000,
  retryMs: { min: 20, max: 1_000 },
  /** A replica may come or go without anything being applied: as often as that, while somebody watches. */
  lookMs: 1_000,
  /** Shards asked at one time where they stand. */
  placesAtOnce: 32,
} as const

const everything: Target = { kind: 'prefix', prefix: '' }

interface Mirror {
  readonly ring: ChangeRing
  end: number
}

interface Shard {
  readonly feed: WatchFeed
  mirror: Mirror | null
  isFollowing: boolean
  /** Behind, and there is no source to read from. */
  readonly parked: Set<Subscription>
}

export class Watches implements WatchService, WatchOwner {
  private readonly options: WatchesOptions
  private readonly shards = new Map<number, Shard>()
  private readonly watches = new Set<Watch>()
  private subscriptions = 0
  private opening = 0
  private recalls = 0
  private readonly recallQueue: (() => void)[] = []
  private cancelLook: (() => void) | null = null
  private isStopped = false

  /** How often the node is to call `fit`, ms. */
  static readonly fitMs = 5_000

  constructor(options: WatchesOptions) {
    this.options = options
  }

  /** Open now, here and for other nodes. */
  get size(): number {
    return this.watches.size
  }

  // --- Opening ------------------------------------------------------------------------------------------------------

  async open({ key, prefix, from, signal }: WatchWish): Promise<OpenWatch> {
    if (this.isStopped) throw new RoundhouseError('SHUTTING_DOWN', {})
    const shardCount = this.options.shardCount()
    if (shardCount === null)
      throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    const target = targetOf(key, prefix)
    const shards = shardsOf(key, prefix, shardCount)
    const given = from === null ? null : placesFrom(from, shards, shardCount)
    this.reserve(shards.length)
    this.opening++
    try {
      const places = given === null ? await this.placesNow(shards, signal) : await this.checked(given, signal)
      if (this.isStopped) throw new RoundhouseError('SHUTTING_DOWN', {})
      return this.begin(target, places)
    } finally {
      this.opening--
      this.subscriptions -= shards.length
    }
  }

  private reserve(count: number): void {
    const { watchesMax, subscriptionsMax } = watchLimits
    if (this.watches.size + this.opening >= watchesMax)
      throw new RoundhouseError('OVERLOADED', { what: 'watches at this node', max: watchesMax })
    if (this.subscriptions + count > subscriptionsMax)
      throw new RoundhouseError('OVERLOADED', {
        what: 'watches at this node, counted by shard',
        max: subscriptionsMax,
      })
    this.subscriptions += count
  }

  private begin(target: Target, places: ReadonlyMap<number, number>): Watch {
    const watch = new Watch(this, target, places)
    this.watches.add(watch)
    this.subscriptions += places.size
    for (const subscription of watch.subscriptions) this.shard(subscription.shard).feed.add(subscription)
    this.lookLater()
    return watch
  }

  /** Called once by each watch. */
  closed(watch: Watch): void {
    if (!this.watches.delete(watch)) return
    this.subscriptions -= watch.subscriptions.length
    for (const subscription of watch.subscriptions) {
      const shard = this.shards.get(subscription.shard)
      if (shard === undefined) continue
      shard.feed.remove(subscription)
      shard.parked.delete(subscription)
      this.drop(shard)
    }
  }

  /** A question that is under way is waited for: who comes meanwhile need not ask anew. */
  private drop(shard: Shard): void {
    if (shard.feed.size === 0 && !shard.isFollowing) this.shards.delete(shard.feed.shard)
  }

  /** Where the shards stand: past all that was acknowledged before this call. */
  private async placesNow(shards: readonly number[], signal?: AbortSignal): Promise<Map<number, number>> {
    const places = new Map<number, number>()
    const left = [...shards]
    const ask = async () => {
      for (let shard = left.pop(); shard !== undefined; shard = left.pop()) {
        // Any read that the leader confirms tells it: this one costs a row.
        const { revision } = await this.options.router.execute({
          ...plainCall('DBSIZE', [], this.options.timeoutMsMax),
          shard,
          ...(signal === undefined ? {} : { signal }),
        })
        places.set(shard, revision)
      }
    }
    await Promise.all(Array.from({ length: Math.min(left.length, watchLimits.placesAtOnce) }, ask))
    return places
  }

  /** A place that the shard has not come to is of another cluster, or of what was lost: waiting for it would miss all before. */
  private async checked(places: Map<number, number>, signal?: AbortSignal): Promise<Map<number, number>> {
    const unknown = [...places].filter(([shard, place]) => {
      const replica = this.replicaOf(shard)
      return replica === null || replica.revision < place
    })
    const now = await this.placesNow(
      unknown.map(([shard]) => shard),
      signal,
    )
    for (const [shard, place] of unknown) {
      const end = now.get(shard)!
      if (place > end)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: `cursor: ${place} of shard ${shard}`,
          accepted: `at most ${end}, where it stands; a later one is of another cluster`,
        })
    }
    return places
  }

  // --- What comes ---------------------------------------------------------------------------------------------------

  /** A replica of this node has applied something. */
  progressed(replica: Replica): void {
    const shard = this.shards.get(replica.group)
    if (shard !== undefined) this.advance(shard)
  }

  /** Shares the room between the rings of all replicas. */
  fit(): void {
    const replicas = [...this.options.host.all()]
    for (const { changes } of replicas) changes.limit(watchLimits.nodeBytesMax / replicas.length)
  }

  /** What other nodes ask; null: nothing of watches. */
  answer(method: string, request: unknown): Promise<unknown> | null {
    return method === 'WATCH.READ' ? this.answerRead(readQuestion(request)).then(writeAnswer) : null
  }

  stop(): void {
    this.isStopped = true
    this.cancelLook?.()
    for (const watch of [...this.watches]) watch.fail(new RoundhouseError('SHUTTING_DOWN', {}))
    for (const resolve of this.recallQueue.splice(0)) resolve()
  }

  private shard(number: number): Shard {
    const found = this.shards.get(number)
    if (found !== undefined) return found
    const made: Shard = { feed: new WatchFeed(number), mirror: null, isFollowing: false, parked: new Set() }
    this.shards.set(number, made)
    const source = this.sourceOf(made)
    if (source !== null) made.feed.seen = source.end
    return made
  }

  private advance(shard: Shard): void {
    const source = this.sourceOf(shard)
    if (source === null) {
      void this.follow(shard)
      return
    }
    shard.feed.progressed(source)
    for (const each of [...shard.parked]) {
      shard.parked.delete(each)
      each.onBehind(each)
    }
  }

  private replicaOf(shard: number): Replica | null {
    const replica = this.options.host.group(shard)
    return replica === undefined || replica.halted !== null ? null : replica
  }

  /** What is behind what was seen already can't be read on from: it has to catch up first. */
  private sourceOf({ feed, mirror }: Shard): Source | null {
    return this.localOf(feed) ?? (mirror !== null && mirror.end >= feed.seen ? mirror : null)
  }

  private localOf({ shard, seen }: WatchFeed): Source | null {
    const replica = this.replicaOf(shard)
    if (replica === null || replica.revision < seen) return null
    return { ring: replica.changes, end: replica.revision }
  }

  private lookLater(): void {
    if (this.cancelLook !== null || this.isStopped) return
    this.cancelLook = this.options.clock.after(watchLimits.lookMs, () => {
      this.cancelLook = null
      for (const shard of this.shards.values()) this.advance(shard)
      if (this.shards.size > 0) this.lookLater()
    })
  }

  placeOf(subscription: Subscription): number {
    return this.shards.get(subscription.shard)?.feed.placeOf(subscription) ?? subscription.place
  }

  /** Where the shard stands as far as is known here. */
  endOf(number: number): number {
    const shard = this.shards.get(number)
    return (shard === undefined ? null : this.sourceOf(shard))?.end ?? -1
  }

  /** What comes after the place of a subscription that is behind; null: it waits now. */
  async read(subscription: Subscription, bytesMax: number): Promise<FeedRead | null> {
    const shard = this.shards.get(subscription.shard)
    if (shard === undefined) return null
    const source = this.sourceOf(shard)
    if (source === null) {
      shard.parked.add(subscription)
      void this.follow(shard)
      return null
    }
    const { place, target } = subscription
    if (place < source.ring.start) return this.recall(subscription, source.ring.start, bytesMax)
    const { changes, upTo } = source.ring.read(place, source.end, target, bytesMax)
    if (upTo >= source.end) shard.feed.wait(subscription, upTo)
    else subscription.place = upTo
    return { kind: 'changes', changes, place: upTo }
  }

  // --- Other nodes --------------------------------------------------------------------------------------------------

  /** From the ring of another replica; compacted where none has it any more. */
  private async recall(subscription: Subscription, start: number, bytesMax: number): Promise<FeedRead> {
    const { recallsMax, recallRounds, retryMs } = watchLimits
    if (this.recalls >= recallsMax) await new Promise<void>(resolve => void this.recallQueue.push(resolve))
    this.recalls++
    try {
      // A node that does not answer may have it, and one that lags may not have come so far.
      for (let round = 1, isCertain = false; round <= recallRounds && !isCertain; round++) {
        if (round > 1) await this.pause(retryMs.min * 4 ** round)
        isCertain = true
        for (const node of this.options.candidates(subscription.shard)) {
          if (this.isStopped) break
          const answer = await this.ask(node, recallOf(subscription, bytesMax), watchLimits.recallMs)
          if (answer === null || (answer.start <= subscription.place && answer.upTo <= subscription.place))
            isCertain = false
          else if (answer.start <= subscription.place) {
            subscription.place = answer.upTo
            return { kind: 'changes', changes: answer.changes, place: answer.upTo }
          }
        }
      }
      return { kind: 'compacted', start }
    } finally {
      this.recalls--
      this.recallQueue.shift()?.()
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise(resolve => void this.options.clock.after(ms, resolve))
  }

  /** Follows another node's ring for as long as somebody here watches and no replica is here. */
  private async follow(shard: Shard): Promise<void> {
    if (shard.isFollowing) return
    shard.isFollowing = true
    const { feed } = shard
    const isWanted = () => !this.isStopped && feed.size > 0
    const hasLocal = () => this.localOf(feed) !== null
    for (let attempt = 0, gaps = 0; isWanted() && !hasLocal(); ) {
      const nodes = this.options.candidates(feed.shard)
      const node = nodes[attempt % Math.max(1, nodes.length)]
      const after = shard.mirror?.end ?? feed.seen
      const { answerBytesMax, askMs, askSlackMs, retryMs } = watchLimits
      const question = {
        shard: feed.shard,
        after,
        target: everything,
        bytesMax: answerBytesMax,
        waitMs: askMs,
      }
      const answer = node === undefined ? null : await this.ask(node, question, askMs + askSlackMs)
      if (!isWanted()) break
      if (answer === null) {
        const pauseMs = Math.min(retryMs.max, retryMs.min * 2 ** attempt++)
        await this.pause(pauseMs)
      } else if (answer.start > after && after >= 0 && ++gaps < nodes.length) {
        // Its ring begins later; another's may not.
        attempt++
      } else {
        this.take(shard, after, answer)
        attempt = gaps = 0
      }
    }
    shard.isFollowing = false
    if (hasLocal()) shard.mirror = null
    if (isWanted()) this.advance(shard)
    else this.drop(shard)
  }

  private take(shard: Shard, after: number, answer: WatchAnswer): void {
    const isWhole = after >= 0 && answer.start <= after
    const mirror = shard.mirror ?? { ring: new ChangeRing(), end: after }
    if (shard.mirror === null || !isWhole) mirror.ring.reset(isWhole ? after : answer.end)
    shard.mirror = mirror
    if (isWhole) mirror.ring.append(answer.changes)
    mirror.end = isWhole ? Math.max(mirror.end, answer.upTo) : answer.end
    mirror.ring.limit(watchLimits.nodeBytesMax / Math.max(1, this.shards.size))
    this.advance(shard)
  }

  private async ask(node: string, question: WatchQuestion, timeoutMs: number): Promise<WatchAnswer | null> {
    const address = this.options.addressOf(node)
    if (address === null) return null
    try {
      const body = JSON.stringify(question)
      return readAnswer(await this.options.peers.ask(address, 'WATCH.READ', body, timeoutMs))
    } catch {
      return null
    }
  }

  private async answerRead({ shard, after, target, bytesMax, waitMs }: WatchQuestion): Promise<WatchAnswer> {
    const find = (): Replica => {
      const replica = this.isStopped ? null : this.replicaOf(shard)
      if (replica === null)
        throw new RoundhouseError('NOT_READY', { why: `it has no replica of shard ${shard}` })
      return replica
    }
    const now = (): WatchAnswer => {
      const { changes: ring, revision: end } = find()
      if (after < 0) return { start: end, end, changes: [], upTo: end }
      if (after < ring.start) return { start: ring.start, end, changes: [], upTo: after }
      const { changes, upTo } = ring.read(after, end, target, Math.min(bytesMax, watchLimits.answerBytesMax))
      return { start: ring.start, end, changes, upTo }
    }
    const found = now()
    if (waitMs === 0 || after < found.start || found.changes.length > 0) return found
    this.reserve(1)
    this.subscriptions--
    const watch = this.begin(target, new Map([[shard, found.upTo]]))
    try {
      await watch.changed(Math.min(waitMs, watchLimits.askMs))
    } finally {
      watch.close()
    }
    return now()
  }

  get clock(): Clock {
    return this.options.clock
  }
}

function recallOf({ shard, place, target }: Subscription, bytesMax: number): WatchQuestion {
  return { shard, after: place, target, bytesMax: Math.min(bytesMax, watchLimits.answerBytesMax), waitMs: 0 }
}
