import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { metaGroup } from '../../src/node/meta-register.ts'
import type { Call, CallResult } from '../../src/node/ports.ts'
import { SimCluster, SimMachine } from '../sim/sim-cluster.ts'

async function cluster(seed: number, nodes: number, shardCount = 2): Promise<SimCluster> {
  const made = new SimCluster(seed, { shardCount })
  assert.ok(await made.boot(nodes), JSON.stringify(made.describe()))
  return made
}

const run = (made: SimCluster, ms: number, isDone?: () => boolean) =>
  made.world.run(made.world.nowMs + ms, isDone)

/** Runs until it holds; says what the cluster looks like when it never does. */
async function until(made: SimCluster, what: string, isDone: () => boolean, ms = 120_000): Promise<void> {
  assert.ok(await run(made, ms, isDone), `${what}: ${JSON.stringify(made.describe())}`)
}

interface Start {
  code?: string | null
  message?: string
}

/** What a start ends with: null when the node is a member, else the code of its error; undefined while it goes on. */
function begin(machine: SimMachine, options: Parameters<SimMachine['start']>[0]): Start {
  const result: Start = {}
  machine.start(options).then(
    () => {
      result.code = null
    },
    (error: { code: string; message: string }) => {
      result.code = error.code
      result.message = error.message
    },
  )
  return result
}

/** The machine as it is with a new, empty volume. */
function withNewVolume(made: SimCluster, old: SimMachine): SimMachine {
  old.crash()
  const machine = new SimMachine(made, old.nodeId)
  ;(machine as unknown as { storeId: string }).storeId = `another-${old.nodeId}`
  made.machines[made.machines.indexOf(old)] = machine
  return machine
}

const stateOf = (at: SimMachine, nodeId: string) =>
  at.node?.controller.register?.nodes.find(node => node.nodeId === nodeId)?.state

const call = (command: string, ...args: readonly string[]): Call => ({
  command,
  args: args.map(fromUtf8),
  session: null,
  read: 'linearizable',
  forward: true,
  hops: 0,
  shard: null,
  timeoutMs: 5_000,
})

async function execute(made: SimCluster, at: SimMachine, asked: Call): Promise<CallResult> {
  let result: CallResult | undefined
  let failure: Error | undefined
  at.node!.execute(asked).then(
    answer => {
      result = answer
    },
    (error: Error) => {
      failure = error
    },
  )
  await run(made, 10_000, () => result !== undefined || failure !== undefined)
  if (result === undefined) throw failure ?? new Error('no answer')
  return result
}

const text = ({ reply }: CallResult) =>
  reply.kind === 'value' ? Buffer.from(reply.value).toString() : reply.kind

describe('a founder', () => {
  it('founds a cluster once: on a directory that has one it goes on', async () => {
    const made = await cluster(1, 1)
    const [first] = made.machines as [SimMachine]
    await execute(made, first, call('SET', 'k', 'v'))
    const { clusterId } = first.node!.status()
    first.crash()
    const again = begin(first, { isBootstrap: true })
    await until(made, 'it does not start', () => again.code !== undefined)
    assert.deepEqual([again.code, first.node!.status().clusterId], [null, clusterId])
    assert.equal(text(await execute(made, first, call('GET', 'k'))), 'v')
  })

  it('founds nothing while a seed is silent: it may be a member of a cluster', async () => {
    const made = new SimCluster(1)
    const [first, second] = [made.add(), made.add()]
    const started = begin(first, { isBootstrap: true, seeds: [first.address, second.address] })
    await run(made, 60_000)
    assert.deepEqual([started.code, first.node!.status().clusterId], [undefined, ''])
  })

  it('founds a cluster when every seed has said that it knows of none', async () => {
    const made = new SimCluster(1, { shardCount: 2 })
    const [first, second] = [made.add(), made.add()]
    const seeds = [first.address, second.address]
    begin(first, { isBootstrap: true, seeds })
    begin(second, { seeds })
    await until(made, 'no cluster', () => made.isSettled(2))
  })

  it('that lost its volume founds no second cluster: it is refused by the one that it founded', async () => {
    const made = await cluster(2, 3)
    const seeds = made.machines.map(machine => machine.address)
    const first = withNewVolume(made, made.machines[0]!)
    await run(made, 30_000)
    const started = begin(first, { isBootstrap: true, seeds })
    await until(made, 'it is not refused', () => started.code !== undefined)
    assert.deepEqual([started.code, first.node!.status().clusterId], ['STORE_MISMATCH', ''])
  })

  it('is told so also while the others still take it for the leader', async () => {
    const made = await cluster(2, 3)
    const seeds = made.machines.map(machine => machine.address)
    const first = withNewVolume(made, made.machines[0]!)
    const started = begin(first, { isBootstrap: true, seeds })
    await until(made, 'it is not refused', () => started.code !== undefined)
    assert.equal(started.code, 'STORE_MISMATCH')
  })

  it('that died while it founded goes on where it was', async () => {
    for (const afterMs of [1, 3, 5, 10, 20, 1_000, 1_500, 1_700]) {
      const made = new SimCluster(afterMs, { shardCount: 2 })
      const first = made.add()
      begin(first, { isBootstrap: true })
      await run(made, afterMs)
      first.crash()
      begin(first, { isBootstrap: true })
      await until(made, `killed after ${afterMs} ms`, () => made.isSettled(1))
    }
  })
})

