/** One call on its way: what is asked, how far it has come, and the errors that it may end with. */
import type { CommandRequest, CommandResponse } from '../gen/clusterpb/cluster.ts'
import { CallError, type CallErrorCode, type Outcome } from './call-error.ts'
import type { Failure } from './failure.ts'
import type { Lane } from './lane.ts'
import type { Line } from './line.ts'
import type { Ticket } from './sessions.ts'

export interface CallSpec {
  /** Upper case. */
  readonly command: string
  readonly args: readonly Buffer[]
  readonly access: 'read' | 'write'
  /** The keys among `args`. */
  readonly keys: readonly Buffer[]
  readonly isStale: boolean
  /** Keep the order of its shard's calls even where that costs reads their speed. */
  readonly isOrdered: boolean
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
}

export interface EngineReply {
  readonly response: CommandResponse
  /** host:port of the node that answered. */
  readonly address: string
}

export interface Call extends CallSpec {
  readonly bytes: number
  readonly startedMs: number
  readonly deadlineMs: number
  readonly resolve: (reply: EngineReply) => void
  readonly reject: (error: CallError) => void
  /** Where all its keys are led; null: no key, or several places. */
  place: number | null
  ticket: Ticket | null
  isSettled: boolean
  isInFlight: boolean
  attempts: number
  /** Rises with each attempt and when one is given up: an error of an earlier one is not asked for any more. */
  generation: number
  /** The attempt has left and is not answered. */
  isSent: boolean
  /** Attempts that failed for more than the wrong address. */
  tries: number
  /** Hints followed at once, since the last such failure. */
  redirects: number
  /** The node to ask next, because a refusal named it. */
  hint: string | null
  /** Where the last attempt went. */
  address: string | null
  mustForward: boolean
  /** The last failure, and the first one that left a write undecided. */
  last: Failure | null
  undecided: Failure | null
  /** null: its order does not matter. */
  line: Line<Call> | null
  /** An attempt has begun and has not come back. */
  isUnderWay: boolean
  /** The attempt went to the leader, not to be forwarded. */
  isToLeader: boolean
  /** What it travels on; null: alone, or not yet. */
  lane: Lane | null
  /** In its line, for its turn. */
  isWaiting: boolean
  /** It is the oldest of its line and pauses before it goes. */
  isPausing: boolean
  notBeforeMs: number
  timer: NodeJS.Timeout | null
  cancel: (() => void) | null
}

const noBuffer = Buffer.alloc(0)

export function newCall(
  spec: CallSpec,
  bytes: number,
  resolve: (reply: EngineReply) => void,
  reject: (error: CallError) => void,
): Call {
  const startedMs = performance.now()
  // Field by field: a spread makes an object that is slow to make and slow to use.
  return {
    command: spec.command,
    args: spec.args,
    access: spec.access,
    keys: spec.keys,
    isStale: spec.isStale,
    isOrdered: spec.isOrdered,
    timeoutMs: spec.timeoutMs,
    signal: spec.signal,
    bytes,
    startedMs,
    deadlineMs: startedMs + spec.timeoutMs,
    resolve,
    reject,
    place: null,
    ticket: null,
    isSettled: false,
    isInFlight: false,
    attempts: 0,
    generation: 0,
    isSent: false,
    tries: 0,
    redirects: 0,
    hint: null,
    address: null,
    mustForward: false,
    last: null,
    undecided: null,
    line: null,
    isUnderWay: false,
    isToLeader: false,
    lane: null,
    isWaiting: false,
    isPausing: false,
    notBeforeMs: 0,
    timer: null,
    cancel: null,
  }
}

export function requestOf(call: Call): CommandRequest {
  const { command, args, keys, ticket } = call
  const key = keys.length > 0 ? args[0]! : noBuffer
  return {
    command,
    key: '',
    // Bytes as they are: no text is made of a key on the way.
    keyBytes: key,
    args: (keys.length > 0 ? args.slice(1) : args) as Buffer[],
    id: 0n,
    session: ticket === null ? noBuffer : ticket.id,
    sequence: ticket === null ? 0n : BigInt(ticket.sequence),
    ackedBelow: ticket === null ? 0n : BigInt(ticket.ackedBelow()),
    read: call.isStale ? 1 : 0,
    noForward: call.isToLeader,
    hops: 0,
    transfer: undefined,
  }
}

// --- How a call may end ---------------------------------------------------------------------------------------------

type Ending = Pick<Call, 'access' | 'undecided' | 'isSent' | 'attempts'>

/** Of a call that ends here and now. */
function outcomeOf({ access, undecided, isSent }: Ending): Outcome {
  return access === 'write' && (undecided !== null || isSent) ? 'unknown' : 'refused'
}

/** `command` is empty where it was not a command that failed. */
export function refused(command: string, code: CallErrorCode, text: string): CallError {
  const message = command === '' ? text : `${command}: ${text}`
  return new CallError({ code, message, outcome: 'refused', command })
}

/** `call`: what was under way, if anything was. */
export function aborted(command: string, signal: AbortSignal, call: Ending | null = null): CallError {
  const why = signal.reason instanceof Error ? signal.reason.message : String(signal.reason)
  const outcome = call === null ? 'refused' : outcomeOf(call)
  return new CallError({
    code: 'ABORTED',
    message: `${command === '' ? 'connect' : command}: aborted: ${why}${tailOf(outcome)}`,
    outcome,
    command,
    attempts: call?.attempts ?? 0,
    cause: signal.reason,
  })
}

/** The client is destroyed. */
export function cutOff(call: Ending & Pick<Call, 'command'>): CallError {
  const { command, attempts } = call
  const outcome = outcomeOf(call)
  const message = `${command}: the client was closed${tailOf(outcome)}`
  return new CallError({ code: 'CLOSED', message, outcome, command, attempts })
}

export type Tried = Pick<Call, 'undecided' | 'last' | 'command' | 'startedMs' | 'attempts'>

/** What is known: an undecided write stays one, whatever a later attempt was refused with. */
export function givenUp({ undecided, last, command, startedMs, attempts }: Tried): CallError {
  const failure = last ?? lateFailure('it was not sent in time')
  const isUnknown = undecided !== null && !failure.isAnswer
  const waitedMs = Math.round(performance.now() - startedMs)
  const facts = `after ${waitedMs} ms and ${attempts} attempt${attempts === 1 ? '' : 's'}`
  const isPlain = failure.retry === 'never' && failure.code !== 'DEADLINE'
  const text = isUnknown
    ? `${unknownText(undecided)} (${facts}${failure === undecided ? '' : `; last: ${failure.text}`})`
    : isPlain
      ? failure.text
      : `${failure.text} (${facts})`
  const { code } = isUnknown ? undecided : failure
  return new CallError({
    code: isUnknown && code === 'UNREACHABLE' ? 'OUTCOME_UNKNOWN' : code,
    message: `${command}: ${text}`,
    outcome: isUnknown ? 'unknown' : 'refused',
    command,
    leader: failure.leader === '' ? null : failure.leader,
    attempts,
  })
}

export function lateFailure(text: string): Failure {
  return {
    code: 'DEADLINE',
    text,
    leader: '',
    outcome: 'refused',
    retry: 'never',
    isAnswer: false,
    isHeard: false,
  }
}

function unknownText({ code, text }: Failure): string {
  // In a node's own words that is said already.
  return code === 'OUTCOME_UNKNOWN' ? text : `outcome unknown: ${text}${mayBe}`
}

const mayBe = '; the write may or may not have been applied'

function tailOf(outcome: Outcome): string {
  return outcome === 'unknown' ? mayBe : ''
}
