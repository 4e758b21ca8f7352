/**
 * Makes faults of a plan happen, and undoes them. What is damaged for good (rot, a misdirected write, an empty disk) only
 * ever hits one machine a run, and only while every group that it votes in has two other voters: never more copies of an
 * entry are hurt than the protocol can mend.
 */
import { type Release, thisRelease } from '../../src/commands/release.ts'
import type { Bytes } from '../../src/lib/bytes.ts'
import type { Prng } from '../../src/lib/prng.ts'
import { metaGroup } from '../../src/node/meta-register.ts'
import type { Node } from '../../src/node/node.ts'
import type { Replica } from '../../src/shard/replica.ts'
import { decodeHeader, type FrameHeader, frameAlignment, sealFlag } from '../../src/storage/frame.ts'
import { goodNetwork } from './network.ts'
import { releaseWithout } from './releases.ts'
import type { SimCluster, SimMachine } from './sim-cluster.ts'
import type { Fault, FaultKind } from './swarm.ts'
import { goodClock } from './world.ts'

const machinesMax = 7
const dayMs = 86_400_000
/** Rot needs so long until it can't be mistaken for a torn write any more (the journal seals after 50 ms). */
const sealedMs = 400
const supervisorMs = 1_000
/** Raft messages whose loss hurts most by itself. */
const lossKinds = [
  ['MsgAppResp'],
  ['MsgHeartbeat', 'MsgHeartbeatResp'],
  ['MsgVote', 'MsgVoteResp', 'MsgPreVote', 'MsgPreVoteResp'],
  ['MsgApp'],
  ['MsgSnap'],
  ['fetchChunk'],
  ['ask', 'heartbeat'],
  ['execute'],
] as const

export class Trouble {
  /** How often each kind really happened. */
  readonly counts: Record<string, number> = {}
  private readonly cluster: SimCluster
  private victim: SimMachine | null = null
  private leaver: SimMachine | null = null
  /** Machines that only a `replace` brings back. */
  private readonly emptied = new Set<SimMachine>()
  private readonly stalledUntilMs = new Map<SimMachine, number>()
  /** Not to be crashed before then. */
  private readonly sparedUntilMs = new Map<SimMachine, number>()
  /** Down by a plan, not by themselves: the supervisor leaves them alone until then. */
  private readonly downUntilMs = new Map<SimMachine, number>()
  private readonly fullDisks = new Map<SimMachine, () => void>()
  private readonly joiners = new Set<SimMachine>()
  private isOver = false

  constructor(cluster: SimCluster) {
    this.cluster = cluster
    this.supervise()
  }

  /** From the boot on: whoever leads a group that has just entered a joint configuration crashes or is cut off. */
  disturbJoints(random: Prng): void {
    const { invariants, network, world } = this.cluster
    if (invariants === null) return
    // Who hears of a change, but not that it is committed, has to finish it under another leader.
    invariants.onChange = node => {
      const leader = this.cluster.machines.find(each => each.nodeId === node)
      if (this.isOver || leader === undefined || random.next() < 0.8) return
      network.isolate(leader.address)
      this.later(500 + random.next() * 3_000, () => network.mend([leader.address]))
    }
    invariants.onJoint = group => {
      if (random.next() < 0.5) return
      const forMs = 500 + random.next() * 3_000
      const slow = random.next() < 0.3 ? this.leaderOf(group) : null
      if (slow !== null && !this.isOver) {
        // The others may be a majority of those that come; of those that go they are none.
        this.stall(slow, forMs / 8)
        return
      }
      world.at(random.next() * 4, () => {
        const leader = this.leaderOf(group)
        if (this.isOver || leader === null) return
        if (random.next() < 0.5) this.crash(leader, forMs)
        else {
          network.isolate(leader.address)
          this.later(forMs, () => network.mend([leader.address]))
        }
      })
    }
  }

