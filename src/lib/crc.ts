import { crc32 as zlibCrc32 } from 'node:zlib'
import type { Bytes } from './bytes.ts'

/** CRC-32 (ISO-HDLC) of `bytes`, continued from `seed`: an unsigned 32-bit integer. */
export function crc32(bytes: Bytes, seed = 0): number {
  return zlibCrc32(bytes, seed)
}
