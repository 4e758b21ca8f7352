import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { limits } from './limits.ts'
import type { RowStore } from './row-store.ts'
import {
  decodeField,
  decodeHeader,
  dueKey,
  dueRange,
  emptyRow,
  encodeField,
  encodeHeader,
  endOf,
  type FieldRow,
  generationOf,
  type HashHeader,
  type Header,
  numberKey,
  parseDueKey,
  prefixes,
  readCount,
  readNumberKey,
  type StringHeader,
  systemRows,
  writeCount,
} from './rows.ts'
import { SessionTable } from './sessions.ts'

export type ValueType = Header['type']

/**
 * Typed access to a shard's rows, as commands see them: keys with a type and perhaps an expiry, hashes of fields with
 * perhaps their own. What is expired is missing for everybody, swept or not.
 *
 * Time here is the *log clock*, the highest stamp of the entries applied so far: all replicas judge an expiry alike. A
 * linearizable read must not answer with what its leader's own clock already calls expired, and must not call expired
 * what the log does not: it sets `clockWanted` instead, and its caller commits a clock entry and reads again.
 *
 * `keyCount` counts as Redis does: keys that expired and were not swept yet are in it.
 *
 * Invariants: a key's count row, due rows and header change together; a hash has at least one field row; `fields` and
 * `expiringFields` count the hash's 'f' and 'x' rows; a hash's 'f' due row stands at or before its earliest 'x' row.
 */
export class Keyspace {
  readonly rows: RowStore
  readonly sessions: SessionTable
  /** The log clock, ms since 1970. While an entry is applied: its own stamp counts already. */
  logNowMs = 0
  /** The leader's wall clock for a linearizable read, ms since 1970; null for writes and stale reads. */
  wallNowMs: number | null = null
  /** Set by a read that met what is expired by `wallNowMs` and not by `logNowMs`: its answer must not be used. */
  clockWanted = false
  /** Raft index of the entry that is being applied; for a read, of the last one applied. */
  revision = 0
  /** Hashes born in the entry that is being applied. */
  private births = 0

  constructor(rows: RowStore) {
    this.rows = rows
    this.sessions = new SessionTable(rows)
  }

