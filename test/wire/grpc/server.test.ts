import assert from 'node:assert/strict'
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { Client, credentials, makeClientConstructor, type ServiceError, status } from '@grpc/grpc-js'
import { service as healthService } from 'grpc-health-check'
import { GrpcReflection } from 'grpc-js-reflection-client'
import { isError } from '../../../src/errors.ts'
import type { HeartbeatResponse } from '../../../src/gen/clusterpb/cluster.ts'
import { CommandRequest, type CommandResponse, HeartbeatRequest } from '../../../src/gen/clusterpb/cluster.ts'
import type { StatusResponse } from '../../../src/gen/roundhouse/v1/admin.ts'
import type { MemberRecord } from '../../../src/gossip/member.ts'
import { deferred } from '../../../src/lib/deferred.ts'
import type { CallResult } from '../../../src/node/ports.ts'
import { writeMember } from '../../../src/peer/member-codec.ts'
import { grpcLimits } from '../../../src/wire/grpc/options.ts'
import { nothing, someStatus } from './fake-service.ts'
import { type Harness, startServer, until } from './harness.ts'

const promised = <T>(
  begin: (done: (error: ServiceError | null, answer?: T) => void) => unknown,
): Promise<T> =>
  new Promise((resolve, reject) => begin((error, answer) => (error ? reject(error) : resolve(answer as T))))
const refused = (promise: Promise<unknown>): Promise<ServiceError> =>
  promise.then(
    () => assert.fail('it was answered'),
    (error: ServiceError) => error,
  )

const run = (h: Harness, request: Parameters<typeof CommandRequest.create>[0]) =>
  promised<CommandResponse>(done => h.client.runCommand(CommandRequest.create(request), done))

