/**
 * What stands before grpc-js: connections are served by src/http2, which answers the calls that are made most and relays all
 * others to grpc-js's own sessions. grpc-js hands its HTTP/2 servers to nobody, asks nobody before it accepts a connection,
 * and knows no receive window for them: so they are taken where it makes them.
 */
import type {
  Http2SecureServer,
  Http2Server,
  ServerHttp2Session,
  ServerHttp2Stream,
  Settings,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Server, ServerCredentials } from '@grpc/grpc-js'
import { errorCodes } from '../../http2/frame.ts'
import { ServerConnection } from '../../http2/server-connection.ts'
import { assert } from '../../lib/assert.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Connection, Connections } from './connections.ts'
import type { DirectCalls } from './direct.ts'
import { grpcLimits } from './options.ts'

/** Of sessions behind a connection; a session's own socket is none that knows who is at its other end. */
const sockets = new WeakMap<object, Socket>()

/** The caller's socket; undefined: the connection is gone. */
export function socketOf(stream: ServerHttp2Stream | undefined): Socket | undefined {
  const session = stream?.session
  return session === undefined || session === null ? undefined : sockets.get(session)
}

type AnyServer = Http2Server | Http2SecureServer
type Listener = (...values: unknown[]) => void

export class Front {
  private readonly connections: Connections
  private readonly direct: DirectCalls
  private readonly clock: Clock
  private readonly open = new Set<ServerConnection>()
  private isDraining = false
  private cancelTick: () => void

  constructor(connections: Connections, direct: DirectCalls, clock: Clock) {
    this.connections = connections
    this.direct = direct
    this.clock = clock
    this.cancelTick = this.tickLater()
  }

  /** Before the server is bound. */
  standBefore(server: Server): void {
    type Inside = {
      createHttp2Server?: (credentials: ServerCredentials) => AnyServer
      readonly commonServerOptions?: { settings?: Settings }
    }
    const inside = server as unknown as Inside
    const create = inside.createHttp2Server
    assert(create !== undefined, 'grpc-js makes its HTTP/2 servers in one place')
    const { commonServerOptions } = inside
    assert(commonServerOptions !== undefined, 'grpc-js keeps the options of its HTTP/2 servers in one place')
    const { receiveWindowBytes } = grpcLimits
    commonServerOptions.settings = { ...commonServerOptions.settings, initialWindowSize: receiveWindowBytes }
    inside.createHttp2Server = credentials => {
      const made = create.call(server, credentials)
      this.takeConnections(made)
      this.connections.guard(made)
      this.watchCalls(made)
      return made
    }
  }

  /** Serves what was begun and nothing more. */
  drain(): void {
    this.isDraining = true
    for (const connection of [...this.open]) connection.drain()
  }

  close(): void {
    this.cancelTick()
    for (const connection of [...this.open]) connection.destroy(errorCodes.cancel)
  }

  private takeConnections(server: AnyServer): void {
    const isSecure = 'setSecureContext' in server
    const event = isSecure ? 'secureConnection' : 'connection'
    // Its own is the first: it is there when the server is made.
    const [serve] = server.listeners(event) as Listener[]
    assert(serve !== undefined, 'a server of node:http2 takes its connections by a listener')
    server.removeListener(event, serve)
    server.on(event, (socket: Socket) => {
      if (isSecure && (socket as TLSSocket).alpnProtocol !== 'h2') serve.call(server, socket)
      else this.accept(socket, inner => serve.call(server, inner), server)
    })
  }

  private accept(socket: Socket, relay: Listener, server: AnyServer): void {
    socket.setNoDelay()
    const held = this.connections.opened(socket, () => connection.destroy(errorCodes.enhanceYourCalm))
    const connection: ServerConnection = new ServerConnection(socket, {
      receiveWindowBytes: grpcLimits.receiveWindowBytes,
      streamsMax: grpcLimits.concurrentStreamsMax,
      open: (begin, headers) => this.direct.take(begin, headers, held),
      relay: inner => {
        // It is told in the midst of it, once.
        const adopt = (session: ServerHttp2Session) => {
          // What the connection lets its caller send the session must take.
          session.setLocalWindowSize(grpcLimits.receiveWindowBytes)
          this.adopt(session, held)
        }
        server.prependOnceListener('session', adopt)
        try {
          relay(inner)
        } finally {
          server.removeListener('session', adopt)
        }
      },
      onSettings: () => this.connections.spoke(held),
      onClosed: () => {
        this.open.delete(connection)
        this.connections.closed(held)
      },
    })
    this.open.add(connection)
    if (this.isDraining) connection.drain()
  }

  private adopt(session: ServerHttp2Session, held: Connection): void {
    sockets.set(session, held.socket)
    this.connections.adopt(session, held)
  }

  private watchCalls(server: AnyServer): void {
    const [serve, ...others] = server.listeners('stream') as Listener[]
    assert(
      serve !== undefined && others.length === 0,
      'grpc-js serves the calls of its HTTP/2 servers in one place',
    )
    server.removeListener('stream', serve)
    server.on('stream', (stream: ServerHttp2Stream, ...more: unknown[]) => {
      // Its caller may have taken it back already, which grpc-js does not expect: it would throw where nobody catches it.
      stream.on('error', () => {})
      if (stream.destroyed || stream.closed) return
      this.connections.called(stream)
      serve.call(server, stream, ...more)
    })
  }

  private tickLater(): () => void {
    return this.clock.after(grpcLimits.aliveMs, () => {
      for (const connection of [...this.open]) connection.tick()
      this.cancelTick = this.tickLater()
    })
  }
}
