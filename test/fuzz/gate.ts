/** The doors of a server without a network: calls as grpc-js hands them over, and a node behind them that can be called. */
import { EventEmitter } from 'node:events'
import { Metadata } from '@grpc/grpc-js'
import { atomicReply } from '../../src/commands/atomic.ts'
import type { Plan, Reply } from '../../src/commands/command.ts'
import { encodeEnvelope, prepareOperation } from '../../src/commands/envelope.ts'
import { StateMachine } from '../../src/commands/machine.ts'
import { commands, parseCall } from '../../src/commands/table.ts'
import { RoundhouseError } from '../../src/errors.ts'
import { Keyspace } from '../../src/keyspace/keyspace.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { prefixes } from '../../src/keyspace/rows.ts'
import { type Bytes, fromUtf8 } from '../../src/lib/bytes.ts'
import type { Clock } from '../../src/lib/clock.ts'
import { crc32 } from '../../src/lib/crc.ts'
import type { Prng } from '../../src/lib/prng.ts'
import type { Call, CallResult, PeerService, Service } from '../../src/node/ports.ts'
import { nobodyIsChecked } from '../../src/peer/caller.ts'
import { PeerHandlers, type PeerHandlersOptions } from '../../src/peer/service.ts'
import { Connections } from '../../src/wire/grpc/connections.ts'
import { connectionLimits } from '../../src/wire/grpc/options.ts'
import { Refusals } from '../../src/wire/grpc/refusals.ts'
import { FakePeerService, FakeService } from '../wire/grpc/fake-service.ts'

export type UnaryHandler = (call: unknown, callback: (error: unknown, answer?: Buffer) => void) => void
export interface RawMethod {
  readonly requestDeserialize: (bytes: Buffer) => unknown
}

export const noMetadata = new Metadata()

export function callOf(method: RawMethod, bytes: Uint8Array): EventEmitter {
  return Object.assign(new EventEmitter(), {
    request: method.requestDeserialize(Buffer.from(bytes)),
    metadata: noMetadata,
    cancelled: false,
    getDeadline: () => Number.POSITIVE_INFINITY,
  })
}

/** The bytes of the answer, null for a status that says what is wrong with the request. */
export function unaryNow(handler: unknown, method: RawMethod, bytes: Uint8Array): Buffer | null {
  let result: Buffer | null | undefined
  ;(handler as UnaryHandler)(callOf(method, bytes), (error, answer) => {
    result = error === null ? answer! : null
  })
  if (result === undefined) throw new Error('no answer at once')
  return result
}

export function gateOptions(service: Service) {
  return {
    service,
    peerService: new FakePeerService(),
    isKeyed: (command: string) => (commands.get(command.toUpperCase())?.keys ?? 'none') !== 'none',
    messageTimeoutMs: 5_000,
    clock: frozenClock,
    onUnexpected: (error: unknown) => {
      unexpected.push(error)
    },
  }
}

/** As `unaryNow`, of one that answers later. What is no documented error of the node is thrown. */
export function unaryLater(handler: unknown, method: RawMethod, bytes: Uint8Array): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    ;(handler as UnaryHandler)(callOf(method, bytes), (error, answer) => {
      try {
        throwUnexpected()
        resolve(error === null ? answer! : null)
      } catch (failure) {
        reject(failure)
      }
    })
  })
}

const unexpected: unknown[] = []

export function throwUnexpected(): void {
  const error = unexpected.shift()
  unexpected.length = 0
  if (error !== undefined) throw error
}

export const frozenClock: Clock = { now: () => 0, wall: () => 1_700_000_000_000, after: () => () => {} }

/** Of calls that come without a connection: they are not counted. */
export const connections = new Connections(connectionLimits, frozenClock, new Refusals(frozenClock, () => {}))

/** A node of one shard without Raft: what gets through the gate is prepared, made an entry, decoded and applied. */
export class OneShard extends FakeService {
  private readonly random: Prng
  private readonly rows = new MemoryRows()
  private readonly machine = new StateMachine(this.rows, commands)
  private index = 0
  private wallMs = 1_700_000_000_000

  constructor(random: Prng) {
    super()
    this.random = random
    this.onExecute = async call => this.apply(call)
  }

  /** Of all that clients wrote: clock, counts and sessions move with a refused entry, too. */
  get stamp(): number {
    let stamp = 0
    for (const [key, value] of this.rows.range('d', '\uffff'))
      if (!key.startsWith(prefixes.session)) stamp = crc32(value, crc32(fromUtf8(key), stamp))
    return stamp
  }

  private apply(call: Call): CallResult {
    this.calls.length = 0
    const { command, args } = parseCall(call.command, call.args)
    this.wallMs += this.random.below(20_000)
    if (command.keys === 'none') return result(command.run(new Keyspace(new MemoryRows()), args))
    if (command.plan !== undefined) {
      let step: Plan | Reply = command.plan(args, 1, this.random)
      while ('ask' in step) step = step.next(step.ask.map(part => this.read(command, part.args)))
      return result(step)
    }
    if (command.access === 'read') return result(this.read(command, args))
    const given = command.operations?.(args) ?? [{ command: command.name, args }]
    const prepared = given.map(each => {
      const { command, args } = parseCall(each.command, each.args)
      return prepareOperation(command, args, { wallMs: this.wallMs, random: this.random })
    })
    const bytes = encodeEnvelope({ timestampMs: this.wallMs, session: call.session, operations: prepared })
    const applied = this.machine.apply(++this.index, bytes)
    if (applied.kind === 'refused') throw applied.error
    return result(command.operations === undefined ? applied.replies[0]! : atomicReply(applied.replies))
  }

  private read(command: Parameters<StateMachine['read']>[0], args: readonly Bytes[]): Reply {
    const read = this.machine.read(command, args, { wallNowMs: null })
    if (read.kind === 'refused') throw read.error
    if (read.kind === 'clock-wanted') throw new RoundhouseError('NOT_READY', { why: 'the clock' })
    return read.reply
  }
}

function result(reply: Reply): CallResult {
  return { reply, revision: 1, lagMs: 0 }
}

export class FakeStream extends EventEmitter {
  readonly metadata = noMetadata
  readonly written: Buffer[] = []
  ends = 0
  isPaused = false

  getDeadline(): number {
    return Number.POSITIVE_INFINITY
  }

  sendMetadata(): void {}

  write(bytes: Buffer, sent: () => void): boolean {
    this.written.push(bytes)
    queueMicrotask(sent)
    return true
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
  }

  end(): void {
    this.ends++
  }
}

/** The node's side of roundhouse.v1.Peer, whatever calls hold. */
export function peerHandlers(service: PeerService, statusOf: PeerHandlersOptions['statusOf']) {
  const memoryOf = () => ({ handOver: () => {}, answered: () => {} })
  const clock = frozenClock
  return new PeerHandlers({ service, statusOf, callerOf: nobodyIsChecked, clock, memoryOf }).handlers()
}
