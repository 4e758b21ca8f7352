import { atomicReply } from '../commands/atomic.ts'
import type { Command, GatherPart, Plan, Reply } from '../commands/command.ts'
import type { CommandTable } from '../commands/machine.ts'
import { levelOf } from '../commands/release.ts'
import { argsOfPart, keysOf } from '../commands/scatter.ts'
import { type ParsedCall, parseCall } from '../commands/table.ts'
import { isError, RemoteError, RoundhouseError } from '../errors.ts'
import { Keyspace } from '../keyspace/keyspace.ts'
import { MemoryRows } from '../keyspace/memory-rows.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Random } from '../lib/prng.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import type { Host } from '../shard/host.ts'
import type { Settled } from '../shard/proposal.ts'
import type { Replica } from '../shard/replica.ts'
import { refuseAbove } from './feature-level.ts'
import type { Register } from './meta-register.ts'
import type { Call, CallResult, Peers } from './ports.ts'

/**
 * From a call to its place: key → slot → shard → the node that leads it. What this node leads goes to its replica, the
 * rest is forwarded once. A definite refusal (nothing was appended anywhere) is tried again, here or elsewhere, until the
 * call's time is up; an unknown outcome only where a session makes the retry harmless.
 */
export interface RouterOptions {
  readonly host: Host
  readonly peers: Peers
  readonly clock: Clock
  readonly random: Random
  /** null until this node knows the cluster. */
  readonly shardCount: () => number | null
  /** What this release knows. */
  readonly commands: CommandTable
  readonly register: () => Pick<Register, 'level' | 'nodes'> | null
  /** Where the shard's leader may be, best guess first, node ids without this one. */
  readonly candidates: (shard: number) => readonly string[]
  readonly addressOf: (node: string) => string | null
  readonly clientAddressOf: (node: string) => string | null
  readonly nodeId: string
  /** message_timeout: the longest that a call may take, ms. */
  readonly timeoutMsMax: number
}

/** Pause before the next try, ms: grows to the maximum while an election runs. */
const retryPauseMs = { min: 5, max: 100 }
/** Calls under way at this node; what comes on top is refused. */
export const callsMax = 20_000
/** Argument bytes of the calls under way. */
export const callBytesMax = 256 * 1024 * 1024

const empty = new Keyspace(new MemoryRows())

export class Router {
  private readonly options: RouterOptions
  readonly counters = { calls: 0, forwarded: 0, retried: 0, refused: 0 }
  private underWay = 0
  private bytesUnderWay = 0

  constructor(options: RouterOptions) {
    this.options = options
  }

  /** Runs a client's call. Rejects with a RoundhouseError or RemoteError. */
  async execute(call: Call): Promise<CallResult> {
    const parsed = parseCall(call.command, call.args, this.options.commands, call.isChecked)
    checkSession(call)
    const bytes = call.args.reduce((sum, arg) => sum + arg.byteLength, 0)
    if (this.underWay >= callsMax) this.overloaded('calls under way', callsMax)
    if (this.bytesUnderWay + bytes > callBytesMax) this.overloaded('bytes under way', callBytesMax)
    this.counters.calls++
    this.underWay++
    this.bytesUnderWay += bytes
    try {
      return await this.run(parsed, call)
    } finally {
      this.underWay--
      this.bytesUnderWay -= bytes
    }
  }

  private overloaded(what: string, max: number): never {
    this.counters.refused++
    throw new RoundhouseError('OVERLOADED', { what, max })
  }

