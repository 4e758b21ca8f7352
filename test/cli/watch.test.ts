import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { type ServiceError, status } from '@grpc/grpc-js'
import { runCli } from '../../src/cli/cli.ts'
import { watchVerb } from '../../src/cli/watch.ts'
import { type Client, connect } from '../../src/client/entry.ts'
import { RoundhouseError } from '../../src/errors.ts'
import type { WatchRequest, WatchResponse } from '../../src/gen/roundhouse/v1/watch.ts'
import type { WatchNews } from '../../src/node/ports.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'
import { count, FakeNodes } from '../client/fake-nodes.ts'
import { changed, told } from '../client/watch-messages.ts'
import { until } from '../wire/grpc/harness.ts'
import { fakeNode, fakeShell, refusal } from './fake-cluster.ts'

describe('watch in the shell', () => {
  let cluster: Cluster
  let client: Client
  before(async () => {
    cluster = await startCluster({ nodes: 1 })
    client = await connect({ addresses: cluster.addresses, timeout: 20_000 })
  })
  after(async () => {
    await client.destroy()
    await cluster.stop()
  })

  /** Begins a verb; `end` is Ctrl-C. */
  function begin(...args: string[]) {
    const controller = new AbortController()
    const fake = fakeShell({ ROUNDHOUSE_NODE: cluster.addresses.join(',') }, false, Readable.from([]))
    const shell = { ...fake, signal: controller.signal }
    const finished = runCli(['watch', ...args], shell, [watchVerb])
    const end = () => {
      controller.abort()
      return finished
    }
    return { out: () => fake.stdout.text(), err: () => fake.stderr.text(), finished, end }
  }

  /** One that watches already: it has printed a first change. */
  async function watching(key: string, ...args: string[]) {
    const begun = begin(...args)
    for (let i = 0; begun.out() === ''; i++) {
      await client.set(key, `try ${i}`)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    return begun
  }

  it('prints changes as they come, and with Ctrl-C the cursor to go on from', async () => {
    const begun = await watching('user:first', '--prefix', 'user:')
    await client.set('user:1', 'Ada "A"\n')
    await client.hset('user:2', { f: 1 })
    await client.del('user:2')
    await until('it is printed', () => begun.out().includes('delete'))
    assert.equal(await begun.end(), 0)
    const time = String.raw`\d{4}-\d\d-\d\dT[\d:.]+Z`
    assert.match(begun.out(), new RegExp(`^${time}  set     "user:first" "try \\d+"$`, 'm'))
    assert.match(begun.out(), new RegExp(String.raw`^${time}  set     "user:1" "Ada \\"A\\"\\n"$`, 'm'))
    assert.match(begun.out(), new RegExp(String.raw`^${time}  set     "user:2" \(hash\)$`, 'm'))
    assert.match(begun.out(), new RegExp(String.raw`^${time}  delete  "user:2" \(hash\)$`, 'm'))
    const [, cursor] = /^go on from here: --from ([0-9:,]+)\n$/.exec(begun.err()) ?? []
    assert.ok(cursor, begun.err())
    await client.set('user:3', 'later')
    const next = begin('--prefix', 'user:', '--from', cursor, '--max', '1')
    assert.equal(await next.finished, 0)
    assert.match(next.out(), /set {5}"user:3" "later"\n$/)
  })

  it('prints JSON lines, the last with the cursor', async () => {
    const begun = await watching('one', 'one', '-o', 'json')
    await client.del('one')
    await until('it is printed', () => begun.out().includes('delete'))
    await begun.end()
    const lines = begun
      .out()
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>)
    const { timestamp, revision, shard, ...rest } = lines.at(-2)!
    assert.deepEqual(rest, { kind: 'delete', key: 'one', type: 'string', number: 0 })
    assert.deepEqual(lines.at(-1), { cursor: `${shard}:${revision}` })
    assert.ok(Date.parse(String(timestamp)) > 0)
    assert.equal(begun.err(), '')
  })

  it('goes on when its node was away, and says when what it missed is gone', async () => {
    const begun = await watching('away:a', '--prefix', 'away:')
    await cluster.nodes[0]!.stop()
    await cluster.nodes[0]!.start()
    await client.set('away:b', 'after')
    await until('it is printed', () => begun.out().includes('after'))
    await begun.end()
    assert.equal(begun.out().split('after').length, 2)
    const old = begin('--prefix', 'away:', '--from', '0:1,1:1,2:1,3:1,4:1,5:1,6:1,7:1')
    assert.equal(await old.finished, 1)
    assert.match(old.err(), /^go on from here: --from 0:\d+,1:\d+.*\nerror: COMPACTED changes after entry 1/)
  })

  it('refuses what can’t be', async () => {
    for (const [args, text] of [
      [[], /a key or --prefix is needed/],
      [['a', '--prefix', 'b'], /and not both/],
      [['a', '--from', 'now'], /"now" is no cursor/],
      [['a', '--max', '0'], /--max/],
    ] as const) {
      const { finished, err } = begin(...args)
      assert.equal(await finished, 2)
      assert.match(err(), text)
    }
    const elsewhere = begin('a', '--from', '99:1')
    assert.equal(await elsewhere.finished, 1)
    assert.match(elsewhere.err(), /^error: .*(shards 0 to 7|it has no shard)/)
    const forTools = begin('a', '--from', '99:1', '-o', 'json')
    assert.equal(await forTools.finished, 1)
    assert.deepEqual(
      forTools
        .out()
        .trim()
        .split('\n')
        .map(line => JSON.parse(line).error.code),
      ['INVALID_ARGUMENT'],
    )
  })
})

