/**
 * What is judged behind a recorded workload: the history by the checker, what was acknowledged by the books. NOT is said
 * when either has proof; linearizable when the checker has one for every key and all that was written could be read
 * again; everything else is unknown.
 */
import { createReadStream } from 'node:fs'
import { check, type Verdict } from '../../history/check.ts'
import type { Model } from '../../history/model.ts'
import type { Operation } from '../../history/operation.ts'
import { readHistory } from '../../history/read-history.ts'
import type { Window } from '../../history/window.ts'
import type { Books } from './books.ts'
import type { FinalReads } from './final-reads.ts'

export interface Judgement {
  readonly verdict: 'linearizable' | 'not-linearizable' | 'unknown'
  readonly operations: number
  readonly keys: number
  /** The smallest part of the history that can't be put in order; null where the checker found none. */
  readonly window: Window | null
  /** Proof against the store, in words: what the books and the checker found. */
  readonly mistakes: readonly string[]
  /** Why nothing is proven either way: what was not read, not checked, or answered as no client should be. */
  readonly doubts: readonly string[]
}

export interface JudgeOptions {
  /** For the checker, ms. */
  readonly timeoutMs: number
  /** Keys whose order is known, of all. */
  readonly onProgress: (done: number) => void
}

/** Operations that are searched without giving way to other work; and how long a key may take in the first round, ms. */
const batchOperations = 10_000
const firstRoundMs = 1_000
const undecidedTold = 5

/** `path`: the history, whole. */
export async function judge(
  path: string,
  books: Books,
  finalReads: FinalReads,
  options: JudgeOptions,
): Promise<Judgement> {
  const history = await readHistory(createReadStream(path), { format: 'json', model: null })
  const { operations, model } = history
  const byKey = groupedByKey(operations)
  const found = await searched([...byKey.values()], model, options)
  const window = found.kind === 'not-linearizable' ? found.window : null
  const mistakes = [
    ...books.mistakes,
    ...(window === null ? [] : [`the answers for ${JSON.stringify(window.key)} can't be put in order`]),
  ]
  const doubts = [...finalReads.unreadable, ...books.faults]
  if (found.kind === 'unknown') {
    const told = found.undecided.slice(0, undecidedTold).join(' ')
    const more = found.undecided.length > undecidedTold ? ' …' : ''
    const ended = found.why === 'time' ? 'time' : 'memory'
    doubts.push(`the checker gave up for want of ${ended}; without a verdict: ${told}${more}`)
  }
  if (!operations.some(each => each.returnedAt !== Number.POSITIVE_INFINITY))
    doubts.push('nothing was answered')
  const verdict = mistakes.length > 0 ? 'not-linearizable' : doubts.length > 0 ? 'unknown' : 'linearizable'
  return { verdict, operations: operations.length, keys: byKey.size, window, mistakes, doubts }
}

type Searched =
  | { readonly kind: 'linearizable' }
  | { readonly kind: 'not-linearizable'; readonly window: Window }
  | { readonly kind: 'unknown'; readonly why: 'time' | 'memory'; readonly undecided: readonly string[] }

/** In two rounds, so that the process goes on living: batches of keys with a little time each, then what is left. */
async function searched(
  parts: readonly (readonly Operation[])[],
  model: Model,
  { timeoutMs, onProgress }: JudgeOptions,
): Promise<Searched> {
  const untilMs = performance.now() + timeoutMs
  const hard = new Set<string>()
  let done = 0
  for (let place = 0; place < parts.length; ) {
    const batch: Operation[] = []
    const from = place
    while (place < parts.length && (place === from || batch.length + parts[place]!.length <= batchOperations))
      for (const each of parts[place++]!) batch.push(each)
    const verdict = check(batch, model, {
      timeoutMs: Math.min(firstRoundMs, Math.max(1, untilMs - performance.now())),
    })
    if (verdict.kind === 'not-linearizable') return verdict
    if (verdict.kind === 'unknown') for (const key of verdict.undecided) hard.add(key)
    done += place - from
    onProgress((done - hard.size) / parts.length)
    await new Promise(resolve => setImmediate(resolve))
  }
  if (hard.size === 0) return { kind: 'linearizable' }
  const rest = parts.flatMap(each => (hard.has(each[0]!.key) ? each : []))
  const last: Verdict = check(rest, model, { timeoutMs: Math.max(1, untilMs - performance.now()) })
  return last
}

function groupedByKey(operations: readonly Operation[]): Map<string, Operation[]> {
  const found = new Map<string, Operation[]>()
  for (const each of operations) {
    const its = found.get(each.key)
    if (its === undefined) found.set(each.key, [each])
    else its.push(each)
  }
  return found
}