  private run({ command, args }: ParsedCall, call: Call): Promise<CallResult> | CallResult {
    if (command.keys === 'none') return { reply: command.run(empty, args), revision: 0, lagMs: 0 }
    const shardCount = this.options.shardCount()
    if (shardCount === null)
      throw new RoundhouseError('NOT_READY', { why: 'it has not joined a cluster yet' })
    if (call.shard !== null) {
      if (call.shard >= shardCount)
        throw new RoundhouseError('INVALID_ARGUMENT', {
          what: `shard ${call.shard}`,
          accepted: `0 to ${shardCount - 1}`,
        })
      return this.runOn(call.shard, command, args, call)
    }
    if (command.keys === 'every-shard') {
      const shards = Array.from({ length: shardCount }, (_, shard) => shard)
      return this.scatter(
        command,
        args,
        call,
        shards.map(shard => ({ shard, args, positions: [] })),
      )
    }
    if (command.plan !== undefined)
      return this.follow(command, command.plan(args, shardCount, this.options.random), call)
    const keys = keysOf(command, args)
    const first = shardOfSlot(slotOf(keys[0]!), shardCount)
    if (keys.length === 1) return this.runOn(first, command, args, call)
    const places = new Map<number, number[]>()
    for (const [position, key] of keys.entries()) {
      const shard = shardOfSlot(slotOf(key), shardCount)
      const positions = places.get(shard)
      if (positions === undefined) places.set(shard, [position])
      else positions.push(position)
    }
    if (places.size === 1) return this.runOn(first, command, args, call)
    const parts = [...places].map(([shard, positions]) => ({
      shard,
      positions,
      args: argsOfPart(command, args, positions),
    }))
    return this.scatter(command, args, call, parts)
  }

  private async scatter(
    command: Command,
    args: readonly Bytes[],
    call: Call,
    parts: readonly {
      readonly shard: number
      readonly args: readonly Bytes[]
      readonly positions: readonly number[]
    }[],
  ): Promise<CallResult> {
    const results = await Promise.allSettled(
      parts.map(part => this.runOn(part.shard, command, part.args, call)),
    )
    const gathered: GatherPart[] = []
    let lagMs = 0
    let revision = 0
    for (const [i, result] of results.entries()) {
      // Some parts may have been applied: the call as a whole is neither done nor undone.
      if (result.status === 'rejected') throw this.partly(command, result.reason as Error, results.length)
      gathered.push({ positions: parts[i]!.positions, reply: result.value.reply })
      lagMs = Math.max(lagMs, result.value.lagMs)
      revision = Math.max(revision, result.value.revision)
    }
    return { reply: command.gather!(gathered, args), revision, lagMs }
  }

  /** A read that goes from shard to shard, within the time of one call. */
  private async follow(command: Command, plan: Plan, call: Call): Promise<CallResult> {
    const { clock } = this.options
    const deadline = clock.now() + Math.min(call.timeoutMs, this.options.timeoutMsMax)
    let step: Plan | Reply = plan
    let lagMs = 0
    let revision = 0
    while ('ask' in step) {
      const within = { ...call, ...signalOf(call), timeoutMs: Math.max(1, deadline - clock.now()) }
      const results = await Promise.all(
        step.ask.map(({ shard, args }) => this.runOn(shard, command, args, within)),
      )
      for (const result of results) {
        lagMs = Math.max(lagMs, result.lagMs)
        revision = Math.max(revision, result.revision)
      }
      step = step.next(results.map(({ reply }) => reply))
    }
    return { reply: step, revision, lagMs }
  }

  private partly(command: Command, error: Error, parts: number): Error {
    if (command.access === 'read' || parts === 1) return error
    return new RoundhouseError('OUTCOME_UNKNOWN', {
      why: `a part of ${command.name}, which is not atomic over ${parts} shards, failed: ${error.message}`,
    })
  }

  /** Runs a command whose keys all live in `shard`. */
  private runOn(shard: number, command: Command, args: readonly Bytes[], call: Call): Promise<CallResult> {
    const timeoutMs = Math.min(call.timeoutMs, this.options.timeoutMsMax)
    const deadline = this.options.clock.now() + timeoutMs
    const replica = this.options.host.group(shard)
    const isStale = command.access === 'read' && call.read === 'stale'
    if (replica?.isLeader !== true || call.order !== undefined || isStale)
      return this.runInTurn(shard, command, args, call, deadline, timeoutMs, null)
    // Most calls: for a leader that is here, and there is nothing to wait for. One promise serves.
    return new Promise((resolve, reject) => {
      const settle = (result: Settled) => {
        if (result.ok) resolve(resultOf(command, result))
        else
          this.runInTurn(shard, command, args, call, deadline, timeoutMs, result.error).then(resolve, reject)
      }
      this.begin(replica, command, args, call, deadline, settle)
    })
  }

