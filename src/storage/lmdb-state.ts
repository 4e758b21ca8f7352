import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import { isError, RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { systemRandom } from '../lib/prng.ts'
import { FileDisk } from '../log/file-disk.ts'
import { heapMapper, memoryMapper } from '../log/mapped-file.ts'
import { WarmSegments } from '../log/warm-segments.ts'
import type { CheckpointMeta, Snapshot, SnapshotManifest, SnapshotPart } from '../shard/ports.ts'
import { type CheckpointRecord, decodeRecord } from './checkpoint-record.ts'
import {
  checkedValue,
  databaseNames,
  directoryKey,
  directoryName,
  isAbandoned,
  openEnvironment,
  openRows,
  parseDirectoryKey,
  parseRowsName,
  type Root,
  type Rows,
  rowSalt,
  rowsName,
} from './lmdb-env.ts'
import type { Memtable } from './memtable.ts'
import {
  directoryOf,
  generationDirectory,
  type RecordFile,
  type RecordHome,
  recordPartName,
} from './record-logs.ts'
import { keyBytesMax, packedBytes, packRow } from './row-codec.ts'
import { FileSnapshot } from './snapshot-files.ts'
import { partBytesDefault } from './snapshot-format.ts'
import { StagedFiles } from './staged-files.ts'
import { type BaseStaged, firstGeneration, LayeredStateStore, type StateBase } from './state.ts'
import { StateWorker } from './state-worker-port.ts'

/**
 * Checkpointed rows in LMDB: one environment a node, one named database a replica *generation* (lmdb-env.ts).
 *
 * This thread only reads; every transaction that writes runs in a worker (state-worker.ts), two of them so that a
 * snapshot of a gigabyte doesn't hold up a checkpoint. A snapshot is installed by loading the next generation beside the
 * valid one and flipping the directory entry in one transaction: a crash leaves the old or the new, and what the
 * directory doesn't name is dropped at the next start. Opening reads the directory and scans no rows.
 *
 * Refused: lmdb-js's own asynchronous writes. They run on a thread too, but build every instruction on this one in a
 * single turn (40,000 rows: about 100 ms), and reading the old checksum for the digest would be a read more here.
 */
export interface LmdbStateOptions {
  /** The node's data directory: `state`, `snapshots` and `staging` are made in it. */
  readonly directory: string
  /** Most replicas of this node. Room costs nothing measurable (16,384: none); an opened database 48 B a transaction. */
  readonly replicasMax?: number
  readonly snapshotPartBytes?: number
  /** Of a stream's partition: a file of records is sealed when it would grow beyond. */
  readonly streamSegmentBytes?: number
}

/** Rows are packed for the worker in slices of this size, one a turn of the event loop. */
const sliceBytes = 1024 * 1024

/** Between two tries of what found no room. */
const noSpaceRetryMs = 500

/** Rows fetched at once by a range: few first, since most ranges are short; then more. Bounded in bytes as well. */
const rangeRowsFirst = 16
const rangeRowsMax = 512
const rangeBytesMax = 256 * 1024

interface Handle {
  readonly rows: Rows
  readonly generation: number
  readonly salt: number
}

class LmdbBase implements StateBase {
  failure: Error | null = null
  readonly recordHome: RecordHome
  private readonly home: string
  private isClosing = false
  private readonly root: Root
  private readonly directory: Rows
  private readonly snapshots: string
  private readonly staging: string
  private readonly partBytes: number
  private readonly handles = new Map<number, Handle>()
  /** The last generation that was used for a replica, be it in vain. */
  private readonly generations = new Map<number, number>()
  /** Named by the directory, and not there. */
  private readonly missing = new Set<number>()
  /** Of these a page or row was found corrupt; their databases are never walked by a drop. */
  private readonly broken = new Set<number>()
  private readonly writer: StateWorker
  private readonly bulk: StateWorker
  /** What runs in the background for a replica and must end before its databases may go. Never rejects. */
  private readonly busy = new Map<number, Set<Promise<unknown>>>()
  /** Deletions of files, for `close`. */
  private readonly chores = new Set<Promise<unknown>>()
  private readonly stages = new Set<StagedFiles>()
  /** Leftover generations are gone: their names may be used again. */
  private readonly swept: Promise<unknown>

  constructor(options: LmdbStateOptions) {
    const replicasMax = options.replicasMax ?? 4096
    const path = join(options.directory, 'state')
    this.snapshots = join(options.directory, 'snapshots')
    this.staging = join(options.directory, 'staging')
    this.partBytes = options.snapshotPartBytes ?? partBytesDefault
    mkdirSync(this.snapshots, { recursive: true })
    mkdirSync(this.staging, { recursive: true })
    const disk = new FileDisk(options.directory)
    this.home = options.directory
    this.recordHome = {
      ...{ disk, map: memoryMapper(options.directory, heapMapper(disk)), random: systemRandom },
      warm: new WarmSegments(),
      ...(options.streamSegmentBytes === undefined ? {} : { segmentBytesMax: options.streamSegmentBytes }),
    }
    const onFatal = (why: string) => this.fail(why)
    this.writer = new StateWorker(path, replicasMax, false, onFatal)
    this.bulk = new StateWorker(path, replicasMax, true, onFatal)
    this.root = openEnvironment(path, replicasMax)
    this.directory = openRows(this.root, directoryName)
    const leftovers = this.openAll()
    this.swept = leftovers
      ? this.bulk.request({ kind: 'sweep', replica: null }).catch(() => undefined)
      : Promise.resolve()
    for (const name of readdirSync(this.snapshots)) this.removeLater(join(this.snapshots, name))
  }

  /** Opens what the directory names; true when there are databases that it doesn't name. */
  private openAll(): boolean {
    const named = new Set<string>()
    for (const replica of this.replicas()) {
      try {
        const record = this.record(replica)!
        named.add(rowsName(replica, record.generation))
      } catch (error) {
        // One replica's trouble: whoever opens it is told. Its rows are kept for who wants to look.
        if (!isError(error, 'CORRUPT')) throw error
      }
    }
    const present = databaseNames(this.root).filter(name => parseRowsName(name) !== null)
    this.root.resetReadTxn()
    // One transaction for all; it changes nothing and costs no sync.
    this.root.transactionSync(() => {
      for (const name of present) {
        if (!named.has(name)) continue
        const { replica, generation } = parseRowsName(name)!
        this.remember(replica, generation)
      }
    })
    const there = new Set(present)
    for (const name of named) if (!there.has(name)) this.missing.add(parseRowsName(name)!.replica)
    return present.some(name => !named.has(name))
  }

  private remember(replica: number, generation: number): void {
    const rows = openRows(this.root, rowsName(replica, generation))
    this.handles.set(replica, { rows, generation, salt: rowSalt(replica, generation) })
    this.generations.set(replica, Math.max(generation, this.generations.get(replica) ?? 0))
  }

  private fail(why: string): Error {
    this.failure ??= new RoundhouseError('STORAGE_FAILED', { what: 'state', why })
    return this.failure
  }

  replicas(): readonly number[] {
    this.root.resetReadTxn()
    const found: number[] = []
    for (const { key, value } of this.directory.getRange({ start: '\x00' }))
      if (!isAbandoned(value)) found.push(parseDirectoryKey(key))
    return found
  }

  record(replica: number): CheckpointRecord | null {
    // Reads share a transaction until it is reset: only a new one surely shows the last commit.
    this.root.resetReadTxn()
    const bytes = this.directory.get(directoryKey(replica))
    if (bytes === undefined || isAbandoned(bytes)) return null
    return this.noticing(replica, () => {
      if (this.missing.has(replica)) throw new Error('its database is missing')
      return decodeRecord(replica, bytes)
    })
  }

  get(replica: number, key: string): Bytes | undefined {
    const handle = this.handles.get(replica)
    if (handle === undefined || key.length === 0 || key.length > keyBytesMax) return undefined
    return this.noticing(replica, () => {
      const stored = handle.rows.getBinary(key)
      return stored === undefined ? undefined : checkedValue(stored, key, replica, handle.salt)
    })
  }

  /**
   * Rows are fetched in chunks, and each chunk's cursor is closed before its first row is given: an iteration that is
   * left half-way holds nothing, and no read transaction outlives a turn (it would keep pages from being used again).
   * Between chunks a checkpoint may commit: its rows are those of the frozen layer above, which hides them.
   */
  *range(replica: number, from: string, to: string): Generator<readonly [string, Bytes]> {
    const handle = this.handles.get(replica)
    if (handle === undefined) return
    let start = from.length > keyBytesMax ? `${from.slice(0, keyBytesMax)}\x00` : from || '\x00'
    const end = to.length > keyBytesMax ? `${to.slice(0, keyBytesMax)}\x00` : to
    for (let limit = rangeRowsFirst; start < end; limit = Math.min(limit * 4, rangeRowsMax)) {
      assert(
        this.handles.get(replica) === handle,
        `replica ${replica}: its rows were replaced during an iteration`,
      )
      const { rows, next } = this.chunk(replica, handle, start, end, limit)
      yield* rows
      if (next === null) return
      start = next
    }
  }

  private chunk(
    replica: number,
    handle: Handle,
    start: string,
    end: string,
    limit: number,
  ): { rows: (readonly [string, Bytes])[]; next: string | null } {
    return this.noticing(replica, () => {
      const rows: (readonly [string, Bytes])[] = []
      let bytes = 0
      for (const { key, value } of handle.rows.getRange({ start, end })) {
        rows.push([key, checkedValue(value, key, replica, handle.salt)])
        bytes += value.byteLength
        // Leaving the loop closes the cursor.
        if (rows.length >= limit || bytes >= rangeBytesMax) return { rows, next: `${key}\x00` }
      }
      return { rows, next: null }
    })
  }

  /** What LMDB can't read is as corrupt as what doesn't fit its checksum. */
  private noticing<T>(replica: number, read: () => T): T {
    try {
      return read()
    } catch (error) {
      this.condemn(replica)
      if (isError(error)) throw error
      const what = error instanceof Error ? error.message : String(error)
      throw new RoundhouseError('CORRUPT', { where: `replica ${replica}'s state`, what })
    }
  }

  condemn(replica: number): void {
    this.broken.add(replica)
  }

  forgetDeadReaders(): void {
    if (this.failure === null) this.root.readerCheck()
  }

  async commit(replica: number, rows: Memtable, meta: CheckpointMeta): Promise<void> {
    await this.ready()
    const packed: Uint8Array<ArrayBuffer>[] = []
    for (const slice of packSlices(rows)) {
      packed.push(slice)
      await nextTurn()
    }
    await this.ready()
    await this.writer.request(
      { kind: 'commit', replica, meta, rows: packed },
      packed.map(slice => slice.buffer),
    )
    if (!this.handles.has(replica)) await this.openLater(replica)
  }

  /** Opens the generation that the directory names. lmdb-js waits for LMDB's write lock on its own thread. */
  private async openLater(replica: number): Promise<void> {
    const { generation } = this.record(replica)!
    try {
      await this.root.transaction(() => this.remember(replica, generation))
    } catch (error) {
      throw this.fail((error as Error).message)
    }
  }

  async drop(replica: number): Promise<void> {
    await this.ready()
    // First forget the handle: a database slot that is closed may be given to another database.
    this.handles.delete(replica)
    await this.quiet(replica)
    await this.whenThereIsRoom(() =>
      this.writer.request({ kind: 'drop', replica, broken: this.broken.has(replica) }),
    )
    for (const staged of this.stages) if (staged.replica === replica) await this.leave(staged)
    await rm(join(this.staging, String(replica)), { recursive: true, force: true })
    await rm(join(this.home, directoryOf(replica)), { recursive: true, force: true })
  }

  async snapshot(replica: number, recordFiles: () => readonly RecordFile[]): Promise<Snapshot> {
    await this.ready()
    const id = randomBytes(16).toString('hex')
    const directory = join(this.snapshots, id)
    const copying = this.bulk.request<{ record: CheckpointRecord; parts: SnapshotPart[] }>({
      kind: 'snapshot',
      replica,
      directory,
      partBytes: this.partBytes,
    })
    const copied = await this.during(replica, copying).catch(error => {
      if (isError(error, 'CORRUPT')) this.condemn(replica)
      throw error
    })
    const linked = await this.linked(replica, directory, recordFiles()).catch(error => {
      this.removeLater(directory)
      throw error
    })
    const { index, term, configuration } = copied.record
    const manifest = { id, index, term, configuration, parts: [...copied.parts, ...linked] }
    return new FileSnapshot(manifest, directory, () => this.removeLater(directory))
  }

  /** The files are named first, all of them: whoever unlinks one from now on takes nothing away. Then each is summed up. */
  private async linked(
    replica: number,
    directory: string,
    files: readonly RecordFile[],
  ): Promise<SnapshotPart[]> {
    const named = files.map(file => ({
      ...{ name: recordPartName(file), path: join(this.home, file.path), bytes: file.bytes },
    }))
    await this.during(replica, this.bulk.request({ kind: 'link', directory, files: named }))
    const parts: SnapshotPart[] = []
    // A request a file, so that installs and copies of other replicas get between.
    for (const { name, bytes } of named) {
      const path = join(directory, name)
      const crc = await this.during(replica, this.bulk.request<number>({ kind: 'sum', path, bytes }))
      parts.push({ name, bytes, crc })
    }
    return parts
  }

  stage(replica: number, manifest: SnapshotManifest): BaseStaged {
    const files = this.stagedFiles(replica, manifest)
    let verified = false
    return {
      manifest,
      get bytesStaged() {
        return files.bytesStaged
      },
      next: () => files.next(),
      write: (part, position, bytes) => files.write(part, position, bytes),
      verify: async () => {
        await this.ready()
        const parts = await files.finished()
        const broken = await this.during(
          replica,
          this.bulk.request<string | null>({ kind: 'verify', files: parts }),
        )
        if (broken !== null) {
          await files.forget()
          throw new RoundhouseError('CORRUPT', { where: `snapshot part ${broken}`, what: 'its checksum' })
        }
        verified = true
      },
      install: async flipped => {
        assert(verified, `snapshot ${manifest.id} is installed before it was verified`)
        await this.install(replica, manifest, files, flipped)
        this.chore(this.leave(files))
      },
      discard: () => this.chore(this.leave(files)),
    }
  }

  /** An earlier attempt of the same snapshot is gone on with, one of another is given up. */
  private stagedFiles(replica: number, manifest: SnapshotManifest): StagedFiles {
    for (const earlier of this.stages) {
      if (earlier.replica !== replica) continue
      if (earlier.manifest.id === manifest.id) return earlier
      this.chore(this.leave(earlier))
    }
    const files = new StagedFiles(this.staging, replica, manifest)
    this.stages.add(files)
    return files
  }

  private async install(
    replica: number,
    manifest: SnapshotManifest,
    files: StagedFiles,
    flipped: () => void,
  ): Promise<void> {
    await this.ready()
    const parts = await files.finished()
    const generation = (this.generations.get(replica) ?? firstGeneration) + 1
    this.generations.set(replica, generation)
    const { index, term, configuration } = manifest
    const meta = { index, term, configuration }
    const sweep = () => this.during(replica, this.bulk.request({ kind: 'sweep', replica }))
    try {
      await this.during(
        replica,
        this.bulk.request({
          ...{ kind: 'install', replica, generation, meta, files: parts },
          home: this.home,
          records: generationDirectory(replica, generation),
        }),
      )
    } catch (error) {
      // What was loaded so far is of no use to a next try, which takes the next generation.
      if (isError(error, 'CORRUPT') || isError(error, 'NO_SPACE')) await sweep().catch(() => undefined)
      throw error
    }
    await this.openLater(replica)
    flipped()
    // The old generation goes in the background, after the snapshots that are still copied from it (same worker).
    void sweep().catch(() => undefined)
  }

  private async leave(files: StagedFiles): Promise<void> {
    this.stages.delete(files)
    await files.remove()
  }

  /** Even to forget something takes a page. Nobody waits for it who could do it another way. */
  private async whenThereIsRoom<T>(work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work()
      } catch (error) {
        if (!isError(error, 'NO_SPACE') || this.isClosing) throw error
        await pause(noSpaceRetryMs)
      }
    }
  }

  async close(): Promise<void> {
    this.isClosing = true
    this.bulk.hasten()
    await this.swept
    for (const replica of [...this.busy.keys()]) await this.quiet(replica)
    await Promise.all([...this.chores])
    await Promise.all([...this.stages].map(files => files.close()))
    if (this.failure === null) {
      await this.writer.close()
      await this.bulk.close()
      this.failure = new RoundhouseError('STORAGE_FAILED', { what: 'state', why: 'it is closed' })
    }
    await this.root.close()
  }

  private async ready(): Promise<void> {
    if (this.failure !== null) throw this.failure
    await this.swept
    if (this.failure !== null) throw this.failure
  }

  private async during<T>(replica: number, work: Promise<T>): Promise<T> {
    const works = this.busy.get(replica) ?? new Set()
    this.busy.set(replica, works)
    const settled = work.catch(() => undefined)
    works.add(settled)
    try {
      return await work
    } finally {
      works.delete(settled)
      if (works.size === 0) this.busy.delete(replica)
    }
  }

  private async quiet(replica: number): Promise<void> {
    for (let works = this.busy.get(replica); works !== undefined; works = this.busy.get(replica))
      await Promise.all([...works])
  }

  private removeLater(path: string): void {
    this.chore(rm(path, { recursive: true, force: true }))
  }

  /** What fails here is found and deleted at the next start. */
  private chore(work: Promise<unknown>): void {
    const chore: Promise<unknown> = work.catch(() => undefined).then(() => this.chores.delete(chore))
    this.chores.add(chore)
  }
}