  /** Some replicas apply late, as on a machine that has much to apply: reads and restarts meet them in between. */
  private slowApply(amount: number, random: Prng): void {
    const { invariants, world, machines } = this.cluster
    if (invariants === null) return
    const heldUntilMs = new WeakMap<Replica, number>()
    invariants.holdApply = (node, replica) => {
      const { nowMs } = world
      const untilMs = heldUntilMs.get(replica) ?? 0
      if (untilMs > nowMs) return untilMs - nowMs
      if (this.isOver || random.next() > 0.05) return 0
      const heldMs = 1 + random.next() * 80 * amount
      heldUntilMs.set(replica, nowMs + heldMs)
      const machine = machines.find(each => each.nodeId === node)
      const host = machine?.node?.host
      machine?.clock.soon(heldMs + 0.01, () => {
        // It may have been destroyed meanwhile.
        if (host?.replica(replica.id) === replica) host.touch(replica)
      })
      return heldMs
    }
  }

  /** From the boot on: nodes crash while the journal has just carried entries forward, and no checkpoint came since. */
  crashCopies(random: Prng): void {
    const { invariants, machines, sightings } = this.cluster
    if (invariants === null) return
    invariants.onCopied = node => {
      const machine = machines.find(each => each.nodeId === node)
      if (this.isOver || machine === undefined || random.next() > 0.02) return
      this.later(random.next() * 60, () => {
        if (this.crash(machine, 100 + random.next() * 1_000)) sightings.see('copyCrashed')
      })
    }
  }

  /**
   * Before the boot: one of the machines has a release that lacks a command, or what others write of a new form of the
   * envelope (null), until it is upgraded; and nobody has thought of a feature level.
   */
  makeOlder(machine: SimMachine, command: string | null): void {
    if (command !== null) machine.release = releaseWithout(machine.release, command)
    else machine.lacksNextVersion = true
    machine.mayMisread = true
    this.older = machine
  }

  /** What all machines run in the end. */
  newest: Release = thisRelease

  /** One machine after the other gets the next release; now and then one is set back, and up again at the end. */
  private rollUpgrades(forMs: number, amount: number, random: Prng): boolean {
    if (this.newest === thisRelease) return false
    for (const machine of this.cluster.machines)
      if (machine.release === thisRelease)
        this.later(random.next() * forMs, () => this.change(machine, this.newest))
    if (amount < 0.4)
      this.later((0.5 + 0.5 * random.next()) * forMs, () => {
        const { machines } = this.cluster
        const machine = machines[random.below(machines.length)]!
        // Of what the others write it may understand nothing: of three, two go on.
        if (machine.release !== this.newest || this.older !== null || !this.canLose(machine)) return
        this.victim = machine
        machine.mayMisread = true
        if (this.change(machine, thisRelease)) this.cluster.sightings.see('releaseSetBack')
      })
    return true
  }

  /** Another release, by a restart. False: not now. */
  private change(machine: SimMachine, release: Release): boolean {
    if (machine === this.older || machine.ended === 'left' || this.isSpared(machine)) return false
    machine.release = release
    if (machine.node !== null) machine.crash()
    if (!this.emptied.has(machine)) this.start(machine)
    return true
  }

  /** At the end: whatever is behind comes up. */
  private changeAll(): void {
    const behind = this.behind
    for (const machine of behind) this.change(machine, this.newest)
    if (behind.length > 0) this.cluster.world.at(100, () => this.changeAll())
  }

  private get behind(): SimMachine[] {
    const { machines } = this.cluster
    return machines.filter(each => each.release !== this.newest && each.ended !== 'left')
  }

