/**
 * One HTTP/2 connection (RFC 9113), by hand because of what node:http2 costs a call: a dozen objects, listeners and native
 * calls, which was half of what a write cost its leader. Here a call is an object, and all that a turn of the event loop
 * has to say is one write.
 *
 * What both sides share: frames, settings, pings, windows, the table of headers, resets. Who begins calls is the difference:
 * server-connection.ts, client-connection.ts.
 *
 * Memory: what comes is bounded by our windows, and counted by who serves; what goes by who serves. What the other side makes
 * us say besides is bounded by `echoesMax`: beyond that nothing more is read until it has read those.
 */
import type { Duplex } from 'node:stream'
import {
  ConnectionError,
  encodeHeaderFrames,
  encodeUint32,
  errorCodes,
  FrameReader,
  flags,
  frameHeaderBytes,
  framePayloadMax,
  frameTypes,
  initialWindowBytes,
  settings,
  windowBytesMax,
} from './frame.ts'
import { HeaderDecoder, type HeaderList, noTable } from './hpack.ts'
import { Output } from './output.ts'
import type { Stream } from './stream.ts'

export interface ConnectionOptions {
  /** What the other side may send before it is read: on the connection, and on each call. Bytes. */
  readonly receiveWindowBytes: number
  /** The other side has shown that it speaks HTTP/2. */
  readonly onSettings: () => void
  /** Once, when nothing can be said any more; why, where the other side broke the protocol or the socket failed. */
  readonly onClosed: (why: string | null) => void
}

/** Names, values and 32 bytes a field: as node:http2 has it. */
export const headerListBytesMax = 65_535
/** A block of headers as it comes, and its frames: without this CONTINUATION would go on for ever. */
const headerBlockBytesMax = 65_535
const continuationsMax = 16
/** Answers to pings and settings, and refusals, that the system has not taken. */
const echoesMax = 10_000
/** Said and not yet taken by the system: beyond it data waits, whatever the windows say. */
const untakenBytesMax = 1024 * 1024
/** What may pass until a farewell is with the caller. */
const farewellMs = 500
/** Calls taken back and changes of settings: as many at once, and as many a second after that; as nghttp2 has it. */
const changesBurst = 1000
const changesPerSecond = 33

interface Continued {
  readonly stream: number
  readonly flag: number
  readonly parts: Buffer[]
  bytes: number
}

/** Has more to say than may be said. */
export interface Blocked {
  /** Says a frame more; true: there would be more to say if the connection let it. */
  pump(): boolean
}

export abstract class Connection {
  abstract readonly isServer: boolean
  readonly socket: Duplex
  protected readonly output: Output
  protected readonly streams = new Map<number, Stream>()
  /** The last call that was begun. */
  protected lastStream = 0
  /** The last one that was not refused because the connection is at its end. */
  protected lastServed = 0
  /** What a call may send before the other side has read it. */
  protected streamWindow = initialWindowBytes
  /** Calls that the other side takes at a time. */
  protected remoteStreamsMax = Number.POSITIVE_INFINITY
  protected isDraining = false
  protected isClosed = false
  private readonly options: ConnectionOptions
  private readonly reader = new FrameReader()
  private readonly decoder = new HeaderDecoder({ listBytesMax: headerListBytesMax })
  private hasSettings = false
  /** Their last words are on their way. */
  private readonly ending = new Set<Stream>()
  private readonly blocked = new Set<Blocked>()
  private continued: Continued | null = null
  /** What we may still send, and the other side. */
  private window = initialWindowBytes
  private receiveWindow: number
  private credit = 0
  /** What the other side asked for last as the window of a call. */
  private askedWindow = initialWindowBytes
  /** It said how large a table we may use: that we use none is said with the next headers. */
  private mustSayNoTable = false
  private echoes = 0
  private changesLeft = changesBurst
  private changedAtMs = performance.now()
  private hasHeard = true
  private silentTicks = 0

