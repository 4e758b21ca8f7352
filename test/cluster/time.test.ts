import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Cluster, eventually, fastFlags } from '../lib/cluster-harness.ts'
import { Load, numberOf, textOf } from '../lib/cluster-load.ts'
import { scale } from '../lib/scale.ts'

/** How far a TTL may be off, ms. What a call takes on a busy machine comes on top, measured for each call. */
const ttlErrorMsMax = 100
const soon = () => Date.now() + 20_000
const frozenMs = scale(5_000, 60_000)
const keysPerClient = scale(12, 1_600)

describe('three nodes', () => {
  const shared = Cluster.shared({
    shardCount: scale(32, 64),
    flags: [...fastFlags, '--cleanup-interval', '300ms'],
  })

  it(
    'agree on what is left of a life to a tenth of a second, and route every key of 64 clients',
    shared(async (cluster, t) => {
      const { client, anyNode } = cluster
      const calls = { ttl: 0, routed: 0, refused: 0 }

      const mortal = async (key: string, lifeMs: number) => {
        const sentMs = Date.now()
        await client.session().write(anyNode, { command: 'SET', key, args: ['v', 'PX', `${lifeMs}`] }, soon())
        const ackedMs = Date.now()
        // Its end lies between these two.
        const earliestMs = sentMs + lifeMs
        const latestMs = ackedMs + lifeMs
        for (let isOver = false; !isOver; ) {
          const beforeMs = Date.now()
          const left = numberOf(await client.read(anyNode, { command: 'PTTL', key }, soon()))
          const betweenMs = Date.now()
          const value = textOf(await client.read(anyNode, { command: 'GET', key }, soon()))
          const afterMs = Date.now()
          calls.ttl += 2
          if (left === -2)
            assert.ok(betweenMs > earliestMs - ttlErrorMsMax, `gone ${earliestMs - betweenMs} ms too early`)
          else {
            assert.ok(left >= earliestMs - betweenMs - ttlErrorMsMax, `${left} ms left: too few`)
            assert.ok(left <= latestMs - beforeMs + ttlErrorMsMax, `${left} ms left: too many`)
          }
          if (value === null)
            assert.ok(afterMs > earliestMs - ttlErrorMsMax, `gone ${earliestMs - afterMs} ms too early`)
          else {
            assert.equal(value, 'v')
            assert.ok(betweenMs < latestMs + ttlErrorMsMax, `still there ${betweenMs - latestMs} ms too late`)
          }
          isOver = beforeMs > latestMs + ttlErrorMsMax
          await new Promise(resolve => setTimeout(resolve, 20))
        }
      }

      const owner = async (name: number) => {
        const session = client.session()
        for (let i = 0; i < keysPerClient; i++) {
          const key = `client${name}:${i}`
          await session.write(anyNode, { command: 'SET', key, args: [`of ${key}`] }, soon())
          const found = await client.read(anyNode, { command: 'GET', key }, soon())
          assert.equal(textOf(found), `of ${key}`)
          calls.routed += 2
        }
      }

      await Promise.all(Array.from({ length: 64 }, (_, name) => owner(name)))
      await Promise.all(Array.from({ length: 12 }, (_, i) => mortal(`mortal${i}`, 400 + i * 60)))
      await eventually('the expired are swept', 10_000, async () => {
        assert.equal(numberOf(await client.run(anyNode(), { command: 'DBSIZE' })), 64 * keysPerClient)
        return true
      })

      // A client that asked not to be forwarded is told where to go, and the place is right.
      for (let i = 0; i < 100; i++) {
        const key = `client${i % 64}:${i % keysPerClient}`
        const command = { command: 'GET', key, noForward: true }
        try {
          assert.equal(textOf(await client.run(anyNode(), command)), `of ${key}`)
        } catch (error) {
          const { code, leaderAddress } = error as { code: string; leaderAddress: string }
          assert.equal(code, 'NOT_LEADER')
          assert.equal(textOf(await client.run(leaderAddress, command)), `of ${key}`)
          calls.refused += 1
        }
      }
      assert.ok(calls.refused > 20)
      t.diagnostic(JSON.stringify(calls))
    }),
  )

  it(
    'serve nothing stale when the one that led most shards was frozen, and it comes back by itself',
    shared(async (cluster, t) => {
      const load = new Load(cluster.client, {
        ...{ prefix: 'freeze', keys: 600, writers: 8, readers: 8, counters: 4, incrementers: 4 },
        pick: cluster.anyNode,
      })
      await load.fill()
      load.start()
      await load.writesMore(50)
      const frozen = await cluster.busiestLeader()
      frozen.freeze()
      // The others elect their leaders and go on: what the frozen node knows becomes old.
      const frozenAtMs = Date.now()
      await load.writesMore(600)
      while (Date.now() < frozenAtMs + frozenMs) await load.writesMore(100)
      t.diagnostic(`frozen for ${Date.now() - frozenAtMs} ms`)
      // These lie in its sockets when it wakes up and still takes itself for the leader.
      const waiting = Array.from({ length: 200 }, (_, i) =>
        load.read((i * 3) % load.keys, () => frozen.address),
      )
      await load.writesMore(100)
      frozen.resume()
      const resumedMs = Date.now()
      await Promise.all(waiting)
      await Promise.all(Array.from({ length: 600 }, (_, key) => load.read(key, () => frozen.address)))
      t.diagnostic(`800 reads through the node within ${Date.now() - resumedMs} ms of its awakening`)
      await cluster.settled()
      t.diagnostic(`all in place again ${Date.now() - resumedMs} ms after its awakening`)
      await load.stop()
      await load.verify(cluster.nodes.map(node => node.address))
      assert.deepEqual(load.violations, [])
      t.diagnostic(JSON.stringify(load.counts))
    }),
  )
})
