import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RemoteError, RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { deferred } from '../../src/lib/deferred.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { Register, StreamRecord } from '../../src/node/meta-register.ts'
import type { Batch, Call, CallResult, ReadOptions, Session } from '../../src/node/ports.ts'
import { Streams, type StreamsOptions } from '../../src/node/streams.ts'
import { hash64 } from './cluster-register.ts'

const stream = (name: string, id: number, partitions = 1): StreamRecord => ({
  name,
  id,
  partitions,
  retentionMs: null,
  retentionBytes: null,
  createdMs: 0,
  nonce: 0,
})
const count = (value: number): CallResult => ({
  reply: { kind: 'count', count: value },
  revision: 1,
  lagMs: 0,
})
const texts = (...values: number[]): CallResult => ({
  reply: { kind: 'list', items: values.map(value => ({ value: fromUtf8(String(value)) })) },
  revision: 1,
  lagMs: 0,
})
const code = (expected: string) => (error: RoundhouseError) => error.code === expected
const reading: ReadOptions = { bytesMax: 100, isLinearizable: false, timeoutMs: 1_000 }

/** A node that is only its streams: what it asks of shards and of the meta shard a test answers. */
class Bench {
  streams: StreamRecord[] = []
  nextStream = 1
  readonly calls: string[] = []
  onCall: (call: Call, text: string) => CallResult | Promise<CallResult> = () => count(0)
  onMeta: (command: string, request: unknown) => Promise<unknown> = async () =>
    assert.fail('not in this test')
  readonly node: Streams

  constructor() {
    const execute = async (call: Call) => {
      const text = [call.command, ...call.args.slice(0, 4).map(toUtf8)].join(' ')
      this.calls.push(text)
      return this.onCall(call, text)
    }
    this.node = new Streams({
      nodeId: 'n1',
      host: { all: () => [] },
      peers: { ask: async () => assert.fail('not in this test') },
      clock: { now: () => 0, wall: () => 0, after: () => () => {} },
      log: silentLogger,
      random: new Prng(1),
      hash64,
      router: { execute },
      register: () => this.register,
      meta: <Answer>(command: string, request: unknown) => this.onMeta(command, request) as Promise<Answer>,
      candidates: () => [],
      leaderOf: () => 'n2',
      addressOf: (node: string) => `${node}:1`,
      timeoutMsMax: 1_000,
      pause: async () => {},
    } as unknown as StreamsOptions)
  }

  get register(): Register {
    return {
      settings: { shardCount: 8 },
      streams: new Map(this.streams.map(each => [each.name, each])),
      nextStream: this.nextStream,
      nodes: [],
      shards: new Map(),
    } as unknown as Register
  }

  /** Streams as the register has them from now on. */
  know(...streams: readonly StreamRecord[]): this {
    this.streams = [...streams]
    this.nextStream = Math.max(this.nextStream, ...streams.map(each => each.id + 1))
    this.node.registered(this.register)
    return this
  }

  produce(changed: Partial<Batch> = {}, key: string | null = null) {
    const record = { value: fromUtf8('v'), key: key === null ? null : fromUtf8(key), headers: [], type: 0 }
    const batch = { stream: 's', partition: null, records: [record], session: null, timeoutMs: 1_000 }
    return this.node.produce({ ...batch, ...changed })
  }
}

const session = (sequence: number): Session => ({ id: new Uint8Array(16).fill(3), sequence, ackedBelow: 0 })

