/**
 * Turns over bits in the files of a stopped node, where something is written (a page of zeros is most likely one that
 * nobody will read).
 */
import { closeSync, fstatSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Random } from '../../src/lib/prng.ts'

const pageBytes = 4_096
/** Pages that are looked at to find one with something in it. */
const looksMax = 200
const flipsMax = 4

export interface Flip {
  readonly file: string
  readonly position: number
  readonly bit: number
}

/** Empty: nothing is written there. */
export function flipBits(dataDir: string, folder: 'journal' | 'state', random: Random): Flip[] {
  const files = readdirSync(join(dataDir, folder))
    .sort()
    .map(name => join(folder, name))
    // LMDB's lock is no data: it is made anew when the state is opened.
    .filter(name => !name.endsWith('lock.mdb') && statSync(join(dataDir, name)).size > 0)
  if (files.length === 0) return []
  const flips: Flip[] = []
  const count = 1 + random.below(flipsMax)
  for (let look = 0; look < looksMax && flips.length < count; look++) {
    const file = files[random.below(files.length)]!
    const descriptor = openSync(join(dataDir, file), 'r+')
    try {
      const page = new Uint8Array(pageBytes)
      const start = random.below(Math.ceil(fstatSync(descriptor).size / pageBytes)) * pageBytes
      const length = readSync(descriptor, page, 0, pageBytes, start)
      if (page.every(byte => byte === 0)) continue
      const place = random.below(length)
      const bit = random.below(8)
      writeSync(descriptor, Uint8Array.of(page[place]! ^ (1 << bit)), 0, 1, start + place)
      flips.push({ file, position: start + place, bit })
    } finally {
      closeSync(descriptor)
    }
  }
  return flips
}