  /** After those that are to go before it. `failed`: what the first attempt, which was made already, was refused with. */
  private async runInTurn(
    shard: number,
    command: Command,
    args: readonly Bytes[],
    call: Call,
    deadline: number,
    timeoutMs: number,
    failed: Error | null,
  ): Promise<CallResult> {
    const { clock, random } = this.options
    const isRead = command.access === 'read'
    const turn = call.order?.enter(shard, !isRead && this.leadsHere(shard)) ?? null
    // While a call waits its caller may go, or its time: what it did not ask for any more must not be done.
    const isOver = () => call.signal?.aborted === true || clock.now() >= deadline
    let unknown: Error | null = null
    try {
      if (turn !== null && turn.previous !== null) {
        await turn.previous
        if (isOver())
          throw new RoundhouseError('NOT_READY', { why: 'the turn of the call did not come in time' })
      }
      for (let attempt = 0; ; attempt++) {
        try {
          if (failed !== null && attempt === 0) throw failed
          return await this.attempt(shard, command, args, call, deadline, attempt)
        } catch (error) {
          if (!(error instanceof Error)) throw error
          if (!isRead && isUnknown(error)) unknown ??= error
          // An earlier try may have been applied: that a later one was refused before it began does not undo that.
          const isBehind = this.isBehind(error, command, args)
          const told = unknown !== null && (isUnavailable(error) || isBehind) ? unknown : error
          if (!isTransient(error, isRead || call.session !== null) && !isBehind) throw told
          if (!call.forward && !this.leadsHere(shard)) throw told
          const pauseMs = Math.min(retryPauseMs.max, retryPauseMs.min * 2 ** attempt) * (0.5 + random.next())
          if (clock.now() + pauseMs >= deadline || call.signal?.aborted === true)
            throw this.outOfTime(shard, told, timeoutMs)
          this.counters.retried++
          const before = turn?.retry() ?? null
          await new Promise<void>(resolve => void clock.after(pauseMs, resolve))
          if (before !== null) await before
          if (isOver()) throw this.outOfTime(shard, told, timeoutMs)
        }
      }
    } finally {
      turn?.leave()
    }
  }

  /** The leader has not heard yet of the level that the cluster has reached: it will in a moment, and nothing was proposed. */
  private isBehind(error: Error, command: Command, args: readonly Bytes[]): boolean {
    if (!(isError(error) || error instanceof RemoteError) || error.code !== 'LEVEL_TOO_LOW') return false
    const operations = command.operations?.(args) ?? [{ command: command.name }]
    return (this.options.register()?.level ?? 1) >= levelOf(operations, this.options.commands)
  }

  private outOfTime(shard: number, last: Error, waitedMs: number): Error {
    const isNobodyThere =
      (isError(last) || last instanceof RemoteError) &&
      ['NOT_LEADER', 'HOP_LIMIT', 'UNREACHABLE'].includes(last.code)
    if (isNobodyThere) return new RoundhouseError('NO_LEADER', { shard, waitedMs: Math.round(waitedMs) })
    return last
  }

  private leadsHere(shard: number): boolean {
    return this.options.host.group(shard)?.isLeader ?? false
  }