  constructor(socket: Duplex, options: ConnectionOptions) {
    this.socket = socket
    this.options = options
    this.output = new Output(socket, () => this.pump())
    this.receiveWindow = options.receiveWindowBytes
    let failure: string | null = null
    socket.on('data', (bytes: Buffer) => this.take(bytes))
    socket.on('end', () => this.socket.destroy())
    socket.on('error', error => {
      failure = error.message
    })
    socket.on('close', () => this.close(failure))
  }

  get receiveWindowBytes(): number {
    return this.options.receiveWindowBytes
  }

  /** Calls that are open. */
  get openStreams(): number {
    return this.streams.size
  }

  /** Calls of which the answer is not whole: what a server still has to say, and a client to hear. */
  protected get unanswered(): number {
    if (!this.isServer) return this.streams.size
    let count = 0
    for (const stream of this.streams.values()) if (!stream.isOver) count++
    return count
  }

  /** What is read and not told to the other side is told from here on. */
  get creditBytesMin(): number {
    return this.options.receiveWindowBytes / 2
  }

  /** What may be said now. */
  get sendWindow(): number {
    return Math.min(this.window, untakenBytesMax - this.output.untakenBytes)
  }

  /** Serves what was begun and nothing more, then ends. */
  drain(): void {
    if (this.isDraining || this.isClosed) return
    this.isDraining = true
    this.goAway(errorCodes.none)
    this.endIfDrained()
  }

  /** Cuts it. */
  destroy(code: number): void {
    if (this.isClosed) return
    this.goAway(code)
    this.output.flush()
    this.socket.destroy()
    this.close(null)
  }

  /**
   * To be called in even steps: a connection that was silent for a whole one is asked whether it is there, and cut after the
   * next one.
   */
  tick(): void {
    if (this.hasHeard) {
      this.hasHeard = false
      this.silentTicks = 0
      return
    }
    this.silentTicks++
    this.output.rest()
    if (this.silentTicks === 1) this.output.frame(frameTypes.ping, 0, 0, Buffer.alloc(8))
    else if (this.silentTicks === 2) this.socket.destroy()
  }

  // For streams and the relay.

  headers(stream: number, block: Uint8Array, isLast: boolean): void {
    let whole = block
    if (this.mustSayNoTable) {
      this.mustSayNoTable = false
      whole = Buffer.concat([noTable, block])
    }
    if (whole.byteLength <= framePayloadMax) {
      const flag = flags.endHeaders | (isLast ? flags.endStream : 0)
      this.output.frame(frameTypes.headers, flag, stream, whole)
    } else this.output.frames(encodeHeaderFrames(stream, whole, isLast))
  }

  /** At most a frame, and within the window. */
  data(stream: number, bytes: Uint8Array, isLast: boolean): void {
    this.window -= bytes.byteLength
    this.output.frame(frameTypes.data, isLast ? flags.endStream : 0, stream, bytes)
  }

  windowUpdate(stream: number, bytes: number): void {
    this.output.frame(frameTypes.windowUpdate, 0, stream, encodeUint32(bytes))
  }

  resetStream(stream: number, code: number): void {
    this.output.frame(frameTypes.reset, 0, stream, encodeUint32(code))
  }

  /** `run` when the system has the last that the stream has to say; else the stream is closed with the connection. */
  whenTaken(stream: Stream, run: () => void): void {
    this.ending.add(stream)
    this.output.whenTaken(() => {
      this.ending.delete(stream)
      run()
    })
  }

  whenWritten(run: () => void): void {
    this.output.whenTaken(run)
  }

  block(blocked: Blocked): void {
    this.blocked.add(blocked)
  }

  forget(stream: Stream): void {
    this.streams.delete(stream.id)
    this.blocked.delete(stream)
    this.endIfDrained()
  }

  /** So much of what the connection received is read. */
  consumed(bytes: number): void {
    this.credit += bytes
    if (this.credit < this.creditBytesMin || this.isClosed) return
    this.receiveWindow += this.credit
    this.windowUpdate(0, this.credit)
    this.credit = 0
  }

