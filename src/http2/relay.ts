/**
 * Calls of a connection that are served by a session of node:http2 behind it: the same calls by the same numbers, as the
 * caller sent them. To that session this is a socket with a caller of few needs: no table of headers, a window of the
 * connection that is never at its end (that of the real connection is kept here), nothing but calls.
 *
 *   caller ⇄ ServerConnection ─ headers, data, resets, windows of calls ─▶ node:http2 ⇄ grpc-js
 *                             ◀─ the same ─
 */
import { Duplex } from 'node:stream'
import { Fifo } from '../lib/fifo.ts'
import type { Blocked } from './connection.ts'
import {
  ConnectionError,
  encodeFrame,
  encodeHeaderFrames,
  encodeSettings,
  encodeUint32,
  errorCodes,
  FrameReader,
  flags,
  frameHeaderBytes,
  frameTypes,
  initialWindowBytes,
  preface,
  settings,
  windowBytesMax,
} from './frame.ts'
import { encodeHeaders, type HeaderList } from './hpack.ts'
import type { ServerConnection } from './server-connection.ts'

/** Answers that wait for the connection's window. Beyond it the session's writes are not taken any more. */
const queuedBytesMax = 256 * 1024
/** What the session has not read, beside data; each piece weighs more than its bytes. */
const unreadWeightMax = 8 * 1024 * 1024
const pieceWeight = 128

/** Resets and farewells for what the caller did: he broke the rules. All others are of the session alone. */
const faultsOfCallers: ReadonlySet<number> = new Set([
  errorCodes.protocol,
  errorCodes.flowControl,
  errorCodes.streamClosed,
  errorCodes.frameSize,
  errorCodes.compression,
  errorCodes.enhanceYourCalm,
])

interface Sides {
  isRequestOver: boolean
  isAnswerOver: boolean
}

/** What the session says of a call; of headers the block, of a reset its code. */
interface Said {
  readonly what: 'headers' | 'data' | 'reset' | 'settled'
  readonly stream: number
  readonly bytes: Buffer
  /** Of the answer. */
  readonly isLast: boolean
}

const noBytes = Buffer.alloc(0)

export class Relay implements Blocked {
  private readonly connection: ServerConnection
  private readonly reader = new FrameReader()
  private readonly open = new Map<number, Sides>()
  private readonly inner: Duplex
  /** Headers that are not whole yet. */
  private block: Said | null = null
  /** In order: data that the window holds back, and what came after it. */
  private readonly queue = new Fifo<Said>()
  private queuedBytes = 0
  private taken: (() => void) | null = null
  private isClosed = false
  /** Our settings at its beginning are acknowledged. */
  private isBegun = false
  /** The session is gone; what it said is still to leave. */
  private isInnerGone = false
  /** Data that the session has not read: while it waits for the caller to read, it reads nothing at all. */
  private unreadBytes = 0
  private unreadWeight = 0

