import type { Reply } from '../../src/commands/command.ts'
import { encodeEnvelope, type Operation, prepareOperation } from '../../src/commands/envelope.ts'
import type { Applied } from '../../src/commands/machine.ts'
import {
  type CommandTable,
  clockEnvelope,
  type ReadResult,
  StateMachine,
  sweepEnvelope,
} from '../../src/commands/machine.ts'
import { commands, parseCall } from '../../src/commands/table.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import type { SessionUse } from '../../src/keyspace/sessions.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'

export type Plain =
  | null
  | string
  | boolean
  | number
  | bigint
  | readonly (null | string | readonly [string, string | null])[]

/** What a leader does with calls, without Raft: one machine, a clock that the test moves, entries kept for replaying. */
export class Shard {
  readonly rows = new MemoryRows()
  readonly machine: StateMachine
  readonly entries: Bytes[] = []
  nowMs = 1_700_000_000_000

  constructor(table: CommandTable = commands) {
    this.machine = new StateMachine(this.rows, table)
  }

  /** Runs a call as text and answers its reply as plain values; throws what it is refused with. */
  call(name: string, ...args: (string | Bytes)[]): Plain {
    const { command } = parseCall(name, args.map(toBytes))
    if (command.access === 'write') {
      const applied = this.applyOperations([this.operation(name, ...args)])
      if (applied.kind === 'refused') throw applied.error
      return plain(applied.replies[0]!)
    }
    let result = this.read(name, args, this.nowMs)
    if (result.kind === 'clock-wanted') {
      this.apply(encodeEnvelope(clockEnvelope(this.nowMs)))
      result = this.read(name, args, this.nowMs)
    }
    if (result.kind === 'clock-wanted') throw new Error('the clock entry did not help')
    if (result.kind === 'refused') throw result.error
    return plain(result.reply)
  }

  read(name: string, args: (string | Bytes)[], wallNowMs: number | null): ReadResult {
    const { command, args: parsed } = parseCall(name, args.map(toBytes))
    return this.machine.read(command, parsed, { wallNowMs })
  }

  operation(name: string, ...args: (string | Bytes)[]): Operation {
    const { command, args: parsed } = parseCall(name, args.map(toBytes))
    return prepareOperation(command, parsed, { wallMs: this.nowMs, random: new Prng(1) })
  }

  applyOperations(operations: readonly Operation[], session: SessionUse | null = null): Applied {
    return this.apply(encodeEnvelope({ timestampMs: this.nowMs, session, operations }))
  }

  apply(entry: Bytes): Applied {
    this.entries.push(entry)
    return this.machine.apply(this.entries.length, entry)
  }

  sweep(): number {
    const applied = this.apply(encodeEnvelope(sweepEnvelope(this.nowMs)))
    if (applied.kind === 'refused') throw applied.error
    const [reply] = applied.replies
    if (reply?.kind !== 'count') throw new Error('a sweep counts rows')
    return Number(reply.count)
  }

  /** All rows, text for text. */
  dump(): Record<string, string> {
    const rows: Record<string, string> = {}
    for (const [key, value] of this.rows.range('', '\u00ff')) rows[key] = Buffer.from(value).toString('hex')
    return rows
  }
}

export function toBytes(text: string | Bytes): Bytes {
  return typeof text === 'string' ? fromUtf8(text) : text
}

/** nil → null; a list of values → its texts; a list of keys and values → pairs. */
export function plain(reply: Reply): Plain {
  switch (reply.kind) {
    case 'nil':
      return null
    case 'value':
      return toUtf8(reply.value)
    case 'success':
      return reply.integer ?? reply.success
    case 'count':
      return reply.count
    case 'list':
      return reply.items.map(({ key, value }) => {
        const text = value === undefined ? null : toUtf8(value)
        return key === undefined ? text : [toUtf8(key), text]
      })
  }
}

/** For assert.throws: an expected error of this code. */
export function refusal(code: string): { name: string; code: string } {
  return { name: 'RoundhouseError', code }
}

/** An id made at `createdMs`, told apart by `tail`. */
export function sessionId(createdMs: number, tail = 1): Bytes {
  const id = new Uint8Array(16)
  for (let i = 5, ms = createdMs; i >= 0; i--, ms = Math.floor(ms / 256)) id[i] = ms % 256
  id[14] = tail >>> 8
  id[15] = tail
  return id
}
