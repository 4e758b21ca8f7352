import { assert } from '../lib/assert.ts'
import { ByteReader } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import type { Bytes } from '../lib/bytes.ts'
import { type Strategy, strategies } from './assignment.ts'
import { numberKey, prefixes, readNumberKey } from './rows.ts'

/**
 * A consumer group as rows; what they mean stands in groups.ts.
 *
 * ```
 *  'o' 'g' name                      life(12), strategy(1), flags(1: bit 0 grace, bit 1 empty since follows), generation,
 *                                    filed ms, members, offsets, [empty since ms],
 *                                    streams: their number, each: difference to the last id, partitions
 *  'o' 'm' name 0 member             generation, joined ms, revoked ms (0 = nothing is),
 *                                    reads:   number of streams, each as above
 *                                    holds:   number, each: stream, partition, from, to (0 = open)
 *                                    awaits:  number, each: stream, partition
 *  'o' 'b' name 0 member             last heartbeat ms, timeout ms: apart, since most heartbeats change nothing else
 *  'f' life(12) stream(8) partition(8)   offset, generation, committed ms
 *  'e' filed(8) 'o' name             when the sweep looks at the group
 * ```
 * Numbers without a width are varints; lists are in the order of (stream, partition). A name has no control characters,
 * so the 0 ends it. Offsets hang on a life of the group as a collection's elements do: a group that goes leaves one row
 * of garbage.
 */
export const groupKeys = {
  group: (name: string) => `${prefixes.group}g${name}`,
  groups: `${prefixes.group}g`,
  members: (name: string) => `${prefixes.group}m${name}\0`,
  beats: (name: string) => `${prefixes.group}b${name}\0`,
  offsets: (life: string) => prefixes.field + life,
} as const

export interface Subscription {
  /** Of the catalogue, never reused. */
  readonly stream: number
  /** How many the stream has, as the member was told. */
  readonly partitions: number
}

export interface Partition {
  readonly stream: number
  readonly partition: number
}

/** A member has the partition in the generations from ≤ g < to; null: until further notice. */
export interface Holding extends Partition {
  from: number
  to: number | null
}

export interface GroupRow {
  readonly life: string
  strategy: Strategy
  generation: number
  /** Where the group stands in the due index. */
  filedMs: number
  /** The sweep came late and gave the members time to be heard. */
  isGraced: boolean
  members: number
  /** Partitions with a committed offset. */
  offsets: number
  /** null while there are members. */
  emptySinceMs: number | null
  /** What the members read, all together, by stream. */
  streams: readonly Subscription[]
}

export interface MemberRow {
  /** The last one whose revocations it has carried out. */
  generation: number
  joinedMs: number
  /** Since when it has something to give up; null = it has not. */
  revokedMs: number | null
  reads: readonly Subscription[]
  /** By `partitionKey`. */
  readonly holds: Map<string, Holding>
  /** What others have to give up first. */
  readonly awaits: Map<string, Partition>
}

export interface Beat {
  readonly lastMs: number
  readonly timeoutMs: number
}

export interface OffsetRow {
  readonly offset: number
  /** The group's at the commit. */
  readonly generation: number
  readonly committedMs: number
}

export function partitionKey({ stream, partition }: Partition): string {
  return numberKey(stream) + numberKey(partition)
}

export function readPartitionKey(key: string, position: number): Partition {
  return { stream: readNumberKey(key, position), partition: readNumberKey(key, position + 8) }
}

const flagGraced = 1
const flagEmpty = 2

export function encodeGroup(row: GroupRow): Bytes {
  const writer = new ByteWriter(64 + row.streams.length * 4)
  for (let i = 0; i < row.life.length; i++) writer.byte(row.life.charCodeAt(i))
  writer.byte(strategies.indexOf(row.strategy))
  writer.byte((row.isGraced ? flagGraced : 0) | (row.emptySinceMs === null ? 0 : flagEmpty))
  for (const number of [row.generation, row.filedMs, row.members, row.offsets]) writer.varint(number)
  if (row.emptySinceMs !== null) writer.varint(row.emptySinceMs)
  writeSubscriptions(writer, row.streams)
  return writer.finish()
}

