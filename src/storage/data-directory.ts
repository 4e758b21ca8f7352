/**
 * A node's data directory: whose it is, and that only one process uses it.
 *
 *     node.json   who lives here, five facts and their checksum:
 *                 { "format": 1, "clusterId": text or null, "nodeId", "storeId": 32 hex digits,
 *                   "startCount": a number, "crc32": 8 hex digits, over the compact JSON of the facts before it }
 *     LOCK        held while the directory is open (lib/directory-lock.ts)
 *     CLEAN       there while nobody uses the directory whose last user closed all that is in it; a start removes it
 *
 * node.json is the first thing made here and never missing after. It is only ever replaced whole (temporary file, fsync,
 * rename, fsync of the directory), so a crash leaves the old one or the new one; one that can't be read is damage, and
 * is left as it is: a store id that was guessed anew could let a node vote that has lost its memory.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { fromUtf8 } from '../lib/bytes.ts'
import { crc32 } from '../lib/crc.ts'
import { isLockName, type LockResult, lockDirectory } from '../lib/directory-lock.ts'
import { isNoSpace } from '../lib/no-space.ts'
import type { Random } from '../lib/prng.ts'
import { systemReason } from '../lib/system-reason.ts'
import { reserveName } from './disk-space.ts'

const format = 1
const fileName = 'node.json'
const temporaryName = 'node.json.tmp'
const cleanName = 'CLEAN'
/** More than any node.json; a longer file is not read. */
const fileBytesMax = 4096
/** What may lie in a directory that is not ours yet: what file systems and operators put there. */
const harmlessNames = ['lost+found', 'logs', temporaryName]

const nodeIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const clusterIdPattern = /^[\x21-\x7e]{1,128}$/
const storeIdPattern = /^[0-9a-f]{32}$/

export interface NodeIdentity {
  /** null until the node has founded or joined a cluster; then the same for ever. */
  readonly clusterId: string | null
  readonly nodeId: string
  /** Random, made with the directory: a node that lost its disk can't pass for the one that it was. */
  readonly storeId: string
  /** The version of the directory's layout. */
  readonly format: number
  /** How often the directory was opened, this time included: higher than in every earlier life of the node. */
  readonly startCount: number
}

export interface DataDirectoryOptions {
  /** Made where it does not exist. */
  readonly path: string
  /** null takes whatever node lives there, and makes none. */
  readonly nodeId: string | null
  readonly random: Random
}

/**
 * Opens and locks the directory; counts the start. Throws DATA_DIR, having changed nothing: held by another process,
 * another node's, of a newer format, damaged, not ours, not a directory, not writable.
 */
export async function openDataDirectory({
  path: given,
  nodeId,
  random,
}: DataDirectoryOptions): Promise<DataDirectory> {
  assert(nodeId === null || nodeIdPattern.test(nodeId), `node id ${nodeId}`)
  const path = resolve(given)
  makeDirectory(path, nodeId)
  // Once before the lock, so that nothing is put into a directory that is not ours; what counts is read behind it.
  readIdentity(path, nodeId)
  const lock = await lockDirectory(path, random)
  if (lock.kind === 'refused') throw refusal(path, lock.why)
  try {
    const found = readIdentity(path, nodeId)
    const identity: NodeIdentity =
      found === null
        ? {
            format,
            clusterId: null,
            nodeId: nodeId!,
            storeId: Buffer.from(random.bytes(16)).toString('hex'),
            startCount: 1,
          }
        : { ...found, startCount: found.startCount + 1 }
    try {
      writeWithReserve(path, identity)
    } catch (error) {
      throw refusal(path, `${fileName} can't be written: ${systemReason(error)}`)
    }
    return new DataDirectory(path, identity, found === null, takeClean(path), lock)
  } catch (error) {
    lock.release()
    throw error
  }
}

type Lock = Extract<LockResult, { kind: 'locked' }>

export class DataDirectory {
  /** Absolute. */
  readonly path: string
  /** Whether this call made it. A directory without a cluster id may be older: its node was stopped before it had one. */
  readonly isNew: boolean
  /** Its last user ended by itself, everything closed. Otherwise what is in it may have been left half-way. */
  readonly wasClean: boolean
  private current: NodeIdentity
  private failure: RoundhouseError | null = null
  private lock: Lock | null

