import assert from 'node:assert/strict'
import type { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import {
  CallError,
  type Client,
  type ConsumeOptions,
  connect,
  type StreamRecord,
} from '../../src/client/entry.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `r${from + i}`)

describe('streams of the client', () => {
  let cluster: Cluster
  let client: Client
  before(async () => {
    cluster = await startCluster({ nodes: 3, shardCount: 8 })
    client = await connect({ addresses: cluster.addresses, timeout: 20_000 })
  })
  after(async () => {
    await client.destroy()
    await cluster.stop()
  })

  /** What is there, or as many as are asked for. */
  async function read(
    stream: string,
    options: ConsumeOptions = {},
    max = Number.POSITIVE_INFINITY,
  ): Promise<StreamRecord<string>[]> {
    const found: StreamRecord<string>[] = []
    for await (const record of client.consume(stream, options)) if (found.push(record) >= max) break
    return found
  }
  const values = async (...args: Parameters<typeof read>) => (await read(...args)).map(({ value }) => value)

  it('are made, listed, described, changed, truncated and deleted', async () => {
    const { streams } = client
    const made = await streams.create('made', { partitions: 2, retentionMs: 60_000 })
    assert.deepEqual(
      [made.name, made.partitions, made.retentionMs, made.retentionBytes],
      ['made', 2, 60_000, null],
    )
    assert.equal((await streams.create('made', { partitions: 2, ifMissing: true })).id, made.id)
    await assert.rejects(streams.create('made'), { code: 'STREAM_EXISTS', outcome: 'refused' })
    assert.deepEqual(
      (await streams.list()).map(({ name }) => name),
      ['made'],
    )
    assert.equal((await streams.change('made', { retentionMs: null })).retentionMs, null)
    await client.produce('made', numbers(10), { partition: 1 })
    assert.equal(await streams.truncate('made', { partition: 1, before: 4 }), 4)
    const { parts } = await streams.describe('made')
    assert.deepEqual(
      parts.map(({ start, end, error }) => [start, end, error]),
      [
        [0, 0, null],
        [4, 10, null],
      ],
    )
    await streams.delete('made')
    await assert.rejects(streams.describe('made'), { code: 'NO_SUCH_STREAM' })
    await assert.rejects(client.produce('made', 'x'), { code: 'NO_SUCH_STREAM', outcome: 'refused' })
    await assert.rejects(values('made'), { code: 'NO_SUCH_STREAM' })
  })

  it('give each record back with all that it has, as text or as bytes', async () => {
    await client.streams.create('whole')
    const beganMs = Date.now()
    const place = await client.produce('whole', {
      value: Buffer.from([0xff]),
      key: 'k',
      headers: [
        ['a', 1],
        ['a', 'two'],
      ],
      type: 7,
    })
    assert.deepEqual(place, { partition: 0, offset: 0 })
    await client.produce('whole', '')
    for await (const { timestampMs, ...record } of client.buffers.consume('whole')) {
      assert.ok(Math.abs(timestampMs - beganMs) < 60_000)
      if (record.offset === 1) {
        assert.deepEqual([record.value, record.key, record.headers], [Buffer.alloc(0), null, []])
        continue
      }
      assert.deepEqual(record, {
        ...{ partition: 0, offset: 0, value: Buffer.from([0xff]), key: Buffer.from('k'), type: 7 },
        headers: [
          ['a', Buffer.from('1')],
          ['a', Buffer.from('two')],
        ],
      })
    }
  })

  it('take calls that are not waited for in order, in few batches', async () => {
    await client.streams.create('ordered')
    const places = await Promise.all(numbers(5_000).map(value => client.produce('ordered', value)))
    assert.deepEqual(
      places.map(({ offset }) => offset),
      Array.from({ length: 5_000 }, (_, i) => i),
    )
    const records = await read('ordered')
    assert.deepEqual(
      records.map(({ value }) => value),
      numbers(5_000),
    )
    // Records of one entry have one time.
    assert.ok(new Set(records.map(({ timestampMs }) => timestampMs)).size <= 10)
  })

  it('put records of one key into one partition, where other producers find it, and spread the others', async () => {
    await client.streams.create('keyed', { partitions: 4 })
    const keyed = await client.produce(
      'keyed',
      numbers(40).map((value, i) => ({ value, key: `u${i % 10}` })),
    )
    assert.equal(new Set(keyed.map(({ partition }) => partition)).size, 4)
    for (const [i, { partition, offset }] of keyed.entries()) {
      const [record] = await read('keyed', { partition, from: offset }, 1)
      assert.deepEqual([record!.value, record!.key], [`r${i}`, `u${i % 10}`])
      assert.equal(partition, keyed[i % 10]!.partition)
    }
    const single = await Promise.all(keyed.map((_, i) => client.produce('keyed', 'x', { key: `u${i % 10}` })))
    for (const [i, { partition }] of single.entries()) assert.equal(partition, keyed[i]!.partition)
    const spread = new Set<number>()
    for (let i = 0; i < 8; i++) spread.add((await client.produce('keyed', 'y')).partition)
    assert.equal(spread.size, 4)
    assert.equal((await read('keyed')).length, 88)
  })

  it('refuse what can’t be without harm to what came with it', async () => {
    await client.streams.create('harm')
    const mixed = await Promise.allSettled([
      client.produce('harm', 'a'),
      client.produce('harm', Buffer.alloc(2 ** 20 + 1)),
      client.produce('harm', { value: 'b', key: 'k'.repeat(2_000) }),
      client.produce('harm', 'c'),
    ])
    assert.deepEqual(
      mixed.map(each => (each.status === 'fulfilled' ? each.value.offset : each.reason.code)),
      [0, 'TOO_LARGE', 'TOO_LARGE', 1],
    )
    await assert.rejects(client.produce('harm', 'x', { partition: 9 }), {
      code: 'NO_SUCH_PARTITION',
      outcome: 'refused',
    })
    await assert.rejects(client.produce('harm', null as unknown as string), TypeError)
    await assert.rejects(client.produce('harm', numbers(10_001)), { outcome: 'refused' })
    assert.deepEqual(await client.produce('harm', []), [])
    assert.deepEqual(await values('harm'), ['a', 'c'])
    await assert.rejects(values('harm', { from: 99 }), (error: CallError) => {
      assert.ok(error instanceof CallError)
      assert.match(error.message, /harm\/0 holds 0 to 1, its next record gets 2/)
      return error.code === 'OFFSET_OUT_OF_RANGE'
    })
    assert.throws(() => client.consume('harm', { from: 'yesterday' as 'latest' }), TypeError)
  })

  it('are read from where one says, and on from where another consumer was', async () => {
    await client.streams.create('from', { partitions: 2 })
    for (const partition of [0, 1]) await client.produce('from', numbers(10), { partition })
    const first = client.consume('from', { from: { 0: 8 } })
    const seen: string[] = []
    for await (const { partition, offset } of first) if (seen.push(`${partition}:${offset}`) === 7) break
    assert.equal(seen.filter(each => each.startsWith('0')).length, 2)
    const written = JSON.parse(JSON.stringify(first.positions))
    const rest = await read('from', { from: written })
    assert.equal(new Set([...seen, ...rest.map(each => `${each.partition}:${each.offset}`)]).size, 12)
    const [tenth] = await read('from', { partition: 1, from: 9 })
    const since = await read('from', { partition: 1, from: new Date(tenth!.timestampMs) })
    assert.ok(since.some(({ offset }) => offset === 9))
    const latest = client.consume('from', { from: 'latest', follow: true })
    await latest.ready()
    await client.produce('from', 'new', { partition: 1 })
    for await (const record of latest) {
      assert.deepEqual([record.partition, record.offset, record.value], [1, 10, 'new'])
      break
    }
  })

  it('end when the consumer is closed, when its client is, or with an AbortError', async () => {
    await client.streams.create('ends')
    const other = await connect(cluster.addresses)
    const drain = async (consumer: AsyncIterable<unknown>, end: () => unknown) => {
      for await (const _ of consumer) end()
    }
    await client.produce('ends', 'x')
    const closing = client.consume('ends', { follow: true })
    await drain(closing, () => closing.close())
    await drain(other.consume('ends', { follow: true }), () => setImmediate(() => other.close()))
    await assert.rejects(other.consume('ends').ready(), { code: 'CLOSED' })
    const controller = new AbortController()
    await assert.rejects(
      drain(client.consume('ends', { follow: true, signal: controller.signal }), () => controller.abort()),
      { name: 'AbortError', code: 'ABORTED' },
    )
    const stopped = new AbortController()
    const call = client.with({ signal: stopped.signal }).produce('ends', 'y')
    stopped.abort()
    await assert.rejects(call, { name: 'AbortError' })
  })

  it('take one signal for any number of calls, and nobody is warned of listeners', async () => {
    const warnings: Error[] = []
    const onWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', onWarning)
    const { streams } = client.with({ signal: new AbortController().signal })
    await Promise.all(Array.from({ length: 20 }, () => streams.list()))
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', onWarning)
    assert.deepEqual(warnings, [])
  })

  it('hold the node back, not the memory, when the consumer is slow', async () => {
    await client.streams.create('slow')
    const value = Buffer.alloc(64 * 1024, 1)
    for (let i = 0; i < 3; i++)
      await Promise.all(Array.from({ length: 64 }, () => client.produce('slow', value)))
    const consumer = client.buffers.consume('slow')
    // What waits in this process: messages of at most 128 KiB (and one record).
    let count = 0
    for await (const record of consumer) {
      assert.equal(record.offset, count++)
      if (count !== 20) continue
      const { readers } = consumer as unknown as { readers: readonly { call: Readable | null }[] }
      await new Promise(resolve => setTimeout(resolve, 200))
      const waiting = readers[0]!.call!.readableLength
      assert.ok(waiting > 0 && waiting <= 17, `${waiting} messages`)
    }
    assert.equal(count, 192)
  })

  it('share an entry with the keys of their hash tag, all or nothing', async () => {
    await client.streams.create('orders{u1}')
    const both = [
      ['SET', '{u1}order:7', 'new', 'NX'],
      { stream: 'orders{u1}', records: ['7 is new', { value: 'again', key: 'k' }] },
    ] as const
    const { replies, revision } = await client.atomic(both)
    assert.deepEqual(replies, [true, 0])
    assert.ok(revision > 0)
    await assert.rejects(client.atomic(both), { code: 'CONDITION_NOT_MET', outcome: 'refused' })
    assert.deepEqual(await values('orders{u1}'), ['7 is new', 'again'])
    await assert.rejects(
      client.atomic([
        ['SET', 'a', 1],
        ['SET', 'b', 2],
      ]),
      (error: CallError) => error.outcome === 'refused' && /slot/.test(error.message),
    )
    await assert.rejects(client.atomic([]), TypeError)
  })

  it('are produced to and followed while nodes stop and start: each record once and in order', async () => {
    await client.streams.create('through', { partitions: 2 })
    const seen = [[], []] as string[][]
    const follower = client.consume('through', { follow: true })
    const following = (async () => {
      for await (const { partition, offset, value } of follower) {
        assert.equal(offset, seen[partition]!.length)
        seen[partition]!.push(value)
        if (seen[0]!.length === 300 && seen[1]!.length === 300) break
      }
    })()
    const producing = [0, 1].map(async partition => {
      for (let i = 0; i < 300; i += 3)
        await Promise.all(numbers(3, i).map(value => client.produce('through', value, { partition })))
    })
    for (const node of cluster.nodes) {
      await node.stop()
      await node.start()
      await cluster.settled()
    }
    await Promise.all(producing)
    await following
    assert.deepEqual(seen, [numbers(300), numbers(300)])
  })
})
