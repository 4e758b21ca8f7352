import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { before, describe, it } from 'node:test'
import { readSettings } from '../../src/config.ts'
import { isError } from '../../src/errors.ts'
import { type CertificateFiles, loadCertificates, namesHost } from '../../src/lib/certificates.ts'
import { nodeOfUri, nodeUri } from '../../src/lib/node-uri.ts'
import { CertificateDirectory, openssl } from './certificates.ts'

describe('certificates of a node', () => {
  let home: CertificateDirectory
  before(() => {
    home = new CertificateDirectory('node1', 'node2', 'client:root')
  })

  /** What `serve` refuses to start with. */
  const mistakes = (flags: Record<string, string>, env: Record<string, string> = {}): readonly string[] => {
    try {
      readSettings({ 'node-id': 'node1', ...flags }, env)
      return []
    } catch (error) {
      if (isError(error, 'CONFIG')) return error.facts.mistakes
      throw error
    }
  }
  const flagsOf = ({ cert, key, ca }: CertificateFiles) => ({
    'tls-cert-path': cert,
    'tls-key-path': key,
    'tls-ca-path': ca,
  })
  const own = () => home.of('node1')

  it('are accepted by flag, by variable, and by the names of other systems', () => {
    const { cert, key, ca } = own()
    assert.deepEqual(mistakes(flagsOf(own())), [])
    assert.deepEqual(mistakes({}, { TLS_CERT_PATH: cert, TLS_KEY_PATH: key, TLS_CA_PATH: ca }), [])
    const both = (side: string) => ({
      [`${side}-tls-cert-file`]: cert,
      [`${side}-tls-key-file`]: key,
      [`${side}-tls-ca-file`]: ca,
    })
    assert.deepEqual(mistakes({ ...both('server'), ...both('peer') }), [])
    assert.deepEqual(mistakes(both('server')), [])
    assert.deepEqual(mistakes({ 'tls-cert-path': cert, 'tls-key-path': key }), [])
  })

  it('come whole or not at all', () => {
    const { cert, key, ca } = own()
    assert.deepEqual(mistakes({ 'tls-cert-path': cert }), [`TLS: ${cert}: a certificate without its key`])
    assert.deepEqual(mistakes({ 'tls-ca-path': ca }), [
      `TLS: ${ca}: given for TLS, and no certificate for the port`,
    ])
    assert.deepEqual(mistakes({ 'tls-key-path': key })[0], `TLS: ${key}: a key without its certificate`)
    assert.deepEqual(
      mistakes({ 'peer-tls-cert-file': cert, 'peer-tls-key-file': key }).map(each => each.slice(-39)),
      ['given for TLS, and no certificate for the port'.slice(-39)],
    )
  })

  it('that can’t be used are refused with the file and what is wrong with it, all at once, beside all other mistakes', () => {
    const garbage = home.file('garbage.pem')
    writeFileSync(garbage, 'no PEM')
    const found = mistakes({
      port: 'eighty',
      'tls-cert-path': home.file('missing.crt'),
      'tls-key-path': garbage,
      'tls-ca-path': own().key,
    })
    assert.deepEqual(found, [
      '--port: "eighty" is not an integer from 1 to 65535',
      `TLS: ${home.file('missing.crt')}: can't be read: ENOENT: no such file or directory`,
      `TLS: ${own().key}: holds a private key, not a certificate`,
      `TLS: ${garbage}: is not a private key in PEM (no BEGIN PRIVATE KEY in it)`,
    ])
  })

  it('need the key that fits, not encrypted, and PEM that can be understood', () => {
    const wrongKey = { ...own(), key: home.of('node2').key }
    assert.deepEqual(mistakes(flagsOf(wrongKey)), [
      `TLS: ${wrongKey.key}: the key does not fit the certificate in ${wrongKey.cert}`,
    ])
    const encrypted = home.file('encrypted.key')
    openssl('pkcs8', '-topk8', '-v2', 'aes128', '-passout', 'pass:x', '-in', own().key, '-out', encrypted)
    assert.deepEqual(mistakes(flagsOf({ ...own(), key: encrypted })), [
      `TLS: ${encrypted}: the key is encrypted; one without a passphrase is accepted`,
    ])
    const broken = home.file('broken.crt')
    writeFileSync(broken, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    assert.deepEqual(mistakes(flagsOf({ ...own(), cert: broken })), [
      `TLS: ${broken}: certificate 1 of 1 can't be understood`,
    ])
  })

  it('that expired or are valid later only are refused', () => {
    const expired = home.issue({
      name: 'expired',
      subject: '/CN=node1',
      alternatives: 'URI:roundhouse://node/node1',
      days: -1,
    })
    assert.match(mistakes(flagsOf(expired)).join(), /expired\.crt: the certificate of node1 expired on 20/)
    const yesterday = loadCertificates(own(), Date.now() - 86_400_000)
    assert.match(yesterday.ok ? '' : yesterday.mistakes.join(), /of node1 is valid from 20.*Z on only/)
  })

  it('are this node’s, and of the CA that the others ask for', () => {
    const other = home.of('node2')
    assert.deepEqual(mistakes(flagsOf(other)), [
      `TLS: ${other.cert}: the certificate of node2 is not this node's: roundhouse://node/node1 must be among its ` +
        'subject alternative names, which have roundhouse://node/node2',
    ])
    assert.match(
      mistakes(flagsOf(home.of('root'))).join(),
      /certificate of root is not this node's.*which have no URI/,
    )
    const abroad = new CertificateDirectory('node1')
    assert.deepEqual(mistakes(flagsOf({ ...abroad.of('node1'), ca: own().ca })), [
      `TLS: ${abroad.of('node1').cert}: is not signed by the CA in ${own().ca}`,
    ])
    // Where nobody is asked for a certificate, any that fits its key will do.
    const { cert, key } = home.of('root')
    assert.deepEqual(mistakes({ 'tls-cert-path': cert, 'tls-key-path': key }), [])
  })

  it('may have certificates between them and the CA', () => {
    const { cert, key, ca } = own()
    const extensions = home.file('between.ext')
    writeFileSync(extensions, 'basicConstraints=critical,CA:true\n')
    const root = { crt: home.file('top.crt'), key: home.file('top.key') }
    const between = {
      crt: home.file('between.crt'),
      key: home.file('between.key'),
      csr: home.file('between.csr'),
    }
    const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    openssl(
      'req',
      '-x509',
      ...newKey,
      '-keyout',
      root.key,
      '-subj',
      '/CN=top',
      '-days',
      '1',
      '-out',
      root.crt,
    )
    openssl('req', ...newKey, '-keyout', between.key, '-subj', '/CN=between', '-out', between.csr)
    const sign = (csr: string, by: { crt: string; key: string }, ext: string, out: string) =>
      openssl(
        ...['x509', '-req', '-in', csr, '-CA', by.crt, '-CAkey', by.key, '-set_serial', '5', '-days', '1'],
        ...['-extfile', ext, '-out', out],
      )
    sign(between.csr, root, extensions, between.crt)
    const leaf = { csr: home.file('leaf.csr'), crt: home.file('leaf.crt'), ext: home.file('leaf.ext') }
    writeFileSync(leaf.ext, 'subjectAltName=URI:roundhouse://node/node1\n')
    openssl('req', '-new', '-key', key, '-subj', '/CN=node1', '-out', leaf.csr)
    sign(leaf.csr, between, leaf.ext, leaf.crt)
    assert.match(
      mistakes(flagsOf({ cert: leaf.crt, key, ca: root.crt })).join(),
      /leaf\.crt: is not signed by the CA in .*top\.crt/,
    )
    const chain = home.file('chain.crt')
    writeFileSync(chain, openssl('x509', '-in', leaf.crt) + openssl('x509', '-in', between.crt))
    assert.deepEqual(mistakes(flagsOf({ cert: chain, key, ca: root.crt })), [])
    // Two CAs at once, as while one takes the other's place.
    const twoCas = home.file('two.crt')
    writeFileSync(twoCas, openssl('x509', '-in', root.crt) + openssl('x509', '-in', ca))
    assert.deepEqual(mistakes(flagsOf({ cert, key, ca: twoCas })), [])
  })
})

describe('a certificate’s names', () => {
  it('are those it may be dialled by', () => {
    const home = new CertificateDirectory('node1=10.0.0.1,n1.lan')
    const loaded = loadCertificates(home.of('node1'), Date.now())
    assert.ok(loaded.ok)
    const own = loaded.value.chain[0]!
    const hosts = ['node1', 'localhost', '127.0.0.1', '10.0.0.1', 'n1.lan', 'node2', '10.0.0.2', '::1']
    assert.deepEqual(
      hosts.map(host => namesHost(own, host)),
      [true, true, true, true, true, false, false, false],
    )
  })
})

describe('a node’s URI', () => {
  it('names the node and nothing else', () => {
    assert.equal(nodeOfUri(nodeUri('node-1.a_b')), 'node-1.a_b')
    for (const other of [
      'roundhouse://node/',
      'roundhouse://node/a/b',
      'roundhouse://node/a?x',
      'roundhouse://client/a',
      'https://node/a',
      'roundhouse://node/a ',
    ])
      assert.equal(nodeOfUri(other), null, other)
  })
})
