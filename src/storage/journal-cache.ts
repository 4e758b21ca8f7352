/**
 * The entries that were written last, in memory, so that applying them and sending them to followers touches no disk.
 * Blocks (one replica's part of one batch) leave in the order they came when all together pass the limit; those of a
 * batch that is not on disk yet stay, because nowhere else could they be read from.
 */
import type { Entry } from '../raft/types.ts'

/** What an entry costs beside its data: the object and its slot. */
const entryOverheadBytes = 96
const blockOverheadBytes = 160

interface Block {
  readonly owner: CachedEntries
  readonly sequence: number
  entries: readonly Entry[]
  bytes: number
}

/** One replica's cached entries: blocks in order of index, the newest last. */
export class CachedEntries {
  private readonly cache: JournalCache
  private blocks: Block[] = []

  constructor(cache: JournalCache) {
    this.cache = cache
  }

  /** `entries` replace what stands at and after their first index. `sequence` is the frame that makes them durable. */
  append(entries: readonly Entry[], sequence: number): void {
    if (entries.length === 0) return
    this.truncate(entries[0]!.index)
    const block = { owner: this, sequence, entries, bytes: bytesOf(entries) }
    this.blocks.push(block)
    this.cache.add(block)
  }

  get(index: number): Entry | undefined {
    let low = 0
    let high = this.blocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.blocks[middle]!.entries[0]!.index <= index) low = middle + 1
      else high = middle
    }
    const block = this.blocks[low - 1]
    return block?.entries[index - block.entries[0]!.index]
  }

  truncate(index: number): void {
    for (;;) {
      const block = this.blocks.at(-1)
      if (block === undefined || block.entries.at(-1)!.index < index) return
      const kept = Math.max(0, index - block.entries[0]!.index)
      this.cache.shrink(block, kept === 0 ? [] : block.entries.slice(0, kept))
      if (kept > 0) return
      this.blocks.pop()
    }
  }

  compact(index: number): void {
    let gone = 0
    while (gone < this.blocks.length && this.blocks[gone]!.entries.at(-1)!.index <= index) {
      this.cache.shrink(this.blocks[gone++]!, [])
    }
    if (gone > 0) this.blocks.splice(0, gone)
  }

  /** The cache needs room: `block` is the oldest one here. */
  evict(block: Block): void {
    if (this.blocks[0] === block) this.blocks.shift()
  }
}

export class JournalCache {
  bytes = 0
  private readonly bytesMax: number
  /** Oldest first from `head` on; emptied blocks are skipped when they get there. */
  private queue: Block[] = []
  private head = 0

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  add(block: Block): void {
    this.queue.push(block)
    this.bytes += block.bytes
  }

  shrink(block: Block, entries: readonly Entry[]): void {
    this.bytes -= block.bytes
    block.entries = entries
    block.bytes = entries.length === 0 ? 0 : bytesOf(entries)
    this.bytes += block.bytes
  }

  /** Frames up to `sequence` are on disk: their blocks may leave. */
  trim(sequence: number): void {
    while (this.head < this.queue.length) {
      const block = this.queue[this.head]!
      if (block.entries.length > 0) {
        if (this.bytes <= this.bytesMax || block.sequence > sequence) break
        this.bytes -= block.bytes
        block.bytes = 0
        block.owner.evict(block)
      }
      this.head++
    }
    if (this.head > 1024 && this.head * 2 > this.queue.length) {
      this.queue = this.queue.slice(this.head)
      this.head = 0
    }
  }
}

function bytesOf(entries: readonly Entry[]): number {
  let bytes = blockOverheadBytes
  for (const entry of entries) bytes += entry.data.byteLength + entryOverheadBytes
  return bytes
}
