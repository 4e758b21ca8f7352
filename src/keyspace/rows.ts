import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { RowStore } from './row-store.ts'

/**
 * The rows of a shard: how keys, fields, expiry and the rest become ordered row keys and row values. Everything a
 * replica knows is one of these; the first char of a row key is its namespace. Numbers in row keys are eight bytes,
 * big-endian, so that the order of rows is the order of numbers.
 *
 * ```
 *  row key                         value
 *  'c' clock                       log clock ms(8) revision(8)
 *  'c' keys | sessions             how many there are (8)
 *  'e' due(8) 'f' key              –   the hash's earliest field expiry, or earlier
 *  'e' due(8) 'k' key              –   the key's expiry
 *  'e' due(8) 's' session(16)      –   see sessions.ts
 *  'f' generation(12) field        flags(1) [expiry ms(8)] value
 *  'g' generation(12)              –   a hash that is gone: its 'f' and 'x' rows are swept
 *  'k' key                         header: type(1) flags(1) revision(8) [expiry ms(8)], then by type
 *                                    string: the value
 *                                    hash:   generation(12) fields(4) expiring fields(4) fields due ms(8)
 *  'm' …                           the meta shard's register
 *  's' …                           sessions, see sessions.ts
 *  'x' generation(12) due(8) field –   a field's own expiry, in order within its hash
 * ```
 *
 * A *generation* names one life of a hash: the Raft index at which it was born and a counter within that entry. Fields
 * hang on it and not on the key, so a hash of any size is deleted by its header and one garbage row, a new hash of the
 * same name shares nothing with the old one, and a field's row does not repeat its key (kvrocks' versions and TiKV's
 * delete-range serve the same end).
 *
 * Only a hash's earliest field expiry stands in the shared index 'e'; the others wait in 'x' (Redis 7.4 does the same),
 * so that deleting a hash leaves no more than one row there to delete.
 */
export const prefixes = {
  clock: 'c',
  due: 'e',
  field: 'f',
  garbage: 'g',
  header: 'k',
  meta: 'm',
  session: 's',
  fieldDue: 'x',
} as const

export const systemRows = {
  clock: prefixes.clock + 'clock',
  keys: prefixes.clock + 'keys',
  sessions: prefixes.clock + 'sessions',
} as const

/** The types of values, by the byte in the header. 3–6 are kept for list, set, zset and stream. */
export const typeBytes = { string: 1, hash: 2, list: 3, set: 4, zset: 5, stream: 6 } as const

export const emptyRow: Bytes = new Uint8Array(0)

// --- Numbers ----------------------------------------------------------------------------------------------------------

