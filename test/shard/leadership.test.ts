import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { commands } from '../../src/commands/table.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Settled } from '../../src/shard/proposal.ts'
import { defaultRaftSettings, type Replica } from '../../src/shard/replica.ts'
import { SimCluster, type SimMachine } from '../sim/sim-cluster.ts'

/** A cluster of three with one shard, whose replicas a test talks to directly. */
async function three(seed: number): Promise<SimCluster> {
  const cluster = new SimCluster(seed, { shardCount: 1 })
  assert.ok(await cluster.boot(3), JSON.stringify(cluster.describe()))
  return cluster
}

const replicaOf = (machine: SimMachine): Replica => machine.node!.host.group(0)!
const run = (cluster: SimCluster, ms: number, isDone?: () => boolean) =>
  cluster.world.run(cluster.world.nowMs + ms, isDone)

/** Who leads the shard in the highest term that anybody knows. */
function leaderOf({ machines }: SimCluster): SimMachine | undefined {
  const running = machines.filter(machine => machine.node?.host.group(0) !== undefined)
  const term = Math.max(...running.map(machine => replicaOf(machine).raft.term))
  return running.find(machine => replicaOf(machine).isLeader && replicaOf(machine).raft.term === term)
}

async function newLeader(cluster: SimCluster, not: SimMachine): Promise<SimMachine> {
  const changed = () => leaderOf(cluster) !== undefined && leaderOf(cluster) !== not
  assert.ok(await run(cluster, 20_000, changed), 'nobody else is elected')
  return leaderOf(cluster)!
}

const outcome = (settled: Settled) =>
  settled.ok ? 'done' : settled.isDefinite ? 'refused' : (settled.error as { code?: string }).code

/** Proposes SET key value; the list gets every outcome that its caller is told. */
function put(machine: SimMachine, key: string, value = 'v'): Settled[] {
  const told: Settled[] = []
  replicaOf(machine).enqueueWrite({
    operations: [{ command: 'SET', args: [fromUtf8(key), fromUtf8(value)] }],
    session: null,
    deadline: machine.clock.now() + 5_000,
    settle: result => void told.push(result),
  })
  machine.node!.host.touch(replicaOf(machine))
  return told
}

function get(machine: SimMachine, key: string): Settled[] {
  const told: Settled[] = []
  replicaOf(machine).enqueueRead({
    command: commands.get('GET')!,
    args: [fromUtf8(key)],
    deadline: machine.clock.now() + 5_000,
    settle: result => void told.push(result),
  })
  machine.node!.host.touch(replicaOf(machine))
  return told
}

const textOf = (settled: Settled | undefined) => {
  const reply = settled?.ok ? settled.replies[0] : undefined
  return reply?.kind === 'value' ? Buffer.from(reply.value).toString() : (reply?.kind ?? 'no answer')
}

