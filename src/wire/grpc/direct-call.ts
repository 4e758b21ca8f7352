/**
 * A call of any kind without grpc-js, for handlers that are written for grpc-js: it has what they use of grpc-js's own calls,
 * under the same names and with the same meaning (ServerUnaryCall, ServerReadableStream, ServerWritableStream,
 * ServerDuplexStream), and nothing else. `cancelled` is told at the end of every call, as grpc-js does.
 */
import { EventEmitter } from 'node:events'
import { Metadata, type MethodDefinition, status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../errors.ts'
import type { Stream, StreamReceiver } from '../../http2/stream.ts'
import { framePrefixBytes, writeMessage } from '../../lib/grpc-frame.ts'
import { GrpcReader } from '../../lib/grpc-reader.ts'
import { type GrpcStatus, statusOf } from '../../peer/status.ts'
import type { CallMemory } from './connections.ts'
import { answerHeaders, okTrailers, statusAlone, statusTrailers } from './direct-answer.ts'
import { grpcLimits } from './options.ts'
import { notOneMessage, unreadable } from './unreadable.ts'

/** What grpc-js calls a handler with: the call, and for one answer a callback. */
export type Handler = (
  call: DirectCall,
  callback: (error: Partial<GrpcStatus> | null, message?: Buffer) => void,
) => void

/** Timers of Node.js end at once beyond it. */
const timerMsMax = 2 ** 31 - 1

export class DirectCall extends EventEmitter implements StreamReceiver {
  /** Of a call with one request. */
  request: unknown
  readonly metadata = new Metadata()
  readonly memory: CallMemory
  cancelled = false
  private readonly method: MethodDefinition<unknown, unknown>
  private readonly handler: Handler
  private readonly stream: Stream
  private readonly deadlineMs: number
  private readonly onDenied: (why: string) => void
  private readonly reader = new GrpcReader(grpcLimits.messageBytesMax, unreadable)
  private timer: NodeJS.Timeout | null = null
  private isPaused = false
  private isRequestOver = false
  private isEndTold = false
  /** Of a call with one request. */
  private hasRequest = false
  private isAnswered = false
  private isClosed = false

  constructor(options: {
    readonly method: MethodDefinition<unknown, unknown>
    readonly handler: Handler
    readonly stream: Stream
    readonly memory: CallMemory
    readonly deadlineMs: number
    readonly onDenied: (why: string) => void
  }) {
    super()
    this.method = options.method
    this.handler = options.handler
    this.stream = options.stream
    this.memory = options.memory
    this.deadlineMs = options.deadlineMs
    this.onDenied = options.onDenied
    this.on('error', (error: Partial<GrpcStatus>) => this.refuse(error))
  }

  /** Whoever makes it may: with requests one after another its handler begins now. */
  begin(): void {
    const { deadlineMs } = this
    if (deadlineMs !== Number.POSITIVE_INFINITY) {
      const late = () => this.refuse({ code: status.DEADLINE_EXCEEDED, details: 'the deadline is over' })
      this.timer = setTimeout(late, Math.min(timerMsMax, Math.max(0, deadlineMs - Date.now())))
    }
    if (this.method.requestStream) this.handler(this, this.answer)
  }

  // What handlers use.

  getDeadline(): number {
    return this.deadlineMs
  }

  /** Headers before the first answer. */
  sendMetadata(_none: Metadata): void {
    this.stream.respond(answerHeaders)
  }

  /** `onSent`: the system has it. Always true: whoever writes counts by `onSent`. */
  write(message: Buffer, onSent?: () => void): boolean {
    if (this.isAnswered) return true
    if (!this.stream.isAnswered) this.stream.respond(answerHeaders)
    writeMessage(this.stream, message, onSent)
    return true
  }

  end(): void {
    if (this.isAnswered) return
    if (!this.stream.isAnswered) this.stream.respond(answerHeaders)
    this.isAnswered = true
    this.stream.finish(okTrailers)
  }

  pause(): void {
    this.isPaused = true
    this.stream.hold()
  }

  resume(): void {
    this.isPaused = false
    // Not from within the handler that says so.
    setImmediate(() => this.deliver())
  }

  // What the stream tells.

  data(bytes: Buffer): void {
    if (this.isAnswered) return
    this.memory.add(bytes.byteLength)
    this.reader.push(bytes)
    this.deliver()
  }

  taken(): void {
    this.closed()
  }

  closed(): void {
    if (this.isClosed) return
    this.isClosed = true
    if (this.timer !== null) clearTimeout(this.timer)
    this.isAnswered = true
    // What may still come is read and forgotten: the connection's window is for all of its calls.
    this.stream.release()
    this.memory.close()
    this.cancel()
    this.emit('close')
  }

  private cancel(): void {
    if (this.cancelled) return
    this.cancelled = true
    this.emit('cancelled', 'cancelled')
  }

  complete(): void {
    this.isRequestOver = true
    this.deliver()
  }

  private deliver(): void {
    if (this.isAnswered || this.isPaused) return
    try {
      while (!this.isPaused && !this.isAnswered) {
        const message = this.reader.next()
        if (message === null) break
        // A handler that hands over what came means this, not what waits behind it.
        const bytes = framePrefixBytes + message.byteLength
        this.memory.add(-bytes)
        this.memory.received(bytes)
        if (this.method.requestStream) this.emit('data', this.method.requestDeserialize(message))
        else this.take(message)
      }
      if (this.isPaused || this.isAnswered) return
      this.stream.release()
      if (this.isRequestOver) this.tellEnd()
    } catch (error) {
      if (!(error instanceof RoundhouseError)) throw error
      this.refuse(statusOf(error))
    }
  }

  private take(message: Buffer): void {
    if (this.hasRequest) throw notOneMessage()
    this.hasRequest = true
    this.request = this.method.requestDeserialize(message)
  }

  private tellEnd(): void {
    if (this.isEndTold) return
    this.isEndTold = true
    if (!this.reader.isEmpty || (!this.method.requestStream && !this.hasRequest)) throw notOneMessage()
    if (this.method.requestStream) this.emit('end')
    else this.handler(this, this.answer)
  }

  private readonly answer = (error: Partial<GrpcStatus> | null, message?: Buffer): void => {
    if (error !== null) {
      this.refuse(error)
      return
    }
    this.write(message!)
    this.end()
  }

  /** Ends the call with a status. What was answered before it leaves before it. */
  private refuse({ code = status.UNKNOWN, details = '', metadata }: Partial<GrpcStatus>): void {
    if (this.isAnswered) return
    this.isAnswered = true
    if (code === status.PERMISSION_DENIED) this.onDenied(details)
    const refusal = { code, details, metadata: metadata ?? new Metadata() }
    if (this.stream.isAnswered) this.stream.finish(statusTrailers(refusal))
    else this.stream.respond(statusAlone(refusal), true)
    // What was begun for it ends, whether its caller reads the answer or not.
    this.cancel()
  }
}