  constructor(connection: ServerConnection, start: (inner: Duplex) => void, streamWindow: number) {
    this.connection = connection
    this.inner = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, callback) => this.take(chunk, callback),
      final: callback => {
        callback()
        this.inner.destroy()
      },
      destroy: (error, callback) => {
        callback(error)
        this.ended()
      },
    })
    this.inner.on('error', () => {})
    // Whoever reads it begins when he is ready.
    this.inner.pause()
    start(this.inner)
    this.inner.on('data', (chunk: Buffer) => this.read(chunk))
    this.push(preface)
    this.push(
      encodeSettings([
        [settings.headerTableSize, 0],
        [settings.enablePush, 0],
        [settings.initialWindowSize, streamWindow],
      ]),
    )
    this.push(encodeFrame(frameTypes.windowUpdate, 0, 0, encodeUint32(windowBytesMax - initialWindowBytes)))
  }

  get streams(): number {
    return this.open.size
  }

  has(stream: number): boolean {
    return this.open.has(stream)
  }

  begin(stream: number, list: HeaderList, isLast: boolean): void {
    this.open.set(stream, { isRequestOver: false, isAnswerOver: false })
    this.headers(stream, list, isLast)
  }

  headers(stream: number, list: HeaderList, isLast: boolean): void {
    this.push(encodeHeaderFrames(stream, encodeHeaders(list), isLast))
    if (isLast) this.requestOver(stream)
  }

  /** A frame of the caller, of a call that is open here. */
  forward(stream: number, frame: Buffer, isLast: boolean): void {
    this.unreadBytes += dataBytes(frame)
    if (this.isInnerGone) this.readAll()
    this.push(frame)
    if (isLast) this.requestOver(stream)
  }

  reset(stream: number, frame: Buffer): void {
    this.push(frame)
    this.forget(stream)
  }

  /** The caller's window of each call is another. */
  resize(streamWindow: number): void {
    this.push(encodeSettings([[settings.initialWindowSize, streamWindow]]))
  }

  /** No call can be begun on it. */
  get isEnding(): boolean {
    return this.isInnerGone
  }

  pump(): boolean {
    const said = this.queue.first
    if (said === undefined) return false
    const rest = this.send(said)
    this.queuedBytes -= said.bytes.byteLength - (rest?.bytes.byteLength ?? 0)
    if (rest === null) this.queue.shift()
    else this.queue.replace(rest)
    if (this.queuedBytes <= queuedBytesMax) {
      const { taken } = this
      this.taken = null
      taken?.()
    }
    this.endIfSaid()
    return this.queue.length > 0
  }

  close(): void {
    this.isClosed = true
    this.open.clear()
    this.queue.clear()
    this.inner.destroy()
  }

  private push(bytes: Buffer): void {
    if (this.isClosed || this.isInnerGone) return
    this.unreadWeight += bytes.byteLength - dataBytes(bytes) + pieceWeight
    this.inner.push(bytes)
    // While it does not read, the caller's data is bounded by its windows, and the rest by this.
    if (this.unreadWeight > unreadWeightMax)
      this.connection.fail(new ConnectionError(errorCodes.enhanceYourCalm, 'more than is read'))
  }

  private read(chunk: Buffer): void {
    const bytes = dataBytes(chunk)
    this.unreadWeight -= chunk.byteLength - bytes + pieceWeight
    this.unreadBytes -= bytes
    this.connection.consumed(bytes)
  }

  /** Nobody reads it any more. */
  private readAll(): void {
    this.connection.consumed(this.unreadBytes)
    this.unreadBytes = 0
  }

  /** What the session says. */
  private take(chunk: Buffer, callback: () => void): void {
    this.reader.read(chunk, this.takeFrame)
    if (this.queuedBytes > queuedBytesMax) this.taken = callback
    else callback()
  }

  private readonly takeFrame = (frame: Buffer): void => {
    if (this.isClosed) return
    const flag = frame[4]!
    const isAck = (flag & flags.ack) !== 0
    const isLast = (flag & flags.endStream) !== 0
    const stream = frame.readUInt32BE(5)
    const payload = frame.subarray(frameHeaderBytes)
    switch (frame[3]) {
      case frameTypes.settings:
        if (!isAck) this.push(encodeFrame(frameTypes.settings, flags.ack, 0, noBytes))
        else if (this.isBegun) this.say({ what: 'settled', stream, bytes: noBytes, isLast: false })
        else this.isBegun = true
        return
      case frameTypes.ping:
        if (!isAck) this.push(encodeFrame(frameTypes.ping, flags.ack, 0, payload))
        return
      case frameTypes.windowUpdate:
        // That of the connection is kept there.
        if (stream !== 0 && this.open.has(stream))
          this.connection.windowUpdate(stream, payload.readUInt32BE(0))
        return
      case frameTypes.data:
        this.say({ what: 'data', stream, bytes: payload, isLast })
        return
      case frameTypes.headers:
        this.block = { what: 'headers', stream, bytes: payload, isLast }
        this.blockEnd(flag)
        return
      case frameTypes.continuation:
        this.block = { ...this.block!, bytes: Buffer.concat([this.block!.bytes, payload]) }
        this.blockEnd(flag)
        return
      case frameTypes.reset:
        this.say({ what: 'reset', stream, bytes: payload, isLast: true })
        return
      case frameTypes.goAway: {
        // That of one that is stopped is of this session alone; what is wrong is what the caller did.
        const code = payload.readUInt32BE(4)
        if (faultsOfCallers.has(code))
          this.connection.fail(new ConnectionError(code, 'what node:http2 refuses'))
        return
      }
      default:
    }
  }

  /** Headers leave whole: nothing else may stand between their frames. */
  private blockEnd(flag: number): void {
    if ((flag & flags.endHeaders) !== 0) this.say(this.block!)
  }

  private say(said: Said): void {
    const rest = this.queue.length > 0 ? said : this.send(said)
    if (rest === null) return
    this.queue.push(rest)
    this.queuedBytes += rest.bytes.byteLength
    this.connection.block(this)
  }

  /** Sends what may be sent; what is left of it, or null. */
  private send(said: Said): Said | null {
    const { what, stream, bytes, isLast } = said
    if (what === 'settled') {
      this.connection.relaySettled()
      return null
    }
    const sides = this.open.get(stream)
    // The caller took the call back meanwhile.
    if (sides === undefined) return null
    const { connection } = this
    switch (what) {
      case 'reset':
        connection.resetStream(stream, bytes.readUInt32BE(0))
        this.forget(stream)
        if (faultsOfCallers.has(bytes.readUInt32BE(0))) connection.relayBrokeOff()
        return null
      case 'headers':
        connection.headers(stream, bytes, isLast)
        break
      case 'data': {
        const may = Math.max(0, connection.sendWindow)
        if (bytes.byteLength > may) {
          if (may > 0) connection.data(stream, bytes.subarray(0, may), false)
          return { ...said, bytes: bytes.subarray(may) }
        }
        connection.data(stream, bytes, isLast)
      }
    }
    if (isLast) {
      sides.isAnswerOver = true
      this.forgetIfDone(stream, sides)
    }
    return null
  }

  private requestOver(stream: number): void {
    const sides = this.open.get(stream)
    if (sides === undefined) return
    sides.isRequestOver = true
    this.forgetIfDone(stream, sides)
  }

  private forgetIfDone(stream: number, { isRequestOver, isAnswerOver }: Sides): void {
    if (isRequestOver && isAnswerOver) this.forget(stream)
  }

  private forget(stream: number): void {
    if (this.open.delete(stream)) this.connection.relayForgot()
  }

  /** The session is gone. What it had said leaves; calls that it had not answered to their end are over. */
  private ended(): void {
    if (this.isClosed || this.isInnerGone) return
    this.isInnerGone = true
    this.readAll()
    const answered = new Set<number>()
    for (const { stream, isLast } of this.queue) if (isLast) answered.add(stream)
    for (const stream of [...this.open.keys()]) {
      if (answered.has(stream)) continue
      this.connection.resetStream(stream, errorCodes.cancel)
      this.forget(stream)
    }
    this.endIfSaid()
  }

  private endIfSaid(): void {
    if (!this.isInnerGone || this.isClosed || this.queue.length > 0) return
    this.isClosed = true
    this.connection.relayEnded()
  }
}

/** As the connection's window counts them. */
function dataBytes(frame: Buffer): number {
  return frame[3] === frameTypes.data ? frame.byteLength - frameHeaderBytes : 0
}
