/**
 * The journal: one log on disk under the Raft logs of all replicas of a node. A batch, whatever replicas it is of, is
 * one frame, one write, one fdatasync; a replica's log is a view of the frames through an index in memory.
 *
 * - `frame.ts` draws the bytes, `journal-recovery.ts` tells torn from rotten, `journal-log.ts` replays.
 * - Every segment opens with a full record of every replica, so an older segment is needed only for its entries. It goes
 *   when none of them is wanted any more *and* a durable frame says so: a crash can't bring back the need.
 * - A failed sync is final, and so is a failed write but one: for want of room nothing was promised and nothing lost.
 *   The same bytes are written to the same place again until there is room; whoever waits for them waits.
 */
import { isError, RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import { isNoSpace } from '../lib/no-space.ts'
import type { Random } from '../lib/prng.ts'
import type { Disk } from '../log/ports.ts'
import type { Entry, HardState } from '../raft/types.ts'
import {
  encodeFrame,
  entryChecksum,
  type FrameRecord,
  frameBytes,
  kindNumber,
  kindOfNumber,
  openingFlag,
  sealFlag,
} from './frame.ts'
import { JournalCache } from './journal-cache.ts'
import { Copier, type Relocation } from './journal-copies.ts'
import { Pins, segmentKey } from './journal-index.ts'
import { liesAt, ReplicaLog } from './journal-log.ts'
import { type Damage, type Recovered, recoverJournal } from './journal-recovery.ts'
import { eraseFrame, type Segment, SegmentFiles } from './journal-segments.ts'

/** How long the last frame may be mistaken for a torn one, if it rots and the node crashes. */
export const sealAfterMs = 50
/** Between two tries of a write that found no room. */
export const noSpaceRetryMs = 200
/** A cold read fetches at most this much at a time. */
const coldReadBytesMax = 1024 * 1024
/** A file is a sixteenth of the budget within these: what is needed no more goes by files. */
const segmentBytesRange = { min: 4 * 1024 * 1024, max: 32 * 1024 * 1024 }
const pageBytes = 4096

export interface JournalOptions {
  readonly disk: Disk
  readonly directory: string
  readonly clock: Clock
  readonly random: Random
  /** A sixteenth of the budget, 4 to 32 MiB, if not given. Files of another size, of another setting, are read as well. */
  readonly segmentBytes?: number
  /** What the files may take together; unapplied entries may make it more. */
  readonly budgetBytes?: number
  /** Recent entries kept in memory. */
  readonly cacheBytes?: number
  /** A write found no room; it is tried again. Told each time. */
  readonly onNoSpace?: (error: Error) => void
}

/** One replica's part of a batch; at most one a replica. */
export interface JournalRecord {
  readonly replica: number
  /** null = unchanged. */
  readonly hardState: HardState | null
  /** Replace what stands at and after their first index. */
  readonly entries: readonly Entry[]
  /** Who the group's replicas are, opaque; replaces the last one. */
  readonly configuration?: Bytes
  /** A snapshot was installed: the log is emptied and goes on after (index, term). */
  readonly reset?: { readonly index: number; readonly term: number }
}

export interface ReplicaRecovery {
  readonly replica: number
  readonly hardState: HardState
  readonly configuration: Bytes | null
  /** The log begins after this. */
  readonly snapshotPoint: { readonly index: number; readonly term: number }
  readonly lastIndex: number
  /**
   * Indexes [from, to) that were lost. `to` is Number.MAX_SAFE_INTEGER when nobody knows how far, or when a term or a
   * vote may be lost: then it matters whatever has been applied.
   */
  readonly damaged: { readonly from: number; readonly to: number } | null
}

export interface JournalStats {
  /** Since the start: frames written and synced, and how many of them were empty seals. */
  readonly frames: number
  readonly seals: number
  readonly bytesWritten: number
  readonly bytesCopied: number
  readonly lastSyncMs: number
  readonly slowestSyncMs: number
  /** Now. */
  readonly segments: number
  readonly freeSegments: number
  readonly usedBytes: number
  readonly budgetBytes: number
  readonly cacheBytes: number
  readonly replicas: number
}

export interface OpenedJournal {
  readonly journal: Journal
  readonly recovered: readonly ReplicaRecovery[]
  /** All rot that was found, also where later records make it harmless. */
  readonly damage: readonly Damage[]
  /** Where a torn last frame was cut: it had never been acknowledged. */
  readonly torn: { readonly path: string; readonly position: number } | null
}

type Done = (error: Error | null) => void
type AppendRecord = Extract<FrameRecord<Entry>, { kind: 'append' }>

interface Frame {
  readonly segment: Segment
  readonly position: number
  readonly sequence: number
  readonly oldestSegment: number
  readonly bytes: number
  readonly chunks: readonly Bytes[]
  readonly relocations: readonly (Relocation & { position: number; crc: number })[]
  readonly done: readonly Done[]
  readonly isBatch: boolean
}

export class Journal {
  private readonly clock: Clock
  private readonly random: Random
  private readonly journalId: number
  private readonly files: SegmentFiles
  private readonly budgetBytes: number
  private readonly onNoSpace: (error: Error) => void
  private readonly logs: Map<number, ReplicaLog>
  private readonly pins: Pins
  private readonly cache: JournalCache
  private readonly copier: Copier
  private nextSequence: number
  private previousCrc: number
  /** The last frame that was issued is an empty seal: everything before it is known to have been synced. */
  private isSealed: boolean
  private inFlight: Frame | null = null
  /** Frames to come: at most a seal or a removal of our own, and the host's batch. */
  private readonly queue: Frame[] = []
  private isWriting = false
  private isCopying = false
  private isClosing = false
  private cancelSeal: (() => void) | null = null
  /** Compacted since the last frame: the next one says so. */
  private readonly pendingBounds = new Set<ReplicaLog>()
  private pendingTombstones: { replica: number; done: Done }[] = []
  private whenIdle: (() => void) | null = null
  private failure: RoundhouseError<'STORAGE_FAILED'> | null = null
  private counts = { frames: 0, seals: 0, bytesWritten: 0, bytesCopied: 0, lastSyncMs: 0, slowestSyncMs: 0 }

  private constructor(
    options: JournalOptions,
    files: SegmentFiles,
    budgetBytes: number,
    state: { pins: Pins; cache: JournalCache; recovered: Recovered | null },
  ) {
    const { recovered } = state
    this.clock = options.clock
    this.random = options.random
    this.files = files
    this.budgetBytes = budgetBytes
    this.onNoSpace = options.onNoSpace ?? (() => {})
    this.pins = state.pins
    this.cache = state.cache
    this.copier = new Copier(state.pins, files.segmentBytes)
    this.journalId = recovered?.journalId ?? 1 + options.random.below(2 ** 53 - 1)
    this.logs = recovered?.logs ?? new Map()
    this.nextSequence = recovered?.nextSequence ?? 1
    this.previousCrc = recovered?.previousCrc ?? 0
    this.isSealed = recovered?.isSealed ?? false
  }

  /** Opens the journal in `directory`, or makes one. Reads all of it: synchronous, before a node serves. */
  static open(options: JournalOptions): OpenedJournal {
    const { disk, directory, budgetBytes = 512 * 1024 * 1024 } = options
    const { segmentBytes = segmentBytesOf(budgetBytes) } = options
    assert(segmentBytes % pageBytes === 0 && segmentBytes > 0, `journal: segments of ${segmentBytes} bytes`)
    disk.makeDirectory(directory)
    const parts = directory.split('/')
    for (let depth = 0; depth < parts.length; depth++) disk.syncDirectory(parts.slice(0, depth).join('/'))
    const pins = new Pins()
    const cache = new JournalCache(options.cacheBytes ?? 64 * 1024 * 1024)
    const files = new SegmentFiles(disk, directory, segmentBytes, budgetBytes)
    const all = files.openAll()
    const recovered = recoverJournal(all, pins, cache)
    const journal = new Journal(options, files, budgetBytes, { pins, cache, recovered })
    journal.begin(recovered, all)
    const torn = recovered?.torn ?? null
    return {
      journal,
      recovered: [...journal.logs.values()].map(recoveryOf),
      damage: recovered?.damage ?? [],
      torn: torn === null ? null : { path: torn.file.path, position: torn.position },
    }
  }

  /**
   * Makes `batch` durable: one frame, one fdatasync; at most one batch in flight. Its entries are readable when this
   * returns and durable at `done(null)`. `done` is never called inside this call. The entries' data must not change.
   */
  write(batch: readonly JournalRecord[], done: Done): void {
    assert(!this.isWriting, 'journal: a batch is in flight')
    assert(!this.isClosing, 'journal: closed')
    if (this.failure !== null) {
      this.fail(done)
      return
    }
    this.isWriting = true
    const records = batch.map(record => this.appendRecord(record))
    this.issue(records, false, [done], true)
  }

  /** The replica leaves memory at once; nothing of it is recovered any more after `done(null)`. */
  remove(replica: number, done: Done): void {
    assert(!this.isClosing, 'journal: closed')
    if (this.failure !== null) {
      this.fail(done)
      return
    }
    const log = this.logs.get(replica)
    if (log !== undefined) {
      log.clear()
      this.logs.delete(replica)
      this.pendingBounds.delete(log)
    }
    this.pendingTombstones.push({ replica, done })
    // In flight or queued frames may still be of it: the tombstone comes in a frame after them.
    this.afterFrame()
  }

  firstIndex(replica: number): number {
    return (this.logs.get(replica)?.snapshotPoint.index ?? 0) + 1
  }

  lastIndex(replica: number): number {
    return this.logs.get(replica)?.lastIndex ?? 0
  }

  /** undefined outside [firstIndex - 1, lastIndex], and where damage hides it. */
  term(replica: number, index: number): number | undefined {
    const log = this.logs.get(replica)
    if (log === undefined) return index === 0 ? 0 : undefined
    return log.term(index)
  }

  /**
   * Entries from ≤ index < to of a replica: at least one, then up to `bytesMax` of data. From memory where they are
   * recent, else by a synchronous read. Throws CORRUPT where an entry is damaged: it is never served.
   */
  entries(replica: number, from: number, to: number, bytesMax: number): Entry[] {
    const log = this.logs.get(replica)
    assert(
      log !== undefined && from >= log.index.first && from < to && to <= log.lastIndex + 1,
      `journal: entries [${from}, ${to}) of replica ${replica}`,
    )
    let end = from + 1
    let bytes = log.index.lengthAt(from)
    while (end < to && bytes + log.index.lengthAt(end) <= bytesMax) bytes += log.index.lengthAt(end++)
    return this.read(log, from, end)
  }

  /** What the entries after `index` take. */
  bytesAfter(replica: number, index: number): number {
    const log = this.logs.get(replica)
    if (log === undefined) return 0
    let bytes = 0
    for (let at = Math.max(index + 1, this.firstIndex(replica)); at <= log.index.last; at++)
      bytes += log.index.lengthAt(at)
    return bytes
  }

  /** Entries up to `index`, of `term`, are checkpointed and wanted by no follower: they may go. */
  compact(replica: number, index: number, term: number): void {
    const log = this.logOf(replica)
    if (index <= log.snapshotPoint.index) return
    log.compact(index, term)
    this.pendingBounds.add(log)
  }

  /** Who keeps the oldest segment: to be checkpointed first. Empty while less than half of the budget is in use. */
  pinnedBy(): readonly number[] {
    const oldest = this.files.inUse[0]!
    if (this.files.usedBytes * 2 < this.budgetBytes || oldest === this.files.current) return []
    const key = segmentKey(oldest.number)
    return [...this.logs.values()].filter(log => log.index.pins.count(key) > 0).map(log => log.replica)
  }

  /** Those that it has something of. */
  replicas(): readonly number[] {
    return [...this.logs.keys()]
  }

  /**
   * Reads a replica's entries in closed segments from the disk, whatever the cache has: from index `from` on, about
   * `bytesMax` of them. Answers where to go on, null when there is no more, and the first that is not what was written.
   */
  check(
    replica: number,
    from: number,
    bytesMax: number,
  ): { next: number | null; bytes: number; broken: { index: number; why: string } | null } {
    const log = this.logs.get(replica)
    const open = this.inFlight?.segment.number ?? this.files.current.number
    let bytes = 0
    let index = Math.max(from, log?.index.first ?? 0)
    while (log !== undefined && index <= log.lastIndex) {
      const segment = log.index.isHole(index)
        ? undefined
        : this.files.find(log.index.keyAt(index), segmentKey)
      // What is known to be lost, or lies where frames are still being written, is not asked for.
      if (segment === undefined || segment.number >= open) {
        index++
        continue
      }
      if (bytes >= bytesMax) return { next: index, bytes, broken: null }
      const entries: Entry[] = []
      try {
        index = this.readCold(log, index, log.lastIndex + 1, entries)
      } catch (error) {
        if (!isError(error, 'CORRUPT')) throw error
        const broken = index + entries.length
        return { next: broken + 1, bytes, broken: { index: broken, why: error.message } }
      }
      // A small entry costs a read as well.
      for (const { data } of entries) bytes += Math.max(data.byteLength, 512)
    }
    return { next: null, bytes, broken: null }
  }

  stats(): JournalStats {
    return {
      ...this.counts,
      segments: this.files.inUse.length,
      freeSegments: this.files.freeCount,
      usedBytes: this.files.usedBytes,
      budgetBytes: this.budgetBytes,
      cacheBytes: this.cache.bytes,
      replicas: this.logs.size,
    }
  }

  /** Waits for what is in flight, seals, closes the files. */
  close(done: Done): void {
    assert(!this.isClosing && !this.isWriting, 'journal: closed while a batch is in flight')
    this.isClosing = true
    this.stopSealTimer()
    const finish = () => this.files.close(() => (this.failure === null ? done(null) : this.fail(done)))
    const step = () => {
      if (this.inFlight !== null) this.whenIdle = step
      else if (this.failure !== null || this.isSealed) finish()
      else {
        this.whenIdle = step
        this.issueOwn()
      }
    }
    step()
  }

  // --- Writing ---

  private logOf(replica: number): ReplicaLog {
    let log = this.logs.get(replica)
    if (log === undefined) {
      assert(Number.isSafeInteger(replica) && replica > 0, `journal: replica id ${replica}`)
      log = new ReplicaLog(replica, this.pins, this.cache)
      this.logs.set(replica, log)
    }
    return log
  }

  /** What `record` becomes on disk. It carries the whole hard state: a frame with entries holds their commit index. */
  private appendRecord(record: JournalRecord): AppendRecord {
    const { replica, entries, configuration = null, reset = null } = record
    const log = this.logs.get(replica)
    const lastIndex = reset?.index ?? log?.lastIndex ?? 0
    const first = entries[0]?.index ?? lastIndex + 1
    const begins = reset ?? log?.snapshotPoint ?? { index: 0, term: 0 }
    assert(
      first > begins.index && first <= lastIndex + 1,
      `journal: replica ${replica} appends ${first} to a log of [${begins.index + 1}, ${lastIndex}]`,
    )
    for (let i = 1; i < entries.length; i++) {
      assert(entries[i]!.index === first + i, `journal: replica ${replica} leaves out ${first + i}`)
    }
    const previousTerm = first - 1 === begins.index ? begins.term : log!.term(first - 1)
    // A record without entries (a quarantine is noted) says nothing of those before it: their damage must not hinder it.
    assert(
      previousTerm !== undefined || entries.length === 0,
      `journal: replica ${replica} appends behind damage at ${first - 1}`,
    )
    return {
      kind: 'append',
      replica,
      hardState: record.hardState ?? log?.hardState ?? { term: 0, vote: 0, commit: 0 },
      first,
      previousTerm: previousTerm ?? 0,
      entries,
      configurationSequence: (log?.configurationSequence ?? 0) + (configuration === null ? 0 : 1),
      configuration,
      reset,
    }
  }

  /** Encodes a frame and sends it on its way. All that memory knows afterwards is true once the frame is durable. */
  private issue(
    appends: readonly AppendRecord[],
    wantsSeal: boolean,
    done: readonly Done[],
    isBatch: boolean,
  ): void {
    this.stopSealTimer()
    if (this.failure !== null) {
      for (const call of done) this.fail(call)
      return
    }
    try {
      const frame = this.encode(appends, wantsSeal, done, isBatch)
      this.queue.push(frame)
    } catch (error) {
      // No file for the next segment: nothing has changed yet, so all of it can be done again.
      const again = () => {
        if (this.isClosing) this.giveUp(error as Error, done)
        else this.issue(appends, wantsSeal, done, isBatch)
      }
      if (this.isToBeTriedAgain(error, again)) return
      if (!isFromTheDisk(error)) throw error
      this.giveUp(error as Error, done)
      return
    }
    this.pump()
  }

  private giveUp(error: Error, done: readonly Done[]): void {
    this.die(error)
    for (const call of done) this.fail(call)
    this.failQueue()
  }

  /** Whether `error` is for want of room, and `again` will run. Who closes does not wait for room. */
  private isToBeTriedAgain(error: unknown, again: () => void): boolean {
    if (!isNoSpace(error) || this.isClosing) return false
    this.onNoSpace(error as Error)
    this.clock.after(noSpaceRetryMs, again)
    return true
  }

  private encode(
    appends: readonly AppendRecord[],
    wantsSeal: boolean,
    done: readonly Done[],
    isBatch: boolean,
  ): Frame {
    const tombstones = this.pendingTombstones
    const copies = isBatch ? this.copies() : { records: [], relocations: [] }
    const records: FrameRecord<Entry>[] = []
    for (const { replica, snapshotPoint } of this.pendingBounds) {
      records.push({ kind: 'bounds', replica, index: snapshotPoint.index, term: snapshotPoint.term })
    }
    for (const { replica } of tombstones) records.push({ kind: 'tombstone', replica })
    records.push(...copies.records)
    records.push(...appends)

    let segment = this.files.current
    if (segment === undefined || segment.end + frameBytes(records) > this.files.segmentBytes) {
      const fulls = [...this.logs.values()].map(log => log.full())
      records.unshift(...fulls)
      segment = this.openSegment()
    }
    const position = segment.end
    const isSeal = wantsSeal && records.length === 0
    const flags = (isSeal ? sealFlag : 0) | (position === 0 ? openingFlag : 0)
    for (const record of appends) this.logOf(record.replica).beginAppend(record)
    const oldestSegment = this.oldestNeeded()
    const sequence = this.nextSequence++
    const encoded = encodeFrame(
      {
        journalId: this.journalId,
        incarnation: segment.incarnation,
        segment: segment.number,
        position,
        sequence,
        flags,
        oldestSegment,
        previousCrc: this.previousCrc,
      },
      records,
    )
    const { positions, crcs, bytes, crc, chunks } = encoded
    const relocations = copies.relocations.map((relocation, i) => ({
      ...relocation,
      position: positions[i]!,
      crc: crcs[i]!,
    }))
    let from = relocations.length
    for (const record of appends) {
      this.logOf(record.replica).endAppend(record, {
        segment: segment.number,
        sequence,
        positions,
        crcs,
        from,
      })
      from += record.entries.length
    }
    segment.end += bytes
    this.previousCrc = crc
    this.isSealed = isSeal
    if (isSeal) this.counts.seals++
    this.isCopying ||= relocations.length > 0
    this.pendingBounds.clear()
    this.pendingTombstones = []
    const calls = [...done, ...tombstones.map(tombstone => tombstone.done)]
    return { segment, position, sequence, oldestSegment, bytes, chunks, relocations, done: calls, isBatch }
  }

  private openSegment(): Segment {
    const segment = {
      number: (this.files.current?.number ?? 0) + 1,
      incarnation: 1 + this.random.below(2 ** 53 - 1),
      file: this.files.take(),
      end: 0,
    }
    this.files.inUse.push(segment)
    return segment
  }

  private oldestNeeded(): number {
    const { inUse } = this.files
    const pinned = inUse.find(segment => this.pins.count(segmentKey(segment.number)) > 0)
    return Math.min(pinned?.number ?? Number.POSITIVE_INFINITY, this.files.current.number)
  }

  private copies(): { records: FrameRecord<Entry>[]; relocations: Relocation[] } {
    const { inUse, segmentBytes } = this.files
    const isSpent = this.files.usedBytes + segmentBytes >= this.budgetBytes && inUse.length > 2
    if (!isSpent || this.isCopying) return { records: [], relocations: [] }
    const read = (log: ReplicaLog, from: number, to: number) => this.read(log, from, to)
    return this.copier.next(inUse[0]!.number, this.logs.values(), read)
  }

  private pump(): void {
    if (this.inFlight !== null || this.failure !== null) return
    const frame = this.queue.shift()
    if (frame === undefined) return
    this.inFlight = frame
    this.commit(frame)
  }

  private commit(frame: Frame): void {
    const startedAt = this.clock.now()
    frame.segment.file.commit(frame.position, frame.chunks, error => {
      if (error !== null && this.isToBeTriedAgain(error, () => this.commit(frame))) return
      this.inFlight = null
      if (error === null) this.landed(frame, this.clock.now() - startedAt)
      else {
        this.die(error)
        this.queue.unshift(frame)
        this.failQueue()
      }
    })
  }

  private landed(frame: Frame, syncMs: number): void {
    const { counts } = this
    counts.frames++
    counts.bytesWritten += frame.bytes
    counts.lastSyncMs = syncMs
    counts.slowestSyncMs = Math.max(counts.slowestSyncMs, syncMs)
    for (const { log, index, oldSegment, oldPosition, entry, position, crc } of frame.relocations) {
      if (!liesAt(log, index, oldSegment, oldPosition)) continue
      const { data, term, kind } = entry
      log.index.replace(index, frame.segment.number, kindNumber(kind), term, position, data.byteLength, crc)
      counts.bytesCopied += data.byteLength
    }
    if (frame.relocations.length > 0) this.isCopying = false
    const { inUse } = this.files
    try {
      while (inUse[0]!.number < frame.oldestSegment) this.files.release(inUse.shift()!.file)
    } catch (error) {
      this.die(error as Error)
    }
    this.cache.trim(frame.sequence)
    if (frame.position === 0) this.prepareSpare()
    if (frame.isBatch) this.isWriting = false
    this.pump()
    for (const call of frame.done) call(null)
    this.afterFrame()
  }

  /** The device may be idle: removals that wait go out; else the last frame is sealed when nothing follows it. */
  private afterFrame(): void {
    if (this.failure !== null) {
      this.failQueue()
      return
    }
    if (this.inFlight !== null) return
    if (this.pendingTombstones.length > 0) {
      this.issue([], false, [], false)
      return
    }
    if (this.isClosing) {
      const idle = this.whenIdle
      this.whenIdle = null
      idle?.()
      return
    }
    if (this.isSealed || this.cancelSeal !== null) return
    this.cancelSeal = this.clock.after(sealAfterMs, () => {
      this.cancelSeal = null
      if (this.failure === null && !this.isClosing && this.inFlight === null) this.issueOwn()
    })
  }

  /** A seal; or what waits to be told, which must be sealed in its turn. */
  private issueOwn(): void {
    this.issue([], true, [], false)
  }

  private stopSealTimer(): void {
    this.cancelSeal?.()
    this.cancelSeal = null
  }

  private prepareSpare(): void {
    this.files.prepare(error => {
      this.die(error)
      this.failQueue()
    })
  }

  /** After recovery: cuts what is torn for good, seals what is not sealed, or begins anew. */
  private begin(recovered: Recovered | null, all: readonly Segment['file'][]): void {
    for (const segment of recovered?.segments ?? []) this.files.inUse.push({ ...segment })
    if (recovered?.torn != null) eraseFrame(recovered.torn.file, recovered.torn.position)
    for (const file of recovered?.freeFiles ?? all) this.files.release(file)
    if (!this.isSealed) {
      if (recovered === null && this.files.freeCount === 0) this.files.release(this.files.create(true))
      const frame = this.encode([], true, [], false)
      frame.segment.file.write(frame.position, Buffer.concat(frame.chunks))
      frame.segment.file.sync()
      this.counts.frames++
      const { inUse } = this.files
      while (inUse[0]!.number < frame.oldestSegment) this.files.release(inUse.shift()!.file)
    }
    this.prepareSpare()
    this.afterFrame()
  }

  // --- Failure ---

  private die(error: Error): void {
    if (this.failure !== null) return
    this.stopSealTimer()
    this.failure = new RoundhouseError('STORAGE_FAILED', { what: 'the journal', why: error.message })
  }

  /** Everybody who waits hears of the failure. */
  private failQueue(): void {
    const waiting = [
      ...this.queue.splice(0).flatMap(frame => frame.done),
      ...this.pendingTombstones.splice(0).map(tombstone => tombstone.done),
    ]
    this.isWriting = false
    for (const call of waiting) this.fail(call)
    const idle = this.whenIdle
    this.whenIdle = null
    idle?.()
  }

  /** Later, as every other answer. */
  private fail(done: Done): void {
    this.clock.after(0, () => done(this.failure))
  }

  // --- Reading ---

  private read(log: ReplicaLog, from: number, to: number): Entry[] {
    const entries: Entry[] = []
    for (let index = from; index < to; ) {
      const cached = log.cached.get(index)
      if (cached !== undefined) {
        entries.push(cached)
        index++
      } else {
        index = this.readCold(log, index, to, entries)
      }
    }
    return entries
  }

  /** Reads the entries from `from` on that lie side by side, at most up to `to`; returns the next index. */
  private readCold(log: ReplicaLog, from: number, to: number, entries: Entry[]): number {
    const { index } = log
    const key = index.keyAt(from)
    const segment = this.files.find(key, segmentKey)
    if (segment === undefined) throw this.corrupt(log, from, 'lost in a damaged frame')
    const start = index.positionAt(from)
    let end = start + index.lengthAt(from)
    let next = from + 1
    while (
      next < to &&
      index.keyAt(next) === key &&
      index.positionAt(next) === end &&
      end - start < coldReadBytesMax &&
      log.cached.get(next) === undefined
    ) {
      end += index.lengthAt(next++)
    }
    const bytes = segment.file.read(start, end - start)
    for (let i = from; i < next; i++) {
      const at = index.positionAt(i) - start
      const data = bytes.subarray(at, at + index.lengthAt(i))
      if (entryChecksum(data, segment.incarnation, log.replica, i) !== index.crcAt(i)) {
        throw this.corrupt(log, i, `a wrong checksum in ${segment.file.path} at ${index.positionAt(i)}`)
      }
      entries.push({ term: index.termAt(i), index: i, kind: kindOfNumber(index.kindAt(i)), data })
    }
    return next
  }

  private corrupt(log: ReplicaLog, index: number, what: string): RoundhouseError<'CORRUPT'> {
    return new RoundhouseError('CORRUPT', { where: `journal, replica ${log.replica}, index ${index}`, what })
  }
}

function recoveryOf(log: ReplicaLog): ReplicaRecovery {
  const { replica, hardState, configuration, snapshotPoint, lastIndex } = log
  return { replica, hardState, configuration, snapshotPoint, lastIndex, damaged: log.damaged() }
}

function isFromTheDisk(error: unknown): boolean {
  return error instanceof Error && 'code' in error && !(error instanceof RoundhouseError)
}

function segmentBytesOf(budgetBytes: number): number {
  const { min, max } = segmentBytesRange
  const bytes = Math.min(max, Math.max(min, budgetBytes / 16))
  return bytes - (bytes % pageBytes)
}
