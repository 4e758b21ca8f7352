/** What campaigns found, as short stories of their own: seeds change their meaning with every draw that is added. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { thisRelease } from '../../src/commands/release.ts'
import type { RoundhouseError } from '../../src/errors.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { metaGroup } from '../../src/node/meta-register.ts'
import { plainCall } from '../../src/node/ports.ts'
import { nextCommand, nextRelease } from './releases.ts'
import { SimCluster, type SimMachine } from './sim-cluster.ts'
import type { World } from './world.ts'

describe('a rolling upgrade', () => {
  const write = (machine: SimMachine) =>
    machine.node!.execute(plainCall(nextCommand, [fromUtf8('n')], 2_000)).then(
      () => null,
      (error: RoundhouseError) => error,
    )
  /** What a call ends with, once simulated time has passed. */
  async function outcome<T>(world: World, call: Promise<T>): Promise<T> {
    let result: { readonly value: T } | null = null
    void call.then(value => {
      result = { value }
    })
    assert.ok(await world.run(world.nowMs + 10_000, () => result !== null), 'no answer')
    return (result as unknown as { readonly value: T }).value
  }

  it('lets the new command through when the last node is new, and no older node in again', async () => {
    const cluster = new SimCluster(7, { isWatched: true })
    const { world, machines, invariants } = cluster
    assert.ok(await cluster.boot(3))
    const upgrade = async (machine: SimMachine) => {
      machine.crash()
      machine.release = nextRelease
      void machine.start()
      const isBack = () => machine.node?.isServing() === true && cluster.isSettled(3)
      assert.ok(await world.run(world.nowMs + 30_000, isBack), `${machine.nodeId} does not come back`)
      await world.run(world.nowMs + 3_000)
    }
    const [now, next] = [thisRelease.level, nextRelease.level]
    const [first, second, third] = machines as [SimMachine, SimMachine, SimMachine]
    await upgrade(second)
    await upgrade(third)
    const early = await outcome(world, write(third))
    assert.ok(
      String(early?.message).endsWith(
        `feature level ${next}, this cluster is at ${now}: upgrade node1 (${now})`,
      ),
      early?.message,
    )
    await upgrade(first)
    assert.equal(await outcome(world, write(third)), null)
    assert.deepEqual([cluster.level, second.node?.status().level], [next, next])

    // A joiner is told at once; a member that is set back when it hears how far the others are.
    const ended = async (machine: SimMachine) => {
      let why: string | null = null
      machine.start({ seeds: [second.address] }).catch((error: Error) => {
        why = error.message
      })
      const isOver = () => (why ?? machine.ended) !== null
      assert.ok(await world.run(world.nowMs + 20_000, isOver), `${machine.nodeId} runs`)
      return why ?? machine.ended!
    }
    const joiner = cluster.add()
    const isTooOld = `supports feature level ${now}, this cluster is at ${next}`
    assert.ok((await ended(joiner)).includes(`the release of node node4 ${isTooOld}`))
    joiner.crash()
    first.crash()
    first.release = thisRelease
    first.mayMisread = true
    assert.ok((await ended(first)).includes(`the release of node node1 supports feature level ${now}`))
    first.crash()
    first.release = nextRelease
    void first.start()
    assert.ok(await world.run(world.nowMs + 60_000, () => cluster.isSettled(3)), 'not settled')
    assert.deepEqual([...cluster.violations, ...invariants!.violations], [])
  })
})

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

  it('gives up what it had begun for a node that leaves before it has come', async () => {
    const cluster = new SimCluster(189, { isWatched: true })
    const { world, network } = cluster
    assert.ok(await cluster.boot(3))
    const [first] = cluster.machines
    const joiner = cluster.add()
    void joiner.start({ seeds: [first!.address] }).catch(() => {})
    const isNamed = () =>
      first!
        .node!.controller.register!.shards.get(metaGroup)!
        .operation?.learners.some(member => member.node === joiner.nodeId)
    assert.ok(await world.run(world.nowMs + 10_000, () => isNamed() === true), 'it was not registered')
    network.isolate(joiner.address)
    let hasLeft = false
    void first!.node!.leave(joiner.nodeId, false).then(() => {
      hasLeft = true
    })
    assert.ok(await world.run(world.nowMs + 10_000, () => hasLeft), 'it could not be let go')
    const isClosed = () => first!.node!.controller.register!.shards.get(metaGroup)!.operation === null
    assert.ok(await world.run(world.nowMs + 30_000, isClosed), 'the operation stays open')
    assert.ok(await world.run(world.nowMs + 30_000, () => cluster.isSettled(3)), 'not settled')
    assert.deepEqual([...cluster.violations, ...cluster.invariants!.violations], [])
  })

  it('finds a node again that comes back at another address, as a voter of the meta shard or not', async () => {
    for (const isLearner of [false, true]) {
      const cluster = new SimCluster(5, { shardCount: 2, isWatched: true })
      const { world, machines } = cluster
      assert.ok(await cluster.boot(6))
      const replicaOf = ({ node }: SimMachine) => node!.host.group(metaGroup)!
      const learns = (machine: SimMachine) => {
        const { configuration, id } = replicaOf(machine)
        return configuration.confState.learners.includes(id)
      }
      const mover = machines.find(each => learns(each) === isLearner && !replicaOf(each).isLeader)!
      mover.crash()
      await world.run(world.nowMs + 8_000)
      mover.moveTo(`${mover.nodeId}:2`)
      void mover.start()
      const isKnown = () =>
        machines.every(
          ({ node }) => node?.addressOf(mover.nodeId) === mover.address || node?.nodeId === mover.nodeId,
        )
      assert.ok(
        await world.run(world.nowMs + 30_000, isKnown),
        `isLearner ${isLearner}: it is looked for where it was`,
      )
      assert.ok(await world.run(world.nowMs + 60_000, () => cluster.isSettled(6)), 'not settled')
      assert.deepEqual([...cluster.violations, ...cluster.invariants!.violations], [])
    }
  })

  it('takes a node for dead though another one answers where it was', async () => {
    const cluster = new SimCluster(5, { shardCount: 1 })
    const { world } = cluster
    assert.ok(await cluster.boot(3))
    const [first, second, gone] = cluster.machines
    const { address } = gone!
    gone!.crash()
    second!.crash()
    second!.moveTo(address)
    void second!.start()
    const isDead = () => first!.node!.detector.view.member(gone!.nodeId)?.state === 'dead'
    assert.ok(
      await world.run(world.nowMs + 60_000, isDead),
      first!.node!.detector.view.member(gone!.nodeId)?.state,
    )
  })

  it('comes together again when one was away while another joined and took the lead', async () => {
    const cluster = new SimCluster(654, { isWatched: true })
    const { world } = cluster
    assert.ok(await cluster.boot(4))
    const [first, , away] = cluster.machines
    away!.crash()
    const fifth = cluster.add()
    void fifth.start({ seeds: [first!.address] })
    const leads = ({ node }: SimMachine) => node?.host.group(metaGroup)?.isLeader === true
    for (let tries = 0; tries < 60 && !leads(fifth); tries++) {
      await world.run(world.nowMs + 1_000)
      cluster.machines.find(leads)?.node?.controller.transfer(metaGroup, fifth.nodeId)
    }
    assert.ok(leads(fifth), 'the new one does not lead')
    void away!.start()
    const hasHeard = () =>
      away!.node!.controller.register?.nodes.some(({ nodeId }) => nodeId === fifth.nodeId) === true
    assert.ok(await world.run(world.nowMs + 20_000, hasHeard), 'it never hears of the new one')
    assert.ok(await world.run(world.nowMs + 60_000, () => cluster.isSettled(5)), 'not settled')
    assert.deepEqual([...cluster.violations, ...cluster.invariants!.violations], [])
  })

  it('gives a node another replica of the meta shard when its own is found broken before the register was read', async () => {
    const cluster = new SimCluster(265, { isWatched: true, hostLimits: { entriesBetweenCheckpointsMax: 1 } })
    const { world, invariants } = cluster
    assert.ok(await cluster.boot(3))
    const third = cluster.machines[2]!
    const meta = () => third.node?.host.group(metaGroup)
    await world.run(world.nowMs + 2_000)
    const broken = meta()!.id
    assert.ok(await world.run(world.nowMs + 5_000, () => (meta()!.state.checkpointed?.index ?? 0) > 1))
    third.crash()
    third.rotRows(broken)
    void third.start().catch(() => {})
    assert.ok(await world.run(world.nowMs + 30_000, () => third.node!.isServing()), 'it never serves again')
    assert.notEqual(meta()?.id, broken)
    assert.ok(await world.run(world.nowMs + 60_000, () => cluster.isSettled(3)), 'not settled')
    assert.deepEqual([...cluster.violations, ...invariants!.violations], [])
  })
})
