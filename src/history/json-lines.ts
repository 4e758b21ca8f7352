/**
 * Roundhouse's own format: what its simulator, its chaos runs and `bench --verify` write. UTF-8, one JSON object a line.
 * The first says what follows; then come events in the order in which one recorder saw them.
 *
 *   {"format":"roundhouse-history","version":1,"model":"kv","about":"seed 7"}
 *   {"type":"invoke","process":"c3","f":"cas","key":"k1","args":["4","5"],"time":12.5}
 *   {"type":"ok","process":"c3","value":true,"time":13.1}
 *   {"type":"invoke","process":"c3","f":"incr","key":"n","time":13.2}
 *   {"type":"info","process":"c3","error":"no answer within 5 s","time":5013.2}
 *
 * - `type`: invoke; ok (answered), fail (certainly had no effect), info (unknown, for ever). After any of these the
 *   process may call again. A call without completion is unknown.
 * - `process`: who asks; one call at a time. A string or an integer.
 * - `f`, `args` (none: []) and `value` (ok only): the model's. Strings, integers, booleans, null; an integer is the same
 *   as its text. A `value` that is missing says nothing about the answer; null says that nothing was found.
 * - `key`: a string; missing where there is one object.
 * - `time`: milliseconds, never going back; may be missing. The order of the lines is what counts.
 * - `error`, `about`: for people.
 *
 * A call is written *before* it is sent and a completion after it came. So a file whose end is missing is a true history
 * of a shorter time, and a last line without line break, cut off by a crash, is passed over.
 */
import { HistoryError, type HistoryEvent } from './event.ts'
import type { Value } from './operation.ts'

export const formatName = 'roundhouse-history'
export const formatVersion = 1

export interface Header {
  /** The model it was recorded for; null where it doesn't say. */
  readonly model: string | null
  readonly about: string | null
}

const fields = {
  header: ['format', 'version', 'model', 'about'],
  invoke: ['type', 'process', 'f', 'key', 'args', 'time'],
  ok: ['type', 'process', 'value', 'time'],
  fail: ['type', 'process', 'error', 'time'],
  info: ['type', 'process', 'error', 'time'],
} as const

export function headerLine(header: Header): string {
  const { model, about } = header
  return `${JSON.stringify({
    format: formatName,
    version: formatVersion,
    ...(model === null ? {} : { model }),
    ...(about === null ? {} : { about }),
  })}\n`
}

/** `error` says why a completion is no answer. */
export function eventLine(event: HistoryEvent, error?: string): string {
  const time = event.timeMs === null ? {} : { time: event.timeMs }
  const { type, process } = event
  switch (type) {
    case 'invoke': {
      const { f, key, args } = event
      return `${JSON.stringify({ type, process, f, ...(key === '' ? {} : { key }), ...(args.length === 0 ? {} : { args }), ...time })}\n`
    }
    case 'ok':
      return `${JSON.stringify({ type, process, ...(event.value === undefined ? {} : { value: event.value }), ...time })}\n`
    default:
      return `${JSON.stringify({ type, process, ...(error === undefined ? {} : { error }), ...time })}\n`
  }
}

/** Throws HistoryError. */
export function parseHeader(text: string): Header {
  const object = objectOf(text)
  if (object.format !== formatName) {
    throw new HistoryError(
      `"format" is ${JSON.stringify(object.format)}: accepted is "${formatName}" in the first line`,
    )
  }
  if (object.version !== formatVersion) {
    throw new HistoryError(`"version" is ${JSON.stringify(object.version)}: accepted is ${formatVersion}`)
  }
  refuseUnknown(object, fields.header)
  return { model: textOrNull(object, 'model'), about: textOrNull(object, 'about') }
}

/** Throws HistoryError. */
export function parseEvent(text: string): HistoryEvent {
  const object = objectOf(text)
  const { type } = object
  if (type !== 'invoke' && type !== 'ok' && type !== 'fail' && type !== 'info') {
    throw new HistoryError(
      `"type" is ${JSON.stringify(type)}: accepted are "invoke", "ok", "fail" and "info"`,
    )
  }
  refuseUnknown(object, fields[type])
  const process = processOf(object.process)
  const timeMs = timeOf(object.time)
  if (type === 'ok') return { type, process, value: valueFrom('value', object.value), timeMs }
  if (type !== 'invoke') {
    textOrNull(object, 'error')
    return { type, process, timeMs }
  }
  const { f, args = [] } = object
  if (typeof f !== 'string')
    throw new HistoryError(`"f" is ${JSON.stringify(f)}: accepted is a function's name`)
  if (!Array.isArray(args))
    throw new HistoryError(`"args" is ${JSON.stringify(args)}: accepted is a list of values`)
  const values = args.map(each => valueFrom('args', each) ?? null)
  return { type, process, f, key: textOrNull(object, 'key') ?? '', args: values, timeMs }
}

function objectOf(text: string): Record<string, unknown> {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw new HistoryError(`not JSON (${(error as Error).message}): accepted is one object a line`)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new HistoryError('no object: accepted is one JSON object a line')
  }
  return parsed as Record<string, unknown>
}

function refuseUnknown(object: Record<string, unknown>, known: readonly string[]): void {
  const unknown = Object.keys(object).find(each => !known.includes(each))
  if (unknown !== undefined) {
    throw new HistoryError(`field ${JSON.stringify(unknown)}: accepted here are ${known.join(', ')}`)
  }
}

function processOf(value: unknown): string {
  if (typeof value === 'string' || Number.isSafeInteger(value)) return String(value)
  throw new HistoryError(`"process" is ${JSON.stringify(value)}: accepted is a string or an integer`)
}

function timeOf(value: unknown): number | null {
  if (value === undefined) return null
  if (typeof value === 'number') return value
  throw new HistoryError(`"time" is ${JSON.stringify(value)}: accepted are milliseconds, a number`)
}

function textOrNull(object: Record<string, unknown>, name: string): string | null {
  const value = object[name]
  if (value === undefined) return null
  if (typeof value === 'string') return value
  throw new HistoryError(`"${name}" is ${JSON.stringify(value)}: accepted is a string`)
}

function valueFrom(name: string, value: unknown): Value | undefined {
  if (value === undefined || value === null || typeof value === 'string') return value
  if (typeof value === 'boolean' || Number.isSafeInteger(value)) return String(value)
  throw new HistoryError(
    `"${name}" has ${JSON.stringify(value)}: accepted are strings, integers up to 2^53, true, false and null`,
  )
}
