import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { isIssuedBy, subjectOf } from '../../src/lib/certificates.ts'
import { CertificateDirectory, certsProgram, emptyDirectory } from './certificates.ts'

const certificate = (home: CertificateDirectory, name: string) =>
  new X509Certificate(readFileSync(home.file(`${name}.crt`)))
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
const run = (...args: string[]) => spawnSync(certsProgram, args, { encoding: 'utf8' })

describe('certs.sh', () => {
  /** Made once; who changes something does it in a copy. */
  const made = new CertificateDirectory()

  it('writes a CA, four nodes, two clients and an admin, each for what it is', () => {
    const names = ['admin', 'ca', 'node1', 'node2', 'node3', 'node4', 'nobody', 'root']
    assert.deepEqual(
      readdirSync(made.path).sort(),
      names.flatMap(name => [`${name}.crt`, `${name}.key`]).sort(),
    )
    const ca = certificate(made, 'ca')
    assert.equal(ca.ca, true)
    for (const name of names.filter(each => each !== 'ca')) {
      const issued = certificate(made, name)
      assert.ok(isIssuedBy([issued], [ca]), name)
      assert.equal(issued.ca, false)
      const isNode = name.startsWith('node')
      assert.deepEqual(subjectOf(issued), {
        commonName: name,
        units: isNode ? ['node'] : name === 'admin' ? ['admin'] : [],
      })
      assert.equal(
        issued.subjectAltName,
        isNode
          ? `DNS:${name}, DNS:localhost, IP Address:127.0.0.1, URI:roundhouse://node/${name}`
          : undefined,
      )
      const uses = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' }
      assert.deepEqual([...issued.keyUsage].sort(), isNode ? [uses.server, uses.client] : [uses.client])
      assert.equal(issued.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1')
    }
  })

  it('gives keys to their owner alone', () => {
    const home = new CertificateDirectory('node1')
    assert.deepEqual([modeOf(home.file('node1.key')), modeOf(home.file('ca.key'))], ['600', '600'])
    assert.deepEqual([modeOf(home.file('node1.crt')), modeOf(home.file('ca.crt'))], ['644', '644'])
    chmodSync(home.file('node1.key'), 0o644)
    home.make('node1')
    assert.equal(modeOf(home.file('node1.key')), '600')
  })

  it('keeps what is good and says so', () => {
    const home = new CertificateDirectory(made)
    const contents = () => readdirSync(home.path).map(name => readFileSync(home.file(name), 'utf8'))
    const before = contents()
    assert.equal(home.make(), `0 made, 8 kept in ${home.path}/\n`)
    assert.deepEqual(contents(), before)
  })

  it('adds names, with the host names that go with them, and looks after them from then on', () => {
    const home = new CertificateDirectory(made)
    const said = home.make('node5=10.0.0.5,n5.lan,fd00::5', 'client:ada', 'admin:bob')
    assert.match(
      said,
      /made {5}.*\/node5\.crt \(node\): it is new\n.*\/ada\.crt \(client\).*\n.*\/bob\.crt \(admin\)/,
    )
    const alternatives =
      'DNS:node5, DNS:localhost, IP Address:127.0.0.1, IP Address:10.0.0.5, DNS:n5.lan, IP Address:FD00:0:0:0:0:0:0:5, ' +
      'URI:roundhouse://node/node5'
    assert.equal(certificate(home, 'node5').subjectAltName, alternatives)
    assert.equal(home.make('node5'), `0 made, 2 kept in ${home.path}/\n`)
    // Everything that was signed by a CA that is gone is made anew, and stays what it was.
    rmSync(home.file('ca.crt'))
    assert.match(home.make(), /^11 made, 0 kept/m)
    assert.equal(certificate(home, 'node5').subjectAltName, alternatives)
    assert.deepEqual(subjectOf(certificate(home, 'bob')).units, ['admin'])
    assert.match(home.make('node5=n5.lan'), /node5\.crt \(node\): its host names are others now/)
  })

  it('renews what expired or will soon, and mends what does not fit, with the reason', () => {
    const home = new CertificateDirectory(made)
    home.issue({ name: 'node1', subject: '/O=Roundhouse/OU=node/CN=node1', days: -1 })
    home.issue({ name: 'node2', subject: '/O=Roundhouse/OU=node/CN=node2', days: 5 })
    writeFileSync(home.file('node3.crt'), 'nonsense')
    rmSync(home.file('node4.key'))
    const said = home.make()
    assert.match(said, /node1\.crt \(node\): the old one had expired/)
    assert.match(said, /node2\.crt \(node\): the old one would have expired within 30 days/)
    assert.match(said, /node3\.crt \(node\): the old one and its key did not fit/)
    assert.match(said, /node4\.crt \(node\): the old one and its key did not fit/)
    assert.match(said, /^4 made, 4 kept/m)
    assert.match(home.make(), /^0 made, 8 kept/m)
  })

  it('does not make a node of a person, sign without its key, or touch what others made', () => {
    const home = new CertificateDirectory(made)
    assert.match(
      run('--dir', home.path, 'root').stderr,
      /root\.crt is of the kind client, not node: remove it first/,
    )
    home.issue({ name: 'site', subject: '/O=Another/CN=site' })
    assert.match(run('--dir', home.path, 'site').stderr, /site\.crt was not made here/)
    rmSync(home.file('ca.key'))
    assert.match(home.make(), /^0 made, 8 kept/m)
    const refused = run('--dir', home.path, 'node5')
    assert.deepEqual([refused.status, existsSync(home.file('node5.crt'))], [1, false])
    assert.match(refused.stderr, /node5\.crt can't be made: .*ca\.key, which signs, is not here/)
  })

  it('refuses a command line that it does not understand, and writes nothing', () => {
    const path = emptyDirectory()
    for (const [args, why] of [
      [['--force'], /unknown option --force/],
      [['--days', 'many'], /'many' is not a number of days/],
      [['--days'], /--days needs a value/],
      [['no de'], /is not a name/],
      [['../node1'], /is not a name/],
      [['ca'], /'ca' is the name of the CA/],
      [['node1='], /host names with commas/],
      [['client:ada=host'], /only nodes have host names/],
    ] as const) {
      const { status, stderr } = run('--dir', path, ...args)
      assert.equal(status, 2, args.join(' '))
      assert.match(stderr, why)
    }
    assert.deepEqual(readdirSync(path), [])
    assert.match(run('--help').stdout, /^usage: \.\/certs\.sh/)
  })
})
