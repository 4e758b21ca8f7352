/**
 * TLS for `dev start`: from the variables that the other verbs take, and the file names that certs.sh writes. Each node
 * needs a certificate of its own, so it takes NODE.crt and NODE.key beside those that are named; the supervisor asks the
 * nodes for their status, so it needs an admin's.
 */
import { dirname, join } from 'node:path'
import { RoundhouseError } from '../errors.ts'
import { type CertificateFiles, type Certificates, loadCertificates, subjectOf } from '../lib/certificates.ts'
import { loadNodeCertificates } from '../lib/node-certificates.ts'

export interface DevTls {
  /** What the supervisor shows the nodes. */
  readonly admin: Certificates
  filesOf(nodeId: string): CertificateFiles
}

/** null: TLS is off. Throws CONFIG. */
export function devTlsOf(env: Readonly<Record<string, string | undefined>>): DevTls | null {
  const { TLS_CA_PATH: ca = '', TLS_CERT_PATH: cert = '', TLS_KEY_PATH: key = '' } = env
  if (ca === '' && cert === '' && key === '') return null
  if (ca === '') {
    throw wrong([
      'TLS_CERT_PATH or TLS_KEY_PATH is set and TLS_CA_PATH is not: nodes that are started together check each other by their CA',
    ])
  }
  const directory = dirname(cert === '' ? ca : cert)
  const filesOf = (name: string) => ({
    cert: join(directory, `${name}.crt`),
    key: join(directory, `${name}.key`),
    ca,
  })
  const own = cert === '' || key === '' ? null : loadCertificates({ cert, key, ca }, Date.now())
  if (own !== null && !own.ok) throw wrong(own.mistakes)
  if (own !== null && subjectOf(own.value.chain[0]!).units.includes('admin')) {
    return { admin: own.value, filesOf }
  }
  const admin = loadCertificates(filesOf('admin'), Date.now())
  if (!admin.ok) {
    throw wrong([
      ...admin.mistakes,
      'npm start asks its nodes for their status, which takes an admin’s certificate: ./certs.sh makes it',
    ])
  }
  return { admin: admin.value, filesOf }
}

/** Before any of them starts. Throws CONFIG with what is wrong with all of them. */
export function checkCertificates(tls: DevTls | null | undefined, nodeIds: readonly string[]): void {
  if (tls === null || tls === undefined) return
  const mistakes = nodeIds.flatMap(nodeId => {
    const files = tls.filesOf(nodeId)
    const loaded = loadNodeCertificates({ nodeId, server: files, peer: files }, Date.now())
    return loaded.ok ? [] : [...loaded.mistakes, `./certs.sh ${nodeId} makes or mends these two`]
  })
  if (mistakes.length > 0) throw wrong([...new Set(mistakes)])
}

function wrong(mistakes: readonly string[]): RoundhouseError {
  return new RoundhouseError('CONFIG', { mistakes: mistakes.map(each => `TLS: ${each}`) })
}
