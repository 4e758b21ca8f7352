/**
 * gRPC messages out of the bytes of a call, in whatever pieces they come:
 *
 * ```
 *  0 (not compressed) · length (4 bytes, big-endian) · message
 * ```
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */
import { RoundhouseError } from '../../errors.ts'
import { framePrefixBytes } from '../../lib/grpc-frame.ts'

export class MessageReader {
  private readonly bytesMax: number
  private parts: Buffer[] = []
  private bytes = 0

  /** `bytesMax`: of one message. */
  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  /** Nothing is left: what came were whole messages. */
  get isEmpty(): boolean {
    return this.bytes === 0
  }

  push(chunk: Buffer): void {
    this.parts.push(chunk)
    this.bytes += chunk.byteLength
  }

  /**
   * The next message, a view of what came; null: it is not whole yet. Throws TOO_LARGE as soon as its length is known, and
   * INVALID_ARGUMENT where it is compressed.
   */
  next(): Buffer | null {
    if (this.bytes < framePrefixBytes) return null
    let first = this.parts[0]!
    if (first.byteLength < framePrefixBytes) first = this.joined()
    if (first[0] !== 0) throw notOneMessage()
    const length = first.readUInt32BE(1)
    if (length > this.bytesMax)
      throw new RoundhouseError('TOO_LARGE', { what: 'request', bytes: length, max: this.bytesMax })
    const end = framePrefixBytes + length
    if (this.bytes < end) return null
    if (first.byteLength < end) first = this.joined()
    this.bytes -= end
    if (first.byteLength === end) this.parts.shift()
    else this.parts[0] = first.subarray(end)
    return first.subarray(framePrefixBytes, end)
  }

  private joined(): Buffer {
    const all = Buffer.concat(this.parts, this.bytes)
    this.parts = [all]
    return all
  }
}

export function notOneMessage(): RoundhouseError {
  const accepted = 'one gRPC message: 0, its length in 4 bytes, its bytes'
  return new RoundhouseError('INVALID_ARGUMENT', { what: 'request', accepted })
}
