import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { metaGroup, type Operation, type Register, type ShardRecord } from '../../src/node/meta-register.ts'
import { planRebalance, type RebalancePlan } from '../../src/node/rebalancer.ts'
import { foundRequest, hash64, MetaShard, settings } from './cluster-register.ts'

interface Around {
  readonly down?: readonly string[]
  /** Down, and for so long that nobody waits. */
  readonly lost?: readonly string[]
  /** Nodes whose disk is full. */
  readonly full?: readonly string[]
  readonly movesMax?: number
}

function plan(
  register: Register,
  { down = [], lost = [], full = [], movesMax = 24 }: Around = {},
): RebalancePlan {
  const isLost = (node: string) => lost.includes(node)
  const isDown = (node: string) => down.includes(node) || isLost(node)
  return planRebalance({ register, isDown, isLost, isFull: node => full.includes(node), hash64, movesMax })
}

const shardsOf = ({ operations }: RebalancePlan) => operations.filter(({ group }) => group !== metaGroup)
const metaOf = ({ operations }: RebalancePlan) => operations.find(({ group }) => group === metaGroup)
const nodes = (members: readonly { readonly node: string }[]) => members.map(member => member.node).sort()
/** Members whose replica the operation would make. */
const added = ({ voters, learners }: ReturnType<typeof shardsOf>[number]) =>
  [...voters, ...learners].filter(member => member.replica === null).map(member => member.node)

/** Opens what is planned and lets all of it end, until nothing is planned. */
function settle(meta: MetaShard, around: Around = {}): number {
  for (let rounds = 0; ; rounds++) {
    assert.ok(rounds < 50, 'it never comes to rest')
    const { operations } = plan(meta.register, around)
    if (operations.length === 0) return rounds
    for (const request of operations) assert.notEqual(meta.open(request), null)
    for (const { group } of operations) meta.close(group)
  }
}

function cluster(count: number, shardCount = settings.shardCount): MetaShard {
  const meta = new MetaShard().found({ settings: { ...settings, shardCount } })
  for (let i = 2; i <= count; i++) {
    meta.admit(`node${i}`)
    settle(meta)
  }
  return meta
}

/** How many replicas of shards each node has. */
function shares({ shards }: Register): Record<string, number> {
  const counted: Record<string, number> = {}
  for (const [group, { voters, learners }] of shards)
    if (group !== metaGroup)
      for (const { node } of [...voters, ...learners]) counted[node] = (counted[node] ?? 0) + 1
  return counted
}

/** `register` with some records changed, as another history would have left it. */
function changed(register: Register, records: ReadonlyMap<number, Partial<ShardRecord>>): Register {
  const shards = new Map(register.shards)
  for (const [group, record] of records) shards.set(group, { ...shards.get(group)!, ...record })
  return { ...register, shards }
}

