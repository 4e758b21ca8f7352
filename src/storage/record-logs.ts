import { RoundhouseError } from '../errors.ts'
import { decodePartition, partitionIdOf, partitionLog } from '../keyspace/partitions.ts'
import { sumAt, sumBytes, timestampOf } from '../keyspace/record.ts'
import type { RecordStore } from '../keyspace/row-store.ts'
import { assert } from '../lib/assert.ts'
import { firstWhere } from '../lib/bisect.ts'
import type { Bytes } from '../lib/bytes.ts'
import { isNoSpace } from '../lib/no-space.ts'
import { type Packed, PackedWalk } from '../lib/packed.ts'
import type { Random } from '../lib/prng.ts'
import type { MapFile } from '../log/mapped-file.ts'
import type { Disk } from '../log/ports.ts'
import { RecordBlock, recordHeaderBytes } from '../log/record-block.ts'
import { SegmentedLog } from '../log/segmented-log.ts'
import type { WarmSegments } from '../log/warm-segments.ts'

/**
 * The logs of records of one replica: a segmented log each, in
 *
 *     streams/<replica>/<generation>/<stream>/<partition>-<birth>/
 *
 * The generation is that of the replica's rows (checkpoint-record.ts): a snapshot is installed beside what is there, and
 * one flip of the checkpoint changes rows and records together.
 *
 * The rows are the truth of where a log starts and ends. What is appended waits in memory until there is enough for a
 * write, until it is to be checkpointed, or until there is room on the disk; it can be read all the while, and no sync is
 * made but for a checkpoint: the journal has the entries. At a start each log is cut to the end that the checkpoint's row
 * names, and the entries behind it come again. A log that ends sooner has lost records: CORRUPT.
 *
 * No file is unlinked before a checkpoint that does not need it is durable, nor while a snapshot is being taken; then off
 * the main thread, one after another.
 */
export interface RecordHome {
  readonly disk: Disk
  readonly map: MapFile
  readonly random: Random
  /** The open files of all replicas of the node. */
  readonly warm: WarmSegments
  readonly segmentBytesMax?: number
}

/** Of a log: as many bytes wait for a write, at most, while there is room on the disk. */
const unwrittenBytesMax = 256 * 1024
/** In one piece: memory, and the next write. A record of its own may be larger; a log that gets little has smaller ones. */
const blockBytes = { min: 1024, max: 64 * 1024 }
/** Of a checkpoint: so many logs are written and synced at the same time; that many descriptors it takes at most. */
const syncsAtOnceMax = 16
const root = 'streams'

/** A file of records as it is now, for a snapshot. */
export interface RecordFile {
  /** `<stream>/<partition>-<birth>` */
  readonly log: string
  readonly baseOffset: number
  readonly path: string
  readonly bytes: number
}

interface OpenLog {
  /** null until the first write: then it holds nothing, and begins at `base`. */
  segments: SegmentedLog | null
  base: number
  /** Behind the end of `segments`, in order. */
  unwritten: RecordBlock[]
  unwrittenCount: number
  unwrittenBytes: number
  /** The next write is tried when so many wait: after one that found no room, later and later. */
  writeAt: number
  /** Where readers begin; the files follow when they can. */
  start: number
}

/** As of the moment in which a checkpoint froze the rows. */
export interface FrozenLogs {
  readonly starts: ReadonlyMap<string, number>
  readonly dropped: readonly string[]
  /** By name, those with something to write or to sync. */
  readonly due: ReadonlyMap<string, OpenLog>
}

export class RecordLogs implements RecordStore {
  readonly directory: string
  private readonly home: RecordHome
  private readonly logs = new Map<string, OpenLog>()
  /** Gone for readers; their files wait for a checkpoint. */
  private readonly dropped = new Map<string, OpenLog>()
  private pins = 0
  private waiting = 0
  /** A checkpoint is under way: all that was there when it began must get into files. */
  private isFrozen = false

  constructor(home: RecordHome, directory: string) {
    this.home = home
    this.directory = directory
  }

  /** Opens a log as a durable checkpoint names it. Throws CORRUPT where records are missing. */
  resume(log: string, start: number, end: number): void {
    this.add(log, start === end ? null : this.openSegments(log, start, end), start)
  }

