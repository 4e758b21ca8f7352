import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PeerCertificate } from 'node:tls'
import { tlsOptions } from '../../src/lib/tls-channel.ts'
import { ClusterName } from '../../src/peer/cluster-name.ts'

describe('the name of a cluster', () => {
  it('stands for all addresses behind it, as of the last look', async () => {
    let behind = ['10.0.0.1', 'fd00::2']
    const name = new ClusterName('nodes.example', async host => {
      assert.equal(host, 'nodes.example')
      return behind.map(address => ({ address }))
    })
    assert.equal(name.nameOf('10.0.0.1'), null)
    assert.deepEqual(await name.look(), ['10.0.0.1', 'fd00::2'])
    assert.equal(name.nameOf('fd00::2'), 'nodes.example')
    behind = ['10.0.0.3']
    assert.deepEqual(await name.look(), ['10.0.0.3'])
    assert.deepEqual([name.nameOf('10.0.0.1'), name.nameOf('10.0.0.3')], [null, 'nodes.example'])
  })

  it('is what the certificate of an address behind it may be good for, and no other name is', () => {
    const material = { chainPem: null, keyPem: null, caPem: null }
    const check = (certificate: string, name: string | null) =>
      tlsOptions('10.0.0.1', material, name).checkServerIdentity!('', {
        subject: {},
        subjectaltname: certificate,
      } as unknown as PeerCertificate)?.message
    assert.equal(check('DNS:node1, IP Address:10.0.0.1', null), undefined)
    assert.equal(check('DNS:node1, IP Address:10.0.0.1', 'nodes.example'), undefined)
    assert.equal(check('DNS:node1, DNS:nodes.example', 'nodes.example'), undefined)
    assert.match(check('DNS:node1, DNS:nodes.example', null) ?? '', /10\.0\.0\.1/)
    assert.match(check('DNS:node1', 'nodes.example') ?? '', /10\.0\.0\.1/)
    assert.equal(tlsOptions('10.0.0.1', material, 'nodes.example').servername, 'nodes.example')
    assert.equal(tlsOptions('10.0.0.1', material).servername, undefined)
  })
})
