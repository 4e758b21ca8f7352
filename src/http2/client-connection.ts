/** The client's side of a connection. */
import type { Duplex } from 'node:stream'
import { Connection, type ConnectionOptions, headerListBytesMax, protocol } from './connection.ts'
import { encodeSettings, errorCodes, preface, settings } from './frame.ts'
import type { HeaderList } from './hpack.ts'
import { Stream, type StreamReceiver } from './stream.ts'

export class ClientConnection extends Connection {
  readonly isServer = false

  constructor(socket: Duplex, options: ConnectionOptions) {
    super(socket, options)
    this.output.frames(preface)
    this.output.frames(
      encodeSettings([
        [settings.enablePush, 0],
        [settings.initialWindowSize, options.receiveWindowBytes],
        [settings.headerListSizeMax, headerListBytesMax],
      ]),
    )
    this.widen()
  }

  /** Calls that may be begun now: the server says how many it takes at a time. 0 at the connection's end. */
  get room(): number {
    return this.isClosed || this.isDraining ? 0 : this.remoteStreamsMax - this.streams.size
  }

  /** Begins a call with the headers of `block`. Null: there is no room. */
  request(block: Uint8Array, receiver: StreamReceiver): Stream | null {
    if (this.room <= 0) return null
    this.lastStream += this.lastStream === 0 ? 1 : 2
    const stream = new Stream(this, this.lastStream, this.streamWindow, this.receiveWindowBytes, false)
    this.streams.set(stream.id, stream)
    stream.serve(receiver)
    stream.respond(block)
    return stream
  }

  protected override takeNew(id: number, _headers: HeaderList, _isLast: boolean): void {
    // Of a call that is over here, which the server may not know yet.
    if (id > this.lastStream) throw protocol('an answer to no call')
  }

  protected override takeTooLong(id: number): void {
    this.streams.get(id)?.reset(errorCodes.cancel)
  }

  protected override takeKnown(stream: Stream, headers: HeaderList, isLast: boolean): void {
    stream.headed(headers)
    if (isLast) stream.remoteOver()
  }

  /** Calls after the last one were not looked at; the others go on. */
  protected override takeGoAway(lastStream: number, code: number): void {
    this.isDraining = true
    if (code !== errorCodes.none) {
      this.socket.destroy(new Error(`the other side ended the connection with HTTP/2's error ${code}`))
      return
    }
    for (const stream of [...this.streams.values()]) if (stream.id > lastStream) stream.close(true)
    this.endIfDrained()
  }
}
