import type { Change, ChangeRing, Target } from '../keyspace/changes.ts'

/**
 * The changes of one shard as the watches of this node get them, and who waits for which. A change wakes those whose key
 * or prefix fits and nobody else: what a watch costs while nothing happens to its keys is its row in a map.
 *
 * A subscription *waits* when it has seen all that fits it up to `seen`, and then its place moves on with `seen`, without
 * being touched; or it is *behind* at a place of its own and reads from there at its own pace.
 *
 * Invariant: nothing after a waiting subscription's place and up to `seen` fits it.
 */
export interface Subscription {
  readonly shard: number
  readonly target: Target
  /** Index of the last entry that it is through with; while it waits, at least. */
  place: number
  isWaiting: boolean
  /** It is behind now. */
  readonly onBehind: (subscription: Subscription) => void
}

/** Changes up to the entry at `end`, complete after `ring.start`. */
export interface Source {
  readonly ring: ChangeRing
  readonly end: number
}

export class WatchFeed {
  readonly shard: number
  /** Up to here all were woken. */
  seen = -1
  private readonly all = new Set<Subscription>()
  private readonly byKey = new Map<string, Set<Subscription>>()
  private readonly byPrefix = new Map<string, Set<Subscription>>()
  /** Of the prefixes, each once. */
  private lengths: readonly number[] = []

  constructor(shard: number) {
    this.shard = shard
  }

  get size(): number {
    return this.all.size
  }

  add(subscription: Subscription): void {
    this.all.add(subscription)
    const [map, name] = this.rowOf(subscription)
    const found = map.get(name)
    if (found !== undefined) found.add(subscription)
    else {
      map.set(name, new Set([subscription]))
      this.measure()
    }
  }

  remove(subscription: Subscription): void {
    if (!this.all.delete(subscription)) return
    const [map, name] = this.rowOf(subscription)
    const found = map.get(name)
    found?.delete(subscription)
    if (found?.size !== 0) return
    map.delete(name)
    this.measure()
  }

  placeOf({ isWaiting, place }: Subscription): number {
    return isWaiting ? Math.max(place, this.seen) : place
  }

  /** It has read all there is up to `place`. */
  wait(subscription: Subscription, place: number): void {
    subscription.place = place
    subscription.isWaiting = true
  }

  /** There may be more: wakes those whom it concerns. `end` is not before `seen`. */
  progressed({ ring, end }: Source): void {
    const before = this.seen
    // What is not in the ring may fit anybody.
    if (ring.start > before)
      for (const each of this.all)
        if (each.isWaiting && this.placeOf(each) < ring.start) this.wake(each, this.placeOf(each))
    if (this.all.size > 0)
      ring.visit(Math.max(before, ring.start), (key, index) => {
        this.wakeAll(this.byKey.get(key), index)
        for (const length of this.lengths)
          if (length <= key.length) this.wakeAll(this.byPrefix.get(key.slice(0, length)), index)
      })
    this.seen = end
  }

  private wakeAll(several: ReadonlySet<Subscription> | undefined, index: number): void {
    if (several === undefined) return
    for (const each of several) if (each.isWaiting && index > each.place) this.wake(each, index - 1)
  }

  private wake(subscription: Subscription, place: number): void {
    subscription.isWaiting = false
    subscription.place = place
    subscription.onBehind(subscription)
  }

  private rowOf({ target }: Subscription): readonly [map: Map<string, Set<Subscription>>, name: string] {
    return target.kind === 'key' ? [this.byKey, target.key] : [this.byPrefix, target.prefix]
  }

  private measure(): void {
    this.lengths = [...new Set([...this.byPrefix.keys()].map(each => each.length))].sort((a, b) => a - b)
  }
}

/** What a read gave; compacted: it can't go on from where it was. */
export type FeedRead =
  | { readonly kind: 'changes'; readonly changes: readonly Change[]; readonly place: number }
  | { readonly kind: 'compacted'; readonly start: number }
