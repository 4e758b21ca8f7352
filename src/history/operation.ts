/**
 * What a client asked and what it was told. A history is nothing but these: no clock of a server, no log position, so
 * that the verdict trusts nobody but the clients.
 */

/** Everything that goes in or out is text; null is a missing value. Numbers and truth values are their usual texts. */
export type Value = string | null

export interface Operation {
  readonly process: string
  /** The function's name in the model: `read`, `set`, `cas` … */
  readonly f: string
  /** Operations on different keys don't touch each other: each key is checked alone. */
  readonly key: string
  readonly args: readonly Value[]
  /** What was answered; undefined where the answer says nothing (a write's "ok") or nobody knows it. */
  readonly result: Value | undefined
  /** Place of the call among all events: a line's number, or a time. At the same place calls come before returns. */
  readonly calledAt: number
  /** Place of the return; Infinity where the outcome is unknown: it may take effect at any time after the call, or never. */
  readonly returnedAt: number
  /** For people; null where the history has no times. */
  readonly calledMs: number | null
  readonly returnedMs: number | null
}

/** `cas 3 4`, as a person reads it. */
export function callText(operation: Operation): string {
  return [operation.f, ...operation.args.map(valueText)].join(' ')
}

/** Short texts in full, long ones by both ends: an append shows at the end. */
const valueCharactersMax = 44

export function valueText(value: Value): string {
  if (value === null) return 'nil'
  if (/^(-?\d{1,20}|true|false)$/.test(value)) return value
  if (value.length <= valueCharactersMax) return JSON.stringify(value)
  const half = valueCharactersMax / 2
  return `${JSON.stringify(value.slice(0, half))}…${JSON.stringify(value.slice(-half))}`
}
