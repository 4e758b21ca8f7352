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

/** From here on a message is not copied for its prefix's sake. */
const apartBytes = 16 * 1024

/** Writes a message with its prefix. */
export function writeMessage(stream: Writable, message: Bytes, onTaken?: () => void): void {
  if (message.byteLength < apartBytes) stream.write(grpcFrame(message), onTaken)
  else writeParts(stream, [message], onTaken)
}

/** The same, of a message that lies in pieces: none of them is copied. */
export function writeParts(stream: Writable, parts: readonly Bytes[], onTaken?: () => void): void {
  const prefix = Buffer.alloc(framePrefixBytes)
  prefix.writeUInt32BE(
    parts.reduce((sum, { byteLength }) => sum + byteLength, 0),
    1,
  )
  stream.write(prefix)
  for (let i = 0; i < parts.length; i++) stream.write(parts[i]!, i === parts.length - 1 ? onTaken : undefined)
}

interface Writable {
  write(bytes: Uint8Array, onTaken?: () => void): void
}
