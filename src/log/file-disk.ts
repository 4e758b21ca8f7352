/**
 * The real disk: `Disk` over node:fs below one root directory.
 *
 * Everything is synchronous but `commit`, whose fdatasync, and whose writev of much, run on libuv's threads. Reads and writes go on
 * until all bytes are through: the kernel may do less than it was asked for, at the end of a file or on a signal.
 * Nothing is retried after an error: Linux forgets the dirty pages of a failed fdatasync, so a second one that succeeds
 * proves nothing (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
 */
import {
  close,
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  fsync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  open,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rm,
  rmSync,
  statfsSync,
  unlinkSync,
  writeSync,
  writev,
  writevSync,
} from 'node:fs'
import { join } from 'node:path'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Disk, File } from './ports.ts'

/** The kernel takes at most this many pieces in one writev (IOV_MAX on Linux and macOS). */
const piecesMax = 1024
/**
 * A commit of no more is copied into the page cache by the calling thread: that takes some microseconds, and a hop to a thread and
 * back a hundred, which whoever waits for the commit would wait, too. It does not wait for the device's writes: none of the file's
 * pages is on its way there, because a file has one commit at a time. A page that the kernel has dropped meanwhile it reads again
 * first. Waiting here is safe, only slow: nothing is promised before the sync, and to its peers the node is as one that is frozen.
 */
const hereBytesMax = 64 * 1024

export class FileDisk implements Disk {
  private readonly root: string
  /** The first is under way. */
  private readonly removals: { readonly path: string; readonly done: (error: Error | null) => void }[] = []

  /** `root` must exist; paths can't leave it by accident, but '..' is not guarded against. */
  constructor(root: string) {
    this.root = root
  }

  open(path: string, options: { readonly create?: boolean } = {}): File {
    const flags = constants.O_RDWR | (options.create === true ? constants.O_CREAT : 0)
    const place = join(this.root, path)
    return new DiskFile(path, place, openSync(place, flags, 0o600))
  }

  exists(path: string): boolean {
    return existsSync(join(this.root, path))
  }

  list(directory: string): string[] {
    try {
      return readdirSync(join(this.root, directory)).sort()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  }

  makeDirectory(directory: string): void {
    mkdirSync(join(this.root, directory), { recursive: true, mode: 0o700 })
  }

  rename(from: string, to: string): void {
    renameSync(join(this.root, from), join(this.root, to))
  }

  unlink(path: string): void {
    unlinkSync(join(this.root, path))
  }

  removeTree(directory: string): void {
    rmSync(join(this.root, directory), { recursive: true, force: true })
  }

  syncDirectory(directory: string): void {
    const descriptor = openSync(join(this.root, directory), constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
  }

  syncDirectoryAside(directory: string, done: (error: Error | null) => void): void {
    open(join(this.root, directory), constants.O_RDONLY | constants.O_DIRECTORY, (error, descriptor) => {
      if (error !== null) done(error)
      else fsync(descriptor, failed => close(descriptor, () => done(failed)))
    })
  }

  /** One after another: freeing a large file takes a file system milliseconds, and others wait for its threads. */
  removeAside(path: string, done: (error: Error | null) => void): void {
    this.removals.push({ path, done })
    if (this.removals.length === 1) this.removeNext()
  }

  private removeNext(): void {
    const next = this.removals[0]
    if (next === undefined) return
    rm(join(this.root, next.path), { recursive: true, force: true }, error => {
      this.removals.shift()
      this.removeNext()
      next.done(error)
    })
  }

  freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.root)
    return bavail * bsize
  }
}

class DiskFile implements File {
  readonly path: string
  /** As the operating system knows it: what an operator must be told. */
  private readonly place: string
  private readonly descriptor: number
  private isCommitting = false
  private isClosed = false

  constructor(path: string, place: string, descriptor: number) {
    this.path = path
    this.place = place
    this.descriptor = descriptor
  }

  size(): number {
    this.assertOpen()
    return this.naming(() => fstatSync(this.descriptor).size)
  }

  read(position: number, length: number): Bytes {
    this.assertOpen()
    const bytes = Buffer.allocUnsafe(length)
    let done = 0
    while (done < length) {
      const count = this.naming(() => readSync(this.descriptor, bytes, done, length - done, position + done))
      if (count === 0) return bytes.subarray(0, done)
      done += count
    }
    return bytes
  }

  write(position: number, bytes: Bytes): void {
    this.assertOpen()
    let done = 0
    while (done < bytes.byteLength) {
      const left = bytes.byteLength - done
      done += this.naming(() => writeSync(this.descriptor, bytes, done, left, position + done))
    }
  }

  truncate(size: number): void {
    this.assertOpen()
    this.naming(() => ftruncateSync(this.descriptor, size))
  }

  sync(): void {
    this.assertOpen()
    this.naming(() => fdatasyncSync(this.descriptor))
  }

  commit(position: number, chunks: readonly Bytes[], done: (error: Error | null) => void): void {
    this.assertOpen()
    assert(!this.isCommitting, `${this.path}: a commit is under way`)
    this.isCommitting = true
    const finish = (error: Error | null) => {
      this.isCommitting = false
      done(error === null ? null : this.named(error))
    }
    const writeFrom = (at: number, rest: readonly Bytes[]) => {
      if (rest.length === 0) {
        fdatasync(this.descriptor, finish)
        return
      }
      const pieces = rest.length > piecesMax ? rest.slice(0, piecesMax) : rest
      writev(this.descriptor, pieces, at, (error, count) => {
        if (error !== null) finish(error)
        else writeFrom(at + count, dropBytes(rest, count))
      })
    }
    const pieces = withoutEmpty(chunks)
    const bytes = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0)
    if (bytes > hereBytesMax || pieces.length > piecesMax) {
      writeFrom(position, pieces)
      return
    }
    try {
      const count = bytes === 0 ? 0 : writevSync(this.descriptor, pieces, position)
      writeFrom(position + count, dropBytes(pieces, count))
    } catch (error) {
      setImmediate(finish, error as Error)
    }
  }

  close(): void {
    this.assertOpen()
    assert(!this.isCommitting, `${this.path}: closed while a commit is under way`)
    this.isClosed = true
    closeSync(this.descriptor)
  }

  /** A call that takes a descriptor fails without saying of which file. */
  private naming<T>(call: () => T): T {
    try {
      return call()
    } catch (error) {
      throw this.named(error as Error)
    }
  }

  private named(error: Error): Error {
    error.message = `${this.place}: ${error.message}`
    return error
  }

  private assertOpen(): void {
    assert(!this.isClosed, `${this.path}: used after close`)
  }
}

/** A piece of no bytes would make a writev of 0 bytes look like no progress. */
function withoutEmpty(chunks: readonly Bytes[]): readonly Bytes[] {
  return chunks.some(chunk => chunk.byteLength === 0) ? chunks.filter(chunk => chunk.byteLength > 0) : chunks
}

/** What is left of `chunks` when their first `count` bytes are written. */
function dropBytes(chunks: readonly Bytes[], count: number): readonly Bytes[] {
  let left = count
  let index = 0
  while (index < chunks.length && left >= chunks[index]!.byteLength) left -= chunks[index++]!.byteLength
  const rest = chunks.slice(index)
  if (left > 0) rest[0] = rest[0]!.subarray(left)
  return rest
}