  /** Use `openDataDirectory`. */
  constructor(path: string, identity: NodeIdentity, isNew: boolean, wasClean: boolean, lock: Lock) {
    this.path = path
    this.wasClean = wasClean || isNew
    this.current = identity
    this.isNew = isNew
    this.lock = lock
  }

  get identity(): NodeIdentity {
    return this.current
  }

  /**
   * The node belongs to this cluster from now on: durable on return. Throws DATA_DIR when it belongs to another one,
   * INVALID_ARGUMENT for what is no cluster id, STORAGE_FAILED when the disk refuses, then and ever after.
   */
  setClusterId(id: string): void {
    assert(this.lock !== null, `${this.path}: used after close`)
    if (this.failure !== null) throw this.failure
    if (!clusterIdPattern.test(id)) {
      const accepted = '1 to 128 printable ASCII characters without spaces'
      throw new RoundhouseError('INVALID_ARGUMENT', { what: `cluster id ${JSON.stringify(id)}`, accepted })
    }
    const { clusterId } = this.current
    if (clusterId === id) return
    if (clusterId !== null) throw refusal(this.path, `it belongs to cluster ${clusterId}, not to ${id}`)
    const next = { ...this.current, clusterId: id }
    try {
      writeIdentity(this.path, next)
    } catch (error) {
      const what = join(this.path, fileName)
      this.failure = new RoundhouseError('STORAGE_FAILED', { what, why: systemReason(error) })
      throw this.failure
    }
    this.current = next
  }

  /** Lets the next process in. The directory's files must be closed before; `isClean`: and they were, without trouble. */
  close(isClean = false): void {
    if (isClean && this.lock !== null && this.failure === null) noteClean(this.path)
    this.lock?.release()
    this.lock = null
  }
}

/** Whether the last user left it clean. From now on it is not, durably: this one has yet to end. */
function takeClean(path: string): boolean {
  const file = join(path, cleanName)
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return false
  rmSync(file)
  syncDirectory(path)
  return true
}

function noteClean(path: string): void {
  try {
    writeFileSync(join(path, cleanName), '')
    syncDirectory(path)
  } catch {
    // Without it the next start looks through everything: slower, never wrong.
  }
}

function refusal(path: string, why: string): RoundhouseError {
  return new RoundhouseError('DATA_DIR', { path, why })
}

/** Makes the directory and its parents, durably, unless it is there; then checks that it can be used. */
function makeDirectory(path: string, nodeId: string | null): void {
  try {
    const found = statSync(path, { throwIfNoEntry: false })
    if (found === undefined) {
      if (nodeId === null) throw refusal(path, 'it does not exist')
      const first = mkdirSync(path, { recursive: true, mode: 0o700 })
      // A directory is durable when its parent's list of names is.
      if (first !== undefined) {
        for (let made = path; made.length >= first.length; made = dirname(made)) syncDirectory(dirname(made))
      }
    } else if (!found.isDirectory()) throw refusal(path, 'it is not a directory')
  } catch (error) {
    if (error instanceof RoundhouseError) throw error
    throw refusal(path, `it can't be reached or made: ${systemReason(error)}`)
  }
  for (const [mode, what] of [
    [constants.R_OK | constants.X_OK, 'read'],
    [constants.W_OK, 'written'],
  ] as const) {
    try {
      accessSync(path, mode)
    } catch (error) {
      throw refusal(path, `it can't be ${what}: ${systemReason(error)}`)
    }
  }
}

/** Who lives there; null when nobody does and `nodeId` may. Throws DATA_DIR. */
function readIdentity(path: string, nodeId: string | null): NodeIdentity | null {
  let bytes: Buffer | null
  let foreign: string[]
  try {
    // In this order: another starter makes node.json before anything else.
    foreign = readdirSync(path).filter(name => !harmlessNames.includes(name) && !isLockName(name))
    bytes = readSmallFile(join(path, fileName))
  } catch (error) {
    throw refusal(path, `${fileName} can't be read: ${systemReason(error)}`)
  }
  if (bytes === null) {
    if (foreign.length > 0) {
      const some = foreign.slice(0, 3).join(', ') + (foreign.length > 3 ? ', …' : '')
      throw refusal(path, `it is not a node's: it has no ${fileName}, and is not empty (${some})`)
    }
    if (nodeId === null) throw refusal(path, `it is empty: no node lives there`)
    return null
  }
  const parsed = parseIdentity(bytes)
  if (typeof parsed === 'string') throw refusal(path, parsed)
  if (nodeId !== null && parsed.nodeId !== nodeId) {
    throw refusal(path, `it belongs to node ${parsed.nodeId}, not to ${nodeId}`)
  }
  return parsed
}

