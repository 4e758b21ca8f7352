/**
 * What a node answered instead of a reply. A definite refusal carries google.rpc.ErrorInfo in its details; a status
 * without one was made by gRPC itself, and then nobody knows how far the call had come.
 */
import { BinaryReader } from '@bufbuild/protobuf/wire'
import { type Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { isErrorCode, RemoteError, RoundhouseError } from '../errors.ts'

/** The error behind a failed call to `address`. `afterMs`: how long it had been given. */
export function errorOf(
  failure: ServiceError,
  address: string,
  afterMs: number,
): RemoteError | RoundhouseError {
  const info = errorInfoOf(failure.metadata)
  if (info !== undefined && isErrorCode(info.reason)) {
    return new RemoteError(info.reason, failure.details, info.leader)
  }
  switch (failure.code) {
    case status.DEADLINE_EXCEEDED:
      return new RoundhouseError('DEADLINE', { afterMs, what: `${address} did not answer` })
    case status.UNIMPLEMENTED:
      return new RoundhouseError('INVALID_ARGUMENT', {
        what: `node ${address}, which does not know this call`,
        accepted: 'the address of a Roundhouse node of this version',
      })
    default:
      return new RoundhouseError('OUTCOME_UNKNOWN', {
        why: `the call to ${address} broke off (${status[failure.code]}: ${failure.details})`,
      })
  }
}

interface ErrorInfo {
  readonly reason: string
  readonly leader: string | null
}

/**
 * The first ErrorInfo in `grpc-status-details-bin`:
 * Status { 3 details: Any { 1 type_url · 2 value: ErrorInfo { 1 reason · 3 metadata: { 1 key · 2 value } } } }
 */
function errorInfoOf(metadata: Metadata | undefined): ErrorInfo | undefined {
  const raw = metadata?.get('grpc-status-details-bin')[0]
  if (!(raw instanceof Uint8Array)) return undefined
  try {
    for (const detail of fieldsOf(raw, 3)) {
      if (!textOf(detail, 1).endsWith('/google.rpc.ErrorInfo')) continue
      const info = fieldsOf(detail, 2)[0]
      if (info === undefined) continue
      const leader = fieldsOf(info, 3).find(pair => textOf(pair, 1) === 'leader')
      return { reason: textOf(info, 1), leader: leader === undefined ? null : textOf(leader, 2) }
    }
  } catch {
    // Not a Status: the peer is no Roundhouse node, and its gRPC status says all there is.
  }
  return undefined
}

function fieldsOf(message: Uint8Array, wanted: number): Uint8Array[] {
  const lengthDelimited = 2
  const reader = new BinaryReader(message)
  const found: Uint8Array[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === wanted && wireType === lengthDelimited) found.push(reader.bytes())
    else reader.skip(wireType, field)
  }
  return found
}

function textOf(message: Uint8Array, field: number): string {
  return Buffer.from(fieldsOf(message, field)[0] ?? []).toString('utf8')
}
