/**
 * Writes that come alone, one a process: `roundhouse set` in a loop.
 *
 * A session of its own for each would be a row in the shard for an hour, and ten thousand of them fill its table for
 * everybody. So all processes of one user on one machine share a session, a new one each half hour, without speaking to
 * each other: its id is made of the half hour, the machine's name and the user, and a sequence is the moment, with enough
 * beside it that no two are the same.
 *
 *   session   the half hour, ms since 1970 (48 bits) · 80 bits of SHA-256 over it, host name and user id
 *   sequence  1 + ms within the half hour (21 bits) · random (32 bits)
 *
 * What a minute ago was begun is given up by now: nobody who shares a session tries for longer. So a write acknowledges all
 * that is older, and a shard keeps the answers of a minute. One that comes late after all (its process was frozen) is
 * refused as stale and never applied.
 *
 * Where the session has no room (a thousand writes a minute to one shard), or a clock has stepped, the write goes without
 * one: once, for without a session it may not be sent again.
 */
import { createHash, randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { commands } from '../commands/table.ts'
import { RemoteError } from '../errors.ts'

/** What makes a write known again. */
export interface Carried {
  readonly session: Buffer
  readonly sequence: bigint
  readonly ackedBelow: bigint
}

const periodMs = 30 * 60_000
/** Who tries for longer takes a session of its own. */
export const sharedTimeoutMsMax = 30_000
/** After this long nobody tries any more. */
const givenUpMs = 60_000
const randomBits = 32n

/** `place`: whose processes share it. */
export function sharedSession(wallMs: number, place = `${hostname()} ${process.getuid?.() ?? 0}`): Carried {
  const periodStartMs = Math.floor(wallMs / periodMs) * periodMs
  const session = Buffer.alloc(16)
  session.writeUIntBE(periodStartMs, 0, 6)
  createHash('sha256').update(`${periodStartMs} ${place}`).digest().copy(session, 6, 0, 10)
  const first = (ms: number) => BigInt(1 + ms) << randomBits
  const givenUpBefore = wallMs - periodStartMs - givenUpMs
  return {
    session,
    sequence: first(wallMs - periodStartMs) + BigInt(randomBytes(4).readUInt32BE()),
    ackedBelow: givenUpBefore > 0 ? first(givenUpBefore) : 0n,
  }
}

/** Refused for its session alone: by that shard nothing of it was done. */
export function isOfSession(error: unknown): boolean {
  return error instanceof RemoteError && (error.code === 'SESSION_FULL' || error.code === 'SESSION_STALE')
}

/** Refused for its session alone, and of one shard: so nothing of it was done. */
export function mayGoWithout(error: unknown, command: string, argumentCount: number): boolean {
  if (!isOfSession(error)) return false
  switch (commands.get(command.toUpperCase())?.keys) {
    case 'first':
    case 'pair':
      return true
    case 'all':
      return argumentCount <= 1
    case 'alternate':
      return argumentCount <= 2
    default:
      return false
  }
}