  private upgrade(): void {
    const { older } = this
    const { sightings, world } = this.cluster
    if (older === null) return
    if (this.isSpared(older)) {
      world.at(100, () => this.upgrade())
      return
    }
    this.older = null
    // What it did not understand it must not have passed over.
    const waiting = new Map<number, number>()
    for (const replica of older.node?.host.all() ?? [])
      if (replica.halted !== null && !older.node!.host.unfit().has(replica.id))
        waiting.set(replica.id, replica.appliedIndex)
    if (waiting.size > 0) sightings.see('entryNotUnderstood')
    older.release = this.newest
    older.lacksNextVersion = false
    if (older.node !== null) older.crash()
    this.start(older)
    const look = () => {
      for (const [id, index] of waiting) {
        if ((older.node?.host.replica(id)?.appliedIndex ?? 0) <= index) continue
        sightings.see('upgraded')
        waiting.delete(id)
      }
      if (waiting.size > 0) world.at(250, look)
    }
    look()
  }

  private older: SimMachine | null = null

  /** A process begins: it may be asked things. */
  onStart: ((machine: SimMachine) => void) | null = null

  begin(faults: readonly Fault[]): void {
    for (const fault of faults) this.cluster.world.at(fault.atMs, () => this.happen(fault))
  }

  /** Everything is repaired, and nothing more breaks. */
  end(): void {
    const { network, machines, world } = this.cluster
    this.isOver = true
    Object.assign(network.faults, goodNetwork)
    network.heal()
    for (const machine of machines) {
      machine.setWall(0)
      Object.assign(machine.clockFaults, goodClock)
      machine.diskDelay.meanMs = 0.5
      this.mendDisk(machine)
      machine.clock.resume()
      this.downUntilMs.delete(machine)
    }
    this.upgrade()
    this.changeAll()
    for (const machine of machines) machine.scrub()
    // What is slow or late in a running process stays so until it starts again: that is no fault to wait for.
    world.note('healed')
  }

  /** It need not wait any longer to come back. */
  letUp(machine: SimMachine): void {
    this.downUntilMs.delete(machine)
  }

  get isMending(): boolean {
    return this.emptied.size > 0 || this.older !== null || this.behind.length > 0
  }

  // --- Machines come up again -----------------------------------------------------------------------------------------

  /** What systemd does: a process that ended is started again after a while. */
  private supervise(): void {
    const { world, machines, sightings } = this.cluster
    world.at(supervisorMs, () => {
      for (const machine of machines) {
        if (machine.ended === 'left') sightings.see('left')
        else if (machine.ended !== null && /EIO|STORAGE/.test(machine.ended)) sightings.see('diskFailed')
        if (machine.ended?.startsWith('the release of')) sightings.see('releaseRefused')
        if (machine.node?.isServing() && this.joiners.has(machine)) sightings.see('joined')
        if ((this.downUntilMs.get(machine) ?? 0) <= world.nowMs) this.restart(machine)
      }
      this.replaceEmptied()
      if (this.isOver) this.resumeMoves()
      this.supervise()
    })
  }

  private restart(machine: SimMachine): void {
    if (machine.node !== null || machine.ended === 'left' || this.emptied.has(machine)) return
    this.start(machine)
  }

  private start(machine: SimMachine): void {
    // A process that met a failing disk is started again on a machine that was switched off and on: what the kernel's
    // cache held and the platter does not would else be taken for durable.
    if (machine.ended !== null) machine.powerCycle()
    const seeds = this.cluster.machines.map(each => each.address)
    const started = machine.start({ seeds })
    const { node } = machine
    this.onStart?.(machine)
    // A program that is refused ends, and the supervisor tries again; but for one that is told that it was let go before
    // it had quite come.
    started.catch((error: Error & { readonly code?: string }) => {
      if (node === null || machine.node !== node || machine.ended !== null) return
      machine.end(error.code === 'NOT_MEMBER' ? 'left' : error.message)
    })
  }

  private resumeMoves(): void {
    const via = this.serving()
    // A pause may be done later than it was asked for: what counts is what the register says.
    if (via?.controller.register?.isPaused !== true) return
    via.rebalance('resume').catch(() => {
      // No meta leader yet: later.
    })
  }

