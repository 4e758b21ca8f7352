import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { credentials } from '@grpc/grpc-js'
import { ConsumeRequest, From, LogClient } from '../../../src/gen/log/v1/log.ts'
import { fromUtf8, toUtf8 } from '../../../src/lib/bytes.ts'
import { type Harness, startServer } from './harness.ts'

describe('a consumer that names its group', () => {
  let h: Harness
  let client: LogClient
  let committed = ''
  before(async () => {
    h = await startServer()
    client = new LogClient(h.address, credentials.createInsecure())
    await h.service.streams.create({
      ...{ name: 'orders', partitions: 1, retentionMs: null, retentionBytes: null, ifMissing: false },
    })
    const record = (text: string) => ({ value: fromUtf8(text), key: null, headers: [], type: 0 })
    const records = ['r0', 'r1', 'r2'].map(record)
    await h.service.streams.produce({
      stream: 'orders',
      partition: 0,
      records,
      session: null,
      timeoutMs: 1_000,
    })
    h.service.onExecute = async ({ command, args }) => {
      assert.deepEqual([command, ...args.map(toUtf8)], ['GROUP.OFFSETS', 'billing', '1'])
      const items = committed === '' ? [] : [{ key: fromUtf8('1 0'), value: fromUtf8(committed) }]
      return { reply: { kind: 'list', items }, revision: 1, lagMs: 0 }
    }
  })
  after(() => {
    client.close()
    return h.close()
  })

  async function read(more: Partial<ConsumeRequest> = {}): Promise<string> {
    const call = client.consumeStream(
      ConsumeRequest.fromPartial({ stream: 'orders', group: 'billing', idleMs: 0, batches: true, ...more }),
    )
    const texts: string[] = []
    for await (const { records } of call)
      texts.push(...records.map((each: { value: Buffer }) => each.value.toString()))
    return texts.join(' ')
  }

  it('begins at the beginning while nothing is committed', async () => assert.equal(await read(), 'r0 r1 r2'))

  it('begins at what was committed', async () => {
    committed = '2'
    assert.equal(await read(), 'r2')
  })

  it('begins where it says itself, if it does', async () => {
    committed = '2'
    assert.equal(await read({ offset: 1n }), 'r1 r2')
    assert.equal(await read({ from: From.EARLIEST }), 'r0 r1 r2')
  })

  it('begins at the first record there is, when what was committed is gone', async () => {
    committed = '0'
    await h.service.streams.truncate('orders', 0, 2)
    assert.equal(await read(), 'r2')
  })
})
