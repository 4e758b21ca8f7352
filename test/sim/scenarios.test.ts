/** What campaigns found, as short stories of their own: seeds change their meaning with every draw that is added. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SimCluster } from './sim-cluster.ts'

describe('a simulated cluster', () => {
  for (const seed of [3, 8, 12])
    it(`never makes a replica again that it has destroyed, by an old copy of the register (seed ${seed})`, async () => {
      const cluster = new SimCluster(seed, { shardCount: 4, isWatched: true })
      const { world, network } = cluster
      const invariants = cluster.invariants!
      const first = cluster.add()
      void first.start({ isBootstrap: true })
      for (let i = 0; i < 4; i++) void cluster.add().start({ seeds: [first.address] })
      // A founder of a shard: by its birth it would be the only voter of an empty shard.
      const founder = () =>
        [...invariants.ledgers.values()].find(
          ({ node, isRemoved, group }) => node === first.nodeId && isRemoved && group !== null,
        )
      assert.ok(await world.run(60_000, () => founder() !== undefined), 'no replica moved')
      const { id } = founder()!
      first.crash()
      network.isolate(first.address)
      await world.run(world.nowMs + 1_000)
      void first.start()
      await world.run(world.nowMs + 10_000, () => first.node?.host.knows(id) === true)
      assert.equal(first.node?.host.knows(id), false)
      network.heal()
      assert.ok(await world.run(world.nowMs + 60_000, () => cluster.isSettled(5)), 'not settled')
      assert.deepEqual([...cluster.violations, ...invariants.violations], [])
    })
})
