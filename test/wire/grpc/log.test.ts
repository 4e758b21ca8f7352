import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  type Client,
  type ClientReadableStream,
  credentials,
  loadPackageDefinition,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { RoundhouseError } from '../../../src/errors.ts'
import {
  ConsumeRequest,
  type ConsumeResponse,
  From,
  LogClient,
  ProduceRequest,
  type ProduceResponse,
} from '../../../src/gen/log/v1/log.ts'
import { encodeRecord } from '../../../src/keyspace/record.ts'
import { crc32 } from '../../../src/lib/crc.ts'
import { deferred } from '../../../src/lib/deferred.ts'
import { errorInfoOf } from '../../../src/lib/error-info.ts'
import { type Harness, startServer, until } from './harness.ts'

/** The contract of the seeds, and nothing of ours. */
const seedsProto = `
  syntax = "proto3";
  package log.v1;
  service Log {
    rpc Produce(ProduceRequest) returns (ProduceResponse);
    rpc Consume(ConsumeRequest) returns (ConsumeResponse);
    rpc ConsumeStream(ConsumeRequest) returns (stream ConsumeResponse);
    rpc ProduceStream(stream ProduceRequest) returns (stream ProduceResponse);
    rpc GetServers(GetServersRequest) returns (GetServersResponse);
  }
  message Record { bytes value = 1; uint64 offset = 2; uint64 term = 3; uint32 type = 4; }
  message ProduceRequest { Record record = 1; }
  message ProduceResponse { uint64 offset = 1; }
  message ConsumeRequest { uint64 offset = 1; }
  message ConsumeResponse { Record record = 2; }
  message GetServersRequest {}
  message GetServersResponse { repeated Server servers = 1; }
  message Server { string id = 1; string rpc_addr = 2; bool is_leader = 3; }
`

type Callback = (error: ServiceError | null, answer?: unknown) => void
interface SeedsClient extends Client {
  produce(request: unknown, callback: Callback): void
  consume(request: unknown, callback: Callback): void
  getServers(request: unknown, callback: Callback): void
  consumeStream(request: unknown): ClientReadableStream<{ record: { value: Buffer; offset: string } }>
  produceStream(): import('@grpc/grpc-js').ClientDuplexStream<unknown, { offset: string }>
}

function seedsClient(address: string): SeedsClient {
  const directory = mkdtempSync(join(tmpdir(), 'seeds-proto-'))
  try {
    const path = join(directory, 'log.proto')
    writeFileSync(path, seedsProto)
    const { log } = loadPackageDefinition(loadSync(path, { keepCase: true, longs: String, defaults: true }))
    type Package = { v1: { Log: new (...args: unknown[]) => SeedsClient } }
    return new (log as unknown as Package).v1.Log(address, credentials.createInsecure())
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const promised = <T>(begin: (done: Callback) => unknown): Promise<T> =>
  new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer as T))))
const refused = (promise: Promise<unknown>): Promise<ServiceError> =>
  promise.then(
    () => assert.fail('it was answered'),
    (error: ServiceError) => error,
  )

/** What comes until the call ends or `count` messages are there; then it is cancelled. */
async function take<T>(stream: ClientReadableStream<T>, count = Number.POSITIVE_INFINITY): Promise<T[]> {
  const found: T[] = []
  const over = deferred<void>()
  stream.on('data', (message: T) => {
    found.push(message)
    if (found.length === count) over.resolve()
  })
  stream.on('end', () => over.resolve())
  stream.on('error', error => over.reject(error))
  await over.promise
  stream.removeAllListeners('error')
  stream.on('error', () => {})
  stream.cancel()
  return found
}

const bytes = (text: string) => Buffer.from(text)

