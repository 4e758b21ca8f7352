/**
 * One call of a connection that is served here: its side of flow control, and what it has to say as far as the windows let
 * it.
 */
import { Fifo } from '../lib/fifo.ts'
import type { Connection } from './connection.ts'
import { ConnectionError, errorCodes, framePayloadMax, windowBytesMax } from './frame.ts'
import type { HeaderList } from './hpack.ts'

/** Who is told what comes: at a server the request, at a client the answer. */
export interface StreamReceiver {
  /** Of an answer: headers, and trailers. */
  headers?(list: HeaderList): void
  /** A part; a view of what was read from the socket. */
  data(bytes: Buffer): void
  /** That was all. */
  complete(): void
  /** All that we had to say is with the system. */
  taken?(): void
  /** Once: both sides are at their end, or the call was cut: by a reset, or with the connection. */
  closed(wasCut: boolean): void
}

const nobody: StreamReceiver = { data: () => {}, complete: () => {}, closed: () => {} }

const noBytes = new Uint8Array()

interface Unsent {
  bytes: Uint8Array
  readonly onTaken: (() => void) | undefined
}

export class Stream {
  readonly id: number
  private readonly connection: Connection
  private receiver: StreamReceiver = nobody
  private sendWindow: number
  private receiveWindow: number
  /** Read, and not yet told to the other side. */
  private credit = 0
  private isHeld = false
  /** What the windows do not let through. */
  private readonly unsent = new Fifo<Unsent>()
  private trailers: Uint8Array | null = null
  private isFinished = false
  private hasHeaders = false
  private isRemoteOver: boolean
  /** All is said: the last frame is on its way. */
  private isLocalOver = false
  /** The system has it. */
  private isLocalTaken = false
  private isClosed = false
  private hasToldEnd = false

  /** `isRemoteOver`: its headers are all that comes. */
  constructor(
    connection: Connection,
    id: number,
    sendWindow: number,
    receiveWindow: number,
    isRemoteOver: boolean,
  ) {
    this.connection = connection
    this.id = id
    this.sendWindow = sendWindow
    this.receiveWindow = receiveWindow
    this.isRemoteOver = isRemoteOver
  }

  /** Nothing that is said reaches the caller any more. */
  get isOver(): boolean {
    return this.isClosed || this.isLocalOver
  }

  get isAnswered(): boolean {
    return this.hasHeaders
  }

  serve(receiver: StreamReceiver): void {
    this.receiver = receiver
    // It was reset as it began.
    if (this.hasToldEnd) receiver.closed(true)
    else if (this.isRemoteOver && !this.isClosed) receiver.complete()
  }

  /** The headers of the answer; `isLast`: all of it. */
  respond(block: Uint8Array, isLast = false): void {
    if (this.isOver || this.hasHeaders) return
    this.hasHeaders = true
    this.connection.headers(this.id, block, isLast)
    if (isLast) this.localOver()
  }

  /** What it holds must not change afterwards. `onTaken` is run when the system has it, or never. */
  write(bytes: Uint8Array, onTaken?: () => void): void {
    if (this.isOver || this.isFinished) return
    const sent = this.unsent.length === 0 ? this.sendNow(bytes) : 0
    if (sent < bytes.byteLength) {
      this.unsent.push({ bytes: bytes.subarray(sent), onTaken })
      this.connection.block(this)
    } else if (onTaken !== undefined) this.connection.whenWritten(onTaken)
  }

  /** Nothing more is written. A request ends without trailers. */
  finish(trailers: Uint8Array | null): void {
    if (this.isOver || this.isFinished) return
    this.isFinished = true
    this.trailers = trailers
    if (this.unsent.length === 0) this.sendEnd()
  }

  /** What comes is not counted as read until `release`: the caller's window closes. */
  hold(): void {
    this.isHeld = true
  }

  release(): void {
    this.isHeld = false
    this.tellCredit()
  }

  reset(code: number): void {
    if (this.isClosed) return
    this.connection.resetStream(this.id, code)
    this.close(true)
  }

  // What the connection tells it.

