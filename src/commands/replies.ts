import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Reply } from './command.ts'

export const nil: Reply = { kind: 'nil' }
export const done: Reply = { kind: 'success', success: true }
export const notDone: Reply = { kind: 'success', success: false }

export function count(value: number | bigint): Reply {
  return { kind: 'count', count: value }
}

/** A value, or nil for a missing one. */
export function valueOrNil(value: Bytes | undefined): Reply {
  return value === undefined ? nil : { kind: 'value', value }
}

/** Counts what goes into a list, and refuses the reply that would grow beyond what one may be. */
export class ReplyBudget {
  private bytes = 0
  private readonly hint: string

  /** `hint` says what to ask for instead. */
  constructor(hint: string) {
    this.hint = hint
  }

  /** Throws REPLY_TOO_LARGE. */
  spend(...parts: readonly (Bytes | undefined)[]): void {
    // About what an item costs on the wire beside its bytes.
    this.bytes += 8
    for (const part of parts) this.bytes += part?.byteLength ?? 0
    if (this.bytes > limits.replyBytesMax)
      throw new RoundhouseError('REPLY_TOO_LARGE', { max: limits.replyBytesMax, hint: this.hint })
  }
}
