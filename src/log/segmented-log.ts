/**
 * A log of records with dense offsets, kept in segments: files named by the offset of their first record. Appends go to
 * the last one; when it is full it is sealed and another begins.
 *
 *     0000…0000.store  0000…0000.index  │  0000…4711.store  0000…4711.index  │  0000…9000.store
 *     sealed                            │  sealed                            │  active
 *
 * The log itself remembers neither where it starts nor how much of it is durable: its owner notes both in a checkpoint,
 * after `sync`, and hands them back at `open`. What lies behind the noted end is cut (the owner's journal has it and
 * appends it again); what is missing before it is data loss, which is told and not mended.
 *
 * Cutting the front moves a logical start and touches no file. Files are given up only by `giveUpBefore`, when a
 * checkpoint that no longer needs them is durable. The log proposes what retention would cut; it never cuts by itself.
 */
import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { firstWhere } from '../lib/bisect.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Random } from '../lib/prng.ts'
import type { MapFile } from './mapped-file.ts'
import { indexDraftSuffix } from './offset-index.ts'
import type { Disk } from './ports.ts'
import { RecordBlock } from './record-block.ts'
import { type DataLoss, Segment } from './segment.ts'
import { baseOffsetOf, indexSuffix, type SegmentHome, segmentName, storeSuffix } from './segment-home.ts'
import { storeHeaderBytes } from './store.ts'
import type { TimeOf } from './time-index.ts'
import { WarmSegments } from './warm-segments.ts'

export const segmentBytesMaxDefault = 64 * 1024 * 1024
/** Positions are 32 bits wide, and one batch may be longer than a segment should be. */
export const segmentBytesMaxLimit = 1024 * 1024 * 1024

/** Half-open: the records [start, end). */
export interface NotedRange {
  readonly start: number
  readonly end: number
}

export interface SegmentedLogOptions {
  readonly disk: Disk
  /** Made if it is missing. All files in it belong to the log. */
  readonly directory: string
  /** How sealed indexes become memory: `memoryMapper` on a machine, `heapMapper` in a simulation. */
  readonly map: MapFile
  readonly random: Random
  readonly timeOf: TimeOf
  /**
   * What the owner knows to be durable. Null: nothing is known, take what is there, from the first file to the last
   * whole record; for a log that was closed, not for one that crashed.
   */
  readonly noted: NotedRange | null
  /** A segment that has records and would pass this with the next batch is sealed. */
  readonly segmentBytesMax?: number
  /** Shared by the logs of a node; by default the log has one of its own. */
  readonly warm?: WarmSegments
}

export type LogOpening = { readonly kind: 'open'; readonly log: SegmentedLog } | DataLoss

/** The offset that was asked for is not in [lowest, next). */
export interface OutOfRange {
  readonly kind: 'out_of_range'
  readonly offset: number
  readonly lowest: number
  readonly next: number
}

export type ReadResult = { readonly kind: 'record'; readonly data: Bytes } | OutOfRange
export type RangeResult =
  /** `records[i]` has the offset `from + i`. They are views into one buffer each run of one segment shares. */
  { readonly kind: 'records'; readonly from: number; readonly records: readonly Bytes[] } | OutOfRange
export type TruncateResult = { readonly kind: 'done' } | OutOfRange

export interface Retention {
  /** What is left of the sealed and the active files should fit this; the active segment is never proposed for it. */
  readonly bytesMax?: number
  /** Judges a segment by its newest record: true when it, and so all before it, may go. */
  readonly isExpired?: (data: Bytes) => boolean
}

/** The part of a file that holds the records [from, to): its first `bytes` bytes. */
export interface LogFile {
  readonly path: string
  readonly from: number
  readonly to: number
  readonly bytes: number
}

export class SegmentedLog {
  private readonly home: SegmentHome
  private readonly segmentBytesMax: number
  /** In the order of their offsets, without gaps; the last is the active one. Those before it are sealed. */
  private readonly segments: Segment[]
  /** Wholly before the start, in order; their files are still there. */
  private readonly trimmed: Segment[]
  private start: number
  /** Directories with names that no sync has covered, the log's own first. */
  private unsyncedDirectories: string[]
  private isSyncing = false
  /** The first failure of a sync, alone or as a part of a cut: nothing can be promised after it. */
  private failure: Error | null = null
  private isClosed = false