describe('the plan of a cluster', () => {
  it('has nothing to do for one node', () => {
    const { operations, movesLeft, blockedBy } = plan(new MetaShard().found().register)
    assert.deepEqual({ operations, movesLeft, blockedBy }, { operations: [], movesLeft: 0, blockedBy: null })
  })

  it('gives a second node a learner of every shard', () => {
    const result = plan(new MetaShard().found().admit('node2').register)
    assert.equal(shardsOf(result).length, settings.shardCount)
    for (const request of shardsOf(result)) {
      assert.deepEqual(request.voters, [{ node: 'node1', replica: 2 + request.group }])
      assert.deepEqual(request.learners, [{ node: 'node2', replica: null }])
    }
    assert.equal(result.movesLeft, settings.shardCount)
  })

  it('lets three vote when a third node comes, and keeps the replicas that are there', () => {
    const meta = cluster(2).admit('node3')
    for (const request of shardsOf(plan(meta.register))) {
      assert.deepEqual(nodes(request.voters), ['node1', 'node2', 'node3'])
      assert.deepEqual(request.learners, [])
      assert.deepEqual(added(request), ['node3'])
    }
  })

  it('moves to a fourth node its share and nothing else', () => {
    const meta = cluster(3).admit('node4')
    const operations = shardsOf(plan(meta.register))
    assert.ok(operations.every(request => added(request).join() === 'node4'))
    assert.equal(operations.length, (settings.shardCount * 3) / 4)
    settle(meta)
    assert.deepEqual(shares(meta.register), { node1: 6, node2: 6, node3: 6, node4: 6 })
  })

  it('has nothing to do when it has been carried out', () => {
    for (const count of [1, 2, 3, 4, 5]) {
      const { operations, movesLeft, blockedBy } = plan(cluster(count).register)
      assert.deepEqual([operations, movesLeft, blockedBy], [[], 0, null], `${count} nodes`)
    }
  })

  it('is the same for every node that looks at the same register', () => {
    const make = () => plan(cluster(3).admit('node4', 'node5').register)
    assert.deepEqual(make(), make())
  })

  it('gives nothing to a node that is still joining', () => {
    const meta = cluster(3)
    meta.join('node4')
    assert.deepEqual(shardsOf(plan(meta.register)), [])
  })

  it('draws a leaving node off, to nodes that had not got the shard', () => {
    const meta = cluster(4)
    meta.run('META.STATE', { nodeId: 'node2', state: 'leaving' })
    const result = plan(meta.register)
    assert.equal(shardsOf(result).length, 6)
    for (const request of shardsOf(result)) {
      assert.deepEqual(nodes(request.voters), ['node1', 'node3', 'node4'])
      assert.equal(added(request).length, 1)
    }
    settle(meta)
    assert.equal(shares(meta.register).node2, undefined)
  })

  it('draws off a leaving node that is down just so', () => {
    const meta = cluster(4)
    meta.run('META.STATE', { nodeId: 'node2', state: 'leaving' })
    const { operations, blockedBy } = plan(meta.register, { down: ['node2'] })
    assert.deepEqual(operations, plan(meta.register).operations)
    assert.equal(blockedBy, null)
    settle(meta, { down: ['node2'] })
    assert.equal(shares(meta.register).node2, undefined)
  })

  it('lets the votes of a shrunk cluster be odd', () => {
    const meta = cluster(3)
    meta.run('META.STATE', { nodeId: 'node3', state: 'leaving' })
    settle(meta)
    for (const [group, { voters, learners }] of meta.register.shards)
      if (group !== metaGroup) assert.deepEqual([voters.length, learners.length], [1, 1])
  })

  it('moves nothing to or from a member that is down: it may come back', () => {
    assert.deepEqual(plan(cluster(4).register, { down: ['node2'] }).operations, [])
  })

  it('says what holds it up when a shard would go to a node that is down', () => {
    const result = plan(cluster(3).admit('node4').register, { down: ['node4'] })
    assert.deepEqual(shardsOf(result), [])
    assert.equal(result.movesLeft, 6)
    assert.match(result.blockedBy ?? '', /^shard \d+ would go to node4, which is down$/)
  })

  it('opens nothing while it is paused, but still knows what is left', () => {
    const meta = cluster(3).admit('node4')
    meta.run('META.PAUSE', { isPaused: true })
    const result = plan(meta.register)
    assert.deepEqual(shardsOf(result), [])
    assert.equal(result.movesLeft, 6)
  })
})

