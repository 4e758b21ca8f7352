import { RemoteError, RoundhouseError } from '../errors.ts'
import { fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Hash64 } from '../ring/ring.ts'
import { encodeChange } from '../shard/configuration.ts'
import type { Host } from '../shard/host.ts'
import type { Settled } from '../shard/proposal.ts'
import type { Replica } from '../shard/replica.ts'
import { commonLevel, refuseAbove } from './feature-level.ts'
import {
  type CloseRequest,
  metaCommands,
  RegisterReader,
  type ReportRequest,
  type UnfitAnswer,
} from './meta-commands.ts'
import { groupNaming, isOut, membersOf, metaGroup, type Register, type ShardRecord } from './meta-register.ts'
import { nextStep } from './next-step.ts'
import type { Peers } from './ports.ts'
import { planRebalance, type RebalancePlan, wishOf } from './rebalancer.ts'

/**
 * What turns the meta shard's wishes into what is. Three roles, each decided anew at every look, none with state that a
 * crash could lose:
 *
 *   every node           makes the replicas that operations give to it, destroys those that are out
 *   a shard's leader     takes the next step of the shard's operation
 *   the meta's leader    plans: opens operations, admits joiners, lets leavers go, spreads leadership
 */
export interface ControllerOptions {
  readonly nodeId: string
  readonly host: Host
  readonly peers: Peers
  readonly clock: Clock
  readonly log: Logger
  readonly hash64: Hash64
  /** Operations open at one time. */
  readonly movesMax: number
  readonly isDown: (node: string) => boolean
  /** Down for longer than anybody should wait. */
  readonly isLost: (node: string) => boolean
  /** The node says that its disk is full, or nearly: it is given nothing more. */
  readonly isFull: (node: string) => boolean
  /** The node says that its disk is full, or hangs: what it led would stand still. */
  readonly isDiskSick: (node: string) => boolean
  /** Says that it is about to stop. */
  readonly isStopping: (node: string) => boolean
  /** How far a node's wall clock is off the median of all, ms. */
  readonly clockOffMs: (node: string) => number
  readonly leaderOf: (shard: number) => string | null
  readonly addressOf: (node: string) => string | null
  /** Nodes that this one knows an address of. */
  readonly members: () => readonly string[]
  /** The register changed. */
  readonly onRegister: (register: Register) => void
}

/** A follower this close behind the commit index counts as caught up. */
const lagEntriesMax = 128
const metaTimeoutMs = 5_000
const planningMsMax = 2 * metaTimeoutMs
/** Leaders asked to hand over in one look. */
const transfersMax = 8
const transferPauseMs = 1_000
const looksSkippedMax = 10
/** A leader's clock stamps entries, and TTLs are judged by the stamps: one this far off the others' must not lead. */
const clockOffMsMax = 5_000

export class Controller {
  private readonly options: ControllerOptions
  private reader = new RegisterReader()
  private known: Register | null = null
  /** The plan is a function of the register and of who is down or full: it is made anew when one of them changed. */
  private lastPlan: {
    readonly register: Register
    readonly able: string
    readonly plan: RebalancePlan
  } | null = null
  private readonly busy = new Set<string>()
  /** When the planning that is under way began. */
  private planningSinceMs = Number.NEGATIVE_INFINITY
  private looksSkipped = 0
  private wasClockOff = false
  private lastTransferMs = Number.NEGATIVE_INFINITY
  /** Where the next round of hand-overs begins: shards that can't be handed over now do not stand before the others. */
  private nextTransfer = 0

  constructor(options: ControllerOptions) {
    this.options = options
  }

  get register(): Register | null {
    return this.known
  }

  /** What this node, looking at its own copy of the register, takes for the plan. */
  plan(): RebalancePlan | null {
    const { hash64, isDown, isLost, isFull, movesMax } = this.options
    const register = this.known
    if (register === null) return null
    const able = register.nodes
      .map(({ nodeId }) => `${isDown(nodeId)} ${isLost(nodeId)} ${isFull(nodeId)}`)
      .join()
    if (this.lastPlan?.register !== register || this.lastPlan.able !== able) {
      const plan = planRebalance({ register, isDown, isLost, isFull, hash64, movesMax })
      this.lastPlan = { register, able, plan }
    }
    return this.lastPlan.plan
  }

