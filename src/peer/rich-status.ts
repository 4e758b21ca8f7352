import { errorDomain, errorInfoUrl, localizedMessageUrl } from '../lib/error-info.ts'
import { encodeWith } from './proto-io.ts'

const field1Varint = 8
const field1Bytes = 10
const field2Bytes = 18
const field3Bytes = 26

export interface StatusDetails {
  readonly reason: string
  /** Of ErrorInfo. */
  readonly metadata: Readonly<Record<string, string>>
  /** For people, where a client of the seeds' looks for it. */
  readonly localized?: string
}

/**
 * A google.rpc.Status with a google.rpc.ErrorInfo in it, as `lib/error-info.ts` describes and reads it: the error model
 * that gRPC clients know beside code and text. A google.rpc.LocalizedMessage { 1 locale · 2 message } comes behind it.
 */
export function encodeRichStatus(code: number, message: string, details: StatusDetails): Buffer {
  return encodeWith(writer => {
    writer.uint32(field1Varint).int32(code).uint32(field2Bytes).string(message)
    writer.uint32(field3Bytes).fork().uint32(field1Bytes).string(errorInfoUrl)
    writer.uint32(field2Bytes).fork().uint32(field1Bytes).string(details.reason)
    writer.uint32(field2Bytes).string(errorDomain)
    for (const [name, value] of Object.entries(details.metadata)) {
      writer.uint32(field3Bytes).fork()
      writer.uint32(field1Bytes).string(name).uint32(field2Bytes).string(value).join()
    }
    writer.join().join()
    if (details.localized === undefined) return
    writer.uint32(field3Bytes).fork().uint32(field1Bytes).string(localizedMessageUrl)
    writer.uint32(field2Bytes).fork().uint32(field1Bytes).string('en-US')
    writer.uint32(field2Bytes).string(details.localized).join().join()
  })
}