  // What is different on both sides.

  /** What comes before the first frame; what is left of the chunk. */
  protected takePreface(chunk: Buffer): Buffer {
    return chunk
  }

  /** Headers of a call that is not open here. */
  protected abstract takeNew(stream: number, headers: HeaderList, isLast: boolean): void

  /** Headers of one that is. */
  protected abstract takeKnown(stream: Stream, headers: HeaderList, isLast: boolean): void

  /** Headers that are longer than we said we take. */
  protected abstract takeTooLong(stream: number): void

  /** A frame of a call that is not open here; false: nobody knows it. Whoever takes data says when it is read. */
  protected takeOther(_stream: number, _frame: Buffer, _isLast: boolean): boolean {
    return false
  }

  /** What a call may send is to be this; `settle` when it is. */
  protected windowAsked(window: number): void {
    this.settle(window)
  }

  protected takeGoAway(_lastStream: number, _code: number): void {}

  protected ended(): void {}

  // What comes.

  private take(chunk: Buffer): void {
    if (this.isClosed) return
    this.hasHeard = true
    try {
      const bytes = this.takePreface(chunk)
      if (bytes.byteLength > 0) this.reader.read(bytes, this.takeFrame)
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error
      this.fail(error)
      return
    }
  }

  private readonly takeFrame = (frame: Buffer): void => {
    if (this.isClosed) return
    const type = frame[3]!
    const flag = frame[4]!
    const stream = frame.readUInt32BE(5) & 0x7fffffff
    const length = frame.byteLength - frameHeaderBytes
    if (!this.hasSettings && type !== frameTypes.settings)
      throw protocol('a connection that begins without settings')
    if (this.continued !== null && type !== frameTypes.continuation)
      throw protocol('headers that were broken off')
    switch (type) {
      case frameTypes.data:
        this.takeData(stream, flag, frame)
        return
      case frameTypes.headers:
        this.takeHeaders(stream, flag, frame)
        return
      case frameTypes.priority:
        demand(stream !== 0, 'a priority of no call')
        demandLength(length === 5, 'a priority')
        return
      case frameTypes.reset:
        demandLength(length === 4, 'a reset')
        this.takeReset(stream, frame)
        return
      case frameTypes.settings:
        demand(stream === 0, 'settings of one call')
        this.takeSettings(flag, frame)
        return
      case frameTypes.pushPromise:
        throw protocol('a promise')
      case frameTypes.ping:
        demand(stream === 0, 'a ping of one call')
        demandLength(length === 8, 'a ping')
        if ((flag & flags.ack) !== 0) return
        this.output.frame(frameTypes.ping, flags.ack, 0, frame.subarray(frameHeaderBytes))
        this.echoed()
        return
      case frameTypes.goAway:
        demand(stream === 0, 'a farewell of one call')
        demandLength(length >= 8, 'a farewell')
        this.takeGoAway(
          frame.readUInt32BE(frameHeaderBytes) & 0x7fffffff,
          frame.readUInt32BE(frameHeaderBytes + 4),
        )
        return
      case frameTypes.windowUpdate:
        demandLength(length === 4, 'a window')
        this.takeWindowUpdate(stream, frame)
        return
      case frameTypes.continuation:
        this.takeContinuation(stream, flag, frame)
        return
      default:
      // Section 4.1: what is not known is ignored.
    }
  }

  private takeData(id: number, flag: number, frame: Buffer): void {
    demand(id !== 0, 'data of no call')
    const length = frame.byteLength - frameHeaderBytes
    this.receiveWindow -= length
    if (this.receiveWindow < 0)
      throw new ConnectionError(errorCodes.flowControl, 'more than the connection’s window')
    const isLast = (flag & flags.endStream) !== 0
    const stream = this.streams.get(id)
    if (stream === undefined && this.takeOther(id, frame, isLast)) return
    demand(id <= this.lastStream, 'data of a call that was not begun')
    // At once: a call that is not read shall not stand before the others. What it holds, its own window bounds.
    this.consumed(length)
    stream?.received(length, unpadded(frame, flag), isLast)
  }

