/**
 * How replies and tables look. For people as redis-cli prints them; for tools as JSON in which bytes are a string when
 * they are UTF-8 and `{"base64": "…"}` when they are not.
 */
import Table from 'cli-table3'
import type { CommandResponse, KeyValue } from '../gen/clusterpb/cluster.ts'
import type { Colors } from './colors.ts'
import type { Output } from './shell.ts'

export type JsonBytes = string | { readonly base64: string }

/** The text, or undefined where the bytes are not UTF-8. */
function utf8Of(bytes: Uint8Array): string | undefined {
  try {
    // ignoreBOM keeps a byte order mark: it is part of the value.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

export function jsonOf(bytes: Uint8Array): JsonBytes {
  return utf8Of(bytes) ?? { base64: Buffer.from(bytes).toString('base64') }
}

/** In double quotes, as redis-cli: what is not printable ASCII or UTF-8 is escaped, so that it can't steer a terminal. */
export function quoted(bytes: Uint8Array): string {
  const text = utf8Of(bytes)
  if (text !== undefined && !hasControls(text)) return `"${text.replace(/["\\]/g, '\\$&')}"`
  let out = ''
  for (const byte of bytes) {
    const char = String.fromCharCode(byte)
    if (char === '"' || char === '\\') out += `\\${char}`
    else if (char === '\n') out += '\\n'
    else if (char === '\r') out += '\\r'
    else if (char === '\t') out += '\\t'
    else out += byte >= 0x20 && byte < 0x7f ? char : `\\x${byte.toString(16).padStart(2, '0')}`
  }
  return `"${out}"`
}

function hasControls(text: string): boolean {
  return /\p{Cc}/u.test(text)
}

/**
 * A value alone on its line: byte for byte for a pipe or a file. A terminal gets it quoted when it holds control
 * characters other than line breaks and tabs.
 */
export function printValue(output: Output, value: Uint8Array): void {
  const text = utf8Of(value)
  const isSafe = text !== undefined && !hasControls(text.replace(/[\n\t]/g, ''))
  output.write(output.isTerminal && !isSafe ? quoted(value) : value)
  output.write('\n')
}

export function printReply(output: Output, response: CommandResponse): void {
  const reply = response.response
  switch (reply?.$case) {
    case undefined:
      output.write('(nil)\n')
      return
    case 'value':
      printValue(output, reply.value)
      return
    case 'success':
      output.write(`${successText(reply.value, response.affected)}\n`)
      return
    case 'count':
      output.write(`(integer) ${reply.value}\n`)
      return
    case 'list':
      output.write(`${listText(reply.value.list)}\n${cursorText(response.cursor)}`)
      return
    case 'map':
      for (const [name, values] of Object.entries(reply.value.map)) {
        output.write(`${name}\n${listText(values.list)}\n`)
      }
      return
  }
}

/** Where a scan goes on, as it is typed into the next call; the end says so. Bytes that are no such text are in quotes. */
function cursorText(cursor: Uint8Array | undefined): string {
  if (cursor === undefined || cursor.byteLength === 0) return ''
  const text = utf8Of(cursor)
  if (text === '0') return 'cursor 0: the end\n'
  return `cursor ${text !== undefined && /^[\w.-]+$/.test(text) ? text : quoted(cursor)}\n`
}

/** HSET answers whether it was done, and how many fields are new beside it: people know it by the number. */
function successText(success: boolean, affected: bigint | undefined): string {
  if (!success) return '(nil)'
  return affected === undefined ? 'OK' : `(integer) ${affected}`
}

/** undefined in lists of values; an empty field of a hash is a field. */
function keyOf(item: KeyValue): Uint8Array | undefined {
  if (item.keyBytes.byteLength > 0) return item.keyBytes
  return item.key === undefined ? undefined : Buffer.from(item.key)
}

function listText(items: readonly KeyValue[]): string {
  if (items.length === 0) return '(empty list)'
  const width = String(items.length).length
  const lines = items.map((item, place) => {
    const key = keyOf(item)
    const number = String(place + 1).padStart(width)
    if (item.value === undefined) return `${number}) ${key === undefined ? '(nil)' : quoted(key)}`
    if (key === undefined) return `${number}) ${quoted(item.value)}`
    return `${number}# ${quoted(key)} => ${quoted(item.value)}`
  })
  return lines.join('\n')
}

/** `{type, reply, revision, …}`: what a tool needs to tell one reply from another without guessing. */
export function replyJson(response: CommandResponse): Record<string, unknown> {
  const reply = response.response
  const revision = Number(response.revision)
  switch (reply?.$case) {
    case undefined:
      return { type: 'nil', reply: null, revision }
    case 'value':
      return { type: 'value', reply: jsonOf(reply.value), revision }
    case 'success':
      return {
        type: 'success',
        reply: reply.value,
        ...(response.affected === undefined ? {} : { affected: Number(response.affected) }),
        revision,
      }
    case 'count':
      return { type: 'count', reply: Number(reply.value), revision }
    case 'list':
      return {
        type: 'list',
        reply: reply.value.list.map(itemJson),
        ...(response.cursor !== undefined && response.cursor.byteLength > 0
          ? { cursor: jsonOf(response.cursor) }
          : {}),
        revision,
      }
    case 'map': {
      const map = Object.entries(reply.value.map).map(([name, values]) => [name, values.list.map(itemJson)])
      return { type: 'map', reply: Object.fromEntries(map), revision }
    }
  }
}

function itemJson(item: KeyValue): unknown {
  const key = keyOf(item)
  if (key === undefined) return item.value === undefined ? null : jsonOf(item.value)
  return item.value === undefined ? { key: jsonOf(key) } : { key: jsonOf(key), value: jsonOf(item.value) }
}

export function printJson(output: Output, value: unknown): void {
  output.write(`${JSON.stringify(value)}\n`)
}

// --- Tables and figures ---------------------------------------------------------------------------------------------

/** Columns without frames: it can be read, and cut by tools. */
export function table(
  colors: Colors,
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const grid = new Table({
    head: head.map(each => colors.bold(each)),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    chars: Object.fromEntries(frame.map(part => [part, ''])),
  })
  for (const row of rows) grid.push(row.map(String))
  return grid
    .toString()
    .split('\n')
    .map(line => line.trimEnd())
    .join('\n')
}

const frame = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
]

/** `1.5 MiB`: three digits at most, for people. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

export function secondsText(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)}s`
  if (seconds < 3_600)
    return `${Math.floor(seconds / 60)}m${String(Math.floor(seconds % 60)).padStart(2, '0')}s`
  return `${Math.floor(seconds / 3_600)}h${String(Math.floor((seconds % 3_600) / 60)).padStart(2, '0')}m`
}
