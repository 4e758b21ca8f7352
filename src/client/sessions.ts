/**
 * Sequences for writes, so that a write that is sent again is applied once. A session is 16 bytes that begin with the
 * time; a sequence is given out once and keeps its session through all attempts. `ackedBelow` tells the shards which
 * replies nobody will ask for again; it never passes a sequence that is unsettled, or its retry would be refused.
 *
 * The shards keep at most 1,024 replies above the mark. One write that hangs holds its session's mark, so after 1,000
 * further writes a session is left to those that still use it and another one begins.
 */
import { randomBytes } from 'node:crypto'

/** Sequences between the mark and the last one given out. Below the shards' limit of 1,024. */
const spanMax = 1_000
/** The shards refuse sessions that they don't know when they are 55 minutes old; a write is tried for at most five. */
const ageMsMax = 45 * 60_000
/** Sessions that hang at one time, by default. A shard keeps 10,000 of all clients together. */
const sessionsMaxDefault = 64

export interface Ticket {
  readonly id: Buffer
  readonly sequence: number
  /** As of now: it moves between attempts. */
  ackedBelow(): number
  /** The outcome is known or given up: it will never be sent again. */
  settle(): void
}

export class Sessions {
  private readonly wall: () => number
  private readonly sessionsMax: number
  private readonly open = new Set<Session>()
  private current: Session | null = null

  constructor(wall: () => number = Date.now, sessionsMax: number = sessionsMaxDefault) {
    this.wall = wall
    this.sessionsMax = sessionsMax
  }

  /** Sessions with writes under way, and the one that the next write takes. */
  get count(): number {
    return this.open.size
  }

  /** null: too many sessions hang; there is room when one of their writes settles. */
  take(): Ticket | null {
    const { current } = this
    if (current === null || current.span >= spanMax || !this.isFresh(current)) {
      if (current?.isIdle === true) this.open.delete(current)
      if (this.open.size >= this.sessionsMax) return null
      this.current = new Session(this.wall())
      this.open.add(this.current)
    }
    const session = this.current!
    const sequence = session.take()
    return {
      id: session.id,
      sequence,
      ackedBelow: () => session.low,
      settle: () => {
        session.settle(sequence)
        if (session.isIdle && session !== this.current) this.open.delete(session)
      },
    }
  }

  /** A clock that was set back would make an old session look young. */
  private isFresh({ createdMs }: Session): boolean {
    const age = this.wall() - createdMs
    return age >= 0 && age < ageMsMax
  }
}

class Session {
  readonly id: Buffer = Buffer.alloc(16)
  readonly createdMs: number
  private next = 1
  /** All sequences below are settled. */
  low = 1
  /** Settled ones above `low`. */
  private readonly settled = new Set<number>()

  constructor(wallMs: number) {
    this.createdMs = wallMs
    this.id.writeUIntBE(Math.floor(wallMs), 0, 6)
    randomBytes(10).copy(this.id, 6)
  }

  get span(): number {
    return this.next - this.low
  }

  get isIdle(): boolean {
    return this.low === this.next
  }

  take(): number {
    return this.next++
  }

  settle(sequence: number): void {
    if (sequence < this.low) return
    this.settled.add(sequence)
    while (this.settled.delete(this.low)) this.low++
  }
}
