/**
 * Frames of HTTP/2 (RFC 9113, sections 4 and 6).
 *
 * ```
 *  length (3 bytes) · type (1) · flags (1) · stream (4, its first bit is none) · payload
 * ```
 */

export const frameHeaderBytes = 9
/** SETTINGS_MAX_FRAME_SIZE that everybody takes; we ask for no more and send no more. */
export const framePayloadMax = 16_384
export const initialWindowBytes = 65_535
export const windowBytesMax = 2 ** 31 - 1
export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export const frameTypes = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const

export const flags = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const

export const settings = {
  headerTableSize: 1,
  enablePush: 2,
  concurrentStreamsMax: 3,
  initialWindowSize: 4,
  frameSizeMax: 5,
  headerListSizeMax: 6,
} as const

export const errorCodes = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const

/** What the other side did that ends the whole connection (section 5.4.1). */
export class ConnectionError extends Error {
  readonly code: number

  constructor(code: number, why: string) {
    super(why)
    this.code = code
  }
}

export function writeFrameHeader(
  into: Uint8Array,
  at: number,
  length: number,
  type: number,
  flag: number,
  stream: number,
): void {
  into[at] = length >>> 16
  into[at + 1] = length >>> 8
  into[at + 2] = length
  into[at + 3] = type
  into[at + 4] = flag
  into[at + 5] = stream >>> 24
  into[at + 6] = stream >>> 16
  into[at + 7] = stream >>> 8
  into[at + 8] = stream
}

/** A whole frame. */
export function encodeFrame(type: number, flag: number, stream: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + payload.byteLength)
  writeFrameHeader(frame, 0, payload.byteLength, type, flag, stream)
  frame.set(payload, frameHeaderBytes)
  return frame
}

export function encodeSettings(values: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.allocUnsafe(values.length * 6)
  values.forEach(([id, value], i) => {
    payload.writeUInt16BE(id, i * 6)
    payload.writeUInt32BE(value, i * 6 + 2)
  })
  return encodeFrame(frameTypes.settings, 0, 0, payload)
}

export function encodeUint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** Frames of a header block: HEADERS, and CONTINUATION for what does not fit. */
export function encodeHeaderFrames(stream: number, block: Uint8Array, isLast: boolean): Buffer {
  const frames: Buffer[] = []
  for (let from = 0; from === 0 || from < block.byteLength; from += framePayloadMax) {
    const part = block.subarray(from, from + framePayloadMax)
    const isEnd = from + framePayloadMax >= block.byteLength
    const type = from === 0 ? frameTypes.headers : frameTypes.continuation
    const flag = (isEnd ? flags.endHeaders : 0) | (from === 0 && isLast ? flags.endStream : 0)
    frames.push(encodeFrame(type, flag, stream, part))
  }
  return frames.length === 1 ? frames[0]! : Buffer.concat(frames)
}

/**
 * Splits what comes into frames, whatever pieces it comes in. Nothing is copied but a frame that came in several, and no
 * more than one frame is kept.
 */
export class FrameReader {
  /** A frame that is not whole: its first `filled` bytes; as long as it will be, once that is known. */
  private partial = Buffer.alloc(frameHeaderBytes)
  private filled = 0

  /** Calls `take` for each frame that is whole; its bytes are good for as long as they are held. Throws ConnectionError. */
  read(chunk: Buffer, take: (frame: Buffer) => void): void {
    let at = this.filled === 0 ? 0 : this.complete(chunk, take)
    while (chunk.byteLength - at >= frameHeaderBytes) {
      const end = at + frameBytes(chunk, at)
      if (end > chunk.byteLength) break
      take(chunk.subarray(at, end))
      at = end
    }
    if (at === chunk.byteLength) return
    this.filled = 0
    this.partial = Buffer.allocUnsafeSlow(frameHeaderBytes)
    this.fill(chunk, at)
  }

  /** Where in the chunk the frame that was begun is at its end. */
  private complete(chunk: Buffer, take: (frame: Buffer) => void): number {
    const at = this.fill(chunk, 0)
    if (this.filled < this.partial.byteLength || this.filled < frameBytes(this.partial, 0)) return at
    this.filled = 0
    take(this.partial)
    return at
  }

  private fill(chunk: Buffer, from: number): number {
    let at = from + this.copy(chunk, from)
    if (this.filled === frameHeaderBytes && this.partial.byteLength === frameHeaderBytes) {
      const header = this.partial
      this.partial = Buffer.allocUnsafeSlow(frameBytes(header, 0))
      this.partial.set(header)
      at += this.copy(chunk, at)
    }
    return at
  }

  private copy(chunk: Buffer, from: number): number {
    const bytes = Math.min(chunk.byteLength - from, this.partial.byteLength - this.filled)
    chunk.copy(this.partial, this.filled, from, from + bytes)
    this.filled += bytes
    return bytes
  }
}

/** Of the frame that begins there, with its header. */
function frameBytes(bytes: Buffer, at: number): number {
  const length = bytes.readUIntBE(at, 3)
  if (length > framePayloadMax)
    throw new ConnectionError(
      errorCodes.frameSize,
      `a frame of ${length} bytes; ${framePayloadMax} are the most`,
    )
  return frameHeaderBytes + length
}
