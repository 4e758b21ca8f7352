/**
 * Calls and replies as clusterpb messages, both directions: the client wire reads requests and writes responses, a node
 * that forwards writes requests and reads responses.
 *
 *   request   `key` is args[0]; `key_bytes` (a key that is not UTF-8) wins over it; enums and 64-bit numbers are checked
 *   response  nil: no field of the oneof · value · success (+ affected) · count · list (of keys, values or both)
 */
import { isUtf8 } from 'node:buffer'
import { RoundhouseError } from '../errors.ts'
import {
  type CommandRequest,
  CommandResponse,
  type KeyValue,
  type Transfer as WireTransfer,
} from '../gen/clusterpb/cluster.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import { varintBytes } from '../lib/varint.ts'
import type { Call, CallResult, Session, Transfer } from '../node/ports.ts'
import { ByteSink } from './byte-sink.ts'
import { encodeMessage, toSafeInteger } from './proto-io.ts'

type Reply = CallResult['reply']
type ListItem = Extract<Reply, { kind: 'list' }>['items'][number]

export const callLimits = {
  argumentsMax: 100_000,
  sessionBytes: 16,
  hopsMax: 1,
  /** Of one piece of a snapshot. */
  chunkBytesMax: 1024 * 1024,
  nameCharsMax: 512,
} as const

const noBuffer = Buffer.alloc(0)
const lagMsMax = 0xffff_ffff

function asBuffer(bytes: Bytes): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function refuse(what: string, accepted: string): never {
  throw new RoundhouseError('INVALID_ARGUMENT', { what, accepted })
}

// --- Requests -------------------------------------------------------------------------------------------------------

/** What a request says of a call; how long it may take is the wire's to add. Throws INVALID_ARGUMENT. */
export type RequestedCall = Omit<Call, 'timeoutMs' | 'signal'>

/**
 * `isKeyed` tells whether a command has keys: then an empty key still is args[0] (and the command refuses it by name);
 * the others take a key only when it is not empty.
 */
export function readRequest(request: CommandRequest, isKeyed: (command: string) => boolean): RequestedCall {
  if (request.command === '') refuse('command', 'a name')
  const key = request.keyBytes.length > 0 ? request.keyBytes : fromUtf8(request.key)
  const takesKey = key.length > 0 || isKeyed(request.command)
  if (request.args.length > callLimits.argumentsMax) {
    refuse(`number of arguments ${request.args.length}`, `at most ${callLimits.argumentsMax}`)
  }
  if (request.read !== 0 && request.read !== 1)
    refuse(`read ${request.read}`, '0 (linearizable) or 1 (stale)')
  if (request.hops > callLimits.hopsMax) refuse(`hops ${request.hops}`, `at most ${callLimits.hopsMax}`)
  if (request.shard !== undefined && request.hops === 0) refuse('shard', 'only what another node forwards')
  return {
    command: request.command,
    args: takesKey ? [key, ...request.args] : request.args,
    session: readSession(request),
    read: request.read === 1 ? 'stale' : 'linearizable',
    forward: !request.noForward,
    hops: request.hops,
    shard: request.shard ?? null,
  }
}

/** Throws INVALID_ARGUMENT. */
export function readSession(
  request: Pick<CommandRequest, 'session' | 'sequence' | 'ackedBelow'>,
): Session | null {
  const id = request.session
  if (id.length === 0) return null
  if (id.length !== callLimits.sessionBytes)
    refuse(`session of ${id.length} bytes`, `${callLimits.sessionBytes} bytes`)
  const sequence = toSafeInteger(request.sequence, 'sequence')
  if (sequence === 0) refuse('sequence 0', 'an integer from 1 up')
  return { id, sequence, ackedBelow: toSafeInteger(request.ackedBelow, 'acked_below') }
}

/** For forwarding. The first argument travels as `key_bytes`: no text is made of it on either side. */
export function writeRequest(call: Call): CommandRequest {
  const [first, ...rest] = call.args as Buffer[]
  const hasKey = first !== undefined && first.length > 0
  const session = call.session
  return {
    command: call.command,
    key: '',
    keyBytes: hasKey ? first : noBuffer,
    args: hasKey ? rest : (call.args as Buffer[]),
    id: 0n,
    session: session === null ? noBuffer : asBuffer(session.id),
    sequence: session === null ? 0n : BigInt(session.sequence),
    ackedBelow: session === null ? 0n : BigInt(session.ackedBelow),
    read: call.read === 'stale' ? 1 : 0,
    noForward: !call.forward,
    hops: call.hops,
    shard: call.shard ?? undefined,
    transfer: undefined,
  }
}

/** Throws INVALID_ARGUMENT. */
export function readTransfer(transfer: WireTransfer): Transfer {
  const { snapshot, part, length } = transfer
  if (snapshot === '' || snapshot.length > callLimits.nameCharsMax) refuse('snapshot', 'the id of a snapshot')
  if (part === '' || part.length > callLimits.nameCharsMax) refuse('part', 'the name of a part')
  if (length < 1 || length > callLimits.chunkBytesMax)
    refuse(`length ${length}`, `1 to ${callLimits.chunkBytesMax}`)
  return {
    shard: toSafeInteger(transfer.shard, 'shard'),
    snapshot,
    part,
    position: toSafeInteger(transfer.position, 'position'),
    length,
  }
}

export function writeTransfer(transfer: Transfer): CommandRequest {
  const { shard, snapshot, part, position, length } = transfer
  return {
    command: '',
    key: '',
    keyBytes: noBuffer,
    args: [],
    id: 0n,
    session: noBuffer,
    sequence: 0n,
    ackedBelow: 0n,
    read: 0,
    noForward: false,
    hops: 0,
    transfer: { shard: BigInt(shard), snapshot, part, position: BigInt(position), length },
  }
}

