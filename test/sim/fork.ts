/**
 * The case that Raft §5.4.1 is about, made on purpose when all is well: an old leader, cut off, writes a long tail that
 * nobody else has; the others elect another one, which commits in its term and dies. Of the two that are left the one
 * with the shorter log must win, and one of them must win soon: its log ends in the later term.
 */
import type { Reply } from '../../src/commands/command.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { shardOfSlot, slotOf } from '../../src/lib/slot.ts'
import { encodeChange } from '../../src/shard/configuration.ts'
import type { Replica } from '../../src/shard/replica.ts'
import { textOf } from './client.ts'
import type { SimCluster, SimMachine } from './sim-cluster.ts'
import type { Trouble } from './trouble.ts'

/** A process may be late for seconds where the seed has drawn that. */
const electMs = 20_000
/** Longer: a follower may be pulling a snapshot from the one that is gone, and gives up after 45 s. */
const commitMs = 60_000
const tailMax = 12

function writeTail(machine: SimMachine, replica: Replica, random: Prng): void {
  // Sometimes a change of configuration (that changes nothing) is lost with the tail.
  if (random.next() < 0.5) {
    const { operation, index } = replica.configuration
    const context = encodeChange({ operation, expectedIndex: index, added: [] })
    replica.proposeChange({
      transition: 'auto',
      changes: [{ kind: 'updateNode', replica: replica.id }],
      context,
    })
  }
  for (let i = random.below(tailMax); i >= 0; i--) {
    const args = [Buffer.from(`{x}${i % 3}`), Buffer.from(`tail ${i}`)]
    const operations = [{ command: 'SET', args }]
    const deadline = machine.clock.now() + 1_000
    replica.enqueueWrite({
      operations,
      session: null,
      deadline,
      settle: () => {},
    })
  }
  machine.node?.host.touch(replica)
}

/** What went wrong, or null; nothing is wrong where there are too few voters to play it. */
export async function forkLogs(cluster: SimCluster, trouble: Trouble, random: Prng): Promise<string | null> {
  const { world, network, machines } = cluster
  const group = random.below(cluster.settings.shardCount)
  const of = (machine: SimMachine) => machine.node?.host.group(group)
  const leads = (machine: SimMachine) => of(machine)?.isLeader === true
  const old = machines.find(leads)
  const replica = old === undefined ? undefined : of(old)
  if (old === undefined || replica === undefined) return null
  const { confState, members } = replica.configuration
  if (confState.votersOutgoing.length > 0 || confState.voters.length < 3) return null
  const { term } = replica.raft
  network.isolate(old.address)
  writeTail(old, replica, random)
  // Stopped, it will not know that time has passed: it takes itself for the leader when it goes on.
  await world.run(world.nowMs + 20)
  if (old.node === null) {
    network.mend([old.address])
    return null
  }
  old.clock.isPaused = true
  const second = () =>
    machines.find(each => {
      const its = of(each)
      return leads(each) && its !== undefined && its.raft.term > term && its.appliedTerm === its.raft.term
    })
  if (!(await world.run(world.nowMs + commitMs, () => second() !== undefined))) {
    old.clock.resume()
    network.mend([old.address])
    return `nothing committed in group ${group} ${commitMs} ms after ${old.nodeId} was cut off`
  }
  const next = second()!
  const wrong = await readAtOld(cluster, old, next, group)
  old.clock.resume()
  if (wrong !== null) return wrong
  await world.run(world.nowMs + random.below(50))
  const isLeft = (id: number) => members.find(member => member.replica === id)?.node !== next.nodeId
  const left = confState.voters.filter(isLeft).length
  trouble.crash(next, electMs + 1_000)
  network.mend([old.address])
  const hasLeader = () => machines.some(each => leads(each) && of(each)!.raft.term > term)
  const isDone = await world.run(world.nowMs + electMs, hasLeader)
  trouble.letUp(next)
  if (isDone || left * 2 <= confState.voters.length) return null
  return `no leader of group ${group} ${electMs} ms after ${next.nodeId} crashed, though a majority runs`
}

/** A read through the old leader, which knows of nothing, must not miss what the next one has acknowledged. */
async function readAtOld(
  cluster: SimCluster,
  old: SimMachine,
  next: SimMachine,
  group: number,
): Promise<string | null> {
  const { world, settings } = cluster
  const key = keyIn(group, settings.shardCount)
  const value = `fork ${world.eventCount}`
  const told = async (machine: SimMachine, command: string, args: readonly string[]) => {
    let reply: Reply | null = null
    let isSettled = false
    const call = { command, args: args.map(fromUtf8), session: null, read: 'linearizable' as const }
    machine.node
      ?.execute({ ...call, forward: true, hops: 0, shard: null, timeoutMs: 1_000 })
      .then(
        result => {
          reply = result.reply
        },
        () => {},
      )
      .finally(() => {
        isSettled = true
      })
    await world.run(world.nowMs + 2_000, () => isSettled)
    return reply as Reply | null
  }
  if ((await told(next, 'SET', [key, value])) === null) return null
  old.clock.resume()
  const reply = await told(old, 'GET', [key])
  if (reply === null || textOf(reply) === value) return null
  return `${old.nodeId}, cut off and deposed, answers ${textOf(reply)} for ${key}: ${value} was acknowledged before`
}

function keyIn(group: number, shardCount: number): string {
  for (let i = 0; ; i++)
    if (shardOfSlot(slotOf(fromUtf8(`fork${i}`)), shardCount) === group) return `fork${i}`
}

/**
 * Writes that are under way when they are replaced: the disk of a follower hangs with entries of a leader that dies and
 * loses them; another leader puts its own in their places, and commits them. Then the disk comes back, and the first
 * acknowledgement speaks of entries that are no more.
 */
export async function stallFollower(
  cluster: SimCluster,
  trouble: Trouble,
  random: Prng,
): Promise<string | null> {
  const { world, network, machines } = cluster
  const group = random.below(cluster.settings.shardCount)
  const of = (machine: SimMachine) => machine.node?.host.group(group)
  const leads = (machine: SimMachine) => of(machine)?.isLeader === true
  const old = machines.find(leads)
  const replica = old === undefined ? undefined : of(old)
  if (old === undefined || replica === undefined) return null
  const { confState, members } = replica.configuration
  if (confState.votersOutgoing.length > 0 || confState.voters.length < 3) return null
  const machineOf = (id: number) =>
    machines.find(each => each.nodeId === members.find(member => member.replica === id)?.node)
  const [stalled, ...others] = confState.voters.map(machineOf).filter(each => each !== old)
  if (stalled?.node == null) return null
  const { term } = replica.raft
  stalled.disk.stall()
  old.disk.stall()
  for (const other of others) if (other !== undefined) network.cut(old.address, other.address)
  writeTail(old, replica, random)
  await world.run(world.nowMs + 20 + random.below(80))
  trouble.crash(old, 300)
  for (const other of others) if (other !== undefined) network.uncut(old.address, other.address)
  const hasCommitted = () =>
    machines.some(each => {
      const its = of(each)
      return leads(each) && its !== undefined && its.raft.term > term && its.appliedTerm === its.raft.term
    })
  const isDone = await world.run(world.nowMs + commitMs, hasCommitted)
  await world.run(world.nowMs + random.below(500))
  stalled.disk.unstall()
  trouble.letUp(old)
  return isDone ? null : `no leader of group ${group} while the disk of ${stalled.nodeId} hangs`
}
