/**
 * What the clients did, kept so that it can be judged without a search: each key that was written once (and perhaps
 * deleted, or left to expire), each series' acknowledged and unknown changes, how calls ended.
 */

export const kinds = ['get', 'set', 'cas', 'del', 'incr', 'append', 'put', 'remove', 'expire'] as const
export type Kind = (typeof kinds)[number]
export type Outcome = 'ok' | 'refused' | 'unknown'
export type SeriesKind = 'register' | 'counter' | 'list'

/** A key that one client wrote, once. */
export interface Once {
  readonly key: string
  /** In short, as `digestOf` has it. */
  readonly value: string
  written: Outcome
  /** What became of its DEL; null: nobody deleted it. */
  removed: Outcome | null
  /** By the run's clock: not gone before, gone after. null: it stays. */
  expiry: { readonly earliestMs: number; readonly latestMs: number } | null
}

/** A key that many change, until another one takes its place. */
export interface Series {
  readonly kind: SeriesKind
  readonly key: string
  calls: number
  /** Changes. */
  acknowledged: number
  unknown: number
  /** Lists: acknowledged elements. Counters: numbers that were answered. */
  readonly elements: Set<string>
  /** Lists: all elements that were sent. */
  readonly sent: Set<string>
}

export interface Verdicts {
  /** Acknowledged changes that are not there. */
  lost: number
  /** Changes that are there twice, or that nobody sent. */
  doubled: number
  /** Deleted or expired, and there again. */
  resurrected: number
  /** Values that nobody wrote. */
  strange: number
}

const mistakesMax = 25

export class Books {
  readonly once: Once[] = []
  readonly series: Series[] = []
  readonly counts = new Map<Kind, Record<Outcome, number>>(
    kinds.map(kind => [kind, { ok: 0, refused: 0, unknown: 0 }]),
  )
  /** Tries that brought no reply, by the error's code. */
  readonly troubles = new Map<string, number>()
  readonly verdicts: Verdicts = { lost: 0, doubled: 0, resurrected: 0, strange: 0 }
  /** The first of them, in words. */
  readonly mistakes: string[] = []
  /** The first answers that no client should meet: refusals of what was sound, in words. */
  readonly faults: string[] = []
  retried = 0
  private readonly prefix: string
  private made = 0

  constructor(prefix: string) {
    this.prefix = prefix
  }

  newKey(what: string): string {
    this.made += 1
    return `${this.prefix}${what}:${this.made}`
  }

  newSeries(kind: SeriesKind): Series {
    const key = this.newKey(kind)
    const made = {
      kind,
      key,
      calls: 0,
      acknowledged: 0,
      unknown: 0,
      elements: new Set<string>(),
      sent: new Set<string>(),
    }
    this.series.push(made)
    return made
  }

  count(kind: Kind, outcome: Outcome): void {
    this.counts.get(kind)![outcome] += 1
  }

  trouble(code: string): void {
    this.troubles.set(code, (this.troubles.get(code) ?? 0) + 1)
  }

  mistake(what: string, verdict: keyof Verdicts): void {
    this.verdicts[verdict] += 1
    if (this.mistakes.length < mistakesMax) this.mistakes.push(what)
  }

  fault(what: string): void {
    if (this.faults.length < mistakesMax) this.faults.push(what)
  }

  /** Every key that may have been written. */
  *keys(): Generator<string> {
    for (const { key } of this.series) yield key
    for (const { key } of this.once) yield key
  }

  /** `text` (in short) was read between the two times; null: nothing was found. `by`: through whom. */
  judgeOnce(
    once: Once,
    text: string | null,
    begunMs: number,
    endedMs: number,
    marginMs: number,
    by: string,
  ): void {
    const { key, value, written, removed, expiry } = once
    if (text !== null && text !== value) {
      this.mistake(`${key} is ${shorten(text)} (${by}): nobody wrote that, but ${shorten(value)}`, 'strange')
      return
    }
    if (text === null) {
      if (written !== 'ok' || removed !== null) return
      if (expiry === null) this.mistake(`${key} was acknowledged and is not found (${by})`, 'lost')
      else if (endedMs < expiry.earliestMs - marginMs)
        this.mistake(
          `${key} is gone ${Math.round(expiry.earliestMs - endedMs)} ms before its time (${by})`,
          'lost',
        )
      return
    }
    if (written === 'refused') this.mistake(`${key} is there though its write was refused (${by})`, 'strange')
    else if (removed === 'ok') this.mistake(`${key} was deleted and is there again (${by})`, 'resurrected')
    else if (expiry !== null && begunMs > expiry.latestMs + marginMs)
      this.mistake(
        `${key} is there ${Math.round(begunMs - expiry.latestMs)} ms after its time (${by})`,
        'resurrected',
      )
  }

  /** The end of a counter or list, as read when all was quiet. */
  judgeEnd(series: Series, text: string | null, by: string): void {
    const { kind, key, acknowledged, unknown, elements, sent } = series
    if (kind === 'counter') {
      const value = Number(text ?? 0)
      if (value < acknowledged)
        this.mistake(`${key} is ${value} after ${acknowledged} acknowledged increments (${by})`, 'lost')
      else if (value > acknowledged + unknown)
        this.mistake(
          `${key} is ${value} after ${acknowledged} increments and ${unknown} unknown (${by})`,
          'doubled',
        )
    }
    if (kind !== 'list') return
    const found = text === null ? [] : text.split(',').slice(0, -1)
    const places = new Map<string, number>()
    for (const each of found) places.set(each, (places.get(each) ?? 0) + 1)
    for (const [each, count] of places) {
      if (!sent.has(each))
        this.mistake(`${key} holds ${shorten(each)}, which nobody appended (${by})`, 'strange')
      else if (count > 1) this.mistake(`${key} holds ${each} ${count} times (${by})`, 'doubled')
    }
    for (const each of elements)
      if (!places.has(each)) this.mistake(`${key} lacks ${each}, which was acknowledged (${by})`, 'lost')
  }
}

const shorten = (text: string): string => (text.length > 60 ? `${text.slice(0, 57)}…` : text)
