import { deferred } from '../lib/deferred.ts'

/**
 * Keeps the calls of one client stream in order, shard by shard; different shards go side by side.
 *
 * A call begins when its predecessors on the shard are settled. One thing is faster: writes to a shard that is led here
 * follow each other at once, since the replica's queue and Raft's log keep their order, and what a change of leadership
 * refuses, it refuses from there on. Nobody overtakes a read (it must not see what comes after it), a call that waits, or
 * one that is tried again.
 */
export class CallOrder {
  private readonly lines = new Map<number, Line>()

  /** `mayFollow`: a write to a shard that is led here. */
  enter(shard: number, mayFollow: boolean): Turn {
    const line = this.lines.get(shard) ?? { last: null, blocking: 0 }
    this.lines.set(shard, line)
    const previous = line.last
    const own = deferred<void>()
    const settled = previous === null ? own.promise : own.promise.then(() => previous)
    line.last = settled
    void settled.then(() => {
      if (line.last === settled) this.lines.delete(shard)
    })
    const isBlocking = !mayFollow || line.blocking > 0
    let blocks = isBlocking ? 1 : 0
    line.blocking += blocks
    return {
      previous: isBlocking ? previous : null,
      retry: () => {
        if (blocks === 0) line.blocking++
        blocks = 1
        return previous
      },
      leave: () => {
        line.blocking -= blocks
        own.resolve()
      },
    }
  }
}

interface Line {
  /** Settled when all calls so far are. */
  last: Promise<void> | null
  /** Calls under way that nobody may overtake. */
  blocking: number
}

export interface Turn {
  /** To wait for before the call begins; null when it may begin now. */
  readonly previous: Promise<void> | null
  /** The call is to be tried again: after all before it, and nobody may overtake it any more. */
  readonly retry: () => Promise<void> | null
  /** The call is settled. */
  readonly leave: () => void
}
