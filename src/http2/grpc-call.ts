/** What a client says and hears of a call of gRPC, in headers. */
import { status } from '@grpc/grpc-js'
import { encodeHeaders, type HeaderList, headerOf } from './hpack.ts'

/** The headers of a request to `path` at `address`. */
export function requestBlock(path: string, address: string, isSecure: boolean): Buffer {
  const fields = [
    [':method', 'POST'],
    [':scheme', isSecure ? 'https' : 'http'],
    [':path', path],
    [':authority', address],
    ['content-type', 'application/grpc+proto'],
    ['te', 'trailers'],
  ]
  return encodeHeaders(fields.flat())
}

/** How the call ended: the status' name, and its text. null: these headers do not end it. */
export function statusIn(list: HeaderList): { readonly name: string; readonly text: string } | null {
  const code = headerOf(list, 'grpc-status')
  if (code === undefined) return null
  return { name: status[Number(code)] ?? code, text: decoded(headerOf(list, 'grpc-message') ?? '') }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
