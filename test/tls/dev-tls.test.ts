import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { describe, it } from 'node:test'
import { checkCertificates, devTlsOf } from '../../src/cli/dev-tls.ts'
import { isError } from '../../src/errors.ts'
import { subjectOf } from '../../src/lib/certificates.ts'
import { CertificateDirectory } from './certificates.ts'

const mistakesOf = (run: () => unknown): string => {
  try {
    run()
    return ''
  } catch (error) {
    if (isError(error, 'CONFIG')) return error.facts.mistakes.join('\n')
    throw error
  }
}

describe('npm start with TLS', () => {
  const home = new CertificateDirectory('node1', 'node2', 'client:root', 'admin:admin', 'admin:bob')
  const env = (name: string) => ({
    TLS_CERT_PATH: home.of(name).cert,
    TLS_KEY_PATH: home.of(name).key,
    TLS_CA_PATH: home.of(name).ca,
  })

  it('is off without variables, and on with the CA alone', () => {
    assert.equal(devTlsOf({}), null)
    const tls = devTlsOf({ TLS_CA_PATH: home.file('ca.crt') })!
    assert.deepEqual(tls.filesOf('node2'), home.of('node2'))
    assert.equal(subjectOf(tls.admin.chain[0]!).commonName, 'admin')
    checkCertificates(tls, ['node1', 'node2'])
  })

  it('asks its nodes as the admin that is named, else as the one beside them', () => {
    assert.equal(subjectOf(devTlsOf(env('bob'))!.admin.chain[0]!).commonName, 'bob')
    assert.equal(subjectOf(devTlsOf(env('root'))!.admin.chain[0]!).commonName, 'admin')
    assert.deepEqual(devTlsOf(env('root'))!.filesOf('node1'), home.of('node1'))
  })

  it('refuses to start where a certificate is missing, with the command that makes it', () => {
    const { TLS_CERT_PATH, TLS_KEY_PATH } = env('root')
    assert.match(
      mistakesOf(() => devTlsOf({ TLS_CERT_PATH, TLS_KEY_PATH })),
      /TLS_CA_PATH is not/,
    )
    const missing = mistakesOf(() => checkCertificates(devTlsOf(env('root')), ['node1', 'node3', 'node4']))
    assert.match(missing, /node3\.crt: can't be read: ENOENT.*\n(.*\n)*.*\.\/certs\.sh node3 makes/)
    assert.match(missing, /\.\/certs\.sh node4 makes/)
    assert.doesNotMatch(missing, /node1/)
    rmSync(home.file('admin.key'))
    assert.match(
      mistakesOf(() => devTlsOf(env('root'))),
      /admin\.key: can't be read.*\n.*an admin’s certificate: \.\/certs\.sh/,
    )
  })
})
