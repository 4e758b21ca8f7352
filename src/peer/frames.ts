/**
 * roundhouse.v1.Frame: what travels on a stream between nodes. The first frame of a stream is the handshake, every other
 * one a list of messages, at most `frameBytesMax` long, so that two groups' entries take turns on the connection; a
 * message that is larger alone travels alone.
 *
 *   Frame { 1 handshake · 2 messages repeated GroupMessage }
 */
import { Frame, type Handshake } from '../gen/roundhouse/v1/peer.ts'
import type { Bytes } from '../lib/bytes.ts'
import { varintBytes } from '../lib/varint.ts'
import type { Identity } from '../node/ports.ts'
import type { PeerMessage } from '../shard/ports.ts'
import { ByteSink } from './byte-sink.ts'
import { ByteSource, malformedFrame } from './byte-source.ts'
import { apartBytes, messageBytes, readMessage, writeMessage } from './codec.ts'
import { decodeMessage, encodeMessage } from './proto-io.ts'

export const lanes = ['appends', 'control'] as const
export type Lane = (typeof lanes)[number]

export const frameLimits = {
  frameBytesMax: 1024 * 1024,
  /** A message beyond this can't be sent: the callee's server would cut the stream. */
  messageBytesMax: 18 * 1024 * 1024,
  /** Read before anybody knows who speaks. */
  handshakeBytesMax: 4 * 1024,
} as const

const messagesTag = 0x12

export interface EncodedFrame {
  /** Its bytes, in pieces: a large entry is not copied for each of those who are to have it. */
  readonly parts: readonly Buffer[]
  readonly bytes: number
  /** How many messages are in it. */
  readonly messages: number
}

/** In order, as few frames as the limit allows. `tooLarge` counts the messages that are left out. */
export function encodeFrames(messages: readonly PeerMessage[]): { frames: EncodedFrame[]; tooLarge: number } {
  const frames: EncodedFrame[] = []
  const sizes = new Array<number>(messages.length)
  let tooLarge = 0
  let from = 0
  let frameBytes = 0
  for (let i = 0; i < messages.length; i++) {
    const bytes = messageBytes(messages[i]!)
    sizes[i] = bytes
    if (bytes > frameLimits.messageBytesMax) {
      sizes[i] = 0
      tooLarge++
      continue
    }
    const framed = 1 + varintBytes(bytes) + bytes
    if (frameBytes > 0 && frameBytes + framed > frameLimits.frameBytesMax) {
      frames.push(encodeFrame(messages, sizes, from, i, frameBytes))
      from = i
      frameBytes = 0
    }
    frameBytes += framed
  }
  if (frameBytes > 0) frames.push(encodeFrame(messages, sizes, from, messages.length, frameBytes))
  return { frames, tooLarge }
}

function encodeFrame(
  messages: readonly PeerMessage[],
  sizes: readonly number[],
  from: number,
  to: number,
  bytes: number,
): EncodedFrame {
  let apart = 0
  for (let i = from; i < to; i++) if (sizes[i] !== 0) apart += apartBytes(messages[i]!)
  const sink = new ByteSink(bytes - apart, true)
  let count = 0
  for (let i = from; i < to; i++) {
    // No message is empty: this one was too large.
    if (sizes[i] === 0) continue
    sink.byte(messagesTag)
    sink.varint(sizes[i]!)
    writeMessage(sink, messages[i]!)
    count++
  }
  return { parts: sink.gathered(), bytes, messages: count }
}

export function encodeHandshake(identity: Identity, lane: Lane): Buffer {
  return encodeMessage(Frame, { handshake: { ...identity, lane }, messages: [] })
}

/** The first frame of a stream. Throws INVALID_ARGUMENT where it is no handshake. */
export function readHandshake(bytes: Bytes): { identity: Identity; lane: Lane } {
  if (bytes.byteLength > frameLimits.handshakeBytesMax)
    throw malformedFrame(`a handshake of at most ${frameLimits.handshakeBytesMax} bytes`)
  const { handshake, messages } = decodeFirst(bytes)
  const lane = lanes.find(each => each === handshake?.lane)
  if (handshake === undefined || lane === undefined || messages.length > 0) {
    throw malformedFrame(`a handshake for one of the lanes ${lanes.join(', ')} before anything else`)
  }
  return { identity: identityOf(handshake), lane }
}

function decodeFirst(bytes: Bytes): Frame {
  try {
    return decodeMessage(Frame, bytes)
  } catch {
    throw malformedFrame('a protobuf roundhouse.v1.Frame')
  }
}

export function identityOf({ clusterId, nodeId, storeId }: Handshake): Identity {
  return { clusterId, nodeId, storeId }
}

/** Every other frame. The messages hold views of `bytes`. Throws INVALID_ARGUMENT. */
export function decodeFrame(bytes: Bytes): PeerMessage[] {
  const source = new ByteSource(bytes)
  const messages: PeerMessage[] = []
  while (source.at < source.length) {
    if (source.number() !== messagesTag) throw malformedFrame('a list of messages and nothing else')
    // A small message takes many times its bytes in memory.
    if (messages.length > 0 && source.length > frameLimits.frameBytesMax)
      throw malformedFrame(`one message in a frame over ${frameLimits.frameBytesMax} bytes`)
    messages.push(readMessage(source, source.lengthWithin(source.length)))
  }
  return messages
}
