import { errorDomain, errorInfoUrl } from '../lib/error-info.ts'
import { encodeWith } from './proto-io.ts'

const field1Varint = 8
const field1Bytes = 10
const field2Bytes = 18
const field3Bytes = 26

/**
 * A google.rpc.Status with one google.rpc.ErrorInfo in it, as `lib/error-info.ts` describes and reads it: the error model
 * that gRPC clients know beside code and text.
 */
export function encodeRichStatus(
  code: number,
  message: string,
  info: { readonly reason: string; readonly leader: string },
): Buffer {
  return encodeWith(writer => {
    writer.uint32(field1Varint).int32(code).uint32(field2Bytes).string(message)
    writer.uint32(field3Bytes).fork().uint32(field1Bytes).string(errorInfoUrl)
    writer.uint32(field2Bytes).fork().uint32(field1Bytes).string(info.reason)
    writer.uint32(field2Bytes).string(errorDomain)
    if (info.leader !== '') {
      writer.uint32(field3Bytes).fork()
      writer.uint32(field1Bytes).string('leader').uint32(field2Bytes).string(info.leader).join()
    }
    writer.join().join()
  })
}
