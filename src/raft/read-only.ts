/**
 * Reads without a log entry (Raft §6.4 of the thesis). A leader notes its commit index, makes sure by one round of
 * heartbeats that it still led *after* the read arrived, and answers with the index: whoever has applied up to it reads
 * linearizably.
 *
 * Requests are numbered; a heartbeat carries the number of the latest one, and its answer confirms that and all before.
 * So the number that a quorum has confirmed is found like a commit index, one round serves any number of reads, and a
 * lost heartbeat is made good by the next.
 */
import type { AckedIndexes } from './quorum.ts'

/** Reads that wait for confirmation, and reads that wait for the leader's first commit; more are refused. */
export const readsWaitingMax = 4_096

export interface ReadRequest {
  /** Who asked; the replica itself or one that forwarded. */
  readonly from: number
  /** The reader's, opaque. */
  readonly context: Uint8Array
}

/** A read that may be served once the state machine has applied `index`. */
export interface ReadState {
  readonly index: number
  readonly context: Uint8Array
}

interface Waiting {
  readonly request: ReadRequest
  readonly index: number
  readonly number: number
}

export class ReadOnly implements AckedIndexes {
  private latest = 0
  private waiting: Waiting[] = []
  private readonly acked = new Map<number, number>()

  get count(): number {
    return this.waiting.length
  }

  /** The replica `self` confirms by asking. */
  add(request: ReadRequest, commitIndex: number, self: number): void {
    this.latest++
    this.waiting.push({ request, index: commitIndex, number: this.latest })
    this.acked.set(self, this.latest)
  }

  /** What a heartbeat carries: 8 bytes, the latest number, big-endian; null when no read waits. */
  heartbeatContext(): Uint8Array | null {
    if (this.waiting.length === 0) return null
    const context = new Uint8Array(8)
    new DataView(context.buffer).setBigUint64(0, BigInt(this.latest))
    return context
  }

  recordAck(id: number, context: Uint8Array): void {
    if (context.byteLength !== 8) return
    const view = new DataView(context.buffer, context.byteOffset, 8)
    const number = Number(view.getBigUint64(0))
    if (number > (this.acked.get(id) ?? 0)) this.acked.set(id, number)
  }

  ackedIndex(id: number): number | undefined {
    return this.acked.get(id)
  }

  /** Takes out all requests up to number `confirmed`. */
  advance(confirmed: number): readonly Waiting[] {
    let count = 0
    while (count < this.waiting.length && this.waiting[count]!.number <= confirmed) count++
    return this.waiting.splice(0, count)
  }

  /** With the leadership goes what was asked of it. */
  reset(): void {
    this.latest = 0
    this.waiting = []
    this.acked.clear()
  }
}
