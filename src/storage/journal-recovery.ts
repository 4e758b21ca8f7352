/**
 * Reads the journal's files after a start: which segments there are, where the last frame ends, what is rotten.
 *
 * One write is under way at a time, so every frame before the last one that was *begun* had been synced. Hence the rule:
 * the last one begun, if invalid, is torn and cut; any other that is invalid is rot and is reported, never cut. An empty
 * seal frame after a pause is what makes the frame before it "not the last".
 */
import { assert } from '../lib/assert.ts'
import type { File } from '../log/ports.ts'
import {
  align,
  type DirectoryRow,
  decodeHeader,
  decodeRecords,
  type FrameHeader,
  frameAlignment,
  isTrace,
  openingFlag,
  sealFlag,
} from './frame.ts'
import type { JournalCache } from './journal-cache.ts'
import type { Pins } from './journal-index.ts'
import { ReplicaLog } from './journal-log.ts'

/** A place in the journal that was synced once and can't be read. */
export interface Damage {
  readonly path: string
  readonly segment: number
  readonly position: number
  /** null when no directory says whose it was: it may have been anybody's. */
  readonly replica: number | null
  /** Indexes [from, to) that were there; null when the record had none, or nobody knows. */
  readonly range: { readonly from: number; readonly to: number } | null
  readonly what: 'segment' | 'frame' | 'directory' | 'record' | 'entry'
}

/** The life of a file: which segment its frames belong to. */
interface Life {
  readonly file: File
  readonly journalId: number
  readonly incarnation: number
  readonly number: number
}

interface ScannedFrame {
  readonly header: FrameHeader
  /** null when the directory is damaged or the frame reaches past the end of the file. */
  readonly rows: readonly DirectoryRow[] | null
  readonly isValid: boolean
  /** Where an unreadable stretch before this frame begins; null when it follows the one before at once. */
  readonly gapFrom: number | null
}

interface Scan {
  readonly frames: ScannedFrame[]
  /** Where the next frame goes. */
  readonly end: number
  /** Where an unreadable stretch at the end begins, behind which a header was begun; else null. */
  readonly gapFrom: number | null
  /** Whether a header with a wrong checksum stands at `end`: a write was begun there. */
  readonly isTorn: boolean
}

export interface Recovered {
  readonly journalId: number
  readonly logs: Map<number, ReplicaLog>
  readonly damage: Damage[]
  /** Oldest first. */
  readonly segments: { number: number; incarnation: number; file: File; end: number }[]
  readonly freeFiles: File[]
  /** A torn frame that was cut: its file and position. */
  readonly torn: { file: File; position: number } | null
  readonly nextSequence: number
  readonly previousCrc: number
  readonly frames: number
  /** The last frame is a seal and nothing was begun after it. */
  readonly isSealed: boolean
}