describe('a joiner', () => {
  it('comes in while a member is down', async () => {
    const made = await cluster(5, 2)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    second.crash()
    await run(made, 30_000)
    const third = made.add()
    begin(third, { seeds: [first.address] })
    await until(made, 'it does not join', () => third.node?.isServing() === true)
    assert.equal(stateOf(first, 'node3'), 'member')
  })

  it('comes in while another joiner, which died, is still joining', async () => {
    const made = await cluster(5, 3)
    const [first] = made.machines as [SimMachine]
    const dead = made.add()
    begin(dead, { seeds: [first.address] })
    await run(made, 10_000, () => stateOf(first, 'node4') !== undefined)
    dead.crash()
    assert.equal(stateOf(first, 'node4'), 'joining')
    const next = made.add()
    begin(next, { seeds: [first.address] })
    await until(made, 'it does not join', () => next.node?.isServing() === true)
  })

  it('that crashes again and again comes in when it stays', async () => {
    for (const seed of [1, 2, 3, 4]) {
      const made = await cluster(seed, 3)
      const seeds = [made.machines[0]!.address]
      const joiner = made.add()
      for (let i = 0; i < 10; i++) {
        begin(joiner, { seeds })
        await run(made, 5 + 400 * made.world.random.next())
        joiner.crash()
      }
      begin(joiner, { seeds })
      await until(made, `seed ${seed}`, () => made.isSettled(4))
    }
  })

  it('of another cluster is refused', async () => {
    const made = await cluster(6, 1)
    const stranger = made.add()
    begin(stranger, { isBootstrap: true })
    await until(made, 'no second cluster', () => stranger.node?.isServing() === true)
    assert.notEqual(stranger.node!.status().clusterId, made.machines[0]!.node!.status().clusterId)
    const identity = stranger.endpoint.identity()
    assert.throws(() => made.machines[0]!.node!.admit(identity), { code: 'WRONG_CLUSTER' })
  })

  it('without seeds and without a cluster is told what to say', async () => {
    const made = new SimCluster(1)
    const started = begin(made.add(), {})
    await run(made, 1_000)
    assert.equal(started.code, 'NOT_READY')
  })
})

