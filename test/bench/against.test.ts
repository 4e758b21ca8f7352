import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, it } from 'node:test'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import { runAgainst } from '../../src/bench/against/against.ts'
import { putRequest, rangeRequest, rangeValue, statusOf } from '../../src/bench/against/etcd-messages.ts'
import { etcdBinary, metricsIn } from '../../src/bench/against/etcd-side.ts'
import { figuresIn, h2loadArguments } from '../../src/bench/against/h2load.ts'
import type { AgainstPlan, AgainstResult } from '../../src/bench/against/ports.ts'
import { inTurn, median, ratioOf } from '../../src/bench/against/ratio.ts'
import { cpuIn, cpuOf, inPath, OwnProcess } from '../../src/bench/own-process.ts'
import { againstJson, againstPlanOf, againstText } from '../../src/cli/bench-against.ts'
import { planOf } from '../../src/cli/bench-plan.ts'
import { colorsFor } from '../../src/cli/colors.ts'
import { grpcFrame } from '../../src/lib/grpc-frame.ts'
import { programPath } from '../lib/cluster-program.ts'
import { isFull } from '../lib/scale.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const text = (value: string) => new TextEncoder().encode(value)

describe("etcd's messages", () => {
  it('are fields 1 and 2 of bytes', () => {
    assert.equal(hex(putRequest(text('key'), text('v'))), '0a036b657912' + '0176')
    assert.equal(hex(rangeRequest(text('key'))), '0a036b6579')
  })

  it('carry lengths of more than a byte', () => {
    const request = putRequest(text('k'), new Uint8Array(300))
    assert.equal(hex(request.subarray(0, 6)), '0a016b12ac02')
    assert.equal(request.length, 306)
  })

  it('hold the value of the first key, or none', () => {
    const header = new BinaryWriter().uint32(16).uint64(7n).finish()
    const pair = new BinaryWriter().uint32(10).bytes(text('k')).uint32(16).uint64(3n)
    const found = pair.uint32(42).bytes(text('value')).finish()
    const response = new BinaryWriter().uint32(10).bytes(header).uint32(18).bytes(found).uint32(32).int64(1n)
    assert.equal(new TextDecoder().decode(rangeValue(response.finish())!), 'value')
    assert.equal(rangeValue(new BinaryWriter().uint32(10).bytes(header).finish()), null)
  })

  it('name the member that answers, its version and its leader', () => {
    const member = 0xf000_0000_0000_0001n
    const header = new BinaryWriter().uint32(8).uint64(1n).uint32(16).uint64(member).finish()
    const response = new BinaryWriter().uint32(10).bytes(header).uint32(18).string('3.4.23')
    assert.deepEqual(statusOf(response.uint32(32).uint64(member).finish()), {
      memberId: member,
      leaderId: member,
      version: '3.4.23',
    })
    assert.equal(statusOf(new Uint8Array()).leaderId, 0n)
  })

  it('are counted by its metrics', () => {
    const metrics = metricsIn(
      [
        '# TYPE etcd_disk_wal_fsync_duration_seconds histogram',
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 5',
        'etcd_disk_wal_fsync_duration_seconds_count 3324',
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1.2e+06',
        'grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 4',
      ].join('\n'),
    )
    assert.equal(metrics.get('etcd_disk_wal_fsync_duration_seconds_count'), 3_324)
    assert.equal(metrics.get('grpc_server_handled_total Put'), 1_200_000)
    assert.equal(metrics.size, 2)
  })
})