// --- Responses ------------------------------------------------------------------------------------------------------

export function writeResponse(result: CallResult, id: bigint): CommandResponse {
  const { reply } = result
  return {
    error: '',
    response: writeReply(reply),
    id,
    code: '',
    leader: '',
    affected: reply.kind === 'success' && reply.integer !== undefined ? BigInt(reply.integer) : undefined,
    cursor: reply.kind === 'list' && reply.cursor !== undefined ? asBuffer(reply.cursor) : undefined,
    revision: BigInt(result.revision),
    lagMs: Math.min(Math.ceil(result.lagMs), lagMsMax),
  }
}

/**
 * The bytes of `writeResponse`. The answers that are given most are written by hand: the generated writer takes 2.5 µs for
 * one of ten bytes, a twentieth of a whole call. A test holds both side by side.
 */
export function encodeResponse(result: CallResult, id: bigint): Buffer {
  const { reply, revision } = result
  const callId = Number(id)
  const scalar = scalarOf(reply)
  if (scalar === null || !Number.isSafeInteger(callId))
    return encodeMessage(CommandResponse, writeResponse(result, id))
  const lagMs = Math.min(Math.ceil(result.lagMs), lagMsMax)
  const value = reply.kind === 'value' ? reply.value : null
  let bytes = tailBytes(callId) + tailBytes(revision) + tailBytes(lagMs)
  if (value !== null) bytes += 1 + varintBytes(value.byteLength) + value.byteLength
  else if (scalar >= 0) bytes += 1 + varintBytes(scalar)
  const sink = new ByteSink(bytes)
  if (value !== null) {
    sink.byte((2 << 3) | lengthDelimited)
    sink.bytes(value)
  } else if (scalar >= 0) {
    sink.byte(((reply.kind === 'success' ? 3 : 4) << 3) | varint)
    sink.varint(scalar)
  }
  putTail(sink, 16, callId)
  putTail(sink, 21, revision)
  putTail(sink, 22, lagMs)
  return sink.finish()
}

const varint = 0
const lengthDelimited = 2

/** -1: the reply is no number; null: it is not one of those that are written by hand. */
function scalarOf(reply: Reply): number | null {
  if (reply.kind === 'nil' || reply.kind === 'value') return -1
  if (reply.kind === 'success') return reply.integer !== undefined ? null : reply.success ? 1 : 0
  if (reply.kind !== 'count' || typeof reply.count !== 'number') return null
  return Number.isSafeInteger(reply.count) && reply.count >= 0 ? reply.count : null
}

/** A field from 16 to 2,047 has a tag of two bytes; a zero is left out. */
function tailBytes(value: number): number {
  return value === 0 ? 0 : 2 + varintBytes(value)
}

function putTail(sink: ByteSink, field: number, value: number): void {
  if (value === 0) return
  sink.varint((field << 3) | varint)
  sink.varint(value)
}

function writeReply(reply: Reply): CommandResponse['response'] {
  switch (reply.kind) {
    case 'nil':
      return undefined
    case 'value':
      return { $case: 'value', value: asBuffer(reply.value) }
    case 'success':
      return { $case: 'success', value: reply.success }
    case 'count':
      return { $case: 'count', value: BigInt(reply.count) }
    case 'list':
      return { $case: 'list', value: { list: reply.items.map(writeItem) } }
  }
}

function writeItem({ key, value }: ListItem): KeyValue {
  const isText = key !== undefined && isUtf8(key)
  return {
    key: isText ? toUtf8(key) : undefined,
    keyBytes: key === undefined || isText ? noBuffer : asBuffer(key),
    value: value === undefined ? undefined : asBuffer(value),
  }
}

/** An error in band, for streams: the call failed, the stream goes on. */
export function writeErrorResponse(id: bigint, error: string, code: string, leader: string): CommandResponse {
  return { error, response: undefined, id, code, leader, revision: 0n, lagMs: 0 }
}

export function writeChunk(bytes: Bytes, crc: number): CommandResponse {
  return {
    ...writeErrorResponse(BigInt(crc), '', '', ''),
    response: { $case: 'value', value: asBuffer(bytes) },
  }
}

/** Of a response without error. Throws INVALID_ARGUMENT where a number is beyond what this version can hold. */
export function readResponse(response: CommandResponse): CallResult {
  return {
    reply: readReply(response),
    revision: toSafeInteger(response.revision, 'revision'),
    lagMs: response.lagMs,
  }
}

function readReply({ response, affected, cursor }: CommandResponse): Reply {
  switch (response?.$case) {
    case undefined:
      return { kind: 'nil' }
    case 'value':
      return { kind: 'value', value: response.value }
    case 'success':
      return {
        kind: 'success',
        success: response.value,
        ...(affected === undefined ? {} : { integer: Number(affected) }),
      }
    case 'count':
      return { kind: 'count', count: toCount(response.value) }
    case 'list': {
      const items = response.value.list.map(readItem)
      return cursor === undefined ? { kind: 'list', items } : { kind: 'list', items, cursor }
    }
    case 'map':
      return refuse('reply', 'anything but a map')
  }
}

/** Exact: a number where that is safe, else the bigint. */
function toCount(value: bigint): number | bigint {
  const count = Number(value)
  return Number.isSafeInteger(count) ? count : value
}

function readItem({ key, keyBytes, value }: KeyValue): ListItem {
  const bytes = keyBytes.length > 0 ? keyBytes : key === undefined ? undefined : fromUtf8(key)
  return { ...(bytes === undefined ? {} : { key: bytes }), ...(value === undefined ? {} : { value }) }
}