describe('settings of the cluster', () => {
  it('are the cluster’s: a joiner that was given others is refused, one that was given none or the same comes in', async () => {
    const made = await cluster(9, 1)
    const seeds = [made.machines[0]!.address]
    const other = begin(made.add(), {
      seeds,
      expected: { shardCount: 8, replicationFactor: 3, vNodeCount: 64 },
    })
    await until(made, 'it is not refused', () => other.code !== undefined)
    assert.equal(other.code, 'SETTINGS_DIFFER')
    assert.match(
      other.message!,
      /shard_count is 8 here and 2 in the cluster; v_node_count is 64 here and 32 in/,
    )
    assert.equal(stateOf(made.machines[0]!, 'node2'), undefined)
    const same = made.add()
    begin(same, { seeds, expected: { shardCount: 2, vNodeCount: 32 } })
    await until(made, 'it does not join', () => same.node?.isServing() === true)
    assert.deepEqual(
      Object.keys(made.machines[0]!.node!.controller.register!.nodes[1]!).includes('expected'),
      false,
    )
  })

  it('stop a member that is started with others, before it serves', async () => {
    const made = await cluster(9, 1)
    const [only] = made.machines as [SimMachine]
    only.crash()
    const started = begin(only, { expected: { replicationFactor: 5 } })
    await until(made, 'it is not refused', () => started.code !== undefined)
    assert.equal(started.code, 'SETTINGS_DIFFER')
    assert.match(started.message!, /replication_factor is 5 here and 3 in the cluster/)
    only.crash()
    begin(only, {})
    await until(made, 'it does not start', () => only.node?.isServing() === true)
  })
})

describe('a name that stands for many nodes', () => {
  /** A resolver that a test can change. Rejects while it knows nobody, as the system's does. */
  const resolver = (addresses: readonly string[]) => {
    const name = {
      addresses,
      lookups: 0,
      find: () => {
        name.lookups++
        return name.addresses.length === 0
          ? Promise.reject(new Error('ENOTFOUND'))
          : Promise.resolve(name.addresses)
      },
    }
    return name
  }

  it('is looked up again and again until it stands for somebody who lets the joiner in', async () => {
    const made = await cluster(10, 2)
    const name = resolver([])
    const joiner = made.add()
    begin(joiner, { discoverSeeds: name.find })
    await run(made, 5_000)
    assert.ok(name.lookups > 3)
    name.addresses = ['gone:1']
    await run(made, 20_000)
    assert.notEqual(joiner.node?.isServing(), true)
    name.addresses = ['gone:1', joiner.address, made.machines[1]!.address]
    await until(made, 'it does not join', () => joiner.node?.isServing() === true)
  })

  it('is silent while it stands for nobody: nothing is founded then', async () => {
    const made = new SimCluster(11, { shardCount: 2 })
    const name = resolver([])
    const first = made.add()
    begin(first, { isBootstrap: true, discoverSeeds: name.find })
    await run(made, 10_000)
    assert.equal(first.node?.controller.register ?? null, null)
    name.addresses = [first.address]
    await until(made, 'it founds nothing', () => first.node?.isServing() === true)
  })

  it('has a founder ask everybody behind it, and whoever comes later too', async () => {
    const made = new SimCluster(12, { shardCount: 2 })
    const [first, second, third] = [made.add(), made.add(), made.add()]
    const name = resolver([first.address, second.address, third.address])
    begin(first, { isBootstrap: true, discoverSeeds: name.find })
    begin(second, { discoverSeeds: name.find })
    await run(made, 15_000)
    assert.equal(first.node?.controller.register ?? null, null)
    begin(third, { discoverSeeds: name.find })
    await until(made, 'no cluster of three', () =>
      made.machines.every(each => each.node?.isServing() === true),
    )
  })
})

describe('a node that lost its volume', () => {
  it('is refused, and what it held stays with the others', async () => {
    const made = await cluster(7, 3)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    await execute(made, first, call('SET', 'k', 'v'))
    const empty = withNewVolume(made, second)
    const started = begin(empty, { seeds: [first.address] })
    await until(made, 'it is not refused', () => started.code !== undefined)
    assert.equal(started.code, 'STORE_MISMATCH')
    assert.equal(text(await execute(made, first, call('GET', 'k'))), 'v')
  })

  it('comes in anew under its name once it was let go', async () => {
    const made = await cluster(8, 3)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    const empty = withNewVolume(made, second)
    await run(made, 30_000)
    void first.node!.leave('node2', true).catch(() => {})
    await until(made, 'it does not leave', () => stateOf(first, 'node2') === 'left')
    begin(empty, { seeds: [first.address] })
    await until(made, 'it does not come in', () => made.isSettled(3))
    const { nodes } = first.node!.controller.register!
    assert.equal(nodes.find(({ nodeId }) => nodeId === 'node2')!.storeId, 'another-node2')
  })
})