describe('a watch in the shell that was overtaken', () => {
  const change = (index: number) => changed(index, 'hash')
  const overtaken = refusal(status.OUT_OF_RANGE, 'COMPACTED', 'COMPACTED changes after entry 5')
  const stopped = refusal(status.UNAVAILABLE, 'SHUTTING_DOWN', 'ERR the node stops')
  const once = refusal(status.INVALID_ARGUMENT, 'INVALID_ARGUMENT', 'ERR asked once more')
  type Script = readonly [messages: readonly WatchResponse[], end: ServiceError | 'Ctrl-C' | null]

  /** What a watch says of calls that bring these messages and end so, one after another, and what it asked. */
  async function ran(calls: readonly Script[], ...args: readonly string[]) {
    const asked: WatchRequest['cursor'][] = []
    let taken = 0
    const node = await fakeNode({
      watch: async call => {
        const [messages, end] = calls[asked.push(call.request.cursor) - 1] ?? [[], once]
        taken = 0
        for (const message of messages) call.write(message)
        if (end === null) return
        // An error status that comes sooner makes grpc-js drop what was not taken.
        await until('all were taken', () => taken === messages.length)
        if (end === 'Ctrl-C') shell.controller.abort()
        else call.emit('error', end)
      },
    })
    const shell = fakeShell({ ROUNDHOUSE_NODE: node.address })
    shell.stdout.drained = async () => void taken++
    try {
      const code = await runCli(['watch', '--prefix', '', ...args], shell, [watchVerb])
      return { code, asked, out: shell.stdout.text(), err: shell.stderr.text() }
    } finally {
      node.close()
    }
  }

  it('tells the cursor of its last message', async () => {
    const { code, asked, out, err } = await ran([
      [[told('created', 3, 3), change(5), told('compacted', 9, 4)], overtaken],
    ])
    assert.equal(code, 1)
    assert.match(out, /^\S+ {2}set {5}"a" \(hash\)\n$/)
    assert.equal(err, 'go on from here: --from 0:9,1:4\nerror: COMPACTED changes after entry 5\n')
    assert.deepEqual(asked, [{}])
  })

  it('tells that of a watch begun anew when that message was lost before the status', async () => {
    const { code, asked, out, err } = await ran([
      [[told('created', 3, 3), change(5)], overtaken],
      [[], stopped],
      [[told('created', 11, 4)], null],
    ])
    assert.equal(code, 1)
    assert.match(out, /^\S+ {2}set {5}"a" \(hash\)\n$/)
    assert.equal(err, 'go on from here: --from 0:11,1:4\nerror: COMPACTED changes after entry 5\n')
    assert.deepEqual(asked, [{}, {}, {}])
  })

  it('goes on from no cursor that was refused, and from one that was good before its last call was', async () => {
    const from = ['--from', '0:3,1:3'] as const
    assert.equal((await ran([[[], once]], ...from)).err, 'error: ERR asked once more\n')
    const later = await ran([[[told('created', 3, 3), change(5)], once]], ...from)
    assert.equal(later.err, 'go on from here: --from 0:5,1:3\nerror: ERR asked once more\n')
  })

  it('tells it also where --from was too old before anything came', async () => {
    const { code, asked, out } = await ran(
      [
        [[], overtaken],
        [[told('created', 11, 4)], null],
      ],
      ...['--from', '0:1,1:2', '-o', 'json'],
    )
    assert.equal(code, 1)
    const [cursor, error] = out.split('\n')
    assert.deepEqual(JSON.parse(cursor!), { cursor: '0:11,1:4' })
    assert.equal(JSON.parse(error!).error.code, 'COMPACTED')
    assert.deepEqual(asked, [{ 0: 1n, 1: 2n }, {}])
  })

  it('never goes on behind the gap, whatever comes after that message', async () => {
    for (const end of [stopped, 'Ctrl-C'] as const) {
      const { code, asked, err } = await ran([
        [[told('created', 3, 3), change(5), told('compacted', 9, 4)], end],
      ])
      assert.equal(code, 1)
      assert.match(err, /^go on from here: --from 0:9,1:4\nerror: COMPACTED what came after the cursor/)
      assert.deepEqual(asked, [{}])
    }
  })

  it('tells a new cursor, however many messages lie between the node and a slow terminal', async () => {
    const nodes = await FakeNodes.start(1)
    const [node] = nodes.nodes
    const { address, watches } = node!
    node!.onExecute = async () => count(0)
    const client = await nodes.connect({ timeout: 20_000 })
    // More than grpc-js takes for a reader who does not read, and less than the window of the connection.
    const last = 60
    let index = 7
    watches.onNext = (): WatchNews | Error | null => {
      if (watches.wishes.length > 1) return null
      if (index === last) {
        watches.place = 100
        return new RoundhouseError('COMPACTED', { shard: 0, after: last, start: 80, cursor: '0:100' })
      }
      const entry = { index: ++index, number: 0, key: 'a', kind: 'set', type: 'hash', timeMs: 5 } as const
      return { kind: 'changes', shard: 0, place: index, changes: [{ ...entry, value: null }] }
    }
    const shell = fakeShell({ ROUNDHOUSE_NODE: address })
    shell.stdout.drained = async () => {
      await until('the node has ended it', () => index === last && watches.open_.size === 0)
      // There and back over another connection: the status, which left before, has come.
      await client.exists('a')
    }
    try {
      assert.equal(await runCli(['watch', '--prefix', ''], shell, [watchVerb]), 1)
      assert.match(shell.stderr.text(), /^go on from here: --from 0:100\nerror: COMPACTED /)
      for (const { from } of watches.wishes) assert.equal(from, null)
    } finally {
      await client.destroy()
      await nodes.close()
    }
  })
})
