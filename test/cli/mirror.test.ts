import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { runCli } from '../../src/cli/cli.ts'
import { mirrorVerb } from '../../src/cli/mirror.ts'
import { type ConsumeRequest, ConsumeResponse, LogService } from '../../src/gen/log/v1/log.ts'
import { decodeKept } from '../../src/keyspace/record.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { FakeStreams } from '../wire/grpc/fake-streams.ts'
import { type Harness, startServer, until } from '../wire/grpc/harness.ts'
import { fakeShell } from './fake-cluster.ts'

describe('mirror', () => {
  let there: Harness
  let here: Harness
  beforeEach(async () => {
    there = await startServer()
    here = await startServer()
  })
  afterEach(() => Promise.all([there.close(), here.close()]))

  const begin = (line: string, from = there.address) => {
    const shell = fakeShell({ ROUNDHOUSE_NODE: here.address })
    const args = [...`mirror --from ${from} ${line}`.trim().split(' '), '--timeout', '5s']
    const ended = runCli(args, shell, [mirrorVerb]).then(exit => ({
      exit,
      out: shell.stdout.text(),
      err: shell.stderr.text(),
    }))
    return { shell, ended }
  }
  const run = (line: string, from?: string) => begin(line, from).ended

  const produce = (h: Harness, stream: string, partition: number, ...values: string[]) =>
    h.service.streams.produce({
      ...{ stream, partition, session: null, timeoutMs: 1_000 },
      records: values.map(value => ({
        ...{ value: fromUtf8(value), key: fromUtf8(`key of ${value}`), type: 7 },
        headers: [{ name: 'h', value: fromUtf8('1') }],
      })),
    })

  async function make(h: Harness, name: string, partitions: number): Promise<void> {
    const retention = { retentionMs: 60_000, retentionBytes: null }
    await h.service.streams.create({ name, partitions, ...retention, ifMissing: false })
  }

  async function held(h: Harness, stream: string, partition = 0) {
    const place = await h.service.streams.find(stream, partition)
    const { start, end } = await h.service.streams.rangeOf(place)
    const options = { bytesMax: 1 << 20, isLinearizable: true, timeoutMs: 1_000 }
    const { kept } = await h.service.streams.read(place, start, options)
    return { start, end, records: kept.map(each => ({ ...decodeKept(each), term: 0 })) }
  }
  const values = async (h: Harness, stream: string) =>
    (await held(h, stream)).records.map(({ value }) => toUtf8(value))

  it('copies the streams that fit, with their partitions, retention, offsets, times, keys and headers', async () => {
    await make(there, 'orders', 2)
    await make(there, 'audit', 1)
    await produce(there, 'orders', 0, 'a', 'b')
    await produce(there, 'orders', 1, 'c')
    const { exit, out, err } = await run('--streams ord* --once')
    assert.deepEqual([exit, out], [0, '3 records copied, 1 streams, 2 partitions\n'], err)
    for (const partition of [0, 1])
      assert.deepEqual(await held(here, 'orders', partition), await held(there, 'orders', partition))
    const [only, ...more] = here.service.streams.list()
    assert.deepEqual([only?.name, only?.retentionMs, more.length], ['orders', 60_000, 0])
  })

  it('asks what a stream holds once on each side, however many partitions it has', async () => {
    await make(there, 'wide', 64)
    for (let partition = 0; partition < 64; partition++) await produce(there, 'wide', partition, 'a')
    const asked = { there: 0, here: 0 }
    for (const [side, { service }] of Object.entries({ there, here }))
      service.streams.describe = async name => {
        asked[side as keyof typeof asked]++
        return await FakeStreams.prototype.describe.call(service.streams, name)
      }
    const { exit, out, err } = await run('--once')
    assert.deepEqual([exit, out], [0, '64 records copied, 1 streams, 64 partitions\n'], err)
    assert.deepEqual(asked, { there: 1, here: 1 })
  })

  it('goes on where it ended, and copies nothing twice, with two at once either', async () => {
    await make(there, 'orders', 1)
    await produce(there, 'orders', 0, 'a', 'b')
    await run('--once')
    await produce(there, 'orders', 0, 'c')
    const runs = await Promise.all([run('--once'), run('--once')])
    assert.deepEqual(
      runs.map(({ exit }) => exit),
      [0, 0],
      runs.map(({ err }) => err).join(''),
    )
    assert.deepEqual(await values(here, 'orders'), ['a', 'b', 'c'])
  })

  it('follows what is produced until it is told to end', async () => {
    await make(there, 'orders', 1)
    await produce(there, 'orders', 0, 'a')
    const { shell, ended } = begin('-o json')
    await until('the first is there', async () => (await values(here, 'orders').catch(() => [])).length === 1)
    await produce(there, 'orders', 0, 'b')
    await until('the second is there', async () => (await values(here, 'orders')).length === 2)
    shell.controller.abort()
    const { exit, out } = await ended
    assert.equal(exit, 0)
    assert.deepEqual(JSON.parse(out), [{ partition: 'orders/0', copied: 2, bytes: 2, end: 2, skipped: 0 }])
  })

  it('begins where the source begins; a gap later is refused, or skipped if so wished', async () => {
    await make(there, 'orders', 1)
    await produce(there, 'orders', 0, 'a', 'b', 'c')
    await there.service.streams.truncate('orders', 0, 2)
    assert.equal((await run('--once')).exit, 0)
    assert.deepEqual([(await held(here, 'orders')).start, await values(here, 'orders')], [2, ['c']])
    await produce(there, 'orders', 0, 'd', 'e')
    await there.service.streams.truncate('orders', 0, 4)
    const refused = await run('--once')
    assert.equal(refused.exit, 1)
    assert.match(
      refused.err,
      /orders\/0 is not mirrored: the source let records 3 to 3 go before.*--skip-gaps/,
    )
    assert.deepEqual(await values(here, 'orders'), ['c'])
    const skipped = await run('--once --skip-gaps')
    assert.match(skipped.out, /1 records copied.*1 offsets skipped/)
    assert.deepEqual([(await held(here, 'orders')).start, await values(here, 'orders')], [4, ['e']])
  })

  it('leaves alone what is no copy of the source', async () => {
    await make(there, 'orders', 1)
    await make(here, 'orders', 1)
    await produce(there, 'orders', 0, 'a', 'b')
    await produce(here, 'orders', 0, 'x')
    assert.match((await run('--once')).err, /orders\/0 is not mirrored:.*record 0 is another one here/)
    await produce(here, 'orders', 0, 'y', 'z')
    assert.match((await run('--once')).err, /it ends at 3 here, at 2 at the source/)
    await make(here, 'audit', 2)
    await make(there, 'audit', 1)
    assert.match((await run('--once --streams audit')).err, /2 partitions here, 1 at the source/)
    assert.equal((await held(here, 'orders')).end, 3)
  })

  it('ends where the stream was made anew at the source, though its name is there', async () => {
    await make(there, 'orders', 1)
    await produce(there, 'orders', 0, 'a')
    const { streams } = there.service
    const { find } = streams
    // Each call that names the stream by its id comes after it was made anew.
    streams.find = async (name, partition, id = 0) => await find.call(streams, name, partition, id && id + 1)
    const { exit, err } = await run('--once')
    assert.deepEqual(
      [exit, /orders\/0 is not mirrored: it was deleted and made anew/.test(err)],
      [1, true],
      err,
    )
  })

  it('says what is missing', async () => {
    assert.match((await run('--once --streams nope')).err, /no such stream: nope/)
    const shell = fakeShell({ ROUNDHOUSE_NODE: here.address })
    assert.equal(await runCli(['mirror'], shell, [mirrorVerb]), 2)
    assert.match(shell.stderr.text(), /--from is missing/)
  })

  it('copies a log that knows no streams and no times, with the fields of old alone', async () => {
    const log = ['one', 'two', 'three']
    const plain = await plainLogServer(log)
    try {
      const { exit, out, err } = await run('--once --streams default', plain.address)
      assert.deepEqual([exit, out], [0, '3 records copied, 1 streams, 1 partitions\n'], err)
      assert.deepEqual(await values(here, 'default'), log)
      log.push('four')
      await run('--once', plain.address)
      assert.deepEqual(await values(here, 'default'), log)
    } finally {
      plain.close()
    }
  })

  it('appends together what such a log sent one by one meanwhile, and waits for it, however long that takes', async () => {
    const log = Array.from({ length: 500 }, (_, i) => `r${i}`)
    const plain = await plainLogServer(log)
    const { streams } = here.service
    const { copy } = FakeStreams.prototype
    let calls = 0
    streams.copy = async (...wish) => {
      // Longer than the silence by which the end of such a log is told.
      if (++calls === 1) await new Promise(resolve => setTimeout(resolve, 1_200))
      return copy.apply(streams, wish)
    }
    try {
      const { exit, out, err } = await run('--once --streams default', plain.address)
      assert.deepEqual([exit, out], [0, '500 records copied, 1 streams, 1 partitions\n'], err)
      assert.deepEqual(await values(here, 'default'), log)
      assert.ok(calls <= 10, `${calls} appends`)
    } finally {
      plain.close()
    }
  })

  it('ends with the reason where such a log no longer has the last record of the copy', async () => {
    for (const code of [status.OUT_OF_RANGE, 404 as status]) {
      const log: (string | undefined)[] = ['one', 'two']
      const plain = await plainLogServer(log, code)
      try {
        assert.equal((await run('--once', plain.address)).exit, 0)
        log[1] = undefined
        const { exit, err } = await run('', plain.address)
        assert.equal(exit, 1, err)
        assert.match(err, /default\/0.*the source does not have record 1, the last here/)
      } finally {
        plain.close()
      }
    }
  })
})