  private openSegments(log: string, start: number, end: number): SegmentedLog {
    const { disk, map, random, warm, segmentBytesMax } = this.home
    const opening = SegmentedLog.open({
      ...{ disk, map, random, warm, timeOf: timestampOf, noted: { start, end } },
      directory: `${this.directory}/${log}`,
      ...(segmentBytesMax === undefined ? {} : { segmentBytesMax }),
    })
    if (opening.kind === 'data_loss') {
      const { path, wantedOffset, foundOffset, why } = opening
      const what = `records ${foundOffset} to ${wantedOffset - 1} are missing: ${why}`
      throw new RoundhouseError('CORRUPT', { where: path, what })
    }
    return opening.log
  }

  private add(log: string, segments: SegmentedLog | null, start: number): OpenLog {
    const opened: OpenLog = {
      segments,
      base: start,
      unwritten: [],
      unwrittenCount: 0,
      unwrittenBytes: 0,
      writeAt: unwrittenBytesMax,
      start,
    }
    this.logs.set(log, opened)
    return opened
  }

  append(log: string, first: number, records: readonly Packed[], stamp: Bytes): void {
    const found = this.logs.get(log) ?? this.add(log, null, first)
    assert(first === endOf(found), `${this.directory}/${log}: append at ${first}, it ends at ${endOf(found)}`)
    for (const packed of records) {
      const { dataBytes, memoryBytes } = addTo(found.unwritten, packed, stamp)
      found.unwrittenCount += packed.count
      found.unwrittenBytes += dataBytes
      this.waiting += memoryBytes
    }
    if (found.unwrittenBytes < found.writeAt) return
    // What waits counts as memory: where it can't be written for want of descriptors, a checkpoint comes soon and syncs.
    if (this.home.warm.isCrowded && found.segments?.needsSync !== true) return
    if (!this.write(log, found)) found.writeAt = 2 * found.unwrittenBytes
  }

  /** False: there is no room now; all stays in memory. The journal keeps the entries, and takes no more of them either. */
  private write(name: string, log: OpenLog): boolean {
    if (log.unwritten.length === 0) return true
    try {
      log.segments ??= this.openSegments(name, log.base, log.base)
      while (log.unwritten.length > 0) {
        const block = log.unwritten[0]!
        log.segments.appendBlock(block)
        this.took(log, block.count)
      }
    } catch (error) {
      if (isNoSpace(error)) return false
      throw error
    }
    log.writeAt = unwrittenBytesMax
    return true
  }

  read(log: string, from: number, to: number, bytesMax: number): readonly Bytes[] {
    const found = this.logs.get(log)
    assert(
      found !== undefined && from >= found.start && to <= endOf(found),
      `${this.directory}/${log}: read of [${from}, ${to})`,
    )
    const written = writtenTo(found)
    if (found.segments === null || from >= written)
      return unwrittenWithin(found, from - written, to - written, bytesMax)
    const result = this.readable(log, () => found.segments!.range(from, Math.min(to, written), bytesMax))
    assert(result.kind === 'records', `${this.directory}/${log}: read at ${from}, before its start`)
    return result.records
  }

  seek(log: string, timestampMs: number): number {
    const found = this.logs.get(log)
    assert(found !== undefined, `${this.directory}/${log}: searched, and never made`)
    const { segments, unwritten, start } = found
    // What waits in memory is later than what is in files: only if all of it is, the time may begin there.
    const waiting = firstIn(unwritten, data => timestampOf(data) >= timestampMs)
    const offset =
      waiting > 0 || segments === null
        ? writtenTo(found) + waiting
        : this.readable(log, () => segments.seek(timestampMs))
    // The files may still begin before the log does.
    return Math.max(start, offset)
  }

