/**
 * The way to one peer: a connection of its own with two long-lived calls of Peer.Frames, so that a vote does not wait behind
 * a megabyte of entries. It loses and never blocks: what does not fit, and what is sent while the peer can't be reached, is
 * dropped and counted, since Raft repeats what matters.
 *
 *   dialling ──TCP, TLS──▶ open ──a call or the connection fails──▶ waiting (backoff, jitter) ──▶ dialling
 *       │ refused: the process is certainly not running                ▲
 *       └──────────────────────────────────────────────────────────────┘
 *
 * What is sent while it dials leaves once it is open: a vote that is late is better than one more election.
 */
import type { Socket } from 'node:net'
import type { ChannelCredentials } from '@grpc/grpc-js'
import { ClientConnection } from '../http2/client-connection.ts'
import { errorCodes } from '../http2/frame.ts'
import { requestBlock, statusIn } from '../http2/grpc-call.ts'
import type { Stream } from '../http2/stream.ts'
import type { Clock } from '../lib/clock.ts'
import { dial } from '../lib/dial.ts'
import { writeMessage, writeParts } from '../lib/grpc-frame.ts'
import type { Random } from '../lib/prng.ts'
import type { Identity } from '../node/ports.ts'
import type { PeerMessage } from '../shard/ports.ts'
import type { Channels } from './channel.ts'
import { type EncodedFrame, encodeFrames, encodeHandshake, type Lane, lanes } from './frames.ts'

export const linkLimits = {
  /** Encoded and not yet taken by the connection, both lanes together. */
  queuedBytesMax: 64 * 1024 * 1024,
  /** Of these, what only heartbeats, votes and acks may use. */
  controlReserveBytes: 4 * 1024 * 1024,
  backoffMinMs: 50,
  backoffMaxMs: 1000,
  /** TCP, and TLS where it is. */
  dialTimeoutMs: 2000,
  /** A peer that was silent for so long is asked whether it is there; when it is for as long again, the link is lost. */
  aliveMs: 5_000,
  /** What it may send us unread: it answers calls of frames with their end. */
  receiveWindowBytes: 65_535,
} as const

export interface LinkCounters {
  framesSent: number
  bytesSent: number
  messagesDropped: number
  connects: number
}

export interface LinkOptions {
  readonly address: string
  readonly credentials: ChannelCredentials
  /** The node's other connections, which wait before they dial again where this one has just got through. */
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

const framesPath = '/roundhouse.v1.Peer/Frames'

/** Frames of a lane in their order. */
interface Early {
  readonly lane: Lane
  readonly frame: LinkFrame
}

type LinkFrame = Pick<EncodedFrame, 'parts' | 'bytes'>

interface Open {
  readonly connection: ClientConnection
  readonly streams: Readonly<Record<Lane, Stream>>
}

export class Link {
  readonly address: string
  private readonly options: LinkOptions
  private open: Open | null = null
  /** null: it does not dial. */
  private early: Early[] | null = null
  private queuedBytes = 0
  private failures = 0
  private isClosed = false
  private toldWhy: string | null = null
  /** Of the wait, the dial, or what looks after an open connection. */
  private cancel: () => void = () => {}

  constructor(options: LinkOptions) {
    this.options = options
    this.address = options.address
    this.dial()
  }

  get queued(): number {
    return this.queuedBytes
  }

  send(lane: Lane, messages: readonly PeerMessage[]): void {
    const { counters } = this.options
    if (this.open === null && this.early === null) {
      counters.messagesDropped += messages.length
      return
    }
    const reserve = lane === 'control' ? 0 : linkLimits.controlReserveBytes
    const { frames, tooLarge } = encodeFrames(messages)
    counters.messagesDropped += tooLarge
    for (const frame of frames) {
      if (this.queuedBytes + frame.bytes > linkLimits.queuedBytesMax - reserve)
        counters.messagesDropped += frame.messages
      else this.write(lane, frame)
    }
  }

  close(): void {
    this.isClosed = true
    this.drop()
  }

