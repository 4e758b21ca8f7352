import { RoundhouseError } from '../errors.ts'
import type { Target } from '../keyspace/changes.ts'
import { limits } from '../keyspace/limits.ts'
import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import type { WatchWish } from './ports.ts'

/** What a wish for a watch means: what it is of, which shards that may be in, and where in them to begin. */

const braceOpen = 0x7b
const braceClose = 0x7d

/** Throws INVALID_ARGUMENT, EMPTY_KEY, TOO_LARGE. */
export function targetOf(key: Bytes | null, prefix: Bytes | null): Target {
  const given = key ?? prefix
  if (given === null || (key !== null && prefix !== null))
    throw new RoundhouseError('INVALID_ARGUMENT', { what: 'watch', accepted: 'a key or a prefix' })
  if (key !== null && key.byteLength === 0) throw new RoundhouseError('EMPTY_KEY', { command: 'WATCH' })
  if (given.byteLength > limits.keyBytesMax)
    throw new RoundhouseError('TOO_LARGE', {
      what: key === null ? 'prefix' : 'key',
      bytes: given.byteLength,
      max: limits.keyBytesMax,
    })
  return key === null ? { kind: 'prefix', prefix: toLatin1(given) } : { kind: 'key', key: toLatin1(given) }
}

/** A prefix that holds a whole hash tag is in one shard, as are all keys that begin so. */
export function shardsOf(key: Bytes | null, prefix: Bytes | null, shardCount: number): readonly number[] {
  const whole = key ?? (hasHashTag(prefix!) ? prefix : null)
  if (whole !== null) return [shardOfSlot(slotOf(whole), shardCount)]
  return Array.from({ length: shardCount }, (_, shard) => shard)
}

function hasHashTag(prefix: Bytes): boolean {
  const open = prefix.indexOf(braceOpen)
  return open !== -1 && prefix.indexOf(braceClose, open + 1) > open + 1
}

/** Throws INVALID_ARGUMENT. */
export function placesFrom(
  from: NonNullable<WatchWish['from']>,
  shards: readonly number[],
  shardCount: number,
): Map<number, number> {
  const refuse = (what: string, accepted: string): never => {
    throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted })
  }
  if (typeof from === 'number') {
    if (shards.length > 1)
      refuse('revision of a prefix', 'a cursor: each of its shards has revisions of its own')
    return new Map([[shards[0]!, from]])
  }
  for (const shard of from.keys())
    if (shard >= shardCount) refuse(`cursor: shard ${shard}`, `shards 0 to ${shardCount - 1}`)
  const places = new Map<number, number>()
  for (const shard of shards)
    places.set(
      shard,
      from.get(shard) ?? refuse(`cursor: it has no shard ${shard}`, 'all shards of the watch'),
    )
  return places
}
