/** Bytes that cost many times what they weigh: what is refused before memory is taken for it. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import fc from 'fast-check'
import { isError, RoundhouseError } from '../../src/errors.ts'
import { CommandRequest } from '../../src/gen/clusterpb/cluster.ts'
import { AskRequest, Frame } from '../../src/gen/roundhouse/v1/peer.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { Prng } from '../../src/lib/prng.ts'
import { callLimits } from '../../src/peer/call-codec.ts'
import { decodeFrame, encodeFrames, frameLimits, readHandshake } from '../../src/peer/frames.ts'
import { encodeMessage, hasMoreFields } from '../../src/peer/proto-io.ts'
import { statusOf } from '../../src/peer/status.ts'
import { GrpcPeers } from '../../src/peer/transport.ts'
import { draft } from '../../src/raft/types.ts'
import { FileSnapshot } from '../../src/storage/snapshot-files.ts'
import { clusterNodeMethods } from '../../src/wire/grpc/cluster-node.ts'
import { wholeOf } from '../peer/encoded.ts'
import { FakePeerService } from '../wire/grpc/fake-service.ts'
import { peerHandlers } from './gate.ts'

/** `bytes` of nothing but empty elements of one repeated field. */
function elements(field: number, bytes: number): Buffer {
  const all = Buffer.alloc(bytes)
  for (let at = 0; at + 1 < bytes; at += 2) all[at] = (field << 3) | 2
  return all
}

const isInvalid = (error: unknown) => isError(error, 'INVALID_ARGUMENT')

/** How much the process has ever needed, more than before. */
function growth(run: () => void): number {
  const before = process.resourceUsage().maxRSS
  run()
  return (process.resourceUsage().maxRSS - before) / 1024
}

describe('a request of many small fields', () => {
  const requestBytes = 16 * 1024 * 1024 - 2

  for (const [name, method, field] of [
    ['arguments', clusterNodeMethods.runCommand, 3],
    ['arguments of a stream', clusterNodeMethods.streamCommand, 3],
    ['members', clusterNodeMethods.heartbeat, 2],
  ] as const) {
    it(`is refused before memory is taken for its ${name}`, () => {
      const bytes = elements(field, requestBytes)
      const grownMiB = growth(() => {
        const { message, error } = method.requestDeserialize(bytes)
        assert.equal(message, null)
        assert.ok(isInvalid(error))
      })
      assert.ok(grownMiB < 64, `${grownMiB} MiB`)
    })
  }

  it('is read where it has as many arguments as a call may have', () => {
    const args = Array.from({ length: callLimits.argumentsMax }, () => Buffer.from('abc'))
    const request = CommandRequest.fromPartial({ command: 'DEL', args, keyBytes: Buffer.from('k'), id: 7n })
    const { message } = clusterNodeMethods.runCommand.requestDeserialize(
      encodeMessage(CommandRequest, request),
    )
    assert.equal(message?.args.length, callLimits.argumentsMax)
  })

  it('has its fields counted, whatever kinds they are of', () => {
    const request = fc.record({
      command: fc.string(),
      args: fc.array(
        fc.uint8Array({ maxLength: 200 }).map(each => Buffer.from(each)),
        { maxLength: 20 },
      ),
      id: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      noForward: fc.boolean(),
    })
    fc.assert(
      fc.property(request, fields => {
        const bytes = encodeMessage(CommandRequest, CommandRequest.fromPartial(fields))
        const { command, args, id, noForward } = fields
        const count = Number(command !== '') + args.length + Number(id !== 0n) + Number(noForward)
        // Short messages are not looked at: they can't have many.
        const isLong = (max: number) => bytes.length > 2 * max
        assert.equal(hasMoreFields(bytes, count), false)
        if (count > 0) assert.equal(hasMoreFields(bytes, count - 1), isLong(count - 1))
      }),
    )
  })
})

