/**
 * Why nobody answers at an address, in words. gRPC says that there is no connection; a person wants to know whether the
 * port is wrong, the name unknown, or TLS configured on one side only. So it is tried once more by hand.
 */
import { connect } from 'node:net'
import type { Certificates } from '../lib/certificates.ts'
import { tlsTrouble } from '../lib/tls-trouble.ts'

const probeMsMax = 1_000

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nobody listens there',
  ENOTFOUND: 'no such host',
  EAI_AGAIN: 'its name could not be looked up',
  EHOSTUNREACH: 'no route to the host',
  ENETUNREACH: 'no route to the network',
}

export async function probe(host: string, port: number, tls: Certificates | null): Promise<string> {
  const refusal = await new Promise<string | null>(resolve => {
    const socket = connect({ host, port })
    const end = (why: string | null) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(why)
    }
    const timer = setTimeout(() => end(`no connection within ${probeMsMax} ms`), probeMsMax)
    socket.once('connect', () => end(null))
    socket.once('error', (error: NodeJS.ErrnoException) => end(words[error.code ?? ''] ?? error.message))
  })
  if (refusal !== null) return refusal
  const trouble = await tlsTrouble(host, port, tls)
  if (trouble === null) return 'something listens there that does not speak gRPC'
  // What follows the semicolon is advice for the shell.
  return tls === null
    ? "it speaks TLS: give connect the option tls, with the nodes' CA and, where they ask for one, your certificate"
    : trouble.split('; ')[0]!
}