describe('a node that leaves', () => {
  it('hands over all that it has, and ends', async () => {
    const made = await cluster(9, 4)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    await execute(made, first, call('SET', 'k', 'v'))
    void second.node!.leave('node2', false).catch(() => {})
    await until(made, 'it does not end', () => second.ended !== null)
    assert.equal(second.ended, 'left')
    await until(made, 'the others do not settle', () => made.isSettled(3))
    const named = [...first.node!.controller.register!.shards.values()].flatMap(({ voters, learners }) => [
      ...voters,
      ...learners,
    ])
    assert.equal(
      named.some(({ node }) => node === 'node2'),
      false,
    )
    assert.equal(text(await execute(made, first, call('GET', 'k'))), 'v')
  })

  it('leaves although it is down', async () => {
    const made = await cluster(10, 4)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    second.crash()
    await run(made, 30_000)
    void first.node!.leave('node2', false).catch(() => {})
    await until(made, 'it does not leave', () => stateOf(first, 'node2') === 'left')
    await until(made, 'the others do not settle', () => made.isSettled(3))
  })

  it('leaves although the founder is the one that is down', async () => {
    const made = await cluster(11, 4)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    first.crash()
    await run(made, 30_000)
    void second.node!.leave('node1', false).catch(() => {})
    await until(made, 'it does not leave', () => stateOf(second, 'node1') === 'left')
  })

  it('finds out that it was let go while it was away', async () => {
    const made = await cluster(12, 4)
    const [first, second] = made.machines as [SimMachine, SimMachine]
    second.crash()
    await run(made, 30_000)
    void first.node!.leave('node2', false).catch(() => {})
    await until(made, 'it does not leave', () => stateOf(first, 'node2') === 'left')
    begin(second, {})
    await until(made, 'it does not end', () => second.ended === 'left')
  })

  it('is refused when too few would be left for the data, and nothing is the last one', async () => {
    const made = await cluster(13, 3)
    const [first] = made.machines as [SimMachine]
    await assert.rejects(first.node!.leave('node2', false), { code: 'LEAVE_REFUSED' })
    await assert.rejects(first.node!.leave('node9', false), { code: 'UNKNOWN_NODE' })
    const alone = await cluster(13, 1)
    await assert.rejects(alone.machines[0]!.node!.leave('node1', true), { code: 'LEAVE_REFUSED' })
  })
})

describe('the meta shard', () => {
  it('goes on without its leader', async () => {
    const made = await cluster(14, 3)
    const leads = (machine: SimMachine) => machine.node?.host.group(metaGroup)?.isLeader === true
    const old = made.machines.find(leads)!
    old.crash()
    const next = made.machines.find(machine => machine !== old)!
    const joiner = made.add()
    begin(joiner, { seeds: [next.address] })
    await until(made, 'nobody comes in', () => joiner.node?.isServing() === true)
  })

  it('is not needed by shards that have their leader', async () => {
    const made = await cluster(15, 3, 1)
    const leader = made.machines.find(machine => machine.node?.host.group(0)?.isLeader)!
    for (const machine of made.machines) machine.node!.host.group(metaGroup)!.halt('for the test')
    await execute(made, leader, call('SET', 'k', 'v'))
    assert.equal(text(await execute(made, leader, call('GET', 'k'))), 'v')
  })
})

describe('a node whose clock is seconds off', () => {
  it('leads nothing until it is right again, and says so', async () => {
    const made = await cluster(21, 3, 4)
    await until(made, 'settled', () => made.isSettled(3))
    const [odd] = made.machines
    const led = () => [...odd!.node!.host.all()].filter(replica => replica.isLeader).length
    await until(made, 'it leads something', () => led() > 0)
    odd!.clock.wallOffsetMs = 6_000
    // The others hear of it with the next greetings; until then one may hand something back to it.
    await run(made, 5_000)
    await until(made, 'others lead', () => led() === 0, 30_000)
    assert.equal(await run(made, 20_000, () => led() > 0), false, 'it leads again')
    odd!.clock.wallOffsetMs = -1_000
    await until(made, 'it leads again', () => led() > 0, 30_000)
  })
})