describe('operations under way', () => {
  it('are no more than the limit at one time', () => {
    const meta = cluster(3).admit('node4')
    const first = plan(meta.register, { movesMax: 2 })
    assert.deepEqual([shardsOf(first).length, first.movesLeft], [2, 6])
    for (const request of first.operations) meta.open(request)
    const second = plan(meta.register, { movesMax: 2 })
    assert.deepEqual([shardsOf(second).length, second.movesLeft], [0, 6])
    meta.close(shardsOf(first)[0]!.group)
    const third = plan(meta.register, { movesMax: 2 })
    assert.deepEqual([shardsOf(third).length, third.movesLeft], [1, 5])
  })

  it('give one node no more than twelve replicas at one time', () => {
    const meta = cluster(3, 64).admit('node4')
    const first = plan(meta.register, { movesMax: 100 })
    assert.deepEqual([shardsOf(first).length, first.movesLeft], [12, 48])
    for (const request of first.operations) meta.open(request)
    assert.deepEqual(shardsOf(plan(meta.register, { movesMax: 100 })), [])
  })

  it('are not opened twice on one shard', () => {
    const meta = cluster(3).admit('node4')
    for (const request of plan(meta.register).operations) meta.open(request)
    const { operations, movesLeft, blockedBy } = plan(meta.register)
    assert.deepEqual([operations, movesLeft, blockedBy], [[], 6, null])
  })

  it('end before a changed wish is followed, as long as they can end', () => {
    const meta = cluster(3).admit('node4')
    for (const request of plan(meta.register).operations) meta.open(request)
    meta.admit('node5')
    const open = new Set(
      [...meta.register.shards].filter(([, each]) => each.operation).map(([group]) => group),
    )
    assert.ok(shardsOf(plan(meta.register)).every(({ group }) => !open.has(group)))
  })

  it('say that they wait for a node that went down', () => {
    const meta = cluster(3).admit('node4')
    for (const request of plan(meta.register).operations) meta.open(request)
    const { blockedBy } = plan(meta.register, { down: ['node4'] })
    assert.match(blockedBy ?? '', /^shard \d+ waits for node4, which is down$/)
  })

  it('that wait for a node which left are replaced, however many are open', () => {
    const meta = cluster(3).admit('node4')
    for (const request of plan(meta.register).operations) meta.open(request)
    meta.run('META.STATE', { nodeId: 'node4', state: 'leaving' })
    meta.admit('node5')
    const stuck = new Map([...meta.register.shards].map(([group, { operation }]) => [group, operation?.id]))
    const result = plan(meta.register, { down: ['node4'], movesMax: 6 })
    const replacing = shardsOf(result).filter(request => request.replaces !== 0)
    assert.ok(replacing.length > 0)
    for (const request of replacing) {
      assert.equal(request.replaces, stuck.get(request.group))
      assert.ok(!nodes([...request.voters, ...request.learners]).includes('node4'))
    }
    assert.equal(shardsOf(result).length, replacing.length, 'no more than the limit besides')
  })

  it('keep the replicas that they made when they are replaced', () => {
    const register = cluster(4).register
    const record = register.shards.get(0)!
    const spare = ['node1', 'node2', 'node3', 'node4'].find(node => !nodes(record.voters).includes(node))!
    const gone = record.voters[0]!
    const operation: Operation = {
      id: 900,
      voters: [record.voters[1]!, record.voters[2]!, { node: spare, replica: 901 }],
      learners: [{ node: 'node9', replica: 902 }],
    }
    const leaving = register.nodes.map(node =>
      node.nodeId === gone.node ? { ...node, state: 'leaving' as const } : node,
    )
    const { operations } = plan(
      { ...changed(register, new Map([[0, { operation }]])), nodes: leaving, nextReplica: 1_000 },
      { down: ['node9'] },
    )
    const request = operations.find(({ group }) => group === 0)!
    assert.equal(request.replaces, 900)
    assert.equal(request.voters.find(({ node }) => node === spare)?.replica, 901)
  })
})