describe('log.v1.Log, asked by a client that knows only the seeds’ contract', () => {
  let h: Harness
  let client: SeedsClient
  before(async () => {
    h = await startServer()
    client = seedsClient(h.address)
  })
  after(() => {
    client.close()
    return h.close()
  })
  const produce = (text: string) =>
    promised<{ offset: string }>(done => client.produce({ record: { value: bytes(text) } }, done))

  it('gives offsets from 0 on, in the stream `default`', async () => {
    assert.equal((await produce('first')).offset, '0')
    assert.equal((await produce('second')).offset, '1')
    assert.deepEqual(
      h.service.streams.list().map(({ name, partitions }) => [name, partitions]),
      [['default', 1]],
    )
  })

  it('gives a record back, with value, offset, term and type', async () => {
    const { record } = await promised<{ record: unknown }>(done => client.consume({ offset: 1 }, done))
    assert.deepEqual(record, { value: bytes('second'), offset: '1', term: '3', type: 0 })
  })

  it('says OUT_OF_RANGE with the offset, the range, and a LocalizedMessage, where there is no record', async () => {
    const error = await refused(promised(done => client.consume({ offset: 7 }, done)))
    assert.equal(error.code, status.OUT_OF_RANGE)
    assert.match(error.details, /\b7; default\/0 holds 0 to 1, its next record gets 2/)
    assert.equal(errorInfoOf(error.metadata)?.reason, 'OFFSET_OUT_OF_RANGE')
    const [details] = error.metadata.get('grpc-status-details-bin') as [Buffer]
    assert.match(details.toString('latin1'), /google\.rpc\.LocalizedMessage.*en-US.*offset out of range: 7/s)
    assert.match(details.toString('latin1'), /start.*0.*end.*2/s)
  })

  it('says so of the end as well, which has no record yet', async () => {
    const error = await refused(promised(done => client.consume({ offset: 2 }, done)))
    assert.equal(error.code, status.OUT_OF_RANGE)
  })

  it('follows the tail, woken by what is produced', async () => {
    const stream = client.consumeStream({ offset: 0 })
    const found = take(stream, 3)
    await until('it waits at the tail', () => h.service.streams.waiting === 1)
    await produce('third')
    assert.deepEqual(
      (await found).map(({ record }) => [record.offset, record.value.toString()]),
      [
        ['0', 'first'],
        ['1', 'second'],
        ['2', 'third'],
      ],
    )
    await until('nobody waits any more', () => h.service.streams.waiting === 0)
  })

  it('answers a stream of produces in order', async () => {
    const stream = client.produceStream()
    for (const text of ['a', 'b', 'c']) stream.write({ record: { value: bytes(text) } })
    stream.end()
    const answers: string[] = []
    await new Promise<void>((resolve, reject) => {
      stream.on('data', ({ offset }) => answers.push(offset))
      stream.on('error', reject)
      stream.on('end', resolve)
    })
    assert.deepEqual(answers, ['3', '4', '5'])
  })

  it('takes empty records', async () => {
    const { offset } = await promised<{ offset: string }>(done => client.produce({ record: {} }, done))
    const { record } = await promised<{ record: { value: Buffer } }>(done => client.consume({ offset }, done))
    assert.equal(record.value.byteLength, 0)
  })

  it('refuses a request without record, and lives', async () => {
    assert.equal((await refused(promised(done => client.produce({}, done)))).code, status.INVALID_ARGUMENT)
    await produce('still here')
  })

  it('names the servers and the leader', async () => {
    const { servers } = await promised<{ servers: unknown }>(done => client.getServers({}, done))
    assert.deepEqual(servers, [
      { id: 'n1', rpc_addr: 'n1.example:8080', is_leader: true },
      { id: 'n2', rpc_addr: 'n2.example:8080', is_leader: false },
    ])
  })
})

