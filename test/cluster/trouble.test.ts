import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { textOf } from '../lib/cluster-load.ts'
import { freePort, NodeProcess } from '../lib/cluster-node.ts'

const soon = () => Date.now() + 20_000
/** A node that can't start says so and ends, within ms. */
const refusalMsMax = 20_000

/** Starts a node that must refuse: the code in its log and the exit status 1. */
async function refusal(node: NodeProcess): Promise<{ code: string; msg: string }> {
  const before = node.output.length
  node.start()
  const exit = await eventually(`${node.id} refuses to start`, refusalMsMax, () =>
    Promise.race([node.ended, Promise.resolve(null)]),
  )
  assert.equal(exit.code, 1, node.output)
  const lines = node.output
    .slice(before)
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as { level: string; code: string; msg: string })
  const errors = lines.filter(line => line.level === 'error' && line.code !== undefined)
  assert.equal(errors.length, 1, node.output)
  return errors[0]!
}

/** Sends bytes to a port and waits for the other side to end the connection, or a second. */
function send(port: number, bytes: Uint8Array): Promise<void> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
    socket.setTimeout(1_000, () => socket.destroy())
    socket.on('error', () => {})
    socket.on('data', () => {})
    socket.once('close', () => resolve())
  })
}

describe('nodes that must not start', () => {
  it('say why and end, and the cluster beside them does not notice', async () => {
    await Cluster.with({}, async cluster => {
      const { client, anyNode } = cluster
      await client.session().write(anyNode, { command: 'SET', key: 'k', args: ['v'] }, soon())
      const place = (name: string) => join(cluster.directory, name)
      const one = cluster.node(1)
      const three = cluster.node(3)
      const seed = ['--seed', one.address]

      const taken = await refusal(new NodeProcess('node9', one.port, place('taken'), seed))
      assert.equal(taken.code, 'PORT_IN_USE')
      assert.match(taken.msg, new RegExp(`127.0.0.1:${one.port} is in use`))

      const locked = await refusal(new NodeProcess('node1', await freePort(), one.dataDir, seed))
      assert.equal(locked.code, 'DATA_DIR')
      assert.match(locked.msg, /another process/)

      assert.deepEqual(await three.stop(), { code: 0, signal: null })
      const foreign = await refusal(new NodeProcess('node8', await freePort(), three.dataDir, seed))
      assert.equal(foreign.code, 'DATA_DIR')
      assert.match(foreign.msg, /node3/)
      assert.match(foreign.msg, /node8/)

      const identity = join(three.dataDir, 'node.json')
      const text = readFileSync(identity, 'utf8')
      const { format } = JSON.parse(text) as { format: number }
      writeFileSync(identity, text.replace(/("format": *)\d+/, `$1${format + 1}`))
      const newer = await refusal(three)
      assert.equal(newer.code, 'DATA_DIR')
      assert.match(newer.msg, new RegExp(`format.*${format + 1}|${format + 1}.*format`))
      writeFileSync(identity, text)

      const loner = new NodeProcess('node7', await freePort(), place('loner'), [
        '--bootstrap',
        '--shard-count',
        '4',
      ])
      loner.start()
      await eventually('it is a cluster of its own', refusalMsMax, () => client.status(loner.address))
      await loner.stop()
      loner.flags = seed
      const stranger = await refusal(loner)
      assert.equal(stranger.code, 'WRONG_CLUSTER')

      three.start()
      await cluster.settled()

      // The volume is lost: the name alone is not enough to come back under, not even for the node that once made the
      // cluster, and it makes no second one.
      await one.kill()
      rmSync(one.dataDir, { recursive: true })
      one.flags = [...one.flags, '--seed', `${cluster.node(2).address},${three.address}`]
      const lost = await refusal(one)
      assert.equal(lost.code, 'STORE_MISMATCH')
      assert.match(lost.msg, /node node1 is registered with store .* its volume was lost/)

      const found = await client.read(anyNode, { command: 'GET', key: 'k' }, soon())
      assert.equal(textOf(found), 'v')
    })
  })
})

