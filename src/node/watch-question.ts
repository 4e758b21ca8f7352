import { RoundhouseError } from '../errors.ts'
import type { Change, Target } from '../keyspace/changes.ts'

/**
 * WATCH.READ: what one node asks another that has a replica of a shard, for the changes after an entry. With `waitMs` it is
 * answered when there is one that fits, or when the time is over.
 */
export interface WatchQuestion {
  readonly shard: number
  /** Index of an entry; -1: only where the replica stands. */
  readonly after: number
  readonly target: Target
  readonly bytesMax: number
  readonly waitMs: number
}

export interface WatchAnswer {
  /** The replica has what came after this; where that is past `after`, nothing was read. */
  readonly start: number
  /** Its last entry. */
  readonly end: number
  readonly changes: readonly Change[]
  /** All up to here is in `changes`. */
  readonly upTo: number
}

/** Throws INVALID_ARGUMENT. */
export function readQuestion(given: unknown): WatchQuestion {
  const { shard, after, target, bytesMax, waitMs } = given as Record<keyof WatchQuestion, unknown>
  const isCount = (each: unknown) => Number.isSafeInteger(each) && (each as number) >= 0
  const { kind, key, prefix } = (target ?? {}) as Record<string, unknown>
  const isTarget = kind === 'key' ? typeof key === 'string' : kind === 'prefix' && typeof prefix === 'string'
  if (![shard, bytesMax, waitMs].every(isCount) || !(isCount(after) || after === -1) || !isTarget)
    throw new RoundhouseError('INVALID_ARGUMENT', {
      what: 'question WATCH.READ',
      accepted: 'shard, after, target, bytesMax and waitMs',
    })
  return given as WatchQuestion
}

/**
 * Keys and values in base64. Keys are texts with a char a byte, of which JSON would make up to six: an entry's changes go
 * into one answer, and 4 MiB of them must fit into a message between nodes.
 */
export function writeAnswer({ changes, ...rest }: WatchAnswer): unknown {
  return {
    ...rest,
    changes: changes.map(({ key, value, ...change }) => ({
      ...change,
      key: Buffer.from(key, 'latin1').toString('base64'),
      ...(value === null ? {} : { value: Buffer.from(value).toString('base64') }),
    })),
  }
}

/** null where it is none. */
export function readAnswer(text: string): WatchAnswer | null {
  const given = JSON.parse(text) as Record<keyof WatchAnswer, unknown>
  const { start, end, upTo, changes } = given
  if (![start, end, upTo].every(Number.isSafeInteger) || !Array.isArray(changes)) return null
  return {
    start: start as number,
    end: end as number,
    upTo: upTo as number,
    changes: (changes as (Omit<Change, 'value'> & { value?: string })[]).map(({ key, value, ...change }) => ({
      ...change,
      key: Buffer.from(key, 'base64').toString('latin1'),
      value: value === undefined ? null : Buffer.from(value, 'base64'),
    })),
  }
}
