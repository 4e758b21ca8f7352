import {
  closeSync,
  fdatasyncSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { isError, RoundhouseError } from '../errors.ts'
import { endOf, prefixes } from '../keyspace/rows.ts'
import { crc32 } from '../lib/crc.ts'
import { isNoSpace } from '../lib/no-space.ts'
import { systemRandom } from '../lib/prng.ts'
import { FileDisk } from '../log/file-disk.ts'
import { heapMapper } from '../log/mapped-file.ts'
import { segmentName, storeSuffix } from '../log/segment-home.ts'
import { WarmSegments } from '../log/warm-segments.ts'
import type { CheckpointMeta, SnapshotPart } from '../shard/ports.ts'
import { readCheckpoint } from './checked-rows.ts'
import { type CheckpointRecord, decodeRecord, encodeRecord } from './checkpoint-record.ts'
import {
  abandoned,
  checkedValue,
  databaseNames,
  directoryKey,
  directoryName,
  isAbandoned,
  openEnvironment,
  openRows,
  parseRowsName,
  type Root,
  type Rows,
  rowSalt,
  rowsName,
} from './lmdb-env.ts'
import { openLogs, recordPartPlace } from './record-logs.ts'
import { Rests, stepBack } from './rests.ts'
import { RowDigest, rowChecksum, unpackRows } from './row-codec.ts'
import {
  isRowsPart,
  type PartReader,
  readPartBlocks,
  readPartTotals,
  SnapshotWriter,
} from './snapshot-format.ts'
import type { StagedFile, WorkerData, WorkerReply, WorkerRequest } from './state-worker-port.ts'

/**
 * The thread that does what must not run on the main one: every write transaction of the state with its sync, copying a
 * checkpoint into snapshot files, checking and loading received ones. Requests are done one after the other, each wholly
 * or not at all. A transaction that fails is reported as fatal: the main thread then asks for nothing more.
 */

/** A snapshot is loaded in transactions of about this size, so that checkpoints of other replicas get between. */
const installBytes = 4 * 1024 * 1024
/** Files are read in pieces of this size. */
const readBytes = 1024 * 1024

class Writer {
  private readonly root: Root
  private readonly directory: Rows
  private readonly rests: Rests

  constructor(path: string, replicasMax: number, rests: Rests) {
    this.rests = rests
    this.root = openEnvironment(path, replicasMax)
    this.directory = openRows(this.root, directoryName)
  }

  commit(replica: number, meta: CheckpointMeta, packed: readonly Uint8Array[]): void {
    this.root.transactionSync(() => {
      const before = this.record(replica)
      const generation = before?.generation ?? 1
      const rows = openRows(this.root, rowsName(replica, generation))
      const salt = rowSalt(replica, generation)
      const digest = new RowDigest(before)
      for (const buffer of packed) {
        for (const row of unpackRows(buffer, what => new Error(`packed rows: ${what}`))) {
          const old = rows.getBinaryFast(row.key)
          // The stored checksum says what to subtract; whether the old value still fits it is a reader's question.
          if (old !== undefined) digest.remove((Buffer.prototype.readUInt32LE.call(old, 0) ^ salt) >>> 0)
          if (row.deleted) {
            if (old !== undefined) void rows.remove(row.key)
          } else {
            this.put(rows, row.key, row.value, row.stored, salt, digest)
          }
        }
      }
      this.flip(replica, meta, generation, digest)
    })
  }

  /** The value goes from the packed bytes into LMDB's page; its checksum is computed and salted in place. */
  private put(
    rows: Rows,
    key: string,
    value: Uint8Array,
    stored: Buffer,
    salt: number,
    digest: RowDigest,
  ): void {
    const checksum = rowChecksum(key, value)
    stored.writeUInt32LE((checksum ^ salt) >>> 0, 0)
    void rows.put(key, stored)
    digest.add(checksum)
  }

  private flip(replica: number, meta: CheckpointMeta, generation: number, digest: RowDigest): void {
    const { index, term, configuration } = meta
    const { count, sum, mixed } = digest
    const record: CheckpointRecord = { index, term, configuration, generation, count, sum, mixed }
    void this.directory.put(directoryKey(replica), encodeRecord(replica, record))
  }

  private record(replica: number): CheckpointRecord | null {
    const bytes = this.directory.getBinary(directoryKey(replica))
    return bytes === undefined || isAbandoned(bytes) ? null : decodeRecord(replica, bytes)
  }

  /**
   * Directory entry and all generations, in one transaction. Dropping a database walks its pages and frees what they
   * name; of a broken one that could be its neighbours' pages, so it is left where it is.
   */
  drop(replica: number, broken: boolean): void {
    if (broken) {
      this.root.transactionSync(() => void this.directory.put(directoryKey(replica), abandoned))
      return
    }
    const names = databaseNames(this.root).filter(name => parseRowsName(name)?.replica === replica)
    this.root.transactionSync(() => {
      void this.directory.remove(directoryKey(replica))
      for (const name of names) openRows(this.root, name).dropSync()
    })
  }

  /** Generations that the directory does not name: what a crash left of installs and drops. */
  sweep(replica: number | null): void {
    for (const name of databaseNames(this.root)) {
      const rows = parseRowsName(name)
      if (rows === null || (replica !== null && rows.replica !== replica)) continue
      this.root.resetReadTxn()
      if (!this.isLeftover(rows.replica, rows.generation)) continue
      this.root.transactionSync(() => openRows(this.root, name).dropSync())
    }
  }

  private isLeftover(replica: number, generation: number): boolean {
    const bytes = this.directory.get(directoryKey(replica))
    if (bytes === undefined) return true
    try {
      return !isAbandoned(bytes) && decodeRecord(replica, bytes).generation !== generation
    } catch {
      // Which generation is valid is not known: none is dropped.
      return false
    }
  }

  snapshot(
    replica: number,
    directory: string,
    partBytes: number,
  ): { record: CheckpointRecord; parts: SnapshotPart[] } {
    mkdirSync(directory, { recursive: true })
    const sink = new FileSink(directory, this.rests)
    try {
      let writer: SnapshotWriter | undefined
      const record = readCheckpoint(this.root, this.directory, replica, totals => {
        const begun = new SnapshotWriter(sink, totals, partBytes)
        writer = begun
        return (key, value, checksum) => begun.add(key, value, checksum)
      })
      writer!.end()
      return { record, parts: sink.end() }
    } finally {
      sink.close()
    }
  }

  install(request: Extract<WorkerRequest, { kind: 'install' }>): void {
    const { replica, generation, meta, files } = request
    const fail = (what: string) =>
      new RoundhouseError('CORRUPT', { where: `a snapshot for replica ${replica}`, what })
    const salt = rowSalt(replica, generation)
    const digest = new RowDigest()
    let totals = { count: 0, sum: 0, mixed: 0 }
    let blocks: Uint8Array[] = []
    let bytes = 0
    const load = () =>
      this.root.transactionSync(() => {
        const rows = openRows(this.root, rowsName(replica, generation))
        for (const block of blocks) {
          for (const row of unpackRows(block, fail)) {
            if (row.deleted || rowChecksum(row.key, row.value) !== row.checksum)
              throw fail('the checksum of a row')
            this.put(rows, row.key, row.value, row.stored, salt, digest)
          }
        }
        blocks = []
        bytes = 0
      })
    load()
    for (const file of files.filter(file => isRowsPart(file.name))) {
      withFile(file.path, read => {
        totals = readPartTotals(file.name, read)
        for (const block of readPartBlocks(file.name, read)) {
          blocks.push(block)
          bytes += block.byteLength
          if (bytes < installBytes) continue
          load()
          this.rests.rest()
        }
      })
    }
    load()
    if (!digest.equals(totals)) throw fail('rows are missing')
    placeRecords(request.home, request.records, files, this.partitions(replica, generation, salt))
    this.root.transactionSync(() => this.flip(replica, meta, generation, digest))
  }

  private partitions(replica: number, generation: number, salt: number): [row: string, value: Uint8Array][] {
    this.root.resetReadTxn()
    const rows = openRows(this.root, rowsName(replica, generation))
    const found: [string, Uint8Array][] = []
    for (const { key, value } of rows.getRange({
      ...{ start: prefixes.partition, end: endOf(prefixes.partition) },
    }))
      found.push([key, Uint8Array.from(checkedValue(value, key, replica, salt))])
    return found
  }

  async close(): Promise<void> {
    await this.root.close()
  }
}

/** Names the files a second time, in the snapshot's directory: from now on they stay. */
function link(directory: string, files: readonly StagedFile[]): void {
  for (const { name, path } of files) linkSync(path, join(directory, name))
}

/** The checksum of a file's first `bytes` bytes. */
function sum(path: string, bytes: number, rests: Rests): number {
  let crc = 0
  withFile(path, read => {
    for (let at = 0; at < bytes; ) {
      const chunk = read(at, Math.min(readBytes, bytes - at))
      if (chunk.byteLength === 0)
        throw new RoundhouseError('CORRUPT', { where: path, what: `it ends before ${bytes} bytes` })
      crc = crc32(chunk, crc)
      at += chunk.byteLength
      rests.rest()
    }
  })
  return crc
}

/**
 * The received files of records become the logs of a generation that nothing names yet: each file under its name, with
 * the indexes that the main thread would otherwise make when it opens them, and all names durable.
 */
function placeRecords(
  home: string,
  records: string,
  files: readonly StagedFile[],
  partitions: readonly (readonly [row: string, value: Uint8Array])[],
): void {
  const disk = new FileDisk(home)
  // What an earlier attempt left under the same number.
  disk.removeTree(records)
  const places = files.flatMap(({ name, path }) => {
    const place = recordPartPlace(name)
    return place === null ? [] : [{ ...place, path }]
  })
  if (places.length === 0 && partitions.length === 0) return
  for (const { log, baseOffset, path } of places) {
    disk.makeDirectory(`${records}/${log}`)
    linkSync(path, join(home, records, log, `${segmentName(baseOffset)}${storeSuffix}`))
  }
  const recordHome = { disk, map: heapMapper(disk), random: systemRandom, warm: new WarmSegments() }
  openLogs(recordHome, records, partitions).close()
  const directories = new Set<string>()
  for (const { log } of places)
    for (let path = `${records}/${log}`; path !== '.'; path = dirname(path)) directories.add(path)
  for (const directory of [...directories, '']) disk.syncDirectory(directory)
}

/** Of one copy, all together: while its transaction is open, the pages that checkpoints free are not used again. */
const copyRestsMsMax = 5_000

/** Files of a snapshot being written. They are gone at the next start anyway: not synced. */
class FileSink {
  private readonly directory: string
  private readonly rests: Rests
  private readonly parts: { name: string; bytes: number; crc: number }[] = []
  private file: number | null = null
  private pending: Uint8Array[] = []
  private pendingBytes = 0
  private restedMs = 0

  constructor(directory: string, rests: Rests) {
    this.directory = directory
    this.rests = rests
  }

  begin(name: string): void {
    this.close()
    this.file = openSync(join(this.directory, name), 'w')
    this.parts.push({ name, bytes: 0, crc: 0 })
  }

  write(bytes: Uint8Array): void {
    // The writer reuses its block: keep a copy until there is enough for a write.
    this.pending.push(new Uint8Array(bytes))
    this.pendingBytes += bytes.byteLength
    if (this.pendingBytes < 1024 * 1024) return
    this.flush()
    if (this.restedMs < copyRestsMsMax) this.restedMs += this.rests.rest()
  }

  private flush(): void {
    const bytes = Buffer.concat(this.pending)
    this.pending = []
    this.pendingBytes = 0
    const part = this.parts.at(-1)!
    part.bytes += bytes.length
    part.crc = crc32(bytes, part.crc)
    writeWhole(this.file!, bytes)
  }

  end(): SnapshotPart[] {
    this.close()
    return this.parts
  }

  close(): void {
    if (this.file === null) return
    try {
      this.flush()
    } finally {
      closeSync(this.file)
      this.file = null
    }
  }
}

function writeWhole(file: number, bytes: Uint8Array): void {
  let written = 0
  while (written < bytes.byteLength) written += writeSync(file, bytes, written)
}

function withFile(path: string, use: (read: PartReader) => void): void {
  const file = openSync(path, 'r')
  try {
    use((position, length) => {
      const bytes = Buffer.allocUnsafeSlow(length)
      let filled = 0
      while (filled < length) {
        const got = readSync(file, bytes, filled, length - filled, position + filled)
        if (got === 0) break
        filled += got
      }
      return bytes.subarray(0, filled)
    })
  } finally {
    closeSync(file)
  }
}

/** Which of the received parts is not what the manifest says, if any; the good ones are synced, names and all. */
function verify(files: readonly (StagedFile & SnapshotPart)[], rests: Rests): string | null {
  for (const part of files) {
    let crc = 0
    let length = 0
    withFile(part.path, read => {
      for (;;) {
        const bytes = read(length, readBytes)
        if (bytes.byteLength === 0) break
        crc = crc32(bytes, crc)
        length += bytes.byteLength
        rests.rest()
      }
    })
    if (length !== part.bytes || crc !== part.crc) return part.name
  }
  for (const part of files) syncFile(part.path, 'r+', fdatasyncSync)
  const first = files[0]
  if (first !== undefined) syncFile(dirname(first.path), 'r', fsyncSync)
  return null
}

function syncFile(path: string, mode: string, sync: (file: number) => void): void {
  const file = openSync(path, mode)
  try {
    sync(file)
  } finally {
    closeSync(file)
  }
}

async function perform(writer: Writer, request: WorkerRequest, rests: Rests): Promise<unknown> {
  rests.begin()
  switch (request.kind) {
    case 'commit':
      return writer.commit(request.replica, request.meta, request.rows)
    case 'drop':
      return writer.drop(request.replica, request.broken)
    case 'sweep':
      return writer.sweep(request.replica)
    case 'snapshot':
      try {
        return writer.snapshot(request.replica, request.directory, request.partBytes)
      } catch (error) {
        rmSync(request.directory, { recursive: true, force: true })
        throw error
      }
    case 'link':
      return link(request.directory, request.files)
    case 'sum':
      return sum(request.path, request.bytes, rests)
    case 'verify':
      return verify(request.files, rests)
    case 'install':
      return writer.install(request)
    case 'close':
      return await writer.close()
  }
}

/** A read that fails concerns one replica; a write that fails, the disk. */
function isFatal(request: WorkerRequest, error: unknown): boolean {
  const isRead = ['snapshot', 'link', 'sum'].includes(request.kind)
  return !isRead && !isError(error, 'CORRUPT') && !lackedRoom(request, error)
}

/**
 * A transaction that found no room has changed nothing: LMDB writes its pages beside those in use and then the one that
 * names them. Were it the sync that found none, every page that it may have lost is written anew by the next try, and
 * nothing else is: that failed sync alone may be forgiven. Whether the sync of staged parts failed so can't be told from
 * a lost write, so `verify` is not among them.
 */
function lackedRoom(request: WorkerRequest, error: unknown): boolean {
  if (request.kind === 'verify' || request.kind === 'close' || !(error instanceof Error)) return false
  if (isNoSpace(error) || noSpaceTexts.test(error.message)) return true
  // A write that the system cut short at the last free page is an I/O error to LMDB: the disk tells them apart.
  return shortWriteText.test(error.message) && freeBytes() < fullBytes
}

/** What LMDB passes on of the system's words, and its own for a map that is full. */
const noSpaceTexts = /No space left on device|Disk quota exceeded|File too large|MDB_MAP_FULL/
const shortWriteText = /Input\/output error/
/** A disk with less is full: a write that was cut short leaves nothing. */
const fullBytes = 1024 * 1024

function freeBytes(): number {
  const { bavail, bsize } = statfsSync((workerData as WorkerData).path)
  return bavail * bsize
}

if (parentPort !== null) {
  const port = parentPort
  const { path, replicasMax, isBulk, hurry } = workerData as WorkerData
  const rests = new Rests(hurry)
  if (isBulk) stepBack()
  const writer = new Writer(path, replicasMax, rests)
  let last: Promise<void> = Promise.resolve()
  port.on('message', ({ id, request }: { id: number; request: WorkerRequest }) => {
    last = last.then(async () => {
      let reply: WorkerReply
      try {
        reply = { id, result: await perform(writer, request, rests) }
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error)
        const facts = isError(error, 'CORRUPT') ? error.facts : null
        const noSpace = facts === null && lackedRoom(request, error)
        // The file that failed, for whoever reads the log: LMDB names none.
        const named = facts === null ? `${join(path, 'data.mdb')}: ${text}` : text
        reply = { id, failure: { text: named, corrupt: facts, noSpace, fatal: isFatal(request, error) } }
      }
      port.postMessage(reply)
      if (request.kind === 'close') port.close()
      else if (isBulk) rests.rest()
    })
  })
}