  /** The meta replica applied something. */
  refresh(): void {
    const replica = this.options.host.group(metaGroup)
    if (replica === undefined) return
    const command = metaCommands.get('META.READ')!
    let isWhole = true
    const register = this.reader.read(key => {
      const reply = replica.peek(command, [key])
      // No answer is not an empty one: a row that can't be read must not pass for one that is not there.
      if (reply === null) isWhole = false
      return reply?.kind === 'value' ? reply.value : undefined
    })
    if (!isWhole) {
      this.reader = new RegisterReader()
      return
    }
    if (register === null || register === this.known) return
    this.known = register
    this.options.onRegister(register)
    this.look()
  }

  /** A replica applied something: perhaps the step that the next one of its operation waits for. */
  progressed(replica: Replica): void {
    if (this.known !== null && replica.isLeader) this.drive(this.known, replica)
  }

  /** Called every few ticks: looks each time while something is under way, seldom while nothing is. */
  lookNowAndThen(): void {
    const register = this.known
    if (register === null) return
    const isBusy =
      register.nodes.some(node => node.state === 'joining' || node.state === 'leaving') ||
      [...register.shards.values()].some(record => record.operation !== null)
    if (isBusy || ++this.looksSkipped >= looksSkippedMax) this.look()
  }

  /** Now and then, and whenever something changed. */
  look(): void {
    const register = this.known
    if (register === null) return
    this.looksSkipped = 0
    this.reconcile(register)
    for (const replica of this.options.host.all()) if (replica.isLeader) this.drive(register, replica)
    if (this.options.host.group(metaGroup)?.isLeader) void this.lead(register)
    this.heedClock()
  }

  private heedClock(): void {
    const { nodeId, clockOffMs, log } = this.options
    const isOff = this.isClockOff(nodeId)
    if (isOff !== this.wasClockOff) {
      this.wasClockOff = isOff
      if (isOff)
        log.warn('clock is off: leadership goes to others', { offMs: Math.round(clockOffMs(nodeId)) })
      else log.info('clock is right again')
    }
    if (isOff || this.options.isDiskSick(nodeId)) this.handOver()
  }

  private mayLead(node: string): boolean {
    return !this.isClockOff(node) && !this.options.isDiskSick(node) && !this.options.isStopping(node)
  }

  private isClockOff(node: string): boolean {
    return Math.abs(this.options.clockOffMs(node)) > clockOffMsMax
  }

  // --- Every node ---------------------------------------------------------------------------------------------------

  private reconcile(register: Register): void {
    const { host, nodeId, log } = this.options
    // After a restart the register may be older than what this node has done already: a replica that it has destroyed
    // since would be made again, without its votes and, if it founded its group, as the only voter of an empty one.
    const isFresh = host.group(metaGroup)?.isFresh === true
    for (const [group, { operation, birth }] of register.shards) {
      if (operation === null || !isFresh) continue
      for (const { node, replica } of [...operation.voters, ...operation.learners]) {
        if (node !== nodeId || host.knows(replica)) continue
        this.once(`create ${replica}`, async () => {
          await host.create(group, replica, birth)
          log.debug('replica made', { group, replica })
        })
      }
    }
    const held = new Map([...host.all()].map(({ id, group }) => [id, group]))
    for (const [id, group] of host.unread()) held.set(id, group)
    for (const [id, unfit] of host.unfit()) {
      // Rot may have taken the record of whose it is as well.
      const group = unfit.group ?? groupNaming(register, id)
      if (group === null) continue
      held.set(id, group)
      this.reportUnfit(register, group, id)
    }
    for (const [id, group] of held) {
      if (!isOut(register, group, id)) continue
      // The register says that the id is out, and ids are never reused: nobody counts this replica any more.
      this.once(`destroy ${id}`, async () => {
        await host.destroy(id)
        log.info('replica removed', { group, replica: id })
      })
    }
  }

