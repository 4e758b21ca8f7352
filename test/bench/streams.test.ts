import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { status } from '@grpc/grpc-js'
import { readArrived } from '../../src/bench/arrived.ts'
import { runBench } from '../../src/bench/bench.ts'
import { runVerify } from '../../src/bench/verify/verify.ts'
import { benchVerb } from '../../src/cli/bench.ts'
import { planOf } from '../../src/cli/bench-plan.ts'
import { runCli } from '../../src/cli/cli.ts'
import { streamVerbs } from '../../src/cli/streams.ts'
import { ConsumeResponse, type Record } from '../../src/gen/log/v1/log.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { fakeShell, refusal } from '../cli/fake-cluster.ts'
import { Cluster } from '../lib/cluster-harness.ts'
import { type FakeBehaviour, type FakeStreams, shardCount, withStreams } from './fake-streams.ts'

const verb = benchVerb(
  async () => runBench,
  async () => runVerify,
)
const leaderOf = (key: string) => shardOfSlot(slotOf(Buffer.from(key)), shardCount) % 2

/** Runs the bench against two fake nodes until `enough` says so, however long that takes on a busy machine. */
async function bench(
  args: readonly string[],
  enough: (streams: FakeStreams) => boolean,
  behaviour: FakeBehaviour = {},
): Promise<FakeStreams & { readonly code: number; readonly out: string }> {
  const shell = fakeShell()
  let found: (FakeStreams & { code: number; out: string }) | null = null
  await withStreams(behaviour, async streams => {
    const looks = setInterval(() => {
      if (enough(streams)) shell.controller.abort()
    }, 2)
    try {
      const given = ['-d', '20s', '--warm-up', '0', '--keys', '300', '-n', streams.addresses[0]!]
      const code = await runCli(['bench', ...args, ...given], shell, [verb])
      assert.equal(shell.stderr.text(), '')
      found = { ...streams, code, out: shell.stdout.text() }
    } finally {
      clearInterval(looks)
    }
  })
  return found!
}

const requests = (count: number) => (streams: FakeStreams) => streams.produced.flat().length >= count

describe('produce', () => {
  for (const calls of ['unary', 'pipelined']) {
    it(`sends batches in turn to the leaders of the partitions, ${calls}`, async () => {
      const args = ['produce', '--calls', calls, '--batch', '7', '--partitions', '8', '-c', '4', '-o', 'json']
      const { code, out, created, deleted, produced } = await bench(args, requests(200))
      assert.equal(code, 0)
      assert.equal(created.length, 1)
      const { name, partitions } = created[0]!
      assert.match(name, /^bench-[0-9a-f]{8}$/)
      assert.deepEqual([partitions, deleted], [8, [name]])
      produced.forEach((all, place) => {
        assert.ok(all.length > 0)
        for (const { stream, partition, records, session } of all) {
          assert.deepEqual(
            [leaderOf(`${stream}/${partition}`), records.length, session.length],
            [place, 7, 0],
          )
          assert.ok(records.every(({ value, type }) => value.length === 128 && type === 0))
        }
      })
      const of = (partition: number) => produced.flat().filter(each => each.partition === partition).length
      assert.ok(Array.from({ length: 8 }, (_, each) => of(each)).every(each => Math.abs(each - of(0)) <= 1))
      const { cases, plan } = JSON.parse(out)
      assert.deepEqual([plan.records_per_request, plan.partitions], [7, 8])
      const [found] = cases
      assert.deepEqual(
        [found.workload, found.calls, found.in_flight, found.rate],
        ['produce', calls, 4, null],
      )
      assert.ok(found.operations >= 150)
      assert.equal(found.records, 7 * found.operations)
      const expected = (found.records_per_second * 128) / 1e6
      assert.ok(Math.abs(found.megabytes_per_second - expected) < 1e-6)
      assert.deepEqual(found.failures, [])
    })
  }

  it('gives requests sessions where asked, and leaves the stream where told to keep it', async () => {
    const { deleted, produced } = await bench(['produce', '--sessions', '--keep', '-c', '4'], requests(50))
    assert.deepEqual(deleted, [])
    assert.equal(new Set(produced.flat().map(({ session }) => session.toString('hex'))).size, 4)
    assert.ok(produced.flat().every(({ sequence, ackedBelow }) => sequence > 0n && ackedBelow === sequence))
  })

  it('counts refusals as failures, also those that end a pipelined call', async () => {
    const onProduce = () => refusal(status.RESOURCE_EXHAUSTED, 'OVERLOADED', 'OVERLOADED slow down')
    for (const calls of ['unary', 'pipelined']) {
      const { code, out, deleted } = await bench(['produce', '--calls', calls, '-c', '4'], requests(8), {
        onProduce,
      })
      assert.equal(code, 1)
      assert.match(out, /failed \d+ × RESOURCE_EXHAUSTED: OVERLOADED slow down \(produce, 4 in flight\)/)
      assert.equal(deleted.length, 1)
    }
  })

  it('prints records a second for people', async () => {
    const { out } = await bench(['produce', 'end-to-end', '--batch', '2'], requests(100))
    assert.match(
      out,
      /^records of 128 B, 2 a request, 1 partition, end-to-end 500 requests\/s, counted from .*; 1 client/,
    )
    assert.match(out, /IN FLIGHT +OPS\/S +RECORDS\/S +MB\/S +P50 MS .*\nproduce +unary +64 +[\d,]+ +[\d,]+ /)
  })
})

