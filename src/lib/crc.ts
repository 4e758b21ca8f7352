import { crc32 as zlibCrc32 } from 'node:zlib'
import type { Bytes } from './bytes.ts'

/** CRC-32 (ISO-HDLC) of `bytes`, continued from `seed`: an unsigned 32-bit integer. */
export function crc32(bytes: Bytes, seed = 0): number {
  // zlib answers 0 instead of the seed for an empty buffer without memory behind it.
  return bytes.byteLength === 0 ? seed >>> 0 : zlibCrc32(bytes, seed)
}
