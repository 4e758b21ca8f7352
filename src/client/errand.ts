/**
 * A request that travels alone, in a call of its own: to the leader of its key first, then to nodes that answer, until its
 * time is up. Nodes pass on what is not theirs. What may not be sent twice (it is neither a read, nor under a session) is
 * given up as unknown when a call breaks off.
 */
import type { CallOptions, ClientUnaryCall, Metadata as MetadataType, ServiceError } from '@grpc/grpc-js'
import { Metadata } from '@grpc/grpc-js'
import { Aborts } from './aborts.ts'
import { aborted, cutOff, givenUp, type Tried } from './call.ts'
import type { Engine } from './engine.ts'
import { brokenOff, type Failure, statusFailure, unreachable } from './failure.ts'
import type { NodeLink } from './node-link.ts'

export type Attempt<Answer> =
  | { readonly ok: true; readonly answer: Answer }
  | { readonly ok: false; readonly failure: Failure }

export interface Errand<Answer> {
  /** For errors, upper case. */
  readonly name: string
  /** Whose leader is asked first. null: any node is as good. */
  readonly key: Buffer | null
  readonly access: 'read' | 'write'
  readonly isRepeatable: boolean
  readonly deadlineMs: number
  readonly signal: AbortSignal
  send(link: NodeLink, timeoutMs: number): Promise<Attempt<Answer>>
}

/** Nothing is sent that has less than this until its deadline. */
const attemptMsMin = 5

/** How an errand came out, for those who decide what that means. */
export type Outcome<Answer> =
  | { readonly ok: true; readonly answer: Answer }
  | { readonly ok: false; readonly tried: Tried }

/** Never rejects. An aborted one ends soon after, whatever was learnt. */
export async function deliver<Answer>(engine: Engine, errand: Errand<Answer>): Promise<Outcome<Answer>> {
  const { name, key, access, isRepeatable, deadlineMs, signal } = errand
  const { attemptsMax, attemptMs, pauseMs } = engine.retry
  const tried = {
    command: name,
    startedMs: performance.now(),
    attempts: 0,
    last: null as Failure | null,
    undecided: null as Failure | null,
  }
  let address: string | null = null
  for (let tries = 1; ; tries++) {
    const link = await engine.nodeFor(key, address)
    const leftMs = deadlineMs - performance.now()
    if (signal.aborted || (tries > 1 && leftMs < attemptMsMin)) return { ok: false, tried }
    let failure = unreachable('any node', 'no connection')
    if (link !== null) {
      address = link.address
      tried.attempts++
      // What can't be tried again is waited for: an election takes longer than one attempt.
      const waitMs = isRepeatable ? Math.min(attemptMs, leftMs) : leftMs
      const attempt = await errand.send(link, Math.max(1, waitMs))
      if (attempt.ok) {
        link.heard()
        return attempt
      }
      failure = attempt.failure
      if (failure.isHeard) link.heard()
      else link.suspect()
      engine.doubt(key, address)
    }
    tried.last = failure
    const isUndecided = access === 'write' && failure.outcome === 'unknown'
    if (isUndecided) tried.undecided ??= failure
    const isOver = failure.retry === 'never' || (isUndecided && !isRepeatable)
    // A first try elsewhere needs no pause.
    const isPausing = tries > 1 || failure.code === 'OVERLOADED' || link === null
    const pause = isPausing ? Math.min(pauseMs.max, pauseMs.min * 2 ** Math.max(0, tries - 2)) : 0
    if (isOver || tries >= attemptsMax || performance.now() + pause + attemptMsMin >= deadlineMs)
      return { ok: false, tried }
    if (pause > 0) await new Promise(resolve => setTimeout(resolve, pause))
  }
}

export interface AskFacts {
  readonly name: string
  readonly key?: Buffer
  readonly access: 'read' | 'write'
  /** Of a write: twice is as good as once. */
  readonly isRepeatable: boolean
  readonly bytes?: number
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
}

/** Of all clients: a signal may be given to several. */
const aborts = new Aborts()

/** One call of one caller. Rejects with CallError. */
export async function ask<Answer>(
  engine: Engine,
  { name, key, access, isRepeatable, bytes = 0, timeoutMs, signal }: AskFacts,
  send: (link: NodeLink, timeoutMs: number, signal: AbortSignal) => Promise<Attempt<Answer>>,
): Promise<Answer> {
  const end = new AbortController()
  let isDestroyed = false
  const guest = {
    destroy: () => {
      isDestroyed = true
      end.abort()
    },
  }
  const refusal = engine.enter(guest, { name, bytes, signal })
  if (refusal !== null) throw refusal
  const unlisten = signal === null ? null : aborts.listen(signal, () => end.abort())
  try {
    const outcome = await deliver(engine, {
      ...{ name, key: key ?? null, access, isRepeatable, signal: end.signal },
      deadlineMs: performance.now() + timeoutMs,
      send: (link, leftMs) => send(link, leftMs, end.signal),
    })
    if (outcome.ok) return outcome.answer
    const { tried } = outcome
    const ending = { access, isSent: false, ...tried }
    // What it was refused with for good is known, whatever came meanwhile.
    const isRefused = tried.last?.retry === 'never' && tried.undecided === null
    if (isDestroyed && !isRefused) throw cutOff(ending)
    if (signal?.aborted && !isRefused) throw aborted(name, signal, ending)
    throw givenUp(tried)
  } finally {
    unlisten?.()
    engine.leave(guest, bytes)
  }
}

type Callback<Answer> = (error: ServiceError | null, answer: Answer) => void
/** As ts-proto makes them. */
export type UnaryMethod<Request, Answer> = (
  request: Request,
  metadata: MetadataType,
  options: Partial<CallOptions>,
  callback: Callback<Answer>,
) => ClientUnaryCall

/** One call to one node. Resolves when it is over, or at once when it is aborted. */
export function once<Answer>(
  link: NodeLink,
  timeoutMs: number,
  signal: AbortSignal,
  begin: (
    metadata: MetadataType,
    options: Partial<CallOptions>,
    callback: Callback<Answer>,
  ) => ClientUnaryCall,
): Promise<Attempt<Answer>> {
  return new Promise(resolve => {
    const onAbort = () => {
      resolve({ ok: false, failure: brokenOff(link.address, 'it was aborted') })
      // Never from within a callback of the connection, see Lane.
      setImmediate(() => call.cancel())
    }
    const call = begin(new Metadata(), { deadline: Date.now() + timeoutMs }, (error, answer) => {
      signal.removeEventListener('abort', onAbort)
      if (error === null) resolve({ ok: true, answer })
      else resolve({ ok: false, failure: statusFailure(error, link.address) })
    })
    signal.addEventListener('abort', onAbort, { once: true })
  })
}
