import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { getVerb } from '../../src/cli/get.ts'
import { healthVerb } from '../../src/cli/health.ts'
import { setVerb } from '../../src/cli/set.ts'
import { statusVerb } from '../../src/cli/status.ts'
import { fakeShell } from '../cli/fake-cluster.ts'
import { eventually, fastFlags } from '../lib/cluster-harness.ts'
import { freePort, NodeProcess, removeDirectory, temporaryDirectory } from '../lib/cluster-node.ts'
import { CertificateDirectory } from '../tls/certificates.ts'

interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

describe('three nodes with TLS', () => {
  const directory = temporaryDirectory()
  const nodes: NodeProcess[] = []
  let home: CertificateDirectory

  const variables = (name: string): Record<string, string> => {
    const { cert, key, ca } = home.of(name)
    return { TLS_CERT_PATH: cert, TLS_KEY_PATH: key, TLS_CA_PATH: ca }
  }
  const roundhouse = async (env: Record<string, string>, ...args: string[]): Promise<Said> => {
    const shell = fakeShell({ ROUNDHOUSE_NODE: nodes.map(each => each.address).join(','), ...env })
    const code = await runCli(args, shell, [setVerb, getVerb, statusVerb, healthVerb])
    return { code, out: shell.stdout.text(), err: shell.stderr.text() }
  }
  const flagsOf = (id: string) => {
    const { cert, key, ca } = home.of(id)
    return ['--tls-cert-path', cert, '--tls-key-path', key, '--tls-ca-path', ca]
  }
  const makeNode = async (id: string, as = id) => {
    const seeds = nodes.map(each => each.address).join(',')
    const place = seeds === '' ? ['--bootstrap'] : ['--seed', seeds]
    const flags = ['--shard-count', '8', ...fastFlags, ...place, ...flagsOf(as)]
    return new NodeProcess(id, await freePort(), join(directory, id), flags)
  }

  before(async () => {
    home = new CertificateDirectory()
    for (const id of ['node1', 'node2', 'node3']) {
      const node = await makeNode(id)
      nodes.push(node)
      node.start()
    }
    await eventually('all shards have three voters', 30_000, async () => {
      const { code, out, err } = await roundhouse(variables('admin'), 'status', '-o', 'json')
      assert.equal(code, 0, out + err + nodes.map(each => each.output).join('\n'))
      const { shards } = JSON.parse(out) as { shards: { leader: string | null; voters: string[] }[] }
      return shards.length === 8 && shards.every(each => each.leader !== null && each.voters.length === 3)
    })
  })
  after(async () => {
    await Promise.all(nodes.map(each => each.kill()))
    removeDirectory(directory)
  })

  it('are a cluster that serves clients with a certificate, from every node', async () => {
    for (const [place, key] of ['a', 'b', 'c', 'd'].entries())
      assert.equal((await roundhouse(variables('root'), 'set', key, `value ${place}`)).code, 0)
    for (const node of nodes)
      for (const [place, key] of ['a', 'b', 'c', 'd'].entries()) {
        const got = await roundhouse(variables('root'), 'get', key, '--node', node.address)
        assert.deepEqual(got, { code: 0, out: `value ${place}\n`, err: '' })
      }
    const { cert, key, ca } = home.of('root')
    const flags = ['--tls-cert-path', cert, '--tls-key-path', key, '--tls-ca-path', ca]
    assert.equal((await roundhouse({}, 'get', 'a', ...flags)).out, 'value 0\n')
    // A container's health check has its node's own certificate.
    assert.equal((await roundhouse(variables('node1'), 'health', '--node', nodes[0]!.address)).code, 0)
  })

  it('tell who has no certificate, the wrong one, or none that TLS needs, what is missing', async () => {
    const refused = async (env: Record<string, string>, pattern: RegExp, ...args: string[]) => {
      const { code, out, err } = await roundhouse(env, ...args)
      assert.deepEqual([code, out], [1, ''], err)
      assert.match(err, pattern)
    }
    const { ca } = home.of('root')
    await refused({}, /no TLS with .*: it speaks TLS and no certificates are given; TLS_CA_PATH/, 'get', 'a')
    await refused({ TLS_CA_PATH: ca }, /NOAUTH .*presents no certificate;.*TLS_CERT_PATH/, 'get', 'a')
    await refused(variables('root'), /NOPERM client root may not call .*Status.*OU=admin/, 'status')
    const abroad = new CertificateDirectory('client:root')
    const theirs = abroad.of('root')
    await refused(
      { TLS_CA_PATH: theirs.ca },
      /no TLS with .*: the handshake failed: .* \((UNABLE_TO|SELF_SIGNED)/,
      ...['get', 'a'],
    )
    await refused(
      { TLS_CA_PATH: ca, TLS_CERT_PATH: theirs.cert, TLS_KEY_PATH: theirs.key },
      /NOAUTH .*is not of this node's CA/,
      ...['get', 'a'],
    )
    const { code, err } = await roundhouse({ TLS_CA_PATH: ca, TLS_CERT_PATH: theirs.cert }, 'get', 'a')
    assert.deepEqual([code, /a certificate without its key/.test(err)], [2, true])
  })

  it('refuse a node that comes with another’s certificate, and it says why it does not start', async () => {
    const impostor = await makeNode('node4', 'node3')
    impostor.start()
    assert.equal((await impostor.ended).code, 2)
    assert.match(
      impostor.output,
      /the certificate of node3 is not this node's: roundhouse:\/\/node\/node4 must be/,
    )
  })

  it('take renewed certificates while they serve, and form again with them after a restart', async () => {
    const names = ['node1', 'node2', 'node3', 'root', 'admin']
    for (const name of names) rmSync(home.file(`${name}.crt`))
    home.make()
    for (const node of nodes)
      await eventually(`${node.id} reloads`, 10_000, () => node.output.includes('certificates reloaded'))
    assert.equal((await roundhouse(variables('root'), 'set', 'a', 'after')).code, 0)
    const last = nodes[2]!
    await last.stop()
    last.start()
    await eventually('node3 answers again', 20_000, async () => {
      const { out } = await roundhouse(variables('root'), 'get', 'a', '--node', last.address)
      return out === 'after\n'
    })
    for (const node of nodes) assert.doesNotMatch(node.output, /DeprecationWarning|does not name the address/)
  })
})

describe('a node without TLS', () => {
  it('is told apart from one with it by a client that has certificates', async () => {
    const home = new CertificateDirectory('client:root')
    const directory = temporaryDirectory()
    const node = new NodeProcess('plain1', await freePort(), join(directory, 'plain1'), ['--bootstrap'])
    node.start()
    try {
      const { cert, key, ca } = home.of('root')
      const flags = [
        '--tls-cert-path',
        cert,
        '--tls-key-path',
        key,
        '--tls-ca-path',
        ca,
        '--node',
        node.address,
      ]
      const found = await eventually('it listens', 20_000, async () => {
        const shell = fakeShell({})
        const code = await runCli(['get', 'a', ...flags], shell, [getVerb])
        return code === 75 ? null : { code, err: shell.stderr.text() }
      })
      assert.equal(found.code, 1)
      assert.match(
        found.err,
        /no TLS with 127\.0\.0\.1:\d+: it speaks no TLS and certificates are given; without TLS_CA_PATH/,
      )
    } finally {
      await node.kill()
      removeDirectory(directory)
    }
  })
})
