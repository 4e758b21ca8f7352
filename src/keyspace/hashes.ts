import { RoundhouseError } from '../errors.ts'
import { type Bytes, fromLatin1, toLatin1 } from '../lib/bytes.ts'
import { checkGrowth, checkReplySize, type Keys } from './keys.ts'
import { limits } from './limits.ts'
import {
  decodeField,
  dueKey,
  emptyRow,
  encodeField,
  endOf,
  type FieldRow,
  type HashHeader,
  numberKey,
  prefixes,
  readNumberKey,
} from './rows.ts'

/**
 * Hashes: fields with perhaps an expiry of their own, a row each (rows.ts). What is expired is missing for everybody,
 * swept or not.
 *
 * Invariants: `fields` and `expiringFields` count the hash's 'f' and 'x' rows; a hash's 'f' due row stands at or before
 * its earliest 'x' row.
 */
export class Hashes {
  private readonly keys: Keys

  constructor(keys: Keys) {
    this.keys = keys
  }

  /** The fields' values in the order asked for. Throws WRONG_TYPE. */
  get(key: Bytes, fields: readonly Bytes[]): (Bytes | undefined)[] {
    const header = this.keys.findTyped(toLatin1(key), 'hash')
    return fields.map(field => {
      const row = header && this.load(header, toLatin1(field))
      return row === undefined || this.keys.isExpired(row.expiresAtMs) ? undefined : row.value
    })
  }

  /**
   * Sets fields, each with the expiry `expiresAtMs`, without one (null), or with the one it had; the key's own expiry
   * stays. Answers how many were not there before. Throws WRONG_TYPE.
   */
  put(
    key: Bytes,
    pairs: readonly (readonly [field: Bytes, value: Bytes])[],
    expiresAtMs: number | null | 'keep',
  ): number {
    const { keys } = this
    const name = toLatin1(key)
    const header = keys.findOrCreate(name, 'hash', newHash)
    checkGrowth(header, pairs.length)
    let created = 0
    for (const [field, value] of pairs) {
      const fieldName = toLatin1(field)
      const old = this.load(header, fieldName)
      const wasThere = old !== undefined && !keys.isExpired(old.expiresAtMs)
      if (!wasThere) created++
      const kept = wasThere ? old.expiresAtMs : null
      this.write(name, header, fieldName, value, expiresAtMs === 'keep' ? kept : expiresAtMs, old)
    }
    keys.store(name, header)
    return created
  }

