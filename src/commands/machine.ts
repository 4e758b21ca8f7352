import { isError, RoundhouseError } from '../errors.ts'
import type { ChangeRing } from '../keyspace/changes.ts'
import { Keyspace } from '../keyspace/keyspace.ts'
import { limits } from '../keyspace/limits.ts'
import { Overlay } from '../keyspace/overlay.ts'
import type { RowStore } from '../keyspace/row-store.ts'
import { prefixes, readNumber, systemRows, writeNumber } from '../keyspace/rows.ts'
import { assert, BrokenInvariant } from '../lib/assert.ts'
import type { Bytes } from '../lib/bytes.ts'
import { type Answer, decodeAnswer, encodeAnswer } from './answer.ts'
import { clock } from './clock.ts'
import type { Command, Reply } from './command.ts'
import { decodeEnvelope, type Envelope, type Operation } from './envelope.ts'
import { integerBytes } from './integer.ts'
import { sweep } from './sweep.ts'
import { verify } from './verify.ts'

export type CommandTable = ReadonlyMap<string, Command>

/** `isDuplicate`: the session had this sequence already; the answer is the first one's and nothing changed. */
export type Applied = Answer & { readonly isDuplicate: boolean }

export type ReadResult =
  | { readonly kind: 'reply'; readonly reply: Reply; readonly revision: number }
  | { readonly kind: 'refused'; readonly error: RoundhouseError; readonly revision: number }
  /** The answer depends on an expiry between the log clock and the wall clock: commit a clock entry and read again. */
  | { readonly kind: 'clock-wanted' }

/** Commands that a cluster gives itself; every machine knows them. */
const internalCommands: CommandTable = new Map([sweep, clock, verify].map(command => [command.name, command]))

/**
 * The replicated state machine of one shard (Raft §2): entries in, rows and answers out. The same entries give the same
 * rows and answers on every replica: it knows no clock but the stamps, no randomness, and no state but its rows.
 *
 * Invariants: an entry's writes are made together, and the revision row with them, or not at all; the log clock never
 * goes back; an entry that this release does not understand throws and changes nothing: the replica must stop there,
 * since a replica that skipped it would differ from the others for ever.
 */
export class StateMachine {
  private readonly base: RowStore
  private readonly rows: Overlay
  /** What entries do to keys is noted here; null: nowhere. */
  private readonly changes: ChangeRing | null
  private readonly keyspace: Keyspace
  private readonly table: CommandTable
  private lastRevision = 0
  private markedRevision = 0
  private clockMs = 0
  /** undefined = not known since rows of the expiry index or garbage changed. */
  private knownExpiry: number | null | undefined

  constructor(rows: RowStore, table: CommandTable, changes: ChangeRing | null = null) {
    this.base = rows
    this.rows = new Overlay(rows)
    this.changes = changes
    this.keyspace = new Keyspace(this.rows)
    this.table = table
    this.reload()
  }

  /** The rows were replaced from outside (a snapshot was installed): forget what was known of the old ones. */
  reload(): void {
    const bytes = this.rows.get(systemRows.clock)
    this.clockMs = bytes === undefined ? 0 : readNumber(bytes, 0)
    this.lastRevision = bytes === undefined ? 0 : readNumber(bytes, 8)
    this.knownExpiry = undefined
    this.changes?.reset(this.lastRevision)
  }

  /** Raft index of the last entry applied. */
  get revision(): number {
    return this.lastRevision
  }

  /** Raft index of the last entry that asked for a digest of all rows, 0 before the first since this machine was made. */
  get marked(): number {
    return this.markedRevision
  }

  /** The highest stamp of the entries applied, ms since 1970; 0 before the first. A new entry's stamp is at least this. */
  get logClockMs(): number {
    return this.clockMs
  }

  /**
   * Applies the entry at `index` of `term`, which is above all applied before it; no bytes (Raft's own no-op) are an entry
   * without operations. Throws UNSUPPORTED_ENTRY or CORRUPT, and then has changed nothing.
   */
  apply(index: number, bytes: Bytes, term = 0): Applied {
    // Applied by the million: no message is made before it is needed.
    if (index <= this.lastRevision)
      throw new BrokenInvariant(`entry ${index} applied after ${this.lastRevision}`)
    const envelope = bytes.byteLength === 0 ? null : decodeEnvelope(bytes)
    const nowMs = Math.max(this.clockMs, envelope?.timestampMs ?? 0)
    this.keyspace.beginEntry(index, nowMs, term)
    const applied: Applied =
      envelope === null
        ? { kind: 'replies', replies: [], revision: index, isDuplicate: false }
        : this.applyEnvelope(index, envelope, nowMs)
    this.changes?.begin(index, nowMs, envelope?.operations[0]?.command === sweep.name)
    this.commit()
    // No command reads or writes this row: it need not go by the overlay.
    const row = new Uint8Array(16)
    writeNumber(row, 0, nowMs)
    writeNumber(row, 8, index)
    this.base.put(systemRows.clock, row)
    this.clockMs = nowMs
    this.lastRevision = index
    return applied
  }

