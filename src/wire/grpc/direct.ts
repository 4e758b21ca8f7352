/**
 * Unary calls over node:http2 itself, for methods that are called most. grpc-js makes some forty objects, listeners and
 * closures for each call, which is more than what lies below it costs; here it is one object and three listeners. Callers
 * see no difference: the bytes are the same, and what is not plain (a compressed message, a deadline that can't be read)
 * is left to grpc-js, which serves these methods as well.
 *
 * ```
 *  request   HEADERS, DATA*: 0, length (4 bytes, big-endian), message; END_STREAM
 *  answer    HEADERS, DATA in the same form, HEADERS with grpc-status 0
 *  refusal   HEADERS with grpc-status, grpc-message (percent-encoded), details; END_STREAM
 * ```
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import { status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import type { Bytes } from '../../lib/bytes.ts'
import { framePrefixBytes, grpcFrame } from '../../lib/grpc-frame.ts'
import type { Caller } from '../../peer/caller.ts'
import { type GrpcStatus, statusOf } from '../../peer/status.ts'
import type { CallMemory } from './connections.ts'
import type { Answer, Arrived } from './method.ts'
import { grpcLimits } from './options.ts'

/** What a handler of a unary call is given, whichever way the call came. */
export interface UnaryArrival<Message> {
  readonly request: Arrived<Message>
  /** null: callers are not checked. */
  readonly caller: Caller | null
  readonly memory: CallMemory
  /** Wall-clock ms; Infinity: the caller waits for ever. */
  readonly deadlineMs: number
  readonly isCancelled: boolean
  /** At the end of every call, too: whoever answered before looks away. */
  onCancelled(run: () => void): void
}

export interface DirectMethod<Message> {
  readonly path: string
  readonly deserialize: (bytes: Buffer) => Arrived<Message>
  readonly serve: (call: UnaryArrival<Message>, answer: Answer) => void
}

/** 1 to 8 digits and a unit, as the protocol has it. */
const timeoutPattern = /^(\d{1,8})([HMSmun])$/
const unitMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 }

/** Wall-clock ms; null where the header is none. */
function deadlineOf(header: string | string[] | undefined): number | null {
  if (header === undefined) return Number.POSITIVE_INFINITY
  const found = typeof header === 'string' ? timeoutPattern.exec(header) : null
  return found === null ? null : Date.now() + Number(found[1]) * unitMs[found[2]!]!
}

function isPlain(headers: IncomingHttpHeaders): boolean {
  const encoding = headers['grpc-encoding']
  return (
    headers[constants.HTTP2_HEADER_METHOD] === 'POST' &&
    headers['content-type']?.startsWith('application/grpc') === true &&
    (encoding === undefined || encoding === 'identity')
  )
}

const answerHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' }
/** gRPC has no use for a date, and writing one costs. */
const answerOptions = { waitForTrailers: true, sendDate: false }
const refusalOptions = { endStream: true, sendDate: false }
const okTrailers = { 'grpc-status': '0', 'grpc-message': 'OK' }

/** One for all: a closure a call would cost more than what it does. */
function sendOk(this: ServerHttp2Stream): void {
  this.sendTrailers(okTrailers)
}

/** An error of a stream is followed by its `close`, which is what counts. */
function ignore(): void {}

export interface DirectHooks {
  /** Who makes the call; throws where it may not. */
  readonly admit: (path: string, stream: ServerHttp2Stream) => Caller | null
  /** A call was refused for who makes it. */
  readonly denied: (path: string, stream: ServerHttp2Stream, why: string) => void
}

export class DirectCalls {
  private readonly methods = new Map<string, DirectMethod<unknown>>()
  private readonly hooks: DirectHooks

  constructor(hooks: DirectHooks) {
    this.hooks = hooks
  }

  add<Message>(method: DirectMethod<Message>): void {
    this.methods.set(method.path, method as DirectMethod<unknown>)
  }

