import { constants, setPriority } from 'node:os'

/**
 * A thread that makes and takes in snapshots steps back for those who answer people: it runs at a lower priority, and after
 * each piece of work it rests `restFactor` times as long as that took. Where processors and disk are free a piece is short,
 * and so is the rest; where they are not, both grow, and the thread's share stays bounded. Priority alone does not do:
 * Linux weighs it among the threads of one session or container only, and knows nothing of the disk.
 *
 * A rest is bounded, so is the time that a request takes; and whoever closes the store ends all rests at once.
 */
export const restFactor = 2
export const restMsMax = 200

export class Rests {
  /** One 32-bit word shared with the main thread: 0 while there is time, 1 when there is none left. */
  private readonly hurry: Int32Array
  private readonly now: () => number
  private sinceMs = 0

  constructor(hurry: Int32Array, now = () => performance.now()) {
    this.hurry = hurry
    this.now = now
  }

  /** A request begins: what was before it was no work. */
  begin(): void {
    this.sinceMs = this.now()
  }

  /** A piece of work is done. Hold no lock here that others wait for. Answers for how long it rests if nobody hastens, ms. */
  rest(): number {
    const ms = Math.min(restMsMax, (this.now() - this.sinceMs) * restFactor)
    Atomics.wait(this.hurry, 0, 0, ms)
    this.begin()
    return ms
  }
}

/** Linux's priorities are those of threads, other systems' of the whole process. It is a wish: who may not, goes on as he is. */
export function stepBack(): void {
  if (process.platform !== 'linux') return
  try {
    setPriority(0, constants.priority.PRIORITY_BELOW_NORMAL)
  } catch {
    // A sandbox without it.
  }
}
