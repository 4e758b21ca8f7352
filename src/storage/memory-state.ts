import sortedBtree from 'sorted-btree'
import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { type Deferred, deferred } from '../lib/deferred.ts'
import type { Random } from '../lib/prng.ts'
import { segmentName, storeSuffix } from '../log/segment-home.ts'
import type { CheckpointMeta, Snapshot, SnapshotManifest } from '../shard/ports.ts'
import type { CheckpointRecord } from './checkpoint-record.ts'
import { compareKeys, type Memtable } from './memtable.ts'
import {
  directoryOf,
  generationDirectory,
  type RecordFile,
  type RecordHome,
  recordPartName,
  recordPartPlace,
} from './record-logs.ts'
import { RowDigest, rowChecksum, unpackRows } from './row-codec.ts'
import {
  isRowsPart,
  partBytesDefault,
  readPartBlocks,
  readPartTotals,
  SnapshotWriter,
} from './snapshot-format.ts'
import { StagingProgress } from './staging.ts'
import { type BaseStaged, firstGeneration, LayeredStateStore, type StateBase } from './state.ts'

/**
 * The twin of lmdb-state for simulation and tests: the same layers over a base in memory. What would be on disk lies on a
 * `StatePlatter`, which outlives the store as a disk outlives a process. Nothing here runs by itself: each durable step
 * ends when the injected scheduler runs it, in the order in which the steps began (LMDB has one writer), so a run from one
 * seed is always the same run.
 */
const BTree = sortedBtree.default
type Rows = InstanceType<typeof BTree<string, Bytes>>

interface Table {
  readonly record: CheckpointRecord
  readonly rows: Rows
}

interface StagedParts {
  readonly manifest: SnapshotManifest
  /** Written, and of those the synced ones. */
  readonly parts: Uint8Array[]
  readonly lengths: number[]
  readonly synced: number[]
}

/** What survives the process. */
export class StatePlatter {
  readonly tables = new Map<number, Table>()
  readonly staged = new Map<number, StagedParts>()
}

export interface MemoryStateOptions {
  readonly platter: StatePlatter
  /** Runs `run` later, after all that were scheduled before. */
  readonly schedule: (run: () => void) => void
  readonly random: Random
  readonly snapshotPartBytes?: number
  /** Where logs of records are kept; absent: nowhere. A crash of that disk is the caller's to play. */
  readonly recordHome?: RecordHome
  /** Asked when a transaction is to become durable; false: the disk has no room for it. Absent: there always is. */
  readonly hasRoom?: () => boolean
}

interface Step {
  readonly apply: () => void
  readonly done: Deferred<void>
}

class MemoryBase implements StateBase {
  failure: Error | null = null
  readonly recordHome: RecordHome | null
  private readonly platter: StatePlatter
  private readonly schedule: (run: () => void) => void
  private readonly random: Random
  private readonly partBytes: number
  private readonly hasRoom: () => boolean
  /** Begun and not yet durable, oldest first. */
  private readonly steps: Step[] = []

  constructor(options: MemoryStateOptions) {
    this.platter = options.platter
    this.schedule = options.schedule
    this.random = options.random
    this.partBytes = options.snapshotPartBytes ?? partBytesDefault
    this.recordHome = options.recordHome ?? null
    this.hasRoom = options.hasRoom ?? (() => true)
  }

  replicas(): readonly number[] {
    return [...this.platter.tables.keys()].sort((a, b) => a - b)
  }

  record(replica: number): CheckpointRecord | null {
    return this.platter.tables.get(replica)?.record ?? null
  }

  get(replica: number, key: string): Bytes | undefined {
    return this.platter.tables.get(replica)?.rows.get(key)
  }

  *range(replica: number, from: string, to: string): Generator<readonly [string, Bytes]> {
    const rows = this.platter.tables.get(replica)?.rows
    if (rows === undefined) return
    for (const row of rows.entries(from)) {
      if (row[0] >= to) return
      yield row
    }
  }

  commit(replica: number, rows: Memtable, meta: CheckpointMeta): Promise<void> {
    return this.step(() => {
      this.needRoom()
      const old = this.platter.tables.get(replica)
      const next: Rows = old?.rows.clone() ?? new BTree<string, Bytes>(undefined, compareKeys)
      const digest = new RowDigest(old?.record ?? null)
      for (const [key, value] of rows.range('', null)) {
        const before = next.get(key)
        if (before !== undefined) digest.remove(rowChecksum(key, before))
        if (value === null) next.delete(key)
        else {
          next.set(key, value)
          digest.add(rowChecksum(key, value))
        }
      }
      this.platter.tables.set(replica, {
        record: recordOf(meta, old?.record.generation ?? firstGeneration, digest),
        rows: next,
      })
    })
  }

