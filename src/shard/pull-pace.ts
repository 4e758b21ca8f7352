import type { Clock } from '../lib/clock.ts'

/**
 * How fast this node pulls snapshots: below the bandwidth that was set, and below that in proportion to what it costs
 * others. What a chunk took, from being asked for until it is written, says how long everything takes here now: it waits
 * for the same event loops, processors and disks as clients' writes do, and its sender adds what its journal's syncs take
 * (Node.readChunk). So after each chunk comes a rest of `restFactor` times that: on a machine that nobody else uses the
 * limit is hardly felt, on a busy one pulls take a bounded share of it, and the busier it gets the rarer they are.
 *
 * No quiet value has to be known, and nothing is learned that could be wrong later. A rest is bounded, and with it the
 * least speed: a whole chunk each `gapMsMax`, 3.3 MiB/s. So every move ends, and of 16 pulls in line each
 * asks again long before its sender gives the copy up. A smaller chunk rests in proportion: a thousand shards
 * with nothing in them are not a move worth pacing.
 *
 * Refused: halving and raising a rate by the syncs' time against a quiet value (AIMD). What is quiet changes with the load, and
 * a load that came with the move itself (a new node's first entries) would hold it at the floor for ever.
 */
export const restFactor = 3
export const gapMsMax = 150
/** What a whole rest is for. */
export const wholeChunkBytes = 512 * 1024

export class PullPace {
  private readonly clock: Clock
  private readonly bytesPerSecond: number
  /** Of the latest chunks, ms; half of it is the last one's. */
  private chunkMs = 0
  /** When the next chunk may be asked for, on the monotonic clock. */
  private nextAtMs = 0

  constructor(clock: Clock, bytesPerSecond: number) {
    this.clock = clock
    this.bytesPerSecond = bytesPerSecond
  }

  /** Resolves when `bytes` may be asked for. All pulls of the node stand in one line. */
  async turn(bytes: number): Promise<void> {
    const nowMs = this.clock.now()
    const atMs = Math.max(nowMs, this.nextAtMs)
    const gapMs = Math.min(gapMsMax, (1 + restFactor) * this.chunkMs) * Math.min(1, bytes / wholeChunkBytes)
    this.nextAtMs = atMs + Math.max((bytes * 1000) / this.bytesPerSecond, gapMs)
    if (atMs > nowMs) await new Promise<void>(resolve => void this.clock.after(atMs - nowMs, resolve))
  }

  /** A chunk was here `ms` after it was asked for. */
  note(ms: number): void {
    this.chunkMs = (this.chunkMs + ms) / 2
  }
}