  private replaceEmptied(): void {
    for (const machine of this.emptied) {
      const via = this.serving(machine)
      if (via === null) continue
      via.replace(machine.nodeId, machine.nodeId).then(
        () => {
          if (!this.emptied.delete(machine)) return
          this.cluster.sightings.see('wiped')
          if (machine.node !== null) machine.crash()
          this.start(machine)
        },
        () => {
          // It is not known to be dead yet, or the meta shard has no leader: later.
        },
      )
    }
  }

  private serving(except: SimMachine | null = null): Node | null {
    for (const { node, clock } of this.cluster.machines)
      if (node !== null && node !== except?.node && !clock.isPaused && node.isServing()) return node
    return null
  }

  // --- Faults ---------------------------------------------------------------------------------------------------------

  private happen(fault: Fault): void {
    if (this.isOver) return
    const { machines, world } = this.cluster
    const machine = machines[fault.pick % machines.length]!
    if (!this.apply(fault, machine)) return
    this.counts[fault.kind] = (this.counts[fault.kind] ?? 0) + 1
    world.note(fault.kind)
  }

  /** Undoes something when the fault is over, unless all is healed by then. */
  private later(ms: number, undo: () => void): void {
    this.cluster.world.at(ms, () => {
      if (!this.isOver) undo()
    })
  }

