/**
 * A store and the index of it: a run of consecutive records in one file. It is *active* while it takes records, then
 * *sealed*: from then on nothing writes to its files, and its index is a file that is mapped. Once all that is in it is
 * synced it can be *cooled* (descriptor and map given back), and opens itself again at the next read or append. One that
 * is not keeps its descriptor: a failed write-back is told to those who have the file open.
 *
 * An active segment's index is written as a file now and then (`noteIndex`), so that a start after a crash reads the end
 * of the store only.
 *
 * The store is the truth, the index follows from it. Wherever the two disagree the store is scanned: at open, and when
 * a read through the index meets bytes that are not the record it looks for. Only if the scan can't reach a record
 * either is that record lost.
 */
import { isError, RoundhouseError } from '../errors.ts'
import { assert, BrokenInvariant } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { HeapIndex, type OffsetIndex, offsetWithin, SealedIndex, writeIndexFile } from './offset-index.ts'
import { type RecordBlock, recordHeaderBytes } from './record-block.ts'
import { indexSuffix, type SegmentHome, segmentName, storeSuffix } from './segment-home.ts'
import { Store, type StorePlace, storeHeaderBytes } from './store.ts'
import { around, timeIntervalBytes } from './time-index.ts'

/** The records from `foundOffset` on, up to `wantedOffset`, should be in the file at `path` and are not. */
export interface DataLoss {
  readonly kind: 'data_loss'
  readonly path: string
  readonly wantedOffset: number
  readonly foundOffset: number
  readonly why: string
}

export type SegmentOpening = { readonly kind: 'open'; readonly segment: Segment } | DataLoss

/** Less than this behind the index file is read again at a start. */
const noteBytesMin = 256 * 1024

export class Segment {
  readonly baseOffset: number
  readonly storePath: string
  private readonly indexPath: string
  private readonly home: SegmentHome
  private store: Store | null
  private index: OffsetIndex | null
  /** The store's, once it was open. */
  private salt = 0
  /** Where the records of a sealed segment end; null while it is active. */
  private sealedEnd: StorePlace | null = null
  /** When the first record of a sealed segment is from. */
  private sealedFirstMs = Number.POSITIVE_INFINITY
  /** Where those of an active one end whose store is closed at the moment. */
  private restingEnd: StorePlace | null = null
  /** Records were added that no sync has begun to cover. */
  private dirty = false
  private syncing = false
  /** A failed write may have left records behind the end; they must go before others follow. */
  private hasRemains = false
  /** The file goes on behind the end that the owner noted, as it was found; that too must go before others follow. */
  private hasTail = false
  /** Bytes of the store that the index file covers. */
  private indexedBytes = 0
  /** The index was made by a scan in this process: another scan would find the same. */
  private isIndexScanned = false

  private constructor(
    home: SegmentHome,
    baseOffset: number,
    store: Store | null,
    index: OffsetIndex | null,
    sealedEnd: StorePlace | null,
  ) {
    this.home = home
    this.baseOffset = baseOffset
    this.storePath = `${home.directory}/${segmentName(baseOffset)}${storeSuffix}`
    this.indexPath = `${home.directory}/${segmentName(baseOffset)}${indexSuffix}`
    this.store = store
    this.index = index
    this.sealedEnd = sealedEnd
  }

  /** Makes an empty active segment, in the place of any files of that name. */
  static create(home: SegmentHome, baseOffset: number): Segment {
    const segment = new Segment(home, baseOffset, null, null, null)
    segment.unlink()
    segment.index = new HeapIndex(baseOffset, storeHeaderBytes, home.timeOf)
    const salt = home.random.below(2 ** 32)
    try {
      segment.store = Store.create(home.disk, segment.storePath, { salt, baseOffset })
      segment.salt = salt
    } catch (error) {
      // What stays would be an unreadable store; on a full disk it would also hold space.
      if (home.disk.exists(segment.storePath)) home.disk.unlink(segment.storePath)
      throw error
    }
    home.warm.touch(segment) // not dirty: until it has records, the next open makes it anew
    return segment
  }

