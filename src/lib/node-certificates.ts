/**
 * What a node needs for TLS: a certificate for its port and one for dialling peers, mostly the same one, and the CAs of
 * both. With a CA the others will ask this node who it is, so a certificate that they would refuse is refused here first.
 */
import {
  type CertificateFiles,
  type Certificates,
  isIssuedBy,
  type Loaded,
  loadCertificates,
  nameOf,
  urisOf,
} from './certificates.ts'
import { nodeUri } from './node-uri.ts'

export interface NodeCertificateFiles {
  /** Empty: not given yet, and then not checked. */
  readonly nodeId: string
  /** What the port presents, and which CA its callers need. */
  readonly server: CertificateFiles
  /** What this node presents when it dials a peer, and which CA the peer needs. */
  readonly peer: CertificateFiles
}

export type NodeCertificates = {
  readonly server: Certificates
  readonly peer: Certificates
}

export function pathsOf({ server, peer }: NodeCertificateFiles): string[] {
  const paths = [server, peer].flatMap(({ cert, key, ca }) => [cert, key, ca])
  return [...new Set(paths)].filter(path => path !== '')
}

export function loadNodeCertificates(files: NodeCertificateFiles, wallMs: number): Loaded<NodeCertificates> {
  const server = loadCertificates(files.server, wallMs)
  const peer = loadCertificates(files.peer, wallMs)
  const mistakes = [server, peer].flatMap(each => (each.ok ? [] : each.mistakes))
  if (files.server.cert === '')
    mistakes.push(
      `${files.server.ca || files.peer.cert || files.peer.ca}: given for TLS, and no certificate for the port`,
    )
  if (server.ok && peer.ok && mistakes.length === 0) {
    mistakes.push(...strangers(server.value, peer.value, files.nodeId))
    if (mistakes.length === 0) return { ok: true, value: { server: server.value, peer: peer.value } }
  }
  return { ok: false, mistakes: [...new Set(mistakes)] }
}

/** Why nodes with the same CAs would not let this one in. Certificates are checked only where there is a CA to do it. */
function strangers(server: Certificates, peer: Certificates, nodeId: string): string[] {
  const wrong: string[] = []
  const own = peer.chain[0]
  if (server.authorities.length > 0 && own !== undefined) {
    const uris = urisOf(own)
    if (nodeId !== '' && !uris.includes(nodeUri(nodeId))) {
      const others = uris.length === 0 ? 'no URI' : uris.join(', ')
      wrong.push(
        `${peer.files.cert}: the certificate of ${nameOf(own)} is not this node's: ` +
          `${nodeUri(nodeId)} must be among its subject alternative names, which have ${others}`,
      )
    }
    if (!isIssuedBy(peer.chain, server.authorities))
      wrong.push(`${peer.files.cert}: is not signed by the CA in ${server.files.ca}`)
  }
  if (peer.authorities.length > 0 && !isIssuedBy(server.chain, peer.authorities))
    wrong.push(`${server.files.cert}: is not signed by the CA in ${peer.files.ca}`)
  return wrong
}