  /** A replica that can't go on is replaced by another on this node, once the meta shard knows. */
  private reportUnfit(register: Register, group: number, replica: number): void {
    const record = register.shards.get(group)
    if (record === undefined || record.unfit.includes(replica) || isOut(register, group, replica)) return
    this.once(`report ${replica}`, async () => {
      const { metaReplica } = await this.execute<UnfitAnswer>('META.UNFIT', { group, replica })
      this.options.log.info('asked for another replica', { group, unfit: replica })
      // The register comes by way of the very replica that is lost.
      if (group === metaGroup && metaReplica !== null) await this.options.host.create(metaGroup, metaReplica)
    })
  }

  /** Runs `work` unless the same is under way. A failure is logged; the next look tries again. */
  private once(name: string, work: () => Promise<void>): void {
    if (this.busy.has(name)) return
    this.busy.add(name)
    work()
      .catch((error: Error) => this.options.log.warn(`${name} failed`, { error: error.message }))
      .finally(() => this.busy.delete(name))
  }

  // --- A shard's leader ---------------------------------------------------------------------------------------------

  private drive(register: Register, replica: Replica): void {
    const record = register.shards.get(replica.group)
    if (record === undefined) return
    const { operation } = record
    if (operation === null) {
      this.reportForced(record, replica)
      return
    }
    // An older wish than the last that made a step here: this node's copy of the register is behind.
    if (operation.id < replica.configuration.operation) return
    const isCaughtUp = (id: number) => id === replica.id || replica.isCaughtUp(id, lagEntriesMax)
    const step = nextStep(operation, replica.configuration, replica.id, isCaughtUp, this.options.isDown)
    switch (step.kind) {
      case 'wait':
        return
      case 'transfer': {
        const heir = step.to.find(id => isCaughtUp(id) && this.mayLead(replica.nodeOf(id) ?? ''))
        if (heir !== undefined) replica.raft.transferLeader(heir)
        break
      }
      case 'change': {
        const context = encodeChange({
          operation: operation.id,
          expectedIndex: replica.configuration.index,
          added: step.added,
        })
        replica.proposeChange({ transition: 'auto', changes: step.changes, context })
        break
      }
      case 'close': {
        const { group } = replica
        const request: CloseRequest = { operation: operation.id, ...asItIs(replica) }
        this.once(`close ${operation.id}`, async () => {
          await this.execute('META.CLOSE', request)
          const nodes = request.voters.map(member => member.node)
          this.options.log.info('operation done', { group, operation: operation.id, voters: nodes })
        })
        return
      }
    }
    this.options.host.touch(replica)
  }

  private reportForced(record: ShardRecord, replica: Replica): void {
    const { forced } = replica.configuration
    if (forced === undefined || forced.at <= (record.forcedAt ?? 0)) return
    this.once(`report of group ${replica.group}`, async () => {
      await this.execute('META.REPORT', { forcedAt: forced.at, ...asItIs(replica) } satisfies ReportRequest)
      this.options.log.warn('the configuration was forced', { group: replica.group, replica: replica.id })
    })
  }

  // --- The meta shard's leader --------------------------------------------------------------------------------------

  private async lead(register: Register): Promise<void> {
    const nowMs = this.options.clock.now()
    // A plan that hangs (its commands wait for a quorum that is gone) must not be the last one.
    if (nowMs - this.planningSinceMs < planningMsMax) return
    this.planningSinceMs = nowMs
    try {
      await this.admit(register)
      await this.raiseLevel(register)
      await this.openOperations(register)
      this.spreadLeaders(register)
    } catch (error) {
      this.options.log.debug('planning interrupted', { error: (error as Error).message })
    } finally {
      this.planningSinceMs = Number.NEGATIVE_INFINITY
    }
    // What was opened meanwhile may already be done.
    if (this.known !== register) this.options.clock.after(1, () => this.look())
  }

