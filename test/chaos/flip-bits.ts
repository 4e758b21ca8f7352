/**
 * Turns over bits in the files of a stopped node, where something is written (a page of zeros is most likely one that
 * nobody will read).
 */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Random } from '../../src/lib/prng.ts'

const pageBytes = 4_096
/** Read at a time while looking for what is written. */
const chunkPages = 256
const flipsMax = 4

export interface Flip {
  readonly file: string
  readonly position: number
  readonly bit: number
}

interface Page {
  readonly file: string
  readonly start: number
  readonly bytes: number
}

/** Empty: nothing is written there. */
export function flipBits(dataDir: string, folder: 'journal' | 'state' | 'streams', random: Random): Flip[] {
  const home = join(dataDir, folder)
  // A node that has only just been started has none yet.
  if (!existsSync(home)) return []
  const pages = readdirSync(home, { recursive: true, encoding: 'utf8' })
    .sort()
    .filter(name => statSync(join(home, name)).isFile())
    // LMDB's lock is no data: it is made anew when the state is opened.
    .filter(name => !name.endsWith('lock.mdb'))
    .flatMap(name => writtenPages(dataDir, join(folder, name)))
  if (pages.length === 0) return []
  return Array.from({ length: 1 + random.below(flipsMax) }, () => {
    const { file, start, bytes } = pages[random.below(pages.length)]!
    const flip = { file, position: start + random.below(bytes), bit: random.below(8) }
    const descriptor = openSync(join(dataDir, file), 'r+')
    const byte = new Uint8Array(1)
    readSync(descriptor, byte, 0, 1, flip.position)
    writeSync(descriptor, Uint8Array.of(byte[0]! ^ (1 << flip.bit)), 0, 1, flip.position)
    closeSync(descriptor)
    return flip
  })
}

function writtenPages(dataDir: string, file: string): Page[] {
  const descriptor = openSync(join(dataDir, file), 'r')
  const chunk = Buffer.alloc(chunkPages * pageBytes)
  const zeros = Buffer.alloc(pageBytes)
  const found: Page[] = []
  for (let position = 0; ; position += chunk.length) {
    const length = readSync(descriptor, chunk, 0, chunk.length, position)
    if (length === 0) break
    for (let at = 0; at < length; at += pageBytes) {
      const page = chunk.subarray(at, Math.min(at + pageBytes, length))
      if (!page.equals(zeros.subarray(0, page.length)))
        found.push({ file, start: position + at, bytes: page.length })
    }
  }
  closeSync(descriptor)
  return found
}
