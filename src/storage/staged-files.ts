import {
  closeSync,
  fdatasync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { deferred } from '../lib/deferred.ts'
import type { SnapshotManifest, SnapshotPart } from '../shard/ports.ts'
import { StagingProgress } from './staging.ts'
import type { StagedFile } from './state-worker-port.ts'

/**
 * The files of a snapshot being received: staging/<replica>/<id>/<part>, and beside them `progress`, an append-only list
 * of what is synced (little-endian):
 *
 *     part u32 | length u64 | CRC-32 of the 12 bytes u32
 *
 * A record is written after the fdatasync of the bytes it speaks of, so it never says too much; it is not synced itself,
 * so it may say too little, and then some bytes are fetched again. One sync is under way at a time and covers what was
 * written meanwhile with the next one.
 */
const recordBytes = 16
const progressName = 'progress'

/** Names and ids come from another node: nothing that could leave the directory. */
const safePart = /^[a-z0-9][a-z0-9._-]{0,63}$/i
const safeId = /^[0-9a-f]{32}$/

export class StagedFiles {
  readonly replica: number
  readonly manifest: SnapshotManifest
  private readonly directory: string
  private progress: StagingProgress
  private readonly files = new Map<number, number>()
  private log: number | null = null
  private syncing: Promise<void> | null = null
  /** Part → length that the next syncs have to cover. */
  private readonly unsynced = new Map<number, number>()
  private failed: Error | null = null

  /** What was staged of other snapshots for this replica goes. */
  constructor(staging: string, replica: number, manifest: SnapshotManifest) {
    const named = new Set(manifest.parts.map(part => part.name))
    const bad = manifest.parts.find(part => !safePart.test(part.name) || part.name === progressName)
    if (!safeId.test(manifest.id) || bad !== undefined || named.size < manifest.parts.length)
      throw new RoundhouseError('CORRUPT', {
        where: 'a snapshot manifest',
        what: 'its id or a name of a part',
      })
    const parent = join(staging, String(replica))
    this.replica = replica
    this.manifest = manifest
    this.directory = join(parent, manifest.id)
    mkdirSync(this.directory, { recursive: true })
    for (const other of readdirSync(parent))
      if (other !== manifest.id) rmSync(join(parent, other), { recursive: true, force: true })
    this.progress = new StagingProgress(manifest, this.recover())
  }

  get bytesStaged(): number {
    return this.progress.bytesStaged
  }

  next(): { readonly part: string; readonly position: number; readonly length: number } | null {
    return this.progress.next()
  }

  /** Throws STORAGE_FAILED when the disk refuses; the snapshot can be discarded or gone on with. */
  write(name: string, position: number, bytes: Bytes): void {
    const part = this.progress.admit(name, position, bytes.byteLength)
    try {
      const file = this.file(part)
      let written = 0
      while (written < bytes.byteLength)
        written += writeSync(file, bytes, written, bytes.byteLength - written, position + written)
    } catch (error) {
      throw new RoundhouseError('STORAGE_FAILED', { what: `staging ${name}`, why: (error as Error).message })
    }
    this.progress.lengths[part] = position + bytes.byteLength
    this.unsynced.set(part, position + bytes.byteLength)
    this.syncing ??= this.sync()
  }

  /** The parts' files, with all that was written to them synced and their handles closed. */
  async finished(): Promise<readonly (StagedFile & SnapshotPart)[]> {
    assert(this.next() === null, `snapshot ${this.manifest.id} is not complete`)
    await this.settle()
    if (this.failed !== null) throw this.failed
    // An empty part was never written.
    for (const [i, part] of this.manifest.parts.entries()) if (part.bytes === 0) this.file(i)
    this.closeFiles()
    return this.manifest.parts.map(part => ({ ...part, path: join(this.directory, part.name) }))
  }

  /** Nothing is staged any more; it may begin again. */
  async forget(): Promise<void> {
    await this.settle()
    this.closeFiles()
    this.progress = new StagingProgress(this.manifest)
    rmSync(this.directory, { recursive: true, force: true })
    mkdirSync(this.directory, { recursive: true })
  }

  /** The files go; the object is not used again. */
  async remove(): Promise<void> {
    await this.settle()
    this.closeFiles()
    rmSync(this.directory, { recursive: true, force: true })
  }

  /** Resolves when no sync runs; releases the handles. What is not synced is fetched again after a restart. */
  async close(): Promise<void> {
    await this.settle()
    this.closeFiles()
  }

  private async settle(): Promise<void> {
    while (this.syncing !== null) await this.syncing
  }

  private file(part: number): number {
    let file = this.files.get(part)
    if (file === undefined) {
      file = openSync(join(this.directory, this.manifest.parts[part]!.name), 'a+')
      closeSync(file)
      file = openSync(join(this.directory, this.manifest.parts[part]!.name), 'r+')
      this.files.set(part, file)
    }
    return file
  }

  private async sync(): Promise<void> {
    for (let next = this.takeUnsynced(); next !== null && this.failed === null; next = this.takeUnsynced()) {
      const [part, length] = next
      const done = deferred<void>()
      fdatasync(this.file(part), error => (error ? done.reject(error) : done.resolve()))
      try {
        await done.promise
        this.record(part, length)
        if (length === this.manifest.parts[part]!.bytes && !this.unsynced.has(part)) this.closeFile(part)
      } catch (error) {
        // A failed sync may have lost what it should have written, and another one would not say so.
        this.failed = new RoundhouseError('STORAGE_FAILED', {
          what: 'staging',
          why: (error as Error).message,
        })
      }
    }
    this.syncing = null
  }

  private takeUnsynced(): [part: number, length: number] | null {
    for (const entry of this.unsynced) {
      this.unsynced.delete(entry[0])
      return entry
    }
    return null
  }

  private record(part: number, length: number): void {
    this.log ??= openSync(join(this.directory, progressName), 'a')
    const record = Buffer.alloc(recordBytes)
    record.writeUInt32LE(part, 0)
    record.writeBigUInt64LE(BigInt(length), 4)
    record.writeUInt32LE(crc32(record.subarray(0, 12)), 12)
    writeSync(this.log, record)
  }

  /** The synced lengths of an earlier life; files are cut to them. */
  private recover(): number[] {
    const lengths = this.manifest.parts.map(() => 0)
    let list: Buffer
    try {
      list = readFileSync(join(this.directory, progressName))
    } catch {
      list = Buffer.alloc(0)
    }
    for (let at = 0; at + recordBytes <= list.length; at += recordBytes) {
      const record = list.subarray(at, at + recordBytes)
      const part = record.readUInt32LE(0)
      if (record.readUInt32LE(12) !== crc32(record.subarray(0, 12)) || part >= lengths.length) break
      lengths[part] = Number(record.readBigUInt64LE(4))
    }
    for (const [i, part] of this.manifest.parts.entries()) {
      if (lengths[i] === 0) continue
      try {
        truncateSync(join(this.directory, part.name), lengths[i])
      } catch {
        lengths[i] = 0
      }
    }
    return lengths
  }

  private closeFile(part: number): void {
    const file = this.files.get(part)
    if (file === undefined) return
    closeSync(file)
    this.files.delete(part)
  }

  private closeFiles(): void {
    for (const file of this.files.values()) closeSync(file)
    this.files.clear()
    if (this.log !== null) closeSync(this.log)
    this.log = null
  }
}
