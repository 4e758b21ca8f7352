import { RoundhouseError } from '../errors.ts'
import { type Bytes, quote } from '../lib/bytes.ts'

/** Refusals that several commands share. */

export function refuseNoSuchKey(key: Bytes): never {
  throw new RoundhouseError('NO_SUCH_KEY', { key: quote(key) })
}

export function refuseIndex(index: number): never {
  throw new RoundhouseError('INDEX_OUT_OF_RANGE', { index })
}

export function refuseSameKey(key: Bytes): never {
  throw new RoundhouseError('SAME_KEY', { key: quote(key) })
}

export function refuseFloat(text: Bytes): never {
  throw new RoundhouseError('NOT_FLOAT', { what: quote(text) })
}

export function refuseScoreBound(text: Bytes): never {
  throw new RoundhouseError('NOT_SCORE_BOUND', { what: quote(text) })
}

export function refuseMemberBound(text: Bytes): never {
  throw new RoundhouseError('NOT_MEMBER_BOUND', { what: quote(text) })
}

export function refuseNotANumber(member: Bytes): never {
  throw new RoundhouseError('NOT_A_NUMBER', { what: quote(member) })
}

export function refuseNotPositive(text: Bytes): never {
  throw new RoundhouseError('NOT_POSITIVE', { what: quote(text) })
}

export function refuseHashValue(text: Bytes): never {
  throw new RoundhouseError('HASH_VALUE_NOT_INTEGER', { what: quote(text) })
}

export function refuseCursor(text: Bytes): never {
  throw new RoundhouseError('INVALID_ARGUMENT', {
    what: 'cursor',
    accepted: `0 to begin, then what the last page answered, not ${quote(text)}`,
  })
}

export function refuseSyntax(detail: string): never {
  throw new RoundhouseError('SYNTAX', { detail })
}

/** Where Redis names the very mistake: its words, which clients may look for. */
export function refuseOptions(words: string): never {
  throw new RoundhouseError('SYNTAX', { words })
}
