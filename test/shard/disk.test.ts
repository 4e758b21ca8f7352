import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { encodeEnvelope } from '../../src/commands/envelope.ts'
import { commands } from '../../src/commands/table.ts'
import { encodeRecord } from '../../src/keyspace/record.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { draft, type Entry, type Message, type MessageKind } from '../../src/raft/types.ts'
import { encodeConfiguration, noConfState } from '../../src/shard/configuration.ts'
import type { Settled } from '../../src/shard/proposal.ts'
import type { Replica } from '../../src/shard/replica.ts'
import { SimCluster, type SimMachine } from '../sim/sim-cluster.ts'
import { LoneHost } from './lone-host.ts'

/** Of the simulated cluster: 20 ticks of 50 ms. */
const electionMs = 1_000

async function three(seed: number): Promise<SimCluster> {
  const cluster = new SimCluster(seed, { shardCount: 1 })
  assert.ok(await cluster.boot(3), JSON.stringify(cluster.describe()))
  return cluster
}

const replicaOf = (machine: SimMachine): Replica => machine.node!.host.group(0)!
const run = (cluster: SimCluster, ms: number, isDone?: () => boolean) =>
  cluster.world.run(cluster.world.nowMs + ms, isDone)
const leaderOf = ({ machines }: SimCluster) => machines.find(machine => replicaOf(machine).isLeader)
const others = ({ machines }: SimCluster, not: SimMachine) => machines.filter(machine => machine !== not)

/** Proposes SET key value; the list gets what its caller is told. */
function put(machine: SimMachine, key: string): Settled[] {
  const told: Settled[] = []
  replicaOf(machine).enqueueWrite({
    operations: [{ command: 'SET', args: [fromUtf8(key), fromUtf8('v')] }],
    session: null,
    deadline: machine.clock.now() + 60_000,
    settle: result => void told.push(result),
  })
  machine.node!.host.touch(replicaOf(machine))
  return told
}

function valueAt(machine: SimMachine, key: string): string | null {
  const reply = replicaOf(machine).peek(commands.get('GET')!, [fromUtf8(key)])
  return reply?.kind === 'value' ? toUtf8(reply.value) : null
}

async function written(cluster: SimCluster, key: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    assert.ok(await run(cluster, 10_000, () => leaderOf(cluster) !== undefined))
    const told = put(leaderOf(cluster)!, key)
    assert.ok(await run(cluster, 10_000, () => told.length > 0), `SET ${key} is not answered`)
    if (told[0]!.ok) return
    // Whoever led before may not know yet that it does no more: it refuses, and nothing was appended.
    assert.ok(told[0]!.isDefinite && attempt < 10, JSON.stringify(told[0]))
    await run(cluster, 50)
  }
}

describe('what a journal write takes', () => {
  it('is told while one is under way, and is nothing where none was of late', async () => {
    const cluster = await three(1)
    await written(cluster, 'before')
    await run(cluster, 5_000)
    const leader = leaderOf(cluster)!
    const { host } = leader.node!
    assert.equal(host.syncMs, 0)
    leader.disk.stall()
    put(leader, 'key')
    await run(cluster, 300)
    assert.ok(host.syncMs > 250 && host.syncMs <= 300, `${host.syncMs} ms`)
    leader.disk.unstall()
    await run(cluster, 5_000)
    assert.equal(host.syncMs, 0)
  })
})