/** A safe integer ≥ 0 as eight chars, big-endian. */
export function numberKey(value: number): string {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} in a row key`)
  const high = Math.floor(value / 2 ** 32)
  return uint32Key(high) + uint32Key(value % 2 ** 32)
}

function uint32Key(value: number): string {
  return String.fromCharCode(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
}

export function readNumberKey(key: string, position: number): number {
  let value = 0
  for (let i = 0; i < 8; i++) value = value * 256 + key.charCodeAt(position + i)
  return value
}

function writeUint32(bytes: Uint8Array, position: number, value: number): void {
  bytes[position] = value >>> 24
  bytes[position + 1] = value >>> 16
  bytes[position + 2] = value >>> 8
  bytes[position + 3] = value
}

function readUint32(bytes: Bytes, position: number): number {
  return (
    bytes[position]! * 2 ** 24 +
    ((bytes[position + 1]! << 16) | (bytes[position + 2]! << 8) | bytes[position + 3]!)
  )
}

/** A safe integer ≥ 0 in eight bytes, big-endian. */
export function writeNumber(bytes: Uint8Array, position: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, `${value} in a row`)
  writeUint32(bytes, position, Math.floor(value / 2 ** 32))
  writeUint32(bytes, position + 4, value % 2 ** 32)
}

export function readNumber(bytes: Bytes, position: number): number {
  return readUint32(bytes, position) * 2 ** 32 + readUint32(bytes, position + 4)
}

/** A system row that counts something; none is 0. */
export function readCount(rows: RowStore, key: string): number {
  const bytes = rows.get(key)
  return bytes === undefined ? 0 : readNumber(bytes, 0)
}

export function writeCount(rows: RowStore, key: string, count: number): void {
  const bytes = new Uint8Array(8)
  writeNumber(bytes, 0, count)
  rows.put(key, bytes)
}

// --- Keys -------------------------------------------------------------------------------------------------------------

export type DueKind = 'fields' | 'key' | 'session'
const dueChars = { fields: 'f', key: 'k', session: 's' } as const

export function dueKey(dueMs: number, kind: DueKind, name: string): string {
  return prefixes.due + numberKey(dueMs) + dueChars[kind] + name
}

/** The range of what is due at `nowMs` or before. */
export function dueRange(nowMs: number): readonly [from: string, to: string] {
  return [prefixes.due, prefixes.due + numberKey(nowMs + 1)]
}

export function parseDueKey(row: string): { dueMs: number; kind: DueKind; name: string } {
  const char = row[9]
  const kind = char === 'k' ? 'key' : char === 'f' ? 'fields' : 'session'
  assert(dueChars[kind] === char, `due row of kind ${JSON.stringify(char)}`)
  return { dueMs: readNumberKey(row, 1), kind, name: row.slice(10) }
}

/** The smallest row key that is greater than all that begin with `prefix`: a latin1 string again, as stores want it. */
export function endOf(prefix: string): string {
  let length = prefix.length
  while (prefix.charCodeAt(length - 1) === 0xff) length--
  return prefix.slice(0, length - 1) + String.fromCharCode(prefix.charCodeAt(length - 1) + 1)
}

// --- Headers ----------------------------------------------------------------------------------------------------------

export type Header = StringHeader | HashHeader

export interface StringHeader {
  readonly type: 'string'
  /** Raft index of the entry that changed the key last. */
  revision: number
  /** Absolute, ms since 1970 by the log clock; null = never. */
  expiresAtMs: number | null
  value: Bytes
}

export interface HashHeader {
  readonly type: 'hash'
  revision: number
  expiresAtMs: number | null
  /** 12 chars: names this life of the hash. */
  readonly generation: string
  /** Number of 'f' rows, expired ones that were not swept among them. */
  fields: number
  /** Number of 'x' rows: fields with an expiry of their own. */
  expiringFields: number
  /** Where the hash's 'f' row stands in the due index: at or before its earliest field expiry. 0 = none. */
  fieldsDueMs: number
}

const flagExpires = 1
const fixedBytes = 10
const generationBytes = 12
const hashBytes = generationBytes + 4 + 4 + 8

export function encodeHeader(header: Header): Bytes {
  const bodyBytes = header.type === 'string' ? header.value.byteLength : hashBytes
  const at = fixedBytes + (header.expiresAtMs === null ? 0 : 8)
  const bytes = new Uint8Array(at + bodyBytes)
  bytes[0] = typeBytes[header.type]
  bytes[1] = header.expiresAtMs === null ? 0 : flagExpires
  writeNumber(bytes, 2, header.revision)
  if (header.expiresAtMs !== null) writeNumber(bytes, fixedBytes, header.expiresAtMs)
  if (header.type === 'string') {
    bytes.set(header.value, at)
    return bytes
  }
  for (let i = 0; i < generationBytes; i++) bytes[at + i] = header.generation.charCodeAt(i)
  writeUint32(bytes, at + 12, header.fields)
  writeUint32(bytes, at + 16, header.expiringFields)
  writeNumber(bytes, at + 20, header.fieldsDueMs)
  return bytes
}

export function decodeHeader(bytes: Bytes): Header {
  const expires = (bytes[1]! & flagExpires) !== 0
  const at = fixedBytes + (expires ? 8 : 0)
  const revision = readNumber(bytes, 2)
  const expiresAtMs = expires ? readNumber(bytes, fixedBytes) : null
  if (bytes[0] === typeBytes.string)
    return { type: 'string', revision, expiresAtMs, value: bytes.subarray(at) }
  assert(
    bytes[0] === typeBytes.hash && bytes.byteLength === at + hashBytes,
    `header of type ${bytes[0]} with ${bytes.byteLength} bytes`,
  )
  let generation = ''
  for (let i = 0; i < generationBytes; i++) generation += String.fromCharCode(bytes[at + i]!)
  return {
    type: 'hash',
    revision,
    expiresAtMs,
    generation,
    fields: readUint32(bytes, at + 12),
    expiringFields: readUint32(bytes, at + 16),
    fieldsDueMs: readNumber(bytes, at + 20),
  }
}

/** `birth` counts the hashes born in the entry at `index`. */
export function generationOf(index: number, birth: number): string {
  return numberKey(index) + uint32Key(birth)
}

// --- Fields -----------------------------------------------------------------------------------------------------------

export interface FieldRow {
  readonly value: Bytes
  readonly expiresAtMs: number | null
}

export function encodeField(value: Bytes, expiresAtMs: number | null): Bytes {
  const at = expiresAtMs === null ? 1 : 9
  const bytes = new Uint8Array(at + value.byteLength)
  bytes[0] = expiresAtMs === null ? 0 : flagExpires
  if (expiresAtMs !== null) writeNumber(bytes, 1, expiresAtMs)
  bytes.set(value, at)
  return bytes
}

export function decodeField(bytes: Bytes): FieldRow {
  return (bytes[0]! & flagExpires) === 0
    ? { value: bytes.subarray(1), expiresAtMs: null }
    : { value: bytes.subarray(9), expiresAtMs: readNumber(bytes, 1) }
}
