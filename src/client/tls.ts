/** Certificates of the client: from files, or as PEM in memory. */
import { createSecureContext } from 'node:tls'
import { type ChannelCredentials, credentials } from '@grpc/grpc-js'
import { type Certificates, loadCertificates } from '../lib/certificates.ts'
import { TlsChannelCredentials } from '../lib/tls-channel.ts'

export interface TlsOptions {
  /** Path of a PEM file, or PEM itself: the CA of the nodes. Without it, the authorities that Node.js brings. */
  readonly ca?: string | Buffer
  /** The own certificate, for clusters that ask for one. */
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
}

/** Files are looked at again before a connect, but not more often. */
const rereadMs = 10_000

export interface Security {
  readonly credentials: ChannelCredentials
  /** null: plain connections. */
  certificates(): Certificates | null
}

/** Throws TypeError with all that is wrong. */
export function securityOf(tls: TlsOptions | boolean | undefined): Security {
  if (tls === undefined || tls === false)
    return { credentials: credentials.createInsecure(), certificates: () => null }
  const options = tls === true ? {} : tls
  let current = load(options)
  let readMs = Date.now()
  const certificates = () => {
    if (Date.now() < readMs + rereadMs) return current
    readMs = Date.now()
    try {
      current = load(options)
    } catch {
      // Half written, or expired by now: what was good before is still the better try.
    }
    return current
  }
  return { credentials: new TlsChannelCredentials(certificates), certificates }
}

const isPem = (value: string | Buffer) => value.includes('-----BEGIN')

function load({ ca = '', cert = '', key = '' }: TlsOptions): Certificates {
  const parts = [ca, cert, key]
  if (!parts.some(isPem)) {
    const loaded = loadCertificates({ ca: String(ca), cert: String(cert), key: String(key) }, Date.now())
    if (!loaded.ok) throw new TypeError(`tls: ${loaded.mistakes.join('; ')}`)
    return loaded.value
  }
  if (!parts.every(part => part.length === 0 || isPem(part)))
    throw new TypeError('tls: ca, cert and key are all paths, or all PEM')
  const [caPem, chainPem, keyPem] = parts.map(part => (part.length === 0 ? null : Buffer.from(part)))
  try {
    createSecureContext({
      ...(caPem ? { ca: caPem } : {}),
      ...(chainPem ? { cert: chainPem } : {}),
      ...(keyPem ? { key: keyPem } : {}),
    })
  } catch (error) {
    throw new TypeError(`tls: ${(error as Error).message}`)
  }
  return {
    files: { ca: '', cert: '', key: '' },
    caPem: caPem ?? null,
    chainPem: chainPem ?? null,
    keyPem: keyPem ?? null,
    chain: [],
    authorities: [],
  }
}