  received(frameBytes: number, bytes: Buffer, isLast: boolean): void {
    // To end only the call would let its maker begin as many more as he likes.
    if (this.isRemoteOver) throw new ConnectionError(errorCodes.streamClosed, 'data after the end of a call')
    this.receiveWindow -= frameBytes
    this.credit += frameBytes
    if (this.receiveWindow < 0)
      throw new ConnectionError(errorCodes.flowControl, 'more than the window of a call')
    if (bytes.byteLength > 0 && this.isWanted) this.receiver.data(bytes)
    if (isLast) this.remoteOver()
    this.tellCredit()
  }

  headed(list: HeaderList): void {
    if (this.isRemoteOver)
      throw new ConnectionError(errorCodes.streamClosed, 'headers after the end of a call')
    this.receiver.headers?.(list)
  }

  remoteOver(): void {
    if (this.isRemoteOver || this.isClosed) return
    this.isRemoteOver = true
    if (this.isWanted) this.receiver.complete()
    this.forgetIfDone()
  }

  grow(bytes: number): void {
    this.sendWindow += bytes
    if (this.sendWindow > windowBytesMax)
      throw new ConnectionError(errorCodes.flowControl, 'a window that is too large')
  }

  /** Says a frame more, if there is one and it may; true: there would be more to say if the connection's window were larger. */
  pump(): boolean {
    const next = this.unsent.first
    if (next === undefined || this.isOver) return false
    const sent = this.sendNow(next.bytes, framePayloadMax)
    if (sent < next.bytes.byteLength) next.bytes = next.bytes.subarray(sent)
    else {
      this.unsent.shift()
      if (next.onTaken !== undefined) this.connection.whenWritten(next.onTaken)
    }
    if (this.unsent.length === 0 && this.isFinished) this.sendEnd()
    return this.unsent.length > 0 && this.sendWindow > 0
  }

  close(wasCut: boolean): void {
    this.isClosed = true
    this.unsent.clear()
    this.connection.forget(this)
    this.tellEnd(wasCut)
  }

  /** What comes of a request that was answered already is read, and nobody is told. */
  private get isWanted(): boolean {
    return !this.isLocalOver || !this.connection.isServer
  }

  /** As much as the windows let through, at most `max`; how much that was. */
  private sendNow(bytes: Uint8Array, max = Number.POSITIVE_INFINITY): number {
    let sent = 0
    const end = Math.min(bytes.byteLength, max)
    while (sent < end) {
      const length = Math.min(end - sent, framePayloadMax, this.sendWindow, this.connection.sendWindow)
      if (length <= 0) break
      this.connection.data(this.id, bytes.subarray(sent, sent + length), false)
      this.sendWindow -= length
      sent += length
    }
    return sent
  }

  private sendEnd(): void {
    if (this.trailers === null) this.connection.data(this.id, noBytes, true)
    else this.connection.headers(this.id, this.trailers, true)
    this.localOver()
  }

  private localOver(): void {
    this.isLocalOver = true
    this.connection.whenTaken(this, () => {
      if (this.hasToldEnd) return
      this.isLocalTaken = true
      this.receiver.taken?.()
      if (this.isClosed) this.tellEnd(false)
    })
    this.forgetIfDone()
    this.connection.endIfDrained()
  }

  /**
   * Its place is free when both sides have said all, as the other side counts; the receiver hears when ours has left. So one
   * that was answered early keeps it: what was begun for it may be at work still.
   */
  private forgetIfDone(): void {
    if (this.isClosed || !this.isLocalOver || !this.isRemoteOver) return
    this.isClosed = true
    this.connection.forget(this)
    if (this.isLocalTaken) this.tellEnd(false)
  }

  private tellEnd(wasCut: boolean): void {
    if (this.hasToldEnd) return
    this.hasToldEnd = true
    this.receiver.closed(wasCut)
  }

  private tellCredit(): void {
    if (this.isHeld || this.isClosed || this.isRemoteOver) return
    if (this.credit < this.connection.creditBytesMin) return
    this.receiveWindow += this.credit
    this.connection.windowUpdate(this.id, this.credit)
    this.credit = 0
  }
}
