import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Disk, File } from '../log/ports.ts'

/**
 * How much room a node's disk has, and a reserve of it: a file that is filled ahead and given up when the disk is full,
 * so that votes, elections and checkpoints find room after users' writes no longer do.
 *
 *     headroom = what is free + the reserve, while it is held
 *
 *     ok ──below 2 reserves──▶ nearly full ──below 1¼──▶ full: the reserve is given up
 *     ok ◀──2¼, remade──────── nearly full ◀──from 1½── full
 *
 * The steps down and up differ, so that nothing flutters. Nearly full is told to the others, and their leaders refuse
 * writes of users while a quorum says so; what they accepted before they heard of it fits between "nearly full" and
 * "full", by the size of the reserve. A node that is full takes nothing in: that alone keeps it, whoever heard what.
 * A write that found no room says "full" by itself, whatever the file system counts (a quota, a limit on files).
 */
export interface DiskSpaceOptions {
  readonly disk: Disk
  readonly clock: Clock
  readonly log: Logger
  /** 0: none is kept, and only a write that finds no room tells that there is none. */
  readonly reserveBytes: number
}

export type SpaceState = 'ok' | 'nearly_full' | 'full'

export const reserveName = 'reserve'
const lookIntervalMs = 250
/** After a write that found no room the disk counts as full for so long. */
const refusedMs = 2_000
/** The reserve is filled in steps, so that nobody's sync waits behind all of it, and not while a node starts. */
const fillBytes = 1024 * 1024
const fillPauseMs = 50
const fillFirstMs = 3_000
const fillAgainMs = 60_000
const zeroes = new Uint8Array(fillBytes)

export class DiskSpace {
  private readonly options: DiskSpaceOptions
  private current: SpaceState = 'ok'
  private heldBytes = 0
  private file: File | null = null
  private isFilling = false
  private isFileBusy = false
  private isClosed = false
  private fullUntilMs = Number.NEGATIVE_INFINITY
  private cancelLook: () => void = () => {}
  private free = 0
  private fillAfterMs: number

  /** Looks at once; a node that starts on a full disk has its reserve back before it needs it. */
  constructor(options: DiskSpaceOptions) {
    this.options = options
    const { disk, clock } = options
    this.fillAfterMs = clock.now() + fillFirstMs
    if (disk.exists(reserveName)) {
      const file = disk.open(reserveName)
      this.heldBytes = file.size()
      file.close()
    }
    this.look()
  }

  get state(): SpaceState {
    return this.current
  }

  /** As of the last look. */
  get freeBytes(): number {
    return this.free
  }

  /** Bytes of the reserve that are on the disk. */
  get reservedBytes(): number {
    return this.heldBytes
  }

  /** A write found no room. */
  refused(): void {
    this.fullUntilMs = this.options.clock.now() + refusedMs
    this.judge()
  }

  /** The reserve stays where it is. */
  close(): void {
    this.isClosed = true
    this.cancelLook()
    if (!this.isFileBusy) this.closeFile()
  }

  private look(): void {
    this.free = this.options.disk.freeBytes()
    this.judge()
    this.cancelLook = this.options.clock.after(lookIntervalMs, () => {
      if (!this.isClosed) this.look()
    })
  }

  private judge(): void {
    const next = this.judged()
    const { log } = this.options
    if (next !== this.current) {
      const facts = { free: this.free, reserve: this.heldBytes }
      if (next === 'ok') log.info('the disk has room again', facts)
      else if (next === 'nearly_full')
        log.warn('the disk is nearly full: writes are refused while a quorum of their shard is', facts)
      else log.error('the disk is full: this node takes no more entries until there is room', facts)
      this.current = next
    }
    if (next === 'full') this.release()
    else if (next === 'ok' && this.isFillDue()) this.fill()
  }

  private isFillDue(): boolean {
    const { clock, reserveBytes } = this.options
    return this.heldBytes < reserveBytes && !this.isFilling && clock.now() >= this.fillAfterMs
  }

  private judged(): SpaceState {
    const { clock, reserveBytes } = this.options
    if (clock.now() < this.fullUntilMs) return 'full'
    const headroom = this.free + this.heldBytes
    const { current } = this
    if (headroom < reserveBytes * (current === 'full' ? 1.5 : 1.25)) return 'full'
    if (headroom < reserveBytes * (current === 'ok' ? 2 : 2.25)) return 'nearly_full'
    return 'ok'
  }

  private release(): void {
    if (this.isFileBusy || (this.heldBytes === 0 && this.file === null)) return
    this.closeFile()
    try {
      this.options.disk.unlink(reserveName)
      this.options.log.warn('the reserve is given up', { bytes: this.heldBytes })
    } catch (error) {
      // Looked at again soon.
      this.options.log.warn('the reserve could not be given up', { error: (error as Error).message })
      return
    }
    this.free += this.heldBytes
    this.heldBytes = 0
  }

  /** Writes and syncs the rest of the reserve, a step at a time. A sync that fails here loses zeroes: no promise broken. */
  private fill(): void {
    const { disk, reserveBytes, clock } = this.options
    this.isFilling = true
    const step = () => {
      if (this.isClosed || !this.isFilling || this.current !== 'ok' || this.heldBytes >= reserveBytes) {
        this.isFilling = false
        this.closeFile()
        return
      }
      try {
        this.file ??= disk.open(reserveName, { create: true })
      } catch (error) {
        this.fillFailed(error as Error)
        return
      }
      const bytes = Math.min(fillBytes, reserveBytes - this.heldBytes)
      this.isFileBusy = true
      this.file.commit(this.heldBytes, [zeroes.subarray(0, bytes)], error => {
        this.isFileBusy = false
        if (error !== null) {
          this.fillFailed(error)
          return
        }
        this.heldBytes += bytes
        this.free -= bytes
        clock.after(fillPauseMs, step)
      })
    }
    step()
  }

  private fillFailed(error: Error): void {
    this.isFilling = false
    this.closeFile()
    this.fillAfterMs = this.options.clock.now() + fillAgainMs
    this.options.log.warn('the reserve could not be filled', { error: error.message })
  }

  private closeFile(): void {
    this.file?.close()
    this.file = null
  }
}
