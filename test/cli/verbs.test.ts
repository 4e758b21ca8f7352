import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, describe, it } from 'node:test'
import { status } from '@grpc/grpc-js'
import { runCli } from '../../src/cli/cli.ts'
import { parseNodes } from '../../src/cli/connection.ts'
import { getVerb } from '../../src/cli/get.ts'
import { healthVerb } from '../../src/cli/health.ts'
import { leaveVerb } from '../../src/cli/leave.ts'
import { nodesVerb } from '../../src/cli/nodes.ts'
import { detailOf } from '../../src/cli/progress.ts'
import { rebalanceVerb } from '../../src/cli/rebalance.ts'
import { runVerb } from '../../src/cli/run.ts'
import { setVerb } from '../../src/cli/set.ts'
import { shardsVerb } from '../../src/cli/shards.ts'
import { Interrupted } from '../../src/cli/shell.ts'
import { statusVerb } from '../../src/cli/status.ts'
import { versionVerb } from '../../src/cli/version.ts'
import { StatsResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import {
  count,
  type FakeAnswers,
  type FakeNode,
  fakeNode,
  fakeShell,
  nil,
  rebalanceOf,
  refusal,
  statusOf,
  success,
  value,
} from './fake-cluster.ts'

const verbs = [
  setVerb,
  getVerb,
  runVerb,
  statusVerb,
  nodesVerb,
  shardsVerb,
  rebalanceVerb,
  leaveVerb,
  healthVerb,
  versionVerb,
]
const open: { close(): void }[] = []
after(() => {
  for (const each of open) each.close()
})

async function start(answers: FakeAnswers): Promise<FakeNode> {
  const node = await fakeNode(answers)
  open.push(node)
  return node
}

async function withInput(
  input: Uint8Array,
  nodes: readonly { address: string }[],
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const env = { ROUNDHOUSE_NODE: nodes.map(node => node.address).join(',') }
  const shell = fakeShell(env, false, Readable.from([input.subarray(0, 3), input.subarray(3)]))
  const code = await runCli(args, shell, verbs)
  return { code, out: shell.stdout.text(), err: shell.stderr.text() }
}

async function roundhouse(
  nodes: readonly { address: string }[],
  ...args: string[]
): Promise<{ code: number; out: string; err: string; json: () => Record<string, unknown> }> {
  const shell = fakeShell({ ROUNDHOUSE_NODE: nodes.map(node => node.address).join(',') })
  const code = await runCli(args, shell, verbs)
  const out = shell.stdout.text()
  return { code, out, err: shell.stderr.text(), json: () => JSON.parse(out) }
}

/** A port where nobody listens. */
async function nowhere(): Promise<{ address: string }> {
  const server = createServer()
  const port = await new Promise<number>(resolve => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  })
  await new Promise(resolve => server.close(resolve))
  return { address: `127.0.0.1:${port}` }
}

describe('a list of nodes', () => {
  it('lets a bare port stand for the host before it', () => {
    assert.deepEqual(parseNodes('10.0.0.1:1,2, n3,[::1]:4,5', 'here'), [
      '10.0.0.1:1',
      '10.0.0.1:2',
      'n3:8080',
      '[::1]:4',
      '[::1]:5',
    ])
    assert.deepEqual(parseNodes('8081', 'here'), ['127.0.0.1:8081'])
    assert.throws(() => parseNodes('a:b', 'here'), /here: "a:b" is not host:port/)
  })
})