  /**
   * What the disk does not give back is as lost as what does not fit its checksum: the others have it. What this process
   * has too little of (descriptors, memory) is no damage, and passes.
   */
  private readable<T>(log: string, read: () => T): T {
    try {
      return read()
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code === 'EMFILE' || code === 'ENFILE' || code === 'ENOMEM')
        throw new RoundhouseError('NOT_READY', { why: message })
      // It may go by: no verdict for good. What never can be read again the scrub finds.
      if (code === 'EIO')
        throw new RoundhouseError('STORAGE_FAILED', { what: `${this.directory}/${log}`, why: message })
      if (code !== 'ENOENT') throw error
      throw new RoundhouseError('CORRUPT', { where: `${this.directory}/${log}`, what: message })
    }
  }

  trim(log: string, start: number): void {
    const found = this.logs.get(log)
    assert(found !== undefined, `${this.directory}/${log}: trimmed, and never made`)
    found.start = start
    this.cut(found)
  }

  /**
   * What can't be cut for want of room is cut with a later checkpoint. Records that only memory has just go: on a full disk
   * there would be no room to write them first.
   */
  private cut(log: OpenLog): void {
    if ((log.segments?.lowestOffset ?? log.base) >= log.start) return
    const unwritten = log.start - writtenTo(log)
    if (unwritten > 0 && this.isFrozen) return
    try {
      if (unwritten <= 0) log.segments!.truncateBefore(log.start)
      else {
        log.segments?.restartAt(log.start)
        log.base = log.start
        this.took(log, unwritten)
      }
    } catch (error) {
      if (!isNoSpace(error)) throw error
    }
  }

  /** The first of those that wait do so no longer. */
  private took(log: OpenLog, count: number): void {
    let left = count
    while (left > 0) {
      const block = log.unwritten[0]!
      const part = Math.min(left, block.count)
      log.unwrittenBytes -= block.dataBytes
      if (part === block.count) {
        log.unwritten.shift()
        this.waiting -= block.capacity
      } else {
        block.skip(part)
        log.unwrittenBytes += block.dataBytes
      }
      left -= part
    }
    log.unwrittenCount -= count
  }

  /** Memory of records that are in no file. */
  get waitingBytes(): number {
    return this.waiting
  }

  drop(log: string): void {
    const found = this.logs.get(log)
    if (found === undefined) return
    this.logs.delete(log)
    // A checkpoint that is under way still names its end: what it has in memory goes with its files, not before.
    this.dropped.set(log, found)
  }

  bytesOf(log: string): number {
    const found = this.logs.get(log)
    return found === undefined ? 0 : (found.segments?.bytes ?? 0) + found.unwrittenBytes
  }

  cutFor(log: string, bytesMax: number): number {
    const found = this.logs.get(log)
    if (found === undefined) return 0
    return Math.max(
      found.start,
      this.readable(log, () => found.segments?.proposeStart({ bytesMax }) ?? 0),
    )
  }

  /** To be called in the moment in which the rows are frozen. */
  freeze(): FrozenLogs {
    // One before this may have failed: what it named is named by this one, or is gone.
    this.isFrozen = false
    for (const log of this.logs.values()) this.cut(log)
    this.isFrozen = true
    const isDue = ({ unwritten, segments }: OpenLog) => unwritten.length > 0 || segments?.needsSync === true
    return {
      starts: new Map([...this.logs].map(([name, log]) => [name, log.segments?.lowestOffset ?? log.base])),
      dropped: [...this.dropped.keys()],
      due: new Map([...this.logs].filter(([, log]) => isDue(log))),
    }
  }

  /**
   * What was frozen is durable when it resolves; each log is written whole, perhaps with what came since. Rejects with
   * NO_SPACE when what is in memory finds no room.
   */
  async sync({ due }: FrozenLogs): Promise<void> {
    const names = new Set<string>()
    const left = due.entries()
    const inTurn = async () => {
      for (const [name, log] of left) {
        if (!this.write(name, log)) {
          const what = `${this.directory}/${name}`
          throw new RoundhouseError('NO_SPACE', { what, why: 'its records find no room' })
        }
        await settled(done => log.segments!.sync(done, names))
      }
    }
    const results = await Promise.allSettled(Array.from({ length: syncsAtOnceMax }, inTurn))
    for (const result of results) if (result.status === 'rejected') throw result.reason
    for (const directory of names) await settled(done => this.home.disk.syncDirectoryAside(directory, done))
  }

  /** The checkpoint that was frozen so is durable: what it does not need goes. */
  settle(frozen: FrozenLogs): void {
    this.isFrozen = false
    if (this.pins > 0) return
    for (const [name, start] of frozen.starts)
      for (const path of this.logs.get(name)?.segments?.giveUpBefore(start) ?? [])
        this.home.disk.removeAside(path, leftToAStart)
    for (const name of frozen.dropped) {
      const log = this.dropped.get(name)
      if (log === undefined) continue
      this.dropped.delete(name)
      for (const { capacity } of log.unwritten) this.waiting -= capacity
      if (log.segments === null) continue
      log.segments.close()
      this.home.disk.removeAside(`${this.directory}/${name}`, leftToAStart)
    }
  }

  /** Until `unpin`, every file that a durable checkpoint needs stays: at least what `files` lists now. */
  pin(): void {
    this.pins++
  }

  unpin(): void {
    this.pins--
  }

  /** All that is in files, trimmed and dropped logs among them: never less than the last durable checkpoint names. */
  files(): RecordFile[] {
    return [...this.logs, ...this.dropped].flatMap(([log, { segments }]) =>
      (segments?.allFiles() ?? []).map(({ path, from, bytes }) => ({ log, baseOffset: from, path, bytes })),
    )
  }

  /** Not a sync. What waits in memory is the journal's to bring back. */
  close(): void {
    for (const { segments } of [...this.logs.values(), ...this.dropped.values()]) segments?.close()
    this.logs.clear()
    this.dropped.clear()
  }
}

