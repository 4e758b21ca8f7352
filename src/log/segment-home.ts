/**
 * What the segments of one log share, and how their files are called: by the offset of the first record, so that the
 * names sort as the records do.
 */
import type { Random } from '../lib/prng.ts'
import type { MapFile } from './mapped-file.ts'
import type { Disk } from './ports.ts'
import type { TimeOf } from './time-index.ts'
import type { WarmSegments } from './warm-segments.ts'

export const storeSuffix = '.store'
export const indexSuffix = '.index'
/** As long as the longest safe integer and then some: names sort as their numbers do. */
const nameDigits = 20

/** What the segments of a log share. */
export interface SegmentHome {
  readonly disk: Disk
  readonly directory: string
  readonly map: MapFile
  readonly random: Random
  readonly warm: WarmSegments
  readonly timeOf: TimeOf
}

export function segmentName(baseOffset: number): string {
  return String(baseOffset).padStart(nameDigits, '0')
}

/** The base offset that a store's file name tells; null for other files. */
export function baseOffsetOf(name: string): number | null {
  const match = /^(\d{20})\.store$/.exec(name)
  if (match === null) return null
  const offset = Number(match[1])
  return Number.isSafeInteger(offset) ? offset : null
}
