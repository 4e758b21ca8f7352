import { RoundhouseError } from '../errors.ts'
import { type Bytes, fromLatin1, quote, toLatin1 } from '../lib/bytes.ts'

/** Redis's integers: 64 bits, signed, exact. */
export const int64Min = -(2n ** 63n)
export const int64Max = 2n ** 63n - 1n

/** One spelling a number: no sign but `-`, no spaces, no leading zeros, no `-0`; undefined for all else and beyond 64 bits. */
export function parseInt64(bytes: Bytes): bigint | undefined {
  if (bytes.byteLength === 0 || bytes.byteLength > 20) return undefined
  const text = toLatin1(bytes)
  if (!/^(0|-?[1-9][0-9]*)$/.test(text)) return undefined
  const value = BigInt(text)
  return value < int64Min || value > int64Max ? undefined : value
}

/** Throws NOT_INTEGER. */
export function parseAmount(text: Bytes): bigint {
  const amount = parseInt64(text)
  if (amount === undefined) throw new RoundhouseError('NOT_INTEGER', { what: quote(text) })
  return amount
}

/** Like `parseInt64`, for numbers that must be safe integers; undefined for all else. */
export function parseSafeInteger(bytes: Bytes): number | undefined {
  const value = parseInt64(bytes)
  return value === undefined ? undefined : safe(value)
}

function safe(value: bigint): number | undefined {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : undefined
}

/** Throws OVERFLOW. */
export function addExact(value: bigint, by: bigint): bigint {
  const sum = value + by
  if (sum < int64Min || sum > int64Max) throw new RoundhouseError('OVERFLOW', { what: `${value} and ${by}` })
  return sum
}

/** As a reply holds it: a number where that is exact, a bigint beyond. */
export function countOf(value: bigint): number | bigint {
  return safe(value) ?? value
}

export function integerBytes(value: bigint | number): Bytes {
  return fromLatin1(value.toString())
}