describe('consume', () => {
  const passes = (count: number) => (streams: FakeStreams) => streams.consumed.flat().length >= count

  it('fills a stream, then reads its partitions from the start with a follower each, again and again', async () => {
    const args = ['consume', '--partitions', '3', '--calls', 'unary,pipelined', '-o', 'json']
    const { code, out, records, consumed, produced } = await bench(args, passes(30), { responseRecords: 40 })
    assert.equal(code, 0)
    const lengths = [...records.values()].map(each => each.length)
    assert.deepEqual([lengths.length, lengths.reduce((a, b) => a + b, 0)], [3, 300])
    assert.ok(produced.flat().every(({ records: { length } }) => length === 100))
    consumed.forEach((all, place) => {
      for (const { stream, partition, offset, batches, idleMs } of all)
        assert.deepEqual([leaderOf(`${stream}/${partition}`), offset, batches, idleMs], [place, 0n, true, 0])
    })
    assert.equal(new Set(consumed.flat().map(each => each.partition)).size, 3)
    const { cases } = JSON.parse(out)
    assert.equal(cases.length, 1)
    const [{ calls, in_flight: followers, failures, operations, records: read }] = cases
    assert.deepEqual([calls, followers, failures], ['stream', 3, []])
    // 100 records a pass: 40, 40 and 20.
    assert.ok(
      operations > 30 && read > 20 * operations && read <= 40 * operations,
      `${read} of ${operations}`,
    )
  })

  it('has a failure for an offset that is left out, and for a partition that is empty', async () => {
    const deliver: FakeBehaviour['deliver'] = (some, send) =>
      send(some.filter(({ offset }) => offset !== 120n))
    const gap = await bench(['consume'], passes(10), { deliver, responseRecords: 40 })
    assert.match(gap.out, /failed \d+ × .*offset 121 where 120 was due/)
    const empty = await bench(['consume'], passes(10), { deliver: () => {} })
    assert.equal(empty.code, 1)
    assert.match(empty.out, /failed \d+ × a partition without records/)
  })

  it('reads at the rate that was asked for, over the ends of partitions too', async () => {
    const args = ['consume', '-c', '1', '--rate', '100', '--partitions', '3', '-o', 'json']
    const { out } = await bench(args, passes(12), { responseRecords: 50 })
    const [{ operations, records, duration_s: seconds, failures }] = JSON.parse(out).cases
    assert.ok(operations >= 20 && operations <= seconds * 100 + 1, `${operations} in ${seconds} s`)
    assert.deepEqual([records, failures], [50 * operations, []])
  })
})

