import type { Bytes } from './bytes.ts'

/**
 * Small byte arrays, cut one after the other from larger ones: an array of its own beyond 64 bytes is an allocation outside of
 * V8's heap that the collector has to look after, and costs several times as much as a view.
 *
 * A slab lives as long as anything cut from it. So an arena is for what is made, kept and forgotten in one order, such as
 * the rows of one replica; arenas of many owners are never one.
 */
export class Arena {
  private slab = nothing
  private used = 0

  /** Zeroes, of which nobody else has any. */
  take(bytes: number): Bytes {
    if (bytes > ownBytes) return new Uint8Array(bytes)
    if (this.used + bytes > this.slab.byteLength) {
      this.slab = new Uint8Array(slabBytes)
      this.used = 0
    }
    const from = this.used
    this.used += bytes
    return new Uint8Array(this.slab.buffer, from, bytes)
  }
}

const slabBytes = 8 * 1024
/** What is longer gets an array of its own: a slab's rest that is left unused is never more. */
const ownBytes = 1024
const nothing = new Uint8Array(0)
