/**
 * The way to one peer: two long-lived streams over one connection, so that a vote does not wait behind a megabyte of
 * entries. It loses and never blocks: what does not fit, and what is sent while the peer can't be reached, is dropped and
 * counted, since Raft repeats what matters.
 *
 *   open ──stream fails──▶ waiting (backoff, jitter) ──▶ probing ──a TCP connection comes about──▶ open
 *                             ▲                             │ refused: the process is certainly not running
 *                             └─────────────────────────────┘
 *
 * The probe is a TCP connection of its own because gRPC tells apart "refused" and "silent" only in its texts.
 */
import { connect } from 'node:net'
import { type ClientWritableStream, Metadata } from '@grpc/grpc-js'
import type { Clock } from '../lib/clock.ts'
import type { Random } from '../lib/prng.ts'
import type { Identity } from '../node/ports.ts'
import type { PeerMessage } from '../shard/ports.ts'
import { splitAddress } from './address.ts'
import { cancelSoon } from './cancel.ts'
import type { Channels } from './channel.ts'
import { encodeFrames, encodeHandshake, type Lane, lanes } from './frames.ts'

export const linkLimits = {
  /** Encoded and not yet taken by the connection, both lanes together. */
  queuedBytesMax: 64 * 1024 * 1024,
  /** Of these, what only heartbeats, votes and acks may use. */
  controlReserveBytes: 4 * 1024 * 1024,
  backoffMinMs: 50,
  backoffMaxMs: 1000,
  probeTimeoutMs: 2000,
} as const

export interface LinkCounters {
  framesSent: number
  bytesSent: number
  messagesDropped: number
  connects: number
}

export interface LinkOptions {
  readonly node: string
  readonly address: string
  readonly channels: Channels
  readonly identity: () => Identity
  readonly clock: Clock
  readonly random: Random
  readonly counters: LinkCounters
  /** The node's process refused a dial. */
  readonly onRefused: () => void
  /** The link broke or did not come about; told again when the reason is another, or it was up in between. */
  readonly onLost: (why: string) => void
}

type FrameStream = ClientWritableStream<Buffer>
const framesPath = '/roundhouse.v1.Peer/Frames'

export class Link {
  readonly address: string
  private readonly options: LinkOptions
  private streams: Readonly<Record<Lane, FrameStream>> | null = null
  private queuedBytes = 0
  private failures = 0
  private isClosed = false
  private toldWhy: string | null = null
  private cancelWait: () => void = () => {}

  constructor(options: LinkOptions) {
    this.options = options
    this.address = options.address
    this.open()
  }

  get queued(): number {
    return this.queuedBytes
  }

  send(lane: Lane, messages: readonly PeerMessage[]): void {
    const { counters } = this.options
    const streams = this.streams
    if (streams === null) {
      counters.messagesDropped += messages.length
      return
    }
    const reserve = lane === 'control' ? 0 : linkLimits.controlReserveBytes
    const { frames, tooLarge } = encodeFrames(messages)
    counters.messagesDropped += tooLarge
    for (const { bytes, messages: count } of frames) {
      if (this.queuedBytes + bytes.length > linkLimits.queuedBytesMax - reserve)
        counters.messagesDropped += count
      else this.write(streams[lane], bytes)
    }
  }

  close(): void {
    this.isClosed = true
    this.cancelWait()
    this.cancelStreams()
  }

  private write(stream: FrameStream, bytes: Buffer): void {
    const { counters } = this.options
    this.queuedBytes += bytes.length
    counters.framesSent++
    counters.bytesSent += bytes.length
    stream.write(bytes, () => {
      // Of streams that were given up the bytes are no longer counted.
      if (this.streams?.appends === stream || this.streams?.control === stream)
        this.queuedBytes -= bytes.length
    })
  }

  private open(): void {
    this.options.counters.connects++
    this.streams = { appends: this.openLane('appends'), control: this.openLane('control') }
    for (const lane of lanes) this.write(this.streams[lane], encodeHandshake(this.options.identity(), lane))
  }

  private openLane(lane: Lane): FrameStream {
    const channel = this.options.channels.to(this.address)
    const { end } = channel.begin()
    const raw = (bytes: Buffer) => bytes
    const stream: FrameStream = channel.client.makeClientStreamRequest(
      framesPath,
      raw,
      raw,
      new Metadata(),
      {},
      error => {
        end()
        if (this.streams?.[lane] === stream) this.lose(error?.details ?? 'the peer ended it')
      },
    )
    // The callee sends its headers when it has admitted us.
    stream.once('metadata', () => {
      if (this.streams?.[lane] !== stream) return
      this.failures = 0
      this.toldWhy = null
    })
    // The callback says why; without a listener the process would end.
    stream.on('error', () => {})
    return stream
  }

  private lose(why: string): void {
    this.cancelStreams()
    if (this.isClosed) return
    if (why !== this.toldWhy) this.options.onLost(why)
    this.toldWhy = why
    this.wait()
  }

  private cancelStreams(): void {
    const streams = this.streams
    this.streams = null
    this.queuedBytes = 0
    if (streams !== null) for (const lane of lanes) cancelSoon(streams[lane])
  }

  private wait(): void {
    const { clock, random } = this.options
    const full = Math.min(linkLimits.backoffMaxMs, linkLimits.backoffMinMs * 2 ** Math.min(this.failures, 10))
    this.failures++
    this.cancelWait = clock.after(full * (0.5 + random.next() / 2), () => this.probe())
  }

  private probe(): void {
    const { clock, channels, onRefused } = this.options
    const socket = connect({ ...splitAddress(this.address), autoSelectFamily: true })
    const cancelTimeout = clock.after(linkLimits.probeTimeoutMs, () => socket.destroy(new Error('no answer')))
    this.cancelWait = () => {
      cancelTimeout()
      socket.destroy()
    }
    socket.once('connect', () => {
      cancelTimeout()
      socket.destroy()
      if (this.isClosed) return
      channels.renew(this.address)
      this.open()
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      cancelTimeout()
      if (this.isClosed) return
      this.wait()
      if (error.code === 'ECONNREFUSED') onRefused()
    })
  }
}