describe('a leader that is cut off', () => {
  it('settles each of its callers once, and none of them as done', async () => {
    const cluster = await three(3)
    const old = leaderOf(cluster)!
    cluster.network.isolate(old.address)
    const told = Array.from({ length: 6 }, (_, i) => put(old, `k${i}`))
    const next = await newLeader(cluster, old)
    assert.equal(outcome((await settledBy(cluster, put(next, 'other')))!), 'done')
    cluster.network.heal()
    await run(cluster, 10_000)
    for (const each of told) {
      assert.equal(each.length, 1)
      assert.notEqual(outcome(each[0]!), 'done')
    }
  })

  it('settles each once also when it leads again and proposes at the same indexes', async () => {
    for (const seed of [3, 4, 5]) {
      const cluster = await three(seed)
      const old = leaderOf(cluster)!
      cluster.network.isolate(old.address)
      const before = Array.from({ length: 6 }, (_, i) => put(old, `k${i}`))
      const next = await newLeader(cluster, old)
      cluster.network.heal()
      await run(cluster, 300)
      for (let i = 0; i < 20 && leaderOf(cluster) !== old; i++) {
        replicaOf(next).raft.transferLeader(replicaOf(old).id)
        next.node!.host.touch(replicaOf(next))
        await run(cluster, 200, () => leaderOf(cluster) === old)
      }
      assert.equal(leaderOf(cluster), old)
      const after = Array.from({ length: 6 }, (_, i) => put(old, `n${i}`))
      await run(cluster, 10_000)
      assert.deepEqual(
        [...before, ...after].map(each => each.length),
        Array(12).fill(1),
      )
      assert.deepEqual(
        after.map(each => outcome(each[0]!)),
        Array(6).fill('done'),
      )
      cluster.compareReplicas()
      assert.deepEqual(cluster.violations, [])
    }
  })

  it('answers no read: it can not know whether another one leads', async () => {
    const cluster = await three(6)
    const old = leaderOf(cluster)!
    await settledBy(cluster, put(old, 'k', 'old'))
    cluster.network.isolate(old.address)
    const read = get(old, 'k')
    const next = await newLeader(cluster, old)
    await settledBy(cluster, put(next, 'k', 'new'))
    await run(cluster, 6_000)
    assert.deepEqual(read.map(outcome), ['refused'])
  })

  it('says what it was told to write is unknown when nobody can tell any more', async () => {
    const cluster = await three(7)
    const old = leaderOf(cluster)!
    cluster.network.isolate(old.address)
    const told = put(old, 'k')
    await run(cluster, 6_000)
    assert.deepEqual(told.map(outcome), ['OUTCOME_UNKNOWN'])
  })
})

async function settledBy(cluster: SimCluster, told: Settled[]): Promise<Settled | undefined> {
  await run(cluster, 10_000, () => told.length > 0)
  return told[0]
}

describe('a leader that has been heard of by nobody', () => {
  it('is elected by a voter that lags behind the configuration which brought it in', async () => {
    const cluster = await three(11)
    const { network } = cluster
    const fourth = cluster.add()
    void fourth.start({ seeds: [cluster.machines[0]!.address] }).catch(() => {})
    assert.ok(await run(cluster, 60_000, () => cluster.isSettled(4)))
    const leader = leaderOf(cluster)!
    const { voters } = leader.node!.status().shards[0]!
    const spare = cluster.machines.find(machine => !voters.includes(machine.nodeId))!
    const [lagging, leaving] = cluster.machines.filter(
      machine => voters.includes(machine.nodeId) && machine !== leader,
    ) as [SimMachine, SimMachine]
    network.isolate(lagging.address)
    await run(cluster, 300)
    void leader.node!.leave(leaving.nodeId, true).catch(() => {})
    const isMoved = () => {
      const { confState, members } = replicaOf(leader).configuration
      return confState.votersOutgoing.length === 0 && !members.some(each => each.node === leaving.nodeId)
    }
    assert.ok(await run(cluster, 30_000, isMoved), 'the replica does not move')
    const knows = replicaOf(lagging).configuration.members.some(each => each.node === spare.nodeId)
    assert.equal(knows, false, 'the lagging voter has heard of the new one')
    leader.crash()
    network.heal()
    const isLed = () => [spare, lagging].some(machine => replicaOf(machine).isLeader)
    assert.ok(await run(cluster, 60_000, isLed), 'two of three voters elect nobody')
  })
})