describe('h2load', () => {
  const printed = `finished in 1.98s, 3089.50 req/s, 230.53KB/s
requests: 3089 total, 3093 started, 3089 done, 3087 succeeded, 2 failed, 1 errored, 1 timeout
                     min         max         mean         sd        +/- sd
time for request:      242us     69.45ms      1.28ms      2.87ms    94.98%
req/s           :    3087.41     3087.41     3087.41        0.00   100.00%
`

  it('is understood', () => {
    assert.deepEqual(figuresIn(printed), {
      requestsPerSecond: 3_089.5,
      succeeded: 3_087,
      failed: 2,
      meanMs: 1.28,
    })
    assert.equal(figuresIn(printed.replace('1.28ms', '640us'))?.meanMs, 0.64)
    assert.equal(figuresIn('--warm-up-time: value error'), null)
  })

  it('is given a gRPC frame and a time for the window', () => {
    assert.equal(hex(grpcFrame(text('abc'))), '0000000003616263')
    const args = h2loadArguments(
      {
        ...{ binary: 'h2load', address: '127.0.0.1:9', path: '/a.B/C', message: text(''), directory: '' },
        ...{ inFlight: 64, warmUpMs: 500, durationMs: 3_000 },
      },
      'body',
    )
    assert.equal(args.at(-1), 'http://127.0.0.1:9/a.B/C')
    assert.match(args.join(' '), /-D 3000ms --warm-up-time 500ms -c 1 -t 1 -m 64 -d body/)
  })
})

describe('the ratio of two sides', () => {
  it('is that of the medians, within those of neighbours', () => {
    const readings = [100, 50, 120, 80, 90, 30].map((value, place) => ({
      side: place % 2 === 0 ? ('roundhouse' as const) : ('etcd' as const),
      value,
    }))
    assert.deepEqual(ratioOf(readings), { ours: 100, theirs: 50, ratio: 2, min: 1.5, max: 3 })
  })

  it('is none where a side has no figure', () => {
    assert.equal(ratioOf([{ side: 'etcd', value: 1 }]), null)
    assert.equal(
      ratioOf([
        { side: 'roundhouse', value: 1 },
        { side: 'etcd', value: 0 },
      ]),
      null,
    )
  })

  it('has medians of odd and even numbers', () => {
    assert.equal(median([3, 1, 2]), 2)
    assert.equal(median([4, 1, 2, 3]), 2.5)
    assert.equal(median([]), null)
  })

  it('is taken in turn', () => {
    assert.deepEqual(
      inTurn(2).map(({ side, round }) => `${side} ${round}`),
      ['roundhouse 0', 'etcd 0', 'roundhouse 1', 'etcd 1'],
    )
  })
})

describe('a process of the bench', () => {
  it('has its processor time read where its name holds brackets', () => {
    const fields = ['S', ...Array.from({ length: 10 }, () => '0'), '150', '50', '7', '7']
    assert.equal(cpuIn(`12 (a) b (c) ${fields.join(' ')}`), 2)
  })

  it('is not found in PATH, and says what to install', () => {
    assert.equal(inPath('no-such-program'), null)
    assert.throws(() => etcdBinary('/nowhere'), /etcd-server etcd-client/)
  })

  it('tells its time while it runs, and ends when it is asked', {
    skip: existsSync('/proc/self/stat') ? false : 'there is no /proc',
  }, async () => {
    const load = new OwnProcess({
      name: 'spin',
      command: [
        process.execPath,
        '-e',
        'process.stdin.resume().on("end", () => process.exit(0)); console.log("up")',
      ],
      env: {},
      directory: tmpdir(),
      isSupervised: true,
    })
    const { pid } = load
    assert.ok(cpuOf(pid) !== null)
    await load.stop()
    assert.equal(load.isRunning, false)
    assert.equal(load.cpuS(), null)
  })
})