describe('producing', () => {
  it('names the partition by its key, the stream by its id', async () => {
    const bench = new Bench().know(stream('s', 7, 4))
    bench.onCall = () => count(41)
    assert.deepEqual(await bench.produce({ partition: 3 }), { partition: 3, offset: 41, count: 1 })
    assert.match(bench.calls[0]!, /^STREAM\.APPEND s\/3 7 3 /)
    await assert.rejects(bench.produce({ partition: 4 }), code('NO_SUCH_PARTITION'))
  })

  it('goes round the partitions where nothing else decides, and where a retry went before with a session', async () => {
    const bench = new Bench().know(stream('s', 7, 4))
    const inTurn = await Promise.all([0, 1, 2, 3].map(() => bench.produce()))
    assert.deepEqual(inTurn.map(each => each.partition).sort(), [0, 1, 2, 3])
    const places = new Set<number>()
    for (let sequence = 1; sequence <= 40; sequence++) {
      const { partition } = await bench.produce({ session: session(sequence) })
      assert.equal((await bench.produce({ session: session(sequence) })).partition, partition)
      places.add(partition)
    }
    assert.equal(places.size, 4)
    assert.equal(
      (await bench.produce({}, 'u42')).partition,
      (await bench.produce({ session: session(1) }, 'u42')).partition,
    )
  })

  it('makes `default` once, for all who come before it is there, in their order', async () => {
    const bench = new Bench()
    const made = deferred<unknown>()
    const requests: unknown[] = []
    bench.onMeta = (command, request) => {
      requests.push(command, (request as { ifMissing: boolean }).ifMissing)
      return made.promise
    }
    const seen: string[] = []
    bench.onCall = call => {
      const first = seen.length
      for (const record of call.args.slice(3)) seen.push(toUtf8(record).at(-1)!)
      return count(first)
    }
    const record = (value: string) => [{ value: fromUtf8(value), key: null, headers: [], type: 0 }]
    const first = ['a', 'b'].map(value => bench.produce({ stream: '', records: record(value) }))
    bench.know(stream('default', 1))
    const behind = bench.produce({ stream: '', records: record('c') })
    made.resolve(stream('default', 1))
    const produced = await Promise.all([...first, behind])
    assert.deepEqual(
      produced.map(({ offset }) => offset),
      [0, 1, 2],
    )
    assert.deepEqual(
      [seen, requests],
      [
        ['a', 'b', 'c'],
        ['META.STREAM.CREATE', true],
      ],
    )
  })

  it('asks the meta shard for a name that is not known here, and takes no silence for a no', async () => {
    const bench = new Bench()
    bench.onMeta = async (command, request) => {
      assert.equal(command, 'META.STREAM.FIND')
      const { name } = request as { name: string }
      if (name === 's') return stream('s', 1)
      throw name === 'nobody'
        ? new RoundhouseError('NO_SUCH_STREAM', { stream: name })
        : new RoundhouseError('NO_META_LEADER', { waitedMs: 0 })
    }
    assert.equal((await bench.produce()).partition, 0)
    await assert.rejects(bench.produce({ stream: 'nobody' }), code('NO_SUCH_STREAM'))
    await assert.rejects(bench.produce({ stream: 'somebody' }), code('NO_META_LEADER'))
    await assert.rejects(bench.produce({ stream: 'a\nb' }), code('INVALID_ARGUMENT'))
  })

  it('refuses what is too large before anything is sent', async () => {
    const bench = new Bench().know(stream('s', 1))
    const record = { value: new Uint8Array(0), key: null, headers: [], type: 0 }
    const many = (n: number, value = record.value) => Array.from({ length: n }, () => ({ ...record, value }))
    for (const [records, expected] of [
      [[], 'INVALID_ARGUMENT'],
      [many(10_001), 'INVALID_ARGUMENT'],
      [many(1, new Uint8Array(1024 * 1024)), 'TOO_LARGE'],
      [many(9, new Uint8Array(1024 * 1024 - 64)), 'TOO_LARGE'],
      [[{ ...record, key: new Uint8Array(1025) }], 'TOO_LARGE'],
      [
        [{ ...record, headers: Array.from({ length: 65 }, () => ({ name: 'h', value: record.value })) }],
        'INVALID_ARGUMENT',
      ],
      [[{ ...record, headers: [{ name: 'h'.repeat(256), value: record.value }] }], 'TOO_LARGE'],
      [[{ ...record, crc: 1 }], 'INVALID_ARGUMENT'],
    ] as const)
      await assert.rejects(bench.produce({ records }), code(expected))
    assert.deepEqual(bench.calls, [])
  })
})

describe('reading', () => {
  it('asks the leader for an offset that this node’s replica does not have', async () => {
    const bench = new Bench().know(stream('s', 7))
    const reads: string[] = []
    bench.onCall = call => {
      reads.push(call.read)
      if (call.read === 'stale')
        throw new RoundhouseError('OFFSET_OUT_OF_RANGE', { what: 'partition 0', offset: 9, start: 0, end: 5 })
      return {
        reply: { kind: 'list', items: [{ value: fromUtf8('kept') }], cursor: fromUtf8('2 10') },
        revision: 1,
        lagMs: 3,
      }
    }
    const found = await bench.node.read(await bench.node.find('s', 0), 9, reading)
    assert.deepEqual([found.kept.map(toUtf8), found.start, found.end, found.lagMs], [['kept'], 2, 10, 3])
    assert.deepEqual(reads, ['stale', 'linearizable'])
  })

  it('says the range though the leader is another node, whose errors come without facts', async () => {
    const bench = new Bench().know(stream('s', 7))
    bench.onCall = (_, text) => {
      if (text.startsWith('STREAM.INFO')) return texts(2, 5, 1_000, 64)
      throw new RemoteError('OFFSET_OUT_OF_RANGE', 'somewhere else')
    }
    await assert.rejects(bench.node.read(await bench.node.find('s', 0), 9, reading), {
      code: 'OFFSET_OUT_OF_RANGE',
      facts: { what: 's/0', offset: 9, start: 2, end: 5 },
    })
  })

  it('finds the stream of an id alone: none that was made anew, and a new one that is not known here yet', async () => {
    const bench = new Bench().know(stream('s', 7))
    assert.equal((await bench.node.find('s', 0, 7)).id, 7)
    await assert.rejects(bench.node.find('s', 0, 6), code('STREAM_REMADE'))
    const asked: unknown[] = []
    bench.onMeta = async (...question) => {
      asked.push(question)
      return stream('s', 9)
    }
    const found = await Promise.all([bench.node.find('s', 0, 9), bench.node.find('s', 0, 9)])
    assert.deepEqual(
      found.map(({ id }) => id),
      [9, 9],
    )
    assert.deepEqual(asked, [['META.STREAM.FIND', { name: 's' }]])
    await assert.rejects(bench.node.find('s', 0, 7), code('STREAM_REMADE'))
  })

  it('ends for a place whose stream was deleted, though another has its name now', async () => {
    const bench = new Bench().know(stream('s', 7))
    const place = await bench.node.find('s', 0)
    bench.know(stream('s', 8))
    await assert.rejects(bench.node.read(place, 0, reading), code('NO_SUCH_STREAM'))
    assert.equal((await bench.node.find('s', 0)).id, 8)
  })
})
