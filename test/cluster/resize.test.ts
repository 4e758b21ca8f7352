import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { StatusResponse } from '../../src/gen/roundhouse/v1/admin.ts'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { Load } from '../lib/cluster-load.ts'
import { scale } from '../lib/scale.ts'

const shardCount = scale(16, 64)
const replicas = 3 * shardCount
const keys = scale(1_000, 200_000)
const balanceMs = scale(90_000, 900_000)
/** DESIGN §2: a join moves at most this times the least that it could. */
const moveFactorMax = 1.15

/** At or below max(⌈mean⌉, ⌊1.10 × mean⌋), for replicas and for leaders. */
function assertWithinBounds({ nodes, shards }: StatusResponse): void {
  const bound = (total: number) => {
    const mean = total / nodes.length
    return Math.max(Math.ceil(mean), Math.floor(1.1 * mean))
  }
  const count = nodes.map(({ nodeId }) => ({
    replicas: shards.filter(({ voters, learners }) => [...voters, ...learners].includes(nodeId)).length,
    leaders: shards.filter(({ leader }) => leader === nodeId).length,
  }))
  assert.equal(
    count.reduce((sum, each) => sum + each.replicas, 0),
    replicas,
  )
  for (const each of count) {
    assert.ok(each.replicas <= bound(replicas), `${each.replicas} replicas on a node`)
    assert.ok(each.leaders <= bound(shardCount), `${each.leaders} leaders on a node`)
  }
}

/** Replicas that are where the shard had none before. */
function moved(before: StatusResponse, after: StatusResponse): number {
  return after.shards.reduce((sum, { voters, learners }, shard) => {
    const old = before.shards[shard]!
    return sum + [...voters, ...learners].filter(id => ![...old.voters, ...old.learners].includes(id)).length
  }, 0)
}

/** Waits for shards and leaders to be where they should; the answer is how it stands then. */
async function balanced(cluster: Cluster): Promise<StatusResponse> {
  await cluster.settled(balanceMs)
  return await eventually('leaders are within their bound', 30_000, async () => {
    const status = await cluster.settled(10_000)
    assertWithinBounds(status)
    return status
  })
}

describe('a cluster under load', () => {
  it('takes in a fourth node and lets an old one go, and no reader ever misses a key', async (t: TestContext) => {
    await Cluster.with({ shardCount }, async cluster => {
      const load = new Load(cluster.client, {
        ...{
          prefix: 'resize',
          keys,
          writers: 12,
          readers: 12,
          counters: 8,
          incrementers: 8,
          valueBytes: 100,
        },
        pick: cluster.anyNode,
      })
      await load.fill()
      t.diagnostic(`${keys} keys`)
      const three = await balanced(cluster)
      load.start()
      await load.writesMore(100)

      const joiner = (await cluster.add()).start()
      const joinedMs = Date.now()
      const four = await balanced(cluster)
      const took = moved(three, four)
      const least = Math.floor(replicas / 4)
      t.diagnostic(
        `joined in ${Date.now() - joinedMs} ms: ${took} replicas moved, ${least} would be the least`,
      )
      assert.ok(took >= least * 0.9, `${took} replicas moved`)
      assert.ok(took <= least * moveFactorMax, `${took} replicas moved, ${least} would have done`)
      await load.writesMore(200)

      const leaver = cluster.node(2)
      const held = four.nodes.find(node => node.nodeId === leaver.id)!.replicas
      const leftMs = Date.now()
      await cluster.client.leave(joiner.address, leaver.id)
      const exit = await eventually('the process that leaves has ended', balanceMs, () =>
        Promise.race([leaver.ended, Promise.resolve(null)]),
      )
      assert.deepEqual(exit, { code: 0, signal: null })
      const after = await balanced(cluster)
      t.diagnostic(`left in ${Date.now() - leftMs} ms: ${moved(four, after)} replicas moved, it held ${held}`)
      assert.ok(
        moved(four, after) <= held * moveFactorMax,
        `${moved(four, after)} replicas moved, ${held} would have done`,
      )
      assert.deepEqual(after.nodes.map(node => node.nodeId).sort(), ['node1', 'node3', 'node4'])
      await load.writesMore(200)
      await load.stop()
      await load.verify(cluster.awake.map(node => node.address))
      assert.deepEqual(load.violations, [])
      t.diagnostic(JSON.stringify(load.counts))
    })
  })
})