/** The rows in key order (LMDB fills neighbouring pages), cut into buffers that can be handed to another thread. */
function* packSlices(rows: Memtable): Generator<Uint8Array<ArrayBuffer>> {
  let slice = Buffer.allocUnsafeSlow(Math.min(sliceBytes, rows.bytes + 64))
  let length = 0
  for (const [key, value] of rows.range('', null)) {
    const needed = packedBytes(key, value)
    if (length + needed > slice.length) {
      if (length > 0) yield new Uint8Array(slice.buffer as ArrayBuffer, 0, length)
      slice = Buffer.allocUnsafeSlow(Math.max(sliceBytes, needed))
      length = 0
    }
    // The checksum is the worker's work.
    length = packRow(slice, length, key, value, 0)
  }
  if (length > 0) yield new Uint8Array(slice.buffer as ArrayBuffer, 0, length)
}

/** A node's state in `options.directory`. Opens synchronously; reads the directory, no rows. */
export class LmdbStateStore extends LayeredStateStore {
  private readonly lmdb: LmdbBase

  constructor(options: LmdbStateOptions) {
    const lmdb = new LmdbBase(options)
    super(lmdb)
    this.lmdb = lmdb
  }

  /**
   * Something else (a scrub, a snapshot that could not be copied) found the replica corrupt. `destroy` then leaves its
   * database where it is: its pages are lost to the environment, and nobody else's are touched.
   */
  condemn(replica: number): void {
    this.lmdb.condemn(replica)
  }

  /** A process that died while it read (a scrub's) would keep pages from being used again for ever. */
  forgetDeadReaders(): void {
    this.lmdb.forgetDeadReaders()
  }
}