  private write(lane: Lane, frame: LinkFrame): void {
    const { counters } = this.options
    this.queuedBytes += frame.bytes
    counters.framesSent++
    counters.bytesSent += frame.bytes
    if (this.open === null) this.early!.push({ lane, frame })
    else this.writeTo(this.open, lane, frame)
  }

  private writeTo(open: Open, lane: Lane, { parts, bytes }: LinkFrame): void {
    const taken = () => {
      // Of a connection that was given up the bytes are no longer counted.
      if (this.open === open) this.queuedBytes -= bytes
    }
    if (parts.length === 1) writeMessage(open.streams[lane], parts[0]!, taken)
    else writeParts(open.streams[lane], parts, taken)
  }

  private dial(): void {
    const { clock, credentials, onRefused, counters } = this.options
    counters.connects++
    this.early = []
    const giveUp = dial(this.address, credentials, (error, socket) => {
      cancelTimeout()
      if (socket !== null) {
        this.opened(socket)
        return
      }
      this.lose(error!.message)
      if (error!.code === 'ECONNREFUSED') onRefused()
    })
    const cancelTimeout = clock.after(linkLimits.dialTimeoutMs, () => {
      giveUp()
      this.lose(`no connection within ${linkLimits.dialTimeoutMs} ms`)
    })
    this.cancel = () => {
      cancelTimeout()
      giveUp()
    }
  }

  private opened(socket: Socket): void {
    const { clock, channels, identity } = this.options
    channels.renew(this.address)
    const connection = new ClientConnection(socket, {
      receiveWindowBytes: linkLimits.receiveWindowBytes,
      onSettings: () => cancelMute(),
      onClosed: why => {
        if (this.open?.connection === connection) this.lose(why ?? 'the connection broke')
      },
    })
    const cancelMute = clock.after(linkLimits.aliveMs, () =>
      this.lose(`no word of HTTP/2 within ${linkLimits.aliveMs} ms`),
    )
    const open: Open = {
      connection,
      streams: { appends: this.openLane(connection), control: this.openLane(connection) },
    }
    this.open = open
    const alive = () => {
      const cancelTick = clock.after(linkLimits.aliveMs, () => {
        connection.tick()
        if (this.open === open) alive()
      })
      this.cancel = () => {
        cancelMute()
        cancelTick()
      }
    }
    alive()
    const early = this.early!
    this.early = null
    for (const lane of lanes) {
      const handshake = encodeHandshake(identity(), lane)
      this.write(lane, { parts: [handshake], bytes: handshake.length })
    }
    for (const { lane, frame } of early) this.writeTo(open, lane, frame)
  }

  private openLane(connection: ClientConnection): Stream {
    let why = 'the peer ended it'
    const lost = () => {
      if (this.open?.connection === connection) this.lose(why)
    }
    const stream = connection.request(
      requestBlock(framesPath, this.address, this.options.credentials._isSecure()),
      {
        headers: list => {
          const status = statusIn(list)
          if (status !== null) why = status.text || status.name
          else if (this.open?.connection === connection) {
            // The callee sends its headers when it has admitted us.
            this.failures = 0
            this.toldWhy = null
          }
        },
        data: () => {},
        complete: lost,
        closed: lost,
      },
    )
    return stream!
  }

  private lose(why: string): void {
    this.drop()
    if (this.isClosed) return
    if (why !== this.toldWhy) this.options.onLost(why)
    this.toldWhy = why
    this.wait()
  }

  private drop(): void {
    this.cancel()
    const { open } = this
    this.open = null
    this.early = null
    this.queuedBytes = 0
    open?.connection.destroy(errorCodes.none)
  }

  private wait(): void {
    const { clock, random } = this.options
    const full = Math.min(linkLimits.backoffMaxMs, linkLimits.backoffMinMs * 2 ** Math.min(this.failures, 10))
    this.failures++
    this.cancel = clock.after(full * (0.5 + random.next() / 2), () => this.dial())
  }
}
