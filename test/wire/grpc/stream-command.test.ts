import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type ClientDuplexStream, type ServiceError, status } from '@grpc/grpc-js'
import { RoundhouseError } from '../../../src/errors.ts'
import { CommandRequest, type CommandResponse } from '../../../src/gen/clusterpb/cluster.ts'
import { crc32 } from '../../../src/lib/crc.ts'
import { type Deferred, deferred } from '../../../src/lib/deferred.ts'
import type { CallResult } from '../../../src/node/ports.ts'
import { grpcLimits } from '../../../src/wire/grpc/options.ts'
import { firstAnswerBytes } from '../../../src/wire/grpc/ordered-window.ts'
import { nothing, value } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

type Stream = ClientDuplexStream<CommandRequest, CommandResponse>

describe('StreamCommand', () => {
  let h: Harness
  before(async () => {
    h = await startServer()
  })
  after(() => h.close())

  /** A stream and what came over it. */
  const open = () => {
    const stream: Stream = h.client.streamCommand()
    const responses: CommandResponse[] = []
    const ended = new Promise<ServiceError | null>(resolve => {
      stream.on('data', (response: CommandResponse) => responses.push(response))
      stream.on('error', (error: ServiceError) => resolve(error))
      stream.on('end', () => resolve(null))
    })
    const send = (request: Parameters<typeof CommandRequest.create>[0]) =>
      stream.write(CommandRequest.create(request))
    return { stream, responses, ended, send }
  }

  it('answers in request order, however the calls end', async () => {
    const open1 = new Map<string, Deferred<CallResult>>()
    h.service.onExecute = call => {
      const d = deferred<CallResult>()
      open1.set(Buffer.from(call.args[0]!).toString(), d)
      return d.promise
    }
    const { stream, responses, ended, send } = open()
    for (const [i, key] of ['a', 'b', 'c'].entries()) send({ command: 'GET', key, id: BigInt(i + 1) })
    await until('all three run side by side', () => open1.size === 3)
    open1.get('c')!.resolve(value('C'))
    open1.get('b')!.resolve(value('B'))
    await new Promise(setImmediate)
    assert.equal(responses.length, 0)
    open1.get('a')!.resolve(value('A'))
    stream.end()
    assert.equal(await ended, null)
    assert.deepEqual(
      responses.map(r => [r.id, r.response?.$case === 'value' && r.response.value.toString()]),
      [
        [1n, 'A'],
        [2n, 'B'],
        [3n, 'C'],
      ],
    )
  })

  it('begins the calls in the order in which they came', async () => {
    h.service.onExecute = async () => nothing
    const from = h.service.calls.length
    const { stream, responses, ended, send } = open()
    for (let i = 0; i < 1000; i++)
      send({ command: 'SET', key: 'k', args: [Buffer.from(`${i}`)], id: BigInt(i) })
    stream.end()
    await ended
    const begun = h.service.calls.slice(from).map(call => Number(Buffer.from(call.args[1]!).toString()))
    assert.deepEqual(begun, [...Array(1000).keys()])
    assert.deepEqual(
      responses.map(r => Number(r.id)),
      [...Array(1000).keys()],
    )
  })

  it('tells errors in band and goes on', async () => {
    h.service.onExecute = async call => {
      if (call.command === 'LPUSH')
        throw new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'list' })
      if (call.command === 'SET') {
        throw new RoundhouseError('NOT_LEADER', { shard: 1, leader: 'n2', address: '10.0.0.2:8080' })
      }
      return value('still here')
    }
    const { stream, responses, ended, send } = open()
    send({ command: 'LPUSH', key: 'k', id: 1n })
    send({ command: 'SET', key: 'k', id: 2n, hops: 7 })
    send({ command: 'SET', key: 'k', id: 3n })
    send({ command: 'GET', key: 'k', id: 4n })
    stream.end()
    assert.equal(await ended, null)
    assert.deepEqual(
      responses.map(r => [r.id, r.code, r.leader]),
      [
        [1n, 'WRONG_TYPE', ''],
        [2n, 'INVALID_ARGUMENT', ''],
        [3n, 'NOT_LEADER', '10.0.0.2:8080'],
        [4n, '', ''],
      ],
    )
    assert.match(responses[0]!.error, /^WRONGTYPE /)
  })

  it('keeps what it did not expect inside, and goes on', async () => {
    h.service.onExecute = call =>
      call.command === 'SET' ? Promise.reject(new TypeError('secret')) : Promise.resolve(nothing)
    const { stream, responses, ended, send } = open()
    send({ command: 'SET', key: 'k' })
    send({ command: 'GET', key: 'k' })
    stream.end()
    await ended
    assert.deepEqual(
      responses.map(r => r.code),
      ['INTERNAL', ''],
    )
    assert.doesNotMatch(responses[0]!.error, /secret/)
    assert.equal((h.unexpected.pop() as Error).message, 'secret')
  })

  it('finishes answering after the client has half-closed', async () => {
    const slow = deferred<CallResult>()
    h.service.onExecute = () => slow.promise
    const { stream, responses, ended, send } = open()
    const from = h.service.calls.length
    send({ command: 'GET', key: 'k' })
    stream.end()
    await until('the call arrives', () => h.service.calls.length > from)
    slow.resolve(value('late'))
    assert.equal(await ended, null)
    assert.equal(responses.length, 1)
  })

  it('aborts what is in flight when the client cancels', async () => {
    const signals: AbortSignal[] = []
    h.service.onExecute = call => {
      signals.push(call.signal!)
      return new Promise(() => {})
    }
    const { stream, ended, send } = open()
    send({ command: 'GET', key: 'a' })
    send({ command: 'GET', key: 'b' })
    await until('both calls arrive', () => signals.length === 2)
    stream.cancel()
    await until('both are aborted', () => signals.every(each => each.aborted))
    assert.equal((await ended)?.code, status.CANCELLED)
  })

  it('stops reading when its window of requests is full, holds up no other call, and goes on when answers leave', async () => {
    const waiting: Deferred<CallResult>[] = []
    h.service.onExecute = call => {
      if (call.command === 'PING') return Promise.resolve(nothing)
      const d = deferred<CallResult>()
      waiting.push(d)
      return d.promise
    }
    const { stream, responses, ended, send } = open()
    const total = 5 * grpcLimits.windowRequestsMax
    const args = [Buffer.alloc(1000)]
    for (let i = 0; i < total; i++) send({ command: 'SET', key: `${i}`, args, id: BigInt(i) })
    stream.end()
    const first = grpcLimits.windowBytesMax / firstAnswerBytes
    await until('the first ones are begun', () => waiting.length === first)
    // Nobody knew how long their answers would be; now the others may be begun.
    for (const each of waiting) each.resolve(nothing)
    const full = first + grpcLimits.windowRequestsMax
    await until('the window is full', () => waiting.length === full)
    // A call over the same connection: it comes after whatever was still on its way.
    await new Promise<void>((resolve, reject) =>
      h.client.runCommand(CommandRequest.create({ command: 'PING' }), error =>
        error === null ? resolve() : reject(error),
      ),
    )
    assert.equal(waiting.length, full)
    for (let settled = first; settled < total; ) {
      while (settled < waiting.length) waiting[settled++]!.resolve(nothing)
      assert.ok(waiting.length - settled <= grpcLimits.windowRequestsMax)
      await new Promise(setImmediate)
    }
    await ended
    assert.deepEqual(
      responses.map(r => Number(r.id)),
      [...Array(total).keys()],
    )
  })

  it('stops reading when its window of bytes is full', async () => {
    const waiting: Deferred<CallResult>[] = []
    h.service.onExecute = () => {
      const d = deferred<CallResult>()
      waiting.push(d)
      return d.promise
    }
    const { stream, responses, ended, send } = open()
    const piece = Buffer.alloc(1024 * 1024)
    const fits = grpcLimits.windowBytesMax / piece.length
    for (let i = 0; i < 2 * fits; i++) send({ command: 'SET', key: 'k', args: [piece] })
    stream.end()
    await until('the window is full', () => waiting.length >= fits)
    await new Promise(setImmediate)
    assert.ok(waiting.length <= fits + 1, `${waiting.length} begun`)
    for (let settled = 0; settled < 2 * fits; ) {
      while (settled < waiting.length) waiting[settled++]!.resolve(nothing)
      await new Promise(setImmediate)
    }
    await ended
    assert.equal(responses.length, 2 * fits)
  })

  it('stops reading when the client does not read its answers', async () => {
    const reply: CallResult = {
      reply: { kind: 'value', value: Buffer.alloc(256 * 1024) },
      revision: 0,
      lagMs: 0,
    }
    h.service.onExecute = async () => reply
    const from = h.service.calls.length
    const stream: Stream = h.client.streamCommand()
    const total = 400
    for (let i = 0; i < total; i++) stream.write(CommandRequest.create({ command: 'GET', key: 'k' }))
    stream.end()
    await until('reading stops', () => h.service.calls.length - from >= 32)
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    const begun = h.service.calls.length - from
    assert.ok(begun < 120, `${begun} of ${total} begun though no answer was read`)
    let count = 0
    for await (const _ of stream) count++
    assert.equal(count, total)
  })

  it('begins few requests while their answers are long, many while they are short', async () => {
    const waiting: Deferred<CallResult>[] = []
    h.service.onExecute = () => {
      const d = deferred<CallResult>()
      waiting.push(d)
      return d.promise
    }
    const { stream, ended, send } = open()
    const answer = (bytes: number): CallResult => ({
      ...nothing,
      reply: { kind: 'value', value: Buffer.alloc(bytes) },
    })
    const long = answer(2 * 1024 * 1024)
    const total = 600
    for (let i = 0; i < total; i++) send({ command: 'GET', key: 'k' })
    stream.end()
    const first = grpcLimits.windowBytesMax / firstAnswerBytes
    await until('the first ones are begun', () => waiting.length === first)
    let settled = 0
    let most = 0
    const settle = async (result: CallResult) => {
      waiting[settled++]!.resolve(result)
      await until('another is begun', () => waiting.length > settled || settled === total)
      most = Math.max(most, waiting.length - settled)
    }
    for (let i = 0; i < first; i++) await settle(long)
    most = 0
    for (let i = 0; i < 10; i++) await settle(long)
    assert.ok(most <= 4, `${most} run, each of which may bring 2 MiB`)
    for (let i = 0; i < 100; i++) await settle(nothing)
    await until('the window is full', () => waiting.length - settled === grpcLimits.windowRequestsMax)
    while (settled < total) await settle(nothing)
    await ended
  })

  it('moves bulk data when its first message says so: chunks with their CRC', async () => {
    const data = Buffer.from('0123456789')
    h.service.onReadChunk = async ({ snapshot, position, length }) => {
      if (snapshot !== 's1') throw new RoundhouseError('NO_SUCH_TRANSFER', { id: snapshot })
      return data.subarray(position, position + length)
    }
    const { stream, responses, ended, send } = open()
    const transfer = { shard: 3n, snapshot: 's1', part: 'rows', position: 0n, length: 4 }
    send({ transfer })
    send({ transfer: { ...transfer, position: 4n, length: 6 } })
    send({ transfer: { ...transfer, snapshot: 'gone' } })
    send({ transfer: { ...transfer, length: 0 } })
    send({ transfer: { ...transfer, position: 2n ** 60n } })
    send({ command: 'GET', key: 'k' })
    stream.end()
    assert.equal(await ended, null)
    const chunks = responses.map(r => (r.response?.$case === 'value' ? r.response.value.toString() : r.code))
    assert.deepEqual(chunks, [
      '0123',
      '456789',
      'NO_SUCH_TRANSFER',
      'INVALID_ARGUMENT',
      'INVALID_ARGUMENT',
      'INVALID_ARGUMENT',
    ])
    assert.equal(responses[0]!.id, BigInt(crc32(Buffer.from('0123'))))
  })

  it('refuses a transfer on a stream of commands', async () => {
    h.service.onExecute = async () => nothing
    const { stream, responses, ended, send } = open()
    send({ command: 'GET', key: 'k' })
    send({ transfer: { shard: 3n, snapshot: 's1', part: 'rows', position: 0n, length: 4 } })
    stream.end()
    await ended
    assert.deepEqual(
      responses.map(r => r.code),
      ['', 'INVALID_ARGUMENT'],
    )
  })
})
