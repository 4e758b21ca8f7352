/** What a case drives, and how much of something is written or taken away before and after it. */
import { RoundhouseError } from '../errors.ts'
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

export interface Sending<Part> {
  readonly phase: 'fill' | 'clean-up'
  readonly label: string
  /** Things of all parts; each part is a request. */
  readonly total: number
  readonly parts: Iterable<Part>
  readonly sizeOf: (part: Part) => number
  readonly send: (part: Part, slot: number, answer: (failure: string | null) => void) => void
  readonly onProgress: (progress: BenchProgress) => void
  readonly signal: AbortSignal
}

/** Throws BENCH when the cluster refuses, and not where it is told to end. */
export async function sendAll<Part>(sending: Sending<Part>): Promise<void> {
  const { phase, label, total, sizeOf, send, onProgress, signal } = sending
  const startedMs = performance.now()
  const parts = sending.parts[Symbol.iterator]()
  let done = 0
  const work = async (slot: number) => {
    while (!signal.aborted) {
      const next = parts.next()
      if (next.done === true) return
      const failure = await new Promise<string | null>(resolve => send(next.value, slot, resolve))
      if (failure !== null) {
        if (signal.aborted) return
        throw new RoundhouseError('BENCH', { phase, why: failure })
      }
      done += sizeOf(next.value)
      const operationsPerSecond = (done * 1_000) / (performance.now() - startedMs)
      onProgress({ phase, label, done: done / total, operationsPerSecond })
    }
  }
  await Promise.all(Array.from({ length: inFlight }, (_, slot) => work(slot)))
}