/** A log as the seeds have it: it polls at its end, forever, and knows of a record only value and offset. */
async function plainLogServer(
  log: readonly (string | undefined)[],
  outOfRange: status = status.OUT_OF_RANGE,
) {
  const server = new Server()
  const { consume, consumeStream } = LogService
  const recordAt = (offset: number) => {
    const value = log[offset]
    return value === undefined
      ? null
      : ConsumeResponse.fromPartial({ record: { value: Buffer.from(value), offset: BigInt(offset) } })
  }
  const handlers = {
    consume: (
      call: ServerUnaryCall<ConsumeRequest, ConsumeResponse>,
      done: sendUnaryData<ConsumeResponse>,
    ) => {
      const found = recordAt(Number(call.request.offset))
      if (found === null) done({ code: outOfRange, details: 'offset out of range' })
      else done(null, found)
    },
    consumeStream: (call: ServerWritableStream<ConsumeRequest, ConsumeResponse>) => {
      let at = Number(call.request.offset)
      const timer = setInterval(() => {
        for (let found = recordAt(at); found !== null; found = recordAt(at)) {
          call.write(found)
          at++
        }
      }, 5)
      call.on('cancelled', () => clearInterval(timer))
    },
  }
  server.addService({ consume, consumeStream } as never, handlers as never)
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, found) =>
      error === null ? resolve(found) : reject(error),
    ),
  )
  return { address: `127.0.0.1:${port}`, close: () => server.forceShutdown() }
}
