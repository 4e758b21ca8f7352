import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Snapshot, SnapshotManifest } from '../shard/ports.ts'

/** A copied checkpoint in its files (snapshots/<id>/<part>), read by position until it is released. */
export class FileSnapshot implements Snapshot {
  readonly manifest: SnapshotManifest
  private readonly directory: string
  private readonly remove: () => void
  private readonly files = new Map<string, number>()
  private released = false

  constructor(manifest: SnapshotManifest, directory: string, remove: () => void) {
    this.manifest = manifest
    this.directory = directory
    this.remove = remove
  }

  /** Up to `length` bytes, fewer at the part's end. Throws NO_SUCH_TRANSFER for a part that is none: peers name it. */
  read(part: string, position: number, length: number): Bytes {
    assert(!this.released, `snapshot ${this.manifest.id} is read after it was released`)
    const known = this.manifest.parts.find(({ name }) => name === part)
    if (known === undefined)
      throw new RoundhouseError('NO_SUCH_TRANSFER', { id: `${this.manifest.id}/${part}` })
    let file = this.files.get(part)
    if (file === undefined) {
      file = openSync(join(this.directory, part), 'r')
      this.files.set(part, file)
    }
    const bytes = new Uint8Array(Math.max(0, Math.min(length, known.bytes - position)))
    let filled = 0
    while (filled < bytes.byteLength) {
      const got = readSync(file, bytes, filled, bytes.byteLength - filled, position + filled)
      if (got === 0)
        throw new RoundhouseError('CORRUPT', { where: `snapshot part ${part}`, what: 'it is cut' })
      filled += got
    }
    // Parts are read from their start to their end, one after another.
    if (position + filled >= known.bytes) {
      closeSync(file)
      this.files.delete(part)
    }
    return bytes
  }

  release(): void {
    if (this.released) return
    this.released = true
    for (const file of this.files.values()) closeSync(file)
    this.files.clear()
    this.remove()
  }
}
