import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { credentials, type ServiceError, status } from '@grpc/grpc-js'
import {
  AtomicRequest,
  type AtomicResponse,
  ClusterNodeClient,
  CommandRequest,
  type CommandResponse,
  type Operation,
} from '../../../src/gen/clusterpb/cluster.ts'
import {
  ConsumeRequest,
  type ConsumeResponse,
  LogClient,
  ProduceRequest,
} from '../../../src/gen/log/v1/log.ts'
import { errorInfoOf } from '../../../src/lib/error-info.ts'
import { type Cluster, startCluster } from '../../../src/testing.ts'

const bytes = (text: string) => Buffer.from(text)

describe('Atomic, on a node', () => {
  let cluster: Cluster
  let node: ClusterNodeClient
  let log: LogClient
  before(async () => {
    cluster = await startCluster({ nodes: 1 })
    node = new ClusterNodeClient(cluster.addresses[0]!, credentials.createInsecure())
    log = new LogClient(cluster.addresses[0]!, credentials.createInsecure())
  })
  after(async () => {
    node?.close()
    log?.close()
    await cluster?.stop()
  })

  const command = (name: string, key: string, ...args: string[]): Operation => ({
    operation: {
      $case: 'command',
      value: CommandRequest.fromPartial({ command: name, key, args: args.map(bytes) }),
    },
  })
  const append = (stream: string, ...values: string[]): Operation =>
    AtomicRequest.fromPartial({
      operations: [
        {
          operation: {
            $case: 'append',
            value: { stream, records: values.map(value => ({ value: bytes(value) })) },
          },
        },
      ],
    }).operations[0]!
  const run = (operations: Operation[], more: Partial<AtomicRequest> = {}) =>
    new Promise<AtomicResponse>((resolve, reject) =>
      node.atomic(AtomicRequest.fromPartial({ operations, ...more }), (error, response) =>
        error === null ? resolve(response) : reject(error),
      ),
    )
  const get = (key: string) =>
    new Promise<CommandResponse>((resolve, reject) =>
      node.runCommand(CommandRequest.fromPartial({ command: 'GET', key }), (error, response) =>
        error === null ? resolve(response) : reject(error),
      ),
    )
  const consume = (stream: string, offset: bigint) =>
    new Promise<ConsumeResponse>((resolve, reject) =>
      log.consume(ConsumeRequest.fromPartial({ stream, offset, linearizable: true }), (error, response) =>
        error === null ? resolve(response) : reject(error),
      ),
    )
  const refusal = (operations: Operation[]) =>
    run(operations).then(
      () => assert.fail('it was applied'),
      (error: ServiceError) => error,
    )

  it('writes keys and appends to a stream of one hash tag as one entry, once however often it is sent', async () => {
    // Made by the first who names it, as for any producer; others are created first.
    await assert.rejects(run([append('{u1}orders', 'x')]), { code: status.FAILED_PRECONDITION })
    await new Promise<void>((resolve, reject) =>
      log.produce(ProduceRequest.fromPartial({ record: { value: bytes('first') } }), error =>
        error === null ? resolve() : reject(error),
      ),
    )
    const session = Buffer.concat([Buffer.alloc(6), Buffer.alloc(10, 7)])
    session.writeUIntBE(Date.now(), 0, 6)
    const sent = { session, sequence: 1n, ackedBelow: 1n }
    const key = '{default/0}order'
    const operations = [command('SET', key, '7', 'NX'), append('default', 'a', 'b'), command('GET', key)]
    const first = await run(operations, sent)
    const again = await run(operations, sent)
    assert.deepEqual(
      first.responses.map(({ response }) => response),
      [
        { $case: 'success', value: true },
        { $case: 'count', value: 1n },
        { $case: 'value', value: bytes('7') },
      ],
    )
    assert.deepEqual(again.responses, first.responses)
    assert.equal((await consume('', 2n)).record?.value.toString(), 'b')
    await assert.rejects(consume('', 3n), { code: status.OUT_OF_RANGE })
  })

  it('applies nothing when a guard is not met', async () => {
    const error = await refusal([append('default', 'c'), command('SET', '{default/0}order', '8', 'NX')])
    assert.equal(error.code, status.FAILED_PRECONDITION)
    assert.equal(errorInfoOf(error.metadata)?.reason, 'CONDITION_NOT_MET')
    await assert.rejects(consume('', 3n), { code: status.OUT_OF_RANGE })
    const { response } = await get('{default/0}order')
    assert.deepEqual(response, { $case: 'value', value: bytes('7') })
  })

  it('names both slots when its keys are of two, and what is accepted when it can’t be an entry', async () => {
    const crossing = await refusal([command('SET', 'a', '1'), command('SET', 'b', '2')])
    assert.equal(crossing.code, status.INVALID_ARGUMENT)
    assert.match(crossing.details, /"a" is in 15495, "b" in 3300/)
    for (const operations of [[], [command('PING', '')], [{ operation: undefined }], [command('SET', 'a')]])
      assert.equal((await refusal(operations)).code, status.INVALID_ARGUMENT)
  })

  it('refuses what a command in it asks for itself and can not have', async () => {
    const session = { session: Buffer.alloc(16, 1), sequence: 1n }
    const own: Partial<CommandRequest>[] = [session, { read: 1 }, { noForward: true }, { hops: 1 }]
    for (const more of own) {
      const plain = CommandRequest.fromPartial({ command: 'SET', key: 'own', args: [bytes('v')] })
      const value: CommandRequest = { ...plain, ...more }
      const refused = await refusal([{ operation: { $case: 'command', value } }])
      assert.equal(refused.code, status.INVALID_ARGUMENT)
      assert.match(refused.details, /a session of the whole/)
    }
  })
})