  /**
   * Opens the log's last segment for appending at `end`, which its owner knows to be synced, or, with null, behind its last
   * whole record. What follows in the file goes. A file that ends before `end` is a loss, and is left as it is.
   */
  static openActive(home: SegmentHome, baseOffset: number, end: number | null): SegmentOpening {
    const segment = new Segment(home, baseOffset, null, null, null)
    try {
      const store = segment.openStore()
      const known = segment.indexAtClose(store)
      const isKnownWhole = known !== null && (end === null || known.nextOffset <= end)
      if (known !== null && !isKnownWhole) known.truncate(Math.max(end!, baseOffset))
      const index = segment.indexByScan(store, known, end ?? undefined)
      segment.isIndexScanned = known === null
      const found = { offset: index.nextOffset, position: index.position(index.nextOffset) }
      if (end !== null && found.offset < end) {
        segment.release()
        return segment.loss(end, found.offset, 'its valid records end there')
      }
      store.resume(found)
      segment.index = index
      if (end === null) {
        store.truncate(found)
        segment.mark(true, false) // nobody knows whether what was found was synced
      } else {
        segment.hasTail = store.fileBytes > found.position
        if (isKnownWhole) segment.indexedBytes = found.position
        else if (segment.hasTail) segment.dropIndexFile()
        home.warm.touch(segment)
      }
      return { kind: 'open', segment }
    } catch (error) {
      segment.release()
      if (!isError(error, 'CORRUPT')) throw error
      return segment.loss(end ?? baseOffset, baseOffset, error.facts.what)
    }
  }

  /**
   * Opens a segment that others follow: it must hold exactly the records up to `nextOffset`. `isSynced` says whether
   * the caller knows that they are durable.
   */
  static openSealed(
    home: SegmentHome,
    baseOffset: number,
    nextOffset: number,
    isSynced: boolean,
  ): SegmentOpening {
    const segment = new Segment(home, baseOffset, null, null, { offset: nextOffset, position: 0 })
    try {
      const store = segment.openStore()
      let index: OffsetIndex | null = segment.mapIndex(store, nextOffset)
      if (index === null) {
        index = segment.indexByScan(store, null)
        if (index.nextOffset !== nextOffset) {
          segment.release()
          const why =
            index.nextOffset < nextOffset ? 'its valid records end there' : 'it runs into the next file'
          return segment.loss(nextOffset, Math.min(index.nextOffset, nextOffset), why)
        }
        segment.isIndexScanned = true
        segment.tryWriteIndex(index, store.salt)
      }
      segment.index = index
      segment.sealedFirstMs = index.times.firstMs
      segment.sealedEnd = { offset: nextOffset, position: index.position(nextOffset) }
      store.resume(segment.sealedEnd)
      segment.mark(!isSynced, false)
      if (isSynced) home.warm.touch(segment)
      return { kind: 'open', segment }
    } catch (error) {
      segment.release()
      if (!isError(error, 'CORRUPT')) throw error
      return segment.loss(nextOffset, baseOffset, error.facts.what)
    }
  }

  /** A segment that nothing reads any more and whose files only wait to be unlinked. */
  static forUnlinking(home: SegmentHome, baseOffset: number, nextOffset: number): Segment {
    return new Segment(home, baseOffset, null, null, { offset: nextOffset, position: 0 })
  }

  get nextOffset(): number {
    return this.end.offset
  }

  /** Bytes of the store that are in use. */
  get bytes(): number {
    return this.end.position
  }

  /** When its first record is from; infinity while it has none. */
  get firstMs(): number {
    return this.index?.times.firstMs ?? this.sealedFirstMs
  }

  private get end(): StorePlace {
    return this.sealedEnd ?? this.restingEnd ?? this.activeStore.endPlace
  }