export function decodeGroup(bytes: Bytes): GroupRow {
  const reader = new ByteReader(bytes)
  const life = String.fromCharCode(...reader.raw(12))
  const strategy = strategies[reader.byte()]
  assert(strategy !== undefined, 'group with a strategy that is not known')
  const flags = reader.byte()
  const row: GroupRow = {
    life,
    strategy,
    generation: reader.varint(),
    filedMs: reader.varint(),
    isGraced: (flags & flagGraced) !== 0,
    members: reader.varint(),
    offsets: reader.varint(),
    emptySinceMs: (flags & flagEmpty) === 0 ? null : reader.varint(),
    streams: readSubscriptions(reader),
  }
  reader.end()
  return row
}

export function encodeMember(row: MemberRow): Bytes {
  const { reads, holds, awaits } = row
  const writer = new ByteWriter(32 + reads.length * 4 + holds.size * 8 + awaits.size * 4)
  for (const number of [row.generation, row.joinedMs, row.revokedMs ?? 0]) writer.varint(number)
  writeSubscriptions(writer, reads)
  writer.varint(holds.size)
  for (const { stream, partition, from, to } of inOrder(holds))
    for (const number of [stream, partition, from, to ?? 0]) writer.varint(number)
  writer.varint(awaits.size)
  for (const { stream, partition } of inOrder(awaits)) {
    writer.varint(stream)
    writer.varint(partition)
  }
  return writer.finish()
}

export function decodeMember(bytes: Bytes): MemberRow {
  const reader = new ByteReader(bytes)
  const row: MemberRow = {
    generation: reader.varint(),
    joinedMs: reader.varint(),
    revokedMs: reader.varint() || null,
    reads: readSubscriptions(reader),
    holds: new Map(),
    awaits: new Map(),
  }
  for (let left = reader.varint(); left > 0; left--) {
    const partition = { stream: reader.varint(), partition: reader.varint() }
    const from = reader.varint()
    const to = reader.varint()
    row.holds.set(partitionKey(partition), { ...partition, from, to: to === 0 ? null : to })
  }
  for (let left = reader.varint(); left > 0; left--) {
    const partition = { stream: reader.varint(), partition: reader.varint() }
    row.awaits.set(partitionKey(partition), partition)
  }
  reader.end()
  return row
}

export function encodeBeat({ lastMs, timeoutMs }: Beat): Bytes {
  const writer = new ByteWriter(16)
  writer.varint(lastMs)
  writer.varint(timeoutMs)
  return writer.finish()
}

export function decodeBeat(bytes: Bytes): Beat {
  const reader = new ByteReader(bytes)
  const beat = { lastMs: reader.varint(), timeoutMs: reader.varint() }
  reader.end()
  return beat
}

export function encodeOffset({ offset, generation, committedMs }: OffsetRow): Bytes {
  const writer = new ByteWriter(24)
  for (const number of [offset, generation, committedMs]) writer.varint(number)
  return writer.finish()
}

export function decodeOffset(bytes: Bytes): OffsetRow {
  const reader = new ByteReader(bytes)
  const row = { offset: reader.varint(), generation: reader.varint(), committedMs: reader.varint() }
  reader.end()
  return row
}

/** What is filed under `partitionKey`, by stream and partition. */
export function inOrder<Kind>(filed: ReadonlyMap<string, Kind>): Kind[] {
  return [...filed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value)
}

function writeSubscriptions(writer: ByteWriter, streams: readonly Subscription[]): void {
  writer.varint(streams.length)
  let last = 0
  for (const { stream, partitions } of streams) {
    writer.varint(stream - last)
    writer.varint(partitions)
    last = stream
  }
}

function readSubscriptions(reader: ByteReader): Subscription[] {
  const streams: Subscription[] = []
  let stream = 0
  for (let left = reader.varint(); left > 0; left--) {
    stream += reader.varint()
    streams.push({ stream, partitions: reader.varint() })
  }
  return streams
}
