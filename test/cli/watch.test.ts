import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { runCli } from '../../src/cli/cli.ts'
import { watchVerb } from '../../src/cli/watch.ts'
import { type Client, connect } from '../../src/client/entry.ts'
import { type Cluster, startCluster } from '../../src/testing.ts'
import { until } from '../wire/grpc/harness.ts'
import { fakeShell } from './fake-cluster.ts'

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
    assert.match(elsewhere.err(), /shards 0 to 7|it has no shard/)
  })
})