  /** Answers how many were there; the last one takes the key with it. Throws WRONG_TYPE. */
  delete(key: Bytes, fields: readonly Bytes[]): number {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'hash')
    if (header === undefined) return 0
    let deleted = 0
    for (const field of fields) {
      const fieldName = toLatin1(field)
      const row = this.load(header, fieldName)
      // An expired one is left to the sweep: for the caller it is not there.
      if (row === undefined || this.keys.isExpired(row.expiresAtMs)) continue
      this.drop(header, fieldName, row.expiresAtMs)
      deleted++
    }
    if (deleted > 0) this.keys.settle(name, header)
    return deleted
  }

  /** False: no such key. Throws WRONG_TYPE. */
  deleteAll(key: Bytes): boolean {
    const name = toLatin1(key)
    const header = this.keys.findTyped(name, 'hash')
    if (header === undefined) return false
    this.keys.remove(name, header)
    return true
  }

  /** Live fields in the order of their bytes; nothing when the key is missing. Throws WRONG_TYPE, REPLY_TOO_LARGE. */
  *all(key: Bytes): Generator<readonly [field: Bytes, value: Bytes]> {
    const header = this.keys.findTyped(toLatin1(key), 'hash')
    if (header === undefined) return
    const prefix = prefixes.field + header.generation
    let visited = 0
    for (const [row, bytes] of this.keys.rows.range(prefix, endOf(prefix))) {
      checkReplySize(++visited, 'the hash', 'ask for the ones you need with HMGET, or for pages with HSCAN')
      const { value, expiresAtMs } = decodeField(bytes)
      if (!this.keys.isExpired(expiresAtMs)) yield [fromLatin1(row.slice(prefix.length)), value]
    }
  }

  /** Number of live fields, 0 when the key is missing. Throws WRONG_TYPE. */
  count(key: Bytes): number {
    const { keys } = this
    const header = keys.findTyped(toLatin1(key), 'hash')
    if (header === undefined) return 0
    if (header.fieldsDueMs === 0 || header.fieldsDueMs > keys.nowMs) return header.fields
    // What the sweep has not taken yet is counted off, one by one.
    let expired = 0
    const prefix = prefixes.fieldDue + header.generation
    for (const [row] of keys.rows.range(prefix, prefix + numberKey(keys.nowMs + 1))) {
      if (!keys.isExpired(readNumberKey(row, prefix.length))) break
      if (++expired > limits.rowsVisitedMax)
        throw new RoundhouseError('OVERLOADED', {
          what: 'expired fields of this hash that wait for the sweep',
          max: limits.rowsVisitedMax,
        })
    }
    return header.fields - expired
  }

  /** Removes at most `rowsMax` expired fields of the hash whose due row was met. Answers how many rows it visited. */
  sweep(name: string, header: HashHeader, rowsMax: number): number {
    const { keys } = this
    const prefix = prefixes.fieldDue + header.generation
    const due: string[] = []
    for (const [row] of keys.rows.range(prefix, prefix + numberKey(keys.logNowMs + 1))) {
      due.push(row)
      if (due.length >= rowsMax) break
    }
    for (const row of due) this.drop(header, row.slice(prefix.length + 8), readNumberKey(row, prefix.length))
    // A full budget may have left due ones behind: the hash stays filed where it is and is met again.
    if (due.length < rowsMax) this.refile(name, header)
    keys.settle(name, header, header.revision)
    return due.length + 1
  }

  /** Live fields of `from` become those of a new hash `to`, expiries and all. */
  copy(from: HashHeader, to: string): HashHeader {
    const prefix = prefixes.field + from.generation
    const fields: [field: string, row: FieldRow][] = []
    for (const [row, bytes] of this.keys.collect(prefix, endOf(prefix))) {
      const field = decodeField(bytes)
      if (!this.keys.isExpired(field.expiresAtMs)) fields.push([row.slice(prefix.length), field])
    }
    const copy = newHash(this.keys.birth())
    for (const [field, { value, expiresAtMs }] of fields)
      this.write(to, copy, field, value, expiresAtMs, undefined)
    return copy
  }

  private load(header: HashHeader, field: string): FieldRow | undefined {
    const bytes = this.keys.rows.get(prefixes.field + header.generation + field)
    return bytes && decodeField(bytes)
  }

  private write(
    name: string,
    header: HashHeader,
    field: string,
    value: Bytes,
    expiresAtMs: number | null,
    old: FieldRow | undefined,
  ): void {
    if (old === undefined) header.fields++
    else if (old.expiresAtMs !== null) this.unfile(header, field, old.expiresAtMs)
    this.keys.rows.put(prefixes.field + header.generation + field, encodeField(value, expiresAtMs))
    if (expiresAtMs !== null) this.file(name, header, field, expiresAtMs)
  }

  private drop(header: HashHeader, field: string, expiresAtMs: number | null): void {
    this.keys.rows.delete(prefixes.field + header.generation + field)
    header.fields--
    if (expiresAtMs !== null) this.unfile(header, field, expiresAtMs)
  }

  private file(name: string, header: HashHeader, field: string, expiresAtMs: number): void {
    this.keys.rows.put(prefixes.fieldDue + header.generation + numberKey(expiresAtMs) + field, emptyRow)
    header.expiringFields++
    if (header.fieldsDueMs !== 0 && header.fieldsDueMs <= expiresAtMs) return
    this.moveDue(name, header, expiresAtMs)
  }

  /** The hash's own due row stays, too early perhaps: the sweep that meets it files it anew. */
  private unfile(header: HashHeader, field: string, expiresAtMs: number): void {
    this.keys.rows.delete(prefixes.fieldDue + header.generation + numberKey(expiresAtMs) + field)
    header.expiringFields--
  }

  private refile(name: string, header: HashHeader): void {
    const prefix = prefixes.fieldDue + header.generation
    let nextMs = 0
    for (const [row] of this.keys.rows.range(prefix, endOf(prefix))) {
      nextMs = readNumberKey(row, prefix.length)
      break
    }
    this.moveDue(name, header, nextMs)
  }

  private moveDue(name: string, header: HashHeader, dueMs: number): void {
    const { rows } = this.keys
    if (header.fieldsDueMs !== 0) rows.delete(dueKey(header.fieldsDueMs, 'fields', name))
    if (dueMs !== 0) rows.put(dueKey(dueMs, 'fields', name), emptyRow)
    header.fieldsDueMs = dueMs
  }
}

function newHash(generation: string): HashHeader {
  return {
    type: 'hash',
    revision: 0,
    expiresAtMs: null,
    generation,
    fields: 0,
    expiringFields: 0,
    fieldsDueMs: 0,
  }
}