  /** False where the fault makes no sense now. */
  private apply({ kind, forMs, pick, amount }: Fault, machine: SimMachine): boolean {
    const { cluster } = this
    const { network, world, machines } = cluster
    const other = machines[Math.floor(pick / 1024) % machines.length]!
    const draw = world.random
    switch (kind) {
      // Weather.
      case 'loss':
        network.faults.loss = amount * 0.15
        return true
      case 'duplication':
        network.faults.duplication = amount * 0.2
        return true
      case 'slow-network':
        network.faults.delayMinMs = amount * 10
        network.faults.delayMeanMs = amount * 20
        return true
      case 'in-order':
        network.faults.isReordering = false
        return true
      case 'bounded-queues':
        network.faults.queueMax = 1 + Math.floor(amount * 8)
        return true
      case 'loss-of-kind': {
        const lost = lossKinds[pick % lossKinds.length]!
        network.faults.lossByKind = new Map(lost.map(each => [each, 0.1 + 0.7 * amount]))
        return true
      }
      case 'clock-drift':
        for (const each of machines) each.clockFaults.rate = 1 + (draw.next() - 0.5) * 0.1 * amount
        return true
      case 'late-ticks':
        for (const each of machines) each.clockFaults.lateMeanMs = draw.next() * 30 * amount
        return true
      case 'stalls':
        for (const each of machines) {
          each.clockFaults.stallRate = 0.002
          each.clockFaults.stallMsMax = 3_000 * amount
        }
        return true
      case 'slow-disk':
        for (const each of machines) if (draw.next() < 0.6) each.diskDelay.meanMs = 1 + 40 * amount
        return true

      case 'joint-trouble':
        return this.cluster.invariants?.onJoint != null
      case 'slow-apply':
        this.slowApply(amount, draw.fork())
        return true
      case 'copy-trouble':
        return this.cluster.invariants?.onCopied != null
      case 'older-release':
        if (this.older === null) return false
        cluster.writesNextVersion = cluster.knowsNextVersion
        world.at(forMs, () => this.upgrade())
        return true
      case 'rolling-upgrade':
        return this.rollUpgrades(forMs, amount, draw.fork())

      // Processes.
      case 'crash':
        return this.crash(machine, forMs)
      case 'crash-in-recovery':
        if (!this.crash(machine, forMs)) return false
        // Most of a recovery is over after some ms: the log is read, a leader heard of.
        this.later(forMs, () => {
          this.restart(machine)
          this.later(amount ** 3 * 100, () => {
            const isRecovering = machine.node?.isServing() === false
            if (this.crash(machine, forMs) && isRecovering) cluster.sightings.see('crashInRecovery')
          })
        })
        return true
      case 'long-crash':
        return this.crash(machine, 15_000 + forMs)
      case 'restart':
        return this.restartCleanly(machine, forMs)
      case 'pause': {
        if (machine.node === null || machine.clock.isPaused) return false
        const { clock } = machine
        clock.isPaused = true
        this.later(forMs, () => clock.resume())
        return true
      }

      // The network.
      case 'isolate':
        network.isolate(machine.address)
        this.later(forMs, () => network.mend([machine.address]))
        return true
      case 'crash-leader': {
        const leader = this.leader(pick)
        return leader !== null && this.crash(leader, forMs)
      }
      case 'isolate-leader': {
        const leader = this.leader(pick)
        if (leader === null) return false
        network.isolate(leader.address)
        this.later(forMs, () => network.mend([leader.address]))
        return true
      }
      case 'partition': {
        const side = machines.filter((_, i) => ((pick >> i) & 1) === 1).map(each => each.address)
        if (side.length === 0 || side.length === machines.length) return false
        network.partition(side)
        this.later(forMs, () => network.mend(side))
        return true
      }
      case 'one-way':
        if (other === machine) return false
        network.cut(machine.address, other.address)
        this.later(forMs, () => network.uncut(machine.address, other.address))
        return true
      case 'clog':
        if (other === machine) return false
        network.clog(machine.address, other.address, forMs)
        return true

      // Clocks.
      case 'wall-step': {
        // One clock at a time: of three, two must be right for anybody to know the time.
        if (machines.length < 3 || machines.some(each => each.wallOffsetMs !== 0)) return false
        const size = [1_000, 4_000, 30_000, dayMs, 365 * dayMs * 3][Math.floor(pick / 64) % 5]!
        machine.setWall(size * (amount - 0.5) * 2)
        this.later(forMs, () => machine.setWall(0))
        return true
      }

      // Disks.
      case 'disk-stall':
        if (machine.node === null || !this.stall(machine, forMs)) return false
        if (forMs > 2_000) cluster.sightings.see('diskStalled')
        return true
      case 'disk-full':
        if (this.fullDisks.has(machine)) return false
        this.fullDisks.set(machine, machine.disk.fill(Math.floor(amount * 4_096)))
        this.later(forMs, () => this.makeRoom(machine))
        return true
      case 'disk-error': {
        if (machine.node === null || machine.disk.fault !== null) return false
        const operation = (['write', 'sync', 'sync', 'read'] as const)[Math.floor(pick / 64) % 4]!
        machine.disk.failOnce(operation)
        return true
      }
      case 'disk-dead':
        if (machine.disk.fault !== null) return false
        machine.disk.fault = (operation, path) =>
          operation === 'read' ? null : Object.assign(new Error(`EIO: ${path}`), { code: 'EIO' })
        this.later(forMs, () => this.mendDisk(machine))
        return true
      case 'read-errors':
        if (machine.node === null || machine.disk.fault !== null || this.isSpared(machine)) return false
        machine.disk.fault = (operation, path) => {
          if (operation !== 'read') return null
          cluster.sightings.see('readFailed')
          return Object.assign(new Error(`EIO: ${path}`), { code: 'EIO' })
        }
        this.later(forMs, () => {
          machine.disk.fault = null
        })
        return true
      case 'row-rot':
        return this.rotRows(machine, draw.uint32(), amount)
      case 'rot':
      case 'misdirected':
        return this.damage(kind, machine, draw.uint32(), amount)
      case 'wipe':
        return this.wipe(machine, pick)

      // Members.
      case 'join': {
        if (machines.length >= machinesMax) return false
        const joiner = cluster.add()
        // Somebody may take the old one: it is refused if the cluster has gone on.
        if (pick % 2 === 0) joiner.release = this.newest
        this.joiners.add(joiner)
        this.start(joiner)
        return true
      }
      case 'leave':
        return this.leave(machine)
      case 'transfer':
        return this.transfer(machine, other)
      case 'hold-moves': {
        const via = this.serving()
        if (via === null) return false
        via.rebalance('pause').catch(() => {})
        this.later(forMs, () => this.resumeMoves())
        return true
      }
    }
  }