  private constructor(
    home: SegmentHome,
    segmentBytesMax: number,
    start: number,
    segments: Segment[],
    trimmed: Segment[],
    unsyncedDirectories: string[],
  ) {
    this.home = home
    this.segmentBytesMax = segmentBytesMax
    this.start = start
    this.segments = segments
    this.trimmed = trimmed
    this.unsyncedDirectories = unsyncedDirectories
  }

  /** Opens the log in a directory, or makes it there, starting at the noted end or at 0. */
  static open(options: SegmentedLogOptions): LogOpening {
    const { disk, directory, map, random, timeOf, noted, segmentBytesMax = segmentBytesMaxDefault } = options
    assert(
      segmentBytesMax > storeHeaderBytes && segmentBytesMax <= segmentBytesMaxLimit,
      `segments of ${segmentBytesMax} bytes`,
    )
    assert(
      noted === null || (noted.start >= 0 && noted.start <= noted.end),
      'a noted range that ends before it starts',
    )
    const home: SegmentHome = {
      disk,
      directory,
      map,
      random,
      timeOf,
      warm: options.warm ?? new WarmSegments(),
    }
    disk.makeDirectory(directory)
    const names = disk.list(directory)
    for (const name of names) if (isLeftover(name, names)) disk.unlink(`${directory}/${name}`)
    const bases = names.map(baseOffsetOf).filter(base => base !== null)
    if (noted === null && bases.length > 0 && isUnborn(home, bases.at(-1)!)) bases.pop()

    const end = noted?.end ?? null
    const start = noted?.start ?? bases[0] ?? 0
    const found = bases.length
    if (end !== null) {
      // Last first, so that a crash on the way leaves no gap.
      while (bases.length > 0 && bases.at(-1)! >= end) Segment.forUnlinking(home, bases.pop()!, end).unlink()
    }
    let first = bases.length - 1
    while (first > 0 && bases[first]! > start) first--
    const isEmpty = end === null ? bases.length === 0 : start === end
    if (!isEmpty && (bases.length === 0 || bases[first]! > start)) {
      const path = `${directory}/${segmentName(start)}`
      const why = 'there is no file with it'
      return { kind: 'data_loss', path, wantedOffset: end ?? start, foundOffset: start, why }
    }
    // Noted records were synced, and with them their names and all the parents'.
    const hasDurableNames = noted !== null && !isEmpty
    const unsynced = hasDurableNames ? (bases.length < found ? [directory] : []) : ancestorsOf(directory)
    return openSegments(home, bases, first, { start, end }, isEmpty, segments => {
      const trimmedTo = segments[0]!.baseOffset
      const trimmed = bases
        .filter(base => base < trimmedTo)
        .map((base, i) => Segment.forUnlinking(home, base, bases[i + 1] ?? trimmedTo))
      return new SegmentedLog(home, segmentBytesMax, start, segments, trimmed, unsynced)
    })
  }

  /** The first offset that can be read, if the log is not empty. */
  get lowestOffset(): number {
    return this.start
  }

  /** The offset that the next record will get. */
  get nextOffset(): number {
    return this.active.nextOffset
  }

