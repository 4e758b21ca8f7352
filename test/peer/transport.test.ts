import assert from 'node:assert/strict'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js'
import { isError, RemoteError, RoundhouseError } from '../../src/errors.ts'
import { ClusterNodeService, CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import type { MemberRecord } from '../../src/gossip/member.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { type Clock, systemClock } from '../../src/lib/clock.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import { frameLimits } from '../../src/peer/frames.ts'
import { linkLimits } from '../../src/peer/link.ts'
import { GrpcPeers, idleMs } from '../../src/peer/transport.ts'
import { draft } from '../../src/raft/types.ts'
import type { PeerMessage } from '../../src/shard/ports.ts'
import { createServer } from '../../src/wire/grpc/server.ts'
import { FakePeerService, FakeService, value } from '../wire/grpc/fake-service.ts'
import { type Harness, startServer, until } from '../wire/grpc/harness.ts'

const me = { clusterId: 'c1', nodeId: 'n2', storeId: 's2' }

const makePeers = (addresses: Readonly<Record<string, string>>, clock: Clock = systemClock) =>
  new GrpcPeers({
    identity: () => me,
    addressOf: node => addresses[node] ?? null,
    clock,
    random: new Prng(7),
  })

const heartbeat = (term: number, group = 1): PeerMessage => ({
  group,
  message: draft('MsgHeartbeat', 1, 2, term),
})
const append = (index: number, bytes: number): PeerMessage => ({
  group: 1,
  message: {
    ...draft('MsgApp', 1, 2, 1),
    index,
    entries: [{ term: 1, index: index + 1, kind: 'normal', data: new Uint8Array(bytes).fill(index) }],
  },
})

const call = (fields: Partial<Call> = {}): Call => ({
  command: 'SET',
  args: [fromUtf8('k'), fromUtf8('v')],
  session: null,
  read: 'linearizable',
  forward: true,
  hops: 1,
  shard: null,
  timeoutMs: 2000,
  ...fields,
})

/** A port where nobody listens. */
const freePort = async (): Promise<number> => {
  const server = createTcpServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

/** Accepts connections and says nothing. */
const startSilent = async () => {
  const sockets: Socket[] = []
  const server = createTcpServer(socket => {
    socket.on('error', () => {})
    sockets.push(socket)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    sockets,
    close: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

describe('frames between nodes', () => {
  let h: Harness
  let peers: GrpcPeers
  beforeEach(async () => {
    h = await startServer()
    peers = makePeers({ n1: h.address })
  })
  afterEach(async () => {
    await peers.close()
    await h.close()
  })

  const received = () => h.peerService.received.flatMap(each => each.messages)

  it('arrive in order, from whom the handshake says', async () => {
    for (let term = 1; term <= 100; term++) peers.send('n1', 'control', [heartbeat(term), heartbeat(term, 2)])
    await until('all arrive', () => received().length === 200)
    assert.deepEqual(
      received().map(({ group, message }) => [group, message.term]),
      Array.from({ length: 200 }, (_, i) => [(i % 2) + 1, Math.floor(i / 2) + 1]),
    )
    assert.deepEqual([...new Set(h.peerService.received.map(each => each.from))], ['n2'])
    assert.deepEqual(h.peerService.admitted, [me, me])
  })

  it('bring entries byte for byte, in frames of at most a mebibyte', async () => {
    const messages = Array.from({ length: 12 }, (_, i) => append(i, 200 * 1024))
    peers.send('n1', 'appends', messages)
    await until('all arrive', () => received().length === 12)
    assert.deepEqual(
      received().map(each =>
        Buffer.compare(each.message.entries[0]!.data, new Uint8Array(200 * 1024).fill(each.message.index)),
      ),
      Array(12).fill(0),
    )
    assert.deepEqual(
      h.peerService.received.map(each => each.messages.length),
      [5, 5, 2],
    )
  })

  it('of a node that is refused are never handed on; it tries again and goes through once it is admitted', async () => {
    let isMember = false
    let refusals = 0
    h.peerService.onAdmit = ({ nodeId }) => {
      if (isMember) return
      refusals++
      throw new RoundhouseError('NOT_MEMBER', { node: nodeId })
    }
    peers.send('n1', 'control', [heartbeat(1)])
    await until('both lanes are refused again and again', () => refusals >= 6)
    assert.deepEqual(received(), [])
    isMember = true
    await until('a frame goes through', () => {
      peers.send('n1', 'control', [heartbeat(2)])
      return received().length > 0
    })
    assert.equal(received()[0]!.message.term, 2)
    assert.ok(peers.stats().messagesDropped! > 0)
  })

  it('that the node refuses end their stream only', async () => {
    h.peerService.onReceive = (_from, messages) => {
      if (messages[0]!.message.term === 13) throw new RoundhouseError('NOT_MEMBER', { node: 'n2' })
    }
    peers.send('n1', 'control', [heartbeat(13)])
    await until('it is refused', () => received().length === 1)
    await until('later ones arrive', () => {
      peers.send('n1', 'control', [heartbeat(14)])
      return received().some(({ message }) => message.term === 14)
    })
    assert.deepEqual(h.unexpected, [])
  })

  it('go on after the peer was restarted; a dial that is refused is told', async () => {
    const refused: string[] = []
    peers.onRefused(node => refused.push(node))
    peers.send('n1', 'control', [heartbeat(1)])
    await until('the first arrives', () => received().length === 1)
    assert.deepEqual(refused, [])
    await h.close()
    await until('a dial is refused', () => refused.length > 0)
    assert.deepEqual([...new Set(refused)], ['n1'])
    const peerService = new FakePeerService()
    const again = createServer({
      service: new FakeService(),
      peerService,
      isKeyed: () => true,
      messageTimeoutMs: 5000,
      clock: systemClock,
      onUnexpected: error => assert.fail(String(error)),
    })
    await again.listen('127.0.0.1', h.port)
    await until('a frame arrives at the new process', () => {
      peers.send('n1', 'appends', [append(5, 10)])
      return peerService.received.length > 0
    })
    await peers.close()
    await again.close(100)
  })

  it('are dropped and counted where the node has no address', () => {
    peers.send('nobody', 'control', [heartbeat(1), heartbeat(2)])
    assert.equal(peers.stats().messagesDropped, 2)
  })

  it('that no peer would take are dropped and counted, and the stream lives', async () => {
    peers.send('n1', 'appends', [append(1, frameLimits.messageBytesMax), append(2, 10)])
    await until('the other arrives', () => received().length === 1)
    assert.equal(received()[0]!.message.index, 2)
    assert.equal(peers.stats().messagesDropped, 1)
  })

  it('queue up to their bound while a peer does not read, with room kept for votes; then they are dropped', async () => {
    const silent = await startSilent()
    const stuck = makePeers({ n9: silent.address })
    const frame = [append(1, frameLimits.frameBytesMax - 100)]
    for (let i = 0; i < 100; i++) stuck.send('n9', 'appends', frame)
    const { queuedBytes, messagesDropped } = stuck.stats()
    assert.ok(queuedBytes! <= linkLimits.queuedBytesMax - linkLimits.controlReserveBytes)
    assert.ok(queuedBytes! > 0.9 * (linkLimits.queuedBytesMax - linkLimits.controlReserveBytes))
    assert.equal(messagesDropped, 40)
    stuck.send('n9', 'control', [heartbeat(1)])
    assert.equal(stuck.stats().messagesDropped, 40)
    await stuck.close()
    silent.close()
  })

  it('move at a pace worth printing', async t => {
    const batch = Array.from({ length: 100 }, (_, i) => append(i, 100))
    const total = 100_000
    const from = performance.now()
    for (let sent = 0; sent < total; ) {
      peers.send('n1', 'appends', batch)
      sent += batch.length
      while (peers.stats().queuedBytes! > 4 * 1024 * 1024) await new Promise(setImmediate)
    }
    await until('all arrive', () => h.peerService.received.length === total / batch.length, 20_000)
    const seconds = (performance.now() - from) / 1000
    t.diagnostic(
      `${Math.round(total / seconds)} messages/s in frames of 100, sender and receiver in one process`,
    )
    assert.equal(peers.stats().messagesDropped, 0)
  })
})

describe('a peer', () => {
  let h: Harness
  let peers: GrpcPeers
  before(async () => {
    h = await startServer()
    peers = makePeers({ n1: h.address })
  })
  after(async () => {
    await peers.close()
    await h.close()
  })

  const failing = (promise: Promise<unknown>): Promise<RoundhouseError | RemoteError> =>
    promise.then(
      () => assert.fail('it was answered'),
      error => error,
    )

  describe('asked a question', () => {
    it('learns who asks and answers', async () => {
      h.peerService.onAsk = async (from, method, body) =>
        JSON.stringify({ from, method, body: JSON.parse(body) })
      const answer = await peers.ask(h.address, 'join', '{"a":"ü"}', 2000)
      assert.deepEqual(JSON.parse(answer), { from: me, method: 'join', body: { a: 'ü' } })
    })

    it('refuses with its own code, text and leader', async () => {
      const refusal = new RoundhouseError('NOT_LEADER', { shard: 0, leader: 'n3', address: '10.0.0.3:1' })
      h.peerService.onAsk = () => Promise.reject(refusal)
      const error = await failing(peers.ask(h.address, 'join', '{}', 2000))
      assert.ok(error instanceof RemoteError)
      assert.deepEqual(
        [error.code, error.message, error.leaderAddress],
        ['NOT_LEADER', refusal.message, '10.0.0.3:1'],
      )
    })

    it('is UNREACHABLE where nobody listens', async () => {
      const error = await failing(peers.ask(`127.0.0.1:${await freePort()}`, 'join', '{}', 2000))
      assert.equal(error.code, 'UNREACHABLE')
    })

    it('leaves a DEADLINE behind where it does not answer in time', async () => {
      h.peerService.onAsk = () => new Promise(() => {})
      assert.equal((await failing(peers.ask(h.address, 'join', '{}', 50))).code, 'DEADLINE')
    })

    it('is UNREACHABLE where the connection never comes about in time', async () => {
      const silent = await startSilent()
      assert.equal((await failing(peers.ask(silent.address, 'join', '{}', 100))).code, 'UNREACHABLE')
      silent.close()
    })
  })

  it('exchanges views', async () => {
    const record: MemberRecord = {
      nodeId: 'n2',
      storeId: 's2',
      peerAddress: '10.0.0.2:8080',
      clientAddress: 'two.example:8080',
      zone: '',
      incarnation: 1,
      heartbeat: 9,
      state: 'alive',
      load: { replicas: 1, leaders: 1, storedBytes: 0, freeBytes: 1, operationsPerSecond: 0 },
      leads: [{ shard: 5, term: 6 }],
    }
    const theirs: MemberRecord = { ...record, nodeId: 'n1', storeId: 's1', state: 'leaving' }
    h.service.view = [theirs, record]
    const answer = await peers.heartbeat(
      h.address,
      { clusterId: 'c1', view: [record, theirs], wallMs: 77 },
      2000,
    )
    assert.deepEqual(h.service.heartbeats.at(-1), { clusterId: 'c1', view: [record, theirs], wallMs: 77 })
    assert.deepEqual(answer, { clusterId: 'c1', view: [theirs, record], wallMs: 1_700_000_000_000 })
  })

  describe('given a call', () => {
    it('gets all of it', async () => {
      const session = { id: new Uint8Array(16).fill(3), sequence: 7, ackedBelow: 5 }
      const sent = call({
        args: [Uint8Array.of(0xff, 0), fromUtf8('')],
        session,
        read: 'stale',
        forward: false,
        shard: 3,
      })
      await peers.execute(h.address, sent)
      const got = h.service.calls.at(-1)!
      assert.deepEqual(
        got.args.map(each => [...each]),
        [[0xff, 0], []],
      )
      assert.deepEqual([...got.session!.id], [...session.id])
      assert.deepEqual([got.session!.sequence, got.session!.ackedBelow], [7, 5])
      assert.deepEqual(
        [got.command, got.read, got.forward, got.hops, got.shard],
        ['SET', 'stale', false, 1, 3],
      )
      assert.ok(got.timeoutMs > 1000 && got.timeoutMs <= 2001)
    })

    it('gets the arguments of a command without keys, too, an empty one and none', async () => {
      for (const args of [[], [''], ['', 'b'], ['a', 'b']]) {
        await peers.execute(h.address, call({ command: 'PING', args: args.map(fromUtf8) }))
        assert.deepEqual(h.service.calls.at(-1)!.args.map(toUtf8), args)
      }
    })

    const list: CallResult['reply'] = {
      kind: 'list',
      items: [
        { key: fromUtf8('a'), value: fromUtf8('1') },
        { key: Uint8Array.of(0xff) },
        { key: fromUtf8('') },
        { value: fromUtf8('') },
        {},
      ],
    }
    for (const reply of [
      { kind: 'nil' },
      { kind: 'value', value: Uint8Array.of(0, 255) },
      { kind: 'value', value: fromUtf8('') },
      { kind: 'success', success: false },
      { kind: 'success', success: true, integer: 0 },
      { kind: 'count', count: -3 },
      { kind: 'count', count: 2n ** 62n + 1n },
      list,
      { ...list, cursor: fromUtf8('') },
      { kind: 'list', items: [], cursor: fromUtf8('c') },
    ] as const satisfies CallResult['reply'][]) {
      const name = JSON.stringify(reply, (_key, each) => (typeof each === 'bigint' ? `${each}` : each))
      it(`returns the reply ${name.slice(0, 60)} unchanged`, async () => {
        h.service.onExecute = async () => ({ reply, revision: 2 ** 45, lagMs: 3 })
        assert.deepEqual(
          plainBytes(await peers.execute(h.address, call())),
          plainBytes({ reply, revision: 2 ** 45, lagMs: 3 }),
        )
      })
    }

    it('returns its error as its own', async () => {
      const refusal = new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' })
      h.service.onExecute = () => Promise.reject(refusal)
      const error = await failing(peers.execute(h.address, call()))
      assert.ok(error instanceof RemoteError)
      assert.deepEqual(
        [error.code, error.kind, error.message],
        ['WRONG_TYPE', 'precondition', refusal.message],
      )
    })

    it('leaves the outcome unknown where it fails without a reason', async () => {
      h.service.onExecute = () => Promise.reject(new TypeError('a fault'))
      assert.equal((await failing(peers.execute(h.address, call()))).code, 'OUTCOME_UNKNOWN')
      h.unexpected.length = 0
    })

    it('leaves the outcome unknown where the connection breaks under the call', async () => {
      const own = await startServer()
      own.service.onExecute = () => new Promise(() => {})
      const result = failing(peers.execute(own.address, call({ timeoutMs: 10_000 })))
      await until('the call arrives', () => own.service.calls.length === 1)
      await own.server.close(0)
      const error = await result
      assert.ok(isError(error, 'OUTCOME_UNKNOWN'), error.message)
      await own.close()
    })

    it('is UNREACHABLE, for certain, where its process was gone before', async () => {
      const own = await startServer()
      await peers.execute(own.address, call())
      await own.close()
      // The first call may still go out on the dying connection, and then nobody can be certain.
      const codes: string[] = []
      while (codes.at(-1) !== 'UNREACHABLE' && codes.length < 100) {
        codes.push((await failing(peers.execute(own.address, call()))).code)
      }
      assert.equal(codes.at(-1), 'UNREACHABLE')
      assert.ok(codes.length < 10, codes.join())
    })

    it('stops waiting when the caller does', async () => {
      let theirs: AbortSignal | undefined
      h.service.onExecute = got => {
        theirs = got.signal
        return new Promise(() => {})
      }
      const abort = new AbortController()
      const result = failing(peers.execute(h.address, call({ signal: abort.signal })))
      await until('the call arrives', () => theirs !== undefined)
      abort.abort()
      assert.equal((await result).code, 'OUTCOME_UNKNOWN')
      await until('the callee hears of it', () => theirs!.aborted)
    })
  })

  describe('that holds a snapshot', () => {
    const transfer = { shard: 3, snapshot: 's1', part: 'rows', position: 0, length: 1000 }
    const data = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251))

    it('gives chunks, many at a time', async () => {
      h.service.onReadChunk = async ({ position, length }) => data.subarray(position, position + length)
      const chunks = await Promise.all(
        [0, 1000, 2000, 3000, 4000].map(position =>
          peers.fetchChunk(h.address, { ...transfer, position }, 2000),
        ),
      )
      assert.deepEqual(Buffer.concat(chunks), data)
    })

    it('says that it does not, and the stream goes on', async () => {
      h.service.onReadChunk = async ({ snapshot, position, length }) => {
        if (snapshot !== 's1') throw new RoundhouseError('NO_SUCH_TRANSFER', { id: snapshot })
        return data.subarray(position, position + length)
      }
      const [gone, here] = await Promise.allSettled([
        peers.fetchChunk(h.address, { ...transfer, snapshot: 'gone' }, 2000),
        peers.fetchChunk(h.address, transfer, 2000),
      ])
      assert.equal(gone.status === 'rejected' && gone.reason.code, 'NO_SUCH_TRANSFER')
      assert.equal(here.status === 'fulfilled' && here.value.length, 1000)
    })

    it('is given up where it is late, and asked anew', async () => {
      h.service.onReadChunk = () => new Promise(() => {})
      assert.equal((await failing(peers.fetchChunk(h.address, transfer, 50))).code, 'DEADLINE')
      h.service.onReadChunk = async () => data.subarray(0, 10)
      assert.equal((await peers.fetchChunk(h.address, transfer, 2000)).length, 10)
    })

    it('is UNREACHABLE where nobody listens', async () => {
      const error = await failing(peers.fetchChunk(`127.0.0.1:${await freePort()}`, transfer, 2000))
      assert.equal(error.code, 'UNREACHABLE')
    })

    it('is not believed where the checksum differs, more comes than was asked, or no chunk', async () => {
      const answers = [
        { response: { $case: 'value' as const, value: Buffer.from('abc') }, id: 1n },
        { response: { $case: 'value' as const, value: Buffer.alloc(1001) }, id: 0n },
        { response: { $case: 'count' as const, value: 1n } },
      ]
      const liar = new Server()
      liar.addService(ClusterNodeService, {
        streamCommand: (stream: ServerDuplexStream<unknown, CommandResponse>) =>
          stream.on('data', () => stream.write(CommandResponse.fromPartial(answers.shift()!))),
      })
      const port = await new Promise<number>((resolve, reject) =>
        liar.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        ),
      )
      for (let i = 0; i < 3; i++) {
        const error = await failing(peers.fetchChunk(`127.0.0.1:${port}`, transfer, 2000))
        assert.equal(error.code, 'CORRUPT')
      }
      liar.forceShutdown()
    })
  })

  it('keeps its connection as long as it is used', async () => {
    let ahead = 0
    const sweeps: (() => void)[] = []
    const clock: Clock = {
      now: () => performance.now() + ahead,
      wall: () => Date.now(),
      after: (ms, run) => {
        if (ms < 20_000) return systemClock.after(ms, run)
        sweeps.push(run)
        return () => {}
      },
    }
    const own = makePeers({}, clock)
    h.service.onExecute = async () => value('v')
    h.service.onReadChunk = async () => fromUtf8('chunk')
    const transfer = { shard: 3, snapshot: 's1', part: 'rows', position: 0, length: 10 }
    await own.execute(h.address, call())
    await own.fetchChunk(h.address, transfer, 2000)
    sweeps.pop()!()
    assert.equal(own.stats().channels, 2)
    ahead += idleMs + 1
    sweeps.pop()!()
    assert.equal(own.stats().channels, 1)
    sweeps.pop()!()
    ahead += idleMs + 1
    sweeps.pop()!()
    assert.equal(own.stats().channels, 0)
    await own.execute(h.address, call())
    await own.close()
  })
})

function plainBytes(each: unknown): unknown {
  if (each instanceof Uint8Array) return [...each]
  if (Array.isArray(each)) return each.map(plainBytes)
  if (typeof each !== 'object' || each === null) return each
  return Object.fromEntries(Object.entries(each).map(([key, part]) => [key, plainBytes(part)]))
}
