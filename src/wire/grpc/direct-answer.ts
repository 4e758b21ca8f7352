/** Header blocks of answers: the same bytes for all callers, whatever came before. */

import { encodeHeaders, type HeaderList } from '../../http2/hpack.ts'
import type { GrpcStatus } from '../../peer/status.ts'

const answerFields = [':status', '200', 'content-type', 'application/grpc+proto']

export const answerHeaders = encodeHeaders(answerFields)
export const okTrailers = encodeHeaders(['grpc-status', '0', 'grpc-message', 'OK'])

/** Trailers that tell what went wrong. */
export function statusTrailers(status: GrpcStatus): Buffer {
  return encodeHeaders(statusFields(status))
}

/** The same where nothing else was answered. */
export function statusAlone(status: GrpcStatus): Buffer {
  return encodeHeaders([...answerFields, ...statusFields(status)])
}

function statusFields({ code, details, metadata }: GrpcStatus): HeaderList {
  const more = Object.entries(metadata.toHttp2Headers()).flatMap(([name, value]) =>
    [value].flat().flatMap(each => [name, String(each)]),
  )
  return ['grpc-status', String(code), 'grpc-message', encodeURI(details), ...more]
}
