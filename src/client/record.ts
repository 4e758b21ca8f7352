/** Records as people give and get them, and as they travel. */
import type { Record as WireRecord } from '../gen/log/v1/log.ts'
import { toBytes } from './input.ts'
import type { Decode } from './reply.ts'
import type { Input } from './table.ts'

export type HeadersInput = Readonly<Record<string, Input>> | Iterable<readonly [name: string, value: Input]>

export interface RecordOptions {
  /** Records of one key are in one partition, in order. */
  readonly key?: Input
  readonly headers?: HeadersInput
  /** Whatever it means to you: 0 to 2^32 - 1. */
  readonly type?: number
}

export interface NewRecord extends RecordOptions {
  readonly value: Input
}

/** A record as it is read. */
export interface StreamRecord<Data> {
  readonly partition: number
  readonly offset: number
  readonly value: Data
  readonly key: Data | null
  /** In the order in which they were given; a name may come twice. */
  readonly headers: readonly (readonly [name: string, value: Data])[]
  readonly type: number
  /** By the clock of the partition's shard, ms since 1970; never less than that of the record before. */
  readonly timestampMs: number
}

/** What a record costs beside its bytes, about. */
const recordBytes = 64

/** Throws TypeError. `where` is for its message. */
export function wireRecord(given: Input | NewRecord, common: RecordOptions, where: string): WireRecord {
  const record: NewRecord =
    typeof given === 'object' && given !== null && !(given instanceof Uint8Array) ? given : { value: given }
  const { value, key = common.key, headers = common.headers, type = common.type ?? 0 } = record
  if (!Number.isInteger(type) || type < 0 || type > 0xffff_ffff)
    throw new TypeError(
      `${where}: type: an integer from 0 to ${0xffff_ffff} is accepted, not ${String(type)}`,
    )
  return {
    value: toBytes(value, `${where}: value`),
    offset: 0n,
    term: 0n,
    type,
    key: key === undefined ? undefined : toBytes(key, `${where}: key`),
    headers: headers === undefined ? [] : wireHeaders(headers, where),
    timestampMs: 0n,
    crc: undefined,
  }
}

function wireHeaders(headers: HeadersInput, where: string): WireRecord['headers'] {
  const pairs = Symbol.iterator in headers ? [...headers] : Object.entries(headers)
  return pairs.map(([name, value]) => ({ name, value: toBytes(value, `${where}: header ${name}`) }))
}

/** Of memory and of the wire, about. */
export function bytesOf({ value, key, headers }: WireRecord): number {
  let bytes = recordBytes + value.byteLength + (key?.byteLength ?? 0)
  for (const header of headers) bytes += recordBytes + header.name.length + header.value.byteLength
  return bytes
}

export function readRecord<Data>(
  { value, offset, key, headers, type, timestampMs }: WireRecord,
  partition: number,
  decode: Decode<Data>,
): StreamRecord<Data> {
  return {
    partition,
    offset: Number(offset),
    value: decode(value),
    key: key === undefined ? null : decode(key),
    headers: headers.map(header => [header.name, decode(header.value)] as const),
    type,
    timestampMs: Number(timestampMs),
  }
}