  beginEntry(revision: number, logNowMs: number): void {
    this.beginRead(revision, logNowMs, null)
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

  // --- Keys -----------------------------------------------------------------------------------------------------------

  type(key: Bytes): ValueType | null {
    return this.find(toLatin1(key))?.type ?? null
  }

  has(key: Bytes): boolean {
    return this.find(toLatin1(key)) !== undefined
  }

  /** Raft index of the key's last change; null when it is missing. */
  revisionOf(key: Bytes): number | null {
    return this.find(toLatin1(key))?.revision ?? null
  }

  /** Absolute, ms since 1970; null = never; undefined = no such key. */
  expiryOf(key: Bytes): number | null | undefined {
    return this.find(toLatin1(key))?.expiresAtMs
  }

  /** Sets or (null) removes a key's expiry; one that has passed already deletes the key. False: no such key. */
  setExpiry(key: Bytes, expiresAtMs: number | null): boolean {
    const name = toLatin1(key)
    const header = this.find(name)
    if (header === undefined) return false
    if (expiresAtMs !== null && expiresAtMs <= this.logNowMs) this.remove(name, header)
    else this.store(name, header, expiresAtMs)
    return true
  }

  deleteKey(key: Bytes): boolean {
    const name = toLatin1(key)
    const header = this.load(name)
    if (header === undefined) return false
    const wasLive = this.isLive(header)
    this.remove(name, header)
    return wasLive
  }

  get keyCount(): number {
    return readCount(this.rows, systemRows.keys)
  }

  // --- Strings --------------------------------------------------------------------------------------------------------

  /** undefined = no such key. Throws WRONG_TYPE. */
  getString(key: Bytes): Bytes | undefined {
    return this.findTyped(toLatin1(key), 'string')?.value
  }

  /** Like `getString`, but a key of another type is missing too. */
  getIfString(key: Bytes): Bytes | undefined {
    const header = this.find(toLatin1(key))
    return header?.type === 'string' ? header.value : undefined
  }

  /** Makes the key a string, whatever it was. */
  putString(key: Bytes, value: Bytes, expiresAtMs: number | null | 'keep'): void {
    const name = toLatin1(key)
    let old = this.load(name)
    if (old !== undefined && (old.type !== 'string' || !this.isLive(old))) {
      const kept = this.isLive(old) ? old.expiresAtMs : null
      this.remove(name, old)
      old = undefined
      if (expiresAtMs === 'keep') expiresAtMs = kept
    }
    const header: StringHeader = old ?? this.create({ type: 'string', revision: 0, expiresAtMs: null, value })
    header.value = value
    this.store(name, header, expiresAtMs === 'keep' ? header.expiresAtMs : expiresAtMs)
  }

  // --- Hashes ---------------------------------------------------------------------------------------------------------

  /** undefined = no such key or field. Throws WRONG_TYPE. */
  getField(key: Bytes, field: Bytes): Bytes | undefined {
    return this.getFields(key, [field])[0]
  }

  /** The fields' values in the order asked for. Throws WRONG_TYPE. */
  getFields(key: Bytes, fields: readonly Bytes[]): (Bytes | undefined)[] {
    const header = this.findTyped(toLatin1(key), 'hash')
    return fields.map(field => {
      const row = header && this.loadField(header, toLatin1(field))
      return row === undefined || this.isExpired(row.expiresAtMs) ? undefined : row.value
    })
  }

  /**
   * Sets fields, each with the expiry `expiresAtMs` or (null) without one; the key's own expiry stays. Answers how many
   * were not there before. Throws WRONG_TYPE.
   */
  putFields(
    key: Bytes,
    pairs: readonly (readonly [field: Bytes, value: Bytes])[],
    expiresAtMs: number | null,
  ): number {
    const name = toLatin1(key)
    let header = this.findTyped(name, 'hash')
    if (header === undefined) {
      const dead = this.load(name)
      if (dead !== undefined) this.remove(name, dead)
      header = this.create({
        type: 'hash',
        revision: 0,
        expiresAtMs: null,
        generation: generationOf(this.revision, this.births++),
        fields: 0,
        expiringFields: 0,
        fieldsDueMs: 0,
      })
    }
    let created = 0
    for (const [field, value] of pairs) {
      const fieldName = toLatin1(field)
      const old = this.loadField(header, fieldName)
      if (old === undefined) header.fields++
      else if (old.expiresAtMs !== null) this.unfile(header, fieldName, old.expiresAtMs)
      if (old === undefined || this.isExpired(old.expiresAtMs)) created++
      this.rows.put(prefixes.field + header.generation + fieldName, encodeField(value, expiresAtMs))
      if (expiresAtMs !== null) this.file(name, header, fieldName, expiresAtMs)
    }
    this.store(name, header, header.expiresAtMs)
    return created
  }

  /** Answers how many were there; the last one takes the key with it. Throws WRONG_TYPE. */
  deleteFields(key: Bytes, fields: readonly Bytes[]): number {
    const name = toLatin1(key)
    const header = this.findTyped(name, 'hash')
    if (header === undefined) return 0
    let deleted = 0
    for (const field of fields) {
      const fieldName = toLatin1(field)
      const row = this.loadField(header, fieldName)
      // An expired one is left to the sweep: for the caller it is not there.
      if (row === undefined || this.isExpired(row.expiresAtMs)) continue
      this.dropField(header, fieldName, row.expiresAtMs)
      deleted++
    }
    if (deleted > 0) this.settle(name, header)
    return deleted
  }

  /** False: no such key. Throws WRONG_TYPE. */
  deleteHash(key: Bytes): boolean {
    return this.findTyped(toLatin1(key), 'hash') !== undefined && this.deleteKey(key)
  }

  /** Live fields in the order of their bytes; nothing when the key is missing. Throws WRONG_TYPE. */
  *fields(key: Bytes): Generator<readonly [field: Bytes, value: Bytes]> {
    const header = this.findTyped(toLatin1(key), 'hash')
    if (header === undefined) return
    const prefix = prefixes.field + header.generation
    let visited = 0
    for (const [row, bytes] of this.rows.range(prefix, endOf(prefix))) {
      if (++visited > limits.rowsVisitedMax)
        throw new RoundhouseError('REPLY_TOO_LARGE', {
          max: limits.replyBytesMax,
          hint: `the hash has more than ${limits.rowsVisitedMax} fields, ask for the ones you need with HGET`,
        })
      const { value, expiresAtMs } = decodeField(bytes)
      if (!this.isExpired(expiresAtMs)) yield [fromLatin1(row.slice(prefix.length)), value]
    }
  }

  /** Number of live fields, 0 when the key is missing. Throws WRONG_TYPE. */
  fieldCount(key: Bytes): number {
    const header = this.findTyped(toLatin1(key), 'hash')
    if (header === undefined) return 0
    if (header.fieldsDueMs === 0 || header.fieldsDueMs > this.nowMs) return header.fields
    // What the sweep has not taken yet is counted off, one by one.
    let expired = 0
    const prefix = prefixes.fieldDue + header.generation
    for (const [row] of this.rows.range(prefix, prefix + numberKey(this.nowMs + 1))) {
      if (!this.isExpired(readNumberKey(row, prefix.length))) break
      if (++expired > limits.rowsVisitedMax)
        throw new RoundhouseError('OVERLOADED', {
          what: 'expired fields of this hash that wait for the sweep',
          max: limits.rowsVisitedMax,
        })
    }
    return header.fields - expired
  }

  // --- The sweep ------------------------------------------------------------------------------------------------------

  /** The log clock at which a sweep has work; one that has passed: now. null = nothing ever expires as things stand. */
  nextDueMs(): number | null {
    for (const _ of this.rows.range(prefixes.garbage, endOf(prefixes.garbage))) return 0
    for (const [row] of this.rows.range(prefixes.due, endOf(prefixes.due))) return readNumberKey(row, 1)
    return null
  }

  /**
   * Removes what the log clock has passed, in the order of (expiry, key), then what deleted hashes left behind; about
   * `rowsMax` rows at most (the last key may take a few more). Answers how many. No reader sees a difference, but for
   * `keyCount`.
   */
  sweep(rowsMax: number): number {
    const due: string[] = []
    for (const [row] of this.rows.range(...dueRange(this.logNowMs))) {
      due.push(row)
      if (due.length >= rowsMax) break
    }
    let swept = 0
    for (const row of due) {
      if (swept >= rowsMax) return swept
      // An earlier one may have taken its key, and this row with it.
      if (this.rows.get(row) === undefined) continue
      const { dueMs, kind, name } = parseDueKey(row)
      if (kind === 'session') swept += this.sessions.sweep(name, dueMs, this.logNowMs, rowsMax - swept)
      else if (kind === 'fields') swept += this.sweepFields(name, rowsMax - swept)
      else {
        const header = this.load(name)
        assert(header?.expiresAtMs === dueMs, `due row at ${dueMs} of a key that expires otherwise`)
        this.remove(name, header)
        swept++
      }
    }
    return swept < rowsMax ? swept + this.sweepGarbage(rowsMax - swept) : swept
  }

  private sweepFields(name: string, rowsMax: number): number {
    const header = this.load(name)
    assert(header?.type === 'hash', 'due row of fields of a key that is no hash')
    const prefix = prefixes.fieldDue + header.generation
    const due: string[] = []
    for (const [row] of this.rows.range(prefix, prefix + numberKey(this.logNowMs + 1))) {
      due.push(row)
      if (due.length >= rowsMax) break
    }
    for (const row of due)
      this.dropField(header, row.slice(prefix.length + 8), readNumberKey(row, prefix.length))
    // A full budget may have left due ones behind: the hash stays filed where it is and is met again.
    if (due.length < rowsMax) this.refile(name, header)
    this.settle(name, header, header.revision)
    return due.length + 1
  }

  private sweepGarbage(rowsMax: number): number {
    let swept = 0
    while (swept < rowsMax) {
      let garbage: string | undefined
      for (const [row] of this.rows.range(prefixes.garbage, endOf(prefixes.garbage))) {
        garbage = row
        break
      }
      if (garbage === undefined) return swept
      const generation = garbage.slice(1)
      const gone: string[] = []
      for (const prefix of [prefixes.field + generation, prefixes.fieldDue + generation]) {
        if (swept + gone.length >= rowsMax) break
        for (const [row] of this.rows.range(prefix, endOf(prefix))) {
          gone.push(row)
          if (swept + gone.length >= rowsMax) break
        }
      }
      for (const row of gone) this.rows.delete(row)
      swept += gone.length
      if (swept < rowsMax) {
        this.rows.delete(garbage)
        swept++
      }
    }
    return swept
  }

  // --- Rows -----------------------------------------------------------------------------------------------------------

  private load(name: string): Header | undefined {
    const bytes = this.rows.get(prefixes.header + name)
    return bytes && decodeHeader(bytes)
  }

  private find(name: string): Header | undefined {
    const header = this.load(name)
    return header !== undefined && this.isLive(header) ? header : undefined
  }

  private findTyped<Type extends ValueType>(
    name: string,
    wanted: Type,
  ): Extract<Header, { type: Type }> | undefined {
    const header = this.find(name)
    if (header !== undefined && header.type !== wanted)
      throw new RoundhouseError('WRONG_TYPE', { actual: header.type, wanted })
    return header as Extract<Header, { type: Type }> | undefined
  }

  private isExpired(expiresAtMs: number | null): boolean {
    if (expiresAtMs === null) return false
    if (expiresAtMs <= this.logNowMs) return true
    if (this.wallNowMs !== null && expiresAtMs <= this.wallNowMs) this.clockWanted = true
    return false
  }

  private isLive(header: Header): boolean {
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

  private create<Created extends Header>(header: Created): Created {
    writeCount(this.rows, systemRows.keys, this.keyCount + 1)
    return header
  }

  private store(name: string, header: Header, expiresAtMs: number | null, revision = this.revision): void {
    if (header.expiresAtMs !== expiresAtMs) {
      if (header.expiresAtMs !== null) this.rows.delete(dueKey(header.expiresAtMs, 'key', name))
      if (expiresAtMs !== null) this.rows.put(dueKey(expiresAtMs, 'key', name), emptyRow)
      header.expiresAtMs = expiresAtMs
    }
    header.revision = revision
    this.rows.put(prefixes.header + name, encodeHeader(header))
  }

  /** O(1) for a hash of any size: its fields become garbage. */
  private remove(name: string, header: Header): void {
    this.rows.delete(prefixes.header + name)
    if (header.expiresAtMs !== null) this.rows.delete(dueKey(header.expiresAtMs, 'key', name))
    if (header.type === 'hash') {
      if (header.fieldsDueMs !== 0) this.rows.delete(dueKey(header.fieldsDueMs, 'fields', name))
      if (header.fields > 0) this.rows.put(prefixes.garbage + header.generation, emptyRow)
    }
    writeCount(this.rows, systemRows.keys, this.keyCount - 1)
  }

  private loadField(header: HashHeader, field: string): FieldRow | undefined {
    const bytes = this.rows.get(prefixes.field + header.generation + field)
    return bytes && decodeField(bytes)
  }

  private dropField(header: HashHeader, field: string, expiresAtMs: number | null): void {
    this.rows.delete(prefixes.field + header.generation + field)
    header.fields--
    if (expiresAtMs !== null) this.unfile(header, field, expiresAtMs)
  }

  /** After fields were dropped: stores the hash, or removes it with its last one. */
  private settle(name: string, header: HashHeader, revision = this.revision): void {
    if (header.fields === 0) this.remove(name, header)
    else this.store(name, header, header.expiresAtMs, revision)
  }

  private file(name: string, header: HashHeader, field: string, expiresAtMs: number): void {
    this.rows.put(prefixes.fieldDue + header.generation + numberKey(expiresAtMs) + field, emptyRow)
    header.expiringFields++
    if (header.fieldsDueMs !== 0 && header.fieldsDueMs <= expiresAtMs) return
    this.moveDue(name, header, expiresAtMs)
  }

  /** The hash's own due row stays, too early perhaps: the sweep that meets it files it anew. */
  private unfile(header: HashHeader, field: string, expiresAtMs: number): void {
    this.rows.delete(prefixes.fieldDue + header.generation + numberKey(expiresAtMs) + field)
    header.expiringFields--
  }

  private refile(name: string, header: HashHeader): void {
    const prefix = prefixes.fieldDue + header.generation
    let nextMs = 0
    for (const [row] of this.rows.range(prefix, endOf(prefix))) {
      nextMs = readNumberKey(row, prefix.length)
      break
    }
    this.moveDue(name, header, nextMs)
  }

  private moveDue(name: string, header: HashHeader, dueMs: number): void {
    if (header.fieldsDueMs !== 0) this.rows.delete(dueKey(header.fieldsDueMs, 'fields', name))
    if (dueMs !== 0) this.rows.put(dueKey(dueMs, 'fields', name), emptyRow)
    header.fieldsDueMs = dueMs
  }
}
