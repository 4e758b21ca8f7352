/**
 * The sealed segments that stand open: a store's descriptor and a mapped index each. A node has far more segments than
 * descriptors to spare, and mapped bytes count as external memory, which calls the collector; so those that were not
 * read for the longest time are let go. One of these serves all logs of a node.
 */
import { LRUCache } from 'lru-cache'

export const warmSegmentsMax = 64

/** What is kept open; `cool` closes its files, the next read opens them again. */
export interface Coolable {
  cool(): void
}

export class WarmSegments {
  private readonly cache: LRUCache<Coolable, true>

  constructor(max = warmSegmentsMax) {
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

  /** `segment` is in use now; another may be cooled for it. */
  touch(segment: Coolable): void {
    if (this.cache.get(segment) === undefined) this.cache.set(segment, true)
  }

  /** `segment` looks after its files itself from now on. */
  forget(segment: Coolable): void {
    this.cache.delete(segment)
  }
}