describe('end-to-end', () => {
  it('is the time to the arrival of the last record at a follower, at 1,000 records a second', async () => {
    const delayMs = 60
    const deliver: FakeBehaviour['deliver'] = (some, send) => void setTimeout(send, delayMs, some)
    const args = [
      'end-to-end',
      '--partitions',
      '3',
      '--batch',
      '10',
      '--calls',
      'unary,pipelined',
      '-o',
      'json',
    ]
    const { code, out, produced, consumed } = await bench(args, requests(150), {
      deliver,
      responseRecords: 4,
    })
    assert.equal(code, 0)
    const [found] = JSON.parse(out).cases
    assert.deepEqual([found.calls, found.rate, found.failures], ['unary', 100, []])
    assert.ok(found.operations > 50, `${found.operations}`)
    assert.equal(found.records, 10 * found.operations)
    assert.ok(found.latency_ms.p50 >= delayMs - 2 && found.latency_ms.p99 <= found.latency_ms.max)
    assert.deepEqual(
      produced.flat().map(({ records }) => records.filter(({ type }) => type !== 0).length),
      produced.flat().map(() => 1),
    )
    assert.equal(consumed.flat().length, 3)
  })

  it('does not wait for the answer to the producer', async () => {
    const { out } = await bench(['end-to-end', '-o', 'json'], requests(300), { onProduce: () => 'no answer' })
    const [{ operations, failures }] = JSON.parse(out).cases
    assert.ok(operations >= 150, `${operations}`)
    assert.deepEqual(failures, [])
  })

  it('goes on where it was when a follower breaks, and counts what was under way as failed', async () => {
    let isBroken = false
    const deliver: FakeBehaviour['deliver'] = (some, send) => {
      const isLate = some.some(({ offset }) => offset === 20n) && !isBroken
      isBroken ||= isLate
      send(isLate ? some.slice(0, -1).concat(outOfPlace) : some)
    }
    const { out, consumed } = await bench(['end-to-end', '-o', 'json'], requests(400), {
      deliver,
      responseRecords: 1,
    })
    const [{ operations, failures }] = JSON.parse(out).cases
    assert.equal(failures.length, 1)
    assert.match(failures[0].what, /^follower: offset 777 where 20 was due$/)
    assert.ok(operations > 100, `${operations}`)
    assert.deepEqual(
      consumed.flat().map(({ offset }) => offset),
      [0n, 20n],
    )
  })

  it('counts what the cluster refuses', async () => {
    const onProduce = () => refusal(status.UNAVAILABLE, 'NO_LEADER', 'NO_LEADER nobody')
    const { code, out } = await bench(['end-to-end'], requests(20), { onProduce })
    assert.equal(code, 1)
    assert.match(out, /failed \d+ × UNAVAILABLE: NO_LEADER nobody \(end-to-end, 64 in flight\)/)
  })
})

const outOfPlace: Record = {
  value: Buffer.from('x'),
  offset: 777n,
  term: 1n,
  type: 0,
  headers: [],
  timestampMs: 1n,
}

