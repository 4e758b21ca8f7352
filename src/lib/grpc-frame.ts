import type { Bytes } from './bytes.ts'

/** Of a gRPC message over HTTP/2: not compressed (0), the length in 4 bytes, big-endian. */
export const framePrefixBytes = 5

/** A message with its prefix. */
export function grpcFrame(message: Bytes): Buffer {
  const { byteLength } = message
  const frame = Buffer.allocUnsafe(framePrefixBytes + byteLength)
  frame[0] = 0
  frame.writeUInt32BE(byteLength, 1)
  frame.set(message, framePrefixBytes)
  return frame
}
