/**
 * What became of one attempt that brought no reply, and what that means for the call. A node's own refusal carries its
 * code; a status that gRPC made itself says that a call broke off, and then nobody knows how far it had come.
 */
import { type ServiceError, status } from '@grpc/grpc-js'
import { isErrorCode, kindOf } from '../errors.ts'
import type { CommandResponse } from '../gen/clusterpb/cluster.ts'
import { errorInfoOf } from '../lib/error-info.ts'
import type { CallErrorCode } from './call-error.ts'

export interface Failure {
  readonly code: CallErrorCode
  readonly text: string
  /** Empty: not named. */
  readonly leader: string
  /** refused: certainly not applied by this attempt. */
  readonly outcome: 'refused' | 'unknown'
  /**
   * never: the same call would be refused again. now: elsewhere, at once. later: after a pause.
   */
  readonly retry: 'never' | 'now' | 'later'
  /** The replicated state has answered, so what became of earlier attempts is known by it, too. */
  readonly isAnswer: boolean
  /** The node itself said so. */
  readonly isHeard: boolean
}

/** Nothing was sent. */
export function unreachable(address: string, why: string): Failure {
  return {
    code: 'UNREACHABLE',
    text: `cannot reach ${address}: ${why}`,
    leader: '',
    outcome: 'refused',
    retry: 'later',
    isAnswer: false,
    isHeard: false,
  }
}

/** Sent, and nobody knows what became of it. */
export function brokenOff(address: string, why: string): Failure {
  return {
    code: 'UNREACHABLE',
    text: `the call to ${address} broke off (${why})`,
    leader: '',
    outcome: 'unknown',
    retry: 'later',
    isAnswer: false,
    isHeard: false,
  }
}

export function inBandFailure({ code, error, leader }: CommandResponse): Failure {
  return refusal(code, error, leader)
}

export function statusFailure(error: ServiceError, address: string): Failure {
  const info = errorInfoOf(error.metadata)
  if (info !== null) return refusal(info.reason, error.details, info.leader)
  switch (error.code) {
    case status.UNIMPLEMENTED:
      return final(
        'INVALID_ARGUMENT',
        `${address} does not know this call: it is no Roundhouse node, or of another version`,
      )
    case status.RESOURCE_EXHAUSTED:
      return final('TOO_LARGE', error.details)
    case status.INVALID_ARGUMENT:
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return final(status[error.code] ?? 'INVALID_ARGUMENT', error.details)
    default:
      return brokenOff(address, `${status[error.code]}: ${error.details}`)
  }
}

function final(code: CallErrorCode, text: string): Failure {
  return { code, text, leader: '', outcome: 'refused', retry: 'never', isAnswer: false, isHeard: true }
}

function refusal(code: string, text: string, leader: string): Failure {
  const failure = { code, text, leader, isAnswer: false, isHeard: true } as const
  // INTERNAL: a fault of the node, at an unknown point of the call.
  if (!isErrorCode(code))
    return { ...failure, outcome: code === 'INTERNAL' ? 'unknown' : 'refused', retry: 'never' }
  switch (code) {
    case 'NOT_LEADER':
    case 'HOP_LIMIT':
      return { ...failure, outcome: 'refused', retry: leader === '' ? 'later' : 'now' }
    case 'NO_LEADER':
    case 'NO_META_LEADER':
    case 'NOT_READY':
    case 'UNREACHABLE':
    case 'SHUTTING_DOWN':
    case 'QUARANTINED':
    case 'OVERLOADED':
      return { ...failure, outcome: 'refused', retry: 'later' }
    // The node failed or gave up; the others decide. Their answer to the same session and sequence is the truth.
    case 'STORAGE_FAILED':
    case 'OUTCOME_UNKNOWN':
    case 'DEADLINE':
      return { ...failure, outcome: 'unknown', retry: 'later' }
    // Below the mark nothing is applied any more; what an earlier attempt did is forgotten.
    case 'SESSION_STALE':
      return { ...failure, outcome: 'refused', retry: 'never' }
    default: {
      const kind = kindOf(code)
      const isAnswer = kind === 'invalid' || kind === 'precondition' || kind === 'out_of_range'
      return { ...failure, outcome: 'refused', retry: 'never', isAnswer }
    }
  }
}
