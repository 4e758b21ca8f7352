/**
 * A client's connection to one node for calls of gRPC, on src/http2: what the client takes of the machine is not the nodes'.
 * It dials when it is first needed, and again, not more often than every `redialMs`, when it broke; what is asked in between
 * fails at once.
 */
import type { Socket } from 'node:net'
import type { ChannelCredentials } from '@grpc/grpc-js'
import { ClientConnection } from '../http2/client-connection.ts'
import { errorCodes } from '../http2/frame.ts'
import { requestBlock, statusIn } from '../http2/grpc-call.ts'
import { type HeaderList, headerOf } from '../http2/hpack.ts'
import type { Stream, StreamReceiver } from '../http2/stream.ts'
import { dial } from '../lib/dial.ts'
import { grpcFrame } from '../lib/grpc-frame.ts'
import { GrpcReader } from '../lib/grpc-reader.ts'

/** Answers that may come before they are read. */
const receiveWindowBytes = 4 * 2 ** 20
const answerBytesMax = 32 * 2 ** 20
const redialMs = 100
const dialMs = 10_000

/** Each message of the answer; at the end null, or what went wrong. */
export interface Receiver {
  message(bytes: Buffer): void
  end(failure: string | null): void
}

/** A call that is under way. */
export interface WireCall {
  send(message: Uint8Array): void
  /** The request is complete. */
  finish(): void
  /** Nothing of it is told any more. */
  cancel(): void
}

export class Wire {
  private readonly address: string
  private readonly credentials: ChannelCredentials
  private readonly blocks = new Map<string, Buffer>()
  private connection: ClientConnection | null = null
  /** Until the server has spoken. */
  private cancelDial: (() => void) | null = null
  private failure = ''
  private failedAtMs = Number.NEGATIVE_INFINITY
  /** Wait for the connection, or for room on it. */
  private readonly waiting = new Set<Call>()
  private isClosed = false

  constructor(address: string, credentials: ChannelCredentials) {
    this.address = address
    this.credentials = credentials
  }

  call(path: string, receiver: Receiver): WireCall {
    const call = new Call(this.blockOf(path), receiver, () => this.admit(), this.waiting)
    if (this.isClosed) call.fail('closed')
    else if (this.connection === null && this.cancelDial === null && !this.mayDial()) call.fail(this.failure)
    else {
      if (this.connection === null && this.cancelDial === null) this.dial()
      this.waiting.add(call)
      this.admit()
    }
    return call
  }

  close(): void {
    this.isClosed = true
    this.cancelDial?.()
    this.lose('closed')
    this.connection?.destroy(errorCodes.none)
  }

  private blockOf(path: string): Buffer {
    let block = this.blocks.get(path)
    if (block === undefined) {
      block = requestBlock(path, this.address, this.credentials._isSecure())
      this.blocks.set(path, block)
    }
    return block
  }

  private mayDial(): boolean {
    return performance.now() - this.failedAtMs >= redialMs
  }

  private dial(): void {
    const giveUp = dial(this.address, this.credentials, (error, socket) => {
      if (error === null) this.opened(socket!, timer)
      else {
        clearTimeout(timer)
        this.cancelDial = null
        this.lose(`UNAVAILABLE: ${error.message}`)
      }
    })
    const timer = setTimeout(() => {
      this.cancelDial?.()
      this.lose(`UNAVAILABLE: no word of HTTP/2 within ${dialMs} ms`)
    }, dialMs)
    this.cancelDial = () => {
      clearTimeout(timer)
      this.cancelDial = null
      giveUp()
    }
  }

  private opened(socket: Socket, timer: NodeJS.Timeout): void {
    const connection = new ClientConnection(socket, {
      receiveWindowBytes,
      onSettings: () => {
        clearTimeout(timer)
        this.cancelDial = null
        this.connection = connection
        this.admit()
      },
      onClosed: why => {
        clearTimeout(timer)
        this.cancelDial = null
        this.connection = null
        this.lose(`UNAVAILABLE: ${why ?? 'the connection broke'}`)
      },
    })
    this.cancelDial = () => {
      clearTimeout(timer)
      this.cancelDial = null
      connection.destroy(errorCodes.none)
    }
  }

  private lose(why: string): void {
    this.failure = why
    this.failedAtMs = performance.now()
    for (const call of [...this.waiting]) call.fail(why)
    this.waiting.clear()
  }

  private admit(): void {
    for (const call of this.waiting) {
      if ((this.connection?.room ?? 0) <= 0) return
      this.waiting.delete(call)
      call.begin(this.connection!)
    }
  }
}

class Call implements WireCall, StreamReceiver {
  private readonly block: Buffer
  private readonly receiver: Receiver
  private readonly onRoom: () => void
  private readonly waiting: Set<Call>
  private readonly reader = new GrpcReader(answerBytesMax, () => new Error('an answer that can’t be read'))
  private stream: Stream | null = null
  /** Said before it began. */
  private early: Uint8Array[] = []
  private isFinished = false
  private isOver = false
  private status: string | null = 'UNKNOWN: an answer without a status'

  constructor(block: Buffer, receiver: Receiver, onRoom: () => void, waiting: Set<Call>) {
    this.block = block
    this.receiver = receiver
    this.onRoom = onRoom
    this.waiting = waiting
  }

  begin(connection: ClientConnection): void {
    this.stream = connection.request(this.block, this)
    for (const message of this.early) this.send(message)
    this.early = []
    if (this.isFinished) this.stream!.finish(null)
  }

  send(message: Uint8Array): void {
    if (this.stream === null) this.early.push(message)
    else this.stream.write(grpcFrame(message))
  }

  finish(): void {
    this.isFinished = true
    this.stream?.finish(null)
  }

  cancel(): void {
    this.isOver = true
    this.waiting.delete(this)
    this.stream?.reset(errorCodes.cancel)
  }

  fail(why: string): void {
    if (this.isOver) return
    this.isOver = true
    this.receiver.end(why)
  }

  headers(list: HeaderList): void {
    const status = statusIn(list)
    if (status !== null) this.status = status.name === 'OK' ? null : `${status.name}: ${status.text}`
    else if (headerOf(list, ':status') !== '200') this.status = `HTTP ${headerOf(list, ':status')}`
  }

  data(bytes: Buffer): void {
    if (this.isOver) return
    this.reader.push(bytes)
    try {
      for (let next = this.reader.next(); next !== null; next = this.reader.next()) {
        this.receiver.message(next)
        if (this.isOver) return
      }
    } catch (error) {
      this.fail(String(error))
      this.cancel()
    }
  }

  complete(): void {
    if (!this.isOver) {
      this.isOver = true
      this.receiver.end(this.status)
    }
    // What the server did not wait for need not be said.
    if (this.stream?.isOver === false) this.stream.reset(errorCodes.none)
  }

  closed(wasCut: boolean): void {
    if (wasCut) this.fail('UNAVAILABLE: the connection broke')
    this.onRoom()
  }
}
