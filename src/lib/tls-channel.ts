/**
 * gRPC's client side over TLS, with the certificates that are current at each connect. (grpc-js's own credentials name an
 * address of digits in the handshake, which RFC 6066 forbids and Node.js warns of, and load a system's CAs by no way.)
 */
import { isIP, type Socket } from 'node:net'
import { type ConnectionOptions, checkServerIdentity, connect, type TLSSocket } from 'node:tls'
import { CallCredentials, ChannelCredentials, experimental } from '@grpc/grpc-js'
import type { Certificates } from './certificates.ts'

type Material = Pick<Certificates, 'chainPem' | 'keyPem' | 'caPem'>
type Target = Parameters<ChannelCredentials['_createSecureConnector']>[0]

/** For `tls.connect` to a host; its certificate must be for that host. */
export function tlsOptions(host: string, { chainPem, keyPem, caPem }: Material): ConnectionOptions {
  return {
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['h2'],
    ...(caPem === null ? {} : { ca: caPem }),
    ...(chainPem === null ? {} : { cert: chainPem }),
    ...(keyPem === null ? {} : { key: keyPem }),
  }
}

export class TlsChannelCredentials extends ChannelCredentials {
  private readonly current: () => Material

  constructor(current: () => Material) {
    super()
    this.current = current
  }

  // The names are grpc-js's.

  override _isSecure(): boolean {
    return true
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other
  }

  override _createSecureConnector(
    target: Target,
    _options: unknown,
    callCredentials: CallCredentials = CallCredentials.createEmpty(),
  ): experimental.SecureConnector {
    const host = experimental.splitHostPort(target.path)?.host ?? target.path
    return {
      connect: socket => secure(socket, tlsOptions(host, this.current())),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials,
      destroy: () => {},
    }
  }
}

function secure(socket: Socket, options: ConnectionOptions): Promise<{ socket: TLSSocket; secure: boolean }> {
  return new Promise((resolve, reject) => {
    const tls = connect({ ...options, socket }, () => {
      tls.removeListener('close', onClose)
      resolve({ socket: tls, secure: true })
    })
    const onClose = () => reject(new Error('the peer closed the connection within the handshake'))
    tls.once('close', onClose)
    // Stays: without a listener an error before gRPC has its own would end the process.
    tls.on('error', reject)
  })
}
