/**
 * Room on the disk where clusters of the bench keep their data (TMPDIR): what a suite needs there at most, so that it
 * is refused before it begins, and not by a node in the middle of it.
 */
import { statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import type { SuiteOptions } from './suite.ts'

/** Of a node that holds nothing: its journal at its budget, with the tail that is not applied yet, and its reserve. */
const nodeBytes = 1.25 * 2 ** 30
/** LMDB's row around key and value, pages that are half full, and those of the transaction before. */
const rowBytes = 100
const pagesFactor = 2.5
/** Left to whatever else runs here. Less than that ends a suite. */
export const sparedBytes = 2 ** 30

/** Of a cluster whose nodes hold up to three replicas of so many keys. */
export function roomOf(nodes: number, keys = 0, keyAndValueBytes = 0): number {
  return nodes * nodeBytes + Math.min(3, nodes) * keys * (keyAndValueBytes + rowBytes) * pagesFactor
}

/** Records that are written as fast as it goes, MB/s of values to one replica: more than any machine here did. */
const producedBytesPerMs = 200_000

export function roomOfStreams({ durationMs, warmUpMs }: SuiteOptions): number {
  return roomOf(3) + 3 * (durationMs + warmUpMs) * producedBytesPerMs
}

export function freeBytes(): number {
  const { bavail, bsize } = statfsSync(tmpdir())
  return bavail * bsize
}

/** What to tell somebody whose disk is too small; null: there is room. */
export function shortage(needed: number, free = freeBytes()): string | null {
  if (needed + sparedBytes <= free) return null
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1)
  return (
    `it may need ${gib(needed)} GiB of disk in ${tmpdir()}, where ${gib(Math.max(0, free - sparedBytes))} GiB can be ` +
    `had; TMPDIR names another place, smaller sizes need less`
  )
}
