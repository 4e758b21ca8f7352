/**
 * gRPC messages out of the bytes of a call, in whatever pieces they come:
 *
 * ```
 *  0 (not compressed) · length (4 bytes, big-endian) · message
 * ```
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */
import { framePrefixBytes } from './grpc-frame.ts'

const smallBytes = 512
const blockBytes = 4096
const noBytes = Buffer.alloc(0)

/** Why bytes are no message: they are compressed, or it is longer than it may be. */
export type Unreadable = 'compressed' | { readonly bytes: number; readonly max: number }

export class GrpcReader {
  private readonly bytesMax: number
  private readonly refuse: (why: Unreadable) => Error
  private parts: Buffer[] = []
  private bytes = 0
  /** Small pieces, copied side by side; the last part is a view of it unless `blockBytes` says that it is full. */
  private block = noBytes
  private blockBytes = blockBytes

  /** `bytesMax`: of one message; `refuse`: the error that is thrown where there is none. */
  constructor(bytesMax: number, refuse: (why: Unreadable) => Error) {
    this.bytesMax = bytesMax
    this.refuse = refuse
  }

  /** Nothing is left: what came were whole messages. */
  get isEmpty(): boolean {
    return this.bytes === 0
  }

  push(chunk: Buffer): void {
    this.bytes += chunk.byteLength
    if (chunk.byteLength >= smallBytes || this.parts.length === 0) {
      this.parts.push(this.parts.length === 0 ? chunk : ownOf(chunk))
      this.blockBytes = blockBytes
      return
    }
    // Each view takes more than a few bytes do: who sends them one by one shall not make us hold that.
    const isFull = this.blockBytes + chunk.byteLength > blockBytes
    if (isFull) {
      this.block = Buffer.allocUnsafeSlow(blockBytes)
      this.blockBytes = 0
    }
    chunk.copy(this.block, this.blockBytes)
    this.blockBytes += chunk.byteLength
    const part = this.block.subarray(0, this.blockBytes)
    if (isFull) this.parts.push(part)
    else this.parts[this.parts.length - 1] = part
  }

  /** The next message, a view of what came; null: it is not whole yet. Throws as soon as its first bytes say that it is none. */
  next(): Buffer | null {
    if (this.bytes < framePrefixBytes) return this.keep()
    let first = this.parts[0]!
    if (first.byteLength < framePrefixBytes) first = this.joined()
    if (first[0] !== 0) throw this.refuse('compressed')
    const bytes = first.readUInt32BE(1)
    if (bytes > this.bytesMax) throw this.refuse({ bytes, max: this.bytesMax })
    const end = framePrefixBytes + bytes
    if (this.bytes < end) return this.keep()
    this.blockBytes = blockBytes
    if (first.byteLength < end) first = this.joined()
    this.bytes -= end
    if (first.byteLength === end) this.parts.shift()
    else this.parts[0] = first.subarray(end)
    return first.subarray(framePrefixBytes, end)
  }

  /** What is left waits for the rest. */
  private keep(): null {
    if (this.parts.length === 1) this.parts[0] = ownOf(this.parts[0]!)
    return null
  }

  private joined(): Buffer {
    const all = Buffer.concat(this.parts, this.bytes)
    this.parts = [all]
    this.blockBytes = blockBytes
    return all
  }
}

/** A view keeps all that it is cut from, such as a read of 64 KiB from a socket: a copy where it is a small part of that. */
function ownOf(bytes: Buffer): Buffer {
  if (4 * bytes.byteLength >= bytes.buffer.byteLength) return bytes
  const copy = Buffer.allocUnsafeSlow(bytes.byteLength)
  bytes.copy(copy)
  return copy
}