/** null when there is no journal in `files`. */
export function recoverJournal(files: readonly File[], pins: Pins, cache: JournalCache): Recovered | null {
  const lives = files.map(findLife).filter(life => life !== null)
  lives.sort((a, b) => a.number - b.number)
  const journalId = lives.at(-1)?.journalId
  const ours = lives.filter(life => life.journalId === journalId)
  let torn: Recovered['torn'] = null
  let last = ours.pop()
  if (last === undefined || journalId === undefined) return null
  let lastScan = scan(last)
  // The last frame that was begun: only it may be torn.
  const begun = lastScan.frames.at(-1)!
  if (!begun.isValid && lastScan.gapFrom === null && !lastScan.isTorn) {
    torn = { file: last.file, position: begun.header.position }
    lastScan.frames.pop()
    if (lastScan.frames.length > 0) {
      const gapFrom = begun.gapFrom
      lastScan = { frames: lastScan.frames, end: begun.header.position, gapFrom, isTorn: true }
    } else if (begun.gapFrom === null) {
      // The first frame of a new segment: the segment before it is the last one again.
      last = ours.pop()
      if (last === undefined) return null
      lastScan = scan(last)
    } else {
      // The opening frame is rotten and a torn one follows it. Nothing to replay, but a place to go on from.
      lastScan = { frames: [], end: begun.header.position, gapFrom: 0, isTorn: true }
    }
  }
  const replay = new Replay(pins, cache)
  const oldest = lastScan.frames.reduce((sum, frame) => Math.max(sum, frame.header.oldestSegment), 0)
  const segments: Recovered['segments'] = []
  replay.expect(Math.max(1, oldest))
  for (const life of ours) {
    if (life.number < oldest) continue
    const { frames, end, gapFrom } = scan(life)
    replay.segment(life, frames)
    if (gapFrom !== null) replay.unreadable(life, gapFrom, 'frame')
    segments.push({ number: life.number, incarnation: life.incarnation, file: life.file, end })
  }
  replay.segment(last, lastScan.frames)
  if (lastScan.gapFrom !== null) replay.unreadable(last, lastScan.gapFrom, 'frame')
  const { number, incarnation, file } = last
  segments.push({ number, incarnation, file, end: lastScan.end })
  const used = new Set(segments.map(segment => segment.file))
  // After an unreadable stretch a number is left out, so that the next start sees that something was there.
  const skipped = lastScan.gapFrom === null ? 0 : 1
  const previous = lastScan.frames.at(-1)
  return {
    journalId,
    logs: replay.logs,
    damage: replay.damage,
    segments,
    freeFiles: files.filter(other => !used.has(other)),
    torn,
    nextSequence: torn !== null && skipped === 1 ? begun.header.sequence : replay.sequence + 1 + skipped,
    previousCrc: skipped === 1 ? 0 : replay.previousCrc,
    frames: replay.frames,
    isSealed:
      torn === null &&
      !lastScan.isTorn &&
      previous?.isValid === true &&
      (previous.header.flags & sealFlag) !== 0,
  }
}

/**
 * The newest life in `file`. A valid header at its start is always of the newest: a file is used again from its start.
 * Otherwise (the start is torn or rotten) the highest segment number anywhere in it decides.
 */
function findLife(file: File): Life | null {
  const first = decodeHeader(file.read(0, frameAlignment), 0)
  const life = ({ journalId, incarnation, segment }: FrameHeader): Life => ({
    file,
    journalId,
    incarnation,
    number: segment,
  })
  if (first !== null) return life(first)
  const bytes = file.read(0, file.size())
  let newest: FrameHeader | null = null
  for (let position = 0; position < bytes.byteLength; position += frameAlignment) {
    const header = decodeHeader(bytes, position)
    if (header !== null && header.segment > (newest?.segment ?? 0)) newest = header
  }
  return newest === null ? null : life(newest)
}

/** Walks the frames of `life` from one to the next, and from sector to sector where that leads nowhere. */
function scan(life: Life): Scan {
  const bytes = life.file.read(0, life.file.size())
  const frames: ScannedFrame[] = []
  let sequence = 0
  const headerAt = (position: number): FrameHeader | null => {
    const header = decodeHeader(bytes, position)
    const isOurs =
      header !== null &&
      header.journalId === life.journalId &&
      header.incarnation === life.incarnation &&
      header.sequence > sequence
    return isOurs ? header : null
  }
  const isBegun = (position: number) =>
    decodeHeader(bytes, position) === null && isTrace(bytes, position, life.journalId, life.incarnation)
  let position = 0
  let gapFrom: number | null = null
  for (;;) {
    const header = headerAt(position)
    if (header !== null) {
      const rows = position + header.length <= bytes.byteLength ? decodeRecords(bytes, header) : null
      frames.push({ header, rows, isValid: rows?.every(isIntact) ?? false, gapFrom })
      gapFrom = null
      sequence = header.sequence
      position += align(header.length)
      continue
    }
    let next = position + frameAlignment
    while (next < bytes.byteLength && headerAt(next) === null && !isBegun(next)) next += frameAlignment
    if (next >= bytes.byteLength) return { frames, end: position, gapFrom, isTorn: isBegun(position) }
    gapFrom ??= position
    position = next
  }
}

function isIntact(row: DirectoryRow): boolean {
  const { record } = row
  if (record === null) return false
  return record.kind === 'append' || record.kind === 'copy'
    ? record.entries.every(entry => entry.isIntact)
    : true
}

class Replay {
  readonly logs = new Map<number, ReplicaLog>()
  readonly damage: Damage[] = []
  /** Of the last frame; 0 before the first. */
  sequence = 0
  previousCrc = 0
  frames = 0
  private lastNumber = 0
  private readonly pins: Pins
  private readonly cache: JournalCache

