import { RoundhouseError } from '../errors.ts'
import { Arena } from '../lib/arena.ts'
import { type Bytes, fromLatin1 } from '../lib/bytes.ts'
import { limits } from './limits.ts'
import type { RowStore } from './row-store.ts'
import {
  decodeHeader,
  dueKey,
  emptyRow,
  encodeHeader,
  endOf,
  generationOf,
  type HashHeader,
  type Header,
  numberKey,
  prefixes,
  readCount,
  systemRows,
  writeCount,
} from './rows.ts'

export type ValueType = Header['type']
type HeaderOf<Type extends ValueType> = Extract<Header, { type: Type }>

/**
 * The keys of a shard and the clock they are judged by; what hangs on a key is for the types' own files (hashes.ts,
 * lists.ts, sets.ts, sorted-sets.ts), which share this one.
 *
 * Time here is the *log clock*, the highest stamp of the entries applied so far: all replicas judge an expiry alike. A
 * linearizable read must not answer with what its leader's own clock already calls expired, and must not call expired
 * what the log does not: it sets `clockWanted` instead, and its caller commits a clock entry and reads again.
 *
 * Invariants: a key's count row, due rows and header change together; a collection has at least one element.
 */
export class Keys {
  readonly rows: RowStore
  /** The log clock, ms since 1970. While an entry is applied: its own stamp counts already. */
  logNowMs = 0
  /** The leader's wall clock for a linearizable read, ms since 1970; null for writes and stale reads. */
  wallNowMs: number | null = null
  /** Set by a read that met what is expired by `wallNowMs` and not by `logNowMs`: its answer must not be used. */
  clockWanted = false
  /** Raft index of the entry that is being applied; for a read, of the last one applied. */
  revision = 0
  /** Raft term of the entry that is being applied. */
  term = 0
  /** Collections born in the entry that is being applied. */
  private births = 0
  /** Headers are made in the order of the entries, and go with a checkpoint, or as the oldest of the changes. */
  private readonly arena = new Arena()

  constructor(rows: RowStore) {
    this.rows = rows
  }

  beginEntry(revision: number, logNowMs: number, term: number): void {
    this.beginRead(revision, logNowMs, null)
    this.term = term
    this.births = 0
  }

  beginRead(revision: number, logNowMs: number, wallNowMs: number | null): void {
    this.revision = revision
    this.logNowMs = logNowMs
    this.wallNowMs = wallNowMs
    this.clockWanted = false
  }

  /** The time to measure what is left of a TTL by. */
  get nowMs(): number {
    return this.wallNowMs === null ? this.logNowMs : Math.max(this.logNowMs, this.wallNowMs)
  }

  /** Expired keys that were not swept yet are in it. */
  get count(): number {
    return readCount(this.rows, systemRows.keys)
  }

  /** The key's header, expired or not. */
  load(name: string): Header | undefined {
    const bytes = this.rows.get(prefixes.header + name)
    return bytes && decodeHeader(bytes)
  }

  /** The key's header; undefined when there is none or it expired. */
  find(name: string): Header | undefined {
    const header = this.load(name)
    return header !== undefined && this.isLive(header) ? header : undefined
  }

  /** Throws WRONG_TYPE. */
  findTyped<Type extends ValueType>(name: string, wanted: Type): HeaderOf<Type> | undefined {
    const header = this.find(name)
    if (header !== undefined && header.type !== wanted)
      throw new RoundhouseError('WRONG_TYPE', { actual: header.type, wanted })
    return header as HeaderOf<Type> | undefined
  }

  /** The key's header, or a new one in the place of what is missing or dead: `store` or `settle` it. Throws WRONG_TYPE. */
  findOrCreate<Type extends ValueType>(
    name: string,
    wanted: Type,
    make: (generation: string) => HeaderOf<Type>,
  ): HeaderOf<Type> {
    const found = this.findTyped(name, wanted)
    if (found !== undefined) return found
    this.clear(name)
    return this.create(make(this.birth()))
  }

  /** Takes away whatever the key holds, live or dead. */
  clear(name: string): void {
    const header = this.load(name)
    if (header !== undefined) this.remove(name, header)
  }

  /** The name of a new collection's life. */
  birth(): string {
    return generationOf(this.revision, this.births++)
  }

  create<Created extends Header>(header: Created): Created {
    writeCount(this.rows, systemRows.keys, this.count + 1)
    return header
  }

  store(name: string, header: Header, expiresAtMs = header.expiresAtMs, revision = this.revision): void {
    if (header.expiresAtMs !== expiresAtMs) {
      if (header.expiresAtMs !== null) this.rows.delete(dueKey(header.expiresAtMs, 'key', name))
      if (expiresAtMs !== null) this.rows.put(dueKey(expiresAtMs, 'key', name), emptyRow)
      header.expiresAtMs = expiresAtMs
    }
    header.revision = revision
    this.rows.put(prefixes.header + name, encodeHeader(header, this.arena))
  }