  get isSealed(): boolean {
    return this.sealedEnd !== null
  }

  get isSyncing(): boolean {
    return this.syncing
  }

  /** Some of its records are in no sync that has succeeded. */
  get needsSync(): boolean {
    return this.dirty || this.syncing
  }

  /** Adds the records of `block` with one write and returns the offset of the first. Where it throws, none was added. */
  append(block: RecordBlock): number {
    const store = this.activeStore
    const index = this.index as HeapIndex
    const first = store.endPlace.offset
    assert(!this.hasRemains && !this.hasTail, `${this.storePath}: append behind what was left there`)
    let position: number
    try {
      position = store.appendBlock(block)
    } catch (error) {
      this.hasRemains = true
      throw error
    }
    index.appendBlock(position, block)
    this.mark(true, this.syncing)
    return first
  }

  /**
   * Removes what stands behind the end, before anything else is written: durably what a failed `append` may have left. The
   * tail that was found at the start needs no sync of its own: until the next one its owner notes no end behind it, so a
   * crash that brings it back finds it cut off again.
   */
  cutRemains(): void {
    if (!this.hasRemains && !this.hasTail) return
    const store = this.activeStore
    if (this.hasRemains) store.truncate(store.endPlace)
    else store.cutUnsynced()
    this.mark(true, this.syncing)
    this.hasRemains = false
    this.hasTail = false
  }

  /** The data of the record `offset`. Throws CORRUPT when it is not to be had. */
  read(offset: number): Bytes {
    return this.throughIndex((store, index) => this.readAt(store, index, offset))
  }

  private readAt(store: Store, index: OffsetIndex, offset: number): Bytes {
    const position = index.position(offset)
    const recordBytes = index.position(offset + 1) - position
    this.checkEntries(offset, position, recordBytes, this.bytes)
    return store.read(position, offset, recordBytes)
  }

  /**
   * The data of the records from `from` up to `to`, both in this segment: the first, and as many after it as keep the sum
   * within `bytesMax`. One read of the disk. Throws CORRUPT when one of them is not to be had.
   */
  readRange(from: number, to: number, bytesMax: number): Bytes[] {
    return this.throughIndex((store, index) => {
      const end = offsetWithin(index, from, to, bytesMax, recordHeaderBytes)
      const position = index.position(from)
      const endPosition = index.position(end)
      this.checkEntries(from, position, endPosition - position, this.bytes)
      const records = store.readRange({ offset: from, position }, endPosition)
      if (records.length !== end - from) throw this.corrupt(from, 'an index that points elsewhere')
      return records
    })
  }

  /**
   * The first record from `from` on that is of `timeMs` or later; `nextOffset` when there is none. Reads one interval of the
   * time index, and where none of it is so late the record behind it. The times of the record before the answer and of the
   * answer, which never decrease, prove it: an index that leads elsewhere is found out. Throws CORRUPT as `read` does.
   */
  seek(from: number, timeMs: number): number {
    const { baseOffset, nextOffset, home } = this
    return this.throughIndex((store, index) => {
      const { earlier, later } = around(index.times, timeMs, nextOffset - baseOffset)
      const first = Math.max(from, baseOffset + earlier)
      const last = Math.max(first, baseOffset + later)
      const isFit = last <= nextOffset && (first < last || first === from)
      if (!isFit) throw this.corrupt(first, 'a time index that points elsewhere')
      const found = this.intervalOf(store, index, first, last).findIndex(data => home.timeOf(data) >= timeMs)
      // An index that was made from the records has nothing to prove.
      if (!this.isIndexScanned) {
        const isBegun = found === 0 && first > from
        const isEarly =
          found === -1 && last < nextOffset && home.timeOf(this.readAt(store, index, last)) < timeMs
        if (isBegun || isEarly) throw this.corrupt(first, 'a time index of other times')
      }
      return found === -1 ? last : first + found
    })
  }