  /** Serves the call and says so; false: it is not ours. */
  take(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, memory: CallMemory): boolean {
    const method = this.methods.get(headers[':path'] as string)
    if (method === undefined || !isPlain(headers)) return false
    const deadlineMs = deadlineOf(headers['grpc-timeout'])
    if (deadlineMs === null) return false
    stream.on('error', ignore)
    let caller: Caller | null
    try {
      caller = this.hooks.admit(method.path, stream)
    } catch (error) {
      const refusal = statusOf(error)
      this.hooks.denied(method.path, stream, refusal.details)
      refuse(stream, refusal)
      // What it sends is read and forgotten: the connection's window is for all of its calls.
      stream.resume()
      return true
    }
    new DirectCall(method, this.hooks, stream, caller, memory, deadlineMs)
    return true
  }
}

class DirectCall implements UnaryArrival<unknown> {
  request!: Arrived<unknown>
  readonly caller: Caller | null
  readonly memory: CallMemory
  readonly deadlineMs: number
  private readonly method: DirectMethod<unknown>
  private readonly hooks: DirectHooks
  private readonly stream: ServerHttp2Stream
  private chunks: Buffer[] = []
  private bytes = 0
  private isRefused = false

  constructor(
    method: DirectMethod<unknown>,
    hooks: DirectHooks,
    stream: ServerHttp2Stream,
    caller: Caller | null,
    memory: CallMemory,
    deadlineMs: number,
  ) {
    this.method = method
    this.hooks = hooks
    this.stream = stream
    this.caller = caller
    this.memory = memory
    this.deadlineMs = deadlineMs
    stream.on('data', (chunk: Buffer) => this.take(chunk))
    stream.on('end', () => this.begin())
  }

  get isCancelled(): boolean {
    return this.stream.destroyed || this.stream.closed
  }

  onCancelled(run: () => void): void {
    this.stream.once('close', run)
  }

  private take(chunk: Buffer): void {
    // What still comes of a refused one is read, so that it does not stand in others' way, and forgotten.
    if (this.isRefused) return
    const hadPrefix = this.bytes >= framePrefixBytes
    this.bytes += chunk.byteLength
    this.memory.received(chunk.byteLength)
    this.chunks.push(chunk)
    const max = grpcLimits.requestBytesMax
    let bytes = this.bytes - framePrefixBytes
    if (!hadPrefix && bytes >= 0) {
      if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks)]
      bytes = Math.max(bytes, this.chunks[0]!.readUInt32BE(1))
    }
    if (bytes <= max) return
    this.isRefused = true
    this.chunks = []
    this.fail(new RoundhouseError('TOO_LARGE', { what: 'request', bytes, max }))
  }

  private begin(): void {
    const { chunks, stream } = this
    if (stream.headersSent || this.isCancelled) return
    const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
    this.chunks = []
    const isOne =
      body.byteLength >= framePrefixBytes &&
      body[0] === 0 &&
      body.readUInt32BE(1) === body.byteLength - framePrefixBytes
    if (!isOne) {
      const accepted = 'one gRPC message: 0, its length in 4 bytes, its bytes'
      this.fail(new RoundhouseError('INVALID_ARGUMENT', { what: 'request', accepted }))
      return
    }
    this.request = this.method.deserialize(body.subarray(framePrefixBytes))
    this.method.serve(this, (refusal, message) => this.answer(refusal, message))
  }

  private fail(error: RoundhouseError): void {
    this.answer(statusOf(error))
  }

  private answer(refusal: GrpcStatus | null, message?: Bytes): void {
    const { stream } = this
    if (this.isCancelled || stream.headersSent) return
    if (refusal === null) {
      stream.respond(answerHeaders, answerOptions)
      stream.once('wantTrailers', sendOk)
      stream.end(grpcFrame(message as Buffer))
      return
    }
    if (refusal.code === status.PERMISSION_DENIED)
      this.hooks.denied(this.method.path, stream, refusal.details)
    refuse(stream, refusal)
  }
}

function refuse(stream: ServerHttp2Stream, { code, details, metadata }: GrpcStatus): void {
  // A call may be over before it is looked at: to answer would throw where nobody catches it.
  if (stream.destroyed || stream.closed || stream.headersSent) return
  stream.respond(
    {
      ...answerHeaders,
      'grpc-status': String(code),
      'grpc-message': encodeURI(details),
      ...metadata.toHttp2Headers(),
    },
    refusalOptions,
  )
}
