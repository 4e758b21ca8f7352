import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import { requestOf } from '../lib/cluster-client.ts'
import { Cluster, fastFlags } from '../lib/cluster-harness.ts'
import { Load, numberOf, textOf } from '../lib/cluster-load.ts'

const soon = () => Date.now() + 20_000

describe('three nodes', () => {
  // Time enough for each call of a pipeline: what is looked at is their order.
  const shared = Cluster.shared({ flags: [...fastFlags, '--message-timeout', '60s'] })

  it(
    'are one store through every node, and apply a write once however often it is sent',
    shared(async ({ client, nodes, status }) => {
      const addresses = nodes.map(node => node.address)
      const session = client.session()
      for (const [i, through] of addresses.entries()) {
        await session.write(() => through, { command: 'SET', key: `key${i}`, args: [`value${i}`] }, soon())
        for (const address of addresses) {
          const found = await client.run(address, { command: 'GET', key: `key${i}` })
          assert.equal(textOf(found), `value${i}`)
          assert.equal((await client.run(address, { command: 'GET', key: `no${i}` })).response, undefined)
        }
      }

      // Over all shards: scattered, gathered in request order, the missing one a hole.
      const pairs = Array.from({ length: 50 }, (_, i) => [`m${i}`, `${i * i}`])
      await client.run(addresses[1]!, { command: 'MSET', key: pairs[0]![0]!, args: pairs.flat().slice(1) })
      const keys = [...pairs.map(([key]) => key!), 'never written']
      const gathered = await client.run(addresses[2]!, {
        command: 'MGET',
        key: keys[0]!,
        args: keys.slice(1),
      })
      assert.ok(gathered.response?.$case === 'list')
      assert.deepEqual(
        gathered.response.value.list.map(each => each.value?.toString()),
        [...pairs.map(([, value]) => value), undefined],
      )
      assert.equal(numberOf(await client.run(addresses[0]!, { command: 'DBSIZE' })), 53)

      // One sequence, sent to every node: at the same time, then again.
      const once = { command: 'INCR', key: 'once', session: client.session().id, sequence: 1 }
      const together = await Promise.all(
        [...addresses, ...addresses].map(address => client.run(address, once)),
      )
      assert.deepEqual(together.map(numberOf), [1, 1, 1, 1, 1, 1])
      for (const address of addresses) assert.equal(numberOf(await client.run(address, once)), 1)
      assert.equal(numberOf(await client.run(addresses[2]!, { ...once, sequence: 2, ackedBelow: 2 })), 2)
      await assert.rejects(client.run(addresses[0]!, once), { code: 'SESSION_STALE' })

      for (const node of nodes) {
        const { shards, nodes: members } = await client.status(node.address)
        assert.equal(
          members.reduce((sum, each) => sum + each.leaders, 0),
          shards.length,
        )
        for (const each of members) assert.equal(each.replicas, shards.length)
        for (const shard of shards) assert.deepEqual([...shard.voters].sort(), ['node1', 'node2', 'node3'])
      }
      assert.ok(status !== undefined)
    }),
  )

  it(
    'answer a pipeline in its order, errors in their place',
    shared(async cluster => {
      const stream = cluster.client.stream(cluster.node(2).address)
      const answers: CommandResponse[] = []
      const ended = new Promise((resolve, reject) => {
        stream
          .on('data', answer => answers.push(answer))
          .on('end', resolve)
          .on('error', reject)
      })
      const count = 300
      for (let i = 0; i < count; i++) {
        stream.write({ ...requestOf(pipelined(i)), id: BigInt(i) })
      }
      stream.end()
      await ended
      assert.equal(answers.length, count)
      const counts = new Map<string, number>()
      for (const [i, answer] of answers.entries()) {
        const { command, key } = pipelined(i)
        assert.equal(answer.id, BigInt(i))
        if (command === 'HSET') {
          assert.equal(answer.code, 'WRONG_TYPE')
          continue
        }
        // Every command sees what those before it have done, reads too.
        if (command === 'INCR') counts.set(key, (counts.get(key) ?? 0) + 1)
        assert.equal(numberOf(answer), counts.get(key), `answer ${i}, ${command} ${key}`)
      }
    }),
  )
})

describe('three nodes that crash', () => {
  it('keep every acknowledged write, and none twice, when all are killed at any moment', async t => {
    await Cluster.with({ flags: [...fastFlags] }, async cluster => {
      const load = new Load(cluster.client, {
        ...{ prefix: 'crash', keys: 500, writers: 16, readers: 4, counters: 8, incrementers: 16 },
        pick: cluster.anyNode,
      })
      load.start()
      for (let round = 0; round < 2; round++) {
        await load.writesMore(200 + Math.floor(Math.random() * 400))
        await Promise.all(cluster.nodes.map(node => node.kill()))
        for (const node of cluster.nodes) node.start()
        const startedMs = Date.now()
        await load.writesMore(50)
        t.diagnostic(`all killed, all started: ${Date.now() - startedMs} ms until 50 writes were through`)
      }
      await load.stop()
      await cluster.settled()
      await load.verify(cluster.nodes.map(node => node.address))
      assert.deepEqual(load.violations, [])
      assert.ok(load.counts.retried > 0, 'no write was under way when the nodes were killed')
      t.diagnostic(JSON.stringify(load.counts))
    })
  })
})

/** INCR twenty keys; then GET each, and something that none of them takes; and so on. */
function pipelined(i: number): { command: string; key: string; args?: string[] } {
  const key = `p${i % 20}`
  const round = Math.floor(i / 20) % 3
  if (round === 2) return { command: 'HSET', key, args: ['f', 'v'] }
  return { command: round === 0 ? 'INCR' : 'GET', key }
}
