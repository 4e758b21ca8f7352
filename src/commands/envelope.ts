import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import type { SessionUse } from '../keyspace/sessions.ts'
import { assert } from '../lib/assert.ts'
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import { ByteWriter } from '../lib/byte-writer.ts'
import { type Bytes, toLatin1 } from '../lib/bytes.ts'
import type { Command, PrepareContext } from './command.ts'

/**
 * What a Raft entry of a shard says: operations that are applied as one or not at all, when they were proposed, and for
 * whom. Encoded once by the leader; the same bytes go to the journal, to the followers and to the state machine.
 *
 * ```
 *  version  1 byte, 1
 *  flags    1 byte, bit 0: a session follows
 *  stamp    varint, ms since 1970
 * [session  16 bytes, varint sequence, varint acked_below]
 *  count    varint, then so many operations:
 *             varint length, command name in upper case
 *             varint number of arguments, each: varint length, bytes
 * ```
 * A form has no second spelling: bytes left over, padded varints and unknown flags are refused.
 */
export interface Envelope {
  /** The proposing leader's log clock, ms since 1970: at least the last entry's stamp. */
  readonly timestampMs: number
  readonly session: SessionUse | null
  readonly operations: readonly Operation[]
}

/** A command as it is applied: its arguments went through `prepare`. */
export interface Operation {
  readonly command: string
  readonly args: readonly Bytes[]
}

/** What the leader puts into the entry for a call that went through `parseCall`. */
export function prepareOperation(
  command: Command,
  args: readonly Bytes[],
  context: PrepareContext,
): Operation {
  return { command: command.name, args: command.prepare?.(args, context) ?? args }
}

const version = 1
const flagSession = 1
const sessionIdBytes = 16

export function encodeEnvelope(envelope: Envelope): Bytes {
  const writer = new ByteWriter(envelopeBytes(envelope))
  writeEnvelope(writer, envelope)
  return writer.finish()
}

export function writeEnvelope(writer: ByteWriter, envelope: Envelope): void {
  const { session, operations } = envelope
  assert(operations.length <= limits.operationsMax, 'more operations than an entry may have')
  writer.byte(version)
  writer.byte(session === null ? 0 : flagSession)
  writer.varint(envelope.timestampMs)
  if (session !== null) {
    assert(session.id.byteLength === sessionIdBytes, `session id of ${session.id.byteLength} bytes`)
    writer.raw(session.id)
    writer.varint(session.sequence)
    writer.varint(session.ackedBelow)
  }
  writer.varint(operations.length)
  for (const { command, args } of operations) {
    writer.sizedLatin1(command)
    writer.varint(args.length)
    for (const arg of args) writer.sized(arg)
  }
}

/** About what it will take, never less. */
export function envelopeBytes(envelope: Envelope): number {
  let bytes = 48
  for (const { command, args } of envelope.operations) {
    bytes += command.length + 6
    for (const arg of args) bytes += arg.byteLength + 4
  }
  return bytes
}

/** Arguments are views of `bytes`. Throws UNSUPPORTED_ENTRY (made by a newer version) or CORRUPT. */
export function decodeEnvelope(bytes: Bytes): Envelope {
  try {
    const reader = new ByteReader(bytes)
    const seen = reader.byte()
    if (seen !== version) throw new RoundhouseError('UNSUPPORTED_ENTRY', { what: `envelope version ${seen}` })
    const flags = reader.byte()
    if ((flags & ~flagSession) !== 0)
      throw new RoundhouseError('UNSUPPORTED_ENTRY', { what: `envelope flags ${flags}` })
    const timestampMs = reader.varint()
    const session =
      (flags & flagSession) === 0
        ? null
        : { id: reader.raw(sessionIdBytes), sequence: reader.varint(), ackedBelow: reader.varint() }
    const operations: Operation[] = []
    for (let left = reader.varint(); left > 0; left--) {
      const command = toLatin1(reader.sized())
      const args: Bytes[] = []
      for (let argsLeft = reader.varint(); argsLeft > 0; argsLeft--) args.push(reader.sized())
      operations.push({ command, args })
    }
    reader.end()
    return { timestampMs, session, operations }
  } catch (error) {
    if (error instanceof Malformed)
      throw new RoundhouseError('CORRUPT', { where: 'entry', what: error.message })
    throw error
  }
}