describe('a response as a follower reads it', () => {
  const response = (offsets: readonly number[]) =>
    ConsumeResponse.encode(
      ConsumeResponse.fromPartial({
        records: offsets.map((offset, place) => ({
          ...{
            value: Buffer.alloc(offset % 300, 1),
            offset: BigInt(offset),
            term: 70_000n,
            type: place % 2 === 0 ? 0 : offset,
          },
          ...{ key: Buffer.from('key'), headers: [{ name: 'a', value: Buffer.from('b') }] },
          ...{ timestampMs: 1_790_000_000_000n, crc: 7 },
        })),
        ...{ startOffset: 1n, endOffset: 2n ** 40n, lagMs: 3 },
      }),
    ).finish()

  it('has its records, offsets, types and the length of their values', () => {
    assert.deepEqual(readArrived(response([128, 129, 130])), {
      ...{ records: 3, valueBytes: 128 + 129 + 130, from: 128, to: 131, types: [129] },
    })
    assert.deepEqual(readArrived(response([])), { records: 0, valueBytes: 0, from: 0, to: 0, types: [] })
  })

  it('is refused where an offset is left out, or bytes are', () => {
    assert.throws(() => readArrived(response([5, 7])), /offset 7 where 6 was due/)
    const whole = response([299, 300])
    for (let bytes = 1; bytes < 300; bytes++) assert.throws(() => readArrived(whole.subarray(0, bytes)))
  })
})

describe("the bench's plan for streams", () => {
  const plan = (options: { [name: string]: unknown }, ...positionals: string[]) =>
    planOf({ positionals, options, mistakes: [] })

  it('is a record a request and one partition; end-to-end has a rate, consume a follower a partition', () => {
    const { records, batch, partitions, rate, endToEndRate, followers } = plan({}, 'produce')
    assert.deepEqual(
      [records, batch, partitions, rate, endToEndRate, followers],
      [1, 10, 1, null, 1_000, [1]],
    )
    assert.deepEqual(plan({ partitions: '8' }, 'consume').followers, [8])
    assert.deepEqual(plan({ partitions: '8', 'in-flight': '2,4' }, 'consume').followers, [2, 4])
  })

  it('has one batch for keys and records', () => {
    const { records, batch, endToEndRate } = plan({ batch: '100' }, 'mset', 'end-to-end')
    assert.deepEqual([records, batch, endToEndRate], [100, 100, 10])
    assert.equal(plan({ batch: '100', rate: '5' }, 'end-to-end').endToEndRate, 5)
  })

  it('refuses batches that no node would take', () => {
    assert.throws(
      () => plan({ batch: '100', 'value-bytes': '1MiB' }, 'produce'),
      /--batch, --value-bytes: 100 × 1/,
    )
    assert.throws(() => plan({ batch: '5000' }, 'mset', 'produce'), /--batch: .* from 1 to 1000/)
    assert.throws(() => plan({ partitions: '0' }, 'produce'), /--partitions/)
    assert.equal(plan({ batch: '5000' }, 'produce').records, 5_000)
  })
})

describe('a real node', () => {
  it('is measured with records, and has no stream afterwards', async () => {
    await Cluster.with({ nodes: 1 }, async cluster => {
      const shell = fakeShell({ ROUNDHOUSE_NODE: cluster.node(1).address })
      const small = [
        '-d',
        '200ms',
        '--warm-up',
        '50ms',
        '--keys',
        '2000',
        '--partitions',
        '2',
        '--batch',
        '5',
      ]
      const verbs = [verb, ...streamVerbs]
      const args = ['bench', 'produce', 'consume', 'end-to-end', '--calls', 'unary,pipelined', ...small]
      assert.equal(await runCli([...args, '-o', 'json'], shell, verbs), 0)
      const { cases } = JSON.parse(shell.stdout.text())
      assert.deepEqual(
        cases.map((each: { workload: string; calls: string }) => `${each.workload} ${each.calls}`),
        [
          ...['produce unary', 'produce pipelined', 'consume stream'],
          ...['end-to-end unary', 'end-to-end pipelined'],
        ],
      )
      for (const each of cases) {
        assert.deepEqual(each.failures, [])
        assert.ok(each.operations > 0 && each.records >= each.operations)
        assert.ok(each.latency_ms.p50 > 0)
      }
      const list = fakeShell({ ROUNDHOUSE_NODE: cluster.node(1).address })
      assert.equal(await runCli(['stream', 'list', '-o', 'json'], list, verbs), 0)
      assert.deepEqual(JSON.parse(list.stdout.text()), [])
    })
  })
})
