/**
 * Calls without grpc-js, which makes some forty objects, listeners and closures for each. Callers see no difference; what is
 * not plain (a compressed message, a deadline that can't be read) is left to grpc-js, which serves the same methods.
 *
 * RunCommand, the call that is made most, is one object (DirectUnary); all others are served by the handlers that grpc-js
 * calls, with a call of their own (direct-call.ts).
 *
 * ```
 *  request   HEADERS, DATA*: 0, length (4 bytes, big-endian), message; END_STREAM
 *  answer    HEADERS, DATA in the same form, HEADERS with grpc-status 0
 *  refusal   HEADERS with grpc-status, grpc-message (percent-encoded), details; END_STREAM
 * ```
 * (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)
 */
import {
  type Metadata,
  type MethodDefinition,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { type HeaderList, headerOf } from '../../http2/hpack.ts'
import type { Stream, StreamReceiver } from '../../http2/stream.ts'
import type { Bytes } from '../../lib/bytes.ts'
import { writeMessage } from '../../lib/grpc-frame.ts'
import { GrpcReader } from '../../lib/grpc-reader.ts'
import type { Caller } from '../../peer/caller.ts'
import { type GrpcStatus, statusOf } from '../../peer/status.ts'
import type { CallMemory, Connection } from './connections.ts'
import { answerHeaders, okTrailers, statusAlone } from './direct-answer.ts'
import { DirectCall, type Handler } from './direct-call.ts'
import type { Answer, Arrived } from './method.ts'
import { grpcLimits } from './options.ts'
import { notOneMessage, unreadable } from './unreadable.ts'

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

export interface DirectHooks {
  readonly begin: (connection: Connection) => CallMemory
  /** Who makes the call; throws where it may not. */
  readonly admit: (path: string, connection: Connection) => Caller | null
  /** For handlers that ask by a call's metadata. */
  readonly remember: (metadata: Metadata, caller: Caller) => void
  /** A call was refused for who makes it. */
  readonly denied: (path: string, connection: Connection, why: string) => void
}

interface Served {
  readonly method: MethodDefinition<unknown, unknown>
  readonly handler: Handler
}

export class DirectCalls {
  private readonly unary = new Map<string, DirectMethod<unknown>>()
  private readonly others = new Map<string, Served>()
  private readonly hooks: DirectHooks

  constructor(hooks: DirectHooks) {
    this.hooks = hooks
  }

  add<Message>(method: DirectMethod<Message>): void {
    this.unary.set(method.path, method as DirectMethod<unknown>)
  }

  /** The methods of a service, with handlers for grpc-js. */
  addService(methods: ServiceDefinition, handlers: UntypedServiceImplementation): void {
    for (const [name, method] of Object.entries(methods))
      this.others.set(method.path, { method, handler: handlers[name] as unknown as Handler })
  }

  /** Who serves the call; null: it is not ours. */
  take(begin: () => Stream, headers: HeaderList, connection: Connection): StreamReceiver | null {
    const path = headerOf(headers, ':path') ?? ''
    const unary = this.unary.get(path)
    const other = unary === undefined ? this.others.get(path) : undefined
    if ((unary === undefined && other === undefined) || !isPlain(headers)) return null
    const deadlineMs = deadlineOf(headerOf(headers, 'grpc-timeout'))
    if (deadlineMs === null) return null
    const { hooks } = this
    const stream = begin()
    const memory = hooks.begin(connection)
    const onDenied = (why: string) => hooks.denied(path, connection, why)
    let caller: Caller | null
    try {
      caller = hooks.admit(path, connection)
    } catch (error) {
      const refusal = statusOf(error)
      onDenied(refusal.details)
      stream.respond(statusAlone(refusal), true)
      return { data: () => {}, complete: () => {}, taken: () => memory.close(), closed: () => memory.close() }
    }
    if (unary !== undefined) return new DirectUnary(unary, stream, caller, memory, deadlineMs, onDenied)
    const call = new DirectCall({ ...other!, stream, memory, deadlineMs, onDenied })
    if (caller !== null) hooks.remember(call.metadata, caller)
    call.begin()
    return call
  }
}

class DirectUnary implements UnaryArrival<unknown>, StreamReceiver {
  request!: Arrived<unknown>
  readonly caller: Caller | null
  readonly memory: CallMemory
  readonly deadlineMs: number
  private readonly method: DirectMethod<unknown>
  private readonly stream: Stream
  private readonly onDenied: (why: string) => void
  private readonly reader = new GrpcReader(grpcLimits.requestBytesMax, unreadable)
  private message: Buffer | null = null
  private whenCancelled: (() => void) | null = null

  constructor(
    method: DirectMethod<unknown>,
    stream: Stream,
    caller: Caller | null,
    memory: CallMemory,
    deadlineMs: number,
    onDenied: (why: string) => void,
  ) {
    this.method = method
    this.stream = stream
    this.caller = caller
    this.memory = memory
    this.deadlineMs = deadlineMs
    this.onDenied = onDenied
  }

  get isCancelled(): boolean {
    return this.stream.isOver
  }

  onCancelled(run: () => void): void {
    this.whenCancelled = run
  }

  data(chunk: Buffer): void {
    // What still comes of a refused one is read, so that it does not stand in others' way, and forgotten.
    if (this.stream.isAnswered) return
    this.memory.received(chunk.byteLength)
    this.reader.push(chunk)
    try {
      this.message ??= this.reader.next()
      if (this.message !== null && !this.reader.isEmpty) throw notOneMessage()
    } catch (error) {
      this.answer(statusOf(error))
    }
  }

  complete(): void {
    if (this.stream.isAnswered) return
    if (this.message === null) {
      this.answer(statusOf(notOneMessage()))
      return
    }
    this.request = this.method.deserialize(this.message)
    this.message = null
    this.method.serve(this, (refusal, message) => this.answer(refusal, message))
  }

  taken(): void {
    this.closed()
  }

  closed(): void {
    this.memory.close()
    this.whenCancelled?.()
    this.whenCancelled = null
  }

  private answer(refusal: GrpcStatus | null, message?: Bytes): void {
    const { stream } = this
    if (stream.isOver || stream.isAnswered) return
    if (refusal === null) {
      stream.respond(answerHeaders)
      writeMessage(stream, message!)
      stream.finish(okTrailers)
      return
    }
    if (refusal.code === status.PERMISSION_DENIED) this.onDenied(refusal.details)
    stream.respond(statusAlone(refusal), true)
  }
}
