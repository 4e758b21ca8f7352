import { crc32 as zlibCrc32 } from 'node:zlib'
import type { Bytes } from './bytes.ts'

/** CRC-32 (ISO-HDLC) of `bytes`, continued from `seed`: an unsigned 32-bit integer. */
export function crc32(bytes: Bytes, seed = 0): number {
  // zlib answers 0 instead of the seed for an empty buffer without memory behind it.
  return bytes.byteLength === 0 ? seed >>> 0 : zlibCrc32(bytes, seed)
}

/** Of the few bytes from `from` to `to`: a call of zlib, and the view for it, would cost more than the sum. */
export function crc32Short(bytes: Bytes, from: number, to: number, seed = 0): number {
  let crc = ~seed
  for (let at = from; at < to; at++) crc = (crc >>> 8) ^ table[(crc ^ bytes[at]!) & 0xff]!
  return ~crc >>> 0
}

/**
 * The sum of one byte string behind another from the sums of both: `first`, and `second`, which is of `bytes` bytes and
 * was begun with 0. As zlib's crc32_combine: what follows multiplies a sum, as a polynomial over GF(2), by x^(8·bytes).
 */
export function crc32Combined(first: number, second: number, bytes: number): number {
  return (product(shiftOf(bytes), first) ^ second) >>> 0
}

/** Reflected, as the sums are: the lowest bit is that of the highest power. */
const polynomial = 0xedb88320 | 0

/** Without a branch, which would be guessed wrong every other time. */
function timesX(factor: number): number {
  return (factor >>> 1) ^ (polynomial & -(factor & 1))
}

const table = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = timesX(crc)
  return crc
})

/** Modulo the polynomial. */
function product(a: number, b: number): number {
  let sum = 0
  let shifted = b | 0
  for (let rest = a | 0; rest !== 0; rest <<= 1) {
    sum ^= shifted & (rest >> 31)
    shifted = timesX(shifted)
  }
  return sum
}

/** x^(8·bytes) for lengths that were asked for; 0: not yet. */
const shifts = new Int32Array(4096)

function shiftOf(bytes: number): number {
  const known = shifts[bytes]
  if (known !== undefined && known !== 0) return known
  let shift = 1 << 31
  // x^8, squared for each bit of the length.
  let power = 1 << 23
  for (let rest = bytes; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) shift = product(power, shift)
    power = product(power, power)
  }
  if (bytes < shifts.length) shifts[bytes] = shift
  return shift
}
