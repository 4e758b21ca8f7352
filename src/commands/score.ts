import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { refuseFloat } from './refusals.ts'

/**
 * Scores as text: doubles, read as C reads decimal numbers (no spaces, no hexadecimal, no NaN; one that is too large or too
 * small for a double is refused, not rounded to inf or 0), written in the fewest digits that give the same double back.
 */
export function parseScore(text: Bytes): number | undefined {
  const chars = toLatin1(text)
  if (/^[+-]?inf(inity)?$/i.test(chars))
    return chars.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  if (!/^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$/i.test(chars)) return undefined
  const score = Number(chars)
  const isNothing = score === 0 && /[1-9]/.test(chars.replace(/e.*$/i, ''))
  return Number.isFinite(score) && !isNothing ? score : undefined
}

/** Throws NOT_FLOAT. */
export function readScore(text: Bytes): number {
  return parseScore(text) ?? refuseFloat(text)
}

export function scoreBytes(score: number): Bytes {
  if (Number.isFinite(score)) return fromLatin1(String(score))
  return fromLatin1(score > 0 ? 'inf' : '-inf')
}
