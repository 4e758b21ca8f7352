import { RoundhouseError } from '../errors.ts'
import { ByteReader } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import { limits } from './limits.ts'
import type { RowStore } from './row-store.ts'
import { dueKey, emptyRow, numberKey, prefixes, readCount, systemRows, writeCount } from './rows.ts'

/**
 * Who wrote what already: the part of a replica's state that makes a retried write apply once.
 *
 * ```
 *  's' id(16)                  mark, last used ms, filed ms, kept sequences     one row a session
 *  's' id(16) sequence(8)      what was answered                                one row an applied sequence ≥ mark
 *  'e' filed(8) 's' id(16)     nothing; when the sweep looks at the session     one row a session
 * ```
 * All fields of the first are varints; the kept sequences are ascending, as their number, the first, and differences.
 *
 * The rule that no write is applied twice, whatever clients' clocks say. An id begins with a number, `created`, that the
 * client took for the time in ms. A shard that has no live row of a session takes it for a new one only while
 *
 *     created - 5 min ≤ log clock < created + 55 min
 *
 * A session's row lives until one hour after its last use by the log clock, and the log clock never goes back. Say a
 * sequence was applied here at log time t: then created ≤ t + 5 min, or the row existed and had been made under that
 * same bound at an earlier time. Its row goes at t + 60 min or later, which is created + 55 min or later: from then on
 * the session is refused. So whenever an applied sequence comes again, either its row (or the mark above it) is still
 * here, or its session is refused as unknown. That argument does not use that `created` is the time; a client whose
 * clock is wrong is refused, never harmed. A client renews its session before 50 minutes and gives a write up as
 * unknown after five.
 *
 * `created` too far ahead is a definite refusal: at every earlier log time it was further ahead still.
 */
export interface SessionUse {
  /** 16 bytes; the first six are the creation time in ms since 1970, big-endian. */
  readonly id: Bytes
  /** Counts the session's writes over all shards, from 1. */
  readonly sequence: number
  /** The client has the outcome of every sequence below this one and never sends it again. */
  readonly ackedBelow: number
}

export type SessionCheck =
  | { readonly kind: 'new' }
  | { readonly kind: 'repeated'; readonly answer: Bytes }
  | { readonly kind: 'refused'; readonly error: RoundhouseError }

/** How far `created` may lie ahead of the log clock; what is added here is taken from the hour below. */
export const sessionAheadMsMax = 300_000
/** An unknown session of this age or older may have been known before. */
export const sessionUnknownAgeMs = limits.sessionIdleMs - sessionAheadMsMax

interface SessionRow {
  mark: number
  lastUsedMs: number
  filedMs: number
  /** Ascending, all ≥ mark. */
  kept: number[]
}

export class SessionTable {
  private readonly rows: RowStore

  constructor(rows: RowStore) {
    this.rows = rows
  }

  /** Sessions with a row here, expired ones that were not swept yet among them. */
  get count(): number {
    return readCount(this.rows, systemRows.sessions)
  }

  /** What is to be done with a write; changes nothing. */
  check(use: SessionUse, logNowMs: number): SessionCheck {
    const id = toLatin1(use.id)
    const row = this.load(id)
    const isKnown = row !== undefined && row.lastUsedMs + limits.sessionIdleMs > logNowMs
    const mark = Math.max(isKnown ? row.mark : 0, use.ackedBelow)
    if (!isKnown) {
      const createdMs = createdAt(use.id)
      if (createdMs > logNowMs + sessionAheadMsMax)
        return refused(
          new RoundhouseError('INVALID_ARGUMENT', {
            what: 'session',
            accepted: `16 bytes that begin with the time in ms, 6 bytes big-endian; this one is ${createdMs - logNowMs} ms ahead`,
          }),
        )
      if (logNowMs >= createdMs + sessionUnknownAgeMs)
        return refused(
          new RoundhouseError('OUTCOME_UNKNOWN', {
            why: `the session was made ${logNowMs - createdMs} ms ago and is not known here, or not any more`,
          }),
        )
    }
    if (use.sequence < mark)
      return refused(new RoundhouseError('SESSION_STALE', { sequence: use.sequence, ackedBelow: mark }))
    if (!isKnown) {
      if (this.count >= limits.sessionsMax)
        return refused(
          new RoundhouseError('SESSION_FULL', { what: 'sessions in this shard', max: limits.sessionsMax }),
        )
      return { kind: 'new' }
    }
    const answer = this.rows.get(prefixes.session + id + numberKey(use.sequence))
    if (answer !== undefined) return { kind: 'repeated', answer }
    if (row.kept.length - lowerBound(row.kept, mark) >= limits.sessionSequencesMax)
      return refused(
        new RoundhouseError('SESSION_FULL', {
          what: 'sequences of this session that are not acknowledged',
          max: limits.sessionSequencesMax,
        }),
      )
    return { kind: 'new' }
  }

