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

/** For `tls.connect` to a host; its certificate must be for that host, or for the name that led there. */
export function tlsOptions(
  host: string,
  { chainPem, keyPem, caPem }: Material,
  name: string | null = null,
): ConnectionOptions {
  const told = isIP(host) === 0 ? host : name
  return {
    host,
    ...(told !== null && isIP(told) === 0 ? { servername: told } : {}),
    checkServerIdentity: (_name, certificate) => {
      const wrong = checkServerIdentity(host, certificate)
      return wrong === undefined || name === null || checkServerIdentity(name, certificate) !== undefined
        ? wrong
        : undefined
    },
    minVersion: 'TLSv1.2',
    ALPNProtocols: ['h2'],
    ...(caPem === null ? {} : { ca: caPem }),
    ...(chainPem === null ? {} : { cert: chainPem }),
    ...(keyPem === null ? {} : { key: keyPem }),
  }
}

export class TlsChannelCredentials extends ChannelCredentials {
  private readonly current: () => Material
  private readonly nameOf: (host: string) => string | null

  constructor(current: () => Material, nameOf: (host: string) => string | null = () => null) {
    super()
    this.current = current
    this.nameOf = nameOf
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
      connect: socket => secure(socket, tlsOptions(host, this.current(), this.nameOf(host))),
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