describe('a node that stops', () => {
  it('leaves no write it took undecided, and is given nothing back', async () => {
    for (const seed of [3, 4, 5, 6]) {
      const cluster = await three(seed)
      const old = leaderOf(cluster)!
      const id = replicaOf(old).id
      const told = Array.from({ length: 4 }, (_, i) => put(old, `before${i}`))
      let isGone = false
      void old.stop().then(() => (isGone = true))
      let offered = 0
      for (let ms = 0; !isGone; ms += 10) {
        assert.ok(ms < 10_000, 'it does not stop')
        if (old.node !== null) told.push(put(old, `k${ms}`))
        const next = cluster.machines.find(machine => machine !== old && replicaOf(machine).isLeader)
        if (next !== undefined && offered++ % 5 === 0) {
          assert.ok(!replicaOf(old).isLeader || replicaOf(old).raft.term < replicaOf(next).raft.term)
          replicaOf(next).raft.transferLeader(id)
          next.node!.host.touch(replicaOf(next))
        }
        await run(cluster, 10)
      }
      assert.ok(offered > 0, 'nobody took over')
      await run(cluster, 100)
      for (const each of told) {
        assert.equal(each.length, 1)
        assert.match(outcome(each[0]!) ?? '', /^(done|refused)$/)
      }
      const others = cluster.machines.filter(machine => machine !== old)
      assert.ok(others.some(machine => replicaOf(machine).isLeader))
      assert.ok(others.every(machine => machine.node!.detector.view.member(old.nodeId)?.isStopping === true))
      old.start()
      const isBack = () =>
        others.every(machine => machine.node!.detector.view.member(old.nodeId)?.isStopping !== true)
      assert.ok(await run(cluster, 20_000, isBack), 'it passes for stopping after its start')
      assert.deepEqual(cluster.violations, [])
    }
  })
})

