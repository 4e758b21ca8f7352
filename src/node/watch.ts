import { RoundhouseError } from '../errors.ts'
import type { Target } from '../keyspace/changes.ts'
import type { Clock } from '../lib/clock.ts'
import { cursorText } from '../lib/watch-cursor.ts'
import type { OpenWatch, WatchNews } from './ports.ts'
import type { FeedRead, Subscription } from './watch-feed.ts'

/** What a watch asks of the node that it is open at. */
export interface WatchOwner {
  readonly clock: Clock
  placeOf(subscription: Subscription): number
  /** Where the shard stands as far as is known here; -1: it is not. */
  endOf(shard: number): number
  /** What comes after the place of a subscription that is behind; null: it waits now. */
  read(subscription: Subscription, bytesMax: number): Promise<FeedRead | null>
  /** Called by each watch when it closes. */
  closed(watch: Watch): void
}

/** One watch: its subscriptions, one a shard, and which of them are behind. */
export class Watch implements OpenWatch {
  readonly subscriptions: readonly Subscription[]
  private readonly watches: WatchOwner
  /** In the order in which they fell behind: each gets its turn. */
  private readonly behind: Set<Subscription>
  private failure: Error | null = null
  private isClosed = false
  private wake: () => void = () => {}

  constructor(watches: WatchOwner, target: Target, places: ReadonlyMap<number, number>) {
    this.watches = watches
    const onBehind = (subscription: Subscription) => {
      this.behind.add(subscription)
      this.wake()
    }
    this.subscriptions = [...places]
      .sort(([a], [b]) => a - b)
      .map(([shard, place]) => ({ shard, target, place, isWaiting: false, onBehind }))
    this.behind = new Set(this.subscriptions)
  }

  get cursor(): ReadonlyMap<number, number> {
    return new Map(this.subscriptions.map(each => [each.shard, this.watches.placeOf(each)]))
  }

  async next(bytesMax: number, waitMs: number): Promise<WatchNews> {
    const untilMs = this.watches.clock.now() + waitMs
    for (;;) {
      if (this.failure !== null) throw this.failure
      const [subscription] = this.behind
      if (subscription === undefined) {
        const leftMs = untilMs - this.watches.clock.now()
        if (this.isClosed || leftMs <= 0) return { kind: 'idle' }
        await this.awaken(leftMs)
        continue
      }
      this.behind.delete(subscription)
      const found = await this.watches.read(subscription, bytesMax)
      if (found === null) continue
      // Of a node that stops it is not known what others have.
      if (found.kind === 'compacted') throw this.failure ?? this.compacted(subscription, found.start)
      if (!subscription.isWaiting) this.behind.add(subscription)
      const { changes, place } = found
      if (changes.length > 0) return { kind: 'changes', shard: subscription.shard, changes, place }
    }
  }

  /** Resolves when something that fits has come, or after `waitMs`; nothing is taken. */
  async changed(waitMs: number): Promise<void> {
    for (const subscription of [...this.behind]) {
      this.behind.delete(subscription)
      const found = await this.watches.read(subscription, 1)
      if (found !== null && (found.kind === 'compacted' || found.changes.length > 0)) return
    }
    if (this.failure === null && this.behind.size === 0) await this.awaken(waitMs)
  }

  fail(error: Error): void {
    this.failure ??= error
    this.wake()
  }

  close(): void {
    this.isClosed = true
    this.watches.closed(this)
    this.wake()
  }

  private awaken(ms: number): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.watches.clock.after(ms, () => resolve())
      this.wake = () => {
        cancel()
        resolve()
      }
    })
  }

  /** Whoever is told reads all keys again: for the other shards, too, it goes on from where they stand. */
  private compacted({ shard, place }: Subscription, start: number): RoundhouseError {
    for (const each of this.subscriptions) {
      const end = this.watches.endOf(each.shard)
      if (each.shard === shard || !each.isWaiting) each.place = Math.max(each.place, end)
    }
    return new RoundhouseError('COMPACTED', { shard, after: place, start, cursor: cursorText(this.cursor) })
  }
}
