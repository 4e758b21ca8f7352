/**
 * One StreamCommand to a node: many calls in flight on one HTTP/2 stream, answered in the order in which they were sent.
 * A call costs a fifth of what a unary one does on either side. The price is that an answer waits for those before it;
 * so only calls that a node settles by itself travel here, and a lane that stops answering is left (`retire`).
 */
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js'
import type { CommandRequest, CommandResponse } from '../gen/clusterpb/cluster.ts'
import { brokenOff, type Failure, inBandFailure, statusFailure } from './failure.ts'

export type Answer =
  | { readonly ok: true; readonly response: CommandResponse }
  | { readonly ok: false; readonly failure: Failure }

export type Listener = (answer: Answer) => void

export class Lane {
  private readonly stream: ClientDuplexStream<CommandRequest, CommandResponse>
  private readonly address: string
  private readonly onEnd: () => void
  /** In the order of the requests; those before `head` are answered. */
  private waiting: Listener[] = []
  private head = 0
  private isOver = false
  isRetired = false
  /** When it last answered, of performance.now(). */
  heardMs = Number.NEGATIVE_INFINITY
  /** Called when the stream has ended. */
  onGone: () => void = () => {}

  /** `onEnd`: it takes no more calls. */
  constructor(
    stream: ClientDuplexStream<CommandRequest, CommandResponse>,
    address: string,
    onEnd: () => void,
  ) {
    this.stream = stream
    this.address = address
    this.onEnd = onEnd
    stream.on('data', (response: CommandResponse) => this.answered(response))
    stream.on('error', (error: ServiceError) => this.end(statusFailure(error, address)))
    stream.on('end', () => this.end(brokenOff(address, 'the node ended the stream')))
  }

  get inFlight(): number {
    return this.waiting.length - this.head
  }

  /** `settle` is called once, and not before `send` returns. */
  send(request: CommandRequest, settle: Listener): void {
    this.waiting.push(settle)
    this.stream.write(request)
  }

  /** No more calls: those under way may still be answered, and then it goes. */
  retire(): void {
    if (this.isRetired) return
    this.isRetired = true
    this.onEnd()
    if (this.inFlight === 0) this.cancel()
    else setTimeout(() => this.close(), retiredMsMax).unref()
  }

  /** Whoever still waits is told that the call broke off. */
  close(): void {
    if (this.isOver) return
    this.isRetired = true
    this.cancel()
    this.end(brokenOff(this.address, 'the client closed the stream'))
  }

  private answered(response: CommandResponse): void {
    this.heardMs = performance.now()
    const settle = this.waiting[this.head]
    if (settle === undefined) return
    this.waiting[this.head++] = nobody
    if (this.head === this.waiting.length || this.head >= trimAfter) {
      this.waiting.splice(0, this.head)
      this.head = 0
    }
    settle(response.code === '' ? { ok: true, response } : { ok: false, failure: inBandFailure(response) })
    if (this.isRetired && this.inFlight === 0) this.cancel()
  }

  private end(failure: Failure): void {
    if (this.isOver) return
    this.isOver = true
    if (!this.isRetired) {
      this.isRetired = true
      this.onEnd()
    }
    this.onGone()
    const waiting = this.waiting.slice(this.head)
    this.waiting = []
    this.head = 0
    for (const settle of waiting) settle({ ok: false, failure })
  }

  /**
   * Never from within a callback of the connection: a RST_STREAM that is sent while nghttp2 reads one makes Node.js write
   * for ever (nodejs/node#52952).
   */
  private cancel(): void {
    setImmediate(() => this.stream.cancel())
  }
}

/** Calls of a lane that was left are sent again elsewhere long before. */
const retiredMsMax = 5_000
/** Answered ones are cut off together. */
const trimAfter = 256
const nobody: Listener = () => {}