  private attempt(
    shard: number,
    command: Command,
    args: readonly Bytes[],
    call: Call,
    deadline: number,
    attempt: number,
  ): Promise<CallResult> {
    const replica = this.options.host.group(shard)
    if (
      replica !== undefined &&
      replica.halted === null &&
      command.access === 'read' &&
      call.read === 'stale'
    )
      return readStale(replica, command, args)
    if (replica?.isLeader) return this.runHere(replica, command, args, call, deadline)
    if (call.hops > 0) return Promise.reject(new RoundhouseError('HOP_LIMIT', { shard }))
    const candidates = this.options.candidates(shard)
    const leader = candidates[attempt % Math.max(1, candidates.length)] ?? null
    if (!call.forward || leader === null) {
      const address = candidates[0] === undefined ? null : this.options.clientAddressOf(candidates[0])
      return Promise.reject(
        new RoundhouseError('NOT_LEADER', { shard, leader: candidates[0] ?? null, address }),
      )
    }
    const address = this.options.addressOf(leader)
    if (address === null)
      return Promise.reject(
        new RoundhouseError('UNREACHABLE', { address: leader, why: 'its address is not known' }),
      )
    this.counters.forwarded++
    const timeoutMs = Math.max(1, deadline - this.options.clock.now())
    const forwarded: Call = {
      ...call,
      command: command.name,
      args,
      shard,
      hops: call.hops + 1,
      forward: false,
      timeoutMs,
      // Not in the spread where it is made on demand.
      ...signalOf(call),
    }
    return this.options.peers.execute(address, forwarded)
  }

  private runHere(
    replica: Replica,
    command: Command,
    args: readonly Bytes[],
    call: Call,
    deadline: number,
  ): Promise<CallResult> {
    return new Promise((resolve, reject) => {
      const settle = (result: Settled) => {
        if (result.ok) resolve(resultOf(command, result))
        else reject(result.error)
      }
      this.begin(replica, command, args, call, deadline, settle)
    })
  }

  /** Throws LEVEL_TOO_LOW. */
  private begin(
    replica: Replica,
    command: Command,
    args: readonly Bytes[],
    call: Call,
    deadline: number,
    settle: (result: Settled) => void,
  ): void {
    if (command.access === 'read') replica.enqueueRead({ command, args, deadline, settle })
    else {
      const operations = command.operations?.(args) ?? [{ command: command.name, args }]
      refuseAbove(this.options.register(), operations, this.options.commands)
      replica.enqueueWrite({ operations, session: call.session, deadline, settle })
    }
    this.options.host.touch(replica)
  }
}

async function readStale(replica: Replica, command: Command, args: readonly Bytes[]): Promise<CallResult> {
  const { reply, index, lagMs } = replica.readStale(command, args)
  return { reply, revision: index, lagMs }
}

function signalOf({ signal }: Call): Pick<Call, 'signal'> {
  return signal === undefined ? {} : { signal }
}

function resultOf(command: Command, { replies, index }: Settled & { readonly ok: true }): CallResult {
  const reply = command.operations === undefined ? (replies[0] as Reply) : atomicReply(replies)
  return { reply, revision: index, lagMs: 0 }
}

/** 16 bytes and a sequence from 1 up; anything else is no session. */
function checkSession({ session }: Call): void {
  if (session === null) return
  const { id, sequence, ackedBelow } = session
  const isSequence = Number.isSafeInteger(sequence) && sequence >= 1
  if (id.byteLength !== 16 || !isSequence || !Number.isSafeInteger(ackedBelow) || ackedBelow < 0)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: 'session',
      accepted: '16 bytes, with a sequence from 1 up',
    })
}

function isUnknown(error: Error): boolean {
  return (
    (isError(error) || error instanceof RemoteError) &&
    (error.kind === 'outcome_unknown' || error.code === 'STORAGE_FAILED')
  )
}

function isUnavailable(error: Error): boolean {
  return (
    (isError(error) || error instanceof RemoteError) &&
    (error.kind === 'unavailable' || error.kind === 'exhausted')
  )
}

/** Worth another try: nothing was appended, or asking again can do no harm. */
function isTransient(error: Error, isRepeatable: boolean): boolean {
  if (!isError(error) && !(error instanceof RemoteError)) return false
  switch (error.code) {
    case 'NOT_LEADER':
    case 'NO_LEADER':
    case 'HOP_LIMIT':
    case 'UNREACHABLE':
    case 'NOT_READY':
    case 'SHUTTING_DOWN':
    case 'QUARANTINED':
      return true
    case 'OUTCOME_UNKNOWN':
    case 'DEADLINE':
    case 'STORAGE_FAILED':
      return isRepeatable
    default:
      return false
  }
}
