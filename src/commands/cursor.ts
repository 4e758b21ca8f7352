import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { refuseCursor } from './refusals.ts'

/**
 * Where a scan goes on, as text. It says so by a name and not by a number of something that somebody keeps: shards have
 * their slots for ever and rows are ordered by name, so a cursor holds whatever nodes come, go or forget.
 *
 * ```
 *   0               the beginning; in an answer: the end
 *   12.             SCAN: at the beginning of shard 12
 *   12.dXNlcjox     SCAN: in shard 12, behind the key user:1      (base64url of its bytes, without padding)
 *   .Zmll           HSCAN, SSCAN, ZSCAN: behind the element fie
 * ```
 */
export const scanEnd: Bytes = fromLatin1('0')

export interface KeyCursor {
  readonly shard: number
  /** null = at the shard's beginning. */
  readonly after: Bytes | null
}

export function writeKeyCursor({ shard, after }: KeyCursor): Bytes {
  return fromLatin1(`${shard}.${after === null ? '' : base64url(after)}`)
}

/** Throws INVALID_ARGUMENT. */
export function readKeyCursor(text: Bytes): KeyCursor {
  const chars = toLatin1(text)
  if (chars === '0') return { shard: 0, after: null }
  const [, shard, name] = /^(0|[1-9][0-9]{0,4})\.([A-Za-z0-9_-]*)$/.exec(chars) ?? refuseCursor(text)
  return { shard: Number(shard), after: name === '' ? null : fromBase64url(name!, text) }
}

export function writeElementCursor(after: Bytes): Bytes {
  return fromLatin1(`.${base64url(after)}`)
}

/** null = from the beginning. Throws INVALID_ARGUMENT. */
export function readElementCursor(text: Bytes): Bytes | null {
  const chars = toLatin1(text)
  if (chars === '0') return null
  const [, name] = /^\.([A-Za-z0-9_-]*)$/.exec(chars) ?? refuseCursor(text)
  return fromBase64url(name!, text)
}

function base64url(bytes: Bytes): string {
  return btoa(toLatin1(bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** Only what `base64url` writes: a name has one spelling. */
function fromBase64url(text: string, cursor: Bytes): Bytes {
  if (text.length % 4 === 1) refuseCursor(cursor)
  const bytes = fromLatin1(atob(text.replaceAll('-', '+').replaceAll('_', '/')))
  return base64url(bytes) === text ? bytes : refuseCursor(cursor)
}