/** What a stale read of a key answers, or its refusal. */
function stale(machine: SimMachine, key: string): string {
  const replica = machine.node?.host.group(0)
  if (replica === undefined) return 'NOT_READY'
  try {
    const { reply } = replica.readStale(commands.get('GET')!, [fromUtf8(key)])
    return reply.kind === 'value' ? Buffer.from(reply.value).toString() : reply.kind
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe('a follower that answers', () => {
  it('counts as caught up at every moment, just after its leader counted who is there too', async () => {
    const cluster = await three(5)
    const leader = leaderOf(cluster)!
    await settledBy(cluster, put(leader, 'k'))
    await run(cluster, 2_000)
    const others = replicaOf(leader).configuration.confState.voters.filter(id => id !== replicaOf(leader).id)
    assert.equal(others.length, 2)
    // A hand-over that comes to nothing: from then on the leader counts between two heartbeats.
    for (const { node } of cluster.machines) {
      const receive = node!.receive.bind(node)
      node!.receive = (from, frame) =>
        receive(
          from,
          frame.filter(({ message: { kind } }) => kind !== 'MsgTimeoutNow'),
        )
    }
    await run(cluster, 130)
    replicaOf(leader).raft.transferLeader(others[0]!)
    leader.node!.host.touch(replicaOf(leader))
    for (let ms = 0; ms < 3_000; ms += 10) {
      await run(cluster, 10)
      for (const id of others) assert.ok(replicaOf(leader).isCaughtUp(id, 0), `${id} after ${ms} ms`)
    }
  })
})

describe('a stale read', () => {
  const lagOf = (machine: SimMachine) =>
    replicaOf(machine).readStale(commands.get('GET')!, [fromUtf8('k')]).lagMs

  it('is as old as the last word of the leader, at the most', async () => {
    const cluster = await three(13)
    await settledBy(cluster, put(leaderOf(cluster)!, 'k', 'v'))
    await run(cluster, 2_000)
    for (const machine of cluster.machines) assert.ok(lagOf(machine) <= 500, `${lagOf(machine)} ms`)
  })

  it('grows older while the leader is not heard', async () => {
    const cluster = await three(13)
    const follower = cluster.machines.find(machine => machine !== leaderOf(cluster))!
    await run(cluster, 2_000)
    cluster.network.isolate(follower.address)
    await run(cluster, 10_000)
    assert.ok(lagOf(follower) >= 9_000, `${lagOf(follower)} ms`)
  })

  it('grows older while heartbeats come and entries do not', async () => {
    const cluster = await three(14)
    const leader = leaderOf(cluster)!
    const follower = cluster.machines.find(machine => machine !== leader)!
    await settledBy(cluster, put(leader, 'k', 'v'))
    await run(cluster, 2_000)
    const node = follower.node!
    const receive = node.receive.bind(node)
    node.receive = (from, frame) =>
      receive(
        from,
        frame.filter(({ message: { kind } }) => kind !== 'MsgApp' && kind !== 'MsgSnap'),
      )
    await settledBy(cluster, put(leader, 'k', 'w'))
    await run(cluster, 10_000)
    assert.equal(stale(follower, 'k'), 'v')
    assert.ok(lagOf(follower) >= 9_000, `${lagOf(follower)} ms`)
  })
})

describe('a replica that starts again', () => {
  it('answers stale reads only when it has applied a commit index that a leader told it since', async () => {
    const cluster = await three(8)
    const leader = leaderOf(cluster)!
    await settledBy(cluster, put(leader, 'k', 'v'))
    const follower = cluster.machines.find(machine => machine !== leader)!
    await run(cluster, 2_000)
    follower.crash()
    cluster.network.isolate(follower.address)
    void follower.start({ seeds: [leader.address] }).catch(() => {})
    await run(cluster, 3_000)
    const read = () => replicaOf(follower).readStale(commands.get('GET')!, [fromUtf8('k')])
    assert.throws(read, { code: 'NOT_READY' })
    await settledBy(cluster, put(leader, 'k', 'w'))
    cluster.network.heal()
    assert.ok(await run(cluster, 10_000, () => stale(follower, 'k') === 'w'))
  })

  it('answers no stale read with less than it has answered before', async () => {
    const cluster = await three(2)
    const leader = leaderOf(cluster)!
    const follower = cluster.machines.find(machine => machine !== leader)!
    await settledBy(cluster, put(leader, 'k', 'v'))
    await run(cluster, 2_000)
    // The leader hears nothing of it any more, and so does not know what it has.
    cluster.network.cut(follower.address, leader.address)
    await settledBy(cluster, put(leader, 'k', 'w'))
    // The next entry tells how far those before it are committed; heartbeats only say so of what was acknowledged.
    await settledBy(cluster, put(leader, 'other', 'x'))
    assert.ok(await run(cluster, 2_000, () => stale(follower, 'k') === 'w'))
    follower.crash()
    void follower.start().catch(() => {})
    const seen = new Set<string>()
    await run(cluster, 5_000, () => {
      seen.add(stale(follower, 'k'))
      return false
    })
    assert.equal(seen.has('v'), false)
  })

  it('has what was acknowledged, when all three lose power at once', async () => {
    const cluster = await three(9)
    const told = Array.from({ length: 20 }, (_, i) => put(leaderOf(cluster)!, `k${i}`))
    await run(cluster, 2_000, () => told.filter(each => each.length > 0).length >= 10)
    const acknowledged = told.flatMap((each, i) => (each[0]?.ok ? [`k${i}`] : []))
    assert.ok(acknowledged.length > 0)
    for (const machine of cluster.machines) machine.crash()
    for (const machine of cluster.machines) void machine.start().catch(() => {})
    assert.ok(await run(cluster, 30_000, () => leaderOf(cluster) !== undefined))
    for (const key of acknowledged)
      assert.equal(textOf(await settledBy(cluster, get(leaderOf(cluster)!, key))), 'v', key)
  })
})

describe('an idle node', () => {
  it('sends the heartbeats of all groups that it leads in one frame a peer and heartbeat interval', async () => {
    const cluster = new SimCluster(4, { shardCount: 16 })
    assert.ok(await cluster.boot(3), JSON.stringify(cluster.describe()))
    await run(cluster, 30_000)
    const frames = new Map<string, number[]>()
    cluster.network.onSend = (from, sent) => {
      const heartbeats = sent.filter(({ message }) => message.kind === 'MsgHeartbeat').length
      if (heartbeats > 0) frames.set(from, [...(frames.get(from) ?? []), heartbeats])
    }
    const intervals = 20
    const intervalMs = defaultRaftSettings.heartbeatTicks * 50
    await run(cluster, intervals * intervalMs)
    assert.equal(frames.size, 3, 'not everybody leads something')
    for (const sizes of frames.values()) {
      assert.ok(Math.max(...sizes) > 1)
      // Two peers; a read index that is asked for may add a few.
      assert.ok(sizes.length <= 2 * intervals * 1.3, `${sizes.length} frames`)
    }
  })
})