  private async admit(register: Register): Promise<void> {
    const meta = register.shards.get(metaGroup)
    if (meta === undefined) return
    const replica = this.options.host.group(metaGroup)
    // Whoever follows the register can do its part: that is what joining means.
    const follows = (id: number) => replica?.isCaughtUp(id, lagEntriesMax) === true
    for (const { nodeId, state, metaReplica } of register.nodes) {
      if (state === 'joining' && follows(metaReplica)) {
        await this.execute('META.STATE', { nodeId, state: 'member' })
        this.options.log.info('member joined', { member: nodeId })
      }
      if (state === 'leaving' && this.isDrained(register, nodeId)) {
        await this.execute('META.STATE', { nodeId, state: 'left' })
        this.options.log.info('member left', { member: nodeId })
      }
    }
  }

  /** When every member runs a release that supports more, more may be written from now on. */
  private async raiseLevel(register: Register): Promise<void> {
    const level = commonLevel(register.nodes)
    if (level <= register.level) return
    await this.execute('META.LEVEL', {})
    this.options.log.info('feature level raised', { from: register.level, to: level })
  }

  private isDrained(register: Register, nodeId: string): boolean {
    const meta = register.shards.get(metaGroup)
    if (meta?.voters.some(member => member.node === nodeId)) return false
    for (const [group, record] of register.shards) {
      if (group === metaGroup) continue
      const wished =
        record.operation === null ? [] : [...record.operation.voters, ...record.operation.learners]
      if ([...membersOf(record), ...wished].some(member => member.node === nodeId)) return false
    }
    return true
  }

  private async openOperations(register: Register): Promise<void> {
    const plan = this.plan()
    if (plan === null || this.known !== register) return
    await Promise.all(plan.operations.map(request => this.execute('META.OPEN', request)))
  }

  /** Leaders go where the ring would have them, a few at a time, and only while no replicas move. */
  private spreadLeaders(register: Register): void {
    const { hash64, clock, leaderOf, isDown, isLost, peers, addressOf, nodeId } = this.options
    if (register.isPaused || clock.now() - this.lastTransferMs < transferPauseMs) return
    this.lastTransferMs = clock.now()
    const { shardCount } = register.settings
    const leaders = Array.from({ length: shardCount }, (_, shard) => leaderOf(shard))
    const wish = wishOf(register, isLost, hash64, leaders)
    let asked = 0
    for (let i = 0; i < shardCount && asked < transfersMax; i++) {
      const shard = this.nextTransfer % shardCount
      this.nextTransfer = shard + 1
      const record = register.shards.get(shard)
      const [from, to] = [leaders[shard] ?? null, wish.shards[shard]?.leader ?? null]
      if (record === undefined || record.operation !== null || from === null || to === null || from === to)
        continue
      if (isDown(to) || !this.mayLead(to) || !record.voters.some(member => member.node === to)) continue
      asked++
      if (from === nodeId) this.transfer(shard, to)
      else {
        const address = addressOf(from)
        if (address === null) continue
        peers
          .ask(address, 'transfer', JSON.stringify({ group: shard, to }), metaTimeoutMs)
          .catch((error: Error) => {
            this.options.log.debug('transfer not asked', { group: shard, to, error: error.message })
          })
      }
    }
  }

  /** Hands the leadership of a group to that node's replica, if it is a voter that has caught up. */
  transfer(group: number, to: string): void {
    const replica = this.options.host.group(group)
    if (replica === undefined || !replica.isLeader) return
    const { confState, members } = replica.configuration
    const heir = members.find(member => member.node === to && confState.voters.includes(member.replica))
    if (heir === undefined || !replica.isCaughtUp(heir.replica, lagEntriesMax) || !this.mayLead(to)) return
    replica.raft.transferLeader(heir.replica)
    this.options.host.touch(replica)
  }

