/**
 * A node's certificates as gRPC's credentials, for its port and for dialling peers. Both take new certificates for new
 * connections and leave those that are open alone. TLS 1.2 is the least, Node.js's default, and 1.3 what two of us speak.
 *
 * The port asks for certificates and lets the handshake pass without a good one: a caller is refused by its first call,
 * with words, where a broken handshake would only tell it that the connection is gone (see caller.ts).
 */
import { type ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js'
import type { CertificateWatch } from '../lib/certificate-watch.ts'
import type { Certificates } from '../lib/certificates.ts'
import type { NodeCertificates } from '../lib/node-certificates.ts'
import { TlsChannelCredentials } from '../lib/tls-channel.ts'

type CaListener = Parameters<experimental.CertificateProvider['addCaCertificateListener']>[0]
type IdentityListener = Parameters<experimental.CertificateProvider['addIdentityCertificateListener']>[0]

export interface NodeCredentials {
  readonly server: ServerCredentials
  readonly channel: ChannelCredentials
  /** Those for peers, as they are now. */
  readonly certificates: () => Certificates
  /** With a CA for callers each of them must have a certificate of it. */
  readonly areCallersChecked: boolean
}

/** `nameOf`: by which other name the certificate of a host that is dialled may be good. */
export function nodeCredentials(
  watch: CertificateWatch<NodeCertificates>,
  nameOf: (host: string) => string | null = () => null,
): NodeCredentials {
  const server = new Provider(watch)
  const areCallersChecked = watch.current.server.caPem !== null
  return {
    server: experimental.createCertificateProviderServerCredentials(
      server,
      areCallersChecked ? server : null,
      false,
    ),
    channel: new TlsChannelCredentials(() => watch.current.peer, nameOf),
    certificates: () => watch.current.peer,
    areCallersChecked,
  }
}

/** The port's certificates, as grpc-js asks for them. */
class Provider implements experimental.CertificateProvider {
  private readonly current: () => Certificates
  private readonly caListeners = new Set<CaListener>()
  private readonly identityListeners = new Set<IdentityListener>()

  constructor(watch: CertificateWatch<NodeCertificates>) {
    this.current = () => watch.current.server
    watch.onChange(() => {
      for (const listener of this.caListeners) listener(this.authorities())
      for (const listener of this.identityListeners) listener(this.identity())
    })
  }

  // grpc-js adds its listener before it is ready to be told, so it hears a moment later, as from its own provider.

  addCaCertificateListener(listener: CaListener): void {
    this.caListeners.add(listener)
    process.nextTick(() => this.caListeners.has(listener) && listener(this.authorities()))
  }

  removeCaCertificateListener(listener: CaListener): void {
    this.caListeners.delete(listener)
  }

  addIdentityCertificateListener(listener: IdentityListener): void {
    this.identityListeners.add(listener)
    process.nextTick(() => this.identityListeners.has(listener) && listener(this.identity()))
  }

  removeIdentityCertificateListener(listener: IdentityListener): void {
    this.identityListeners.delete(listener)
  }

  private authorities(): Parameters<CaListener>[0] {
    const { caPem } = this.current()
    return caPem === null ? null : { caCertificate: caPem }
  }

  private identity(): Parameters<IdentityListener>[0] {
    const { chainPem, keyPem } = this.current()
    return chainPem === null || keyPem === null ? null : { certificate: chainPem, privateKey: keyPem }
  }
}
