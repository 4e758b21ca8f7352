import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createServer } from 'node:tls'
import { readSettings } from '../../src/config.ts'
import { startNode } from '../../src/start-node.ts'
import { freePort } from '../lib/cluster-node.ts'
import { until } from '../wire/grpc/harness.ts'
import { CertificateDirectory, emptyDirectory } from './certificates.ts'
import { type LogLine, memoryLogger } from './tls-server.ts'

describe('a node without TLS whose seed speaks it', () => {
  it('warns of that, once, while it waits', async () => {
    const { cert, key } = new CertificateDirectory('node1').of('node1')
    let heard = 0
    const seed = createServer({
      ...{ cert: readFileSync(cert), key: readFileSync(key) },
      // Of each handshake, and of none that is not one.
      ALPNCallback: () => {
        heard++
        return 'h2'
      },
    })
    seed.on('tlsClientError', () => {})
    await new Promise<void>(resolve => seed.listen(0, '127.0.0.1', resolve))
    const address = `127.0.0.1:${(seed.address() as AddressInfo).port}`
    const lines: LogLine[] = []
    const flags = {
      ...{ 'node-id': 'n2', host: '127.0.0.1', port: String(await freePort()), seed: address },
      'data-dir': join(emptyDirectory(), 'n2'),
    }
    const node = await startNode(readSettings(flags, {}), memoryLogger(lines), new AbortController().signal)
    try {
      await until('it has asked three times', () => heard >= 3, 20_000)
      const [warning, ...more] = lines.filter(({ level, fields }) => level === 'warn' && 'why' in fields)
      assert.deepEqual([warning?.message, warning?.fields.address], ['TLS keeps nodes apart', address])
      assert.match(
        String(warning?.fields.why),
        /^it speaks TLS and no certificates are given; TLS_CA_PATH names/,
      )
      assert.deepEqual(more, [])
    } finally {
      await node.stop()
      seed.close()
    }
  })
})