describe('a leader whose disk hangs', () => {
  it('hands over within the election timeout, disturbs nobody, and follows once the disk is back', async () => {
    for (const seed of [1, 2, 3]) {
      const cluster = await three(seed)
      await written(cluster, 'before')
      const hung = leaderOf(cluster)!
      const { term } = replicaOf(hung).raft
      hung.disk.stall()
      const waiting = put(hung, 'waiting')
      const begun = cluster.world.nowMs
      const isMoved = () => others(cluster, hung).some(machine => replicaOf(machine).isLeader)
      assert.ok(await run(cluster, 10_000, isMoved), 'nobody else leads')
      const tookMs = cluster.world.nowMs - begun
      assert.ok(tookMs < electionMs, `it took ${tookMs} ms`)
      assert.equal(hung.node!.host.isDiskHung, true)
      await written(cluster, 'meanwhile')
      await run(cluster, 30 * electionMs)
      const heir = leaderOf(cluster)!
      assert.notEqual(heir, hung)
      // One election, by the hand-over: the replica that can't write asks for none.
      assert.equal(replicaOf(heir).raft.term, term + 1)
      assert.equal(waiting.length, 0, 'nobody here can know what became of it')

      hung.disk.unstall()
      assert.ok(await run(cluster, 10_000, () => valueAt(hung, 'meanwhile') === 'v'))
      assert.equal(hung.node!.host.isDiskHung, false)
      // It had reached the others before it hung over them: written once, and told so.
      assert.ok(await run(cluster, 10_000, () => waiting.length > 0))
      assert.equal(waiting[0]!.ok, true)
      assert.equal(replicaOf(leaderOf(cluster)!).raft.term, term + 1)
      assert.deepEqual(cluster.violations, [])
    }
  })

  it('steps down when no follower is known to have caught up', async () => {
    const cluster = await three(4)
    await written(cluster, 'before')
    const hung = leaderOf(cluster)!
    for (const follower of others(cluster, hung)) follower.disk.stall()
    for (let more = 0; more < 1_100; more++) put(hung, `k${more}`)
    await run(cluster, 200)
    hung.disk.stall()
    put(hung, 'more')
    assert.ok(await run(cluster, 3 * electionMs, () => !replicaOf(hung).isLeader))
    for (const machine of cluster.machines) machine.disk.unstall()
    await written(cluster, 'after')
  })

  it('leads again at once after a restart, as the only voter: there is nobody to wait for', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    assert.equal((await lone.put(7, 'k', 'v')).ok, true)
    await lone.restart()
    assert.ok(await lone.run(electionMs / 4, () => lone.host.replica(7)!.isLeader))
  })

  it('goes on leading as the only voter: what is committed can be read', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    assert.equal((await lone.put(7, 'k', 'v')).ok, true)
    lone.disk.stall()
    const told = lone.propose(7, 'SET', 'k', 'w')
    await lone.run(10 * electionMs)
    assert.equal(lone.host.isDiskHung, true)
    assert.equal(lone.host.replica(7)?.isLeader, true)
    assert.equal(lone.get(7, 'k'), 'v')
    lone.disk.unstall()
    assert.ok(await lone.run(1_000, () => lone.get(7, 'k') === 'w'))
    assert.deepEqual(
      told.map(({ ok }) => ok),
      [false],
    )
  })
})

