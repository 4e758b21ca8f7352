/**
 * What a node's refusal carries beside gRPC's code and text: a google.rpc.Status in the trailer
 * `grpc-status-details-bin`, holding google.rpc.ErrorInfo. Read here by hand, for the node's peers, the CLI and the client:
 *
 *   Status     { 1 code int32 · 2 message string · 3 details repeated Any }
 *   Any        { 1 type_url string · 2 value bytes }
 *   ErrorInfo  { 1 reason string · 2 domain string · 3 metadata map<string, string> }
 */
import { BinaryReader } from '@bufbuild/protobuf/wire'
import type { Metadata } from '@grpc/grpc-js'
import type { Bytes } from './bytes.ts'

export const statusDetailsKey = 'grpc-status-details-bin'
export const errorInfoUrl = 'type.googleapis.com/google.rpc.ErrorInfo'
export const localizedMessageUrl = 'type.googleapis.com/google.rpc.LocalizedMessage'
export const errorDomain = 'roundhouse'

export interface ErrorInfo {
  /** An error code of `errors.ts`, of this version or another one. */
  readonly reason: string
  /** host:port of the leader; empty: not named. */
  readonly leader: string
}

/** The first ErrorInfo of ours; null where there is none: then the status was not made by a node of Roundhouse. */
export function errorInfoOf(metadata: Metadata | undefined): ErrorInfo | null {
  const [raw] = metadata?.get(statusDetailsKey) ?? []
  if (!(raw instanceof Uint8Array)) return null
  try {
    for (const any of fieldsOf(raw).bytes(3)) {
      const detail = fieldsOf(any)
      if (detail.text(1) !== errorInfoUrl) continue
      const info = fieldsOf(detail.bytes(2)[0] ?? new Uint8Array(0))
      if (info.text(2) !== errorDomain) continue
      const leader = info
        .bytes(3)
        .map(fieldsOf)
        .find(pair => pair.text(1) === 'leader')
      return { reason: info.text(1), leader: leader?.text(2) ?? '' }
    }
    return null
  } catch {
    return null
  }
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** All length-delimited fields of a message by number; what has another wire type is skipped. Text must be UTF-8. */
function fieldsOf(message: Bytes): { bytes(field: number): Bytes[]; text(field: number): string } {
  const lengthDelimited = 2
  const reader = new BinaryReader(message)
  const found = new Map<number, Bytes[]>()
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (wireType !== lengthDelimited) {
      reader.skip(wireType, field)
      continue
    }
    const values = found.get(field)
    if (values === undefined) found.set(field, [reader.bytes()])
    else values.push(reader.bytes())
  }
  return {
    bytes: field => found.get(field) ?? [],
    text: field => strict.decode(found.get(field)?.at(-1) ?? new Uint8Array(0)),
  }
}
