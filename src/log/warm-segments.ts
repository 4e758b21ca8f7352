/**
 * The segments that stand open: a store's descriptor and, of sealed ones, a mapped index each. A node has far more
 * segments than descriptors to spare, and mapped bytes count as external memory, which calls the collector; so those that
 * were not used for the longest time are let go. One of these serves all logs of a node.
 *
 * Segments with records that no sync has covered can't be let go. They are counted: whoever would add another one waits
 * for a sync while there are `unsyncedMax` (record-logs.ts), so that both limits together bound the descriptors.
 */
import { LRUCache } from 'lru-cache'

export const warmSegmentsMax = 64
export const unsyncedSegmentsMax = 128

/** What is kept open; `cool` closes its files, the next use opens them again. */
export interface Coolable {
  cool(): void
}

export class WarmSegments {
  private readonly cache: LRUCache<Coolable, true>
  private readonly unsyncedMax: number
  private unsynced = 0

  constructor(max = warmSegmentsMax, unsyncedMax = unsyncedSegmentsMax) {
    this.unsyncedMax = unsyncedMax
    this.cache = new LRUCache({
      max,
      dispose: (_, segment, reason) => {
        if (reason === 'evict') segment.cool()
      },
    })
  }

  get size(): number {
    return this.cache.size
  }

  /** As many wait for a sync as may. */
  get isCrowded(): boolean {
    return this.unsynced >= this.unsyncedMax
  }

  countUnsynced(change: 1 | -1): void {
    this.unsynced += change
  }

  /** `segment` is in use now; another may be cooled for it. */
  touch(segment: Coolable): void {
    if (this.cache.get(segment) === undefined) this.cache.set(segment, true)
  }

  /** `segment` looks after its files itself from now on. */
  forget(segment: Coolable): void {
    this.cache.delete(segment)
  }
}
