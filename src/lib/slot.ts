/**
 * Where a key lives, first half: key → slot → shard. A slot is Redis Cluster's (CRC16/XMODEM of the hash tag, mod
 * 16384), so that a cluster-aware Redis client finds the place by itself. A shard is a contiguous range of slots, for
 * ever; which nodes hold it is the ring's business. Clients import this file too: it knows nothing but bytes.
 */
import { assert } from './assert.ts'
import type { Bytes } from './bytes.ts'

export const slotCount = 16384
/** Shard counts are powers of two from 1 to here. */
export const shardCountMax = 4096

const braceOpen = 0x7b
const braceClose = 0x7d

/** CRC16/XMODEM: polynomial 0x1021, no reflection, starting at 0. One entry a byte value. */
const crcTable = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
  return crc
})

function crc16(bytes: Bytes, from: number, to: number): number {
  let crc = 0
  for (let i = from; i < to; i++) crc = ((crc << 8) & 0xffff) ^ crcTable[(crc >>> 8) ^ bytes[i]!]!
  return crc
}

/**
 * The part of `key` that is hashed: what stands between the first `{` and the first `}` after it if that is not empty,
 * else the whole key. A view, not a copy.
 */
export function hashTag(key: Bytes): Bytes {
  const open = key.indexOf(braceOpen)
  if (open === -1) return key
  const close = key.indexOf(braceClose, open + 1)
  return close === -1 || close === open + 1 ? key : key.subarray(open + 1, close)
}

/** The slot of `key`: 0 … 16383. */
export function slotOf(key: Bytes): number {
  const tag = hashTag(key)
  return crc16(tag, 0, tag.byteLength) & (slotCount - 1)
}

export function isShardCount(count: number): boolean {
  return Number.isInteger(count) && count >= 1 && count <= shardCountMax && (count & (count - 1)) === 0
}

/** The shard that holds `slot`: 0 … shardCount - 1. */
export function shardOfSlot(slot: number, shardCount: number): number {
  assert(isShardCount(shardCount), `shard count ${shardCount} is no power of two from 1 to ${shardCountMax}`)
  assert(
    Number.isInteger(slot) && slot >= 0 && slot < slotCount,
    `slot ${slot} is outside 0 … ${slotCount - 1}`,
  )
  return Math.floor(slot / (slotCount / shardCount))
}

/** The slots of `shard`, half-open. */
export function slotsOfShard(shard: number, shardCount: number): { from: number; to: number } {
  assert(isShardCount(shardCount), `shard count ${shardCount} is no power of two from 1 to ${shardCountMax}`)
  assert(Number.isInteger(shard) && shard >= 0 && shard < shardCount, `shard ${shard} of ${shardCount}`)
  const width = slotCount / shardCount
  return { from: shard * width, to: (shard + 1) * width }
}
