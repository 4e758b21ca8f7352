import type { ServerCredentials } from '@grpc/grpc-js'
import type { Clock } from '../../lib/clock.ts'
import type { PeerService, Service } from '../../node/ports.ts'
import type { Refusal } from './refusals.ts'

export interface GrpcServerOptions {
  readonly service: Service
  readonly peerService: PeerService
  /** Whether the command has keys: then an empty key reaches it, and it says so by name. */
  readonly isKeyed: (command: string) => boolean
  /** `message_timeout`: no call waits longer. */
  readonly messageTimeoutMs: number
  readonly clock: Clock
  /** Called with what is no RoundhouseError: a fault of this program. The caller gets INTERNAL. */
  readonly onUnexpected: (error: unknown) => void
  /** Insecure where it is left out. */
  readonly credentials?: ServerCredentials
  /** True: the credentials ask for certificates, and what a caller may do is judged by its own. */
  readonly areCallersChecked?: boolean
  /** Called with calls and connections that were refused for who made them or what they hold: the first ones of a flood. */
  readonly onRefused?: (refusal: Refusal) => void
  /** Files and sockets that the process may have open; null, or left out: nobody knows a limit. */
  readonly openFilesMax?: number | null
  /** Those of `connectionLimits` that are to be others. */
  readonly limits?: Partial<ConnectionLimits>
}

/** What all that connects may take of this node; see connections.ts. */
export interface ConnectionLimits {
  /** Open at one time, on all addresses together. Each that goes beyond it is closed at once. */
  readonly connectionsMax: number
  /** From a connection's first packet to the end of its TLS handshake and HTTP/2's first frame. */
  readonly handshakeMsMax: number
  /** Answers that a connection has not read, and those that its running calls may bring: beyond it, its calls wait. */
  readonly unreadBytesMax: number
  /** Requests and answers that a connection makes this node hold. Beyond it, it is cut. */
  readonly connectionBytesMax: number
  /** The same of all connections. Beyond it, the one that holds most is cut. */
  readonly allBytesMax: number
}

export const connectionLimits: ConnectionLimits = {
  connectionsMax: 10_000,
  handshakeMsMax: 10_000,
  unreadBytesMax: 16 * 1024 * 1024,
  connectionBytesMax: 256 * 1024 * 1024,
  allBytesMax: 512 * 1024 * 1024,
}

/**
 * Connections that a process with so many descriptors may accept. The other half is for what it must not be without: its
 * disk (journal, state, a file for each partition that is written to, snapshots) and its own way to other nodes.
 */
export function connectionsWithin(openFilesMax: number | null): number {
  const { connectionsMax } = connectionLimits
  return openFilesMax === null ? connectionsMax : Math.min(connectionsMax, Math.floor(openFilesMax / 2))
}

export const grpcLimits = {
  /** A request; the error says so in our words. Batches of values are why it is above the largest value (8 MiB). */
  requestBytesMax: 16 * 1024 * 1024,
  /** What grpc-js refuses by itself. Frames of peers come here too: one entry may be as large as a request. */
  messageBytesMax: 20 * 1024 * 1024,
  /** Calls at one time on one connection. */
  concurrentStreamsMax: 1000,
  /**
   * What a connection, and each call on it, may send before it is read. With HTTP/2's own 64 KiB a pipelining producer
   * stops at every fourth batch of 100 records and waits for a turn of this node.
   */
  receiveWindowBytes: 512 * 1024,
  /** Of one StreamCommand: what was read and not yet answered. Beyond it, reading stops until answers have left. */
  windowRequestsMax: 256,
  windowBytesMax: 8 * 1024 * 1024,
  /** A connection that was silent for so long is asked whether it is there; when it is for as long again, it is gone. */
  aliveMs: 10_000,
  /** How long a connection that was cut at shutdown may take to go. */
  cutMs: 500,
  /** How often watchers of the health service may hear of a change. */
  healthRefreshMs: 500,
} as const