  constructor(pins: Pins, cache: JournalCache) {
    this.pins = pins
    this.cache = cache
  }

  /** The number of the first segment that must be there. */
  expect(number: number): void {
    this.lastNumber = number - 1
  }

  segment(life: Life, frames: readonly ScannedFrame[]): void {
    let isKnown = life.number !== this.lastNumber + 1
    if (isKnown) this.unreadable(life, 0, 'segment')
    this.lastNumber = life.number
    for (const frame of frames) {
      const { header } = frame
      const isNext = header.sequence === this.sequence + 1
      if (frame.gapFrom !== null) {
        this.unreadable(life, frame.gapFrom, 'frame')
      } else if (isKnown) {
        // The frames that are missing before this one went with their segment.
      } else if (this.sequence > 0 && (!isNext || header.previousCrc !== this.previousCrc)) {
        this.unreadable(life, header.position, 'frame')
      } else if (this.frames === 0 && (header.flags & openingFlag) === 0) {
        this.unreadable(life, 0, 'segment')
      }
      isKnown = false
      this.sequence = header.sequence
      this.previousCrc = header.crc
      this.frames++
      if (frame.rows === null) this.unreadable(life, header.position, 'directory')
      else this.frame(life, header, frame.rows)
    }
  }

  /** Something was synced at `position`, and nobody knows whose it was. */
  unreadable({ file, number }: Life, position: number, what: Damage['what']): void {
    this.damage.push({ path: file.path, segment: number, position, replica: null, range: null, what })
    for (const log of this.logs.values()) log.doubtAll()
  }

  private frame(life: Life, header: FrameHeader, rows: readonly DirectoryRow[]): void {
    if ((header.flags & openingFlag) !== 0) {
      // An opening frame names every replica: one that is missing has been removed.
      const named = new Set(rows.map(row => row.replica))
      for (const replica of [...this.logs.keys()]) if (!named.has(replica)) this.drop(replica)
    }
    for (const row of rows) {
      if (row.kind === 'tombstone') {
        this.drop(row.replica)
        continue
      }
      this.note(life, row)
      const isNew = !this.logs.has(row.replica)
      this.apply(this.log(row.replica), row, header.segment, isNew)
    }
  }

  private apply(log: ReplicaLog, row: DirectoryRow, segment: number, isNew: boolean): void {
    const { record } = row
    if (record === null) {
      if (row.kind === 'append') log.replayLostAppend(row)
      // Only who was not known before needs the full record; a lost copy or lost bounds leave holes, if it matters.
      if (row.kind === 'full' && isNew) log.doubtAll()
      return
    }
    switch (record.kind) {
      case 'append':
        log.replayAppend(record, segment)
        break
      case 'copy':
        log.replayCopy(record, segment)
        break
      case 'full':
        log.replayFull(record, isNew)
        break
      case 'bounds':
        log.replayBounds(record.index, record.term)
        break
      case 'tombstone':
        break
    }
  }

  /** Reports what of `row` is damaged. */
  private note({ file, number }: Life, row: DirectoryRow): void {
    const about = { path: file.path, segment: number, replica: row.replica }
    if (row.record === null) {
      const range = row.count === 0 ? null : { from: row.first, to: row.first + row.count }
      this.damage.push({ ...about, position: row.position, range, what: 'record' })
      return
    }
    if (row.record.kind !== 'append' && row.record.kind !== 'copy') return
    for (const [i, entry] of row.record.entries.entries()) {
      if (entry.isIntact) continue
      const range = { from: row.first + i, to: row.first + i + 1 }
      this.damage.push({ ...about, position: entry.position, range, what: 'entry' })
    }
  }

  private log(replica: number): ReplicaLog {
    let log = this.logs.get(replica)
    if (log === undefined) {
      assert(Number.isSafeInteger(replica) && replica > 0, `journal: replica id ${replica}`)
      log = new ReplicaLog(replica, this.pins, this.cache)
      this.logs.set(replica, log)
    }
    return log
  }

  private drop(replica: number): void {
    this.logs.get(replica)?.clear()
    this.logs.delete(replica)
  }
}
