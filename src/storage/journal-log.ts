/**
 * One replica's log as the journal knows it, and how a replay rebuilds it from frames of which some may be rotten.
 *
 * Damage is kept as narrow as the later records allow. An entry that must exist but can't be read is a *hole*; a later
 * append over it, or bounds behind it, heal it. After a frame that can't be read at all everything about the replica is
 * in *doubt*: a later append clears it, when its `previousTerm` fits (Raft §5.3, Log Matching: the same term at the same
 * index means the same log up to there), its hard state replaces the lost one, and its configuration's number shows
 * that none is missing.
 */
import type { Bytes } from '../lib/bytes.ts'
import type { Entry, HardState } from '../raft/types.ts'
import {
  type DirectoryRow,
  type FrameRecord,
  type FullRecord,
  kindNumber,
  type StoredEntry,
} from './frame.ts'
import { CachedEntries, type JournalCache } from './journal-cache.ts'
import { JournalIndex, type Pins, segmentKey } from './journal-index.ts'

/** A gap longer than this is not kept entry by entry: the log starts anew behind it, in doubt. */
const holesMax = 1_000_000

type Append<E> = Extract<FrameRecord<E>, { kind: 'append' }>
type Copy<E> = Extract<FrameRecord<E>, { kind: 'copy' }>

export class ReplicaLog {
  readonly replica: number
  hardState: HardState = { term: 0, vote: 0, commit: 0 }
  configuration: Bytes | null = null
  configurationSequence = 0
  /** The log begins after this. */
  snapshotPoint: { readonly index: number; readonly term: number } = { index: 0, term: 0 }
  readonly index: JournalIndex
  readonly cached: CachedEntries
  /** What a frame that could not be read may have changed; all false but during a replay. */
  private doubt = { log: false, hardState: false, configuration: false }

  constructor(replica: number, pins: Pins, cache: JournalCache) {
    this.replica = replica
    this.index = new JournalIndex(1, pins)
    this.cached = new CachedEntries(cache)
  }

  get lastIndex(): number {
    return this.index.last
  }

  get lastTerm(): number {
    return this.term(this.lastIndex) ?? 0
  }

  /** undefined outside [snapshot point, last index] and where damage hides it. */
  term(index: number): number | undefined {
    if (index === this.snapshotPoint.index) return this.snapshotPoint.term
    return this.index.has(index) ? this.index.termAt(index) || undefined : undefined
  }

  full(): FullRecord {
    const { replica, hardState, configurationSequence, configuration, snapshotPoint, lastIndex, lastTerm } =
      this
    return {
      kind: 'full',
      replica,
      hardState,
      configurationSequence,
      configuration,
      snapshotPoint,
      lastIndex,
      lastTerm,
    }
  }

  /** The log goes on, or begins anew, after `index`: of another term there, it is not the log that was checkpointed. */
  compact(index: number, term: number): void {
    const known = this.term(index)
    if (known !== undefined && known !== term) {
      this.index.truncate(index + 1)
      this.cached.truncate(index + 1)
    }
    this.snapshotPoint = { index, term }
    this.index.compact(index)
    this.cached.compact(index)
  }

  /** All of `record` but its entries, whose place is not known yet: what they replace goes. */
  beginAppend(record: Append<Entry>): void {
    this.hardState = record.hardState
    if (record.configuration !== null) this.configuration = record.configuration
    this.configurationSequence = record.configurationSequence
    if (record.reset !== null) this.reset(record.reset)
    if (record.entries.length > 0) this.index.truncate(record.first)
  }

  /** The entries of `record`, written into `segment` by the frame `sequence` at `positions[from]` and so on. */
  endAppend(
    record: Append<Entry>,
    at: { segment: number; sequence: number; positions: Uint32Array; crcs: Uint32Array; from: number },
  ): void {
    let number = at.from
    for (const entry of record.entries) {
      const position = at.positions[number]!
      const kind = kindNumber(entry.kind)
      this.index.push(at.segment, kind, entry.term, position, entry.data.byteLength, at.crcs[number]!)
      number++
    }
    this.cached.append(record.entries, at.sequence)
  }

  /** Everything of it leaves memory. */
  clear(): void {
    this.index.truncate(0)
    this.cached.truncate(0)
  }

  private reset(point: { readonly index: number; readonly term: number }): void {
    this.index.truncate(0)
    this.cached.truncate(0)
    this.compact(point.index, point.term)
  }

  // --- Replay ---

  /** A frame was lost, and nobody knows of whom it was. */
  doubtAll(): void {
    this.doubt = { log: true, hardState: true, configuration: true }
  }