/** null when there is none. */
function readSmallFile(file: string): Buffer | null {
  const found = statSync(file, { throwIfNoEntry: false })
  if (found === undefined) return null
  // Something huge under this name is damage as well, found by its length.
  return found.isFile() && found.size > fileBytesMax ? Buffer.alloc(fileBytesMax + 1) : readFileSync(file)
}

/** A node.json's identity, or what is wrong with it. */
export function parseIdentity(bytes: Uint8Array): NodeIdentity | string {
  const damaged = (what: string) =>
    `${fileName} is damaged: ${what}; nothing was changed: restore the file, or replace this node by a new one`
  if (bytes.byteLength === 0) return damaged('it is empty')
  if (bytes.byteLength > fileBytesMax) return damaged(`it is longer than ${fileBytesMax} bytes`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return damaged('it is no JSON text')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return damaged('it is no JSON object')
  const fields = value as Record<string, unknown>
  // The format comes before all else: a newer one may have other fields.
  if (!isCount(fields.format)) return damaged('"format" is no version number')
  if (fields.format > format) {
    return `${fileName} has format ${fields.format}, this program knows ${format}: use a newer one`
  }
  for (const [name, isValid] of Object.entries(checks)) {
    if (!Object.hasOwn(fields, name)) return damaged(`"${name}" is missing`)
    if (!isValid(fields[name])) return damaged(`"${name}" is not valid`)
  }
  const unknown = Object.keys(fields).find(name => !Object.hasOwn(checks, name))
  if (unknown !== undefined) return damaged(`${JSON.stringify(unknown)} is not known`)
  const { crc32: checksum, ...facts } = fields
  const identity = facts as unknown as NodeIdentity
  if (checksum !== checksumOf(identity)) return damaged('its checksum is wrong')
  return identity
}

const isText = (pattern: RegExp) => (value: unknown) => typeof value === 'string' && pattern.test(value)

/** One less than the greatest: there is always a next start. */
function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) < Number.MAX_SAFE_INTEGER
}

const checks: Record<keyof NodeIdentity | 'crc32', (value: unknown) => boolean> = {
  format: isCount,
  clusterId: value => value === null || isText(clusterIdPattern)(value),
  nodeId: isText(nodeIdPattern),
  storeId: isText(storeIdPattern),
  startCount: isCount,
  crc32: isText(/^[0-9a-f]{8}$/),
}

function ordered({ format, clusterId, nodeId, storeId, startCount }: NodeIdentity): NodeIdentity {
  return { format, clusterId, nodeId, storeId, startCount }
}

function checksumOf(identity: NodeIdentity): string {
  return crc32(fromUtf8(JSON.stringify(ordered(identity))))
    .toString(16)
    .padStart(8, '0')
}

/** On a disk that filled up while the node was down, the first write of its start is the first to need the reserve. */
function writeWithReserve(path: string, identity: NodeIdentity): void {
  try {
    writeIdentity(path, identity)
  } catch (error) {
    const reserve = join(path, reserveName)
    if (!isNoSpace(error) || !existsSync(reserve)) throw error
    rmSync(reserve)
    writeIdentity(path, identity)
  }
}

/** Replaces node.json; durable on return. */
function writeIdentity(path: string, identity: NodeIdentity): void {
  const temporary = join(path, temporaryName)
  const text = JSON.stringify({ ...ordered(identity), crc32: checksumOf(identity) }, null, 2)
  // Removed first, so that whatever lies there is never written through, were it a link.
  rmSync(temporary, { force: true })
  const descriptor = openSync(temporary, 'wx', 0o600)
  try {
    writeFileSync(descriptor, `${text}\n`)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  renameSync(temporary, join(path, fileName))
  syncDirectory(path)
}

function syncDirectory(path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
