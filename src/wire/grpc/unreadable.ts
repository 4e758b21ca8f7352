/** What is answered where bytes came that are no request. */
import { RoundhouseError } from '../../errors.ts'
import type { Unreadable } from '../../lib/grpc-reader.ts'

export function notOneMessage(): RoundhouseError {
  const accepted = 'one gRPC message: 0, its length in 4 bytes, its bytes'
  return new RoundhouseError('INVALID_ARGUMENT', { what: 'request', accepted })
}

export function unreadable(why: Unreadable): RoundhouseError {
  return why === 'compressed'
    ? notOneMessage()
    : new RoundhouseError('TOO_LARGE', { what: 'request', ...why })
}