  replayAppend(record: Append<StoredEntry>, segment: number): void {
    if (record.reset !== null) {
      this.reset(record.reset)
      this.doubt.log = false
    }
    this.closeGap(record.first, record.previousTerm)
    if (record.entries.length > 0) this.index.truncate(record.first)
    for (let i = 0; i < record.entries.length; i++) {
      if (record.first + i < this.index.first) continue
      this.pushStored(record.entries[i]!, segment)
    }
    this.hardState = record.hardState
    this.doubt.hardState = false
    if (record.configuration !== null) this.configuration = record.configuration
    this.doubt.configuration =
      record.configuration === null && record.configurationSequence !== this.configurationSequence
    // The number stays behind where one is missing, so that the doubt outlives this record.
    if (!this.doubt.configuration) this.configurationSequence = record.configurationSequence
  }

  /** Of an append whose head is rotten the directory still tells the range. */
  replayLostAppend(row: DirectoryRow): void {
    this.doubt.hardState = true
    if (row.hasConfiguration) this.doubt.configuration = true
    if (row.hasReset) this.doubt.log = true
    if (row.count === 0) return
    if (row.first > this.lastIndex + 1) this.extendTo(row.first - 1, 0)
    this.index.truncate(row.first)
    this.extendTo(row.first + row.count - 1, 0)
  }

  replayCopy(record: Copy<StoredEntry>, segment: number): void {
    for (let i = 0; i < record.entries.length; i++) {
      const index = record.first + i
      const entry = record.entries[i]!
      if (!entry.isIntact || !this.index.has(index)) continue
      if (!this.index.isHole(index) && this.index.termAt(index) !== entry.term) continue
      const { kind, term, position, length, crc } = entry
      this.index.replace(index, segment, kindNumber(kind), term, position, length, crc)
    }
  }

  replayFull(record: FullRecord, isNew: boolean): void {
    this.hardState = record.hardState
    this.configuration = record.configuration
    this.configurationSequence = record.configurationSequence
    const { snapshotPoint, lastIndex, lastTerm } = record
    if (snapshotPoint.index > this.snapshotPoint.index || isNew) {
      this.compact(snapshotPoint.index, snapshotPoint.term)
    }
    if (this.lastIndex > lastIndex) this.index.truncate(lastIndex + 1)
    const known = this.term(lastIndex)
    const mayDiffer = this.lastIndex < lastIndex ? this.doubt.log : known !== undefined && known !== lastTerm
    if (mayDiffer) this.loseEntries()
    // However many: what is missing so far lies in segments that are gone, behind bounds or copies still to come.
    this.pushHoles(lastIndex, lastTerm)
    this.doubt = { log: false, hardState: false, configuration: false }
  }

  replayBounds(index: number, term: number): void {
    if (index > this.snapshotPoint.index) this.compact(index, term)
  }

  /**
   * Indexes [from, to) that are lost, null when none. `to` is the largest safe integer when it is not known how far the
   * damage goes, or when a vote may be lost: that matters whatever has been applied.
   */
  damaged(): { from: number; to: number } | null {
    let from = 0
    let to = 0
    for (let index = this.index.first; index <= this.lastIndex; index++) {
      if (!this.index.isHole(index)) continue
      if (from === 0) from = index
      to = index + 1
    }
    const { log, hardState, configuration } = this.doubt
    if (log || hardState || configuration) {
      return { from: from === 0 ? this.lastIndex + 1 : from, to: Number.MAX_SAFE_INTEGER }
    }
    return from === 0 ? null : { from, to }
  }

  private pushStored(entry: StoredEntry, segment: number): void {
    const { kind, term, position, length, crc } = entry
    if (entry.isIntact) this.index.push(segment, kindNumber(kind), term, position, length, crc)
    else this.index.pushHole(term)
  }

  /** Makes the log reach to `first` - 1, whose term is `previousTerm` (0: nobody knew), and judges by it what stands before. */
  private closeGap(first: number, previousTerm: number): void {
    if (first > this.lastIndex + 1) {
      if (this.doubt.log) this.loseEntries()
      if (this.extendTo(first - 1, previousTerm)) this.doubt.log = false
      return
    }
    const known = this.term(first - 1)
    if (known === undefined || (previousTerm === 0 && known !== 0)) return
    if (known !== previousTerm) this.loseEntries(first)
    else this.doubt.log = false
  }

  private loseEntries(to = this.lastIndex + 1): void {
    for (let index = this.index.first; index < to; index++) this.index.makeHole(index)
  }

  /** Holes up to `last`; false when they are too many and the log starts anew there. */
  private extendTo(last: number, lastTerm: number): boolean {
    if (last - this.lastIndex > holesMax) {
      this.compact(last, lastTerm)
      this.doubt.log = true
      return false
    }
    this.pushHoles(last, lastTerm)
    return true
  }

  private pushHoles(last: number, lastTerm: number): void {
    while (this.lastIndex < last) this.index.pushHole(this.lastIndex + 1 === last ? lastTerm : 0)
  }
}

/** Whether `index` of `log` still lies at `position` of `segment`. */
export function liesAt(log: ReplicaLog, index: number, segment: number, position: number): boolean {
  return (
    log.index.has(index) &&
    log.index.keyAt(index) === segmentKey(segment) &&
    log.index.positionAt(index) === position
  )
}
