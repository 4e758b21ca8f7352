import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { credentials, type ServiceError, status } from '@grpc/grpc-js'
import { connect } from '../../src/client/entry.ts'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  LogClient,
  ProduceRequest,
  type ProduceResponse,
} from '../../src/gen/log/v1/log.ts'
import {
  type DescribeStreamResponse,
  type Stream,
  StreamsClient,
} from '../../src/gen/roundhouse/v1/streams.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { errorInfoOf } from '../../src/lib/error-info.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'

type Callback<T> = (error: ServiceError | null, answer: T) => void
const promised = <T>(begin: (done: Callback<T>) => unknown): Promise<T> =>
  new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer))))
const refused = (promise: Promise<unknown>): Promise<ServiceError> =>
  promise.then(
    () => assert.fail('it was answered'),
    (error: ServiceError) => error,
  )
const reasonOf = (error: ServiceError) => errorInfoOf(error.metadata)?.reason

/** Streams through one node of a cluster of three in this process. */
class Door {
  readonly log: LogClient
  readonly streams: StreamsClient

  constructor(address: string) {
    this.log = new LogClient(address, credentials.createInsecure())
    this.streams = new StreamsClient(address, credentials.createInsecure())
  }

  create(name: string, partitions = 1): Promise<{ stream?: Stream | undefined }> {
    return promised(done => this.streams.create({ name, partitions, ifMissing: false }, done))
  }

  produce(request: Parameters<typeof ProduceRequest.fromPartial>[0]): Promise<ProduceResponse> {
    return promised(done => this.log.produce(ProduceRequest.fromPartial(request), done))
  }

  /** What is there, to the linearizable end. */
  async all(stream: string, partition = 0, linearizable = true): Promise<string[]> {
    const found: string[] = []
    let next: bigint | null = null
    const request = { stream, partition, linearizable, batches: true, from: From.EARLIEST, idleMs: 0 }
    const call = this.log.consumeStream(ConsumeRequest.fromPartial(request))
    for await (const { records } of call as AsyncIterable<ConsumeResponse>)
      for (const record of records) {
        assert.equal(record.offset, next ?? record.offset)
        next = record.offset + 1n
        found.push(record.value.toString())
      }
    return found
  }

  close(): void {
    this.log.close()
    this.streams.close()
  }
}

const text = (value: string) => ({ value: Buffer.from(value) })
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => `r${from + i}`)

