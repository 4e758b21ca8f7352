import { assert } from '../lib/assert.ts'
import type { SnapshotManifest } from '../shard/ports.ts'

/** Most bytes that a receiver asks for at once. Both main threads stand still while they copy one: a millisecond or two. */
export const chunkBytesMax = 512 * 1024

/** How far a receiver is: bytes per part, in the manifest's order. Parts are filled one after the other, from their start. */
export class StagingProgress {
  readonly manifest: SnapshotManifest
  readonly lengths: number[]

  constructor(manifest: SnapshotManifest, lengths: readonly number[] = []) {
    this.manifest = manifest
    this.lengths = manifest.parts.map((part, i) => Math.min(lengths[i] ?? 0, part.bytes))
  }

  get bytesStaged(): number {
    return this.lengths.reduce((sum, length) => sum + length, 0)
  }

  next(): { readonly part: string; readonly position: number; readonly length: number } | null {
    for (const [i, part] of this.manifest.parts.entries()) {
      const position = this.lengths[i]!
      if (position < part.bytes)
        return { part: part.name, position, length: Math.min(chunkBytesMax, part.bytes - position) }
    }
    return null
  }

  /** The part's ordinal, when `length` bytes at `position` are what comes next in it. */
  admit(name: string, position: number, length: number): number {
    const i = this.manifest.parts.findIndex(part => part.name === name)
    assert(i >= 0, `snapshot ${this.manifest.id} has no part ${name}`)
    const part = this.manifest.parts[i]!
    assert(
      position === this.lengths[i] && length <= chunkBytesMax && position + length <= part.bytes,
      `${length} bytes at ${position} of ${name}: ${this.lengths[i]} of ${part.bytes} are here`,
    )
    return i
  }
}
