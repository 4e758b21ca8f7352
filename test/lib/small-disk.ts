/**
 * A file system of a few megabytes: a tmpfs of its own, where the machine lets this process mount one. What a full disk
 * does can only be seen on one that is full, and nobody else's may be.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const mounted = new Set<SmallDisk>()
process.on('exit', () => {
  for (const disk of mounted) disk.remove()
})

export class SmallDisk {
  readonly path: string

  private constructor(path: string) {
    this.path = path
    mounted.add(this)
  }

  /** null: this process may not mount. */
  static make(bytes: number): SmallDisk | null {
    if (process.platform !== 'linux' || process.getuid?.() !== 0) return null
    const path = mkdtempSync(join(tmpdir(), 'small-disk-'))
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path])
    if (status === 0) return new SmallDisk(path)
    rmSync(path, { recursive: true })
    return null
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path)
    return bavail * bsize
  }

  private get ballast(): string {
    return join(this.path, 'ballast')
  }

  /** Somebody else's file takes all but `leftBytes`. */
  fill(leftBytes = 0): void {
    const file = openSync(this.ballast, 'a')
    const chunk = new Uint8Array(256 * 1024)
    try {
      for (let left = this.freeBytes - leftBytes; left > 0; left = this.freeBytes - leftBytes) {
        if (writeSync(file, chunk, 0, Math.min(left, chunk.length)) === 0) break
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    } finally {
      closeSync(file)
    }
  }

  /** … and gives it back. */
  empty(): void {
    rmSync(this.ballast, { force: true })
  }

  remove(): void {
    mounted.delete(this)
    spawnSync('umount', ['-l', this.path])
    rmSync(this.path, { recursive: true, force: true })
  }
}