describe('writes on disks without room', () => {
  /** Replica 7 alone; which nodes are nearly full, and whether this one is full, is the test's to say. */
  const make = () => {
    const lone = new LoneHost()
    const says = { nearlyFull: new Set<string>(), isFull: false }
    lone.room = {
      isFull: () => says.isFull,
      isNearlyFull: node => says.nearlyFull.has(node),
      isOfUsers: group => group === 3,
    }
    return { lone, says }
  }
  const outcome = (told: Settled) =>
    told.ok ? 'done' : told.isDefinite ? (told.error as { code?: string }).code : 'unknown'

  it('are refused for certain while no quorum has room, but for those that take away; reads go on', async () => {
    const { lone, says } = make()
    lone.start()
    await lone.found(3, 7)
    assert.equal(outcome(await lone.put(7, 'k', 'v')), 'done')
    says.nearlyFull.add('n1')
    const before = lone.host.replica(7)!.raft.lastIndex
    assert.equal(outcome(await lone.put(7, 'k', 'w')), 'DISK_FULL')
    assert.equal(lone.host.replica(7)!.raft.lastIndex, before, 'no entry was made')
    assert.equal(lone.get(7, 'k'), 'v')
    const deleted = lone.propose(7, 'DEL', 'k')
    assert.ok(await lone.run(1_000, () => deleted.length > 0))
    assert.equal(outcome(deleted[0]!), 'done')
    says.nearlyFull.clear()
    assert.equal(outcome(await lone.put(7, 'k', 'x')), 'done')
  })

  it('of groups of the cluster itself go on', async () => {
    const { lone, says } = make()
    lone.start()
    says.nearlyFull.add('n1')
    says.isFull = true
    await lone.found(4, 9)
    assert.equal(outcome(await lone.put(9, 'k', 'v')), 'done')
  })

  it('go on while the voters with room are a quorum, in both halves of a joint configuration', async () => {
    const cases: [nearlyFull: string[], voters: number[], outgoing: number[], hasRoom: boolean][] = [
      [['n8'], [7, 8, 9], [], true],
      [['n8', 'n9'], [7, 8, 9], [], false],
      [['n1', 'n8'], [7, 8, 9, 10, 11], [], true],
      [['n8'], [7, 8], [], false],
      [['n10', 'n11'], [7, 8, 9], [7, 10, 11], false],
      [['n10'], [7, 8, 9], [7, 8, 10], true],
    ]
    for (const [nearlyFull, voters, votersOutgoing, hasRoom] of cases) {
      const { lone, says } = make()
      lone.start()
      await lone.found(3, 7)
      const replica = lone.host.replica(7)!
      const members = [...new Set([...voters, ...votersOutgoing])]
      replica.configuration = {
        ...replica.configuration,
        members: members.map(id => ({ replica: id, node: id === 7 ? 'n1' : `n${id}` })),
        confState: { ...replica.configuration.confState, voters, votersOutgoing },
      }
      for (const node of nearlyFull) says.nearlyFull.add(node)
      assert.equal(outcome(await lone.put(7, 'k', 'v')), hasRoom ? 'done' : 'DISK_FULL', nearlyFull.join())
    }
  })

  it('are not taken in by a full follower, which votes and hears its leader as before', async () => {
    const { lone, says } = make()
    lone.open()
    const configuration = encodeConfiguration({
      group: 3,
      index: 1,
      operation: 0,
      members: [7, 8, 9].map(replica => ({ replica, node: replica === 7 ? 'n1' : `n${replica}` })),
      confState: { ...noConfState, voters: [7, 8, 9] },
    })
    const born = { index: 1, term: 1 }
    await lone.write({
      replica: 7,
      hardState: { term: 1, vote: 0, commit: 1 },
      entries: [],
      configuration,
      reset: born,
    })
    await lone.restart()
    const { host, sent } = lone.life
    const step = (message: Partial<Message>, kind: MessageKind) => {
      sent.length = 0
      host.receive('n8', [{ group: 3, message: { ...draft(kind, 7, 8, 2), ...message } }])
      return lone.run(100)
    }
    const answers = () => sent.flatMap(({ frame }) => frame.map(({ message }) => message.kind))
    const entries: Entry[] = [{ term: 2, index: 2, kind: 'normal', data: new Uint8Array(10) }]
    says.isFull = true
    await step({ index: 1, logTerm: 1 }, 'MsgVote')
    assert.deepEqual(answers(), ['MsgVoteResp'])
    await step({}, 'MsgHeartbeat')
    assert.deepEqual(answers(), ['MsgHeartbeatResp'])
    await step({ index: 1, logTerm: 1, entries }, 'MsgApp')
    assert.deepEqual(answers(), [])
    assert.equal(host.replica(7)!.raft.lastIndex, 1)
    assert.equal(host.counters.messagesWithoutRoom, 1)
    const entryOf = (index: number, ...names: string[]): Entry => {
      const operations = names.map(command => ({ command, args: ['s/0', '1', '0', '9'].map(fromUtf8) }))
      return {
        term: 2,
        index,
        kind: 'normal',
        data: encodeEnvelope({ timestampMs: 1, session: null, operations }),
      }
    }
    await step({ index: 1, logTerm: 1, entries: [entryOf(2, 'STREAM.TRIM', 'SET')] }, 'MsgApp')
    assert.deepEqual(answers(), [], 'one of them adds')
    await step({ index: 1, logTerm: 1, entries: [entryOf(2, 'STREAM.TRIM', 'DEL')] }, 'MsgApp')
    assert.deepEqual(answers(), ['MsgAppResp'], 'what only takes away is the way out')
    assert.equal(host.replica(7)!.raft.lastIndex, 2)
    says.isFull = false
    await step({ index: 2, logTerm: 2, entries: [{ ...entries[0]!, index: 3 }] }, 'MsgApp')
    assert.deepEqual(answers(), ['MsgAppResp'])
    assert.equal(host.replica(7)!.raft.lastIndex, 3)
  })
})

