/** What a case drives, and how much of something is written or taken away before and after it. */
import type { Snapshot } from './cost.ts'
import type { Begin } from './drive.ts'
import type { BenchProgress } from './ports.ts'

export interface Load {
  /** Operations that are under way are told by their slots. */
  readonly begin: Begin
  /** From now on knows who leads. */
  follow(): void
  snapshot(): Promise<Snapshot>
  close(): void
}

/** Requests under way while much is written. */
const inFlight = 16

export interface Sending {
  readonly phase: 'fill' | 'clean-up'
  readonly label: string
  /** Things, and how many of them one request takes. */
  readonly total: number
  readonly step: number
  readonly send: (from: number, to: number, slot: number, answer: (failure: string | null) => void) => void
  readonly onProgress: (progress: BenchProgress) => void
  readonly signal: AbortSignal
}

/** Throws when the cluster refuses. */
export async function sendAll(sending: Sending): Promise<void> {
  const { phase, label, total, step, send, onProgress, signal } = sending
  const startedMs = performance.now()
  let next = 0
  let done = 0
  const work = async (slot: number) => {
    while (next < total && !signal.aborted) {
      const from = next
      const to = Math.min(total, from + step)
      next = to
      const failure = await new Promise<string | null>(resolve => send(from, to, slot, resolve))
      if (failure !== null) throw new Error(`${phase}: ${failure}`)
      done += to - from
      const operationsPerSecond = (done * 1_000) / (performance.now() - startedMs)
      onProgress({ phase, label, done: done / total, operationsPerSecond })
    }
  }
  await Promise.all(Array.from({ length: inFlight }, (_, slot) => work(slot)))
}
