import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Cluster, eventually } from '../lib/cluster-harness.ts'
import { Load } from '../lib/cluster-load.ts'

/** A stopping node hands over and ends within this, on a quiet machine; tests don't assert times, they tell them. */
const stopMsPromised = 8_000
const stopMsMax = 20_000

describe('a rolling restart', () => {
  it('fails no call, and leaves leadership spread as it was', async t => {
    await Cluster.with({ shardCount: 32, flags: [] }, async cluster => {
      const load = new Load(cluster.client, {
        ...{ prefix: 'rolling', keys: 300, writers: 8, readers: 8, counters: 4, incrementers: 4 },
        pick: cluster.anyNode,
      })
      load.start()
      await load.writesMore(100)
      for (const node of cluster.nodes) {
        const stoppedMs = Date.now()
        // While it stops it is still asked: its answer is a definite refusal, and the client goes elsewhere.
        assert.deepEqual(await node.stop(), { code: 0, signal: null })
        const tookMs = Date.now() - stoppedMs
        t.diagnostic(`${node.id} handed over and ended in ${tookMs} ms (promised: ${stopMsPromised})`)
        assert.ok(tookMs < stopMsMax)
        await load.writesMore(100)
        node.start()
        await cluster.settled()
      }
      await load.writesMore(100)
      await load.stop()
      await load.verify(cluster.nodes.map(node => node.address))
      assert.deepEqual(load.violations, [])
      t.diagnostic(JSON.stringify(load.counts))
      await eventually('leaders are spread', 30_000, async () => {
        const { nodes } = await cluster.status(cluster.node(1))
        return nodes.every(node => node.leaders >= 9 && node.leaders <= 12)
      })
    })
  })
})
