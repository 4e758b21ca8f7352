/**
 * Certificates, keys and CAs from PEM files, checked before anything is done with them: what is wrong is found here, all of
 * it at once and with the file's name, and not in the first handshake, whose errors say little.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { createSecureContext } from 'node:tls'
import { systemReason } from './system-reason.ts'

/** Paths; empty: none. */
export interface CertificateFiles {
  /** The own certificate, then those between it and the CA. */
  readonly cert: string
  readonly key: string
  /** Those whose certificates are accepted from others; without, the authorities that Node.js brings. */
  readonly ca: string
}

export interface Certificates {
  readonly files: CertificateFiles
  readonly chainPem: Buffer | null
  readonly keyPem: Buffer | null
  readonly caPem: Buffer | null
  /** The own one first. */
  readonly chain: readonly X509Certificate[]
  readonly authorities: readonly X509Certificate[]
}

export type Loaded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly mistakes: readonly string[] }

/** Reads and checks the files that are named. */
export function loadCertificates(files: CertificateFiles, wallMs: number): Loaded<Certificates> {
  const mistakes: string[] = []
  if (files.cert !== '' && files.key === '') mistakes.push(`${files.cert}: a certificate without its key`)
  if (files.key !== '' && files.cert === '') mistakes.push(`${files.key}: a key without its certificate`)
  const chainPem = read(files.cert, mistakes)
  const keyPem = read(files.key, mistakes)
  const caPem = read(files.ca, mistakes)
  const chain = parseChain(files.cert, chainPem, mistakes)
  const authorities = parseChain(files.ca, caPem, mistakes)
  const key = parseKey(files.key, keyPem, mistakes)
  const own = chain[0]
  if (own !== undefined) {
    const wrong = untimely(own, wallMs)
    if (wrong !== null) mistakes.push(`${files.cert}: the certificate of ${nameOf(own)} ${wrong}`)
    if (key !== null && !own.checkPrivateKey(key))
      mistakes.push(`${files.key}: the key does not fit the certificate in ${files.cert}`)
  }
  if (authorities.length > 0 && authorities.every(each => untimely(each, wallMs) !== null))
    mistakes.push(`${files.ca}: the CA ${nameOf(authorities[0]!)} ${untimely(authorities[0]!, wallMs)}`)
  if (mistakes.length === 0) {
    const refusal = refusalOf(chainPem, keyPem, caPem)
    if (refusal !== null) mistakes.push(`${files.cert || files.ca}: ${refusal}`)
  }
  return mistakes.length > 0
    ? { ok: false, mistakes }
    : { ok: true, value: { files, chainPem, keyPem, caPem, chain, authorities } }
}

function read(path: string, mistakes: string[]): Buffer | null {
  if (path === '') return null
  try {
    return readFileSync(path)
  } catch (error) {
    mistakes.push(`${path}: can't be read: ${systemReason(error)}`)
    return null
  }
}

const certificateBlock = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g
const keyBlock = /-----BEGIN ([A-Z]+ )?PRIVATE KEY-----/

function parseChain(path: string, pem: Buffer | null, mistakes: string[]): X509Certificate[] {
  if (pem === null) return []
  const text = pem.toString('latin1')
  const blocks = text.match(certificateBlock) ?? []
  if (blocks.length === 0) {
    mistakes.push(
      keyBlock.test(text)
        ? `${path}: holds a private key, not a certificate`
        : `${path}: is not a certificate in PEM (no complete BEGIN CERTIFICATE … END CERTIFICATE in it)`,
    )
  }
  return blocks.flatMap((block, place) => {
    try {
      return [new X509Certificate(block)]
    } catch {
      mistakes.push(`${path}: certificate ${place + 1} of ${blocks.length} can't be understood`)
      return []
    }
  })
}

function parseKey(path: string, pem: Buffer | null, mistakes: string[]): KeyObject | null {
  if (pem === null) return null
  try {
    return createPrivateKey(pem)
  } catch {
    const text = pem.toString('latin1')
    const isEncrypted = /ENCRYPTED/.test(text)
    mistakes.push(
      isEncrypted
        ? `${path}: the key is encrypted; one without a passphrase is accepted`
        : keyBlock.test(text)
          ? `${path}: the private key can't be understood`
          : `${path}: is not a private key in PEM (no BEGIN PRIVATE KEY in it)`,
    )
    return null
  }
}

/** What OpenSSL has against them that was not seen here (a key too short, an old digest); null: nothing. */
function refusalOf(cert: Buffer | null, key: Buffer | null, ca: Buffer | null): string | null {
  try {
    createSecureContext({
      ...(cert === null ? {} : { cert }),
      ...(key === null ? {} : { key }),
      ...(ca === null ? {} : { ca }),
    })
    return null
  } catch (error) {
    return (error as Error).message
  }
}

// --- Questions to one certificate -----------------------------------------------------------------------------------

/** Says when it expired or from when it is valid; null: it is valid now. */
export function untimely(certificate: X509Certificate, wallMs: number): string | null {
  if (wallMs > Date.parse(certificate.validTo)) return `expired on ${dayOf(certificate.validTo)}`
  if (wallMs < Date.parse(certificate.validFrom))
    return `is valid from ${dayOf(certificate.validFrom)} on only`
  return null
}

function dayOf(date: string): string {
  return new Date(date).toISOString().replace('.000Z', 'Z')
}

/** Whether a chain leads from the own certificate to one of the authorities. */
export function isIssuedBy(
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): boolean {
  let at = chain[0]
  for (let hops = 0; at !== undefined && hops <= chain.length; hops++) {
    const child = at
    const signs = (parent: X509Certificate) => child.checkIssued(parent) && child.verify(parent.publicKey)
    if (authorities.some(signs)) return true
    at = chain.find(each => each !== child && signs(each))
  }
  return false
}

/** Whether it is good for a server that is dialled by this name or address. */
export function namesHost(certificate: X509Certificate, host: string): boolean {
  const found = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)
  return found !== undefined
}

/** URIs among the subject alternative names. Names with unusual characters come quoted, and are none that we know. */
export function urisOf(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? '')
    .split(', ')
    .filter(each => each.startsWith('URI:'))
    .map(each => each.slice('URI:'.length))
}

export interface Subject {
  /** Empty: none, or several. */
  readonly commonName: string
  readonly units: readonly string[]
}

export function subjectOf(certificate: X509Certificate): Subject {
  // From the object and not from the text, where values are escaped.
  const { CN, OU } = (certificate.toLegacyObject().subject ?? {}) as unknown as Record<string, unknown>
  return {
    commonName: typeof CN === 'string' ? CN : '',
    units: [OU].flat().filter((each): each is string => typeof each === 'string'),
  }
}

/** For people. */
export function nameOf(certificate: X509Certificate): string {
  return subjectOf(certificate).commonName || certificate.subject?.replaceAll('\n', ', ') || 'nobody'
}