  /** Bytes of the stores, trimmed ones that still wait to be unlinked aside. */
  get bytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.bytes, 0)
  }

  /** Whether `sync` has anything to do. */
  get needsSync(): boolean {
    return this.unsyncedDirectories.length > 0 || this.allSegments.some(segment => segment.needsSync)
  }

  /** Adds one record and returns its offset. */
  append(data: Bytes): number {
    return this.appendBlock(RecordBlock.of([data]))
  }

  /**
   * Adds the records of `block` with one write to one segment and returns the offset of the first; the others follow. They can
   * be read at once and are durable after `sync`. Where it throws (a full disk), none was added.
   */
  appendBlock(block: RecordBlock): number {
    this.assertUsable()
    const bytes = block.position(block.count)
    assert(bytes <= segmentBytesMaxLimit, `a batch of ${bytes} bytes`)
    this.orFail(() => this.active.cutRemains())
    if (block.count > 0 && this.hasRecords && this.active.bytes + bytes > this.segmentBytesMax) this.roll()
    return this.active.append(block)
  }

  /** Throws CORRUPT where the record's bytes are not what was written. */
  read(offset: number): ReadResult {
    assert(!this.isClosed, 'the log is closed')
    if (offset < this.start || offset >= this.nextOffset) return this.outOfRange(offset)
    return { kind: 'record', data: this.segments[this.segmentOf(offset)]!.read(offset) }
  }

  /**
   * The records [from, to), fewer where the log ends or `bytesMax` of data is reached; at least one if there is one.
   * `from` may be `nextOffset`: nothing yet. One read of the disk for each segment. Throws CORRUPT as `read` does.
   */
  range(from: number, to: number, bytesMax: number): RangeResult {
    assert(!this.isClosed, 'the log is closed')
    if (from < this.start || from > this.nextOffset) return this.outOfRange(from)
    const end = Math.min(to, this.nextOffset)
    let records: Bytes[] = []
    let bytesLeft = bytesMax
    for (let next = from; next < end; next = from + records.length) {
      const segment = this.segments[this.segmentOf(next)]!
      const segmentEnd = Math.min(end, segment.nextOffset)
      const more = segment.readRange(next, segmentEnd, bytesLeft)
      for (const data of more) bytesLeft -= data.byteLength
      // Only the first record of all may pass the limit.
      if (bytesLeft < 0 && records.length > 0) break
      records = records.length === 0 ? more : records.concat(more)
      if (next + more.length < segmentEnd || bytesLeft < 0) break
    }
    return { kind: 'records', from, records }
  }

  /**
   * The first offset whose record is of `timeMs` or later; `nextOffset` when there is none. Times never decrease: neither do
   * those of the segments' first records, and it is in the last segment that begins earlier, or begins the one behind it.
   * Touches one segment. Throws CORRUPT as `read` does.
   */
  seek(timeMs: number): number {
    assert(!this.isClosed, 'the log is closed')
    const segment = this.segments[this.lastSegment(each => each.firstMs < timeMs)]!
    return segment.seek(Math.max(this.start, segment.baseOffset), timeMs)
  }

  /** Records before `start` are gone for readers. Their files stay until `giveUpBefore`. */
  truncateBefore(start: number): TruncateResult {
    this.assertUsable()
    if (start < this.start || start > this.nextOffset) return this.outOfRange(start)
    // Nothing of the active file is left: without a new one its space could never be given back.
    if (start === this.nextOffset && this.hasRecords) {
      this.orFail(() => this.active.cutRemains())
      this.roll()
    }
    this.start = start
    while (this.segments.length > 1 && this.segments[0]!.nextOffset <= start) {
      const segment = this.segments.shift()!
      segment.cool()
      this.trimmed.push(segment)
    }
    return { kind: 'done' }
  }

  /**
   * All records are gone for readers, and the next one gets the offset `start`, behind the end: those between were let go
   * before they were appended. To be called while no checkpoint is under way that names any of them.
   */
  restartAt(start: number): void {
    this.assertUsable()
    assert(start > this.nextOffset, `restarted at ${start}, it ends at ${this.nextOffset}`)
    const next = Segment.create(this.home, start)
    for (const segment of this.segments.splice(0)) {
      segment.cool()
      this.trimmed.push(segment)
    }
    this.segments.push(next)
    this.start = start
    this.noteNewName()
  }

  /** Removes the record `end` and all after it, at once and durably: `end` is the next offset. */
  truncateAfter(end: number): TruncateResult {
    this.assertUsable()
    assert(!this.isSyncing, 'cut during a sync')
    if (end < this.start || end > this.nextOffset) return this.outOfRange(end)
    if (end === this.nextOffset) return { kind: 'done' }
    const keep = this.segmentOf(end)
    // Throws CORRUPT where it must, before anything has changed.
    const kept = this.segments[keep]!
    const scanned = kept.isSealed ? kept.scan(end) : null
    this.orFail(() => {
      const hadMore = keep < this.segments.length - 1
      // Last first, so that a crash on the way leaves no gap.
      while (this.segments.length > keep + 1) {
        this.active.unlink()
        this.segments.pop()
      }
      // A file that came back after a crash would continue a log that has gone another way since.
      if (hadMore) this.home.disk.syncDirectory(this.home.directory)
      if (scanned !== null) kept.unseal(end, scanned)
      else kept.truncate(end)
    })
    return { kind: 'done' }
  }

  /** Where `retention` would cut: an offset for `truncateBefore`, `lowestOffset` when all may stay. Changes nothing. */
  proposeStart(retention: Retention): number {
    const { bytesMax = Number.POSITIVE_INFINITY, isExpired } = retention
    let start = this.start
    let bytes = this.bytes
    for (const segment of this.segments) {
      if (segment.nextOffset <= start) continue // empty
      const isTooMuch = bytes > bytesMax && segment.isSealed
      if (!isTooMuch && !isExpired?.(segment.read(segment.nextOffset - 1))) break
      start = segment.nextOffset
      bytes -= segment.bytes
    }
    return start
  }

  /** The files that hold no record from `start` on; only trimmed ones, so at most those before the log's start. */
  unlinkableBefore(start: number): string[] {
    return this.trimmed.filter(segment => segment.nextOffset <= start).map(segment => segment.storePath)
  }

  /**
   * Gives up the files that `unlinkableBefore(start)` lists: whoever calls removes what is answered, when it likes. To be
   * called with the start that a durable checkpoint noted. A file in a sync that is under way stays for the next time.
   * A name that comes back after a crash is found before the start, and trimmed again.
   */
  giveUpBefore(start: number): readonly string[] {
    this.assertUsable()
    const paths: string[] = []
    while (this.trimmed.length > 0 && this.trimmed[0]!.nextOffset <= start && !this.trimmed[0]!.isSyncing)
      paths.push(...this.trimmed.shift()!.retire())
    return paths
  }

  /** The files that hold the records [from, to), in order: what a snapshot links or copies. */
  files(from: number, to: number): LogFile[] {
    assert(from >= this.start && from <= to && to <= this.nextOffset, `files of [${from}, ${to})`)
    return this.segments
      .filter(segment => segment.nextOffset > from && segment.baseOffset < to)
      .map(segment => {
        const end = Math.min(segment.nextOffset, to)
        return { path: segment.storePath, from: segment.baseOffset, to: end, bytes: segment.endPosition(end) }
      })
  }

  /** All files that this process has filled or opened, trimmed ones that wait to be unlinked among them. */
  allFiles(): LogFile[] {
    return this.allSegments
      .filter(segment => segment.bytes > 0)
      .map(({ storePath, baseOffset, nextOffset, bytes }) => ({
        ...{ path: storePath, from: baseOffset, to: nextOffset, bytes },
      }))
  }

  /**
   * Makes what is in the log now durable, off the main thread: file contents, then the names of directories where there are
   * new ones. Appends may go on meanwhile. One at a time; where nothing is to do, `done` is called before this returns.
   * After a failure the log takes no more writes. `names`: the directories to sync are added there instead, and are the
   * caller's to sync; many logs share most of them.
   */
  sync(done: (error: Error | null) => void, names?: Set<string>): void {
    this.assertUsable()
    assert(!this.isSyncing, 'a sync is under way')
    this.isSyncing = true
    const directories = this.unsyncedDirectories
    this.unsyncedDirectories = []
    const finish = () => {
      this.isSyncing = false
      if (this.failure === null && !this.isClosed) this.active.noteIndex()
      done(this.failure)
    }
    const syncNames = () => {
      const directory = names === undefined && this.failure === null ? directories.shift() : undefined
      if (directory === undefined) finish()
      else
        this.home.disk.syncDirectoryAside(directory, error => {
          this.failure ??= error
          syncNames()
        })
    }
    if (names !== undefined) for (const directory of directories) names.add(directory)
    const dirty = this.allSegments.filter(segment => segment.needsSync)
    let left = dirty.length
    if (left === 0) syncNames()
    for (const segment of dirty) {
      segment.sync(error => {
        this.failure ??= error
        if (--left === 0) syncNames()
      })
    }
  }

  /** Closes all files. Not a sync: what was not synced is as durable as the machine is. */
  close(): void {
    assert(!this.isClosed && !this.isSyncing, 'closed twice or during a sync')
    this.isClosed = true
    for (const segment of this.allSegments) segment.close()
  }

  private get allSegments(): Segment[] {
    return [...this.trimmed, ...this.segments]
  }

  private get active(): Segment {
    return this.segments.at(-1)!
  }

  private get hasRecords(): boolean {
    return this.active.nextOffset > this.active.baseOffset
  }

  /** Runs a change that syncs: if it fails half-way, it is not tried again. */
  private orFail(change: () => void): void {
    try {
      change()
    } catch (error) {
      this.failure = error as Error
      throw error
    }
  }

  private roll(): void {
    const next = Segment.create(this.home, this.nextOffset)
    try {
      this.active.seal()
    } catch (error) {
      next.unlink()
      throw error
    }
    this.segments.push(next)
    this.noteNewName()
  }

  private noteNewName(): void {
    const { directory } = this.home
    if (!this.unsyncedDirectories.includes(directory)) this.unsyncedDirectories.push(directory)
  }

  /** The index in `segments` of the one that holds `offset`; of `nextOffset`, the active one. */
  private segmentOf(offset: number): number {
    return this.lastSegment(({ baseOffset }) => baseOffset <= offset)
  }

  /** The index in `segments` of the last one that `begins` early enough, as all before it; 0 when none does. */
  private lastSegment(begins: (segment: Segment) => boolean): number {
    return firstWhere(1, this.segments.length, at => !begins(this.segments[at]!)) - 1
  }

  private outOfRange(offset: number): OutOfRange {
    return { kind: 'out_of_range', offset, lowest: this.start, next: this.nextOffset }
  }

  private assertUsable(): void {
    assert(!this.isClosed, 'the log is closed')
    if (this.failure !== null) {
      const what = `the log in ${this.home.directory}`
      throw new RoundhouseError('STORAGE_FAILED', { what, why: this.failure.message })
    }
  }
}

