import type { Arena } from '../lib/arena.ts'
import { assert, BrokenInvariant } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { RowStore } from './row-store.ts'

/**
 * The rows of a shard: how keys, elements, expiry and the rest become ordered row keys and row values. Everything a
 * replica knows is one of these; the first char of a row key is its namespace. Numbers in row keys are eight bytes,
 * big-endian, so that the order of rows is the order of numbers.
 *
 * ```
 *  row key                         value
 *  'c' clock                       log clock ms(8) revision(8)
 *  'c' keys | sessions | groups    how many there are (8)
 *  'c' groupGeneration             the highest generation of a consumer group that is gone (8)
 *  'c' streams                     which streams are gone, see partitions.ts
 *  'e' due(8) 'f' key              –   the hash's earliest field expiry, or earlier
 *  'e' due(8) 'k' key              –   the key's expiry
 *  'e' due(8) 'o' group            –   see group-rows.ts
 *  'e' due(8) 's' session(16)      –   see sessions.ts
 *  'f' generation(12) element      of a hash: flags(1) [expiry ms(8)] value
 *                                  of a set: –   of a sorted set: score(8, a double)
 *                                  of a consumer group: a committed offset
 *  'g' generation(12)              –   a collection that is gone: all its rows are swept
 *                                  a key: of that list only the rows outside head … tail, which a trim left
 *  'k' key                         header: type(1) flags(1) revision(8) [expiry ms(8)], then by type
 *                                    string: the value
 *                                    hash:   generation(12) fields(4) expiring fields(4) fields due ms(8)
 *                                    list:   generation(12) head(8) tail(8)
 *                                    set:    generation(12) members(4)
 *                                    zset:   generation(12) members(4) root(8) next node(8)
 *  'l' generation(12) position(8)  an element of a list
 *  'm' …                           the meta shard's register
 *  'n' generation(12) node(8)      a node of a sorted set's tree, see counted-tree.ts
 *  'o' …                           consumer groups, see group-rows.ts
 *  'p' stream(8) partition(8)      start(8) end(8) timestamp ms(8) …, see partitions.ts
 *  's' …                           sessions, see sessions.ts
 *  'x' generation(12) due(8) field –   a field's own expiry, in order within its hash
 * ```
 *
 * A *generation* names one life of a collection: the Raft index at which it was born and a counter within that entry.
 * Elements hang on it and not on the key, so a collection of any size is deleted by its header and one garbage row and
 * renamed by its header alone, a new one of the same name shares nothing with the old one, and an element's row does not
 * repeat its key (kvrocks' versions and TiKV's delete-range serve the same end).
 *
 * Only a hash's earliest field expiry stands in the shared index 'e'; the others wait in 'x' (Redis 7.4 does the same),
 * so that deleting a hash leaves no more than one row there to delete.
 */
export const prefixes = {
  clock: 'c',
  due: 'e',
  field: 'f',
  garbage: 'g',
  group: 'o',
  header: 'k',
  element: 'l',
  meta: 'm',
  node: 'n',
  partition: 'p',
  session: 's',
  fieldDue: 'x',
} as const

export const systemRows = {
  clock: prefixes.clock + 'clock',
  keys: prefixes.clock + 'keys',
  sessions: prefixes.clock + 'sessions',
  groups: prefixes.clock + 'groups',
  groupGeneration: prefixes.clock + 'groupGeneration',
  streams: prefixes.clock + 'streams',
} as const

/** The types of values, by the byte in the header. 6 is kept for streams. */
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

export function writeUint32(bytes: Uint8Array, position: number, value: number): void {
  bytes[position] = value >>> 24
  bytes[position + 1] = value >>> 16
  bytes[position + 2] = value >>> 8
  bytes[position + 3] = value
}

export function readUint32(bytes: Bytes, position: number): number {
  return (
    bytes[position]! * 2 ** 24 +
    ((bytes[position + 1]! << 16) | (bytes[position + 2]! << 8) | bytes[position + 3]!)
  )
}

