/**
 * What a connection has to say: everything of one turn of the event loop leaves in one write. Small pieces are copied side
 * by side, large ones are handed on as they are.
 */
import type { Duplex } from 'node:stream'
import { frameHeaderBytes, writeFrameHeader } from './frame.ts'

/** Of the memory that small pieces are copied to: as much as a connection has been saying, from a few answers to many. */
const blockBytesMin = 1024
const blockBytesMax = 64 * 1024
/** From here on copying costs more than a piece of its own. */
const largeBytes = 8 * 1024

/** Of what is cut from something longer: a frame of what a consumer is sent at a time is not copied. */
const keptTimesMax = 40

const noBytes = Buffer.alloc(0)

export class Output {
  private readonly socket: Duplex
  private readonly onTaken: () => void
  private block = noBytes
  /** Of the block: written and not yet sent, from `from` to `at`. */
  private from = 0
  private at = 0
  private parts: Buffer[] = []
  /** Copied in this turn, and in the last one that had anything to say. */
  private copied = 0
  private copiedBefore = 0
  private isScheduled = false
  private isEnded = false
  private waiting: (() => void)[] = []
  private untaken = 0
  /** Of this turn. */
  private said = 0

  /** `onTaken` is run whenever the system has taken what was said in a turn. */
  constructor(socket: Duplex, onTaken: () => void) {
    this.socket = socket
    this.onTaken = onTaken
  }

  /** Said, and not yet taken by the system. */
  get untakenBytes(): number {
    return this.untaken
  }

  frame(type: number, flag: number, stream: number, payload: Uint8Array): void {
    const { byteLength } = payload
    this.reserve(frameHeaderBytes + (byteLength < largeBytes ? byteLength : 0))
    writeFrameHeader(this.block, this.at, byteLength, type, flag, stream)
    this.at += frameHeaderBytes
    this.count(frameHeaderBytes + byteLength)
    if (byteLength < largeBytes) {
      this.block.set(payload, this.at)
      this.at += byteLength
      return
    }
    this.seal()
    // A view keeps all that it is cut from, which may be a long answer of a call that was taken back.
    const isShare = keptTimesMax * byteLength < payload.buffer.byteLength
    this.parts.push(
      isShare ? Buffer.from(payload) : Buffer.from(payload.buffer, payload.byteOffset, byteLength),
    )
  }

  /** Frames that are whole already. */
  frames(bytes: Buffer): void {
    this.count(bytes.byteLength)
    if (bytes.byteLength < largeBytes) {
      this.reserve(bytes.byteLength)
      this.block.set(bytes, this.at)
      this.at += bytes.byteLength
      return
    }
    this.schedule()
    this.seal()
    this.parts.push(bytes)
  }

  /** Runs it when the system has taken all that was said until now, or never. */
  whenTaken(run: () => void): void {
    this.waiting.push(run)
    this.schedule()
  }

  /** Gives back what a connection that has fallen silent does not need. */
  rest(): void {
    if (this.from < this.at) return
    this.block = noBytes
    this.from = 0
    this.at = 0
    this.copiedBefore = 0
  }

  /** At once: what is said must be out before the socket ends. */
  flush(): void {
    this.isScheduled = false
    this.seal()
    const { parts, waiting, socket } = this
    if (parts.length === 0 && waiting.length === 0) return
    this.parts = []
    this.waiting = []
    if (this.isEnded) return
    this.copiedBefore = this.copied
    this.copied = 0
    const { said } = this
    this.said = 0
    const taken = (error?: Error | null) => {
      // A socket that failed is closed, and says so.
      if (error) return
      this.untaken -= said
      for (const run of waiting) run()
      this.onTaken()
    }
    if (parts.length === 1) {
      socket.write(parts[0]!, taken)
      return
    }
    socket.cork()
    for (let i = 0; i < parts.length - 1; i++) socket.write(parts[i]!)
    socket.write(parts.at(-1) ?? noBytes, taken)
    socket.uncork()
  }

  /** After all that this turn has to say: answers come by promises, which are over when the next tick begins. */
  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    process.nextTick(flush, this)
  }

  /** What was said leaves, and then the socket ends: nothing is said after it. */
  end(): void {
    this.flush()
    this.isEnded = true
    this.socket.end()
  }

  private count(bytes: number): void {
    this.untaken += bytes
    this.said += bytes
  }

  private reserve(bytes: number): void {
    this.schedule()
    this.copied += bytes
    if (this.block.byteLength - this.at >= bytes) return
    this.seal()
    const usual = 2 * Math.max(this.copied, this.copiedBefore)
    const length = Math.max(blockBytesMin, Math.min(blockBytesMax, usual))
    this.block = Buffer.allocUnsafeSlow(Math.max(length, bytes))
    this.from = 0
    this.at = 0
  }

  private seal(): void {
    if (this.from === this.at) return
    this.parts.push(this.block.subarray(this.from, this.at))
    this.from = this.at
  }
}

/** One for all: a closure a turn would cost more. */
function flush(output: Output): void {
  output.flush()
}
