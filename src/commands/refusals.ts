import { RoundhouseError } from '../errors.ts'
import { type Bytes, quote } from '../lib/bytes.ts'

/** Refusals that several commands share, with Redis's words for them. */

function refuse(what: string, accepted: string): never {
  throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted })
}

export function refuseNoSuchKey(key: Bytes): never {
  refuse(`key ${quote(key)}, no such key`, 'a key that is there')
}

export function refuseIndex(index: number): never {
  refuse(`index ${index}, index out of range`, 'that of an element')
}

export function refuseSameKey(key: Bytes): never {
  refuse(`key ${quote(key)}, source and destination objects are the same`, 'two keys')
}

export function refuseFloat(text: Bytes): never {
  refuse(`number ${quote(text)}, value is not a valid float`, 'such as 1, -0.5, 1e9, inf or -inf')
}

export function refuseScoreBound(text: Bytes): never {
  refuse(`bound ${quote(text)}, min or max is not a float`, 'a score, or ( and a score without it')
}

export function refuseMemberBound(text: Bytes): never {
  refuse(`bound ${quote(text)}, min or max not valid string range item`, '- or +, or [ or ( and a member')
}

export function refuseNotANumber(member: Bytes): never {
  refuse(`increment of ${quote(member)}, resulting score is not a number (NaN)`, 'one that leaves a number')
}

export function refuseNotPositive(text: Bytes): never {
  refuse(`count ${quote(text)}, value is out of range, must be positive`, 'an integer from 0 up')
}

export function refuseHashValue(text: Bytes): never {
  throw new RoundhouseError('NOT_INTEGER', { what: `hash value is not an integer: ${quote(text)}` })
}

export function refuseCursor(text: Bytes): never {
  refuse('cursor', `0 to begin, then what the last page answered, not ${quote(text)}`)
}

export function refuseSyntax(detail: string): never {
  throw new RoundhouseError('SYNTAX', { detail })
}