describe('bench --against', () => {
  const plan = (options: Record<string, unknown>, positionals: string[] = []) =>
    againstPlanOf({ positionals, options, mistakes: [] })

  it('is SET and GET at 1, 64 and 256 in flight, twice each; kills when asked', () => {
    const { calls, inFlight, rounds, kills, shardCount } = plan({})
    assert.deepEqual([calls, inFlight, rounds, kills, shardCount], [['set', 'get'], [1, 64, 256], 2, 0, 64])
    assert.deepEqual([plan({}, ['failover']).calls, plan({}, ['failover']).kills], [[], 10])
  })

  it('names all that is wrong with it', () => {
    const wrong = { rate: '5', calls: 'unary', rounds: '0', 'shard-count': '63', verify: true }
    assert.throws(
      () => plan(wrong, ['mixed']),
      (error: Error) =>
        ['--rate', '--calls', '--rounds', '--shard-count', '--verify', 'mixed'].every(each =>
          error.message.includes(each),
        ),
    )
    assert.throws(
      () => planOf({ positionals: ['failover'], options: { kills: '1' }, mistakes: [] }),
      /--kills/,
    )
  })

  it('shows every run, its cost, medians and ratios', () => {
    const run = (side: 'roundhouse' | 'etcd', round: number, operationsPerSecond: number) => ({
      ...{ side, round, operationsPerSecond, meanMs: 2, latencyMs: null, clientCpuUsPerOperation: 12 },
      failures: side === 'etcd' && round === 1 ? [{ what: 'UNAVAILABLE', count: 3 }] : [],
      nodes: [{ nodeId: 'n', cpuUsPerOperation: 40, syncsPerOperation: 0.5 }],
      otherCpuPercent: 3,
    })
    const ratio = { ours: 3_000, theirs: 2_000, ratio: 1.5, min: 1.25, max: 1.75 }
    const result: AgainstResult = {
      sides: [
        { name: 'roundhouse', version: '64 shards', nodes: 3 },
        { name: 'etcd', version: '3.4.23', nodes: 3 },
      ],
      cases: [
        {
          ...{ call: 'set', caller: 'h2load', inFlight: 64, operationsRatio: ratio, latencyRatio: null },
          runs: [run('roundhouse', 0, 3_000), run('etcd', 0, 2_000), run('etcd', 1, 2_000)],
        },
      ],
      failover: {
        kills: [{ side: 'roundhouse', nodeId: 'node2', gapsMs: [1_500, 1_600] }],
        one: { ours: 1_500, theirs: 1_000, ratio: 1.5, min: 1.5, max: 1.5 },
        all: null,
      },
      notes: ['a note'],
    }
    const plain = colorsFor({ isTerminal: false }, {})
    const shown = againstText(plain, plan({}), result)
    for (const each of [
      /1\.50 \(1\.25–1\.75\)/,
      /etcd 2/,
      /3 × UNAVAILABLE/,
      /1,500\/1,600/,
      /a note/,
      /40\.0/,
    ])
      assert.match(shown, each)
    const { cases, failover } = JSON.parse(JSON.stringify(againstJson(plan({}), result)))
    assert.equal(cases[0].operations_per_second.ratio, 1.5)
    assert.equal(cases[0].runs[2].failures[0].count, 3)
    assert.deepEqual(failover.kills[0].without_writes_ms, [1_500, 1_600])
  })

  it('measures both for real, kills a leader of each, and leaves nothing behind', {
    skip: !isFull ? 'npm run test:full' : inPath('etcd') === null ? 'there is no etcd in PATH' : false,
    timeout: 180_000,
  }, async () => {
    const before = leftovers()
    const small: AgainstPlan = {
      ...{ calls: ['set', 'get'], inFlight: [4], rounds: 1, warmUpMs: 100, durationMs: 500 },
      ...{ keys: 20, keyBytes: 16, valueBytes: 128, kills: 1, mayUseH2load: true, nodes: 3, shardCount: 4 },
    }
    const said: string[] = []
    const result = await runAgainst(small, {
      program: [process.execPath, programPath()],
      running: null,
      onProgress: ({ text: line }) => said.push(line),
      signal: new AbortController().signal,
    })
    const callers = inPath('h2load') === null ? 1 : 2
    assert.equal(result.cases.length, 2 * callers)
    for (const { runs, operationsRatio } of result.cases) {
      assert.deepEqual(
        runs.map(each => each.side),
        ['roundhouse', 'etcd'],
      )
      for (const run of runs) {
        assert.deepEqual(run.failures, [])
        assert.ok(run.operationsPerSecond > 0)
        assert.equal(run.nodes.length, 3)
      }
      assert.ok(operationsRatio !== null && operationsRatio.ratio > 0)
    }
    assert.deepEqual(
      result.failover?.kills.map(({ side, gapsMs }) => [side, gapsMs.every(each => each > 0)]),
      [
        ['roundhouse', true],
        ['etcd', true],
      ],
    )
    assert.ok(said.some(line => line.includes('leader killed')))
    assert.deepEqual(leftovers(), before)
  })
})

function leftovers(): string[] {
  return readdirSync(tmpdir()).filter(name => name.startsWith(`roundhouse-bench-${process.pid}-`))
}
