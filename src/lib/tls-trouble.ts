/**
 * What to say when TLS is why a node can't be talked to: gRPC reports that a connection is gone, and a person should not
 * have to guess which side was configured how. So the connection is tried once more, by hand.
 */
import { connect as connectPlain } from 'node:net'
import { connect } from 'node:tls'
import type { Certificates } from './certificates.ts'
import { tlsOptions } from './tls-channel.ts'

const probeMsMax = 1_500
/** A server that speaks HTTP/2 in plain text says so at once. */
const http2SettingsFrame = 4

/**
 * Why a node that accepts connections can't be talked to; null when TLS is not the reason, nobody listens for instance.
 * `tls` is what the call was made with.
 */
export async function tlsTrouble(
  host: string,
  port: number,
  tls: Certificates | null,
): Promise<string | null> {
  if (tls === null) {
    const heard = await shakeHands(host, port, null)
    return heard === 'secure'
      ? 'it speaks TLS and no certificates are given; TLS_CA_PATH names its CA, TLS_CERT_PATH and TLS_KEY_PATH your own ' +
          '(or --tls-ca-path, --tls-cert-path, --tls-key-path)'
      : null
  }
  const heard = await shakeHands(host, port, tls)
  if (heard === 'secure' || heard === null) return null
  if (await speaksPlainly(host, port)) {
    return 'it speaks no TLS and certificates are given; without TLS_CA_PATH, TLS_CERT_PATH and TLS_KEY_PATH the connection is a plain one'
  }
  if (heard.code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `its certificate is for other names: ${heard.message}`
  return `the handshake failed: ${heard.message} (${heard.code})`
}

interface HandshakeFailure {
  readonly code: string
  readonly message: string
}

const noConnection = ['ECONNREFUSED', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN']

/** Without certificates of our own any of the other side will do. null: no connection, or no answer. */
function shakeHands(
  host: string,
  port: number,
  tls: Certificates | null,
): Promise<'secure' | HandshakeFailure | null> {
  const options =
    tls === null
      ? { ...tlsOptions(host, { chainPem: null, keyPem: null, caPem: null }), rejectUnauthorized: false }
      : tlsOptions(host, tls)
  return new Promise(resolve => {
    const socket = connect({ ...options, port, timeout: probeMsMax }, () => end('secure'))
    const end = (heard: 'secure' | HandshakeFailure | null) => {
      socket.destroy()
      resolve(heard)
    }
    socket.on('timeout', () => end(null))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? 'UNKNOWN'
      end(noConnection.includes(code) ? null : { code, message: error.message })
    })
  })
}

function speaksPlainly(host: string, port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connectPlain({ host, port, timeout: probeMsMax })
    const end = (speaks: boolean) => {
      socket.destroy()
      resolve(speaks)
    }
    // Some servers wait for the client's preface.
    socket.once('connect', () =>
      socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', 'latin1'),
    )
    socket.once('data', bytes => end(bytes[3] === http2SettingsFrame))
    socket.on('timeout', () => end(false))
    socket.on('error', () => end(false))
    socket.on('close', () => end(false))
  })
}
