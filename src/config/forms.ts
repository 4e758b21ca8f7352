/**
 * How the value of a setting is written, and what is accepted: names, numbers in bounds, durations (`10s`), sizes
 * (`64MiB`), addresses. A form reads a text and prints what it would read again.
 */

/** How a value is written. `parse` answers undefined for what it does not accept; `accepted` completes "is not …". */
export interface Form<T> {
  readonly name: 'string' | 'integer' | 'duration' | 'size' | 'list' | 'boolean' | 'address'
  readonly accepted: string
  parse(text: string): T | undefined
  /** The inverse of `parse`, as a person would write it. */
  format(value: T): string
}

export function text(accepted: string, pattern: RegExp): Form<string> {
  return {
    name: 'string',
    accepted,
    parse: value => (pattern.test(value) ? value : undefined),
    format: value => value,
  }
}

export function oneOf<T extends string>(...values: readonly T[]): Form<T> {
  return {
    name: 'string',
    accepted: `one of ${values.join(', ')}`,
    parse: value => values.find(each => each === value),
    format: value => value,
  }
}

export function integer(min: number, max: number): Form<number> {
  return {
    name: 'integer',
    accepted: `an integer from ${min} to ${max}`,
    parse: value => within(/^[0-9]{1,15}$/.test(value) ? Number(value) : undefined, min, max),
    format: String,
  }
}

export function powerOfTwo(min: number, max: number): Form<number> {
  return {
    name: 'integer',
    accepted: `a power of two from ${min} to ${max}`,
    parse: value => {
      const number = integer(min, max).parse(value)
      return number !== undefined && Number.isInteger(Math.log2(number)) ? number : undefined
    },
    format: String,
  }
}

const durationUnits = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 } as const

/** Milliseconds, written `250ms`, `1.5s`, `15m`, `1h30m`; a bare 0 needs no unit. */
export function duration(min: string, max: string, zero?: string): Form<number> {
  const accepted = `a duration from ${min} to ${max}, such as 250ms, 10s or 1h30m`
  return {
    name: 'duration',
    accepted: zero === undefined ? accepted : `${accepted}; or 0 for ${zero}`,
    parse: value => {
      const ms = parseDuration(value)
      return ms === 0 && zero !== undefined ? 0 : within(ms, parseDuration(min)!, parseDuration(max)!)
    },
    format: formatDuration,
  }
}

/** Milliseconds, or undefined. */
export function parseDuration(value: string): number | undefined {
  if (value === '0') return 0
  if (!/^([0-9]+(\.[0-9]+)?(h|ms|m|s))+$/.test(value)) return undefined
  let ms = 0
  for (const part of value.matchAll(/([0-9.]+)(h|ms|m|s)/g)) {
    ms += Number(part[1]) * durationUnits[part[2] as keyof typeof durationUnits]
  }
  return Number.isSafeInteger(ms) ? ms : undefined
}

export function formatDuration(ms: number): string {
  if (ms === 0) return '0'
  let rest = ms
  let out = ''
  for (const [unit, size] of Object.entries(durationUnits)) {
    const count = Math.floor(rest / size)
    if (count === 0) continue
    out += `${count}${unit}`
    rest -= count * size
  }
  return out
}

const sizeUnits = { GiB: 2 ** 30, MiB: 2 ** 20, KiB: 2 ** 10, B: 1 } as const

/** Bytes, written `512MiB`, `4KiB`; a bare number is bytes. */
export function size(min: string, max: string): Form<number> {
  return {
    name: 'size',
    accepted: `a size from ${min} to ${max}, such as 64KiB, 512MiB or 2GiB`,
    parse: value => within(parseSize(value), parseSize(min)!, parseSize(max)!),
    format: formatSize,
  }
}

/** Bytes, or undefined. */
export function parseSize(value: string): number | undefined {
  const match = /^([0-9]{1,15}(?:\.[0-9]{1,6})?)(GiB|MiB|KiB|B)?$/.exec(value)
  if (match === null) return undefined
  const bytes = Number(match[1]) * sizeUnits[(match[2] ?? 'B') as keyof typeof sizeUnits]
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

export function formatSize(bytes: number): string {
  const [unit, size] = Object.entries(sizeUnits).find(([, size]) => bytes >= size && bytes % size === 0) ?? [
    'B',
    1,
  ]
  return `${bytes / size}${unit}`
}

const yes = ['true', '1', 'yes', 'on']
const no = ['false', '0', 'no', 'off']
export const boolean: Form<boolean> = {
  name: 'boolean',
  accepted: 'true or false',
  parse: value =>
    yes.includes(value.toLowerCase()) ? true : no.includes(value.toLowerCase()) ? false : undefined,
  format: String,
}

/** What can stand before the colon of an address: a DNS name, an IPv4 address, or an IPv6 address (without brackets). */
const hostPattern = /^([A-Za-z0-9]([A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$/

export const host: Form<string> = {
  name: 'string',
  accepted: 'a host name or an IP address',
  parse: value => (hostPattern.test(value) ? value : undefined),
  format: value => value,
}

/** `host:port`, `host` alone (the port is then this node's own), `[::1]:8080`. Never the unspecified address. */
export const address: Form<string> = {
  name: 'address',
  accepted:
    'host:port where others can reach it, such as node1:8080, 10.0.0.7:8080 or [fd00::7]:8080; never 0.0.0.0',
  parse: value => {
    const parts = splitAddress(value)
    return parts === undefined || isUnspecified(parts.host) ? undefined : value
  },
  format: value => value,
}

export const addresses: Form<readonly string[]> = {
  name: 'list',
  accepted: 'addresses with commas between them, such as node1:8080,node2:8080',
  parse: value => {
    const items = value.split(',').map(item => item.trim())
    return items.every(item => address.parse(item) !== undefined) ? items : undefined
  },
  format: value => value.join(','),
}

/** Host and port of `host:port`, `host`, `[v6]:port` or `[v6]`; undefined when it is none of them. */
export function splitAddress(value: string): { host: string; port: number | undefined } | undefined {
  const match = /^(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([^:[\]\s]+))(?::([0-9]{1,5}))?$/.exec(value)
  const name = match?.[1] ?? match?.[2]
  if (match === null || name === undefined || !hostPattern.test(name)) return undefined
  if (match[3] === undefined) return { host: name, port: undefined }
  const port = within(Number(match[3]), 1, 65_535)
  return port === undefined ? undefined : { host: name, port }
}

/** What to listen on: `host:port`, a host or a port alone; no host (`:8080`) is all addresses. */
export const bindAddress: Form<string> = {
  name: 'address',
  accepted:
    'host:port, such as 127.0.0.1:8080 or 0.0.0.0:8080; one of them may be left out: 127.0.0.1 or :8080',
  parse: value => (splitBindAddress(value) === undefined ? undefined : value),
  format: value => value,
}

export function splitBindAddress(value: string): { host: string; port: number | undefined } | undefined {
  return splitAddress(value.startsWith(':') ? `0.0.0.0${value}` : value)
}

export function joinAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** An address to listen on that nobody can dial. */
export function isUnspecified(host: string): boolean {
  return host === '0.0.0.0' || /^[0:]+$/.test(host)
}

function within(value: number | undefined, min: number, max: number): number | undefined {
  return value !== undefined && Number.isSafeInteger(Math.ceil(value)) && value >= min && value <= max
    ? value
    : undefined
}