  /** The machine that leads a group; null where nobody does. */
  private leader(pick: number): SimMachine | null {
    const groups = [metaGroup, ...Array(this.cluster.settings.shardCount).keys()]
    return this.leaderOf(groups[Math.floor(pick / 64) % groups.length]!)
  }

  private leaderOf(group: number): SimMachine | null {
    return this.cluster.machines.find(({ node }) => node?.host.group(group)?.isLeader === true) ?? null
  }

  /** False where it does not run, or must not crash now. It comes back after `downMs`. */
  crash(machine: SimMachine, downMs: number): boolean {
    const { world } = this.cluster
    if (machine.node === null || this.isSpared(machine)) return false
    machine.crash()
    this.downUntilMs.set(machine, world.nowMs + downMs)
    this.later(downMs, () => this.restart(machine))
    return true
  }

  private restartCleanly(machine: SimMachine, downMs: number): boolean {
    const { world, sightings } = this.cluster
    const { node } = machine
    if (node === null || machine.clock.isPaused || !node.isServing()) return false
    this.downUntilMs.set(machine, world.nowMs + 10_000)
    void machine.stop().then(() => {
      if (machine.node !== null) return
      sightings.see('cleanStop')
      this.downUntilMs.delete(machine)
      world.at(downMs, () => this.restart(machine))
    })
    return true
  }

  /** A journal that can't write can't seal what may have rotted either: such a disk is spared for a moment. */
  private stall(machine: SimMachine, forMs: number): boolean {
    const { nowMs } = this.cluster.world
    if (this.isSpared(machine)) return false
    this.stalledUntilMs.set(machine, nowMs + forMs + sealedMs)
    machine.disk.stall()
    this.later(forMs, () => machine.disk.unstall())
    return true
  }

  private makeRoom(machine: SimMachine): void {
    this.fullDisks.get(machine)?.()
    this.fullDisks.delete(machine)
  }

  private mendDisk(machine: SimMachine): void {
    machine.disk.fault = null
    machine.disk.unstall()
    this.makeRoom(machine)
  }

  // --- Damage for good ------------------------------------------------------------------------------------------------

  /** Whether every group with a voter on this machine has two others that are well. */
  private canLose(machine: SimMachine): boolean {
    if (this.victim !== null && this.victim !== machine) return false
    const { invariants } = this.cluster
    if (invariants === null) return false
    let isVoter = false
    for (const { configurations, lastConfiguration } of invariants.groups.values()) {
      const its = configurations.get(lastConfiguration)?.voters
      if (its === undefined) continue
      const isHere = (id: number) => invariants.ledgers.get(id)?.node === machine.nodeId
      if (![...its.voters, ...its.votersOutgoing].some(isHere)) continue
      isVoter = true
      if (its.votersOutgoing.length > 0 || its.voters.length < 3) return false
    }
    return isVoter && this.leaver === null
  }

