/**
 * The files of the journal: those in use, those waiting to be used again, and the next one being filled with zeroes.
 *
 * A file keeps its name for life; which segment lies in it is said by the frame at its start. A sync of a file that
 * need not grow is twice as fast, so a spare is zero-filled ahead, off the main thread, and used files are kept. When
 * no spare is ready in time the segment grows in a new file: slower, never wrong.
 */
import { emptyBytes } from '../lib/bytes.ts'
import { isNoSpace } from '../lib/no-space.ts'
import type { Disk, File } from '../log/ports.ts'
import { zeroFill } from '../log/store.ts'
import { frameAlignment } from './frame.ts'

const prefix = 'segment-'
/** Zeroes go out in commits of this size, so that a batch's sync never waits behind a whole file. */
const prepareBytes = 2 * 1024 * 1024
const zeroes = new Uint8Array(256 * 1024)

export interface Segment {
  readonly number: number
  readonly incarnation: number
  readonly file: File
  /** Where the next frame goes. */
  end: number
}

export class SegmentFiles {
  readonly segmentBytes: number
  /** Oldest first; the last one takes the frames. */
  readonly inUse: Segment[] = []
  private readonly disk: Disk
  private readonly directory: string
  private readonly budgetBytes: number
  private readonly free: File[] = []
  private nextFileNumber = 1
  private preparing: File | null = null
  private whenPrepared: (() => void) | null = null

  constructor(disk: Disk, directory: string, segmentBytes: number, budgetBytes: number) {
    this.disk = disk
    this.directory = directory
    this.segmentBytes = segmentBytes
    this.budgetBytes = budgetBytes
  }

  /** Opens all files there are, in order of their names. */
  openAll(): File[] {
    const names = this.disk.list(this.directory).filter(name => /^segment-\d+$/.test(name))
    return names.map(name => {
      this.nextFileNumber = Math.max(this.nextFileNumber, Number(name.slice(prefix.length)) + 1)
      return this.disk.open(`${this.directory}/${name}`)
    })
  }

  get current(): Segment {
    return this.inUse.at(-1)!
  }

  get freeCount(): number {
    return this.free.length
  }

  get usedBytes(): number {
    return this.inUse.length * this.segmentBytes
  }

  find(key: number, keyOf: (segment: number) => number): Segment | undefined {
    return this.inUse.find(segment => keyOf(segment.number) === key)
  }

  /** Makes a file, durable by name, of `segmentBytes` zeroes if `isFilled`, else empty. */
  create(isFilled: boolean): File {
    const name = prefix + String(this.nextFileNumber++).padStart(6, '0')
    const file = this.disk.open(`${this.directory}/${name}`, { create: true })
    if (isFilled) {
      zeroFill(file, 0, this.segmentBytes)
      file.sync()
    }
    this.disk.syncDirectory(this.directory)
    return file
  }

  /** A file for the next segment: a used one, else the spare, else one that grows. */
  take(): File {
    return this.free.shift() ?? this.create(false)
  }

  /** Nothing needs what is in `file` any more. */
  release(file: File): void {
    const isWhole = file.size() === this.segmentBytes
    const total = (this.inUse.length + this.free.length + 1) * this.segmentBytes
    if (isWhole && (total <= this.budgetBytes || this.free.length === 0)) {
      this.free.push(file)
      return
    }
    file.close()
    this.disk.unlink(file.path)
  }

  /**
   * Fills a spare in the background unless there is one. A disk without room is not an error: the spare is tried again
   * when the next segment begins. `failed` gets a failed sync: the device can't be trusted.
   */
  prepare(failed: (error: Error) => void): void {
    if (this.free.length > 0 || this.preparing !== null) return
    if (this.disk.freeBytes() < 2 * this.segmentBytes) return
    let file: File
    try {
      file = this.create(false)
    } catch (error) {
      if (!isNoSpace(error)) failed(error as Error)
      return
    }
    this.preparing = file
    const step = (position: number) => {
      if (position >= this.segmentBytes || this.whenPrepared !== null) {
        this.endPrepare(file)
        return
      }
      const bytes = Math.min(prepareBytes, this.segmentBytes - position)
      const chunks = []
      for (let at = 0; at < bytes; at += zeroes.byteLength) {
        chunks.push(zeroes.subarray(0, Math.min(zeroes.byteLength, bytes - at)))
      }
      file.commit(position, chunks, error => {
        if (error === null) {
          step(position + bytes)
          return
        }
        this.endPrepare(file)
        if (!isNoSpace(error)) failed(error)
      })
    }
    step(0)
  }

  /** Closes all files; a spare in the making is given up. */
  close(done: () => void): void {
    const closeAll = () => {
      for (const segment of this.inUse) segment.file.close()
      for (const file of this.free) file.close()
      done()
    }
    if (this.preparing === null) closeAll()
    else this.whenPrepared = closeAll
  }

  private endPrepare(file: File): void {
    this.preparing = null
    this.release(file)
    this.whenPrepared?.()
    this.whenPrepared = null
  }
}

/** Makes sure that a frame which was begun at `position`, torn, is never taken for one again. */
export function eraseFrame(file: File, position: number): void {
  const size = Math.min(frameAlignment, file.size() - position)
  file.write(position, size > 0 ? new Uint8Array(size) : emptyBytes)
  file.sync()
}
