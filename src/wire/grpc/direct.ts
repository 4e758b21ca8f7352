/**
 * Unary calls without grpc-js, for methods that are called most: one object each. Callers see no difference: the bytes are the
 * same, and what is not plain (a compressed message, a deadline that can't be read) is left to grpc-js, which serves these
 * methods as well.
 *
 * ```
 *  request   HEADERS, DATA*: 0, length (4 bytes, big-endian), message; END_STREAM
 *  answer    HEADERS, DATA in the same form, HEADERS with grpc-status 0
 *  refusal   HEADERS with grpc-status, grpc-message (percent-encoded), details; END_STREAM
 * ```
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */
import { status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import { encodeHeaders, type HeaderList, headerOf } from '../../http2/hpack.ts'
import type { Stream, StreamReceiver } from '../../http2/stream.ts'
import type { Bytes } from '../../lib/bytes.ts'
import { framePrefixBytes, grpcFrame } from '../../lib/grpc-frame.ts'
import type { Caller } from '../../peer/caller.ts'
import { type GrpcStatus, statusOf } from '../../peer/status.ts'
import type { CallMemory, Connection } from './connections.ts'
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
function deadlineOf(header: string | undefined): number | null {
  if (header === undefined) return Number.POSITIVE_INFINITY
  const found = timeoutPattern.exec(header)
  return found === null ? null : Date.now() + Number(found[1]) * unitMs[found[2]!]!
}

function isPlain(headers: HeaderList): boolean {
  const encoding = headerOf(headers, 'grpc-encoding')
  return (
    headerOf(headers, ':method') === 'POST' &&
    headerOf(headers, 'content-type')?.startsWith('application/grpc') === true &&
    (encoding === undefined || encoding === 'identity')
  )
}

const answerFields = [':status', '200', 'content-type', 'application/grpc+proto']
const answerHeaders = encodeHeaders(answerFields)
const okTrailers = encodeHeaders(['grpc-status', '0', 'grpc-message', 'OK'])

export interface DirectHooks {
  readonly begin: (connection: Connection) => CallMemory
  /** Who makes the call; throws where it may not. */
  readonly admit: (path: string, connection: Connection) => Caller | null
  /** A call was refused for who makes it. */
  readonly denied: (path: string, connection: Connection, why: string) => void
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

  /** Who serves the call; null: it is not ours. */
  take(begin: () => Stream, headers: HeaderList, connection: Connection): StreamReceiver | null {
    const method = this.methods.get(headerOf(headers, ':path') ?? '')
    if (method === undefined || !isPlain(headers)) return null
    const deadlineMs = deadlineOf(headerOf(headers, 'grpc-timeout'))
    if (deadlineMs === null) return null
    const call = new DirectCall(method, this.hooks, begin(), connection, deadlineMs)
    call.admit()
    return call
  }
}

class DirectCall implements UnaryArrival<unknown>, StreamReceiver {
  request!: Arrived<unknown>
  caller: Caller | null = null
  readonly memory: CallMemory
  readonly deadlineMs: number
  private readonly method: DirectMethod<unknown>
  private readonly hooks: DirectHooks
  private readonly stream: Stream
  private readonly connection: Connection
  private chunks: Buffer[] = []
  private bytes = 0
  private isRefused = false
  private whenCancelled: (() => void) | null = null

  constructor(
    method: DirectMethod<unknown>,
    hooks: DirectHooks,
    stream: Stream,
    connection: Connection,
    deadlineMs: number,
  ) {
    this.method = method
    this.hooks = hooks
    this.stream = stream
    this.connection = connection
    this.memory = hooks.begin(connection)
    this.deadlineMs = deadlineMs
  }

  get isCancelled(): boolean {
    return this.stream.isOver
  }

  onCancelled(run: () => void): void {
    this.whenCancelled = run
  }

  admit(): void {
    try {
      this.caller = this.hooks.admit(this.method.path, this.connection)
    } catch (error) {
      this.isRefused = true
      const refusal = statusOf(error)
      this.hooks.denied(this.method.path, this.connection, refusal.details)
      this.refuse(refusal)
    }
  }

  data(chunk: Buffer): void {
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

  end(): void {
    const { chunks } = this
    if (this.isRefused || this.isCancelled) return
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

  closed(): void {
    this.memory.close()
    this.whenCancelled?.()
  }

  private fail(error: RoundhouseError): void {
    this.answer(statusOf(error))
  }

  private answer(refusal: GrpcStatus | null, message?: Bytes): void {
    const { stream } = this
    if (stream.isOver || stream.isAnswered) return
    if (refusal === null) {
      stream.respond(answerHeaders)
      stream.write(grpcFrame(message as Buffer))
      stream.finish(okTrailers)
      return
    }
    if (refusal.code === status.PERMISSION_DENIED)
      this.hooks.denied(this.method.path, this.connection, refusal.details)
    this.refuse(refusal)
  }

  private refuse({ code, details, metadata }: GrpcStatus): void {
    const more = Object.entries(metadata.toHttp2Headers()).flatMap(([name, value]) =>
      [value].flat().flatMap(each => [name, String(each)]),
    )
    const fields = ['grpc-status', String(code), 'grpc-message', encodeURI(details), ...more]
    this.stream.respond(encodeHeaders([...answerFields, ...fields]), true)
  }
}