  private takeHeaders(id: number, flag: number, frame: Buffer): void {
    demand(id % 2 === 1, `headers of call ${id}`)
    let block = unpadded(frame, flag)
    if ((flag & flags.priority) !== 0) {
      demandLength(block.byteLength >= 5, 'headers with a priority')
      block = block.subarray(5)
    }
    if ((flag & flags.endHeaders) !== 0) this.takeBlock(id, flag, block)
    else this.continued = { stream: id, flag, parts: [block], bytes: block.byteLength }
  }

  private takeContinuation(id: number, flag: number, frame: Buffer): void {
    const { continued } = this
    if (continued === null || continued.stream !== id) throw protocol('headers that go on and were not begun')
    const part = frame.subarray(frameHeaderBytes)
    continued.parts.push(part)
    continued.bytes += part.byteLength
    if (continued.bytes > headerBlockBytesMax || continued.parts.length > continuationsMax)
      throw new ConnectionError(errorCodes.enhanceYourCalm, `headers of over ${headerBlockBytesMax} bytes`)
    if ((flag & flags.endHeaders) === 0) return
    this.continued = null
    this.takeBlock(id, continued.flag, Buffer.concat(continued.parts, continued.bytes))
  }

  private takeBlock(id: number, flag: number, block: Buffer): void {
    // Whatever becomes of the call: the table is of the connection.
    const headers = this.decoder.decode(block)
    if (headers === null) {
      this.takeTooLong(id)
      return
    }
    const isLast = (flag & flags.endStream) !== 0
    const known = this.streams.get(id)
    if (known !== undefined) this.takeKnown(known, headers, isLast)
    else this.takeNew(id, headers, isLast)
  }

  private takeReset(id: number, frame: Buffer): void {
    demand(id !== 0 && id <= this.lastStream, 'a reset of a call that was not begun')
    // At a client every call is of its own making.
    if (this.isServer) this.changed()
    const stream = this.streams.get(id)
    if (stream !== undefined) stream.close(true)
    else this.takeOther(id, frame, true)
  }

  private takeSettings(flag: number, frame: Buffer): void {
    const length = frame.byteLength - frameHeaderBytes
    if ((flag & flags.ack) !== 0) {
      demandLength(length === 0, 'settings that are acknowledged')
      return
    }
    demandLength(length % 6 === 0, 'settings')
    this.changed()
    for (let at = frameHeaderBytes; at < frame.byteLength; at += 6)
      this.takeSetting(frame.readUInt16BE(at), frame.readUInt32BE(at + 2))
    this.windowAsked(this.askedWindow)
    this.echoed()
    if (this.hasSettings) return
    this.hasSettings = true
    this.options.onSettings()
  }

  private takeSetting(id: number, value: number): void {
    switch (id) {
      case settings.headerTableSize:
        this.mustSayNoTable = true
        return
      case settings.enablePush:
        demand(value <= 1, `a setting for pushes of ${value}`)
        return
      case settings.initialWindowSize:
        if (value > windowBytesMax)
          throw new ConnectionError(errorCodes.flowControl, `a window of ${value} bytes`)
        this.askedWindow = value
        return
      case settings.concurrentStreamsMax:
        this.remoteStreamsMax = value
        return
      case settings.frameSizeMax:
        demand(value >= framePayloadMax && value < 2 ** 24, `frames of ${value} bytes`)
        return
      default:
    }
  }

  /** Calls have this window, and the other side knows it before they use it: it counts by it from then on only. */
  protected settle(window: number): void {
    const more = window - this.streamWindow
    this.streamWindow = window
    this.output.frame(frameTypes.settings, flags.ack, 0, Buffer.alloc(0))
    if (more === 0) return
    for (const stream of this.streams.values()) {
      stream.grow(more)
      this.blocked.add(stream)
    }
    if (more > 0) this.pump()
  }