describe('the gRPC server', () => {
  let h: Harness
  before(async () => {
    h = await startServer()
  })
  after(() => h.close())

  it('says PORT_IN_USE, with the address, where the port is taken', async () => {
    const other = createTcpServer()
    await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
    const { port } = other.address() as AddressInfo
    const second = await startServer()
    await assert.rejects(
      second.server.listen('127.0.0.1', port),
      error => isError(error, 'PORT_IN_USE') && error.facts.address === `127.0.0.1:${port}`,
    )
    await second.close()
    other.close()
  })

  it('says CONFIG where the address is not of this machine', async () => {
    const second = await startServer()
    await assert.rejects(second.server.listen('192.0.2.1', 0), error => isError(error, 'CONFIG'))
    await second.close()
  })

  it('survives bytes that are no HTTP/2, a half preface and a connection that breaks', async () => {
    const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
    const garbage = [
      Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      Buffer.alloc(100_000, 0xff),
      Buffer.from(preface.slice(0, 9)),
      Buffer.concat([Buffer.from(preface), Buffer.alloc(1000, 0x7f)]),
      Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]),
    ]
    for (const bytes of garbage) {
      const socket = connect(h.port, '127.0.0.1')
      const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
      socket.on('error', () => {})
      socket.write(bytes)
      socket.end()
      setTimeout(() => socket.destroy(), 100).unref()
      socket.resume()
      await closed
    }
    h.service.onExecute = async () => nothing
    assert.equal((await run(h, { command: 'GET', key: 'k', id: 5n })).id, 5n)
    assert.deepEqual(h.unexpected, [])
  })

  it('refuses a body that is not the protobuf message, and a string that is not UTF-8, as INVALID_ARGUMENT', async () => {
    const client = new Client(h.address, credentials.createInsecure())
    const raw = (bytes: Buffer) => bytes
    const notUtf8 = Buffer.from([0x0a, 0x03, 0x47, 0x45, 0x54, 0x12, 0x02, 0xff, 0xfe])
    const before = h.service.calls.length
    for (const body of [Buffer.from([0x0a, 0x7f, 0x01]), Buffer.alloc(50), Buffer.alloc(50, 0xff), notUtf8]) {
      for (const path of ['/clusterpb.ClusterNode/RunCommand', '/clusterpb.ClusterNode/Heartbeat']) {
        if (body === notUtf8 && path.endsWith('Heartbeat')) continue
        const error = await refused(promised(done => client.makeUnaryRequest(path, raw, raw, body, done)))
        assert.equal(error.code, status.INVALID_ARGUMENT, path)
      }
    }
    assert.equal(h.service.calls.length, before)
    client.close()
  })

  it('refuses a request beyond its limit in its own words, however far beyond', async () => {
    const error = await refused(
      run(h, { command: 'SET', key: 'k', args: [Buffer.alloc(grpcLimits.requestBytesMax)] }),
    )
    assert.equal(error.code, status.INVALID_ARGUMENT)
    assert.match(error.details, /request too large: \d+ bytes, at most 16777216/)
    const huge = await refused(
      run(h, { command: 'SET', key: 'k', args: [Buffer.alloc(grpcLimits.messageBytesMax + 1)] }),
    )
    assert.equal(huge.code, status.INVALID_ARGUMENT)
    assert.match(huge.details, /request too large/)
    h.service.onExecute = async () => nothing
    assert.equal((await run(h, { command: 'GET', key: 'k', id: 9n })).id, 9n)
  })

  it('answers a reply of the largest size', async () => {
    h.service.onExecute = async () => ({
      reply: { kind: 'value', value: Buffer.alloc(8 * 1024 * 1024, 1) },
      revision: 0,
      lagMs: 0,
    })
    const { response } = await run(h, { command: 'GET', key: 'k' })
    assert.equal(response?.$case === 'value' && response.value.length, 8 * 1024 * 1024)
  })

  it('answers UNIMPLEMENTED to methods it has not', async () => {
    const client = new Client(h.address, credentials.createInsecure())
    const raw = (bytes: Buffer) => bytes
    const error = await refused(
      promised(done =>
        client.makeUnaryRequest('/clusterpb.ClusterNode/Nope', raw, raw, Buffer.alloc(0), done),
      ),
    )
    assert.equal(error.code, status.UNIMPLEMENTED)
    client.close()
  })

  it('describes its services to whoever asks by reflection', async () => {
    const reflection = new GrpcReflection(h.address, credentials.createInsecure())
    assert.deepEqual((await reflection.listServices()).sort(), [
      'clusterpb.ClusterNode',
      'grpc.health.v1.Health',
      'log.v1.Log',
      'roundhouse.v1.Admin',
      'roundhouse.v1.Shards',
      'roundhouse.v1.Streams',
      'roundhouse.v1.Watch',
    ])
    const descriptor = await reflection.getDescriptorBySymbol('clusterpb.ClusterNode')
    const found = descriptor.getPackageObject() as unknown as {
      clusterpb: { ClusterNode: { service: Record<string, { path: string }> } }
    }
    assert.deepEqual(
      Object.values(found.clusterpb.ClusterNode.service).map(method => method.path),
      [
        '/clusterpb.ClusterNode/Heartbeat',
        '/clusterpb.ClusterNode/RunCommand',
        '/clusterpb.ClusterNode/StreamCommand',
        '/clusterpb.ClusterNode/Atomic',
      ],
    )
  })

  describe('health', () => {
    type Answer = { status: string }
    const connectHealth = () => {
      const Health = makeClientConstructor(healthService, 'Health')
      return new Health(h.address, credentials.createInsecure())
    }

    it('is SERVING as long as the node says so, at every check', async () => {
      const client = connectHealth()
      const check = (service: string) => promised<Answer>(done => client.check!({ service }, done))
      assert.equal((await check('')).status, 'SERVING')
      h.service.serving = false
      assert.equal((await check('')).status, 'NOT_SERVING')
      assert.equal((await check('clusterpb.ClusterNode')).status, 'NOT_SERVING')
      h.service.serving = true
      assert.equal((await check('')).status, 'SERVING')
      assert.equal((await refused(check('no.such.Service'))).code, status.NOT_FOUND)
      client.close()
    })

    it('tells watchers of a change by itself', async () => {
      const client = connectHealth()
      const seen: string[] = []
      const call = client.watch!({ service: '' })
      call.on('data', (answer: Answer) => seen.push(answer.status))
      call.on('error', () => {})
      await until('the first status', () => seen.length === 1)
      h.service.serving = false
      await until('the change', () => seen.length === 2)
      h.service.serving = true
      assert.deepEqual(seen, ['SERVING', 'NOT_SERVING'])
      call.cancel()
      client.close()
    })
  })

  describe('heartbeat', () => {
    const record: MemberRecord = {
      nodeId: 'n2',
      storeId: 's2',
      peerAddress: '10.0.0.2:8080',
      clientAddress: 'two.example:8080',
      zone: 'b',
      incarnation: 3,
      heartbeat: 2 ** 50,
      state: 'suspect',
      load: { replicas: 4, leaders: 2, storedBytes: 2 ** 40, freeBytes: 7, operationsPerSecond: 1.5 },
      leads: [
        { shard: 0, term: 3 },
        { shard: 63, term: 2 ** 40 },
      ],
    }
    const beat = (request: Parameters<typeof HeartbeatRequest.create>[0]) =>
      promised<HeartbeatResponse>(done => h.client.heartbeat(HeartbeatRequest.create(request), done))

    it('hands on the whole view, the sender first, and answers with ours', async () => {
      h.service.view = [{ ...record, nodeId: 'n1' }]
      const other = { ...record, nodeId: 'n3', state: 'dead' as const, leads: [] }
      const answer = await beat({
        self: writeMember(record),
        peers: [writeMember(other)],
        clusterId: 'c1',
        wallMs: 1_700_000_000_001n,
      })
      assert.deepEqual(h.service.heartbeats.at(-1), {
        clusterId: 'c1',
        view: [record, other],
        wallMs: 1_700_000_000_001,
      })
      assert.deepEqual(answer.peers, [writeMember({ ...record, nodeId: 'n1' })])
      assert.deepEqual([answer.clusterId, answer.wallMs], ['c1', 1_700_000_000_000n])
    })

    it('answers a predecessor’s heartbeat, whose records say nothing that gossip could use', async () => {
      const answer = await beat({
        self: { nodeId: 'old', nodeAddr: 'old:1', alive: true, lastSeen: 5n },
        peers: [],
      })
      assert.deepEqual(h.service.heartbeats.at(-1), { clusterId: '', view: [], wallMs: 0 })
      assert.equal(answer.peers.length, 1)
    })

    it('drops hints that are broken and keeps the record', async () => {
      for (const hints of [
        '{',
        'null',
        '7',
        '{"load":"x","leads":[["a"]]}',
        '{"load":[1,2],"leads":[-1,1]}',
      ]) {
        await beat({ self: { ...writeMember(record), hints } })
        const [seen] = h.service.heartbeats.at(-1)!.view
        assert.deepEqual([seen?.nodeId, seen?.load.replicas, seen?.leads], ['n2', 0, []], hints)
      }
    })

    it('drops a record whose state or numbers are broken', async () => {
      const whole = writeMember(record)
      await beat({ peers: [{ ...whole, state: 'zombie' }, { ...whole, heartbeat: 2n ** 63n }, whole] })
      assert.deepEqual(h.service.heartbeats.at(-1)!.view, [record])
    })
  })

  describe('Admin', () => {
    it('answers Status with what the node knows', async () => {
      const answer = await promised<StatusResponse>(done => h.admin.status({}, done as never))
      const { level: featureLevel, ...node } = someStatus.nodes[0]!
      assert.deepEqual([answer.clusterId, answer.epoch, answer.featureLevel], ['c1', 7n, 1])
      assert.deepEqual(answer.nodes, [{ ...node, featureLevel }])
      assert.deepEqual(
        answer.shards.map(s => [s.shardId, s.slotFrom, s.slotTo, s.term, s.leader, s.learners, s.applied]),
        [
          [0, 0, 8192, 3n, 'n1', [], 12n],
          [1, 8192, 16384, 4n, '', ['n2'], 2n ** 40n],
        ],
      )
      assert.deepEqual(
        [answer.rebalance?.state, answer.rebalance?.bytesDone, answer.rebalance?.etaS],
        ['running', 2n ** 33n, 2],
      )
    })

    it('answers Map with the leader of each shard', async () => {
      const answer = await promised<{ leaders: string[]; shardCount: number }>(done =>
        h.admin.map({}, done as never),
      )
      assert.deepEqual([answer.shardCount, answer.leaders], [2, ['n1', '']])
    })

    it('answers Stats of the process and the node', async () => {
      const answer = await promised<{ nodeId: string; rssBytes: bigint; counters: Record<string, number> }>(
        done => h.admin.stats({}, done as never),
      )
      assert.equal(answer.nodeId, 'n1')
      assert.ok(answer.rssBytes > 1_000_000n)
      const { fsyncs, connections, connections_refused: refused } = answer.counters
      assert.deepEqual({ fsyncs, refused }, { fsyncs: 42, refused: 0 })
      assert.ok(connections! > 0)
    })

    it('passes Leave on and refuses one without a node', async () => {
      await promised(done => h.admin.leave({ nodeId: 'n1', allowUnderReplicated: true }, done as never))
      assert.deepEqual(h.service.left, [{ node: 'n1', allowUnderReplicated: true }])
      const unknown = promised(done =>
        h.admin.leave({ nodeId: 'n9', allowUnderReplicated: false }, done as never),
      )
      assert.equal((await refused(unknown)).code, status.FAILED_PRECONDITION)
      const none = promised(done => h.admin.leave({ nodeId: '', allowUnderReplicated: false }, done as never))
      assert.equal((await refused(none)).code, status.INVALID_ARGUMENT)
    })

    it('passes Rebalance on and refuses actions that are none', async () => {
      const answer = await promised<{ rebalance: { state: string; blockedBy: string; etaS?: number } }>(
        done => h.admin.rebalance({ action: 'pause' }, done as never),
      )
      assert.deepEqual(
        [answer.rebalance.state, answer.rebalance.blockedBy, answer.rebalance.etaS],
        ['paused', 'n2 is full', undefined],
      )
      const wrong = promised(done => h.admin.rebalance({ action: 'explode' }, done as never))
      assert.equal((await refused(wrong)).code, status.INVALID_ARGUMENT)
      assert.deepEqual(h.service.actions, ['pause'])
    })
  })

  describe('closing', () => {
    it('answers what was begun, ends open streams, and refuses new connections', async () => {
      const own = await startServer()
      const slow = deferred<CallResult>()
      own.service.onExecute = () => slow.promise
      const unary = run(own, { command: 'GET', key: 'a' })
      const stream = own.client.streamCommand()
      const ended = new Promise<ServiceError>(resolve => stream.on('error', resolve))
      const answers: CommandResponse[] = []
      stream.on('data', (answer: CommandResponse) => answers.push(answer))
      stream.write(CommandRequest.create({ command: 'GET', key: 'b' }))
      await until('both calls arrive', () => own.service.calls.length === 2)
      const closed = own.server.close(10_000)
      slow.resolve(nothing)
      await unary
      assert.equal((await ended).code, status.UNAVAILABLE)
      assert.equal(answers.length, 1)
      await closed
      assert.equal((await refused(run(own, { command: 'GET', key: 'k' }))).code, status.UNAVAILABLE)
      own.client.close()
      own.admin.close()
    })

    it('cuts what does not end within its grace', async () => {
      const own = await startServer()
      own.service.onExecute = () => new Promise(() => {})
      const unary = refused(run(own, { command: 'GET', key: 'a' }))
      await until('the call arrives', () => own.service.calls.length === 1)
      await own.server.close(50)
      assert.ok([status.UNAVAILABLE, status.CANCELLED].includes((await unary).code))
      own.client.close()
      own.admin.close()
    })
  })
})