describe('an entry of the journal that can not be read any more', () => {
  const lived = async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    for (let i = 0; i < 20; i++) assert.equal((await lone.put(7, `k${i}`, 'v')).ok, true)
    return lone
  }

  it('is made needless by a checkpoint where it was applied: nothing is lost, nobody is blamed', async () => {
    const lone = await lived()
    const { journal } = lone.life
    const { appliedIndex } = lone.host.replica(7)!
    assert.ok(journal.firstIndex(7) < 5)
    lone.host.entryLost(7, 5, 'a wrong checksum')
    assert.ok(await lone.run(5_000, () => journal.firstIndex(7) > 5), 'the journal lets go of it')
    assert.ok(lone.host.replica(7)!.state.checkpointed!.index >= appliedIndex)
    assert.equal(lone.host.replica(7)!.halted, null)
    await lone.restart()
    await lone.led(7)
    assert.ok(await lone.run(1_000, () => lone.get(7, 'k19') === 'v'))
  })

  it('ends its replica where it was not', async () => {
    const lone = await lived()
    lone.host.entryLost(7, lone.host.replica(7)!.appliedIndex + 1, 'a wrong checksum')
    assert.equal(lone.host.replica(7)!.halted, 'a wrong checksum')
    assert.equal(lone.host.unfit().get(7)?.why, 'a wrong checksum')
  })
})

describe('a replica that a scrub found broken', () => {
  it('falls silent at once, for good', async () => {
    const lone = new LoneHost()
    lone.start()
    await lone.found(3, 7)
    lone.host.condemn(7, 'rows are missing')
    assert.equal((await lone.put(7, 'k', 'v')).ok, false)
    await lone.run(1_000)
    await lone.restart()
    assert.equal(lone.host.unfit().get(7)?.why, 'rows are missing')
    lone.host.condemn(8, 'nobody has it')
  })
})

describe('a log of records that the disk does not give back at a start', () => {
  it('is tried again, and its replica is mute until then; the node goes on with the others', async () => {
    const lone = new LoneHost()
    lone.start()
    for (const [group, replica] of [
      [3, 7],
      [4, 8],
    ] as const) {
      await lone.found(group, replica)
      const record = encodeRecord({ value: fromUtf8('r'), key: null, headers: [], type: 0 })
      const told: Settled[] = []
      lone.host.replica(replica)!.enqueueWrite({
        operations: [{ command: 'STREAM.APPEND', args: [...['s/0', '1', '0'].map(fromUtf8), record] }],
        session: null,
        deadline: lone.life.clock.now() + 5_000,
        settle: result => void told.push(result),
      })
      lone.host.touch(lone.host.replica(replica)!)
      assert.ok(await lone.run(5_000, () => told[0]?.ok === true))
      await lone.waitFor(lone.host.checkpoint(lone.host.replica(replica)!))
    }
    lone.kill()
    const [log] = lone.disk.list('streams/7/1/1')
    lone.disk.failOnce('open', `streams/7/1/1/${log}/${'0'.repeat(20)}.store`)
    lone.start()
    await lone.led(8)
    assert.equal(lone.host.replica(8)!.isLeader, true)
    assert.deepEqual([lone.host.replica(7), lone.host.knows(7), lone.host.unfit().size], [undefined, true, 0])
    await lone.led(7)
    const { records } = lone.host.replica(7)!.state
    assert.equal(records.read(`1/${log}`, 0, 1, 1).length, 1)
  })
})