describe('a node in trouble', () => {
  it('lives through garbage on its port, requests that are wrong, and a client that leaves', async () => {
    await Cluster.with({ nodes: 1, shardCount: 4 }, async cluster => {
      const { client } = cluster
      const { port, address } = cluster.node(1)
      const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
      const garbage = [
        randomBytes(100_000),
        Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
        Buffer.from('*1\r\n$4\r\nPING\r\n'),
        Buffer.from('1603010200010001fc0303', 'hex'),
        Buffer.concat([preface, randomBytes(50_000)]),
        Buffer.concat([preface, Buffer.from('ffffff00000000000000', 'hex'), Buffer.alloc(100_000)]),
        preface.subarray(0, 5),
      ]
      await Promise.all(garbage.flatMap(bytes => [send(port, bytes), send(port, bytes)]))

      const wrong: [string, { command: string; key?: string; args?: string[] }][] = [
        ['UNKNOWN_COMMAND', { command: 'NOSUCH', key: 'k' }],
        ['INVALID_ARGUMENT', { command: '', key: 'k' }],
        ['EMPTY_KEY', { command: 'GET' }],
        ['WRONG_ARITY', { command: 'GET', key: 'k', args: ['more'] }],
        ['WRONG_ARITY', { command: 'SET', key: 'k' }],
        ['SYNTAX', { command: 'SET', key: 'k', args: ['v', 'NOSUCH'] }],
        ['NOT_INTEGER', { command: 'INCRBY', key: 'n', args: ['one'] }],
        ['INVALID_EXPIRE', { command: 'SET', key: 'k', args: ['v', 'EX', '0'] }],
        ['TOO_LARGE', { command: 'SET', key: 'x'.repeat(1_025), args: ['v'] }],
        ['TOO_LARGE', { command: 'SET', key: 'k', args: ['x'.repeat(2 ** 20 + 1)] }],
        ['WRONG_TYPE', { command: 'INCR', key: 'hash' }],
      ]
      await client.run(address, { command: 'HSET', key: 'hash', args: ['f', 'v'] })
      for (const [code, command] of wrong) await assert.rejects(client.run(address, command), { code })
      const short = { command: 'SET', key: 'k', args: ['v'], session: randomBytes(5), sequence: 1 }
      await assert.rejects(client.run(address, short), { code: 'INVALID_ARGUMENT' })

      const stream = client.stream(address)
      stream.on('error', () => {})
      for (let i = 0; i < 100; i++) stream.write({ command: 'INCR', key: 'left', args: [] } as never)
      stream.cancel()

      await client.session().write(() => address, { command: 'SET', key: 'k', args: ['v'] }, soon())
      assert.equal(textOf(await client.run(address, { command: 'GET', key: 'k' })), 'v')
      assert.ok(cluster.node(1).isRunning)
      assert.doesNotMatch(cluster.node(1).output, /"level":"error"|Warning/)
    })
  })

  it('refuses what is too much while its followers do not answer, and takes it when they do', async t => {
    // Elections wait, so that the leader stays one for as long as this takes.
    const flags = ['--heartbeat-interval', '200ms', '--raft-election-timeout', '600']
    await Cluster.with({ shardCount: 1, flags }, async cluster => {
      const { client } = cluster
      const leader = await cluster.busiestLeader()
      const followers = cluster.nodes.filter(node => node !== leader)
      for (const follower of followers) follower.freeze()
      const value = 'x'.repeat(2 ** 19)
      const outcomes = await Promise.all(
        Array.from({ length: 100 }, async (_, i) => {
          try {
            await client.run(leader.address, { command: 'SET', key: `big${i}`, args: [value] }, 15_000)
            return 'done'
          } catch (error) {
            return (error as { kind: string }).kind
          }
        }),
      )
      const count = (kind: string) => outcomes.filter(each => each === kind).length
      t.diagnostic(
        `of 100 writes of 512 KiB ${count('exhausted')} refused, ${count('outcome_unknown')} unknown`,
      )
      assert.equal(count('done'), 0)
      // 16 MiB may wait to be committed, no more; a slow machine does not come to ask for all of it in time.
      assert.ok(count('exhausted') >= 30, outcomes.join(' '))
      assert.equal(count('exhausted') + count('outcome_unknown'), 100)
      const { rssBytes } = await client.stats(leader.address)
      assert.ok(Number(rssBytes) < 2 ** 30, `${rssBytes} bytes of memory`)
      for (const follower of followers) follower.resume()
      const session = client.session()
      for (let i = 0; i < 10; i++) {
        const command = { command: 'SET', key: `big${i}`, args: [value] }
        await eventually('there is room again', 20_000, () => session.write(cluster.anyNode, command, soon()))
      }
      await cluster.settled()
      assert.equal(textOf(await client.run(cluster.anyNode(), { command: 'GET', key: 'big9' })), value)
      assert.ok(cluster.nodes.every(node => node.isRunning))
    })
  })
})
