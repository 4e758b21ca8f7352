/** The other end of a ServerConnection, by hand: frames byte by byte, the wrong ones too, over a socket without a network. */
import { Duplex } from 'node:stream'
import { HeaderDecoder, type HeaderList, headerOf } from '../../src/http2/hpack.ts'
import { ServerConnection, type ServerConnectionOptions } from '../../src/http2/server-connection.ts'
import type { Stream, StreamReceiver } from '../../src/http2/stream.ts'

export const types = {
  ...{ data: 0, headers: 1, priority: 2, reset: 3, settings: 4, pushPromise: 5 },
  ...{ ping: 6, goAway: 7, windowUpdate: 8, continuation: 9 },
} as const
export const endStream = 1
export const ack = 1
export const endHeaders = 4
export const padded = 8
export const prioritized = 32

/** Of RFC 9113, section 7. */
export const codes = {
  ...{
    none: 0,
    protocol: 1,
    internal: 2,
    flowControl: 3,
    streamClosed: 5,
    frameSize: 6,
    refused: 7,
    cancel: 8,
  },
  ...{ compression: 9, enhanceYourCalm: 11 },
} as const

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

type Payload = Uint8Array | string | readonly number[]
const bytesOf = (payload: Payload): Buffer =>
  typeof payload === 'string' ? Buffer.from(payload, 'latin1') : Buffer.from(payload as Uint8Array)

export function frame(type: number, flags: number, stream: number, payload: Payload = []): Buffer {
  const bytes = bytesOf(payload)
  const head = Buffer.alloc(9)
  head.writeUIntBE(bytes.byteLength, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, bytes])
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function settingsFrame(...values: readonly (readonly [id: number, value: number])[]): Buffer {
  const each = values.map(([id, value]) => Buffer.concat([Buffer.from([0, id]), uint32(value)]))
  return frame(types.settings, 0, 0, Buffer.concat(each))
}

export const windowFrame = (stream: number, bytes: number) =>
  frame(types.windowUpdate, 0, stream, uint32(bytes))
export const resetFrame = (stream: number, code: number = codes.cancel) =>
  frame(types.reset, 0, stream, uint32(code))
export const pingFrame = (payload = 'pingpong') => frame(types.ping, 0, 0, payload)
export const dataFrame = (stream: number, payload: Payload, flags = 0) =>
  frame(types.data, flags, stream, payload)

/** Literals without a table. */
export function block(...list: string[]): Buffer {
  const text = (value: string) => {
    const bytes = Buffer.from(value, 'latin1')
    const long = bytes.byteLength - 127
    const length =
      long < 0 ? [bytes.byteLength] : [127, (long & 127) | 128, ((long >> 7) & 127) | 128, long >> 14]
    return Buffer.concat([Buffer.from(length), bytes])
  }
  return Buffer.concat(
    list.map((each, i) => (i % 2 === 0 ? Buffer.concat([Buffer.of(0), text(each)]) : text(each))),
  )
}

export const requestOf = (path: string, ...more: string[]) =>
  block(':method', 'POST', ':scheme', 'http', ':path', path, ':authority', 'a', ...more)

/** A call that is served here, its request not over yet unless `flags` say so. */
export const callFrame = (stream: number, flags = 0, path = '/direct') =>
  frame(types.headers, endHeaders | flags, stream, requestOf(path))

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

/** Those that are whole. */
export function framesOf(bytes: Buffer): { readonly frames: Frame[]; readonly rest: Buffer } {
  const frames: Frame[] = []
  let at = 0
  while (bytes.byteLength - at >= 9) {
    const length = bytes.readUIntBE(at, 3)
    if (at + 9 + length > bytes.byteLength) break
    frames.push({
      type: bytes[at + 3]!,
      flags: bytes[at + 4]!,
      stream: bytes.readUInt32BE(at + 5),
      payload: bytes.subarray(at + 9, at + 9 + length),
    })
    at += 9 + length
  }
  return { frames, rest: bytes.subarray(at) }
}

/** In words, to compare by. */
export function told({ type, flags, stream, payload }: Frame): string {
  switch (type) {
    case types.data:
      return `data ${stream} ${payload.byteLength}${flags & endStream ? ' end' : ''}`
    case types.headers:
      return `headers ${stream}${flags & endStream ? ' end' : ''}`
    case types.reset:
      return `reset ${stream} ${payload.readUInt32BE(0)}`
    case types.settings:
      return flags & ack ? 'settings ack' : 'settings'
    case types.ping:
      return `ping${flags & ack ? ' ack' : ''} ${payload.toString('latin1')}`
    case types.goAway:
      return `goaway ${payload.readUInt32BE(0)} ${payload.readUInt32BE(4)}`
    case types.windowUpdate:
      return `window ${stream} ${payload.readUInt32BE(0)}`
    default:
      return `${type} ${stream}`
  }
}