  private needRoom(): void {
    if (!this.hasRoom()) throw new RoundhouseError('NO_SPACE', { what: 'state', why: 'the platter is full' })
  }

  drop(replica: number): Promise<void> {
    return this.step(() => {
      this.platter.tables.delete(replica)
      this.platter.staged.delete(replica)
      this.recordHome?.disk.removeTree(directoryOf(replica))
    })
  }

  async snapshot(replica: number, recordFiles: () => readonly RecordFile[]): Promise<Snapshot> {
    let taken: Snapshot | undefined
    await this.step(() => {
      const table = this.platter.tables.get(replica)!
      const logs = recordFiles().map(file => ({ name: recordPartName(file), body: this.readFile(file) }))
      taken = copyTable(table, hex(this.random.bytes(16)), this.partBytes, logs)
    })
    return taken!
  }

  private readFile({ path, bytes }: RecordFile): Uint8Array {
    const file = this.recordHome!.disk.open(path)
    try {
      return new Uint8Array(file.read(0, bytes))
    } finally {
      file.close()
    }
  }

  /** The received files of records, durable in the directory of their generation, which nothing names yet. */
  private placeRecords(directory: string, manifest: SnapshotManifest, parts: readonly Uint8Array[]): void {
    if (this.recordHome === null) return
    const { disk } = this.recordHome
    disk.removeTree(directory)
    for (const [i, { name }] of manifest.parts.entries()) {
      const place = recordPartPlace(name)
      if (place === null) continue
      const home = `${directory}/${place.log}`
      disk.makeDirectory(home)
      const file = disk.open(`${home}/${segmentName(place.baseOffset)}${storeSuffix}`, { create: true })
      file.write(0, parts[i]!)
      file.sync()
      file.close()
      for (let path = home; path !== ''; path = path.slice(0, Math.max(0, path.lastIndexOf('/'))))
        disk.syncDirectory(path)
    }
    disk.syncDirectory('')
  }

  stage(replica: number, manifest: SnapshotManifest): BaseStaged {
    let staged = this.platter.staged.get(replica)
    if (staged?.manifest.id !== manifest.id) {
      staged = {
        manifest,
        parts: manifest.parts.map(part => new Uint8Array(part.bytes)),
        lengths: manifest.parts.map(() => 0),
        synced: manifest.parts.map(() => 0),
      }
      this.platter.staged.set(replica, staged)
    }
    const { parts, lengths, synced } = staged
    const progress = new StagingProgress(manifest, lengths)
    const forget = () => {
      if (this.platter.staged.get(replica)?.manifest.id === manifest.id) this.platter.staged.delete(replica)
      progress.lengths.fill(0)
      lengths.fill(0)
      synced.fill(0)
    }
    let verified = false
    return {
      manifest,
      get bytesStaged() {
        return progress.bytesStaged
      },
      next: () => progress.next(),
      write: (name, position, bytes) => {
        const i = progress.admit(name, position, bytes.byteLength)
        parts[i]!.set(bytes, position)
        const length = position + bytes.byteLength
        progress.lengths[i] = length
        lengths[i] = length
        void this.step(() => {
          if (lengths[i]! >= length) synced[i] = Math.max(synced[i]!, length)
        }).catch(() => undefined)
      },
      verify: () =>
        this.step(() => {
          for (const [i, part] of manifest.parts.entries()) {
            if (lengths[i] === part.bytes && crc32(parts[i]!) === part.crc) continue
            forget()
            throw new RoundhouseError('CORRUPT', {
              where: `snapshot part ${part.name}`,
              what: 'its checksum',
            })
          }
          for (const [i, part] of manifest.parts.entries()) synced[i] = part.bytes
          verified = true
        }),
      install: flipped => {
        assert(verified, `snapshot ${manifest.id} is installed before it was verified`)
        return this.step(() => {
          this.needRoom()
          const generation = (this.platter.tables.get(replica)?.record.generation ?? firstGeneration) + 1
          this.placeRecords(generationDirectory(replica, generation), manifest, parts)
          this.platter.tables.set(replica, loadTable(manifest, parts, generation))
          forget()
          flipped()
        })
      },
      discard: forget,
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.steps.map(step => step.done.promise.catch(() => undefined)))
    this.failure ??= new RoundhouseError('STORAGE_FAILED', { what: 'state', why: 'it is closed' })
  }