describe('set and get', () => {
  it('print OK, the value, or (nil), and end with 0', async () => {
    const store = new Map<string, string>()
    const node = await start({
      command: ({ command, key, args }) => {
        const found = store.get(key)
        if (command === 'GET') return found === undefined ? nil() : value(found)
        store.set(key, args[0]!.toString())
        return success(true)
      },
    })
    assert.deepEqual(await pick(roundhouse([node], 'get', 'greeting')), [0, '(nil)\n'])
    assert.deepEqual(await pick(roundhouse([node], 'set', 'greeting', 'hello')), [0, 'OK\n'])
    assert.deepEqual(await pick(roundhouse([node], 'get', 'greeting')), [0, 'hello\n'])
    const json = await roundhouse([node], 'get', 'greeting', '-o', 'json')
    assert.deepEqual(json.json(), { key: 'greeting', value: 'hello', revision: 7 })
    assert.equal((await roundhouse([node], 'get', 'none', '-o', 'json')).json().value, null)
  })

  it('send options of set as the command has them', async () => {
    const node = await start({ command: () => success(true) })
    await roundhouse([node], 'set', 'k', '', '--ex', '5', '--nx')
    const [request] = node.requests
    assert.deepEqual([request!.command, request!.key], ['SET', 'k'])
    assert.deepEqual(request!.args.map(String), ['', 'EX', '5', 'NX'])
  })

  it('carry any bytes from a file or standard input, and back', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'roundhouse-set-'))
    try {
      const bytes = Uint8Array.from({ length: 70_000 }, (_, place) => place % 251)
      writeFileSync(join(folder, 'value'), bytes)
      const node = await start({
        command: ({ command }) => (command === 'SET' ? success(true) : value(Uint8Array.of(0x41))),
      })
      assert.deepEqual(
        await pick(roundhouse([node], 'set', 'k', '--file', join(folder, 'value'), '--ex', '5')),
        [0, 'OK\n'],
      )
      assert.deepEqual(await pick(withInput(bytes, [node], 'set', 'k', '-')), [0, 'OK\n'])
      for (const request of node.requests) assert.deepEqual(Uint8Array.from(request.args[0]!), bytes)
      assert.deepEqual(node.requests[0]!.args.slice(1).map(String), ['EX', '5'])
      assert.deepEqual(await pick(roundhouse([node], 'get', 'k', '--raw')), [0, 'A'])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('refuse no value, two of them, and a file that is not there', async () => {
    const cases = [
      [['set', 'k'], /value is missing \(or --file FILE/],
      [['set', 'k', 'v', '--file', 'f'], /a value and --file are given/],
      [['set', 'k', '--file', '/nowhere/at/all'], /--file \/nowhere\/at\/all: ENOENT/],
      [['set', 'k', '-'], /standard input is the prompt here/],
    ] as const
    for (const [args, expected] of cases) {
      const { code, err } = await roundhouse([], ...args)
      assert.equal(code, 2)
      assert.match(err, expected)
    }
    const huge = await withInput(new Uint8Array(2 ** 23 + 1), [], 'set', 'k', '-')
    assert.match(huge.err, /standard input is larger than 8388608 bytes/)
  })

  it('tell a missing key by 1 where only the bytes are wanted', async () => {
    const node = await start({ command: () => nil() })
    assert.deepEqual(await pick(roundhouse([node], 'get', 'k', '--raw')), [1, ''])
  })

  it('give bytes that are no UTF-8 as base64 to tools', async () => {
    const node = await start({ command: () => value(Uint8Array.of(0xff, 0)) })
    assert.deepEqual((await roundhouse([node], 'get', 'k', '-o', 'json')).json().value, { base64: '/wA=' })
  })
})

describe('run', () => {
  it('sends any command and prints its reply', async () => {
    const node = await start({
      command: ({ command }) => (command === 'HSET' ? success(true, 1n) : count(2n)),
    })
    assert.deepEqual(await pick(roundhouse([node], 'run', 'HSET', 'user', 'name', 'Ada')), [
      0,
      '(integer) 1\n',
    ])
    assert.deepEqual(await pick(roundhouse([node], 'run', 'INCRBY', 'n', '-1')), [0, '(integer) 2\n'])
    assert.deepEqual(node.requests[1]!.args.map(String), ['-1'])
  })

  it('keeps an empty first argument apart from none', async () => {
    const node = await start({ command: () => value('') })
    await roundhouse([node], 'run', 'ECHO', '')
    await roundhouse([node], 'run', 'PING')
    assert.deepEqual(
      node.requests.map(({ key, args }) => [key, args.map(String)]),
      [
        ['', ['']],
        ['', []],
      ],
    )
  })

  it('answers an unknown command with the one that was probably meant', async () => {
    const node = await start({
      command: ({ command }) =>
        refusal(
          status.INVALID_ARGUMENT,
          'UNKNOWN_COMMAND',
          `ERR unknown command '${command}': known are A B`,
        ),
    })
    const { code, err } = await roundhouse([node], 'run', 'HGETAL', 'k')
    assert.equal(code, 1)
    assert.match(
      err,
      /^error: ERR unknown command 'HGETAL': did you mean HGETALL\? "roundhouse help commands"/,
    )
  })

  it('ends with 1 at a refusal and shows its words', async () => {
    const node = await start({
      command: () => refusal(status.FAILED_PRECONDITION, 'WRONG_TYPE', 'WRONGTYPE it is a hash'),
    })
    const { code, err } = await roundhouse([node], 'run', 'INCR', 'user')
    assert.equal(code, 1)
    assert.match(err, /WRONGTYPE it is a hash/)
    const json = (await roundhouse([node], 'run', 'INCR', 'user', '-o', 'json')).json()
    assert.deepEqual(json, {
      error: { code: 'WRONG_TYPE', message: 'WRONGTYPE it is a hash' },
      outcome: 'not_applied',
    })
    assert.equal(node.requests.length, 2)
  })

  it('ends with 75 when a node is overloaded, without asking another', async () => {
    const other = await start({ command: () => count(1n) })
    const node = await start({
      command: () => refusal(status.RESOURCE_EXHAUSTED, 'OVERLOADED', 'OVERLOADED queue'),
    })
    const { code, json } = await roundhouse([node, other], 'run', 'INCR', 'n', '-o', 'json')
    assert.deepEqual([code, json().outcome, other.requests.length], [75, 'not_applied', 0])
  })
})

describe('a cluster in trouble', () => {
  it('is reached through the first node that answers', async () => {
    const node = await start({ command: () => value('x') })
    assert.deepEqual(await pick(roundhouse([await nowhere(), node], 'get', 'k')), [0, 'x\n'])
  })

  it('with nobody there ends with 75 and names what was tried and what to do', async () => {
    const [one, two] = [await nowhere(), await nowhere()]
    const { code, err } = await roundhouse([one, two], 'get', 'k')
    assert.equal(code, 75)
    assert.match(err, new RegExp(`${one.address}, ${two.address}.*npm start`))
    assert.equal((await roundhouse([one], 'set', 'k', 'v', '-o', 'json')).json().outcome, 'not_applied')
  })

  it('with a name that stands for no host ends with 75 and says so, and no advice that does not help', async () => {
    const one = await roundhouse([{ address: 'nohost.invalid:8080' }], 'get', 'k')
    assert.equal(one.code, 75)
    assert.match(
      one.err,
      /^error: cannot reach nohost\.invalid:8080: .*the name nohost\.invalid can't be resolved \(/,
    )
    assert.doesNotMatch(one.err, /npm start/)
    const there = await nowhere()
    const { err } = await roundhouse([{ address: 'nohost.invalid:8080' }, there], 'get', 'k')
    assert.match(
      err,
      new RegExp(`nohost\\.invalid:8080, ${there.address}; the name nohost\\.invalid can't be resolved`),
    )
    assert.doesNotMatch((await roundhouse([there], 'get', 'k')).err, /resolved/)
  })

  it('gets a write that broke off again through another node, in the same session', async () => {
    const broken = await start({
      command: () => {
        broken.close()
        return 'silence'
      },
    })
    const node = await start({ command: () => success(true) })
    assert.deepEqual(await pick(roundhouse([broken, node], 'set', 'k', 'v')), [0, 'OK\n'])
    const [first, second] = [broken.requests[0]!, node.requests[0]!]
    assert.deepEqual([first.session, first.sequence], [second.session, second.sequence])
  })

  it('is asked again where it has no leader yet', async () => {
    let asked = 0
    const node = await start({
      command: () => {
        asked += 1
        return asked < 3 ? refusal(status.UNAVAILABLE, 'NO_LEADER', 'CLUSTERDOWN shard 1') : success(true)
      },
    })
    assert.deepEqual(await pick(roundhouse([node], 'set', 'k', 'v')), [0, 'OK\n'])
    assert.equal(asked, 3)
  })

  it('never makes an unknown outcome into a failure', async () => {
    const silent = await start({ command: () => 'silence' })
    const { code, json } = await roundhouse([silent], 'set', 'k', 'v', '--timeout', '1s', '-o', 'json')
    assert.deepEqual([code, json().outcome], [75, 'unknown'])
    let asked = 0
    const undecided = await start({
      command: () => {
        asked += 1
        return asked === 1
          ? refusal(status.DEADLINE_EXCEEDED, 'OUTCOME_UNKNOWN', 'outcome unknown')
          : refusal(status.UNAVAILABLE, 'NO_LEADER', 'CLUSTERDOWN')
      },
    })
    const later = await roundhouse([undecided], 'set', 'k', 'v', '--timeout', '1500ms', '-o', 'json')
    assert.deepEqual([later.code, later.json().outcome], [75, 'unknown'])
  })

  it('does not take the refusal of a repetition for the fate of the first', async () => {
    for (const [kind, code] of [
      [status.RESOURCE_EXHAUSTED, 'DISK_FULL'],
      [status.FAILED_PRECONDITION, 'SESSION_STALE'],
    ] as const) {
      let asked = 0
      const node = await start({
        command: () => {
          asked += 1
          return asked === 1
            ? refusal(status.DEADLINE_EXCEEDED, 'OUTCOME_UNKNOWN', 'outcome unknown')
            : refusal(kind, code, code)
        },
      })
      const { code: exit, json } = await roundhouse([node], 'set', 'k', 'v', '-o', 'json')
      assert.deepEqual([exit, json().outcome, asked], [75, 'unknown', 2])
    }
  })

  it('leaves no doubt about a read', async () => {
    const silent = await start({ command: () => 'silence' })
    const { code, json } = await roundhouse([silent], 'get', 'k', '--timeout', '300ms', '-o', 'json')
    assert.deepEqual([code, json().outcome], [75, undefined])
  })

  it('is left alone at Ctrl-C, with one word and the exit code of the signal', async () => {
    for (const [number, code] of [
      [2, 130],
      [15, 143],
    ] as const) {
      const shell = fakeShell()
      // It listens, and says nothing.
      const silent = createServer(socket => {
        shell.controller.abort(new Interrupted(number))
        // grpc-js goes on waiting for its first frame.
        open.push({ close: () => socket.destroy() })
      })
      open.push(silent)
      await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
      const { port } = silent.address() as { port: number }
      assert.equal(await runCli(['get', 'k', '--node', `127.0.0.1:${port}`], shell, verbs), code)
      assert.equal(shell.stderr.text(), 'interrupted\n')
    }
  })

  it('is no cluster when the port speaks something else', async () => {
    const server = createServer(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(
      0,
      '127.0.0.1',
    )
    open.push(server)
    await new Promise(resolve => server.once('listening', resolve))
    const address = `127.0.0.1:${(server.address() as { port: number }).port}`
    assert.equal((await roundhouse([{ address }], 'get', 'k', '--timeout', '2s')).code, 75)
  })
})

describe('status', () => {
  it('has the promised JSON', async () => {
    const node = await start({
      status: () =>
        statusOf(
          { n1: 'a:1' },
          { rebalance: rebalanceOf({ state: 'running', movesTotal: 4, bytesDone: 9n, etaS: 3 }) },
        ),
    })
    const { code, json } = await roundhouse([node], 'status', '-o', 'json')
    const shard = { term: 3, leader: 'n1', voters: ['n1'], learners: [], applied: 12 }
    assert.equal(code, 0)
    assert.deepEqual(json(), {
      cluster_id: 'c1',
      epoch: 5,
      feature_level: 1,
      nodes: [
        {
          node_id: 'n1',
          address: 'a:1',
          client_address: 'a:1',
          state: 'alive',
          zone: '',
          replicas: 2,
          leaders: 2,
          disk: 'ok',
          feature_level: 1,
        },
      ],
      shards: [
        { shard_id: 0, slots: [0, 8192], ...shard },
        { shard_id: 1, slots: [8192, 16384], ...shard },
      ],
      meta: { shard_id: 0, slots: [0, 0], ...shard },
      rebalance: {
        state: 'running',
        moves_done: 0,
        moves_total: 4,
        bytes_done: 9,
        bytes_total: 0,
        bytes_per_second: 0,
        eta_s: 3,
        blocked_by: null,
      },
    })
  })

  it('shows a shard without a leader as null to tools and by its number to people', async () => {
    const status = statusOf({ n1: 'a:1', n2: 'a:2' })
    const node = await start({
      status: () => ({
        ...status,
        shards: status.shards.map(each => ({ ...each, leader: each.shardId === 1 ? '' : 'n1' })),
      }),
    })
    const shards = (await roundhouse([node], 'status', '-o', 'json')).json().shards as { leader: unknown }[]
    assert.deepEqual(
      shards.map(each => each.leader),
      ['n1', null],
    )
    const { out } = await roundhouse([node], 'status', '--shards')
    assert.match(out, /1 without a leader \(1\); 2 voters on 2/)
    assert.match(out, /n2 +a:2 +a:2 +alive/)
    assert.match(out, /SHARD[\s\S]*8192-16383/)
  })
})

describe('rebalance', () => {
  it('passes pause and resume on, and shows the state', async () => {
    const actions: string[] = []
    const node = await start({
      rebalance: action => {
        actions.push(action)
        return rebalanceOf({ state: 'paused', movesDone: 1, movesTotal: 2 })
      },
    })
    assert.match((await roundhouse([node], 'rebalance', 'pause')).out, /paused: 1 of 2 replicas moved/)
    assert.equal((await roundhouse([node], 'rebalance', '-o', 'json')).json().state, 'paused')
    assert.deepEqual(actions, ['pause', 'show'])
  })

  it('says how a pause ends, and first', async () => {
    const paused = rebalanceOf({
      state: 'paused',
      movesDone: 1,
      movesTotal: 2,
      blockedBy: 'paused by the operator',
    })
    assert.equal(detailOf(paused), 'paused, "roundhouse rebalance resume" goes on, 0 B of 0 B')
    const node = await start({ rebalance: () => paused })
    assert.equal(
      (await roundhouse([node], 'rebalance')).out,
      'paused: 1 of 2 replicas moved; "roundhouse rebalance resume" goes on\n',
    )
  })

  it('watched and paused with nothing to move, ends', async () => {
    const node = await start({
      status: () => statusOf({ n1: 'a:1' }, { rebalance: rebalanceOf({ state: 'paused' }) }),
    })
    assert.deepEqual(await pick(roundhouse([node], 'rebalance', '--watch')), [
      0,
      'balanced: nothing to move (and moves are paused)\n',
    ])
  })

  it('watched, prints a line on every change and ends when the cluster is balanced', async () => {
    let asked = 0
    const node = await start({
      status: () => {
        asked += 1
        const running = rebalanceOf({
          state: 'running',
          movesDone: Math.floor(asked / 2),
          movesTotal: 2,
          bytesTotal: 2048n,
          bytesPerSecond: 1024,
          etaS: 2,
          blockedBy: 'n2 is down',
        })
        return statusOf({ n1: 'a:1' }, { rebalance: asked < 4 ? running : rebalanceOf({ state: 'idle' }) })
      },
    })
    const { code, out } = await roundhouse([node], 'rebalance', '--watch')
    assert.equal(code, 0)
    assert.deepEqual(out.trimEnd().split('\n'), [
      'rebalance: 0 of 2 replicas, 0 B of 2.0 KiB, 1.0 KiB/s, 2s left, waits for: n2 is down',
      'rebalance: 1 of 2 replicas, 0 B of 2.0 KiB, 1.0 KiB/s, 2s left, waits for: n2 is down',
      'balanced: nothing to move',
    ])
  })
})

describe('leave', () => {
  it('follows the node until it is out', async () => {
    let replicas = 3
    const node = await start({
      leave: request => {
        assert.deepEqual(request, { nodeId: 'n2', allowUnderReplicated: true })
        return null
      },
      status: () => {
        const status = statusOf({ n1: '', n2: '' })
        replicas -= 1
        const leaving = {
          ...status.nodes[1]!,
          replicas: Math.max(0, replicas),
          state: replicas > 0 ? 'leaving' : 'left',
        }
        return { ...status, nodes: [status.nodes[0]!, leaving] }
      },
    })
    const { code, out } = await roundhouse([node], 'leave', 'n2', '--allow-under-replicated')
    assert.equal(code, 0)
    assert.match(out, /n2 leaves: 1 of 2 replicas[\s\S]*n2 leaves: 2 of 2 replicas\nn2 has left\n$/)
  })

  it('ends with 1 and the reason when it is refused', async () => {
    const node = await start({
      status: () => statusOf({ n1: '' }),
      leave: () =>
        refusal(status.FAILED_PRECONDITION, 'LEAVE_REFUSED', "node n1 can't leave: two nodes would stay"),
    })
    const { code, err } = await roundhouse([node], 'leave', 'n1')
    assert.equal(code, 1)
    assert.match(err, /can't leave: two nodes would stay/)
  })
})

describe('nodes', () => {
  it('shows each node with its own figures, and those that do not answer without', async () => {
    const node = await start({
      status: () => statusOf({ n1: node.address, n2: gone.address }),
      stats: () => StatsResponse.fromPartial({ nodeId: 'n1', uptimeS: 61, cpuS: 1.5, rssBytes: 2n ** 20n }),
    })
    const gone = await nowhere()
    const { out } = await roundhouse([node], 'nodes')
    assert.match(
      out,
      /NODE +CLIENTS[^\n]*MEMORY\nn1 .*alive .* 1m01s +2s +1\.0 MiB\nn2 .*alive .* - +- +-\n$/,
    )
    const json = JSON.parse((await roundhouse([node], 'nodes', '-o', 'json')).out)
    assert.deepEqual(
      json.map((each: Record<string, unknown>) => [each.node_id, each.uptime_s, each.rss_bytes]),
      [
        ['n1', 61, 2 ** 20],
        ['n2', null, null],
      ],
    )
  })

  it('shows who holds the feature level of the cluster back', async () => {
    const node = await start({
      status: () => {
        const cluster = statusOf({ n1: '', n2: '' })
        return { ...cluster, nodes: [{ ...cluster.nodes[0]!, featureLevel: 2 }, cluster.nodes[1]!] }
      },
    })
    assert.match((await roundhouse([node], 'nodes')).out, /LEVEL.*\n.*n1 .* 2 .*\n.*n2 .* 1 /)
    assert.match((await roundhouse([node], 'status')).out, /feature level held at 1 of 2 by n2/)
  })

  it('shows a disk that somebody must see to', async () => {
    const node = await start({
      status: () => {
        const cluster = statusOf({ n1: '' })
        return { ...cluster, nodes: [{ ...cluster.nodes[0]!, disk: 'nearly_full' }] }
      },
    })
    assert.match((await roundhouse([node], 'nodes')).out, /n1 .*alive, disk nearly full /)
    assert.match((await roundhouse([node], 'status')).out, /n1 .*alive, disk nearly full /)
  })
})

describe('shards', () => {
  it('finds the shard of a key by its hash tag', async () => {
    const node = await start({ status: () => statusOf({ n1: 'a:1' }) })
    // Redis Cluster: "foo" is in slot 12182.
    const { out } = await roundhouse([node], 'shards', '--key', '{foo}:mail')
    assert.match(out, /^slot 12182\nSHARD.*\n1 +8192-16383 +n1/)
    assert.equal(out.trimEnd().split('\n').length, 3)
    const json = JSON.parse((await roundhouse([node], 'shards', '-o', 'json')).out)
    assert.deepEqual(
      json.map((shard: Record<string, unknown>) => shard.slots),
      [
        [0, 8192],
        [8192, 16384],
      ],
    )
  })

  it('without leaders make a check fail', async () => {
    const whole = await start({ status: () => statusOf({ n1: '' }) })
    assert.deepEqual(await pick(roundhouse([whole], 'shards', '--leaderless')), [
      0,
      'every shard has a leader\n',
    ])
    const lame = await start({
      status: () => {
        const { shards, ...rest } = statusOf({ n1: '' })
        return { ...rest, shards: [shards[0]!, { ...shards[1]!, leader: '' }] }
      },
    })
    const { code, out } = await roundhouse([lame], 'shards', '--leaderless')
    assert.equal(code, 1)
    assert.match(out, /\n1 +8192-16383 +none [^\n]*\n$/)
  })
})

describe('health', () => {
  it('is 0 when the node serves and 1 when it does not or is not there', async () => {
    assert.equal((await roundhouse([await start({})], 'health')).code, 0)
    const { code, json } = await roundhouse([await start({ isServing: false })], 'health', '-o', 'json')
    assert.deepEqual([code, json().status], [1, 'NOT_SERVING'])
    assert.equal((await roundhouse([await nowhere()], 'health')).code, 1)
  })
})

describe('version', () => {
  it('is the package’s', async () => {
    assert.match((await roundhouse([], 'version')).out, /^roundhouse \d+\.\d+\.\d+ /)
  })
})

async function pick(result: Promise<{ code: number; out: string }>): Promise<[number, string]> {
  const { code, out } = await result
  return [code, out]
}