/** One turn of the event loop: whatever was to be said is. */
export const turn = () => new Promise<void>(resolve => setImmediate(resolve))

/** The server's socket: `come` is what the caller sends, `went` what it is sent. */
export class Wire extends Duplex {
  isEnded = false
  /** The caller does not read. */
  isStuck = false
  private went: Buffer[] = []
  private goOn: (() => void)[] = []

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    // Not the views that the server may go on to write beside.
    this.went.push(Buffer.from(chunk))
    if (this.isStuck) this.goOn.push(callback)
    else callback()
  }

  override _final(callback: () => void): void {
    this.isEnded = true
    callback()
  }

  come(bytes: Buffer): void {
    if (!this.destroyed) this.push(bytes)
  }

  /** It reads again. */
  unstick(): void {
    this.isStuck = false
    for (const callback of this.goOn.splice(0)) callback()
  }

  /** All bytes since the last time. */
  written(): Buffer {
    return Buffer.concat(this.went.splice(0))
  }
}

/** A call as who serves it sees it. */
export class Served implements StreamReceiver {
  readonly stream: Stream
  readonly list: HeaderList
  readonly chunks: Buffer[] = []
  completed = 0
  /** How often it heard that all is with the system. */
  takings = 0
  /** What `closed` was told, each time. */
  readonly closings: boolean[] = []

  constructor(stream: Stream, list: HeaderList) {
    this.stream = stream
    this.list = list
  }

  get body(): Buffer {
    return Buffer.concat(this.chunks)
  }

  get bytes(): number {
    return this.chunks.reduce((sum, each) => sum + each.byteLength, 0)
  }

  data(bytes: Buffer): void {
    this.chunks.push(bytes)
  }

  complete(): void {
    this.completed++
  }

  taken(): void {
    this.takings++
  }

  closed(wasCut: boolean): void {
    this.closings.push(wasCut)
  }
}

export interface CallerOptions extends Partial<ServerConnectionOptions> {
  /** Of each call that is served here, as it begins. */
  readonly onCall?: (call: Served) => void
  readonly make?: (stream: Stream, headers: HeaderList) => Served
}

/** A connection that serves paths of /direct and relays all others. */
export function connectionOf(socket: Duplex, options: CallerOptions): ServerConnection {
  const make = options.make ?? ((stream, headers) => new Served(stream, headers))
  return new ServerConnection(socket, {
    receiveWindowBytes: 128 * 1024,
    streamsMax: 5,
    open: (begin, headers) => {
      if (!headerOf(headers, ':path')?.startsWith('/direct')) return null
      const call = make(begin(), headers)
      options.onCall?.(call)
      return call
    },
    relay: () => {
      throw new Error('nothing is relayed here')
    },
    onSettings: () => {},
    onClosed: () => {},
    ...options,
  })
}

export const okBlock = block(':status', '200')
export const endBlock = block('grpc-status', '0')

export class Caller {
  readonly wire = new Wire()
  readonly connection: ServerConnection
  readonly served: Served[] = []
  readonly closings: (string | null)[] = []
  settingsHeard = 0
  private rest: Buffer = Buffer.alloc(0)

  constructor(options: CallerOptions = {}) {
    this.connection = connectionOf(this.wire as Duplex, {
      ...options,
      onCall: call => {
        this.served.push(call)
        options.onCall?.(call)
      },
      onSettings: () => this.settingsHeard++,
      onClosed: why => this.closings.push(why),
    })
  }

  /** One that has said its preface and settings, whose answers to these are read. */
  static async greeted(
    options: CallerOptions = {},
    ...values: readonly (readonly [id: number, value: number])[]
  ): Promise<Caller> {
    const caller = new Caller(options)
    await caller.send(preface, settingsFrame(...values), frame(types.settings, ack, 0))
    return caller
  }

  /** Frames that came back since the last time. */
  async send(...frames: readonly Buffer[]): Promise<Frame[]> {
    this.wire.come(Buffer.concat(frames))
    return this.heard()
  }

  async heard(): Promise<Frame[]> {
    await turn()
    await turn()
    const { frames, rest } = framesOf(Buffer.concat([this.rest, this.wire.written()]))
    this.rest = rest
    return frames
  }

  /** The same in words. */
  async tells(...frames: readonly Buffer[]): Promise<string[]> {
    return (await this.send(...frames)).map(told)
  }
}

export const readBlock = (bytes: Buffer): HeaderList =>
  new HeaderDecoder({ listBytesMax: 1_000_000 }).decode(bytes)!
