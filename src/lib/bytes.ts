/**
 * Bytes and their two string forms. Row keys inside a replica are *latin1 strings*, one char a byte: V8 joins, hashes
 * and compares them several times faster than Buffers, and their order is the order of the bytes.
 */
export type Bytes = Uint8Array

export const emptyBytes: Bytes = new Uint8Array(0)

/** Node's slices by encoding skip the argument checks of toString; @types/node does not list them. */
interface FastBuffer extends Buffer {
  latin1Slice(from: number, to: number): string
  utf8Slice(from: number, to: number): string
}

function buffer(bytes: Bytes): FastBuffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) as FastBuffer
}

/** One char (0–255) a byte; the inverse of `fromLatin1`. */
export function toLatin1(bytes: Bytes): string {
  return buffer(bytes).latin1Slice(0, bytes.byteLength)
}

/** `text` holds chars 0–255 only. */
export function fromLatin1(text: string): Bytes {
  return Buffer.from(text, 'latin1')
}

export function toUtf8(bytes: Bytes): string {
  return buffer(bytes).utf8Slice(0, bytes.byteLength)
}

export function fromUtf8(text: string): Bytes {
  return Buffer.from(text, 'utf8')
}

export function equalBytes(a: Bytes, b: Bytes): boolean {
  return a === b || (a.byteLength === b.byteLength && buffer(a).equals(b))
}

/** For error texts: at most 64 chars, quoted, unprintable bytes escaped. */
export function quote(bytes: Bytes): string {
  const text = toUtf8(bytes.byteLength > 64 ? bytes.subarray(0, 64) : bytes)
  return JSON.stringify(text) + (bytes.byteLength > 64 ? '…' : '')
}