  /** The records [from, to), which begin within an interval of the time index. */
  private intervalOf(store: Store, index: OffsetIndex, from: number, to: number): Bytes[] {
    if (from === to) return []
    const position = index.position(from)
    const endPosition = index.position(to)
    this.checkEntries(from, position, endPosition - position, this.bytes)
    const isFit = index.position(to - 1) - position < timeIntervalBytes
    const records = isFit ? store.readRange({ offset: from, position }, endPosition) : []
    if (records.length !== to - from) throw this.corrupt(from, 'an index that points elsewhere')
    return records
  }

  /** Where the records before `offset` end in the store, proved by the last of them. */
  endPosition(offset: number): number {
    if (offset === this.baseOffset) return storeHeaderBytes
    if (offset === this.nextOffset) return this.bytes
    return this.throughIndex((store, index) => {
      const position = index.position(offset - 1)
      return position + recordHeaderBytes + store.read(position, offset - 1).byteLength
    })
  }

  /** No record follows: writes the index file. Where it throws, the segment is still active. */
  seal(): void {
    const store = this.activeStore
    const { index } = this
    assert(
      index !== null && !this.hasRemains && !this.hasTail,
      `${this.storePath}: sealed with what was left behind its end`,
    )
    writeIndexFile(this.home.disk, this.indexPath, index, store.salt)
    this.sealedEnd = store.endPlace
    this.sealedFirstMs = index.times.firstMs
    this.index = null
    if (!this.needsSync) this.home.warm.touch(this)
  }

  /** A sealed segment's index from its store alone, at least up to `nextOffset`: what `unseal` needs. */
  scan(nextOffset: number): HeapIndex {
    return this.throughIndex(store => {
      const index = this.indexByScan(store, null)
      if (index.nextOffset < nextOffset) throw this.corrupt(index.nextOffset, 'a wrong length or checksum')
      index.truncate(Math.min(index.nextOffset, this.nextOffset))
      return index
    })
  }

  /** Makes a sealed segment the active one again, with `nextOffset` as its end, durably. */
  unseal(nextOffset: number, scanned: HeapIndex): void {
    assert(this.sealedEnd !== null, `${this.storePath}: unsealed while active`)
    const { store, index } = this.opened()
    this.home.warm.forget(this)
    if (index instanceof SealedIndex) index.close()
    this.index = scanned
    store.resume({ offset: scanned.nextOffset, position: scanned.position(scanned.nextOffset) })
    this.sealedEnd = null
    this.truncate(nextOffset)
  }

  /** Removes the record `nextOffset` and all after it from the active segment, durably. */
  truncate(nextOffset: number): void {
    const store = this.activeStore
    const index = this.index as HeapIndex
    this.dropIndexFile()
    store.truncate({ offset: nextOffset, position: index.position(nextOffset) })
    index.truncate(nextOffset)
    this.hasRemains = false
    this.hasTail = false
    this.indexedBytes = 0
    this.mark(true, this.syncing)
  }

  /** Makes the records that are in it now durable, off the main thread. One at a time. */
  sync(done: (error: Error | null) => void): void {
    assert(this.store !== null && !this.syncing, `${this.storePath}: nothing to sync`)
    this.mark(false, true)
    this.store.syncAside(error => {
      this.mark(this.dirty || error !== null, false)
      if (!this.needsSync) this.home.warm.touch(this)
      done(error)
    })
  }

  /** Closes the files until the next read or append; one that is not yet synced keeps them. */
  cool(): void {
    if (this.needsSync || this.store === null) return
    if (this.isSealed) this.release()
    else {
      this.restingEnd = this.store.endPlace
      this.closeStore()
    }
  }

  /**
   * Writes an active segment's index as a file when enough was added since the last time: an eighth, so that all these
   * writes together are a small part of what the records take. Not synced: the next open checks it.
   */
  noteIndex(): void {
    const added = this.bytes - this.indexedBytes
    if (this.isSealed || this.index === null || added < Math.max(noteBytesMin, this.bytes / 8)) return
    this.tryWriteIndex(this.index, this.salt)
    this.indexedBytes = this.bytes
  }

