import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { describe, it } from 'node:test'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { Load, textOf } from '../lib/cluster-load.ts'
import { programPath } from '../lib/cluster-program.ts'

const soon = () => Date.now() + 20_000
const patienceMs = 90_000

/** Runs a verb of the program; the answer is its exit code and what it printed. */
async function cli(...args: readonly string[]): Promise<{ code: number | null; text: string }> {
  const child = spawn(process.execPath, [programPath(), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
  const code = await new Promise<number | null>(resolve => child.once('close', resolve))
  return { code, text }
}

describe('of three nodes', () => {
  const shared = Cluster.shared({ flags: ['--heartbeat-interval', '200ms'] })

  it(
    'one whose directory is lost is rebuilt under its name by replace, and nothing that was acknowledged is missing',
    shared(async cluster => {
      const load = new Load(cluster.client, {
        ...{ prefix: 'lost', keys: 400, writers: 6, readers: 6 },
        pick: cluster.anyNode,
      })
      await load.fill()
      load.start()
      const [one, two] = [cluster.node(1), cluster.node(2)]
      const early = await cli('replace', two.id, two.id, '--node', one.address)
      assert.equal(early.code, 1, early.text)
      assert.match(early.text, /node2 can't be replaced: it is not dead/)
      await two.kill()
      rmSync(two.dataDir, { recursive: true })
      await eventually('node2 is dead', patienceMs, async () => {
        const { nodes } = await cluster.status(one)
        return nodes.some(node => node.nodeId === two.id && node.state === 'dead')
      })
      const replaced = cli('replace', two.id, two.id, '--node', one.address)
      two.flags = [...two.flags, '--seed', one.address]
      // Until it is given up its name is taken: the node says so and ends.
      await eventually('node2 is let in again', patienceMs, async () => {
        two.start()
        const isIn = async () => {
          const { nodes } = await cluster.status(one)
          return nodes.some(node => node.nodeId === two.id && node.state === 'alive')
        }
        return await eventually('it is in or gone', 30_000, async () => {
          const ended = await Promise.race([two.ended, Promise.resolve(null)])
          return ended === null ? await isIn() : 'gone'
        }).then(how => how === true)
      })
      const { code, text } = await replaced
      assert.equal(code, 0, text)
      assert.match(text, /balanced: nothing to move/)
      await cluster.settled(patienceMs)
      await load.stop()
      await load.verify(cluster.nodes.map(node => node.address))
      assert.deepEqual(load.violations, [])
    }),
  )

  it(
    'a machine that is lost is replaced by one of another name, which takes over what it held; nothing acknowledged is missing',
    shared(async cluster => {
      const { client } = cluster
      const session = client.session()
      const [one, two] = [cluster.node(1), cluster.node(2)]
      for (let i = 0; i < 50; i++)
        await session.write(cluster.anyNode, { command: 'SET', key: `k${i}`, args: [`v${i}`] }, soon())
      await two.kill()
      rmSync(two.dataDir, { recursive: true })
      const four = await cluster.add()
      four.start()
      const stateOf = async (id: string) => {
        const { nodes } = await cluster.status(one)
        return nodes.find(node => node.nodeId === id)?.state ?? null
      }
      await eventually('node2 is dead and node4 a member', patienceMs, async () => {
        return (await stateOf(two.id)) === 'dead' && (await stateOf(four.id)) === 'alive'
      })
      const unknown = await cli('replace', two.id, 'node9', '--node', one.address)
      assert.equal(unknown.code, 1, unknown.text)
      assert.match(unknown.text, /node9/)
      const { code, text } = await cli('replace', two.id, four.id, '--node', one.address)
      assert.equal(code, 0, text)
      const { shards, nodes } = await cluster.settled(patienceMs)
      assert.deepEqual(nodes.map(node => node.nodeId).sort(), ['node1', 'node3', 'node4'])
      for (const { shardId, voters } of shards)
        assert.deepEqual([...voters].sort(), ['node1', 'node3', 'node4'], `shard ${shardId}`)
      for (let i = 0; i < 50; i++) {
        const found = await client.read(() => four.address, { command: 'GET', key: `k${i}` }, soon())
        assert.equal(textOf(found), `v${i}`)
      }
    }),
  )

  it(
    'one that is left goes on alone after recover --unsafe, with what it had, and takes in others again',
    shared(async cluster => {
      const { client } = cluster
      const session = client.session()
      const one = cluster.node(1)
      for (let i = 0; i < 50; i++)
        await session.write(cluster.anyNode, { command: 'SET', key: `left${i}`, args: [`v${i}`] }, soon())
      await cluster.settled()
      const others = cluster.awake.filter(node => node !== one)
      await Promise.all(cluster.awake.map(node => node.kill()))
      for (const node of others) rmSync(node.dataDir, { recursive: true })

      const usage = await cli('recover', '--data-dir', one.dataDir)
      assert.equal(usage.code, 2)
      assert.match(usage.text, /--unsafe/)
      assert.match(usage.text, /--lost/)
      const stranger = await cli('recover', '--unsafe', '--data-dir', one.dataDir, '--lost', 'node9', '--yes')
      assert.equal(stranger.code, 2)
      assert.match(stranger.text, /node9 is not known here; accepted: node3, node4/)
      const done = await cli(
        'recover',
        '--unsafe',
        '--data-dir',
        one.dataDir,
        '--lost',
        'node3,node4',
        '--yes',
      )
      assert.equal(done.code, 0, done.text)
      assert.match(done.text, /becomes the only voter; lost: node3, node4/)

      one.start()
      for (let i = 0; i < 50; i++) {
        const found = await client.read(() => one.address, { command: 'GET', key: `left${i}` }, soon())
        assert.equal(textOf(found), `v${i}`)
      }
      await session.write(() => one.address, { command: 'SET', key: 'after', args: ['all'] }, soon())
      for (const node of others) {
        await eventually(`${node.id} is given up`, patienceMs, async () => {
          await client.replace(one.address, node.id, node.id)
          return true
        })
        node.flags = [...node.flags, '--seed', one.address]
        node.start()
      }
      await cluster.settled(patienceMs)
      const found = await client.read(() => cluster.node(3).address, { command: 'GET', key: 'after' }, soon())
      assert.equal(textOf(found), 'all')
    }),
  )
})
