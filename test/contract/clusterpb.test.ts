import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Client, credentials, type ServiceError } from '@grpc/grpc-js'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { CallResult } from '../../src/node/ports.ts'
import { type Harness, startServer } from '../wire/grpc/harness.ts'

/**
 * The bytes of the clients that Roundhouse inherits: written here by hand, so that no change of a .proto file can pass by
 * changing both sides.
 */
describe('clusterpb.ClusterNode, as its first clients know it', () => {
  let h: Harness
  let client: Client
  before(async () => {
    h = await startServer()
    client = new Client(h.address, credentials.createInsecure())
  })
  after(async () => {
    client.close()
    await h.close()
  })

  const raw = (bytes: Buffer) => bytes
  const send = (method: string, hex: string) =>
    new Promise<string>((resolve, reject) => {
      const done = (error: ServiceError | null, answer?: Buffer) =>
        error === null ? resolve(answer!.toString('hex')) : reject(error)
      const request = Buffer.from(hex.replaceAll(' ', ''), 'hex')
      client.makeUnaryRequest(`/clusterpb.ClusterNode/${method}`, raw, raw, request, done)
    })

  // command (1) = HSET, key (2) = h, args (3) = f, v
  const request = '0a04 48534554 1201 68 1a01 66 1a01 76'

  it('takes command, key and args from the fields 1, 2 and 3', async () => {
    await send('RunCommand', request)
    const { command, args } = h.service.calls.at(-1)!
    assert.deepEqual([command, args.map(each => Buffer.from(each).toString())], ['HSET', ['h', 'f', 'v']])
  })

  const replies: [string, CallResult['reply'], string][] = [
    ['a missing value as nothing', { kind: 'nil' }, ''],
    ['a value in field 2', { kind: 'value', value: fromUtf8('ab') }, '12026162'],
    ['an empty value in field 2', { kind: 'value', value: fromUtf8('') }, '1200'],
    ['success in field 3', { kind: 'success', success: true }, '1801'],
    ['a refusal in field 3', { kind: 'success', success: false }, '1800'],
    ['a count in field 4', { kind: 'count', count: 300 }, '20ac02'],
    ['a negative count in ten bytes', { kind: 'count', count: -1 }, '20ffffffffffffffffff01'],
    [
      'a list in field 5, of keys (1) and values (2)',
      { kind: 'list', items: [{ key: fromUtf8('k'), value: fromUtf8('v') }, { value: fromUtf8('') }] },
      '2a0c 0a06 0a016b 120176 0a02 1200',
    ],
  ]
  for (const [what, reply, hex] of replies) {
    it(`answers ${what}`, async () => {
      h.service.onExecute = async () => ({ reply, revision: 0, lagMs: 0 })
      assert.equal(await send('RunCommand', request), hex.replaceAll(' ', ''))
    })
  }

  it('takes a heartbeat of node_id (1), node_addr (2), alive (3), last_seen (4) and answers with peers in field 1', async () => {
    const node = '0a02 6e37 1203 783a31 1801 2005'
    h.service.view = []
    const answer = await send('Heartbeat', `0a0d ${node} 120d ${node}`)
    // cluster_id (16) and wall_ms (17) are unknown to those clients.
    assert.match(answer, /^82010263318801/)
  })
})