  /** After `check` said new: keeps the answer, moves the mark, forgets what is below it. */
  keep(use: SessionUse, logNowMs: number, answer: Bytes): void {
    const id = toLatin1(use.id)
    let row = this.load(id)
    if (row === undefined) {
      row = { mark: 0, lastUsedMs: 0, filedMs: logNowMs + limits.sessionIdleMs, kept: [] }
      this.rows.put(dueKey(row.filedMs, 'session', id), emptyRow)
      writeCount(this.rows, systemRows.sessions, this.count + 1)
    }
    row.lastUsedMs = logNowMs
    row.mark = Math.max(row.mark, use.ackedBelow)
    const below = lowerBound(row.kept, row.mark)
    for (let i = 0; i < below; i++) this.rows.delete(prefixes.session + id + numberKey(row.kept[i]!))
    row.kept.splice(0, below)
    row.kept.splice(lowerBound(row.kept, use.sequence), 0, use.sequence)
    this.rows.put(prefixes.session + id + numberKey(use.sequence), answer)
    this.store(id, row)
  }

  /**
   * The sweep met the session's due row: removes the session, or files it again if it was used since. Removes at most
   * `rowsMax` rows and answers how many; a session that is removed in part stays expired and filed.
   */
  sweep(id: string, filedMs: number, logNowMs: number, rowsMax: number): number {
    const row = this.load(id)
    if (row === undefined || row.filedMs !== filedMs) {
      this.rows.delete(dueKey(filedMs, 'session', id))
      return 1
    }
    const dueMs = row.lastUsedMs + limits.sessionIdleMs
    if (dueMs > logNowMs) {
      this.rows.delete(dueKey(filedMs, 'session', id))
      this.rows.put(dueKey(dueMs, 'session', id), emptyRow)
      row.filedMs = dueMs
      this.store(id, row)
      return 1
    }
    const going = row.kept.splice(0, rowsMax)
    for (const sequence of going) this.rows.delete(prefixes.session + id + numberKey(sequence))
    if (row.kept.length > 0 || going.length === rowsMax) {
      this.store(id, row)
      return going.length
    }
    this.rows.delete(prefixes.session + id)
    this.rows.delete(dueKey(filedMs, 'session', id))
    writeCount(this.rows, systemRows.sessions, this.count - 1)
    return going.length + 1
  }

  private load(id: string): SessionRow | undefined {
    const bytes = this.rows.get(prefixes.session + id)
    if (bytes === undefined) return undefined
    const reader = new ByteReader(bytes)
    const row: SessionRow = {
      mark: reader.varint(),
      lastUsedMs: reader.varint(),
      filedMs: reader.varint(),
      kept: [],
    }
    let sequence = 0
    for (let left = reader.varint(); left > 0; left--) {
      sequence += reader.varint()
      row.kept.push(sequence)
    }
    reader.end()
    return row
  }

  private store(id: string, row: SessionRow): void {
    const writer = new ByteWriter(32 + row.kept.length * 2)
    writer.varint(row.mark)
    writer.varint(row.lastUsedMs)
    writer.varint(row.filedMs)
    writer.varint(row.kept.length)
    let last = 0
    for (const sequence of row.kept) {
      writer.varint(sequence - last)
      last = sequence
    }
    this.rows.put(prefixes.session + id, writer.finish())
  }
}

/** The first six bytes of a session id: what its client took for the time, ms since 1970. */
export function createdAt(id: Bytes): number {
  let ms = 0
  for (let i = 0; i < 6; i++) ms = ms * 256 + id[i]!
  return ms
}

function refused(error: RoundhouseError): SessionCheck {
  return { kind: 'refused', error }
}

/** The place of the first number ≥ `value` in an ascending list. */
function lowerBound(ascending: readonly number[], value: number): number {
  let from = 0
  let to = ascending.length
  while (from < to) {
    const middle = (from + to) >>> 1
    if (ascending[middle]! < value) from = middle + 1
    else to = middle
  }
  return from
}