describe('the meta shard', () => {
  it('takes in a node that joins as a learner at once, under the id that it was given', () => {
    const meta = cluster(1)
    const { metaReplica } = meta.join('node2')
    assert.deepEqual(metaOf(plan(meta.register)), {
      group: metaGroup,
      replaces: 0,
      voters: [{ node: 'node1', replica: 1 }],
      learners: [{ node: 'node2', replica: metaReplica }],
    })
  })

  it('takes one in although the rebalance is paused', () => {
    const meta = cluster(1)
    meta.run('META.PAUSE', { isPaused: true })
    meta.join('node2')
    assert.notEqual(metaOf(plan(meta.register)), undefined)
  })

  it('has an odd number of voters, five at most', () => {
    for (const [count, voterCount] of [
      [1, 1],
      [2, 1],
      [3, 3],
      [4, 3],
      [5, 5],
      [7, 5],
    ] as const) {
      const { voters, learners } = cluster(count).register.shards.get(metaGroup)!
      assert.deepEqual([voters.length, learners.length], [voterCount, count - voterCount], `${count} nodes`)
    }
  })

  it('gives no vote to a node that joins or leaves', () => {
    const meta = cluster(3)
    meta.run('META.STATE', { nodeId: 'node1', state: 'leaving' })
    meta.join('node4')
    const request = metaOf(plan(meta.register))!
    assert.deepEqual(nodes(request.voters), ['node2'])
    assert.deepEqual(nodes(request.learners), ['node1', 'node3', 'node4'])
  })

  it('forgets a node that has left', () => {
    const meta = cluster(3)
    meta.run('META.STATE', { nodeId: 'node3', state: 'left' })
    const request = metaOf(plan(meta.register))!
    assert.ok(!nodes([...request.voters, ...request.learners]).includes('node3'))
  })

  it('keeps its voters: a sixth node that runs takes no vote from one that is down', () => {
    const { register } = cluster(6)
    const voters = nodes(register.shards.get(metaGroup)!.voters)
    assert.equal(metaOf(plan(register, { down: [voters[0]!] })), undefined)
  })

  it('gives a new vote to a node that runs rather than to one that is down', () => {
    const meta = cluster(6)
    const record = meta.register.shards.get(metaGroup)!
    const spare = record.learners[0]!.node
    meta.admit('node7')
    settle(meta, { down: [spare] })
    const [voter] = nodes(record.voters)
    meta.run('META.STATE', { nodeId: voter!, state: 'leaving' })
    const request = metaOf(plan(meta.register, { down: [spare] }))!
    assert.ok(nodes(request.voters).includes('node7'))
    assert.ok(!nodes(request.voters).includes(spare))
  })

  it('is planned anew while an operation waits, in its place', () => {
    const meta = cluster(1)
    meta.join('node2')
    const first = meta.open(metaOf(plan(meta.register))!)!
    assert.equal(metaOf(plan(meta.register)), undefined)
    meta.join('node3')
    const second = metaOf(plan(meta.register))!
    assert.equal(second.replaces, first.id)
    assert.deepEqual(nodes(second.learners), ['node2', 'node3'])
  })
})

describe('a node that is lost', () => {
  const held = (meta: MetaShard, node: string) =>
    [...meta.register.shards]
      .filter(([group]) => group !== metaGroup)
      .filter(([, { voters, learners }]) => nodes([...voters, ...learners]).includes(node)).length

  it('gives its replicas to the others, and its vote in the meta shard; nothing else moves', () => {
    const meta = cluster(4, 64)
    const before = held(meta, 'node2')
    const moves = meta.register.movesDone
    settle(meta, { lost: ['node2'] })
    assert.equal(held(meta, 'node2'), 0)
    assert.equal(meta.register.movesDone - moves, before)
    assert.ok(!nodes(meta.register.shards.get(metaGroup)!.voters).includes('node2'))
    for (const [group, { voters }] of meta.register.shards)
      if (group !== metaGroup) assert.equal(voters.length, 3)
  })

  it('keeps its place where nobody can take it', () => {
    const meta = cluster(3)
    assert.deepEqual(plan(meta.register, { lost: ['node2'] }).operations, [])
    const four = cluster(4)
    const before = four.register
    assert.deepEqual(shardsOf(plan(before, { lost: ['node2', 'node3'] })).length > 0, true)
    settle(four, { lost: ['node2', 'node3'] })
    assert.ok(held(four, 'node2') + held(four, 'node3') > 0)
    for (const { voters } of four.register.shards.values()) assert.equal(voters.length, 3)
  })

  it('takes its share again when it is back', () => {
    const meta = cluster(4, 64)
    settle(meta, { lost: ['node2'] })
    settle(meta)
    assert.ok(held(meta, 'node2') >= 40)
  })
})

