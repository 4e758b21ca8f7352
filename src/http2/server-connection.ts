/**
 * The server's side of a connection. It does little: calls that `open` knows are served here; every other one is relayed as
 * it came to a session of node:http2 behind it (relay.ts), which has all of the protocol, grpc-js on top, and judges what is
 * unusual.
 */
import type { Duplex } from 'node:stream'
import { Fifo } from '../lib/fifo.ts'
import { Connection, type ConnectionOptions, headerListBytesMax, protocol } from './connection.ts'
import { ConnectionError, encodeSettings, errorCodes, frameTypes, preface, settings } from './frame.ts'
import type { HeaderList } from './hpack.ts'
import { Relay } from './relay.ts'
import { Stream, type StreamReceiver } from './stream.ts'

export interface ServerConnectionOptions extends ConnectionOptions {
  /** Calls at one time. */
  readonly streamsMax: number
  /** Who serves the call; null: it is relayed, and `stream` must not have been called. */
  readonly open: (stream: () => Stream, headers: HeaderList) => StreamReceiver | null
  /** Takes a session of node:http2's server behind this connection. */
  readonly relay: (inner: Duplex) => void
}

export class ServerConnection extends Connection {
  readonly isServer = true
  private readonly server: ServerConnectionOptions
  /** Bytes of the preface that have come. */
  private prefaceBytes = 0
  private relay: Relay | null = null
  /** Windows that the relay's session does not keep to yet. */
  private readonly unsettled = new Fifo<number>()

  constructor(socket: Duplex, options: ServerConnectionOptions) {
    super(socket, options)
    this.server = options
    this.output.frames(
      encodeSettings([
        [settings.concurrentStreamsMax, options.streamsMax],
        [settings.initialWindowSize, options.receiveWindowBytes],
        [settings.headerListSizeMax, headerListBytesMax],
      ]),
    )
    this.widen()
  }

  /** Relayed ones too. */
  override get openStreams(): number {
    return this.streams.size + (this.relay?.streams ?? 0)
  }

  protected override get unanswered(): number {
    return super.unanswered + (this.relay?.streams ?? 0)
  }

  // For the relay.

  /** Its session keeps to the next window that the caller asked for. */
  relaySettled(): void {
    const window = this.unsettled.shift()
    if (window !== undefined && !this.isClosed) this.failing(() => this.settle(window))
  }

  /** Its session broke a call off for what the caller did. */
  relayBrokeOff(): void {
    this.failing(() => this.changed())
  }

  /** A call of it is over. */
  relayForgot(): void {
    this.endIfDrained()
  }

  /** Its session is gone, and what it had said has left. */
  relayEnded(): void {
    this.relay = null
    while (this.unsettled.length > 0) this.relaySettled()
    this.endIfDrained()
  }

  protected override takePreface(chunk: Buffer): Buffer {
    const from = this.prefaceBytes
    if (from === preface.byteLength) return chunk
    const length = Math.min(chunk.byteLength, preface.byteLength - from)
    if (preface.compare(chunk, 0, length, from, from + length) !== 0)
      throw protocol('it does not speak HTTP/2')
    this.prefaceBytes += length
    return chunk.subarray(length)
  }

  protected override takeKnown(stream: Stream, headers: HeaderList, isLast: boolean): void {
    // Trailers, of which a request of gRPC has none.
    if (!isLast) throw protocol('headers in the midst of a call')
    stream.headed(headers)
    stream.remoteOver()
  }

  protected override takeNew(id: number, headers: HeaderList, isLast: boolean): void {
    if (this.relay?.has(id)) {
      this.relay.headers(id, headers, isLast)
      return
    }
    // Of a call that is over here: its caller may not know it yet.
    if (id <= this.lastStream) return
    this.lastStream = id
    if (!this.isDraining) this.lastServed = id
    if (this.isDraining || this.openStreams >= this.server.streamsMax) {
      this.refuse(id, errorCodes.refused)
      return
    }
    let stream: Stream | undefined
    const begin = () => {
      stream = new Stream(this, id, this.streamWindow, this.server.receiveWindowBytes, isLast)
      this.streams.set(id, stream)
      return stream
    }
    const receiver = this.server.open(begin, headers)
    if (stream === undefined || receiver === null) {
      if (this.relay?.isEnding) {
        this.refuse(id, errorCodes.refused)
        return
      }
      this.relay ??= new Relay(this, this.server.relay, this.streamWindow)
      this.relay.begin(id, headers, isLast)
      return
    }
    stream.serve(receiver)
  }

  protected override takeTooLong(id: number): void {
    // Of a call that was begun: to end only that would let its maker begin as many more as he likes.
    if (this.streams.has(id) || this.relay?.has(id))
      throw new ConnectionError(errorCodes.enhanceYourCalm, 'long headers in the midst of a call')
    if (id <= this.lastStream) return
    this.lastStream = id
    this.refuse(id, errorCodes.enhanceYourCalm)
  }

  protected override takeOther(id: number, frame: Buffer, isLast: boolean): boolean {
    if (!this.relay?.has(id)) return false
    if (frame[3] === frameTypes.reset) this.relay.reset(id, frame)
    else this.relay.forward(id, frame, isLast)
    return true
  }

  /**
   * What the relay's session said before is of the old window, and leaves before the caller counts by the new one: a caller
   * who makes it smaller would take it for a breach.
   */
  protected override windowAsked(window: number): void {
    if (this.relay === null || this.relay.isEnding) {
      this.settle(window)
      return
    }
    this.unsettled.push(window)
    this.relay.resize(window)
  }

  protected override ended(): void {
    this.relay?.close()
  }

  /** What the caller has to answer for, found while it is the session that speaks. */
  private failing(run: () => void): void {
    try {
      run()
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error
      this.fail(error)
    }
  }

  private refuse(id: number, code: number): void {
    this.resetStream(id, code)
    this.echoed()
  }
}
