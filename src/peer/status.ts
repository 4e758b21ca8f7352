/**
 * An error as a gRPC status and back: the code by the error's *kind*, the text as it is, and google.rpc.ErrorInfo (reason
 * = the error's code, metadata leader = where to go) in the details, so that nobody has to match on text.
 */
import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { type ErrorKind, isError, isErrorCode, RemoteError, RoundhouseError } from '../errors.ts'
import { errorInfoOf, statusDetailsKey } from '../lib/error-info.ts'
import { encodeRichStatus } from './rich-status.ts'

const codeOfKind = {
  invalid: status.INVALID_ARGUMENT,
  precondition: status.FAILED_PRECONDITION,
  out_of_range: status.OUT_OF_RANGE,
  unavailable: status.UNAVAILABLE,
  outcome_unknown: status.DEADLINE_EXCEEDED,
  exhausted: status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  denied: status.PERMISSION_DENIED,
  data_loss: status.DATA_LOSS,
} as const satisfies Record<ErrorKind, status>

/** Trailers have a size limit in most clients (8 KiB upwards), and a text may quote what a client sent. */
const textCharsMax = 1024
const cursorCharsMax = 2048

export interface ErrorFacts {
  /** Empty: unexpected, a fault of this program. */
  readonly code: string
  readonly text: string
  /** host:port of the leader; empty when unknown or no matter. */
  readonly leader: string
  readonly status: status
}

/** What every wire form of an error is made from. The text of an unexpected one stays inside. */
export function factsOf(error: unknown): ErrorFacts {
  if (!(error instanceof RoundhouseError || error instanceof RemoteError)) {
    return {
      code: '',
      text: 'internal error: this node logged the cause',
      leader: '',
      status: status.INTERNAL,
    }
  }
  return {
    code: error.code,
    text: wellFormed(error.message),
    leader: leaderOf(error),
    status: codeOfKind[error.kind],
  }
}

export function isExpected(error: unknown): boolean {
  return error instanceof RoundhouseError || error instanceof RemoteError
}

export interface GrpcStatus {
  readonly code: status
  readonly details: string
  readonly metadata: Metadata
}

export function statusOf(error: unknown): GrpcStatus {
  const facts = factsOf(error)
  const metadata = new Metadata()
  if (facts.code !== '') {
    const details = {
      reason: facts.code,
      metadata: {
        ...(facts.leader === '' ? {} : { leader: facts.leader }),
        ...rangeOf(error),
        ...cursorOf(error),
      },
      ...(facts.code === 'OFFSET_OUT_OF_RANGE' ? { localized: facts.text } : {}),
    }
    metadata.set(statusDetailsKey, encodeRichStatus(facts.status, facts.text, details))
  }
  return { code: facts.status, details: facts.text, metadata }
}

/** Which offsets there are, for who asked for another. */
function rangeOf(error: unknown): Readonly<Record<string, string>> {
  if (!isError(error, 'OFFSET_OUT_OF_RANGE')) return {}
  const { offset, start, end } = error.facts
  return { offset: String(offset), start: String(start), end: String(end) }
}

/** Where a watch may go on; a long one is in the last message of the call alone. */
function cursorOf(error: unknown): Readonly<Record<string, string>> {
  if (!isError(error, 'COMPACTED') || error.facts.cursor.length > cursorCharsMax) return {}
  return { cursor: error.facts.cursor }
}

function leaderOf(error: RoundhouseError | RemoteError): string {
  if (error instanceof RemoteError) return error.leaderAddress ?? ''
  return isError(error, 'NOT_LEADER') ? (error.facts.address ?? '') : ''
}

/** Short, and without lone surrogates: grpc-js percent-encodes the text and would throw on one. */
function wellFormed(text: string): string {
  const short = text.length > textCharsMax ? `${text.slice(0, textCharsMax)}…` : text
  return Buffer.from(short, 'utf8').toString('utf8')
}

/** What the callee itself said; null where the status was made on the way or comes from a version that knows more codes. */
export function remoteErrorOf(error: ServiceError): RemoteError | null {
  const info = errorInfoOf(error.metadata)
  if (info === null || !isErrorCode(info.reason)) return null
  return new RemoteError(info.reason, error.details, info.leader === '' ? null : info.leader)
}