  /**
   * Hands over all that this node leads, where somebody can take it. Says how many groups are worth waiting for: somebody
   * could take them yet, or callers wait for what was proposed here.
   */
  handOver(): number {
    const { isDown } = this.options
    let left = 0
    for (const replica of this.options.host.all()) {
      const { voters } = replica.configuration.confState
      if (voters.length < 2) continue
      const others = replica.isLeader ? voters.filter(id => id !== replica.id) : []
      const able = others.filter(id => {
        const node = replica.nodeOf(id) ?? ''
        return this.mayLead(node) && !isDown(node)
      })
      if (able.length > 0 || replica.owesAnswers) left++
      const heir = able.find(id => replica.isCaughtUp(id, lagEntriesMax))
      if (heir === undefined) continue
      replica.raft.transferLeader(heir)
      this.options.host.touch(replica)
    }
    return left
  }

  // --- The way to the meta shard ------------------------------------------------------------------------------------

  /** Runs a command of the meta shard, wherever it is led. Rejects with the command's refusal or NO_META_LEADER. */
  async execute<Answer>(command: string, request: unknown, hops = 0): Promise<Answer> {
    const { host, peers } = this.options
    const replica = host.group(metaGroup)
    if (replica?.isLeader) return this.executeHere(replica, command, request)
    if (hops === 0) {
      const body = JSON.stringify({ command, request })
      for (const address of this.metaAddresses(replica)) {
        try {
          return JSON.parse(await peers.ask(address, 'meta', body, metaTimeoutMs)) as Answer
        } catch (error) {
          if (!mayAskAnother(error)) throw error
        }
      }
    }
    throw new RoundhouseError('NO_META_LEADER', { waitedMs: 0 })
  }

  /**
   * Where the meta shard may be led: the leader that this node's replica follows, or, without one, all members. A node that came
   * back elsewhere hears no leader, which looks for it where it was: it must be able to say where it is now.
   */
  private metaAddresses(replica: Replica | undefined): string[] {
    const { nodeId, addressOf } = this.options
    const leader = replica?.leaderNode ?? null
    const asked = leader === null ? this.options.members().filter(node => node !== nodeId) : [leader]
    return asked.map(addressOf).filter(address => address !== null)
  }

  private executeHere<Answer>(replica: Replica, command: string, request: unknown): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const settle = (result: Settled) => {
        if (!result.ok) return reject(result.error)
        const reply = result.replies[0]
        resolve(JSON.parse(reply?.kind === 'value' ? toUtf8(reply.value) : '{}') as Answer)
      }
      const args = [fromUtf8(JSON.stringify(request ?? null))]
      const deadline = this.options.clock.now() + metaTimeoutMs
      const known = metaCommands.get(command)
      if (known?.access === 'read') replica.enqueueRead({ command: known, args, deadline, settle })
      else {
        const operations = [{ command, args }]
        refuseAbove(this.known, operations, metaCommands)
        replica.enqueueWrite({ operations, session: null, deadline, settle })
      }
      this.options.host.touch(replica)
    })
  }
}

function asItIs({ group, configuration }: Replica): Omit<CloseRequest, 'operation'> {
  const { confState, index, members } = configuration
  const named = (ids: readonly number[]) => members.filter(member => ids.includes(member.replica))
  return { group, voters: named(confState.voters), learners: named(confState.learners), index }
}

/** Nothing was done where it was asked: another member may lead the meta shard. */
function mayAskAnother(error: unknown): boolean {
  return (error instanceof RoundhouseError || error instanceof RemoteError) && error.kind === 'unavailable'
}

/** Errors after which another try, perhaps at another node, makes sense. */
export function isPassing(error: unknown): boolean {
  if (!(error instanceof RoundhouseError) && !(error instanceof RemoteError)) return false
  // A full meta shard has room again in a moment: nobody's start or move should end with that.
  return error.kind === 'unavailable' || error.kind === 'outcome_unknown' || error.code === 'OVERLOADED'
}