/** Opens `bases[first]` and those after it; on a loss none stays open. */
function openSegments(
  home: SegmentHome,
  bases: readonly number[],
  first: number,
  noted: { readonly start: number; readonly end: number | null },
  isEmpty: boolean,
  build: (segments: Segment[]) => SegmentedLog,
): LogOpening {
  if (isEmpty) return { kind: 'open', log: build([Segment.create(home, noted.start)]) }
  const segments: Segment[] = []
  for (let i = first; i < bases.length; i++) {
    const next = bases[i + 1]
    const opening =
      next === undefined
        ? Segment.openActive(home, bases[i]!, noted.end)
        : Segment.openSealed(home, bases[i]!, next, noted.end !== null)
    if (opening.kind === 'data_loss') {
      for (const segment of segments) segment.close()
      return opening
    }
    segments.push(opening.segment)
  }
  return { kind: 'open', log: build(segments) }
}

/** A half-written index, or one whose store is gone. */
function isLeftover(name: string, names: readonly string[]): boolean {
  if (name.endsWith(indexDraftSuffix)) return true
  return name.endsWith(indexSuffix) && !names.includes(name.slice(0, -indexSuffix.length) + storeSuffix)
}

/** A crash right after `Store.create`: a last file too short for a header. */
function isUnborn(home: SegmentHome, baseOffset: number): boolean {
  const segment = Segment.forUnlinking(home, baseOffset, baseOffset)
  const file = home.disk.open(segment.storePath)
  const size = file.size()
  file.close()
  if (size >= storeHeaderBytes) return false
  segment.unlink()
  return true
}

/** `a/b/c` → a/b/c, a/b, a and the root: the directories whose names lead to a file in the first. */
function ancestorsOf(directory: string): string[] {
  const parts = directory.split('/').filter(part => part !== '')
  return [...parts.keys()].map(i => parts.slice(0, parts.length - i).join('/')).concat('')
}