  /** Closes an active segment so that the next open need not scan it. Not a sync. */
  close(): void {
    assert(!this.syncing, `${this.storePath}: closed during a sync`)
    this.home.warm.forget(this)
    try {
      if (this.sealedEnd === null && this.index !== null) {
        this.cutRemains()
        if (this.bytes > this.indexedBytes) this.tryWriteIndex(this.index, this.salt)
      }
    } finally {
      this.mark(false, false)
      this.release()
    }
  }

  /** Closes and removes the files, those of them that are there. Durable with the directory's sync. */
  unlink(): void {
    assert(!this.syncing, `${this.storePath}: unlinked during a sync`)
    this.retire()
    this.unlinkIndex()
    if (this.home.disk.exists(this.storePath)) this.home.disk.unlink(this.storePath)
  }

  /** Closes the files for good, and leaves them to others to remove: these. */
  retire(): readonly string[] {
    assert(!this.syncing, `${this.storePath}: retired during a sync`)
    this.home.warm.forget(this)
    this.mark(false, false)
    this.release()
    return [this.indexPath, this.storePath]
  }

  private get activeStore(): Store {
    assert(this.sealedEnd === null, `${this.storePath} is not the active segment`)
    return this.store ?? this.opened().store
  }

  private mark(dirty: boolean, syncing: boolean): void {
    const before = this.needsSync
    this.dirty = dirty
    this.syncing = syncing
    if (this.needsSync !== before) this.home.warm.countUnsynced(before ? -1 : 1)
  }

  /** Runs `read`; when it meets a wrong record, mistrusts the index, makes it again and runs `read` once more. */
  private throughIndex<T>(read: (store: Store, index: OffsetIndex) => T): T {
    const { store, index } = this.opened()
    try {
      return read(store, index)
    } catch (error) {
      if (!isError(error, 'CORRUPT') || this.isIndexScanned) throw error
      this.isIndexScanned = true
      const { end } = this
      const scanned = this.indexByScan(store, null)
      // Where the scan stops early the store is at fault: the old index still leads to the records behind the damage.
      if (scanned.nextOffset < end.offset || scanned.position(end.offset) !== end.position) throw error
      scanned.truncate(end.offset)
      if (index instanceof SealedIndex) index.close()
      this.index = scanned
      if (this.isSealed) this.tryWriteIndex(scanned, store.salt)
      return read(store, scanned)
    }
  }

  /** The store and the index, opened if the segment is cold. */
  private opened(): { store: Store; index: OffsetIndex } {
    const isCold = this.store === null
    try {
      const store = this.store ?? this.openStore()
      if (isCold) {
        const end = this.sealedEnd ?? this.restingEnd
        assert(end !== null, `${this.storePath} is closed`)
        store.resume(end)
      }
      this.index ??= this.openIndex(store)
      this.restingEnd = null
      if (!this.needsSync) this.home.warm.touch(this)
      return { store, index: this.index }
    } catch (error) {
      if (isCold && this.restingEnd === null) this.release()
      else if (isCold) this.closeStore()
      throw error
    }
  }

  /** The index of a sealed segment: its file, or what a scan finds. */
  private openIndex(store: Store): OffsetIndex {
    const mapped = this.mapIndex(store, this.nextOffset)
    this.isIndexScanned = mapped === null
    if (mapped !== null) return mapped
    const index = this.indexByScan(store, null)
    if (index.nextOffset !== this.nextOffset) {
      throw this.corrupt(index.nextOffset, `no index, and the valid records end before ${this.nextOffset}`)
    }
    this.tryWriteIndex(index, store.salt)
    return index
  }

  private openStore(): Store {
    const store = Store.open(this.home.disk, this.storePath)
    this.store = store
    this.salt = store.salt
    if (store.baseOffset !== this.baseOffset) {
      throw this.corrupt(this.baseOffset, `a store of records from ${store.baseOffset} on`)
    }
    return store
  }

