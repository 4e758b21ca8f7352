/**
 * Time as a port: `now` for durations, `wall` for stamps, timers for waiting. Everything that waits takes one, so that a
 * simulation can run hours in a second and a test never sleeps.
 */
export interface Clock {
  /** Milliseconds since an arbitrary start, never going back. */
  now(): number
  /** Milliseconds since 1970 as this machine believes; it may step either way. */
  wall(): number
  /** Calls `run` once after `ms`; the answer cancels it. A timer does not keep the process alive. */
  after(ms: number, run: () => void): () => void
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}