  private applyEnvelope(index: number, { operations, session }: Envelope, nowMs: number): Applied {
    const commands: Command[] = []
    for (const { command } of operations) commands.push(this.commandOf(command))
    if (commands.includes(verify)) this.markedRevision = index
    if (session === null) return this.run(index, commands, operations)
    const check = this.keyspace.sessions.check(session, nowMs)
    switch (check.kind) {
      case 'refused':
        return { kind: 'refused', error: check.error, operation: 0, revision: index, isDuplicate: false }
      case 'repeated':
        return { ...decodeAnswer(check.answer), isDuplicate: true }
      case 'new': {
        const applied = this.run(index, commands, operations)
        this.keyspace.sessions.keep(session, nowMs, encodeAnswer(applied))
        return applied
      }
    }
  }

  private commandOf(name: string): Command {
    const command = this.table.get(name) ?? internalCommands.get(name)
    if (command === undefined) throw new RoundhouseError('UNSUPPORTED_ENTRY', { what: `command ${name}` })
    return command
  }

  /** All or none: a refusal discards what the operations before it wrote. */
  private run(index: number, commands: readonly Command[], operations: readonly Operation[]): Applied {
    const replies: Reply[] = []
    try {
      let bytes = 0
      for (let i = 0; i < commands.length; i++) {
        const command = commands[i]!
        if (command.mayBeAtomic === false && (commands.length > 1 || command.access === 'read'))
          throw new RoundhouseError('INVALID_ARGUMENT', {
            what: `${command.name} in an entry`,
            accepted: 'it alone, as a call',
          })
        const reply = command.run(this.keyspace, operations[i]!.args)
        // Of several the one whose condition is not met guards the others.
        if (commands.length > 1 && reply.kind === 'success' && !reply.success && reply.integer === undefined)
          throw new RoundhouseError('CONDITION_NOT_MET', { operation: i + 1, command: command.name })
        replies.push(reply)
        // Each reply is bounded by its command; here, all of them together.
        if (commands.length === 1) continue
        bytes += bytesOf(reply)
        if (bytes > limits.replyBytesMax)
          throw new RoundhouseError('REPLY_TOO_LARGE', {
            max: limits.replyBytesMax,
            hint: 'read outside of it',
          })
      }
    } catch (error) {
      this.rows.discard()
      // A row that can't be read is no refusal: the others can read theirs. This replica must stop.
      if (!isError(error) || error.code === 'CORRUPT' || error.code === 'STORAGE_FAILED') throw error
      return { kind: 'refused', error, operation: replies.length, revision: index, isDuplicate: false }
    }
    return { kind: 'replies', replies, revision: index, isDuplicate: false }
  }

  private commit(): void {
    for (const [key, value] of this.rows.written()) {
      if (key[0] === prefixes.due || key[0] === prefixes.garbage) this.knownExpiry = undefined
      this.changes?.note(key, value, this.base)
    }
    this.rows.commit()
  }

  /**
   * Answers from the state as of `revision`. `wallNowMs` is the leader's wall clock for a linearizable read (ReadIndex
   * was confirmed and applied), null for a stale one.
   */
  read(command: Command, args: readonly Bytes[], { wallNowMs }: { wallNowMs: number | null }): ReadResult {
    assert(command.access === 'read', `${command.name} run as a read`)
    this.keyspace.beginRead(this.lastRevision, this.clockMs, wallNowMs)
    const result = this.answer(command, args)
    return this.keyspace.clockWanted ? { kind: 'clock-wanted' } : result
  }

  private answer(command: Command, args: readonly Bytes[]): ReadResult {
    try {
      return { kind: 'reply', reply: command.run(this.keyspace, args), revision: this.lastRevision }
    } catch (error) {
      if (!isError(error)) throw error
      return { kind: 'refused', error, revision: this.lastRevision }
    }
  }

  /** The log clock, ms since 1970, from which on a sweep has work (0: now); null = never as things stand. */
  nextExpiry(): number | null {
    if (this.knownExpiry === undefined) this.knownExpiry = this.keyspace.nextDueMs()
    return this.knownExpiry
  }
}

/** What a reply holds, about. */
function bytesOf(reply: Reply): number {
  if (reply.kind === 'value') return reply.value.byteLength
  if (reply.kind !== 'list') return 0
  return reply.items.reduce(
    (sum, { key, value }) => sum + 8 + (key?.byteLength ?? 0) + (value?.byteLength ?? 0),
    0,
  )
}

/** To propose when `nextExpiry()` has passed. */
export function sweepEnvelope(timestampMs: number): Envelope {
  const args = [integerBytes(limits.sweepRowsMax)]
  return { timestampMs, session: null, operations: [{ command: sweep.name, args }] }
}

/** To propose when a read answered `clock-wanted`. */
export function clockEnvelope(timestampMs: number): Envelope {
  return { timestampMs, session: null, operations: [{ command: clock.name, args: [] }] }
}

/** To propose when replicas shall compare their rows. */
export function verifyEnvelope(timestampMs: number): Envelope {
  return { timestampMs, session: null, operations: [{ command: verify.name, args: [] }] }
}
