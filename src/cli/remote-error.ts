/**
 * What a node answered instead of a reply. A definite refusal carries google.rpc.ErrorInfo in its details; a status
 * without one was made by gRPC itself, and then nobody knows how far the call had come.
 */
import { type ServiceError, status } from '@grpc/grpc-js'
import { isErrorCode, RemoteError, RoundhouseError } from '../errors.ts'
import { errorInfoOf } from '../lib/error-info.ts'

/** What the logs that Roundhouse replaces answer for an offset that they do not have; gRPC knows no such status. */
const plainLogOutOfRange: number = 404

/** The error behind a failed call to `address`. `afterMs`: how long it had been given. */
export function errorOf(
  failure: ServiceError,
  address: string,
  afterMs: number,
): RemoteError | RoundhouseError {
  const info = errorInfoOf(failure.metadata)
  if (info !== null && isErrorCode(info.reason)) {
    return new RemoteError(info.reason, failure.details, info.leader === '' ? null : info.leader)
  }
  switch (failure.code) {
    case status.DEADLINE_EXCEEDED:
      return new RoundhouseError('DEADLINE', { afterMs, what: `${address} did not answer` })
    case status.UNIMPLEMENTED:
      return new RoundhouseError('INVALID_ARGUMENT', {
        what: `node ${address}, which does not know this call`,
        accepted: 'the address of a Roundhouse node of this version',
      })
    case status.OUT_OF_RANGE:
    case plainLogOutOfRange:
      return new RemoteError('OFFSET_OUT_OF_RANGE', failure.details)
    default:
      return new RoundhouseError('OUTCOME_UNKNOWN', {
        why: `the call to ${address} broke off (${status[failure.code]}: ${failure.details})`,
      })
  }
}