describe('a replica that can not go on', () => {
  /** The ids of `node`'s replicas of a group, by its own register. */
  const membersOn = (made: SimCluster, group: number, node: string) => {
    const record = made.machines[0]!.node?.controller.register?.shards.get(group)
    return [...(record?.voters ?? []), ...(record?.learners ?? [])]
      .filter(member => member.node === node)
      .map(member => member.replica)
  }
  /** Settled, with one replica of the group on that node, another one than before, that votes and works. */
  const isReplaced = (made: SimCluster, group: number, machine: SimMachine, old: number) => {
    const [replica, ...others] = membersOn(made, group, machine.nodeId)
    const { host } = machine.node!
    return (
      made.isSettled(3) &&
      replica !== undefined &&
      replica !== old &&
      others.length === 0 &&
      !host.knows(old) &&
      host.replica(replica)?.halted === null
    )
  }

  it('is replaced by another on its node, and what it held is there again', async () => {
    const made = await cluster(31, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const [first, , third] = made.machines
    await execute(made, first!, call('SET', 'k', 'v'))
    const old = third!.node!.host.group(0)!
    old.halt('for the test')
    await until(made, 'replaced', () => isReplaced(made, 0, third!, old.id))
    made.compareReplicas()
  })

  it('is replaced after a restart, too', async () => {
    const made = await cluster(32, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const third = made.machines[2]!
    const old = third.node!.host.group(1)!
    for (const machine of made.machines.slice(0, 2)) made.network.cut(third.address, machine.address)
    old.halt('for the test')
    await run(made, 1_000)
    third.crash()
    made.network.heal()
    begin(third, {})
    await until(made, 'replaced', () => third.node !== null && isReplaced(made, 1, third, old.id))
  })

  it('may be that of the meta shard, by which its node knows the cluster', async () => {
    const made = await cluster(33, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const third = made.machines[2]!
    const old = third.node!.host.group(metaGroup)!
    old.halt('for the test')
    await until(made, 'replaced', () => isReplaced(made, metaGroup, third, old.id))
  })

  it('may be that of the meta shard when its node starts', async () => {
    const made = await cluster(34, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const third = made.machines[2]!
    const old = third.node!.host.group(metaGroup)!
    for (const machine of made.machines.slice(0, 2)) made.network.cut(third.address, machine.address)
    old.halt('for the test')
    await run(made, 1_000)
    third.crash()
    made.network.heal()
    begin(third, {})
    await until(made, 'replaced', () => third.node !== null && isReplaced(made, metaGroup, third, old.id))
  })
})

describe('a node that lost its directory', () => {
  it('comes back under its name once it is given up, and holds everything again', async () => {
    const made = await cluster(35, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const [first, , third] = made.machines
    await execute(made, first!, call('SET', 'k', 'v'))
    const back = withNewVolume(made, third!)
    await until(made, 'dead', () => first!.node!.status().nodes.some(node => node.state === 'dead'))
    await assert.rejects(first!.node!.replace('node1', 'node1'), { code: 'REPLACE_REFUSED' })
    await assert.rejects(first!.node!.replace('node9', 'node1'), { code: 'UNKNOWN_NODE' })
    const asked = first!.node!.replace('node3', 'node3')
    let isGivenUp = false
    asked.then(() => {
      isGivenUp = true
    })
    await until(made, 'given up', () => isGivenUp)
    begin(back, { seeds: [first!.address] })
    await until(made, 'it holds its share', () => back.node !== null && made.isSettled(3))
    made.compareReplicas()
    first!.crash()
    await until(made, 'the others go on', () => back.node?.isServing() === true)
    assert.equal(text(await execute(made, back, call('GET', 'k'))), 'v')
  })
})

describe('a node that is dead for longer than node_down_after', () => {
  it('loses its replicas to a spare node, and is taken back when it returns', async () => {
    const made = new SimCluster(36, { shardCount: 8, nodeDownAfterMs: 60_000 })
    assert.ok(await made.boot(4), JSON.stringify(made.describe()))
    const [first, , third] = made.machines
    const held = () =>
      first!.node!.status().nodes.find(node => node.nodeId === third!.nodeId)?.replicas ?? Number.NaN
    await until(made, 'it holds its share', () => made.isSettled(4) && held() === 6)
    third!.crash()
    await run(made, 50_000)
    assert.equal(held(), 6)
    await until(made, 'the others take over', () => held() === 0)
    begin(third!, {})
    await until(
      made,
      'it takes its share again',
      () => third!.node !== null && held() === 6 && made.isSettled(4),
    )
    made.compareReplicas()
  })
})

describe('the replicas of a shard', () => {
  async function verified(made: SimCluster, at: SimMachine, shard: number) {
    let result: Awaited<ReturnType<NonNullable<SimMachine['node']>['verify']>> | undefined
    // A leader that is being handed over says so: then somebody asks again.
    const ask = () =>
      at.node!.verify(shard).then(
        found => {
          result = found
        },
        () => made.world.at(100, ask),
      )
    void ask()
    await until(made, 'verified', () => result !== undefined)
    return result!
  }

  it('are found equal, whoever is asked, the meta shard’s too', async () => {
    const made = await cluster(37, 3)
    await until(made, 'settled', () => made.isSettled(3))
    await execute(made, made.machines[0]!, call('SET', 'k', 'v'))
    for (const machine of made.machines)
      for (const shard of [0, 1, metaGroup]) {
        const { verdict, replicas } = await verified(made, machine, shard)
        assert.equal(verdict, 'equal')
        assert.equal(replicas.length, 3)
      }
    assert.equal(text(await execute(made, made.machines[1]!, call('GET', 'k'))), 'v')
  })

  it('are found to differ, and the odd one is rebuilt', async () => {
    const made = await cluster(38, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const odd = made.machines.find(machine => !machine.node!.host.group(0)!.isLeader)!
    const old = odd.node!.host.group(0)!
    old.state.put('z of no entry', new Uint8Array([1]))
    const { verdict, replicas } = await verified(made, made.machines[0]!, 0)
    assert.equal(verdict, 'differs')
    assert.deepEqual(
      replicas.filter(each => each.state === 'odd').map(each => [each.node, each.replica]),
      [[odd.nodeId, old.id]],
    )
    await until(made, 'rebuilt', () => made.isSettled(3) && !odd.node!.host.knows(old.id))
    made.compareReplicas()
    assert.equal((await verified(made, odd, 0)).verdict, 'equal')
  })

  it('are compared without those whose node is gone, which is said at once', async () => {
    const made = await cluster(41, 3)
    await until(made, 'settled', () => made.isSettled(3))
    const [asked, , gone] = made.machines
    gone!.crash()
    // Before it is held for dead, and after.
    for (const waitMs of [1_000, 20_000]) {
      await run(made, waitMs)
      const sinceMs = made.world.nowMs
      const { verdict, replicas } = await verified(made, asked!, 0)
      assert.equal(verdict, 'incomplete')
      assert.deepEqual(
        replicas.filter(each => each.state !== 'equal').map(each => [each.node, each.state]),
        [[gone!.nodeId, 'silent']],
      )
      assert.ok(made.world.nowMs - sinceMs < 10_000)
    }
  })

  it('are compared by themselves, one shard after another', async () => {
    const made = new SimCluster(39, { shardCount: 4, verifyIntervalMs: 60_000 })
    assert.ok(await made.boot(3), JSON.stringify(made.describe()))
    await until(made, 'settled', () => made.isSettled(3))
    const odd = made.machines.find(machine => !machine.node!.host.group(2)!.isLeader)!
    const old = odd.node!.host.group(2)!
    old.state.put('z of no entry', new Uint8Array([1]))
    await until(made, 'rebuilt', () => made.isSettled(3) && !odd.node!.host.knows(old.id), 300_000)
  })

  it('are not compared by a node that knows no leader, nor where there is no such shard', async () => {
    const made = await cluster(40, 3)
    await assert.rejects(made.machines[0]!.node!.verify(77), { code: 'INVALID_ARGUMENT' })
  })
})