  /**
   * The process dies: of the steps under way the oldest is wholly there or wholly lost, the later ones are lost. Their
   * promises never settle: nobody is left who waits.
   */
  crash(): void {
    this.failure = new RoundhouseError('STORAGE_FAILED', { what: 'state', why: 'the process is gone' })
    const oldest = this.steps[0]
    this.steps.length = 0
    if (oldest !== undefined && this.random.next() < 0.5) {
      try {
        oldest.apply()
      } catch {
        // It would have been refused.
      }
    }
    for (const staged of this.platter.staged.values()) {
      for (const [i, length] of staged.synced.entries()) staged.lengths[i] = length
    }
  }

  private step(apply: () => void): Promise<void> {
    if (this.failure !== null) return Promise.reject(this.failure)
    const step: Step = { apply, done: deferred<void>() }
    this.steps.push(step)
    this.schedule(() => this.finish(step))
    return step.done.promise
  }

  private finish(step: Step): void {
    // Whatever order the scheduler chose, transactions commit in the order in which they began.
    while (this.steps.includes(step)) {
      const oldest = this.steps.shift()!
      try {
        oldest.apply()
        oldest.done.resolve()
      } catch (error) {
        oldest.done.reject(error as Error)
      }
    }
  }
}

function recordOf(meta: CheckpointMeta, generation: number, digest: RowDigest): CheckpointRecord {
  return {
    index: meta.index,
    term: meta.term,
    configuration: meta.configuration,
    generation,
    count: digest.count,
    sum: digest.sum,
    mixed: digest.mixed,
  }
}

function hex(bytes: Bytes): string {
  return [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('')
}

function copyTable(
  table: Table,
  id: string,
  partBytes: number,
  logs: readonly { readonly name: string; readonly body: Uint8Array }[],
): Snapshot {
  const chunks: { name: string; pieces: Bytes[] }[] = []
  const sink = {
    begin: (name: string) => void chunks.push({ name, pieces: [] }),
    write: (bytes: Bytes) => void chunks.at(-1)!.pieces.push(new Uint8Array(bytes)),
  }
  const writer = new SnapshotWriter(sink, table.record, partBytes)
  for (const [key, value] of table.rows.entries()) writer.add(key, value, rowChecksum(key, value))
  writer.end()
  const bodies = new Map<string, Uint8Array>()
  for (const { name, pieces } of chunks) {
    const body = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.byteLength, 0))
    let position = 0
    for (const piece of pieces) {
      body.set(piece, position)
      position += piece.byteLength
    }
    bodies.set(name, body)
  }
  for (const { name, body } of logs) bodies.set(name, body)
  const { index, term, configuration } = table.record
  return {
    manifest: {
      id,
      index,
      term,
      configuration,
      parts: [...bodies].map(([name, body]) => ({ name, bytes: body.byteLength, crc: crc32(body) })),
    },
    read(part, position, length) {
      const body = bodies.get(part)
      assert(body !== undefined, `snapshot ${id} has no part ${part}, or was released`)
      return body.slice(position, position + length)
    },
    release: () => bodies.clear(),
  }
}

function loadTable(manifest: SnapshotManifest, parts: readonly Uint8Array[], generation: number): Table {
  const rows = new BTree<string, Bytes>(undefined, compareKeys)
  const digest = new RowDigest()
  const fail = (what: string) => new RoundhouseError('CORRUPT', { where: `snapshot ${manifest.id}`, what })
  let totals = { count: 0, sum: 0, mixed: 0 }
  for (const [i, part] of manifest.parts.entries()) {
    if (!isRowsPart(part.name)) continue
    const read = (position: number, length: number) => parts[i]!.subarray(position, position + length)
    totals = readPartTotals(part.name, read)
    for (const block of readPartBlocks(part.name, read)) {
      for (const row of unpackRows(block, fail)) {
        if (rowChecksum(row.key, row.value) !== row.checksum) throw fail('the checksum of a row')
        rows.set(row.key, new Uint8Array(row.value))
        digest.add(row.checksum)
      }
    }
  }
  if (!digest.equals(totals)) throw fail('rows are missing')
  return { record: recordOf(manifest, generation, digest), rows }
}

/** A state store without a disk. */
export class MemoryStateStore extends LayeredStateStore {
  private readonly memory: MemoryBase

  constructor(options: MemoryStateOptions) {
    const memory = new MemoryBase(options)
    super(memory)
    this.memory = memory
  }

  /** The process dies here and now; open a new store on the same platter. */
  crash(): void {
    this.memory.crash()
  }
}
