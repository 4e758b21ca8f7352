/**
 * One client's calls: each is sent, to whoever answers, until its reply is there or patience ends. A write carries a
 * session and a sequence, so that it is applied once however often it is sent. What is told apart:
 *
 *   reply     the answer; of a write, whichever try brought it
 *   refused   certainly nothing was done: no try did more than be refused
 *   unknown   a try of a write was not answered: it may take effect, now or later
 */
import type { ErrorKind } from '../../errors.ts'
import { CommandRequest, type CommandResponse } from '../../gen/clusterpb/cluster.ts'
import type { Random } from '../../lib/prng.ts'

export interface Store {
  /** Where a try may go. */
  pick(): string
  /** All there are. */
  addresses(): readonly string[]
  /** One try; rejects with a CallError. */
  run(address: string, request: CommandRequest, timeoutMs: number): Promise<CommandResponse>
}

/** What `run` rejects with; anything else is a fault of the workload's own. */
export interface CallError extends Error {
  readonly code: string
  readonly kind: ErrorKind
}

export type Answer =
  | { readonly kind: 'reply'; readonly response: CommandResponse }
  | { readonly kind: 'refused' | 'unknown'; readonly code: string; readonly text: string }

export interface CallerOptions {
  readonly store: Store
  readonly random: Random
  /** Milliseconds since an arbitrary start, and since 1970. */
  readonly now: () => number
  readonly wall: () => number
  readonly after: (ms: number) => Promise<void>
  /** A try that brought no reply. */
  readonly onTrouble: (code: string) => void
}

const attemptMs = 2_000
/** Of the calls, before how many a client changes to another node. */
const movesShare = 0.05
const pauseMs = { min: 10, max: 150 } as const

export interface Patience {
  readonly totalMs: number
  readonly attemptMs?: number
  /** The first try goes to two nodes at once. */
  readonly isDoubled?: boolean
}

export class Caller {
  private readonly options: CallerOptions
  private session: Uint8Array
  private sequence = 0
  /** A client has its node, until that fails it: so there is somebody who asks a leader that is cut off, and no one else. */
  private home: string
  /** Calls that were sent more than once. */
  retried = 0

  constructor(options: CallerOptions) {
    this.options = options
    this.session = this.newSession()
    this.home = options.store.pick()
  }

  read(command: string, key: string, args: readonly string[], patience: Patience): Promise<Answer> {
    return this.call(requestOf(command, key, args), false, patience)
  }

  async write(command: string, key: string, args: readonly string[], patience: Patience): Promise<Answer> {
    this.sequence += 1
    const request = CommandRequest.fromPartial({
      ...requestOf(command, key, args),
      session: Buffer.from(this.session),
      sequence: BigInt(this.sequence),
      ackedBelow: BigInt(this.sequence),
    })
    const answer = await this.call(request, true, patience)
    // Half of the clients go on in the session of a write that they gave up: its mark passes it, and it must not be applied later.
    if (answer.kind === 'unknown' && this.options.random.next() < 0.5) {
      this.session = this.newSession()
      this.sequence = 0
    }
    return answer
  }

  private async call(request: CommandRequest, isWrite: boolean, patience: Patience): Promise<Answer> {
    const { store, random, now, after, onTrouble } = this.options
    const untilMs = now() + patience.totalMs
    const timeoutMs = patience.attemptMs ?? attemptMs
    let mayHaveRun = false
    for (let tries = 1; ; tries++) {
      if (tries === 2) this.retried += 1
      const isDoubled = tries === 1 && patience.isDoubled === true
      if (tries > 1 || random.next() < movesShare) this.home = store.pick()
      const addresses = isDoubled ? [this.home, store.pick()] : [this.home]
      const attempts = addresses.map(address => store.run(address, request, timeoutMs))
      const { response, errors } = await firstReply(attempts)
      for (const error of errors) {
        if (error.kind === undefined) throw error
        onTrouble(error.code)
        if (error.kind === 'outcome_unknown' || error.kind === 'data_loss') mayHaveRun = true
      }
      if (response !== null) return { kind: 'reply', response }
      const final = errors.find(({ kind }) => !isPassing(kind)) ?? errors[0]!
      if (!isPassing(final.kind)) return { kind: 'refused', code: final.code, text: final.message }
      if (now() > untilMs)
        return { kind: mayHaveRun && isWrite ? 'unknown' : 'refused', code: final.code, text: final.message }
      await after(pauseMs.min + random.below(pauseMs.max - pauseMs.min))
    }
  }

  /** 16 bytes: the time in ms, six bytes big-endian, then ten random ones. */
  private newSession(): Uint8Array {
    const { random, wall } = this.options
    const session = Buffer.alloc(16)
    session.writeUIntBE(wall(), 0, 6)
    session.set(random.bytes(10), 6)
    return session
  }
}

const isPassing = (kind: ErrorKind): boolean =>
  kind === 'unavailable' || kind === 'exhausted' || kind === 'outcome_unknown' || kind === 'data_loss'

/** The reply that is there first; the errors before it. Later replies to the same request are nobody's. */
function firstReply(
  attempts: readonly Promise<CommandResponse>[],
): Promise<{ response: CommandResponse | null; errors: CallError[] }> {
  const errors: CallError[] = []
  return new Promise(resolve => {
    for (const attempt of attempts)
      attempt.then(
        response => resolve({ response, errors }),
        (error: CallError) => {
          errors.push(error)
          if (errors.length === attempts.length) resolve({ response: null, errors })
        },
      )
  })
}

function requestOf(command: string, key: string, args: readonly string[]): CommandRequest {
  return CommandRequest.fromPartial({ command, key, args: args.map(each => Buffer.from(each)) })
}
