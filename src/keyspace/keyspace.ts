import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import { Groups } from './groups.ts'
import { Hashes } from './hashes.ts'
import { Keys, type ValueType } from './keys.ts'
import { Lists } from './lists.ts'
import { Partitions } from './partitions.ts'
import type { RowStore } from './row-store.ts'
import type { Header, StringHeader } from './rows.ts'
import {
  type Element,
  type Page,
  type PageLimits,
  randomKey,
  type ScannedType,
  scanElements,
  scanKeys,
} from './scan.ts'
import { SessionTable } from './sessions.ts'
import { Sets } from './sets.ts'
import { SortedSets } from './sorted-sets.ts'
import { Sweeper } from './sweep.ts'

/**
 * Typed access to a shard's rows, as commands see them: keys with a type and perhaps an expiry, strings, and collections
 * of elements. What is expired is missing for everybody, swept or not; the clock that judges it stands in keys.ts, how
 * all of it becomes rows in rows.ts.
 *
 * `keyCount` counts as Redis does: keys that expired and were not swept yet are in it.
 */
export class Keyspace {
  readonly rows: RowStore
  readonly sessions: SessionTable
  readonly hashes: Hashes
  readonly lists: Lists
  readonly sets: Sets
  readonly sortedSets: SortedSets
  readonly groups: Groups
  readonly partitions: Partitions
  private readonly keys: Keys
  private readonly sweeper: Sweeper

  constructor(rows: RowStore) {
    this.rows = rows
    this.keys = new Keys(rows)
    this.sessions = new SessionTable(rows)
    this.hashes = new Hashes(this.keys)
    this.lists = new Lists(this.keys)
    this.sets = new Sets(this.keys)
    this.sortedSets = new SortedSets(this.keys)
    this.partitions = new Partitions(this.keys)
    this.groups = new Groups(this.keys)
    this.sweeper = new Sweeper(this.keys, this.hashes, this.sessions, this.groups)
  }

  /** `revision` is the Raft index of the entry, `term` its term, `logNowMs` the log clock with the entry's stamp in it. */
  beginEntry(revision: number, logNowMs: number, term = 0): void {
    this.keys.beginEntry(revision, logNowMs, term)
  }

  /** `wallNowMs` is the leader's wall clock for a linearizable read, null for a stale one. */
  beginRead(revision: number, logNowMs: number, wallNowMs: number | null): void {
    this.keys.beginRead(revision, logNowMs, wallNowMs)
  }

  /** Set by a read that met what is expired by the wall clock and not by the log's: its answer must not be used. */
  get clockWanted(): boolean {
    return this.keys.clockWanted
  }

  /** The time to measure what is left of a TTL by, ms since 1970. */
  get nowMs(): number {
    return this.keys.nowMs
  }

  // --- Keys -----------------------------------------------------------------------------------------------------------

  type(key: Bytes): ValueType | null {
    return this.keys.find(toLatin1(key))?.type ?? null
  }

  has(key: Bytes): boolean {
    return this.keys.find(toLatin1(key)) !== undefined
  }

  /** Raft index of the key's last change; null when it is missing. */
  revisionOf(key: Bytes): number | null {
    return this.keys.find(toLatin1(key))?.revision ?? null
  }

  /** Absolute, ms since 1970; null = never; undefined = no such key. */
  expiryOf(key: Bytes): number | null | undefined {
    return this.keys.find(toLatin1(key))?.expiresAtMs
  }

  /** Sets or (null) removes a key's expiry; one that has passed already deletes the key. False: no such key. */
  setExpiry(key: Bytes, expiresAtMs: number | null): boolean {
    const name = toLatin1(key)
    const header = this.keys.find(name)
    if (header === undefined) return false
    if (expiresAtMs !== null && expiresAtMs <= this.keys.logNowMs) this.keys.remove(name, header)
    else this.keys.store(name, header, expiresAtMs)
    return true
  }

