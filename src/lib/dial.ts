/**
 * A connection for HTTP/2 as gRPC makes one, without gRPC: TCP, and TLS where the credentials say so, with the certificates
 * that are current now.
 */
import { connect, type Socket } from 'node:net'
import type { ChannelCredentials } from '@grpc/grpc-js'
import { splitAddress } from './address.ts'

/**
 * Calls `done` once, with a socket or with why there is none (`code` ECONNREFUSED: nobody listens there). The answer gives it
 * up: `done` is not called then.
 */
export function dial(
  address: string,
  credentials: ChannelCredentials,
  done: (error: NodeJS.ErrnoException | null, socket: Socket | null) => void,
): () => void {
  const socket = connect({ ...splitAddress(address), autoSelectFamily: true })
  let isOver = false
  const fail = (error: NodeJS.ErrnoException) => {
    if (isOver) return
    isOver = true
    socket.destroy()
    done(error, null)
  }
  // Stays: without a listener an error that comes later would end the process.
  socket.on('error', fail)
  socket.once('connect', () => {
    socket.setNoDelay()
    const connector = credentials._createSecureConnector({ scheme: 'dns', path: address }, {})
    connector.connect(socket).then(
      secured => {
        if (isOver) return
        isOver = true
        done(null, secured.socket)
      },
      (error: unknown) => fail(error instanceof Error ? error : new Error(String(error))),
    )
  })
  return () => {
    isOver = true
    socket.destroy()
  }
}