/**
 * The logs in a generation's directory that these rows name, as they name them. Throws CORRUPT where records are missing,
 * STORAGE_FAILED where the disk did not give them back this time: the node goes on with its other replicas.
 */
export function openLogs(
  home: RecordHome,
  directory: string,
  rows: Iterable<readonly [row: string, value: Bytes]>,
): RecordLogs {
  const logs = new RecordLogs(home, directory)
  try {
    const named = new Set<string>()
    for (const [row, value] of rows) {
      const { start, end, birth } = decodePartition(value)
      const log = partitionLog(partitionIdOf(row), birth)
      logs.resume(log, start, end)
      // Of one that is empty no file is needed.
      if (start < end) named.add(log)
    }
    for (const stream of home.disk.list(directory))
      for (const log of home.disk.list(`${directory}/${stream}`))
        if (!named.has(`${stream}/${log}`)) setAside(home, `${directory}/${stream}/${log}`)
    return logs
  } catch (error) {
    logs.close()
    const { code, message } = error as NodeJS.ErrnoException
    // It may go by, on several nodes at once too: no verdict. What can never be read again the scrub finds.
    if (code !== undefined && passingCodes.includes(code))
      throw new RoundhouseError('STORAGE_FAILED', { what: directory, why: message })
    if (code === undefined || !damageCodes.includes(code)) throw error
    throw new RoundhouseError('CORRUPT', { where: directory, what: message })
  }
}

/** What may be otherwise in a moment. */
const passingCodes = ['EIO', 'EMFILE', 'ENFILE', 'ENOMEM']

/** What the system says of one file that it can't give back. What it says of all (no descriptors, no rights) is not here. */
const damageCodes = ['EIO', 'ENOENT', 'EUCLEAN', 'EBADMSG', 'ENOTDIR', 'EISDIR']

/** What can't be removed, or was not when the process ended, no row names: the next start finds it. */
const leftToAStart = () => {}