  deleteKey(key: Bytes): boolean {
    const name = toLatin1(key)
    const header = this.keys.load(name)
    if (header === undefined) return false
    const wasLive = this.keys.isLive(header)
    this.keys.remove(name, header)
    return wasLive
  }

  /** Value and expiry go to the other name, and what that held is gone. False: no such key. */
  rename(from: Bytes, to: Bytes): boolean {
    const [name, newName] = [toLatin1(from), toLatin1(to)]
    const header = this.keys.find(name)
    if (header === undefined) return false
    if (name !== newName) this.keys.rename(name, newName, header)
    return true
  }

  /** Value and expiry for the other name too. False: no such key, or the other one exists and is not to be replaced. */
  copy(from: Bytes, to: Bytes, mayReplace: boolean): boolean {
    const { keys } = this
    const name = toLatin1(to)
    const header = keys.find(toLatin1(from))
    if (header === undefined || (!mayReplace && keys.find(name) !== undefined)) return false
    keys.clear(name)
    keys.store(name, keys.create({ ...this.copyOf(header, name), expiresAtMs: null }), header.expiresAtMs)
    return true
  }

  private copyOf(header: Header, name: string): Header {
    switch (header.type) {
      case 'string':
        return { ...header }
      case 'hash':
        return this.hashes.copy(header, name)
      case 'list':
        return this.lists.copy(header)
      case 'set':
        return this.sets.copy(header)
      case 'zset':
        return this.sortedSets.copy(header)
    }
  }

  get keyCount(): number {
    return this.keys.count
  }

  /** A page of live keys, see scan.ts. */
  scan(
    after: Bytes | null,
    prefix: string,
    page: PageLimits,
    wanted: (name: string, header: Header) => boolean,
  ): Page<Bytes> {
    return scanKeys(this.keys, after, prefix, page, wanted)
  }

  /** A page of a key's live elements, see scan.ts. Throws WRONG_TYPE. */
  scanElements(
    key: Bytes,
    type: ScannedType,
    after: Bytes | null,
    page: PageLimits,
    wanted: (name: string) => boolean,
  ): Page<Element> {
    return scanElements(this.keys, key, type, after, page, wanted)
  }

  /** A live key by chance, see scan.ts; undefined when there is none. */
  randomKey(seed: number): Bytes | undefined {
    return randomKey(this.keys, seed)
  }

  // --- Strings --------------------------------------------------------------------------------------------------------

  /** undefined = no such key. Throws WRONG_TYPE. */
  getString(key: Bytes): Bytes | undefined {
    return this.keys.findTyped(toLatin1(key), 'string')?.value
  }

  /** Like `getString`, but a key of another type is missing too. */
  getIfString(key: Bytes): Bytes | undefined {
    const header = this.keys.find(toLatin1(key))
    return header?.type === 'string' ? header.value : undefined
  }

  /** Makes the key a string, whatever it was. */
  putString(key: Bytes, value: Bytes, expiresAtMs: number | null | 'keep'): void {
    const { keys } = this
    const name = toLatin1(key)
    let old = keys.load(name)
    if (old !== undefined && (old.type !== 'string' || !keys.isLive(old))) {
      const kept = keys.isLive(old) ? old.expiresAtMs : null
      keys.remove(name, old)
      old = undefined
      if (expiresAtMs === 'keep') expiresAtMs = kept
    }
    const header: StringHeader = old ?? keys.create({ type: 'string', revision: 0, expiresAtMs: null, value })
    header.value = value
    keys.store(name, header, expiresAtMs === 'keep' ? header.expiresAtMs : expiresAtMs)
  }

  // --- The sweep ------------------------------------------------------------------------------------------------------

  /** The log clock at which a sweep has work; one that has passed: now. null = nothing ever expires as things stand. */
  nextDueMs(): number | null {
    return this.sweeper.nextDueMs()
  }

  /** Removes about `rowsMax` rows that nobody sees any more and answers how many. */
  sweep(rowsMax: number): number {
    return this.sweeper.sweep(rowsMax)
  }
}
