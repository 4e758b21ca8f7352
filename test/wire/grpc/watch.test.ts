import assert from 'node:assert/strict'
import { connect } from 'node:http2'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { type ClientReadableStream, credentials, type ServiceError, status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../../src/errors.ts'
import { WatchClient, WatchRequest, WatchResponse } from '../../../src/gen/roundhouse/v1/watch.ts'
import type { WatchNews } from '../../../src/node/ports.ts'
import { type Harness, startServer, until } from './harness.ts'

/** One entry that sets so many keys. */
const entry = (index: number, count: number, valueBytes = 0): WatchNews => ({
  kind: 'changes',
  shard: 0,
  place: index,
  changes: Array.from({ length: count }, (_, number) => ({
    ...{ index, number, key: `k${number}`, kind: 'set', type: 'string', timeMs: 5 },
    value: new Uint8Array(valueBytes),
  })),
})

describe('roundhouse.v1.Watch', () => {
  let h: Harness
  let door: WatchClient
  const open = (request: Parameters<typeof WatchRequest.fromPartial>[0] = {}) =>
    door.watch(
      WatchRequest.fromPartial({
        target: { $case: 'prefix', value: Buffer.from('k') },
        values: true,
        ...request,
      }),
    )
  const endOf = (call: ClientReadableStream<WatchResponse>) =>
    new Promise<ServiceError>(resolve => call.once('error', resolve))
  const isOpen = (count: number) => until(`${count} are open`, () => h.service.watches.open_.size === count)
  beforeEach(async () => {
    h = await startServer()
    door = new WatchClient(h.address, credentials.createInsecure())
  })
  afterEach(async () => {
    door.close()
    await h.close()
  })

  it('reads no further for a client that does not', async () => {
    let reads = 0
    h.service.watches.onNext = () => entry(++reads, 8, 64 * 1024)
    const call = open()
    call.on('error', () => {})
    // grpc-js takes all there is until it was read for the first time.
    call.once('data', () => call.pause())
    await isOpen(1)
    let before = -1
    await until('it waits', async () => {
      const isSame = before === reads && reads > 0
      before = reads
      await new Promise(resolve => setTimeout(resolve, 100))
      return isSame && before === reads
    })
    assert.ok(reads < 30, `${reads} reads`)
    const at = reads
    call.resume()
    await until('it reads on', () => reads > at + 20)
    setImmediate(() => call.cancel())
    await isOpen(0)
  })

  it('may ask of all shards at once without a warning of listeners', async () => {
    const call = open()
    call.on('error', () => {})
    await isOpen(1)
    const warnings: string[] = []
    const note = (warning: Error) => void warnings.push(warning.name)
    process.on('warning', note)
    const { signal } = h.service.watches.wishes.at(-1)!
    for (let shard = 0; shard < 64; shard++) signal!.addEventListener('abort', () => {})
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', note)
    assert.deepEqual(warnings, [])
    setImmediate(() => call.cancel())
    await isOpen(0)
  })

  it('closes the watch of a client that goes', async () => {
    const call = open()
    call.on('error', () => {})
    await isOpen(1)
    setImmediate(() => call.cancel())
    await isOpen(0)
  })

  it('hands on what is asked, and the cursor with what comes', async () => {
    const news = [entry(9, 2), null] as (WatchNews | null)[]
    h.service.watches.onNext = () => news.shift() ?? null
    const call = open({ cursor: { 0: 7n }, progressMs: 100, values: false })
    call.on('error', () => {})
    const got: WatchResponse[] = []
    call.on('data', (message: WatchResponse) => got.push(message))
    await until('it says where it stands', () => got.length >= 3)
    assert.deepEqual(
      got.slice(0, 3).map(each => each.news?.$case),
      ['created', 'changes', 'progress'],
    )
    const [, changes] = got
    assert.ok(changes?.news?.$case === 'changes')
    assert.deepEqual(
      changes.news.value.changes.map(({ key, value, index }) => [key.toString(), value, index]),
      [
        ['k0', undefined, 9n],
        ['k1', undefined, 9n],
      ],
    )
    const { prefix, key, from } = h.service.watches.wishes[0]!
    assert.deepEqual([Buffer.from(prefix!), key, from], [Buffer.from('k'), null, new Map([[0, 7]])])
    setImmediate(() => call.cancel())
  })

  it('ends with the cursor before COMPACTED, and a short one in the status as well', async () => {
    h.service.watches.onNext = () =>
      new RoundhouseError('COMPACTED', { shard: 0, after: 1, start: 5, cursor: '0:7' })
    // Over bare HTTP/2, for grpc-js may hand out the status and drop what came before it.
    const session = connect(`http://${h.address}`)
    try {
      const stream = session.request({
        ...{ ':method': 'POST', ':path': '/roundhouse.v1.Watch/Watch' },
        ...{ 'content-type': 'application/grpc', te: 'trailers' },
      })
      const request = WatchRequest.encode(
        WatchRequest.fromPartial({ target: { $case: 'prefix', value: Buffer.from('k') } }),
      ).finish()
      const head = Buffer.alloc(5)
      head.writeUInt32BE(request.byteLength, 1)
      stream.end(Buffer.concat([head, request]))
      let trailers: Record<string, unknown> = {}
      stream.on('trailers', given => {
        trailers = { ...given }
      })
      const chunks: Buffer[] = []
      for await (const chunk of stream) chunks.push(chunk as Buffer)
      const got: WatchResponse['news'][] = []
      for (let rest = Buffer.concat(chunks); rest.byteLength > 0; ) {
        const end = 5 + rest.readUInt32BE(1)
        got.push(WatchResponse.decode(rest.subarray(5, end)).news)
        rest = rest.subarray(end)
      }
      const value = { places: { 0: 7n } }
      assert.deepEqual(got, [
        { $case: 'created', value },
        { $case: 'compacted', value },
      ])
      assert.equal(Number(trailers['grpc-status']), status.OUT_OF_RANGE)
      const details = Buffer.from(String(trailers['grpc-status-details-bin']), 'base64').toString('latin1')
      assert.ok(details.includes('\n\x06cursor\x12\x030:7'), details)
    } finally {
      session.destroy()
    }
  })

  it('ends as UNAVAILABLE when the node stops', async () => {
    h.service.watches.onNext = () => null
    const other = open()
    other.resume()
    const ended = endOf(other)
    await isOpen(1)
    const closed = h.close()
    assert.equal((await ended).code, status.UNAVAILABLE)
    await closed
  })

  it('refuses what can’t be', async () => {
    for (const request of [
      { progressMs: 5 },
      { revision: 1n, cursor: { 0: 1n } },
      { cursor: { 0: 2n ** 63n } },
    ]) {
      const call = open(request)
      call.resume()
      assert.equal((await endOf(call)).code, status.INVALID_ARGUMENT)
    }
    assert.equal(h.service.watches.open_.size, 0)
  })
})