  /** The index file, mapped; null where it is missing or is not the index of this store as it is. */
  private mapIndex(store: Store, nextOffset: number): SealedIndex | null {
    if (!this.home.disk.exists(this.indexPath)) return null
    const index = SealedIndex.open(this.home.map(this.indexPath), store.salt, this.baseOffset)
    if (index === null) return null
    const end = index.position(index.nextOffset)
    if (index.nextOffset === nextOffset && end >= storeHeaderBytes && end <= store.fileBytes) return index
    index.close()
    return null
  }

  /** What a clean close left behind, as far as it still fits the store: it saves the scan of those records. */
  private indexAtClose(store: Store): HeapIndex | null {
    if (!this.home.disk.exists(this.indexPath)) return null
    const index = SealedIndex.open(this.home.map(this.indexPath), store.salt, this.baseOffset)
    if (index === null) return null
    try {
      const last = index.nextOffset - 1
      if (last < this.baseOffset || !index.isIntact()) return null
      const position = index.position(last)
      const recordBytes = index.position(last + 1) - position
      this.checkEntries(last, position, recordBytes, store.fileBytes)
      if (store.read(position, last, recordBytes).byteLength !== recordBytes - recordHeaderBytes) return null
      return HeapIndex.copyOf(index, this.home.timeOf)
    } catch (error) {
      if (!isError(error, 'CORRUPT')) throw error
      return null
    } finally {
      index.close()
    }
  }

  /** Goes through the store's records behind `known`, or through all of them; up to `end`. */
  private indexByScan(store: Store, known: HeapIndex | null, end?: number): HeapIndex {
    const index = known ?? new HeapIndex(this.baseOffset, storeHeaderBytes, this.home.timeOf)
    const from = { offset: index.nextOffset, position: index.position(index.nextOffset) }
    const visit = ({ position }: StorePlace, data: Bytes) =>
      index.append(position, position + recordHeaderBytes + data.byteLength, data)
    store.scan(from, visit, end)
    return index
  }

  /** An index entry that can't be true must not become a read of gigabytes. */
  private checkEntries(offset: number, position: number, bytes: number, end: number): void {
    if (position < storeHeaderBytes || bytes < recordHeaderBytes || position + bytes > end) {
      throw this.corrupt(offset, 'an index that points outside')
    }
  }

  /** The index file is a shortcut: on a full disk the log goes on without it. */
  private tryWriteIndex(index: OffsetIndex, salt: number): void {
    try {
      writeIndexFile(this.home.disk, this.indexPath, index, salt)
    } catch (error) {
      if (error instanceof BrokenInvariant) throw error
      // The heap copy serves until the segment is cooled, a scan after that.
    }
  }

  /**
   * Before a cut, durably: records of other lengths may follow, and an index of those that were cut would be taken for
   * theirs if its last record happened to be the same.
   */
  private dropIndexFile(): void {
    if (!this.home.disk.exists(this.indexPath)) return
    this.unlinkIndex()
    this.home.disk.syncDirectory(this.home.directory)
  }

  private unlinkIndex(): void {
    if (this.home.disk.exists(this.indexPath)) this.home.disk.unlink(this.indexPath)
  }

  private closeStore(): void {
    this.store?.close()
    this.store = null
  }

  private release(): void {
    this.closeStore()
    this.restingEnd = null
    if (this.index instanceof SealedIndex) this.index.close()
    this.index = null
  }

  private corrupt(offset: number, what: string): RoundhouseError<'CORRUPT'> {
    return new RoundhouseError('CORRUPT', { where: `${this.storePath}, record ${offset}`, what })
  }

  private loss(wantedOffset: number, foundOffset: number, why: string): DataLoss {
    return { kind: 'data_loss', path: this.storePath, wantedOffset, foundOffset, why }
  }
}
