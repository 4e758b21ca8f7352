/** Records as people and tools write them: a line each, or a JSON object a line. */
import type { Record as WireRecord } from '../gen/log/v1/log.ts'
import { type JsonBytes, jsonOf } from './print.ts'
import { UsageError } from './shell.ts'
import { timeText } from './streams.ts'

/** What a producer says of a record. */
export interface GivenRecord {
  readonly value: Buffer
  readonly key: Buffer | undefined
  readonly headers: { name: string; value: Buffer }[]
  readonly type: number
}

/** `a=b,c=d`. Throws UsageError. */
export function headersOf(text: string): { name: string; value: Buffer }[] {
  if (text === '') return []
  return text.split(',').map(each => {
    const at = each.indexOf('=')
    if (at < 1)
      throw new UsageError([`--headers: ${JSON.stringify(each)} is not name=value (commas between several)`])
    return { name: each.slice(0, at), value: Buffer.from(each.slice(at + 1)) }
  })
}

const accepted =
  '{"value": …, "key": …, "headers": {name: …}, "type": number}, where … is a text or {"base64": "…"}, of a header also a list'
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** One line of `--json`, as `consume -o json` prints it. Throws UsageError, with the line's number. */
export function recordOfJson(line: Buffer, number: number): GivenRecord {
  const refuse = (why: string): never => {
    throw new UsageError([`line ${number}: ${why}; accepted is ${accepted}`])
  }
  let given: unknown
  try {
    given = JSON.parse(utf8.decode(line))
  } catch (error) {
    return refuse(error instanceof SyntaxError ? error.message : 'it is not UTF-8')
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return refuse('it is no object')
  const { value, key, headers = {}, type = 0 } = given as Record<string, unknown>
  if (value === undefined) refuse('it has no value')
  if (typeof type !== 'number' || !Number.isInteger(type) || type < 0 || type > 0xffff_ffff)
    return refuse('its type is no 32-bit number')
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers))
    return refuse('its headers are no object')
  const bytesOf = (each: unknown, what: string): Buffer => {
    if (typeof each === 'string') return Buffer.from(each)
    const base64 = (each as { base64?: unknown } | null)?.base64
    const bytes = typeof base64 === 'string' ? bytesOfBase64(base64) : null
    return bytes ?? refuse(`its ${what} is no bytes`)
  }
  return {
    value: bytesOf(value, 'value'),
    key: key === undefined || key === null ? undefined : bytesOf(key, 'key'),
    headers: Object.entries(headers).flatMap(([name, each]) =>
      (Array.isArray(each) ? each : [each]).map(one => ({ name, value: bytesOf(one, `header ${name}`) })),
    ),
    type,
  }
}

/** null: it is none, where Buffer would read as much as it understands. */
function bytesOfBase64(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64').replace(/=+$/, '') === text.replace(/=+$/, '') ? bytes : null
}

/** A record as a line of JSON; what `recordOfJson` takes back. */
export function recordJson(record: WireRecord, partition: number): Record<string, unknown> {
  const headers = new Map<string, JsonBytes[]>()
  for (const { name, value } of record.headers)
    headers.set(name, [...(headers.get(name) ?? []), jsonOf(value)])
  return {
    partition,
    offset: Number(record.offset),
    timestamp: timeText(record.timestampMs),
    ...(record.key === undefined ? {} : { key: jsonOf(record.key) }),
    value: jsonOf(record.value),
    ...(headers.size === 0 ? {} : { headers: Object.fromEntries([...headers].map(oneOrMany)) }),
    ...(record.type === 0 ? {} : { type: record.type }),
  }
}

/** A name that comes once is as most people write it. */
function oneOrMany([name, values]: [string, JsonBytes[]]): [string, JsonBytes | JsonBytes[]] {
  return [name, values.length === 1 ? values[0]! : values]
}
