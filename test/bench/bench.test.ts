import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Metadata, status } from '@grpc/grpc-js'
import { runBench } from '../../src/bench/bench.ts'
import { runVerify } from '../../src/bench/verify/verify.ts'
import { benchVerb } from '../../src/cli/bench.ts'
import { planOf } from '../../src/cli/bench-plan.ts'
import { runCli } from '../../src/cli/cli.ts'
import { Interrupted } from '../../src/cli/shell.ts'
import { Read } from '../../src/gen/clusterpb/cluster.ts'
import { MapResponse, StatsResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { type FakeNode, fakeNode, fakeShell, nil, refusal, success } from '../cli/fake-cluster.ts'
import { Cluster } from '../lib/cluster-harness.ts'

const shardCount = 4
const verb = benchVerb(
  async () => runBench,
  async () => runVerify,
)

/** Who leads the shards of `withCluster`, as it tells. */
let leaders = ['n0', 'n1', 'n0', 'n1']

/** Two nodes that lead the even and the odd shards; every operation costs 100 µs, and a sync at the second. */
async function withCluster(use: (nodes: [FakeNode, FakeNode]) => Promise<void>): Promise<void> {
  const nodes: FakeNode[] = []
  const map = () =>
    MapResponse.fromPartial({
      shardCount,
      nodes: nodes.map((node, place) => ({
        nodeId: `n${place}`,
        clientAddress: node.address,
        state: 'alive',
      })),
      leaders,
    })
  for (const place of [0, 1]) {
    const stats = () => {
      const calls = nodes[place]!.requests.length
      const counters = { calls_forwarded: 0, ...(place === 1 ? { journal_fsyncs: calls } : {}) }
      return StatsResponse.fromPartial({ nodeId: `n${place}`, cpuS: calls / 10_000, counters })
    }
    nodes.push(
      await fakeNode({
        ...{ map, stats },
        command: request => {
          measured(request)
          return request.command === 'GET' ? nil() : success(true)
        },
      }),
    )
  }
  try {
    await use([nodes[0]!, nodes[1]!])
  } finally {
    for (const node of nodes) node.close()
  }
}

/** Called with each command that a fake node gets. */
let measured: (request: { command: string }) => void = () => {}

/** Runs it until so many commands of its load have come, however long that takes on a busy machine; then it is Ctrl-C. */
async function bench(
  node: { readonly address: string },
  args: readonly string[],
  operations = 200,
): Promise<{ code: number; out: string }> {
  const shell = fakeShell({ ROUNDHOUSE_NODE: node.address })
  let left = operations
  measured = ({ command }) => {
    if ((command === 'SET' || command === 'GET') && --left === 0) shell.controller.abort()
  }
  const small = ['-d', '60s', '--warm-up', '0', '--keys', '300', '-c', '4']
  const code = await runCli(['bench', ...args, ...small], shell, [verb])
  assert.equal(shell.stderr.text(), '')
  return { code, out: shell.stdout.text() }
}

/** A call that was cut off. */
const broken = Object.assign(new Error(), {
  code: status.CANCELLED,
  details: 'Call cancelled',
  metadata: new Metadata(),
})

const leaderOf = (key: string) => shardOfSlot(slotOf(Buffer.from(key)), shardCount) % 2

describe('the bench', () => {
  for (const calls of ['unary', 'pipelined']) {
    it(`sends each command to the leader of its key, ${calls}`, async () => {
      await withCluster(async nodes => {
        const { code, out } = await bench(nodes[0], ['set', '--calls', calls, '-o', 'json'])
        assert.equal(code, 0)
        const [found] = JSON.parse(out).cases
        assert.deepEqual([found.workload, found.calls, found.in_flight], ['set', calls, 4])
        nodes.forEach((node, place) => {
          const sets = node.requests.filter(({ command }) => command === 'SET')
          assert.ok(sets.length > 0)
          assert.ok(sets.every(({ key, session }) => leaderOf(key) === place && session.length === 0))
        })
        assert.ok(found.operations >= 190 && found.operations <= 200, `${found.operations}`)
        assert.ok(found.latency_ms.p50 > 0 && found.latency_ms.p50 <= found.latency_ms.p99)
        assert.ok(found.latency_ms.p99 <= found.latency_ms.max)
        assert.ok(Math.abs(found.megabytes_per_second - (found.operations_per_second * 144) / 1e6) < 1e-6)
        assert.deepEqual(found.failures, [])
      })
    })
  }

  it('asks each node what an operation cost it', async () => {
    await withCluster(async nodes => {
      const { cases } = JSON.parse((await bench(nodes[0], ['set', '-o', 'json'], 2_000)).out)
      const [first, second] = cases[0].nodes
      assert.deepEqual([first.node_id, second.node_id], ['n0', 'n1'])
      const cost = first.cpu_us_per_operation + second.cpu_us_per_operation
      // Calls just before and after the window count for one and not for the other.
      assert.ok(cost > 50 && cost < 200, `${cost} µs`)
      assert.equal(first.fsyncs_per_operation, null)
      assert.ok(second.fsyncs_per_operation > 0.1 && second.fsyncs_per_operation < 1)
      assert.equal(first.forwarded_per_operation, 0)
      assert.ok(cases[0].client_cpu_us_per_operation > 0)
    })
  })

  it('writes the keys before it reads them, and takes them away at the end unless told to keep them', async () => {
    await withCluster(async nodes => {
      await bench(nodes[0], ['get'])
      const all = nodes.flatMap(node => node.requests)
      const named = (command: string) => all.filter(each => each.command === command)
      // A request a shard: one over many would be an entry in each.
      for (const command of ['MSET', 'DEL']) {
        const shards = named(command).map(({ key, args }) => {
          const keys = [key, ...args.filter((_, place) => command === 'DEL' || place % 2 === 1).map(String)]
          const all = new Set(keys.map(each => shardOfSlot(slotOf(Buffer.from(each)), shardCount)))
          assert.equal(all.size, 1)
          return [...all][0]!
        })
        assert.deepEqual(shards.sort(), [0, 1, 2, 3])
      }
      assert.equal(new Set(named('DEL').flatMap(({ key, args }) => [key, ...args.map(String)])).size, 300)
      assert.ok(named('GET').every(({ read }) => read === Read.LINEARIZABLE))
      await bench(nodes[0], ['stale-get', '--keep'])
      const later = nodes.flatMap(node => node.requests)
      assert.ok(later.some(({ read }) => read === Read.STALE))
      assert.equal(later.filter(each => each.command === 'DEL').length, 4)
    })
  })

  it('gives writes sessions where asked: one a slot, sequences without gaps', async () => {
    await withCluster(async nodes => {
      await bench(nodes[0], ['set', '--sessions'])
      const sets = nodes.flatMap(node => node.requests).filter(({ command }) => command === 'SET')
      const bySession = new Map<string, bigint[]>()
      for (const { session, sequence, ackedBelow } of sets) {
        assert.equal(ackedBelow, sequence)
        const id = session.toString('hex')
        bySession.set(id, [...(bySession.get(id) ?? []), sequence])
      }
      assert.equal(bySession.size, 4)
      for (const sequences of bySession.values()) {
        const sorted = sequences.toSorted((a, b) => Number(a - b))
        assert.deepEqual(
          sorted,
          sorted.map((_, place) => BigInt(place + 1)),
        )
      }
    })
  })

  it('follows leaders that move', async () => {
    await withCluster(async nodes => {
      const shell = fakeShell({ ROUNDHOUSE_NODE: nodes[0].address })
      const before = leaders
      let left = 100
      measured = () => {
        if (--left === 0) leaders = ['n1', 'n1', 'n1', 'n1']
        // Node 0 had the even shards; node 1 has them now.
        const moved = nodes[1].requests.filter(({ command, key }) => command === 'SET' && leaderOf(key) === 0)
        if (moved.length >= 20) shell.controller.abort()
      }
      try {
        const args = ['bench', 'set', '-d', '20s', '--warm-up', '0', '--keys', '300', '--rate', '200']
        assert.equal(await runCli([...args, '-o', 'json'], shell, [verb]), 0)
        const { duration_s: seconds } = JSON.parse(shell.stdout.text()).cases[0]
        assert.ok(seconds < 19, 'it went on asking the old leader')
      } finally {
        leaders = before
      }
    })
  })

  it('sends to any node where asked', async () => {
    await withCluster(async nodes => {
      await bench(nodes[0], ['set', '--route', 'any'])
      assert.ok(nodes[0].requests.some(({ key, command }) => command === 'SET' && leaderOf(key) === 1))
    })
  })

  it('counts refusals and streams that break as failures, and ends with 1 when nothing worked', async () => {
    const full = await fakeNode({
      map: () =>
        MapResponse.fromPartial({
          shardCount: 1,
          nodes: [{ nodeId: 'n0', clientAddress: full.address, state: 'alive' }],
          leaders: ['n0'],
        }),
      command: request => {
        measured(request)
        return request.command === 'SET'
          ? refusal(status.RESOURCE_EXHAUSTED, 'OVERLOADED', 'OVERLOADED slow down')
          : success(true)
      },
    })
    try {
      for (const calls of ['unary', 'pipelined']) {
        const { code, out } = await bench(full, ['set', '--calls', calls], 8)
        assert.equal(code, 1)
        assert.match(out, /failed \d+ × RESOURCE_EXHAUSTED: OVERLOADED slow down \(set, 4 in flight\)/)
      }
    } finally {
      full.close()
    }
  })

  it('tells what it measured where its keys could not be deleted, and ends as a signal ends it', async () => {
    for (const isSignalled of [true, false]) {
      const shell = fakeShell()
      let left = 100
      const node = await fakeNode({
        map: () =>
          MapResponse.fromPartial({
            shardCount: 1,
            nodes: [{ nodeId: 'n0', clientAddress: node.address, state: 'alive' }],
            leaders: ['n0'],
          }),
        command: ({ command }) => {
          if (isSignalled && --left === 0) shell.controller.abort(new Interrupted(15))
          // As when the Ctrl-C is the nodes', too.
          return command === 'DEL' ? broken : success(true)
        },
      })
      try {
        const args = ['bench', 'set', '-d', isSignalled ? '60s' : '100ms', '--warm-up', '0', '--keys', '300']
        assert.equal(await runCli([...args, '--node', node.address], shell, [verb]), isSignalled ? 143 : 75)
        assert.match(shell.stdout.text(), /\nset +unary /)
        assert.equal(
          shell.stderr.text(),
          'keys not deleted: the bench got stuck (clean-up): CANCELLED: Call cancelled\n',
        )
      } finally {
        node.close()
      }
    }
  })

  it('ends without a word more where it is interrupted while it fills keys in', async () => {
    const shell = fakeShell()
    const node = await fakeNode({
      map: () =>
        MapResponse.fromPartial({
          shardCount: 1,
          nodes: [{ nodeId: 'n0', clientAddress: node.address, state: 'alive' }],
          leaders: ['n0'],
        }),
      command: ({ command }) => {
        if (command === 'DEL') return success(true)
        shell.controller.abort(new Interrupted(2))
        return broken
      },
    })
    try {
      await runCli(['bench', 'get', '--keys', '300', '--node', node.address], shell, [verb])
      assert.equal(shell.stderr.text(), '')
    } finally {
      node.close()
    }
  })

  it('prints tables for people', async () => {
    await withCluster(async nodes => {
      const { out } = await bench(nodes[0], ['set'])
      assert.match(
        out,
        /^300 keys of 16 B, values of 128 B; 1 client, to the leader, no sessions; the next when/,
      )
      assert.match(
        out,
        /WORKLOAD +CALLS +IN FLIGHT +OPS\/S +MB\/S +P50 MS +P90 +P99 +P99\.9 +MAX +FAILED\nset +unary +4 /,
      )
      assert.match(
        out,
        /PER OPERATION +CALLS +IN FLIGHT +n0 µs +n1 µs +client µs +n0 fsyncs +n1 fsyncs +FORWARDED\n/,
      )
    })
  })

  it('measures a real node', async () => {
    await Cluster.with({ nodes: 1 }, async cluster => {
      const shell = fakeShell({ ROUNDHOUSE_NODE: cluster.node(1).address })
      const small = [
        '-d',
        '1s',
        '--warm-up',
        '50ms',
        '--keys',
        '300',
        '-c',
        '4',
        '--calls',
        'unary,pipelined',
      ]
      const verbs = [verb]
      assert.equal(await runCli(['bench', 'mixed', 'mset', ...small, '-o', 'json'], shell, verbs), 0)
      const { cases } = JSON.parse(shell.stdout.text())
      assert.equal(cases.length, 4)
      for (const each of cases) {
        assert.deepEqual(each.failures, [])
        assert.ok(each.operations > 0)
        assert.ok(each.nodes[0].cpu_us_per_operation > 0)
      }
      const left = { command: 'DBSIZE' }
      const { response } = await cluster.client.read(cluster.anyNode, left, Date.now() + 10_000)
      assert.equal(Number(response?.value), 0)
    })
  })
})

describe("the bench's plan", () => {
  const plan = (options: Record<string, unknown>, positionals: string[] = []) =>
    planOf({ positionals, options, mistakes: [] })

  it('is SET and GET, unary, 64 in flight, keys of 16 and values of 128 bytes', () => {
    const { workloads, calls, inFlight, keyBytes, valueBytes, rate } = plan({})
    assert.deepEqual(
      [workloads, calls, inFlight, keyBytes, valueBytes, rate],
      [['set', 'get'], ['unary'], [64], 16, 128, null],
    )
  })

  it('takes lists, sizes and durations', () => {
    const options = {
      calls: 'unary, pipelined',
      'in-flight': '1,64,64',
      'value-bytes': '4KiB',
      duration: '1m',
      rate: '50',
    }
    const { calls, inFlight, valueBytes, durationMs, rate } = plan(options)
    assert.deepEqual(
      [calls, inFlight, valueBytes, durationMs, rate],
      [['unary', 'pipelined'], [1, 64], 4_096, 60_000, 50],
    )
  })

  it('names all that is wrong with it', () => {
    const wrong = {
      calls: 'both',
      'in-flight': '0',
      keys: 'many',
      'key-bytes': '8',
      'value-bytes': '1048577',
      duration: '1',
      rate: '-1',
    }
    assert.throws(
      () => plan(wrong),
      (error: Error) =>
        ['--calls', '--in-flight', '--keys', '--key-bytes', '--value-bytes', '--duration', '--rate'].every(
          each => error.message.includes(each),
        ),
    )
  })
})