/** A safe integer ≥ 0 in eight bytes, big-endian. */
export function writeNumber(bytes: Uint8Array, position: number, value: number): void {
  // Written by the million: no message is made before it is needed.
  if (!(Number.isSafeInteger(value) && value >= 0)) throw new BrokenInvariant(`${value} in a row`)
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

export type DueKind = 'fields' | 'group' | 'key' | 'session'
const dueChars = { fields: 'f', group: 'o', key: 'k', session: 's' } as const

export function dueKey(dueMs: number, kind: DueKind, name: string): string {
  return prefixes.due + numberKey(dueMs) + dueChars[kind] + name
}

/** The range of what is due at `nowMs` or before. */
export function dueRange(nowMs: number): readonly [from: string, to: string] {
  return [prefixes.due, prefixes.due + numberKey(nowMs + 1)]
}

export function parseDueKey(row: string): { dueMs: number; kind: DueKind; name: string } {
  const char = row[9]
  const kind = char === 'k' ? 'key' : char === 'f' ? 'fields' : char === 'o' ? 'group' : 'session'
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

export type Header = StringHeader | HashHeader | ListHeader | SetHeader | SortedSetHeader

interface CommonHeader {
  /** Raft index of the entry that changed the key last. */
  revision: number
  /** Absolute, ms since 1970 by the log clock; null = never. */
  expiresAtMs: number | null
}

export interface StringHeader extends CommonHeader {
  readonly type: 'string'
  value: Bytes
}

interface CollectionHeader extends CommonHeader {
  /** 12 chars: names this life of the collection. */
  readonly generation: string
}

export interface HashHeader extends CollectionHeader {
  readonly type: 'hash'
  /** Number of 'f' rows, expired ones that were not swept among them. */
  fields: number
  /** Number of 'x' rows: fields with an expiry of their own. */
  expiringFields: number
  /** Where the hash's 'f' row stands in the due index: at or before its earliest field expiry. 0 = none. */
  fieldsDueMs: number
}

export interface ListHeader extends CollectionHeader {
  readonly type: 'list'
  /** Positions of the elements, half-open; both begin in the middle of the safe integers. */
  head: number
  tail: number
}

export interface SetHeader extends CollectionHeader {
  readonly type: 'set'
  members: number
}

export interface SortedSetHeader extends CollectionHeader {
  readonly type: 'zset'
  members: number
  /** Node at the top of the tree; 0 = none. */
  root: number
  /** Nodes are numbered from 1, each number is used once. */
  nextNode: number
}

const flagExpires = 1
const fixedBytes = 10
const generationBytes = 12
/** What follows the generation. */
const bodyBytes = { hash: 4 + 4 + 8, list: 8 + 8, set: 4, zset: 4 + 8 + 8 } as const

/** `arena`: where to take the bytes from. */
export function encodeHeader(header: Header, arena: Arena | null = null): Bytes {
  const length = header.type === 'string' ? header.value.byteLength : generationBytes + bodyBytes[header.type]
  const start = fixedBytes + (header.expiresAtMs === null ? 0 : 8)
  const bytes = arena === null ? new Uint8Array(start + length) : arena.take(start + length)
  bytes[0] = typeBytes[header.type]
  bytes[1] = header.expiresAtMs === null ? 0 : flagExpires
  writeNumber(bytes, 2, header.revision)
  if (header.expiresAtMs !== null) writeNumber(bytes, fixedBytes, header.expiresAtMs)
  if (header.type === 'string') {
    bytes.set(header.value, start)
    return bytes
  }
  for (let i = 0; i < generationBytes; i++) bytes[start + i] = header.generation.charCodeAt(i)
  const at = start + generationBytes
  switch (header.type) {
    case 'hash':
      writeUint32(bytes, at, header.fields)
      writeUint32(bytes, at + 4, header.expiringFields)
      writeNumber(bytes, at + 8, header.fieldsDueMs)
      return bytes
    case 'list':
      writeNumber(bytes, at, header.head)
      writeNumber(bytes, at + 8, header.tail)
      return bytes
    case 'set':
      writeUint32(bytes, at, header.members)
      return bytes
    case 'zset':
      writeUint32(bytes, at, header.members)
      writeNumber(bytes, at + 4, header.root)
      writeNumber(bytes, at + 12, header.nextNode)
      return bytes
  }
}

export function decodeHeader(bytes: Bytes): Header {
  const expires = (bytes[1]! & flagExpires) !== 0
  const start = fixedBytes + (expires ? 8 : 0)
  const revision = readNumber(bytes, 2)
  const expiresAtMs = expires ? readNumber(bytes, fixedBytes) : null
  const type = bytes[0]
  if (type === typeBytes.string)
    return { type: 'string', revision, expiresAtMs, value: bytes.subarray(start) }
  let generation = ''
  for (let i = 0; i < generationBytes; i++) generation += String.fromCharCode(bytes[start + i]!)
  const common = { revision, expiresAtMs, generation }
  const at = start + generationBytes
  const length = bytes.byteLength - at
  if (type === typeBytes.hash && length === bodyBytes.hash)
    return {
      type: 'hash',
      ...common,
      fields: readUint32(bytes, at),
      expiringFields: readUint32(bytes, at + 4),
      fieldsDueMs: readNumber(bytes, at + 8),
    }
  if (type === typeBytes.list && length === bodyBytes.list)
    return { type: 'list', ...common, head: readNumber(bytes, at), tail: readNumber(bytes, at + 8) }
  if (type === typeBytes.set && length === bodyBytes.set)
    return { type: 'set', ...common, members: readUint32(bytes, at) }
  assert(
    type === typeBytes.zset && length === bodyBytes.zset,
    `header of type ${type} with ${bytes.byteLength} bytes`,
  )
  return {
    type: 'zset',
    ...common,
    members: readUint32(bytes, at),
    root: readNumber(bytes, at + 4),
    nextNode: readNumber(bytes, at + 12),
  }
}

// What a header's row says, without all of it being read.

const types = Object.fromEntries(Object.entries(typeBytes).map(([type, byte]) => [byte, type]))

export function typeOfHeader(bytes: Bytes): Header['type'] {
  return types[bytes[0]!] as Header['type']
}

export function revisionOfHeader(bytes: Bytes): number {
  return readNumber(bytes, 2)
}

export function expiryOfHeader(bytes: Bytes): number | null {
  return (bytes[1]! & flagExpires) === 0 ? null : readNumber(bytes, fixedBytes)
}

/** Of a string. A view. */
export function valueOfHeader(bytes: Bytes): Bytes {
  return bytes.subarray((bytes[1]! & flagExpires) === 0 ? fixedBytes : fixedBytes + 8)
}

/** `birth` counts the collections born in the entry at `index`. */
export function generationOf(index: number, birth: number): string {
  return numberKey(index) + uint32Key(birth)
}

// --- Scores -----------------------------------------------------------------------------------------------------------

export function encodeScore(score: number): Bytes {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, score)
  return bytes
}

export function decodeScore(bytes: Bytes): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat64(0)
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
