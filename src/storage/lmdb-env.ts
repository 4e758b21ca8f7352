import { type Database, open, type RootDatabase } from 'lmdb'
import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import { toLatin1 } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { bufferOf, keyBytesMax, rowChecksum } from './row-codec.ts'

/**
 * How the state's LMDB environment is opened and what lies in it; shared by the main thread (which only reads) and the
 * workers (which write). Within a process lmdb-js opens a path once: all threads share one environment.
 *
 *     directory          replica (8 bytes, big-endian) → checkpoint record (checkpoint-record.ts)
 *                        or one zero byte: the replica is gone, its broken database is left alone
 *     r<replica>.<generation>   row key → stored checksum u32 LE | value
 *
 * stored checksum = rowChecksum(key, value) XOR salt(replica, generation): rows of another database, reached through a
 * broken page or a handle that went stale, don't pass.
 */
export type Rows = Database<Bytes, string>
export type Root = RootDatabase<Bytes, string>

/** Latin1 strings straight into LMDB's key buffer: no Buffer a key, and byte order is string order. */
const latin1Keys = {
  writeKey: (key: string, target: Uint8Array, position: number) =>
    position + Buffer.prototype.write.call(target, key, position, 'latin1'),
  readKey: (source: Uint8Array, from: number, to: number) =>
    Buffer.prototype.toString.call(source, 'latin1', from, to),
}

const databaseOptions = { encoding: 'binary', keyEncoder: latin1Keys, cache: false } as const

/** Databases beside the replicas': the directory, and both generations of a replica while a snapshot is installed. */
const spareDatabases = 72

/**
 * Address space, not disk: LMDB maps the file once and can't be asked to grow it while other threads read. It is also the
 * most that the state can hold.
 */
const mapBytes = 2 ** 40

export const directoryName = 'directory'

export function openEnvironment(path: string, replicasMax: number, readOnly = false): Root {
  return open<Bytes, string>({
    path,
    noSubdir: false,
    readOnly,
    // The default acknowledges before the sync and forgives one that fails.
    overlappingSync: false,
    maxDbs: replicasMax + spareDatabases,
    mapSize: mapBytes,
    ...databaseOptions,
  })
}

/** Makes the database when there is none: call it in a write transaction, or where a synchronous commit is fine. */
export function openRows(root: Root, name: string): Rows {
  return root.openDB<Bytes, string>(name, databaseOptions)
}

/** Of all named databases, as a new read transaction shows them. LMDB stores a name with its final zero. */
export function databaseNames(root: Root): string[] {
  root.resetReadTxn()
  return [...root.getKeys({ start: '\x00' })].map(name => (name.endsWith('\x00') ? name.slice(0, -1) : name))
}

export function rowsName(replica: number, generation: number): string {
  return `r${replica}.${generation}`
}

export function parseRowsName(name: string): { replica: number; generation: number } | null {
  const match = /^r(\d+)\.(\d+)$/.exec(name)
  return match === null ? null : { replica: Number(match[1]), generation: Number(match[2]) }
}

export function directoryKey(replica: number): string {
  const key = Buffer.alloc(8)
  key.writeBigUInt64BE(BigInt(replica))
  return toLatin1(key)
}

/** Stands for a replica whose database can't be dropped because its pages are not to be trusted. */
export const abandoned: Bytes = new Uint8Array(1)

export function isAbandoned(record: Bytes): boolean {
  return record.byteLength === 1
}

export function parseDirectoryKey(key: string): number {
  return Number(Buffer.from(key, 'latin1').readBigUInt64BE())
}

export function rowSalt(replica: number, generation: number): number {
  return crc32(Buffer.from(rowsName(replica, generation), 'latin1'))
}

export const checksumBytes = 4

/** The value of a stored row; CORRUPT when row, key, replica and generation don't belong together. */
export function checkedValue(stored: Bytes, key: string, replica: number, salt: number): Bytes {
  if (stored.byteLength >= checksumBytes && key.length <= keyBytesMax) {
    const value = stored.subarray(checksumBytes)
    if ((rowChecksum(key, value) ^ salt) >>> 0 === bufferOf(stored).readUInt32LE(0)) return value
  }
  const printable = JSON.stringify(key.length > 64 ? `${key.slice(0, 64)}…` : key)
  throw new RoundhouseError('CORRUPT', { where: `replica ${replica}'s state`, what: `row ${printable}` })
}
