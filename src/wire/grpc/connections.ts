/**
 * What connections may take of this node: how many there are, how long one may take to say what it is, and how many bytes
 * it may make this node hold. grpc-js bounds none of these.
 *
 * Each call is counted from its first to its last moment, whatever service it is for: what it costs by being open, the
 * bytes of its request as they come, and its answer until the caller's side has taken it. Counting is all that happens
 * while a connection keeps within its limits. Beyond them:
 *
 * - Answers that are not read push back: as in ordered-window.ts, a running call weighs what the largest answer before it
 *   did, which fades as smaller ones come, and a call without room waits for its turn. A client that reads is served a
 *   little later; one that does not makes its own calls wait, until they are OVERLOADED.
 * - How long answers are is known when they are there, and requests come as they please: a connection that holds far
 *   more than that is cut, as is the one that holds most when all together hold too much. Its calls are then of unknown
 *   outcome, as with any connection that breaks.
 *
 * Of a stream that takes one request after another, what has come whole is somebody else's to count (`handOver`): of frames
 * of peers too, whose receiver takes them at once. So a stream that is never finished weighs, whoever says he is a node.
 */
import type { Http2SecureServer, Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { RoundhouseError } from '../../errors.ts'
import type { Clock } from '../../lib/clock.ts'
import { DirectCall } from './direct-call.ts'
import type { ConnectionLimits } from './options.ts'
import type { Refusals } from './refusals.ts'

/** What an open call takes by itself, about: stream, headers, timers. */
export const callBytes = 8 * 1024
/** Of the first answers of a connection. */
export const firstAnswerBytes = 256 * 1024

/** A call waits here for room. */
interface Waiting {
  readonly begin: () => void
  readonly cancelTimer: () => void
}

/** What all calls of one connection hold. */
export class Connection {
  readonly socket: Socket
  readonly from: string
  readonly cut: () => void
  /** What its calls hold now: requests, answers, themselves. */
  bytes = 0
  /** Of these, answers of unary calls. */
  unreadBytes = 0
  /** What answers of running calls may bring. */
  expectedBytes = 0
  /** What the next answer is taken to be. */
  answerBytes = firstAnswerBytes
  /** Oldest first; no more than calls may be open. */
  readonly waiting = new Set<Waiting>()
  isServing = false
  isCut = false

  constructor(socket: Socket, cut: () => void) {
    this.socket = socket
    this.from = farEndOf(socket)
    this.cut = cut
  }
}

/** What one call holds, from its first to its last moment. */
export class CallMemory {
  private readonly connections: Connections
  /** null: the call is not counted. */
  private readonly connection: Connection | null
  private bytes = 0
  private requestBytes = 0
  private unreadBytes = 0
  private expectedBytes = 0
  private waiting: Waiting | null = null
  private isClosed = false

  constructor(connections: Connections, connection: Connection | null) {
    this.connections = connections
    this.connection = connection
    this.add(callBytes)
  }

  /** So many bytes more are held for this call; fewer, where it is negative. */
  add(bytes: number): void {
    if (this.connection === null || this.isClosed) return
    this.bytes += bytes
    this.connections.add(this.connection, bytes)
  }

  /** Part of a request came. */
  received(bytes: number): void {
    this.requestBytes += bytes
    this.add(bytes)
  }

  /** The requests that came until now are somebody else's to count. */
  handOver(): void {
    this.add(-this.requestBytes)
    this.requestBytes = 0
  }

  /**
   * Runs `begin` once there is room for what the call will answer, or `refuse` where there is none within `timeoutMs`.
   * Neither is run when the caller goes meanwhile. `answered` is due after `begin`.
   */
  admit(timeoutMs: number, begin: () => void, refuse: (error: RoundhouseError) => void): void {
    const { connection } = this
    if (connection === null) {
      begin()
      return
    }
    const run = () => {
      this.waiting = null
      this.expectedBytes = connection.answerBytes
      connection.expectedBytes += this.expectedBytes
      begin()
    }
    this.waiting = this.connections.admit(connection, timeoutMs, run, refuse)
  }

  /** The answer, or what stands for it, is under way to the caller. */
  answered(bytes: number): void {
    const { connection } = this
    if (connection === null || this.isClosed) return
    this.unreadBytes += bytes
    connection.unreadBytes += bytes
    if (this.expectedBytes > 0) {
      connection.answerBytes = Math.max(bytes, connection.answerBytes / 2)
      connection.expectedBytes -= this.expectedBytes
      this.expectedBytes = 0
    }
    this.add(bytes)
    this.connections.serve(connection)
  }

  /** The caller has it all, or is gone. */
  close(): void {
    const { connection } = this
    if (connection === null || this.isClosed) return
    this.add(-this.bytes)
    this.isClosed = true
    connection.unreadBytes -= this.unreadBytes
    connection.expectedBytes -= this.expectedBytes
    if (this.waiting !== null) {
      connection.waiting.delete(this.waiting)
      this.waiting.cancelTimer()
    }
    this.connections.serve(connection)
  }
}

const memory = Symbol('what the stream holds')

interface Remembered {
  [memory]?: CallMemory
}

/** One for all: a closure a call would cost more than the counting. */
function onData(this: Remembered, bytes: Buffer): void {
  this[memory]!.received(bytes.length)
}

function onClose(this: Remembered): void {
  this[memory]!.close()
}

export class Connections {
  private readonly limits: ConnectionLimits
  private readonly clock: Clock
  private readonly refusals: Refusals
  private readonly open = new Set<Connection>()
  /** Of grpc-js's sessions. */
  private readonly bySession = new WeakMap<object, Connection>()
  /** By address and port of the other side, which are one connection's while it is open. */
  private readonly sockets = new Map<
    string,
    { readonly socket: Socket; readonly cancelDeadline: () => void }
  >()
  private readonly uncounted: CallMemory
  private bytes = 0
  private refused = 0
  private tooSlow = 0
  private cuts = 0
  private waits = 0

  constructor(limits: ConnectionLimits, clock: Clock, refusals: Refusals) {
    this.limits = limits
    this.clock = clock
    this.refusals = refusals
    this.uncounted = new CallMemory(this, null)
  }

  /** `connections` and `calls_bytes` are now, `connections_max` is their limit, the rest since the start. */
  stats(): Readonly<Record<string, number>> {
    return {
      connections: this.sockets.size,
      connections_max: this.limits.connectionsMax,
      connections_refused: this.refused,
      connections_too_slow: this.tooSlow,
      connections_cut: this.cuts,
      calls_waited: this.waits,
      calls_bytes: this.bytes,
    }
  }

  /** Before the server's own listeners, so that what they begin is counted. */
  guard(server: Http2Server | Http2SecureServer): void {
    server.maxConnections = this.limits.connectionsMax
    server.on('drop', (dropped?: { readonly remoteAddress?: string; readonly remotePort?: number }) => {
      this.tooMany(`${dropped?.remoteAddress}:${dropped?.remotePort}`)
    })
    server.prependListener('connection', (socket: Socket) => this.connected(socket))
  }

  /** A connection speaks; `cut` ends it. Until it has said its settings its time is running. */
  opened(socket: Socket, cut: () => void): Connection {
    const connection = new Connection(socket, cut)
    this.open.add(connection)
    return connection
  }

  spoke(connection: Connection): void {
    this.sockets.get(connection.from)?.cancelDeadline()
  }

  closed(connection: Connection): void {
    this.open.delete(connection)
  }

  /** The session serves calls of the connection. */
  adopt(session: ServerHttp2Session, connection: Connection): void {
    this.bySession.set(session, connection)
  }

  /** A call has begun: what it holds is counted until it is closed. */
  begin(connection: Connection): CallMemory {
    return new CallMemory(this, connection)
  }

  /** The same for one of grpc-js. */
  called(stream: ServerHttp2Stream): void {
    const { session } = stream
    const connection = session === undefined || session === null ? undefined : this.bySession.get(session)
    if (connection === undefined) return
    const remembered: ServerHttp2Stream & Remembered = stream
    remembered[memory] = new CallMemory(this, connection)
    remembered.on('data', onData)
    remembered.on('close', onClose)
  }

  /** What a call of grpc-js holds, by the stream below it. */
  memoryOf(grpcCall: unknown): CallMemory {
    if (grpcCall instanceof DirectCall) return grpcCall.memory
    type Layer = { readonly call?: Layer; readonly nextCall?: Layer; readonly stream?: Remembered }
    let layer: Layer | undefined = grpcCall as Layer
    while (layer !== undefined) {
      if (layer.stream !== undefined) return layer.stream[memory] ?? this.uncounted
      layer = layer.call ?? layer.nextCall
    }
    return this.uncounted
  }

  add(connection: Connection, bytes: number): void {
    connection.bytes += bytes
    this.bytes += bytes
    if (bytes <= 0) return
    const { connectionBytesMax, allBytesMax } = this.limits
    if (connection.bytes > connectionBytesMax)
      this.cut(connection, `its calls hold more than ${connectionBytesMax} bytes`)
    else if (this.bytes > allBytesMax)
      this.cut(this.largest(), `of all connections, which hold more than ${allBytesMax} bytes, it holds most`)
  }

  /** null: it has begun. */
  admit(
    connection: Connection,
    timeoutMs: number,
    begin: () => void,
    refuse: (error: RoundhouseError) => void,
  ): Waiting | null {
    if (connection.waiting.size === 0 && this.hasRoom(connection)) {
      begin()
      return null
    }
    this.waits++
    const max = this.limits.unreadBytesMax
    const cancelTimer = this.clock.after(timeoutMs, () => {
      connection.waiting.delete(waiting)
      const what = 'answers that this connection does not read, in bytes'
      refuse(new RoundhouseError('OVERLOADED', { what, max }))
    })
    const waiting = { begin, cancelTimer }
    connection.waiting.add(waiting)
    return waiting
  }

  /** Begins what has waited and has room, a moment later: calls that are given up together end one by one. */
  serve(connection: Connection): void {
    if (connection.waiting.size === 0 || connection.isServing) return
    connection.isServing = true
    setImmediate(() => {
      connection.isServing = false
      for (const waiting of connection.waiting) {
        if (!this.hasRoom(connection)) return
        connection.waiting.delete(waiting)
        waiting.cancelTimer()
        waiting.begin()
      }
    })
  }

  private hasRoom({ unreadBytes, expectedBytes, answerBytes }: Connection): boolean {
    const held = unreadBytes + expectedBytes
    // One always may, however large the last one was.
    return held === 0 || held + answerBytes <= this.limits.unreadBytesMax
  }

  private tooMany(from: string): void {
    this.refused++
    const why = `${this.limits.connectionsMax} connections are open: no more are accepted`
    this.refusals.report('connection', from, why)
  }

  private connected(socket: Socket): void {
    const from = farEndOf(socket)
    // Each address that is listened on counts its own.
    if (this.sockets.size >= this.limits.connectionsMax) {
      this.tooMany(from)
      // Not before the server's own listeners have seen it: they expect one that is open.
      setImmediate(() => socket.destroy())
      return
    }
    const cancelDeadline = this.clock.after(this.limits.handshakeMsMax, () => {
      this.tooSlow++
      const why = `it did not begin to speak HTTP/2 within ${this.limits.handshakeMsMax} ms`
      this.refusals.report('connection', from, why)
      socket.destroy()
    })
    this.sockets.set(from, { socket, cancelDeadline })
    socket.once('close', () => {
      cancelDeadline()
      if (this.sockets.get(from)?.socket === socket) this.sockets.delete(from)
    })
  }

  private largest(): Connection {
    let most: Connection | null = null
    for (const each of this.open) if (most === null || each.bytes > most.bytes) most = each
    return most!
  }

  private cut(connection: Connection, why: string): void {
    if (connection.isCut) return
    connection.isCut = true
    this.cuts++
    this.refusals.report('connection', connection.from, why)
    // Not from within one of its own calls.
    setImmediate(() => {
      connection.cut()
      // Under TLS the socket below it: its own waits for a write that is stuck.
      this.sockets.get(connection.from)?.socket.destroy()
    })
  }
}

export function farEndOf(socket: Socket): string {
  return `${socket.remoteAddress}:${socket.remotePort}`
}