describe('from a peer', () => {
  it('a first frame that is no short handshake is refused unread', () => {
    const bytes = elements(2, 1024 * 1024)
    assert.throws(() => readHandshake(bytes), isInvalid)
    const identity = { clusterId: 'c'.repeat(frameLimits.handshakeBytesMax), nodeId: 'n', storeId: 's' }
    const long = encodeMessage(Frame, { handshake: { ...identity, lane: 'control' }, messages: [] })
    assert.throws(() => readHandshake(long), isInvalid)
  })

  it('a frame over a mebibyte holds one message', () => {
    const message = (bytes: number) => ({
      group: 1,
      message: {
        ...draft('MsgApp', 1, 2, 1),
        entries: [{ term: 1, index: 1, kind: 'normal' as const, data: new Uint8Array(bytes) }],
      },
    })
    const large = wholeOf(encodeFrames([message(2 * frameLimits.frameBytesMax)]).frames[0]!)
    const small = wholeOf(encodeFrames([message(1)]).frames[0]!)
    assert.equal(decodeFrame(large).length, 1)
    assert.throws(() => decodeFrame(Buffer.concat([large, small])), isInvalid)
    assert.throws(() => decodeFrame(Buffer.concat([small, large])), isInvalid)
  })

  it('a message of more entries than Raft ever sends is refused at the first too many', () => {
    // Of the entries nothing but that they are there: the rest of the check comes after all are read.
    const entries = elements(13, 16 * 1024 * 1024)
    const length: number[] = []
    for (let rest = entries.length; rest > 0; rest = Math.floor(rest / 128))
      length.push((rest % 128) | (rest >= 128 ? 128 : 0))
    const frame = Buffer.concat([Uint8Array.of(0x12, ...length), entries])
    const grownMiB = growth(() => assert.throws(() => decodeFrame(frame), isInvalid))
    assert.ok(grownMiB < 128, `${grownMiB} MiB`)
  })

  it('lists of replicas are short, whichever way they are written', () => {
    const packed = Array.from({ length: 1_001 }, () => 1)
    const confStates = [
      Uint8Array.from([0x0a, 0xe9, 0x07, ...packed]),
      Uint8Array.from(packed.flatMap(id => [0x08, id])),
    ]
    for (const confState of confStates) {
      const sized = (tag: number, bytes: Uint8Array) =>
        Buffer.concat([Uint8Array.of(tag, (bytes.length & 127) | 128, bytes.length >> 7), bytes])
      const message = Buffer.concat([
        Uint8Array.of(0x10, 7, 0x18, 1, 0x20, 2),
        sized(0x72, sized(0x1a, confState)),
      ])
      assert.throws(() => decodeFrame(sized(0x12, message)), /at most 1000 replicas/)
    }
  })

  it('a question is short', () => {
    const service = new FakePeerService()
    const { ask } = peerHandlers(service, statusOf) as unknown as {
      ask: (call: object, callback: (error: { details: string } | null) => void) => void
    }
    const from = { clusterId: 'c', nodeId: 'n', storeId: 's', lane: '' }
    const request = encodeMessage(AskRequest, {
      from,
      method: 'join',
      body: `["${'x'.repeat(1024 * 1024)}"]`,
    })
    let told: string | null = null
    ask({ request, metadata: {} }, error => {
      told = error?.details ?? null
    })
    assert.match(told ?? '', /a question of at most 1048576 bytes/)
  })

  it('an answer that is none leaves the outcome of what was asked unknown', async () => {
    const server = new Server()
    const raw = (bytes: Buffer) => bytes
    const shape = {
      requestStream: false,
      responseStream: false,
      requestSerialize: raw,
      requestDeserialize: raw,
    }
    const method = (path: string) => ({ path, ...shape, responseSerialize: raw, responseDeserialize: raw })
    const garbage = (_call: unknown, callback: (error: null, answer: Buffer) => void) =>
      callback(null, Buffer.from([0x0f, 0xff, 0xff]))
    server.addService(
      {
        runCommand: method('/clusterpb.ClusterNode/RunCommand'),
        heartbeat: method('/clusterpb.ClusterNode/Heartbeat'),
      },
      { runCommand: garbage, heartbeat: garbage },
    )
    server.addService({ ask: method('/roundhouse.v1.Peer/Ask') }, { ask: garbage })
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    )
    const address = `127.0.0.1:${port}`
    const identity = () => ({ clusterId: 'c1', nodeId: 'n2', storeId: 's2' })
    const peers = new GrpcPeers({ identity, addressOf: () => null, clock: systemClock, random: new Prng(1) })
    try {
      const args = [Buffer.from('k'), Buffer.from('v')]
      const place = { session: null, read: 'linearizable', forward: true, hops: 1, shard: null } as const
      const unknown = { code: 'OUTCOME_UNKNOWN' }
      await assert.rejects(
        peers.execute(address, { command: 'SET', args, ...place, timeoutMs: 5_000 }),
        unknown,
      )
      await assert.rejects(peers.ask(address, 'join', '{}', 5_000), unknown)
      await assert.rejects(peers.heartbeat(address, { clusterId: 'c1', view: [], wallMs: 0 }, 5_000), unknown)
    } finally {
      await peers.close()
      server.forceShutdown()
    }
  })

  it('a chunk of a part that a snapshot does not have is refused as any that is not here', () => {
    const configuration = new Uint8Array(0)
    const manifest = { id: 'f'.repeat(32), index: 1, term: 1, configuration, parts: [] }
    const snapshot = new FileSnapshot(manifest, '/nowhere', () => {})
    assert.throws(
      () => snapshot.read('../../node.json', 0, 10),
      (error: unknown) => error instanceof RoundhouseError && error.code === 'NO_SUCH_TRANSFER',
    )
  })
})
