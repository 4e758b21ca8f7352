import { deferred } from '../lib/deferred.ts'

/**
 * Keeps the calls of one client stream in order, shard by shard; different shards go side by side.
 *
 * A call may begin when its predecessor on the shard is settled. Writes to a shard that is led here need not wait: the
 * replica's queue and Raft's log keep their order, and what one change of leadership refuses, it refuses from there on.
 * But a call that has to be tried again lets nobody overtake it: it waits for its predecessors, its successors for it.
 */
export class CallOrder {
  private readonly shards = new Map<number, Line>()

  enter(shard: number): Turn {
    const line = this.shards.get(shard) ?? { last: null, retrying: 0 }
    this.shards.set(shard, line)
    const previous = line.last
    const own = deferred<void>()
    const settled = previous === null ? own.promise : own.promise.then(() => previous)
    line.last = settled
    return {
      previous,
      mayOvertake: () => line.retrying === 0,
      retrying: () => {
        line.retrying++
      },
      leave: (retries: number) => {
        line.retrying -= retries
        own.resolve()
        if (line.last === settled) this.shards.delete(shard)
      },
    }
  }
}

interface Line {
  last: Promise<void> | null
  retrying: number
}

export interface Turn {
  /** Resolves when all calls before this one are settled; null when there is none. */
  readonly previous: Promise<void> | null
  /** Whether no earlier call is being tried again. */
  readonly mayOvertake: () => boolean
  readonly retrying: () => void
  /** The call is settled; `retries` says how often it called `retrying`. */
  readonly leave: (retries: number) => void
}