describe('log.v1.Log', () => {
  let h: Harness
  let client: LogClient
  before(async () => {
    h = await startServer()
    client = new LogClient(h.address, credentials.createInsecure())
    await h.service.streams.create({
      name: 'orders',
      partitions: 2,
      retentionMs: null,
      retentionBytes: null,
      ifMissing: false,
    })
  })
  after(() => {
    client.close()
    return h.close()
  })
  const produce = (request: Parameters<typeof ProduceRequest.fromPartial>[0]) =>
    promised<ProduceResponse>(done =>
      client.produce(ProduceRequest.fromPartial({ stream: 'orders', ...request }), done),
    )
  const consume = (request: Parameters<typeof ConsumeRequest.fromPartial>[0]) =>
    promised<ConsumeResponse>(done =>
      client.consume(ConsumeRequest.fromPartial({ stream: 'orders', ...request }), done),
    )
  const follow = (request: Parameters<typeof ConsumeRequest.fromPartial>[0]) =>
    client.consumeStream(ConsumeRequest.fromPartial({ stream: 'orders', ...request }))
  const record = (text: string) => ({ value: bytes(text) })

  it('takes a batch as one, and says where it lies', async () => {
    const records = ['a', 'b', 'c'].map(record)
    assert.deepEqual(await produce({ partition: 1, records }), { offset: 0n, partition: 1, count: 3 })
    assert.equal(h.service.streams.batches.at(-1)?.records.length, 3)
  })

  it('carries key, headers, type, time and checksum to the reader', async () => {
    const sent = {
      ...record('v'),
      type: 9,
      key: bytes('k'),
      headers: [
        { name: 'ä', value: bytes('1') },
        { name: '', value: Buffer.alloc(0) },
      ],
    }
    const { offset } = await produce({ partition: 1, record: sent })
    const found = await consume({ partition: 1, offset })
    const encoded = encodeRecord({ ...sent })
    const crc = crc32(encoded.subarray(4))
    assert.deepEqual(found.record, { ...sent, offset, term: 3n, timestampMs: found.record!.timestampMs, crc })
    assert.ok(found.record!.timestampMs >= 1_000n)
    await produce({ partition: 1, record: { ...sent, crc } })
    const wrong = await refused(produce({ partition: 1, record: { ...sent, crc: crc - 1 } }))
    assert.equal(wrong.code, status.INVALID_ARGUMENT)
  })

  it('passes the session on', async () => {
    const session = Buffer.alloc(16, 7)
    await produce({ record: record('x'), session, sequence: 5n, ackedBelow: 4n })
    assert.deepEqual(h.service.streams.batches.at(-1)?.session, { id: session, sequence: 5, ackedBelow: 4 })
    const wrong = await refused(produce({ record: record('x'), session: Buffer.alloc(3), sequence: 1n }))
    assert.match(wrong.details, /session of 3 bytes/)
  })

  it('refuses acknowledgements that would promise nothing', async () => {
    const error = await refused(produce({ record: record('x'), acks: 2 }))
    assert.equal(error.code, status.INVALID_ARGUMENT)
    assert.match(error.details, /acks 2.*majority/)
  })

  it('gives batches where they are asked for, within the bytes and records that were named', async () => {
    const all = await consume({ partition: 1, batches: true, maxBytes: 1_000_000 })
    assert.deepEqual(
      all.records.slice(0, 3).map(each => [Number(each.offset), each.value.toString()]),
      [
        [0, 'a'],
        [1, 'b'],
        [2, 'c'],
      ],
    )
    assert.deepEqual([all.record, all.endOffset], [undefined, BigInt(all.records.length)])
    assert.equal((await consume({ partition: 1, batches: true, maxBytes: 1 })).records.length, 1)
    assert.equal((await consume({ partition: 1, batches: true, maxRecords: 2n })).records.length, 2)
  })

  it('tells how far the replica that answered is', async () => {
    h.service.streams.lagMs = 250
    const { startOffset, endOffset, lagMs } = await consume({ partition: 1, offset: 1n })
    h.service.streams.lagMs = 0
    assert.deepEqual([startOffset, endOffset > 3n, lagMs], [0n, true, 250])
  })

  it('begins at the start, the end, or a time', async () => {
    const first = await consume({ partition: 1, from: From.EARLIEST })
    assert.equal(first.record?.offset, 0n)
    const { timestampMs } = (await consume({ partition: 1, offset: 2n })).record!
    const found = await consume({ partition: 1, from: From.TIMESTAMP, timestampMs })
    assert.equal(found.record?.offset, 2n)
    const latest = take(follow({ partition: 1, from: From.LATEST }), 1)
    await until('it waits', () => h.service.streams.waiting === 1)
    const { offset } = await produce({ partition: 1, record: record('new') })
    assert.equal((await latest)[0]?.record?.offset, offset)
  })

  it('ends at the tail or after an idle time where that is asked for, with OK', async () => {
    const found = await take(follow({ partition: 1, idleMs: 0, batches: true }))
    assert.equal(found.flatMap(each => each.records)[0]?.value.toString(), 'a')
    assert.equal((await take(follow({ partition: 1, idleMs: 0, maxRecords: 2n }))).length, 2)
  })

  it('says OUT_OF_RANGE to a follower beyond the end and before the start', async () => {
    await h.service.streams.truncate('orders', 1, 2)
    for (const offset of [1n, 99n])
      assert.equal((await refused(take(follow({ partition: 1, offset })))).code, status.OUT_OF_RANGE)
    assert.equal((await take(follow({ partition: 1, from: From.EARLIEST }), 1))[0]?.record?.offset, 2n)
  })

  it('says so of the servers of what is not there, and makes no `default` to tell its own', async () => {
    const servers = (stream: string, partition = 0) =>
      promised<{ servers: unknown[] }>(done => client.getServers({ stream, partition }, done))
    const unknown = await refused(servers('nobody'))
    assert.equal(errorInfoOf(unknown.metadata)?.reason, 'NO_SUCH_STREAM')
    const partition = await refused(servers('orders', 99))
    assert.equal(errorInfoOf(partition.metadata)?.reason, 'NO_SUCH_PARTITION')
    const names = () => h.service.streams.list().map(({ name }) => name)
    assert.equal(names().includes('default'), false)
    assert.equal((await servers('')).servers.length, 2)
    assert.equal(names().includes('default'), false)
  })

  it('names what is not there', async () => {
    const unknown = await refused(consume({ stream: 'nobody' }))
    assert.equal(errorInfoOf(unknown.metadata)?.reason, 'NO_SUCH_STREAM')
    const partition = await refused(take(follow({ partition: 2 })))
    assert.equal(errorInfoOf(partition.metadata)?.reason, 'NO_SUCH_PARTITION')
    assert.match(partition.details, /orders has 0 to 1/)
  })

  it('ends a follower of a stream that is deleted', async () => {
    await h.service.streams.create({
      name: 'short',
      partitions: 1,
      retentionMs: null,
      retentionBytes: null,
      ifMissing: false,
    })
    const found = refused(take(follow({ stream: 'short' })))
    await until('it waits', () => h.service.streams.waiting === 1)
    await h.service.streams.delete('short')
    assert.equal(errorInfoOf((await found).metadata)?.reason, 'NO_SUCH_STREAM')
  })

  it('goes on in the stream that was read, and not in another that was made under its name', async () => {
    const make = () =>
      h.service.streams.create({
        ...{ name: 'anew', partitions: 1, ifMissing: false },
        ...{ retentionMs: null, retentionBytes: null },
      })
    await make()
    await produce({ stream: 'anew', records: ['a', 'b'].map(record) })
    const { streamId } = await consume({ stream: 'anew' })
    const [first] = await take(follow({ stream: 'anew', batches: true }), 1)
    assert.ok(streamId > 0n && first?.streamId === streamId)
    const later = { stream: 'anew', offset: 1n, streamId }
    assert.equal((await consume(later)).record?.value.toString(), 'b')
    await h.service.streams.delete('anew')
    await make()
    await produce({ stream: 'anew', records: ['c', 'd'].map(record) })
    for (const error of [await refused(consume(later)), await refused(take(follow(later)))]) {
      assert.deepEqual(
        [error.code, errorInfoOf(error.metadata)?.reason],
        [status.FAILED_PRECONDITION, 'STREAM_REMADE'],
      )
      assert.match(error.details, new RegExp(`anew is ${streamId + 1n} now, ${streamId} was read before`))
    }
    assert.equal((await consume({ ...later, streamId: 0n })).record?.value.toString(), 'd')
  })

  it('reads no further than a consumer takes', async () => {
    await h.service.streams.create({
      name: 'large',
      partitions: 1,
      retentionMs: null,
      retentionBytes: null,
      ifMissing: false,
    })
    const value = Buffer.alloc(64 * 1024)
    for (let i = 0; i < 16; i++)
      await produce({ stream: 'large', records: Array.from({ length: 16 }, () => ({ value })) })
    const before = h.service.streams.reads.length
    const stream = follow({ stream: 'large', batches: true, maxBytes: 1 })
    const first = deferred<void>()
    let got = 0
    stream.on('data', ({ records }: ConsumeResponse) => {
      if (got === 0) {
        stream.pause()
        first.resolve()
      }
      got += records.length
    })
    stream.on('error', () => {})
    await first.promise
    // The client’s own buffer takes 16 messages, the server some more; 256 are there, each a read.
    let reads = -1
    while (reads !== h.service.streams.reads.length) {
      reads = h.service.streams.reads.length
      await new Promise(resolve => setTimeout(resolve, 50))
    }
    assert.ok(reads - before <= 48, `${reads - before} reads for a consumer that takes nothing`)
    stream.resume()
    await until('all of it comes once it reads on', () => got === 256)
    stream.cancel()
  })

  it('ends a stream of produces with the status of the first that failed, after the answers before it', async () => {
    const stream = client.produceStream()
    const answers: bigint[] = []
    stream.on('data', ({ offset }: ProduceResponse) => answers.push(offset))
    const ended = new Promise<ServiceError>(resolve => stream.on('error', resolve))
    const later = deferred<void>()
    h.service.streams.onProduce = batch => {
      const text = Buffer.from(batch.records[0]!.value).toString()
      if (text === 'bad') throw new RoundhouseError('DISK_FULL', { shard: 1 })
      return text === 'slow' ? later.promise : undefined
    }
    for (const text of ['slow', 'bad', 'behind'])
      stream.write(ProduceRequest.fromPartial({ stream: 'orders', record: record(text) }))
    await until(
      'all have come',
      () => h.service.streams.batches.at(-1)?.records[0]?.value.length !== undefined,
    )
    later.resolve()
    assert.equal(errorInfoOf((await ended).metadata)?.reason, 'DISK_FULL')
    h.service.streams.onProduce = () => {}
    assert.equal(answers.length, 1)
  })

  it('has nothing under way left when callers go', async () => {
    const streams = [follow({}), follow({}), client.produceStream()]
    for (const each of streams) each.on('error', () => {})
    await until('they wait', () => h.service.streams.waiting === 2)
    for (const each of streams) each.cancel()
    await until('nobody waits', () => h.service.streams.waiting === 0)
    assert.deepEqual(h.unexpected, [])
  })

  it('keeps memory bounded for a request of very many tiny records and headers', async () => {
    const many = Buffer.from(Array.from({ length: 50_000 }, () => [0x92, 0x01, 0x00]).flat())
    const error = await refused(rawProduce(h.address, many))
    assert.match(error.details, /batch of 10001 records: accepted is 1 to 10000/)
  })

  it('ends followers at shutdown with UNAVAILABLE', async () => {
    const other = await startServer()
    const its = new LogClient(other.address, credentials.createInsecure())
    const found = refused(take(its.consumeStream(ConsumeRequest.fromPartial({}))))
    await until('it waits', () => other.service.streams.waiting === 1)
    const closed = other.close()
    assert.equal((await found).code, status.UNAVAILABLE)
    its.close()
    await closed
  })
})

function rawProduce(address: string, request: Buffer): Promise<unknown> {
  const client = new LogClient(address, credentials.createInsecure())
  return promised(done =>
    client.makeUnaryRequest(
      '/log.v1.Log/Produce',
      (raw: Buffer) => raw,
      (raw: Buffer) => raw,
      request,
      done as never,
    ),
  ).finally(() => client.close())
}