  /** O(1) for a collection of any size: its elements become garbage. */
  remove(name: string, header: Header): void {
    this.unname(name, header)
    if (header.type !== 'string') {
      const garbage = prefixes.garbage + header.generation
      // A trimmed list may have left rows behind though it is empty now: all of its life goes then.
      if (sizeOf(header) > 0 || this.rows.get(garbage) !== undefined) this.rows.put(garbage, emptyRow)
    }
    writeCount(this.rows, systemRows.keys, this.count - 1)
  }

  /** Stores a collection after elements went, or removes it with its last one. */
  settle(name: string, header: Header, revision = this.revision): void {
    if (sizeOf(header) === 0) this.remove(name, header)
    else this.store(name, header, header.expiresAtMs, revision)
  }

  /** O(1): elements hang on the generation, not on the name. What `to` held is gone. */
  rename(from: string, to: string, header: Header): void {
    this.clear(to)
    this.unname(from, header)
    if (header.expiresAtMs !== null) this.rows.put(dueKey(header.expiresAtMs, 'key', to), emptyRow)
    if (header.type === 'hash' && header.fieldsDueMs !== 0)
      this.rows.put(dueKey(header.fieldsDueMs, 'fields', to), emptyRow)
    if (header.type === 'list') {
      const garbage = prefixes.garbage + header.generation
      if (this.rows.get(garbage) !== undefined) this.rows.put(garbage, fromLatin1(to))
    }
    this.store(to, header)
  }

  /** Takes the header away, and what in the due index leads to it. */
  private unname(name: string, header: Header): void {
    this.rows.delete(prefixes.header + name)
    if (header.expiresAtMs !== null) this.rows.delete(dueKey(header.expiresAtMs, 'key', name))
    if (header.type === 'hash' && header.fieldsDueMs !== 0)
      this.rows.delete(dueKey(header.fieldsDueMs, 'fields', name))
  }

  /** Rows to be written elsewhere; throws INVALID_ARGUMENT where they are more than one command may move. */
  collect(from: string, to: string): (readonly [row: string, value: Bytes])[] {
    const found: (readonly [string, Bytes])[] = []
    let bytes = 0
    for (const row of this.rows.range(from, to)) {
      found.push(row)
      bytes += row[0].length + row[1].byteLength
      if (found.length > limits.rowsVisitedMax || bytes > limits.movedBytesMax)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: 'copy of a large key',
          accepted: `at most ${limits.rowsVisitedMax} elements and ${limits.movedBytesMax} bytes`,
        })
    }
    return found
  }

  isExpired(expiresAtMs: number | null): boolean {
    if (expiresAtMs === null) return false
    if (expiresAtMs <= this.logNowMs) return true
    if (this.wallNowMs !== null && expiresAtMs <= this.wallNowMs) this.clockWanted = true
    return false
  }

  isLive(header: Header): boolean {
    if (this.isExpired(header.expiresAtMs)) return false
    if (header.type !== 'hash' || header.fields > header.expiringFields) return true
    // Every field has an expiry: the hash lives while one of them does, and most often none is due yet.
    if (header.fieldsDueMs > this.nowMs) return true
    if (!this.hasFieldAfter(header, this.logNowMs)) return false
    if (this.wallNowMs !== null && !this.hasFieldAfter(header, this.nowMs)) this.clockWanted = true
    return true
  }

  private hasFieldAfter(header: HashHeader, ms: number): boolean {
    const prefix = prefixes.fieldDue + header.generation
    for (const _ of this.rows.range(prefix + numberKey(ms + 1), endOf(prefix))) return true
    return false
  }
}

/** Elements of a collection, a hash's expired fields among them; a string is one. */
export function sizeOf(header: Header): number {
  switch (header.type) {
    case 'string':
      return 1
    case 'hash':
      return header.fields
    case 'list':
      return header.tail - header.head
    case 'set':
    case 'zset':
      return header.members
  }
}

/** Throws OVERLOADED for a collection that would outgrow its counters. */
export function checkGrowth(header: Header, by: number): void {
  if (sizeOf(header) + by > limits.elementsMax)
    throw new RoundhouseError('OVERLOADED', {
      what: `elements of one ${header.type}`,
      max: limits.elementsMax,
    })
}

/** Refuses a reply of so many elements before one of them is read. Throws REPLY_TOO_LARGE. */
export function checkReplySize(elements: number, what: string, hint: string): void {
  if (elements > limits.rowsVisitedMax)
    throw new RoundhouseError('REPLY_TOO_LARGE', {
      max: limits.replyBytesMax,
      hint: `${what} has more than ${limits.rowsVisitedMax} elements, ${hint}`,
    })
}