/** Removes it by and by. Its name is free at once: the same may be made again from the journal. */
function setAside({ disk, random }: RecordHome, path: string): void {
  const aside = `${path}.gone.${random.below(2 ** 32)}`
  try {
    disk.rename(path, aside)
  } catch (error) {
    // A removal that an earlier owner of the directory began is through.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  disk.removeAside(aside, leftToAStart)
}

/** Generations below this one are read no more. A higher one may be on its way in. */
export function removeOlderLogs({ disk }: RecordHome, replica: number, generation: number): void {
  const parent = directoryOf(replica)
  try {
    // Their numbers are never used again.
    for (const name of disk.list(parent))
      if (Number(name) < generation) disk.removeAside(`${parent}/${name}`, leftToAStart)
  } catch (error) {
    // Whoever opens its logs is told.
    if (!damageCodes.includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

function settled(begin: (done: (error: Error | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => begin(error => (error === null ? resolve() : reject(error))))
}

/** Puts `records` behind those in `blocks`, each with `stamp` before it, and answers how much data that is, and what it took. */
function addTo(
  blocks: RecordBlock[],
  records: Packed,
  stamp: Bytes,
): { dataBytes: number; memoryBytes: number } {
  const aheadBytes = recordHeaderBytes + stamp.length
  let last = blocks.at(-1)
  let dataBytes = 0
  let memoryBytes = 0
  // More than what is left takes: lengths are part of what is packed.
  let left = records.bytes.length + records.count * aheadBytes
  for (const walk = new PackedWalk(records.bytes); walk.next(); ) {
    const needed = aheadBytes + walk.to - walk.from
    if (last === undefined || last.room < needed) {
      // Room for what is at hand, or as much again as waits already; of two large records the second would not find it.
      const wanted = Math.max(left, 2 * (last?.capacity ?? 0), blockBytes.min)
      const isLarge = 2 * needed > blockBytes.max
      last = new RecordBlock(isLarge ? needed : Math.max(needed, Math.min(wanted, blockBytes.max)))
      blocks.push(last)
      memoryBytes += last.capacity
    }
    const { bytes } = records
    const tailBytes = Math.max(0, walk.to - walk.from - sumBytes)
    last.add(stamp, bytes, walk.from, walk.to, tailBytes, sumAt(bytes, walk.from))
    left -= needed
    dataBytes += needed - recordHeaderBytes
  }
  return { dataBytes, memoryBytes }
}

/** Of those that wait [from, to) as far as `bytesMax` goes, the first in any case. */
function unwrittenWithin(log: OpenLog, from: number, to: number, bytesMax: number): Bytes[] {
  const found: Bytes[] = []
  let bytes = 0
  let first = 0
  for (const block of log.unwritten) {
    const end = Math.min(block.count, to - first)
    for (let at = Math.max(0, from - first); at < end; at++) {
      bytes += block.dataBytesOf(at)
      if (found.length > 0 && bytes > bytesMax) return found
      found.push(block.data(at))
    }
    first += block.count
  }
  return found
}

/** How many of the records in `blocks` come before the first that `is`; from that one on, all are. */
function firstIn(blocks: readonly RecordBlock[], is: (data: Bytes) => boolean): number {
  let before = 0
  for (const block of blocks) {
    if (is(block.data(block.count - 1))) return before + firstWhere(0, block.count, at => is(block.data(at)))
    before += block.count
  }
  return before
}

function writtenTo(log: OpenLog): number {
  return log.segments?.nextOffset ?? log.base
}

function endOf(log: OpenLog): number {
  return writtenTo(log) + log.unwrittenCount
}

export function directoryOf(replica: number): string {
  return `${root}/${replica}`
}

/**
 * At a start: what no checkpoint names goes. It comes again from the journal, or it was a snapshot that was never installed.
 * @param generationOf null for a replica without a checkpoint; unknown: nothing of it is touched
 */
export function removeStrayLogs(
  home: RecordHome,
  generationOf: (replica: number) => number | 'unknown' | null,
): void {
  const { disk } = home
  for (const replica of disk.list(root)) {
    const named = generationOf(Number(replica))
    if (named === 'unknown') continue
    try {
      for (const generation of disk.list(`${root}/${replica}`))
        if (generation !== String(named)) setAside(home, `${root}/${replica}/${generation}`)
    } catch (error) {
      // One replica's trouble: it is told to whoever opens its logs.
      if (!damageCodes.includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
  }
}

export function generationDirectory(replica: number, generation: number): string {
  return `${directoryOf(replica)}/${generation}`
}

// --- In snapshots ---------------------------------------------------------------------------------------------------

/** The part of a snapshot that carries a file of records: `log.<stream>.<partition>-<birth>.<base offset>`. */
export function recordPartName({ log, baseOffset }: RecordFile): string {
  return `log.${log.replace('/', '.')}.${baseOffset}`
}

const partName = /^log\.(\d+)\.(\d+-\d+)\.(\d+)$/

/** Where in a generation's directory the part belongs; null for a part of another kind. */
export function recordPartPlace(name: string): { readonly log: string; readonly baseOffset: number } | null {
  const match = partName.exec(name)
  return match === null ? null : { log: `${match[1]}/${match[2]}`, baseOffset: Number(match[3]) }
}
