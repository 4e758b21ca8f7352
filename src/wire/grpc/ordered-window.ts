/**
 * A stream's requests in flight: read in order, begun in order, run side by side, answered in order. What was read and
 * has not left yet is bounded in number and bytes (of the requests and of answers that wait for their turn); at a bound
 * reading pauses, and the client's flow control window pushes back from there. Writing respects the stream in the same
 * way: while it does not drain, answers keep their place here. All of it counts as the connection's, too.
 *
 * How long an answer will be is not known when its request is begun, and 256 short requests may bring 8 MiB each. So a
 * request that runs weighs at least what the largest answer before it did, which fades as smaller ones come; at first,
 * much: a stream begins with few.
 *
 *   requests in →  [ answered | running | answered | running ]  → responses out, from the left, as far as answered
 */
import type { ServerDuplexStream } from '@grpc/grpc-js'
import type { CallMemory } from './connections.ts'

export interface WindowLimits {
  readonly requestsMax: number
  readonly bytesMax: number
  /** What the first answers are taken to be, where that is known; `firstAnswerBytes`. */
  readonly answerBytes?: number
}

/** Requests know what they weigh. */
export interface Sized {
  readonly bytes: number
}

/** Of the first answers of a stream: 32 of them fill a window of 8 MiB. */
export const firstAnswerBytes = 256 * 1024
/** What each smaller answer leaves of the weight that a larger one gives to the requests after it. */
const fading = 7 / 8

interface Slot {
  readonly requestBytes: number
  /** What it weighs now. */
  bytes: number
  response: Answer | null
}

/** An error ends the stream with its status in its turn: what came before it is answered, what comes after it is not. */
type Answer = Buffer | Error

export class OrderedWindow<Request extends Sized> {
  private readonly stream: ServerDuplexStream<Request, Buffer>
  private readonly limits: WindowLimits
  private readonly memory: CallMemory
  private readonly answer: (request: Request) => Promise<Answer> | Answer
  /** Oldest first; those before `head` have left, those before `next` are written. */
  private slots: Slot[] = []
  private head = 0
  private next = 0
  private bytes = 0
  private expectedBytes: number
  private isPaused = false
  private isBlocked = false
  private isEnding = false
  private isOver = false
  private endError: Error | null = null

  /** `answer` is called in the order of the requests and never rejects: an error is a response too. */
  constructor(
    stream: ServerDuplexStream<Request, Buffer>,
    limits: WindowLimits,
    memory: CallMemory,
    answer: (request: Request) => Promise<Answer> | Answer,
  ) {
    this.stream = stream
    this.limits = limits
    this.memory = memory
    this.answer = answer
    this.expectedBytes = limits.answerBytes ?? firstAnswerBytes
    stream.on('data', (request: Request) => this.accept(request))
    stream.on('end', () => this.finish())
    stream.on('drain', () => {
      this.isBlocked = false
      this.flush()
    })
  }

  get requestsInFlight(): number {
    return this.slots.length - this.head
  }

  /** Begins nothing more, answers what was begun, then ends the stream: with `error`, where there is one. */
  finish(error: Error | null = null): void {
    this.isEnding = true
    this.endError ??= error
    this.flush()
  }

  /** The client is gone: nothing is written any more. */
  abandon(): void {
    this.isOver = true
    this.slots = []
    this.head = 0
    this.next = 0
  }

  private accept(request: Request): void {
    if (this.isEnding || this.isOver) return
    const requestBytes = request.bytes
    const slot: Slot = { requestBytes, bytes: Math.max(requestBytes, this.expectedBytes), response: null }
    this.slots.push(slot)
    this.bytes += slot.bytes
    this.memory.handOver()
    this.memory.add(requestBytes)
    const answered = this.answer(request)
    if (answered instanceof Promise) void answered.then(response => this.fill(slot, response))
    else this.fill(slot, answered)
    if (!this.isPaused && !this.hasRoom()) {
      this.isPaused = true
      this.stream.pause()
    }
  }

  private fill(slot: Slot, response: Answer): void {
    const bytes = response instanceof Error ? 0 : response.byteLength
    this.expectedBytes = Math.max(bytes, this.expectedBytes * fading)
    slot.response = response
    this.memory.add(bytes)
    this.bytes -= slot.bytes
    slot.bytes = slot.requestBytes + bytes
    this.bytes += slot.bytes
    if (this.slots[this.next] === slot) this.flush()
  }

  private flush(): void {
    if (this.isOver) return
    while (!this.isBlocked && this.next < this.slots.length) {
      const slot = this.slots[this.next]!
      if (slot.response === null) break
      if (slot.response instanceof Error) {
        this.endError ??= slot.response
        this.isEnding = true
        this.slots.length = this.next
        break
      }
      this.next++
      this.isBlocked = !this.stream.write(slot.response, this.onSent)
    }
    if (this.isEnding && this.requestsInFlight === 0) this.end()
  }

  /** The stream itself takes 16 answers of any size before it says that it is blocked: they count until they are sent. */
  private readonly onSent = (): void => {
    if (this.isOver || this.head === this.next) return
    const slot = this.slots[this.head++]!
    this.bytes -= slot.bytes
    this.memory.add(-slot.bytes)
    // Not a shift an answer: that would move the whole window each time.
    if (this.head === this.slots.length || this.head > this.limits.requestsMax) {
      this.slots.splice(0, this.head)
      this.next -= this.head
      this.head = 0
    }
    if (this.isPaused && this.hasRoom()) {
      this.isPaused = false
      this.stream.resume()
    }
    if (this.isEnding && this.requestsInFlight === 0) this.end()
  }

  private end(): void {
    this.isOver = true
    if (this.endError === null) this.stream.end()
    else this.stream.emit('error', this.endError)
  }

  private hasRoom(): boolean {
    return this.requestsInFlight < this.limits.requestsMax && this.bytes < this.limits.bytesMax
  }
}