describe('a node whose disk is full', () => {
  it('is given nothing, and what would go there says why', () => {
    const meta = cluster(3).admit('node4')
    const result = plan(meta.register, { full: ['node4'] })
    assert.deepEqual(shardsOf(result), [])
    assert.equal(result.movesLeft, (settings.shardCount * 3) / 4)
    assert.match(result.blockedBy!, /^shard \d+ would go to node4, whose disk is full, or nearly$/)
    // What it is asked to follow is small, and without it it is no member.
    meta.join('node5')
    assert.notEqual(metaOf(plan(meta.register, { full: ['node5'] })), undefined)
  })

  it('gets its share once there is room', () => {
    const meta = cluster(3).admit('node4')
    settle(meta, { full: ['node4'] })
    assert.deepEqual(shares(meta.register), { node1: 8, node2: 8, node3: 8 })
    settle(meta)
    assert.deepEqual(shares(meta.register), { node1: 6, node2: 6, node3: 6, node4: 6 })
  })

  it('keeps what it has, and gives what others take', () => {
    assert.deepEqual(plan(cluster(4).register, { full: ['node2'] }).operations, [])
    const meta = cluster(3).admit('node4')
    settle(meta, { full: ['node1', 'node2', 'node3'] })
    assert.deepEqual(shares(meta.register), { node1: 6, node2: 6, node3: 6, node4: 6 })
  })

  it('does not hold up moves to others', () => {
    const meta = cluster(3).admit('node4', 'node5')
    const result = plan(meta.register, { full: ['node5'] })
    const going = shardsOf(result).flatMap(added)
    assert.ok(going.length > 0)
    assert.ok(going.every(node => node === 'node4'))
    assert.match(result.blockedBy!, /node5, whose disk is full/)
  })

  it('is named where a move has begun already, which goes on when it can', () => {
    const meta = cluster(3).admit('node4')
    for (const request of plan(meta.register).operations) meta.open(request)
    const { operations, blockedBy } = plan(meta.register, { full: ['node4'] })
    assert.deepEqual(operations, [])
    assert.match(blockedBy!, /^shard \d+ waits for node4, whose disk is full, or nearly$/)
  })
})

describe('a replica that can not go on', () => {
  it('is replaced by another on its node, and nothing else moves', () => {
    const meta = cluster(4, 64)
    const record = meta.register.shards.get(5)!
    const [old] = record.voters
    meta.run('META.UNFIT', { group: 5, replica: old!.replica })
    const { operations } = plan(meta.register)
    assert.deepEqual(
      operations.map(({ group }) => group),
      [5],
    )
    assert.deepEqual(added(operations[0]!), [old!.node])
    assert.deepEqual(nodes(operations[0]!.voters), nodes(record.voters))
  })

  it('is replaced even when it is what an open operation wishes for', () => {
    const meta = cluster(4, 64)
    const [old] = meta.register.shards.get(5)!.voters
    meta.run('META.UNFIT', { group: 5, replica: old!.replica })
    const operation = meta.open(plan(meta.register).operations[0]!)!
    const fresh = operation.voters.find(({ node }) => node === old!.node)!
    meta.run('META.UNFIT', { group: 5, replica: fresh.replica })
    const [again] = plan(meta.register).operations
    assert.equal(again!.replaces, operation.id)
    assert.deepEqual(added(again!), [old!.node])
  })
})

describe('zones', () => {
  it('hold one replica of a shard each, where there are as many as replicas, and keep it so when one node of each leaves', () => {
    const zones = new Map([1, 2, 3, 4, 5, 6].map(i => [`node${i}`, `zone${i % 3}`]))
    const { node } = foundRequest()
    const meta = new MetaShard().found({
      settings: { ...settings, shardCount: 64 },
      node: { ...node, zone: zones.get('node1')! },
    })
    for (const [nodeId, zone] of [...zones].slice(1)) {
      meta.join(nodeId, { zone })
      meta.run('META.STATE', { nodeId, state: 'member' })
      settle(meta)
    }
    const assertApart = () => {
      for (const [group, { voters }] of meta.register.shards)
        if (group !== metaGroup)
          assert.equal(new Set(voters.map(member => zones.get(member.node))).size, 3, `shard ${group}`)
    }
    assertApart()
    for (const nodeId of ['node1', 'node2', 'node3']) meta.run('META.STATE', { nodeId, state: 'leaving' })
    settle(meta)
    assertApart()
  })
})
