/**
 * A file's bytes as memory, read-only: through mmap where the platform has it, as a heap copy behind the same interface
 * elsewhere. A mapping costs nothing at open; the page cache holds it and gives it back under pressure.
 *
 * The only file that knows koffi. Two ways to kill the process, and why neither can happen:
 *  - SIGSEGV, touching an address after munmap: `close` lays anonymous zero pages over the range (MAP_FIXED), which
 *    lets go of the file but keeps the addresses; the range is unmapped when the collector has proved that no view of it
 *    is left.
 *  - SIGBUS, touching a page past the file's end: only sealed files are mapped, and a sealed file is never cut, it is
 *    replaced or unlinked.
 * Refused: writing through the map. A full disk would be SIGBUS, and a failed write-back would be reported to nobody.
 */
import { closeSync, fstatSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { assert } from '../lib/assert.ts'
import { type Bytes, emptyBytes } from '../lib/bytes.ts'
import type { Disk } from './ports.ts'

export interface MappedFile {
  readonly kind: 'mapped' | 'heap'
  /** The file as it was when it was opened. Not to be asked for after `close`; views taken before then read zeros. */
  readonly bytes: Bytes
  /** Lets go of the file. A second call does nothing. */
  close(): void
}

/** Opens the sealed file at `path` (relative to the disk's root) as memory; throws where it is missing. */
export type MapFile = (path: string) => MappedFile

/** Reads whole files into the heap: for a simulated disk, and where there is no mmap. */
export function heapMapper(disk: Disk): MapFile {
  return path => {
    const file = disk.open(path)
    try {
      return new HeapFile(file.read(0, file.size()))
    } finally {
      file.close()
    }
  }
}

/** Maps files under the directory `root` of this machine. What can't be mapped is opened by `fallBack`. */
export function memoryMapper(root: string, fallBack: MapFile): MapFile {
  const memory = platformMemory()
  if (memory === null) return fallBack
  return path => {
    const descriptor = openSync(join(root, path), 'r')
    try {
      const length = fstatSync(descriptor).size
      if (length === 0) return new HeapFile(emptyBytes)
      const address = memory.map(descriptor, length)
      return address === null ? fallBack(path) : new MemoryFile(memory, address, length)
    } finally {
      closeSync(descriptor) // a mapping outlives its descriptor
    }
  }
}

class HeapFile implements MappedFile {
  readonly kind = 'heap'
  private content: Bytes | null

  constructor(content: Bytes) {
    this.content = content
  }

  get bytes(): Bytes {
    assert(this.content !== null, 'the bytes of a closed file were asked for')
    return this.content
  }

  close(): void {
    this.content = null
  }
}

class MemoryFile implements MappedFile {
  readonly kind = 'mapped'
  private content: Bytes | null
  private readonly memory: Memory
  private readonly address: Address
  private readonly length: number

  constructor(memory: Memory, address: Address, length: number) {
    this.memory = memory
    this.address = address
    this.length = length
    this.content = new Uint8Array(memory.view(address, length))
  }

  get bytes(): Bytes {
    assert(this.content !== null, 'the bytes of a closed file were asked for')
    return this.content
  }

  close(): void {
    if (this.content === null) return
    this.content = null
    this.memory.release(this.address, this.length)
  }
}

/** An address in this process: below 2^53 a number. */
type Address = number | bigint

interface Memory {
  /** Maps a file's first `length` bytes; null when the kernel refuses (too many maps, a file system without mmap). */
  map(descriptor: number, length: number): Address | null
  /** The range as an ArrayBuffer; the range is unmapped some time after the last reference to it is gone. */
  view(address: Address, length: number): ArrayBuffer
  /** Puts zero pages in the place of the file's. */
  release(address: Address, length: number): void
}

const PROT_READ = 1
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_FIXED = 0x10
/** MAP_ANONYMOUS | MAP_NORESERVE where that exists: zero pages that claim no swap. */
const zeroPages: Partial<Record<NodeJS.Platform, number>> = { linux: 0x20 | 0x4000, darwin: 0x1000 | 0x40 }

let known: Memory | null | undefined

/** libc's mmap through koffi, looked for once; null where the platform or koffi's binary is not there. */
function platformMemory(): Memory | null {
  known ??= loadMemory()
  return known
}

function loadMemory(): Memory | null {
  const zeroFlags = zeroPages[process.platform]
  if (zeroFlags === undefined) return null
  let koffi: typeof import('koffi')
  try {
    // Not an import: a platform without a binary must still be able to load this file.
    koffi = createRequire(import.meta.url)('koffi')
  } catch {
    return null
  }
  const libc = koffi.load(null) // the process itself: node is linked with libc, whichever it is
  const mmap = libc.func(
    'intptr_t mmap(void *address, size_t length, int protection, int flags, int descriptor, int64_t offset)',
  )
  const munmap = libc.func('int munmap(void *address, size_t length)')
  const unreachable = new FinalizationRegistry<{ address: Address; length: number }>(range => {
    munmap(range.address, range.length)
  })

  return {
    map(descriptor, length) {
      const address: Address = mmap(null, length, PROT_READ, MAP_SHARED, descriptor, 0)
      return Number(address) === -1 ? null : address
    },
    view(address, length) {
      const buffer = koffi.view(address, length)
      unreachable.register(buffer, { address, length })
      return buffer
    },
    release(address, length) {
      const flags = MAP_PRIVATE | MAP_FIXED | zeroFlags
      // A refusal keeps the file's pages until the range is collected: disk space is given back later, nothing else.
      mmap(address, length, PROT_READ, flags, -1, 0)
    },
  }
}