describe('streams on a cluster', () => {
  let cluster: Cluster
  let doors: Door[]
  before(async () => {
    cluster = await startCluster({ nodes: 3, shardCount: 8 })
    doors = cluster.addresses.map(address => new Door(address))
  })
  after(async () => {
    for (const door of doors) door.close()
    await cluster.stop()
  })

  it('are there for every node as soon as one has made them', async () => {
    for (const [i, door] of doors.entries()) {
      await door.create(`made-${i}`, 2)
      for (const other of doors) {
        const { offset } = await other.produce({ stream: `made-${i}`, partition: 1, record: text('x') })
        assert.equal(offset, BigInt(doors.indexOf(other)))
      }
    }
    const { streams } = await promised<{ streams: Stream[] }>(done => doors[0]!.streams.list({}, done))
    assert.deepEqual(
      streams.map(each => [each.name, each.partitions]),
      [0, 1, 2].map(i => [`made-${i}`, 2]),
    )
  })

  it('hold what was produced through any node, in one order for all', async () => {
    await doors[0]!.create('orders')
    for (const [i, value] of numbers(60).entries())
      await doors[i % 3]!.produce({ stream: 'orders', record: text(value) })
    for (const door of doors) assert.deepEqual(await door.all('orders'), numbers(60))
  })

  it('make `default` when it is used, and take a batch as one entry', async () => {
    const offsets = await Promise.all(
      doors.map(door =>
        door.produce({ records: numbers(10).map(text) }).then(({ offset }) => Number(offset)),
      ),
    )
    assert.deepEqual(
      offsets.sort((a, b) => a - b),
      [0, 10, 20],
    )
    assert.deepEqual(await doors[1]!.all(''), [...numbers(10), ...numbers(10), ...numbers(10)])
  })

  it('wake followers at every node', async () => {
    await doors[0]!.create('tail')
    const seen = doors.map(() => [] as string[])
    const calls = doors.map((door, i) => {
      const call = door.log.consumeStream(ConsumeRequest.fromPartial({ stream: 'tail' }))
      call.on('data', ({ record }: ConsumeResponse) => seen[i]!.push(record!.value.toString()))
      call.on('error', () => {})
      return call
    })
    for (const value of numbers(20)) await doors[1]!.produce({ stream: 'tail', record: text(value) })
    const deadline = performance.now() + 5_000
    while (seen.some(each => each.length < 20) && performance.now() < deadline)
      await new Promise(resolve => setTimeout(resolve, 5))
    for (const call of calls) call.cancel()
    for (const each of seen) assert.deepEqual(each, numbers(20))
  })

  it('put records of one key into one partition, and a retry where the first try went', async () => {
    await doors[0]!.create('keyed', 4)
    const places = new Set<number>()
    for (const door of doors) {
      const { partition } = await door.produce({
        stream: 'keyed',
        record: { ...text('v'), key: Buffer.from('u42') },
      })
      places.add(partition)
    }
    assert.equal(places.size, 1)
    const session = Buffer.alloc(16, 9)
    session.writeUIntBE(Date.now(), 0, 6)
    const again = { stream: 'keyed', record: text('once'), session, sequence: 1n }
    const first = await doors[0]!.produce(again)
    assert.deepEqual(await doors[2]!.produce(again), first)
  })

  it('refuse a batch whose keys are of several partitions', async () => {
    const records = numbers(20).map(key => ({ ...text('v'), key: Buffer.from(key) }))
    const error = await refused(doors[0]!.produce({ stream: 'keyed', records }))
    assert.match(error.details, /its keys are of partitions \d and \d of keyed/)
  })

  it('say the range, wherever it is asked', async () => {
    for (const door of doors) {
      const error = await refused(
        promised(done =>
          door.log.consume(ConsumeRequest.fromPartial({ stream: 'orders', offset: 99n }), done),
        ),
      )
      assert.equal(error.code, status.OUT_OF_RANGE)
      assert.match(error.details, /: 99; orders\/0 holds 0 to 59, its next record gets 60/)
    }
  })

  it('are truncated for all, and found by time', async () => {
    const truncate = (before: bigint) =>
      promised<{ startOffset: bigint }>(done =>
        doors[2]!.streams.truncate({ name: 'orders', partition: 0, beforeOffset: before }, done),
      )
    assert.equal((await truncate(20n)).startOffset, 20n)
    assert.equal(reasonOf(await refused(truncate(99n))), 'OFFSET_OUT_OF_RANGE')
    for (const door of doors) assert.deepEqual(await door.all('orders'), numbers(40, 20))
    const consume = (request: Parameters<typeof ConsumeRequest.fromPartial>[0]) =>
      promised<ConsumeResponse>(done => doors[0]!.log.consume(ConsumeRequest.fromPartial(request), done))
    const { record } = await consume({ stream: 'orders', offset: 30n })
    const found = await consume({ stream: 'orders', from: From.TIMESTAMP, timestampMs: record!.timestampMs })
    assert.ok(found.record!.offset <= 30n && found.record!.timestampMs === record!.timestampMs)
  })

  it('tell where their partitions are and what they hold', async () => {
    const { stream, partitions } = await promised<DescribeStreamResponse>(done =>
      doors[1]!.streams.describe({ name: 'orders' }, done),
    )
    assert.equal(stream?.name, 'orders')
    const [only] = partitions
    assert.deepEqual([only?.startOffset, only?.endOffset, only?.error], [20n, 60n, ''])
    assert.ok(only!.replicas.includes(only!.leader) && only!.replicas.length === 3)
  })

  it('begin empty when they are made anew under a name', async () => {
    await promised(done => doors[0]!.streams.delete({ name: 'orders' }, done))
    assert.equal(
      reasonOf(await refused(doors[0]!.produce({ stream: 'orders', record: text('x') }))),
      'NO_SUCH_STREAM',
    )
    await doors[0]!.create('orders')
    assert.deepEqual(await doors[0]!.all('orders'), [])
    assert.equal((await doors[0]!.produce({ stream: 'orders', record: text('new') })).offset, 0n)
  })

  it('carry the checksum that was made of a record’s bytes to whoever reads it, through any node', async () => {
    await doors[0]!.create('sums')
    const record = {
      value: Buffer.from('value'),
      key: Buffer.from('k'),
      type: 300,
      headers: [{ name: 'h', value: Buffer.from('v') }],
    }
    // As docs/streams.md draws it.
    const crc = crc32(Buffer.from('\xac\x02\x01\x01k\x01\x01h\x01vvalue', 'latin1'))
    for (const door of doors) await door.produce({ stream: 'sums', record })
    await doors[0]!.produce({ stream: 'sums', record: { ...record, crc } })
    const wrong = await refused(
      doors[1]!.produce({ stream: 'sums', record: { ...record, crc: (crc ^ 1) >>> 0 } }),
    )
    assert.equal(wrong.code, status.INVALID_ARGUMENT)
    for (const door of doors) {
      const request = { stream: 'sums', batches: true, linearizable: true, idleMs: 0 }
      const call = door.log.consumeStream(ConsumeRequest.fromPartial(request))
      const sums: (number | undefined)[] = []
      for await (const { records } of call as AsyncIterable<ConsumeResponse>)
        sums.push(...records.map(each => each.crc))
      assert.deepEqual(sums, [crc, crc, crc, crc])
    }
  })

  it('refuse names, partitions and retention that can not be', async () => {
    for (const wrong of [
      { name: 'a\nb' },
      { name: '' },
      { name: 'x'.repeat(256) },
      { name: 'a', partitions: 5_000 },
      { name: 'a', retentionBytes: 1n },
    ]) {
      const request = { partitions: 1, ifMissing: false, ...wrong }
      const error = await refused(promised(done => doors[0]!.streams.create(request, done)))
      assert.equal(error.code, status.INVALID_ARGUMENT)
    }
    assert.equal(reasonOf(await refused(doors[1]!.create('keyed'))), 'STREAM_EXISTS')
  })

  it('refuse bad input by its code at every node, lose nothing by it, and go on', async () => {
    await doors[0]!.create('bad', 2)
    await doors[0]!.produce({ stream: 'bad', partition: 0, record: text('kept') })
    const consume = (door: Door, request: Parameters<typeof ConsumeRequest.fromPartial>[0]) =>
      promised<ConsumeResponse>(done => door.log.consume(ConsumeRequest.fromPartial(request), done))
    const large = Buffer.alloc(2 ** 20)
    for (const door of doors) {
      const wrong: readonly [Promise<unknown>, number, string][] = [
        [
          door.produce({ stream: 'nowhere', record: text('x') }),
          status.FAILED_PRECONDITION,
          'NO_SUCH_STREAM',
        ],
        [consume(door, { stream: 'nowhere' }), status.FAILED_PRECONDITION, 'NO_SUCH_STREAM'],
        [
          door.produce({ stream: 'bad', partition: 2, record: text('x') }),
          status.INVALID_ARGUMENT,
          'NO_SUCH_PARTITION',
        ],
        [consume(door, { stream: 'bad', partition: 2 }), status.INVALID_ARGUMENT, 'NO_SUCH_PARTITION'],
        [consume(door, { stream: 'bad', offset: 7n }), status.OUT_OF_RANGE, 'OFFSET_OUT_OF_RANGE'],
        [consume(door, { stream: 'bad', offset: 2n ** 63n }), status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
        [
          consume(door, { stream: 'bad', from: From.TIMESTAMP, timestampMs: 2n ** 63n }),
          status.INVALID_ARGUMENT,
          'INVALID_ARGUMENT',
        ],
        [consume(door, { stream: 'bad', from: 9 as From }), status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
        [
          door.produce({ stream: 'bad', partition: 0, record: { value: large } }),
          status.INVALID_ARGUMENT,
          'TOO_LARGE',
        ],
        [
          door.produce({ stream: 'bad', partition: 0, records: numbers(10_001).map(text) }),
          status.INVALID_ARGUMENT,
          'INVALID_ARGUMENT',
        ],
        [
          door.produce({
            ...{ stream: 'bad', partition: 0 },
            records: Array.from({ length: 9 }, () => ({ value: large.subarray(1024) })),
          }),
          status.INVALID_ARGUMENT,
          'TOO_LARGE',
        ],
        [door.produce({ stream: 'bad', partition: 0 }), status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
      ]
      const errors = await Promise.all(wrong.map(([promise]) => refused(promise)))
      for (const [i, [, code, reason]] of wrong.entries()) {
        const error = errors[i]!
        assert.deepEqual([i, error.code, reasonOf(error)], [i, code, reason], error.details)
      }
    }
    for (const door of doors) assert.deepEqual(await door.all('bad'), ['kept'])
  })

  it('refuse what a member of a group says who is gone, or whose generation is old', async () => {
    const client = await connect(cluster.addresses)
    try {
      const join = (member: string) =>
        client.run('GROUP.JOIN', 'readers', member, '15000', 'sticky', '7', '2')
      const commit = (member: string, generation: number, offset: number) =>
        client.run('GROUP.COMMIT', 'readers', member, generation, '7', '0', offset)
      await assert.rejects(commit('a', 1, 1), { code: 'NO_SUCH_GROUP' })
      await join('a')
      await commit('a', 1, 5)
      await client.run('GROUP.LEAVE', 'readers', 'a')
      await assert.rejects(commit('a', 1, 9), { code: 'NO_SUCH_MEMBER' })
      await join('a')
      await assert.rejects(commit('a', 1, 9), { code: 'STALE_GENERATION', outcome: 'refused' })
      assert.deepEqual(await client.run('GROUP.OFFSETS', 'readers'), [['7 0', '5']])
    } finally {
      await client.destroy()
    }
  })

  it('move to a new node while somebody produces and somebody follows, each record once and in order', async () => {
    const client = await connect({ addresses: cluster.addresses, timeout: 20_000 })
    try {
      const names = ['m0', 'm1', 'm2', 'm3', 'm4', 'm5']
      for (const name of names) await client.streams.create(name)
      const replicasOf = async (name: string) =>
        (await client.streams.describe(name)).parts.flatMap(each => each.replicas)
      const seen = new Map(names.map(name => [name, [] as string[]]))
      const followers = names.map(name => client.consume(name, { follow: true }))
      const following = followers.map(async (follower, i) => {
        const found = seen.get(names[i]!)!
        for await (const { offset, value } of follower) {
          assert.equal(offset, found.length)
          found.push(value)
        }
      })
      let isMoved = false
      const producing = names.map(async name => {
        let count = 0
        for (; count < 100 || !isMoved; count += 5) await client.produce(name, numbers(5, count))
        return count
      })
      const { id, address } = await cluster.add()
      await cluster.settled()
      isMoved = true
      const counts = await Promise.all(producing)
      const late = new Door(address)
      const deadline = performance.now() + 10_000
      while (names.some((name, i) => seen.get(name)!.length < counts[i]!) && performance.now() < deadline)
        await new Promise(resolve => setTimeout(resolve, 10))
      for (const follower of followers) follower.close()
      await Promise.all(following)
      const moved: string[] = []
      for (const [i, name] of names.entries()) {
        assert.deepEqual(seen.get(name), numbers(counts[i]!))
        assert.deepEqual(await late.all(name), numbers(counts[i]!))
        if ((await replicasOf(name)).includes(id)) moved.push(name)
      }
      late.close()
      assert.ok(moved.length > 0, 'none has moved')
    } finally {
      await client.destroy()
    }
  })
})
