import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type ClientUnaryCall, Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { RemoteError, RoundhouseError } from '../../../src/errors.ts'
import { CommandRequest, type CommandResponse } from '../../../src/gen/clusterpb/cluster.ts'
import { fromUtf8 } from '../../../src/lib/bytes.ts'
import { errorInfoOf } from '../../../src/lib/error-info.ts'
import type { CallResult } from '../../../src/node/ports.ts'
import { nothing, value } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

const bytes = (text: string) => Buffer.from(text)
const texts = (args: readonly Uint8Array[]) => args.map(each => Buffer.from(each).toString())

describe('RunCommand', () => {
  let h: Harness
  before(async () => {
    h = await startServer()
  })
  after(() => h.close())

  const run = (
    request: Parameters<typeof CommandRequest.create>[0],
    deadlineMs?: number,
    onCall: (call: ClientUnaryCall) => void = () => {},
  ) =>
    new Promise<CommandResponse>((resolve, reject) => {
      const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs }
      const done = (error: ServiceError | null, response: CommandResponse) =>
        error ? reject(error) : resolve(response)
      onCall(h.client.runCommand(CommandRequest.create(request), new Metadata(), options, done))
    })

  const answering = async (reply: CallResult['reply'], more: Partial<CallResult> = {}) => {
    h.service.onExecute = async () => ({ reply, revision: 0, lagMs: 0, ...more })
    return run({ command: 'GET', key: 'k' })
  }

  const refusing = async (error: unknown): Promise<ServiceError> => {
    h.service.onExecute = () => Promise.reject(error)
    return run({ command: 'SET', key: 'k' }).then(
      () => assert.fail('it was answered'),
      (refused: ServiceError) => refused,
    )
  }

  const infoOf = (error: ServiceError) => errorInfoOf(error.metadata)

  it('passes command, key and arguments as one list', async () => {
    h.service.onExecute = async () => nothing
    await run({ command: 'set', key: 'k', args: [bytes('v'), bytes('EX'), bytes('10')] })
    const call = h.service.calls.at(-1)!
    assert.equal(call.command, 'set')
    assert.deepEqual(texts(call.args), ['k', 'v', 'EX', '10'])
    assert.deepEqual([call.read, call.forward, call.hops, call.session], ['linearizable', true, 0, null])
  })

  it('warns nobody of a call that is asked of many shards, each of which listens for its end', async () => {
    const warnings: Error[] = []
    const onWarning = (warning: Error) => warnings.push(warning)
    process.on('warning', onWarning)
    h.service.onExecute = async ({ signal }) => {
      for (let shard = 0; shard < 64; shard++) signal!.addEventListener('abort', () => {}, { once: true })
      return nothing
    }
    await run({ command: 'DBSIZE' })
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', onWarning)
    assert.deepEqual(warnings, [])
  })

  it('prefers key_bytes to key, byte for byte', async () => {
    await run({ command: 'GET', key: 'text', keyBytes: Buffer.from([0xff, 0x00, 0xfe]) })
    assert.deepEqual([...h.service.calls.at(-1)!.args[0]!], [0xff, 0x00, 0xfe])
  })

  it('gives a command without keys its non-empty key as an argument, and nothing for an empty one', async () => {
    await run({ command: 'PING', key: 'hello' })
    assert.deepEqual(texts(h.service.calls.at(-1)!.args), ['hello'])
    await run({ command: 'ping' })
    assert.deepEqual(texts(h.service.calls.at(-1)!.args), [])
  })

  it('gives a command with keys its key even where it is empty', async () => {
    await run({ command: 'GET', args: [bytes('not the key')] })
    assert.deepEqual(texts(h.service.calls.at(-1)!.args), ['', 'not the key'])
  })

  it('passes session, read, no_forward and hops', async () => {
    const session = Buffer.from('0123456789abcdef')
    await run({
      command: 'SET',
      key: 'k',
      session,
      sequence: 5n,
      ackedBelow: 3n,
      read: 1,
      noForward: true,
      hops: 1,
    })
    const call = h.service.calls.at(-1)!
    assert.deepEqual(Buffer.from(call.session!.id), session)
    assert.deepEqual([call.session!.sequence, call.session!.ackedBelow], [5, 3])
    assert.deepEqual([call.read, call.forward, call.hops], ['stale', false, 1])
  })

  for (const [what, request] of [
    ['a session that is not 16 bytes', { session: bytes('short'), sequence: 1n }],
    ['sequence 0 in a session', { session: Buffer.alloc(16), sequence: 0n }],
    ['a sequence beyond 2^53', { session: Buffer.alloc(16), sequence: 2n ** 60n }],
    ['a read that is not known', { read: 9 as 0 }],
    ['more than one hop', { hops: 2 }],
    ['no command', { command: '' }],
    ['a transfer', { transfer: { shard: 1n, snapshot: 's', part: 'p', position: 0n, length: 1 } }],
  ] as const) {
    it(`refuses ${what} as INVALID_ARGUMENT`, async () => {
      const before = h.service.calls.length
      const error = (await run({ command: 'SET', key: 'k', ...request }).catch(e => e)) as ServiceError
      assert.equal(error.code, status.INVALID_ARGUMENT)
      assert.equal(infoOf(error)?.reason, 'INVALID_ARGUMENT')
      assert.equal(h.service.calls.length, before)
    })
  }

  it('echoes the id, all 64 bits of it', async () => {
    h.service.onExecute = async () => nothing
    assert.equal((await run({ command: 'GET', key: 'k', id: 2n ** 64n - 1n })).id, 2n ** 64n - 1n)
  })

  it('answers a missing key with no field of the oneof and no error', async () => {
    const response = await answering({ kind: 'nil' })
    assert.equal(response.response, undefined)
    assert.equal(response.error, '')
  })

  it('tells an empty value from a missing one', async () => {
    const response = await answering({ kind: 'value', value: new Uint8Array(0) })
    assert.deepEqual(response.response, { $case: 'value', value: Buffer.alloc(0) })
  })

  it('answers success, with the integer of Redis beside it', async () => {
    const response = await answering({ kind: 'success', success: true, integer: 0 })
    assert.deepEqual(response.response, { $case: 'success', value: true })
    assert.equal(response.affected, 0n)
    assert.equal((await answering({ kind: 'success', success: false })).affected, undefined)
  })

  for (const count of [0, -1, Number.MAX_SAFE_INTEGER, 2n ** 63n - 1n, -(2n ** 63n)]) {
    it(`answers the count ${count} exactly`, async () => {
      const response = await answering({ kind: 'count', count })
      assert.deepEqual(response.response, { $case: 'count', value: BigInt(count) })
    })
  }

  it('answers lists in order, with missing values absent and empty ones empty', async () => {
    const items = [
      { value: fromUtf8('a') },
      {},
      { value: fromUtf8('') },
      { key: fromUtf8(''), value: fromUtf8('b') },
    ]
    const { response } = await answering({ kind: 'list', items })
    assert.equal(response?.$case, 'list')
    assert.deepEqual(
      response?.$case === 'list' && response.value.list.map(({ key, value: v }) => [key, v?.toString()]),
      [
        [undefined, 'a'],
        [undefined, undefined],
        [undefined, ''],
        ['', 'b'],
      ],
    )
  })

  it('puts a list key that is not UTF-8 into key_bytes', async () => {
    const items = [{ key: Uint8Array.of(0xff, 0xfe) }, { key: fromUtf8('schlüssel') }]
    const { response, cursor } = await answering({ kind: 'list', items, cursor: Uint8Array.of(1, 0xff) })
    const list = response?.$case === 'list' ? response.value.list : []
    assert.deepEqual([list[0]!.key, [...list[0]!.keyBytes]], [undefined, [0xff, 0xfe]])
    assert.deepEqual([list[1]!.key, list[1]!.keyBytes.length], ['schlüssel', 0])
    assert.deepEqual([...cursor!], [1, 0xff])
  })

  it('answers revision and lag', async () => {
    const response = await answering({ kind: 'nil' }, { revision: 2 ** 50, lagMs: 12.3 })
    assert.deepEqual([response.revision, response.lagMs], [2n ** 50n, 13])
  })

  for (const [error, code] of [
    [new RoundhouseError('SYNTAX', { detail: 'x' }), status.INVALID_ARGUMENT],
    [new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' }), status.FAILED_PRECONDITION],
    [new RoundhouseError('NO_LEADER', { shard: 1, waitedMs: 5 }), status.UNAVAILABLE],
    [new RoundhouseError('OUTCOME_UNKNOWN', { why: 'x' }), status.DEADLINE_EXCEEDED],
    [new RoundhouseError('OVERLOADED', { what: 'x', max: 1 }), status.RESOURCE_EXHAUSTED],
    [new RoundhouseError('CORRUPT', { where: 'x', what: 'y' }), status.DATA_LOSS],
  ] as const) {
    it(`answers ${error.code} as ${status[code]} with google.rpc.ErrorInfo`, async () => {
      const refused = await refusing(error)
      assert.equal(refused.code, code)
      assert.equal(refused.details, error.message)
      assert.deepEqual(infoOf(refused), { reason: error.code, leader: '' })
    })
  }

  it("says with NOT_LEADER where to go, whether this node knows or another one's answer said it", async () => {
    const own = new RoundhouseError('NOT_LEADER', { shard: 1, leader: 'n2', address: '10.0.0.2:8080' })
    const remote = new RemoteError('NOT_LEADER', own.message, '10.0.0.2:8080')
    for (const error of [own, remote]) {
      const refused = await refusing(error)
      assert.equal(refused.code, status.UNAVAILABLE)
      assert.equal(infoOf(refused)?.leader, '10.0.0.2:8080')
    }
  })

  it('keeps the text of what it did not expect inside, and reports it', async () => {
    const fault = new TypeError('secret')
    const refused = await refusing(fault)
    assert.equal(refused.code, status.INTERNAL)
    assert.doesNotMatch(refused.details, /secret/)
    assert.equal(h.unexpected.pop(), fault)
  })

  it('answers also where the service throws before it promises, and where a text is long or broken', async () => {
    h.service.onExecute = () => {
      throw new RoundhouseError('UNKNOWN_COMMAND', { command: `\ud800${'x'.repeat(100_000)}` })
    }
    const refused = (await run({ command: 'SET', key: 'k' }).catch(e => e)) as ServiceError
    assert.equal(refused.code, status.INVALID_ARGUMENT)
    assert.ok(refused.details.length < 2000)
  })

  it("waits as long as the caller's deadline, at most message_timeout", async () => {
    h.service.onExecute = async () => nothing
    await run({ command: 'GET', key: 'k' })
    assert.equal(h.service.calls.at(-1)!.timeoutMs, 5000)
    await run({ command: 'GET', key: 'k' }, 700)
    const { timeoutMs } = h.service.calls.at(-1)!
    assert.ok(timeoutMs > 100 && timeoutMs <= 701, `${timeoutMs}`)
    await run({ command: 'GET', key: 'k' }, 60_000)
    assert.equal(h.service.calls.at(-1)!.timeoutMs, 5000)
  })

  it('aborts the call when the caller cancels', async () => {
    let signal: AbortSignal | undefined
    h.service.onExecute = call => {
      signal = call.signal
      return new Promise(() => {})
    }
    let grpcCall: ClientUnaryCall | undefined
    const result = run({ command: 'GET', key: 'k' }, undefined, call => {
      grpcCall = call
    }).catch(e => e)
    await until('the call arrives', () => signal !== undefined)
    assert.equal(signal!.aborted, false)
    grpcCall!.cancel()
    await until('the signal is aborted', () => signal!.aborted)
    assert.equal(((await result) as ServiceError).code, status.CANCELLED)
  })

  it('does not abort a call that was answered', async () => {
    let signal: AbortSignal | undefined
    h.service.onExecute = async call => {
      signal = call.signal
      return value('v')
    }
    await run({ command: 'GET', key: 'k' })
    await run({ command: 'GET', key: 'k' })
    assert.equal(signal!.aborted, false)
  })
})
