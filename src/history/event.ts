/**
 * A history as it was written down: events, in the order in which one observer saw them. `HistoryBuilder` pairs each
 * completion with its process's call and hands out operations.
 */
import { type Model, mistakeOf } from './model.ts'
import type { Operation, Value } from './operation.ts'

/**
 * `ok`: answered. `fail`: certainly had no effect, so it drops out. `info`: nobody knows, now or ever. A call whose
 * completion is missing counts as `info`.
 */
export type HistoryEvent =
  | {
      readonly type: 'invoke'
      readonly process: string
      readonly f: string
      readonly key: string
      readonly args: readonly Value[]
      readonly timeMs: number | null
    }
  | {
      readonly type: 'ok'
      readonly process: string
      readonly value: Value | undefined
      readonly timeMs: number | null
    }
  | { readonly type: 'fail' | 'info'; readonly process: string; readonly timeMs: number | null }

/** A history that can't be taken as one. */
export class HistoryError extends Error {
  override readonly name = 'HistoryError'
}

/** A history of more is refused: operations take some 300 bytes each. */
export const operationsMax = 5_000_000

interface Draft extends Operation {
  result: Value | undefined
  returnedAt: number
  returnedMs: number | null
}

export class HistoryBuilder {
  private readonly model: Model
  private readonly drafts: (Draft | null)[] = []
  /** By process: the place in `drafts` of its call under way. */
  private readonly open = new Map<string, number>()
  /** Names come again and again: one copy of each is kept. */
  private readonly names = new Map<string, string>()
  private lastMs = Number.NEGATIVE_INFINITY

  constructor(model: Model) {
    this.model = model
  }

  /** `at` rises from event to event, such as a line's number. Throws HistoryError. */
  add(event: HistoryEvent, at: number): void {
    if (event.timeMs !== null) {
      if (event.timeMs < this.lastMs) {
        throw new HistoryError(
          `time goes back from ${this.lastMs} to ${event.timeMs}: events come in the order of time`,
        )
      }
      this.lastMs = event.timeMs
    }
    const place = this.open.get(event.process)
    if (event.type === 'invoke') {
      if (place !== undefined) {
        throw new HistoryError(
          `process ${event.process} calls while its call of ${this.drafts[place]!.calledAt} is open: complete it with ok, fail or info first`,
        )
      }
      this.call(event, at)
      return
    }
    if (place === undefined) {
      throw new HistoryError(
        `${event.type} of process ${event.process}, which has no open call: invoke comes first`,
      )
    }
    this.open.delete(event.process)
    const draft = this.drafts[place]!
    if (event.type === 'fail') this.drafts[place] = null
    if (event.type !== 'ok') return
    const mistake = mistakeOf(this.model, draft.f, draft.args, event.value)
    if (mistake !== null) throw new HistoryError(mistake)
    draft.result = event.value
    draft.returnedAt = at
    draft.returnedMs = event.timeMs
  }

  /** The function and arguments of a process's open call. */
  openCall(process: string): Pick<Operation, 'f' | 'key' | 'args'> | undefined {
    const place = this.open.get(process)
    return place === undefined ? undefined : this.drafts[place]!
  }

  /** What was called so far and did not fail, in the order of the calls. */
  operations(): Operation[] {
    return this.drafts.filter(each => each !== null)
  }

  private call(event: HistoryEvent & { type: 'invoke' }, at: number): void {
    if (this.drafts.length >= operationsMax) {
      throw new HistoryError(
        `more than ${operationsMax} operations: check a part of the history, or key by key`,
      )
    }
    const { f, key, process, args, timeMs } = event
    const mistake = mistakeOf(this.model, f, args, undefined)
    if (mistake !== null) throw new HistoryError(mistake)
    this.open.set(process, this.drafts.length)
    this.drafts.push({
      process: this.known(process),
      f: this.known(f),
      key: this.known(key),
      args,
      result: undefined,
      calledAt: at,
      returnedAt: Number.POSITIVE_INFINITY,
      calledMs: timeMs,
      returnedMs: null,
    })
  }

  private known(name: string): string {
    const known = this.names.get(name)
    if (known !== undefined) return known
    this.names.set(name, name)
    return name
  }
}
