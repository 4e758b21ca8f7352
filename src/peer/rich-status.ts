/**
 * The error model that gRPC clients know beside code and text: a google.rpc.Status in the trailer
 * `grpc-status-details-bin`, holding google.rpc.ErrorInfo. Three small messages, written and read here by hand:
 *
 *   Status     { 1 code int32 · 2 message string · 3 details repeated Any }
 *   Any        { 1 type_url string · 2 value bytes }
 *   ErrorInfo  { 1 reason string · 2 domain string · 3 metadata map<string, string> }
 */
import type { BinaryReader } from '@bufbuild/protobuf/wire'
import type { Bytes } from '../lib/bytes.ts'
import { encodeWith, strictReader } from './proto-io.ts'

export const statusDetailsKey = 'grpc-status-details-bin'
export const errorDomain = 'roundhouse'

const errorInfoUrl = 'type.googleapis.com/google.rpc.ErrorInfo'
const field1Varint = 8
const field1Bytes = 10
const field2Bytes = 18
const field3Bytes = 26

export interface ErrorInfo {
  /** An error code of `errors.ts`. */
  readonly reason: string
  readonly domain: string
  readonly metadata: Readonly<Record<string, string>>
}

export function encodeRichStatus(code: number, message: string, info: ErrorInfo): Buffer {
  return encodeWith(writer => {
    writer.uint32(field1Varint).int32(code).uint32(field2Bytes).string(message)
    writer.uint32(field3Bytes).fork().uint32(field1Bytes).string(errorInfoUrl)
    writer.uint32(field2Bytes).fork().uint32(field1Bytes).string(info.reason)
    writer.uint32(field2Bytes).string(info.domain)
    for (const [key, value] of Object.entries(info.metadata)) {
      writer
        .uint32(field3Bytes)
        .fork()
        .uint32(field1Bytes)
        .string(key)
        .uint32(field2Bytes)
        .string(value)
        .join()
    }
    writer.join().join()
  })
}

/** The first ErrorInfo in a google.rpc.Status; null where there is none or the bytes are broken. */
export function decodeErrorInfo(bytes: Bytes): ErrorInfo | null {
  try {
    for (const any of fieldsOf(strictReader(bytes)).bytes(3)) {
      const fields = fieldsOf(strictReader(any))
      if (fields.text(1) !== errorInfoUrl) continue
      const info = fieldsOf(strictReader(fields.bytes(2)[0] ?? new Uint8Array(0)))
      const metadata = info.bytes(3).map(entry => {
        const pair = fieldsOf(strictReader(entry))
        return [pair.text(1), pair.text(2)] as const
      })
      return { reason: info.text(1), domain: info.text(2), metadata: Object.fromEntries(metadata) }
    }
    return null
  } catch {
    return null
  }
}

/** All length-delimited fields of a message by number; what has another wire type is skipped. */
function fieldsOf(reader: BinaryReader): { bytes(field: number): Bytes[]; text(field: number): string } {
  const lengthDelimited = 2
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
    text: field => Buffer.from(found.get(field)?.at(-1) ?? []).toString('utf8'),
  }
}
