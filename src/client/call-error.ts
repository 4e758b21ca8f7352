/**
 * What a call rejects with. The question that a caller has to answer is whether the write may have been applied, so that
 * stands in `outcome` and not in a text; what to tell people is `message`, what to branch on is `code`.
 */
import type { ErrorCode } from '../errors.ts'

/** Those of the client itself beside the nodes' own; a later node may have codes that this client does not know. */
export type CallErrorCode =
  | ErrorCode
  | 'ABORTED'
  | 'CLOSED'
  | 'QUEUE_FULL'
  | 'REPLY_LOST'
  | 'UNEXPECTED_REPLY'
  | (string & {})

/**
 * refused: nothing was changed and nothing will be. unknown: a write that may or may not have been applied. applied: a
 * write that was, whose reply is not to be had (REPLY_LOST, UNEXPECTED_REPLY).
 */
export type Outcome = 'refused' | 'unknown' | 'applied'

export interface CallErrorFacts {
  readonly code: CallErrorCode
  readonly message: string
  readonly outcome: Outcome
  readonly command?: string
  readonly leader?: string | null
  readonly attempts?: number
  readonly cause?: unknown
}

export class CallError extends Error {
  readonly code: CallErrorCode
  readonly outcome: Outcome
  /** Upper case; empty where it was not a command that failed. */
  readonly command: string
  /** host:port of the node that leads the key's shard, where the last refusal named one. */
  readonly leader: string | null
  /** How often the call was sent. */
  readonly attempts: number

  constructor({ code, message, outcome, command = '', leader = null, attempts = 0, cause }: CallErrorFacts) {
    super(message, cause === undefined ? {} : { cause })
    // What Node.js calls the error of everything that takes a signal.
    this.name = code === 'ABORTED' ? 'AbortError' : 'CallError'
    this.code = code
    this.outcome = outcome
    this.command = command
    this.leader = leader
    this.attempts = attempts
  }
}
