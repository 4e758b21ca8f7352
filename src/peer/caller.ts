/**
 * Who is at the other end of a connection, by its certificate, and what that lets it say:
 *
 *   URI SAN roundhouse://node/<id>   node <id>: may speak as that node, and call like any client
 *   OU = admin                       may use roundhouse.v1.Admin
 *   any of the CA                    a client; its CN is the user
 *
 * Where callers are not checked (no TLS, or no CA) there is no caller, and anyone is anyone.
 */
import type { X509Certificate } from 'node:crypto'
import type { Metadata } from '@grpc/grpc-js'
import { RoundhouseError } from '../errors.ts'
import { nameOf, subjectOf, urisOf } from '../lib/certificates.ts'
import { nodeOfUri, nodeUri } from '../lib/node-uri.ts'

export interface Caller {
  /** For people. */
  readonly name: string
  /** The certificate's common name. */
  readonly user: string
  /** The node it belongs to; null: it is no node's. */
  readonly node: string | null
  readonly isAdmin: boolean
}

/** By a call's metadata, which nobody but the server's gate can bind to a caller; null: callers are not checked. */
export type CallerOf = (metadata: Metadata) => Caller | null

export const nobodyIsChecked: CallerOf = () => null

/** Of a certificate that was verified. */
export function callerOfCertificate(certificate: X509Certificate): Caller {
  const { commonName, units } = subjectOf(certificate)
  const nodes = urisOf(certificate)
    .map(nodeOfUri)
    .filter(each => each !== null)
  // One that belongs to several says of none that it is it.
  const node = nodes.length === 1 ? nodes[0]! : null
  const isAdmin = units.includes('admin')
  const kind = node !== null ? 'node' : isAdmin ? 'admin' : 'client'
  return { name: `${kind} ${node ?? nameOf(certificate)}`, user: commonName, node, isAdmin }
}

/** Throws DENIED when the caller is no node. */
export function demandNode(caller: Caller | null, what: string): void {
  if (caller === null || caller.node !== null) return
  const needed = `it needs the certificate of a node, with the URI ${nodeUri('ID')}`
  throw new RoundhouseError('DENIED', { who: caller.name, what, needed })
}

/** Throws DENIED or WRONG_IDENTITY when the caller is not the node that it says it is. */
export function demandIdentity(caller: Caller | null, claimed: string): void {
  demandNode(caller, 'speak as a peer')
  if (caller === null || caller.node === claimed) return
  throw new RoundhouseError('WRONG_IDENTITY', { certificate: caller.name, claimed })
}

/** Throws DENIED when the caller is no admin. */
export function demandAdmin(caller: Caller | null, what: string): void {
  if (caller === null || caller.isAdmin) return
  throw new RoundhouseError('DENIED', {
    who: caller.name,
    what,
    needed: 'it needs the certificate of an admin, with OU=admin',
  })
}