  /** Throws where the other side changes its mind too often: what it took back may be at work still. */
  protected changed(): void {
    const now = performance.now()
    const regained = ((now - this.changedAtMs) / 1000) * changesPerSecond
    this.changesLeft = Math.min(changesBurst, this.changesLeft + regained)
    this.changedAtMs = now
    if (this.changesLeft < 1)
      throw new ConnectionError(errorCodes.enhanceYourCalm, 'too many calls taken back, or settings changed')
    this.changesLeft--
  }

  private takeWindowUpdate(id: number, frame: Buffer): void {
    const bytes = frame.readUInt32BE(frameHeaderBytes) & 0x7fffffff
    demand(bytes > 0, 'a window that grows by nothing')
    if (id === 0) {
      this.window += bytes
      if (this.window > windowBytesMax)
        throw new ConnectionError(errorCodes.flowControl, 'a window that is too large')
      this.pump()
      return
    }
    const stream = this.streams.get(id)
    if (stream !== undefined) {
      stream.grow(bytes)
      this.blocked.add(stream)
      this.pump()
      return
    }
    if (!this.takeOther(id, frame, false))
      demand(id <= this.lastStream, 'a window of a call that was not begun')
  }

  /** A frame each, in turn, for as long as may be. */
  private pump(): void {
    for (const stream of this.blocked) {
      if (this.sendWindow <= 0) break
      // Those at the end of their own window come again when it grows.
      this.blocked.delete(stream)
      if (stream.pump()) this.blocked.add(stream)
    }
  }

  /** Tells the other side of our window of the connection: that of calls is a setting. */
  protected widen(): void {
    const more = this.receiveWindowBytes - initialWindowBytes
    if (more > 0) this.windowUpdate(0, more)
  }

  /** One more frame that the other side made us say. */
  protected echoed(): void {
    this.echoes++
    if (this.echoes === 1)
      this.output.whenTaken(() => {
        if (this.echoes >= echoesMax) this.socket.resume()
        this.echoes = 0
      })
    else if (this.echoes === echoesMax) this.socket.pause()
  }

  protected goAway(code: number): void {
    this.output.frame(
      frameTypes.goAway,
      0,
      0,
      Buffer.concat([encodeUint32(this.lastServed), encodeUint32(code)]),
    )
  }

  /** Ends it for what the other side did. */
  fail(error: ConnectionError): void {
    if (this.isClosed) return
    this.goAway(error.code)
    this.output.end()
    const timer = setTimeout(() => this.socket.destroy(), farewellMs)
    this.socket.once('close', () => clearTimeout(timer))
    this.close(error.message)
  }

  endIfDrained(): void {
    if (!this.isDraining || this.isClosed || this.unanswered > 0) return
    this.output.end()
  }

  private close(why: string | null): void {
    if (this.isClosed) return
    this.isClosed = true
    // First, so that calls that end by it know why.
    this.options.onClosed(why)
    for (const stream of [...this.streams.values(), ...this.ending]) stream.close(true)
    this.ended()
  }
}

export function protocol(what: string): ConnectionError {
  return new ConnectionError(errorCodes.protocol, what)
}

function demand(holds: boolean, what: string): void {
  if (!holds) throw protocol(what)
}

function demandLength(holds: boolean, what: string): void {
  if (!holds) throw new ConnectionError(errorCodes.frameSize, `${what} of a wrong length`)
}

/** The payload without its padding (section 6.1). */
function unpadded(frame: Buffer, flag: number): Buffer {
  if ((flag & flags.padded) === 0) return frame.subarray(frameHeaderBytes)
  const padding = frame[frameHeaderBytes]
  if (padding === undefined) throw new ConnectionError(errorCodes.frameSize, 'padding without its length')
  const from = frameHeaderBytes + 1
  const to = frame.byteLength - padding
  demand(to >= from, 'more padding than there is')
  return frame.subarray(from, to)
}