  private damage(kind: FaultKind, machine: SimMachine, where: number, amount: number): boolean {
    const { world } = this.cluster
    if (machine.clock.isPaused || this.emptied.has(machine) || !this.canLose(machine)) return false
    if ((this.stalledUntilMs.get(machine) ?? 0) > world.nowMs) return false
    // The last frame of a process that died right behind it has no seal: rot in it can't be told from a torn write.
    if (machine.node === null && machine.stoppedAtMs - machine.wroteAtMs < this.sealMs(machine)) return false
    const names = machine.disk.list('journal').map(name => `journal/${name}`)
    const path = names[where % Math.max(1, names.length)]
    if (path === undefined) return false
    if (machine.disk.fault !== null) return false
    const file = machine.disk.open(path)
    const bytes = file.read(0, file.size())
    file.close()
    const written = bytes.findLastIndex(byte => byte !== 0)
    if (written < 1_024) return false
    this.victim = machine
    machine.isDamaged = true
    if (kind === 'rot') {
      const seal = sealIn(bytes)
      for (let i = 0; i <= where % 3; i++) {
        const at = Math.floor(written * ((amount + i * 0.37) % 1))
        const isInSeal = seal !== null && at >= seal && at < seal + frameAlignment
        // The last frame and the seal behind it rot together no more than a frame rots that has no seal yet.
        if (isInSeal && i > 0) continue
        machine.disk.flipBit(path, at, where % 8)
        if (isInSeal) break
      }
    } else {
      // A sector lands where another one belongs.
      const from = Math.floor((written * amount) / 512) * 512
      const to = Math.floor((where % written) / 512) * 512
      if (from === to) return false
      for (let i = 0; i < 512; i++) {
        const change = bytes[to + i]! ^ (bytes[from + i] ?? 0)
        for (let bit = 0; bit < 8; bit++)
          if (((change >> bit) & 1) === 1) machine.disk.flipBit(path, to + i, bit)
      }
    }
    this.sparedUntilMs.set(machine, world.nowMs + this.sealMs(machine))
    if (where % 4 > 0) this.later(sealedMs + amount * 1_000, () => this.crash(machine, 500 * amount))
    return true
  }

  /** So long after a write it is sealed for certain: the timer may be late. */
  private sealMs({ clockFaults: { lateMeanMs, stallMsMax } }: SimMachine): number {
    return sealedMs + 10 * lateMeanMs + stallMsMax
  }

  private isSpared(machine: SimMachine): boolean {
    return (this.sparedUntilMs.get(machine) ?? 0) > this.cluster.world.nowMs
  }

  /** Rows that can't be read any more; then mostly a restart, whose replicas begin with those that are left. */
  private rotRows(machine: SimMachine, where: number, amount: number): boolean {
    if (machine.clock.isPaused || this.emptied.has(machine) || !this.canLose(machine)) return false
    if (machine.rotRow() === null) return false
    for (let i = where % 8; i > 0; i--) machine.rotRow()
    this.victim = machine
    machine.isDamaged = true
    this.cluster.sightings.see('rowRotten')
    if (where % 4 > 0) this.later(amount * 3_000, () => this.crash(machine, 500 * amount))
    return true
  }

  private wipe(machine: SimMachine, pick: number): boolean {
    if (this.emptied.has(machine) || !this.canLose(machine)) return false
    this.victim = machine
    machine.isDamaged = true
    this.mendDisk(machine)
    machine.wipe()
    this.emptied.add(machine)
    // Somebody starts it without having told the cluster: it must be refused.
    if (pick % 3 === 0) this.later(200, () => this.start(machine))
    return true
  }

  // --- Members --------------------------------------------------------------------------------------------------------

  private leave(machine: SimMachine): boolean {
    const via = this.serving()
    const alive = this.cluster.machines.filter(each => each.ended !== 'left').length
    if (this.leaver !== null || this.victim !== null || via === null || alive < 4) return false
    if (machine.ended === 'left') return false
    this.leaver = machine
    via.leave(machine.nodeId, false).catch(() => {
      this.leaver = null
    })
    return true
  }

  private transfer(machine: SimMachine, to: SimMachine): boolean {
    const { node } = machine
    if (node === null || to === machine) return false
    let isAny = false
    for (const replica of node.host.all()) {
      if (!replica.isLeader) continue
      isAny = true
      node.controller.transfer(replica.group, to.nodeId)
    }
    return isAny
  }
}

/** Where the seal is that ends what is in a file of the journal; null: nothing is sealed there. */
function sealIn(bytes: Bytes): number | null {
  let last: FrameHeader | null = null
  for (let at = 0; at < bytes.byteLength; at += frameAlignment) {
    const header = decodeHeader(bytes, at)
    if (header !== null && header.sequence > (last?.sequence ?? 0)) last = header
  }
  return last !== null && (last.flags & sealFlag) !== 0 ? last.position : null
}
