import { RoundhouseError } from '../errors.ts'
import type { Keyspace } from '../keyspace/keyspace.ts'
import { assert } from '../lib/assert.ts'
import { type Bytes, quote, toLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { integerBytes, parseAmount, parseSafeInteger } from './integer.ts'
import { refuseOptions } from './refusals.ts'
import { count } from './replies.ts'

/** Time in arguments: people give seconds or milliseconds from now, entries carry milliseconds since 1970. */
export interface TimeUnit {
  readonly ms: bigint
  readonly isRelative: boolean
}

export const seconds: TimeUnit = { ms: 1000n, isRelative: true }
export const milliseconds: TimeUnit = { ms: 1n, isRelative: true }

/**
 * `amount` of `unit` as milliseconds since 1970; a moment before 1970 is 0. Throws INVALID_EXPIRE for one that is
 * further away than a safe integer.
 */
export function absoluteMs(command: string, amount: bigint, unit: TimeUnit, wallMs: number): number {
  const ms = amount * unit.ms + (unit.isRelative ? BigInt(Math.floor(wallMs)) : 0n)
  if (ms > BigInt(Number.MAX_SAFE_INTEGER))
    throw new RoundhouseError('INVALID_EXPIRE', { command, what: `${amount} is too far ahead` })
  return ms < 0n ? 0 : Number(ms)
}

/** As `prepare` wrote it. */
export function readAbsoluteMs(bytes: Bytes): number {
  const ms = parseSafeInteger(bytes)
  assert(ms !== undefined && ms >= 0, `an entry with the time ${quote(bytes)}`)
  return ms
}

/** EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT: the same command by another unit. */
export function expireCommand(name: string, unit: TimeUnit, unitName: string): Command {
  return {
    name,
    summary: `Lets a key expire ${unit.isRelative ? `in so many ${unitName}` : `at a time in ${unitName} since 1970`}`,
    usage: `key ${unit.isRelative ? unitName : `unix-time-${unitName}`} [NX | XX | GT | LT]`,
    arity: { min: 2, max: 4 },
    keys: 'first',
    access: 'write',
    check(args) {
      parseAmount(args[1]!)
      parseConditions(args)
    },
    prepare(args, { wallMs }) {
      const [key, amount, ...conditions] = args
      const expiresAtMs = absoluteMs(name, parseAmount(amount!), unit, wallMs)
      return [key!, integerBytes(expiresAtMs), ...conditions]
    },
    run: (keyspace, args) => count(expire(keyspace, args) ? 1 : 0),
  }
}

const conditions = ['NX', 'XX', 'GT', 'LT'] as const
type Condition = (typeof conditions)[number]

/** Throws SYNTAX. */
function parseConditions(args: readonly Bytes[]): Set<Condition> {
  const found = new Set<Condition>()
  for (const arg of args.slice(2)) {
    const condition = conditions.find(name => name === toLatin1(arg).toUpperCase())
    if (condition === undefined) refuseOptions(`Unsupported option ${quote(arg)}`)
    found.add(condition)
  }
  if (found.has('NX') && found.size > 1)
    refuseOptions('NX and XX, GT or LT options at the same time are not compatible')
  if (found.has('GT') && found.has('LT'))
    refuseOptions('GT and LT options at the same time are not compatible')
  return found
}

function expire(keyspace: Keyspace, args: readonly Bytes[]): boolean {
  const wanted = readAbsoluteMs(args[1]!)
  const current = keyspace.expiryOf(args[0]!)
  if (current === undefined) return false
  const given = parseConditions(args)
  // A key without expiry counts as one that expires at the end of time.
  if (given.has('NX') && current !== null) return false
  if (given.has('XX') && current === null) return false
  if (given.has('GT') && wanted <= (current ?? Number.POSITIVE_INFINITY)) return false
  if (given.has('LT') && wanted >= (current ?? Number.POSITIVE_INFINITY)) return false
  return keyspace.setExpiry(args[0]!, wanted)
}

/** What TTL and PTTL measure: -2 = no such key, -1 = it never expires, else what is left in ms. */
export function timeLeftMs(keyspace: Keyspace, key: Bytes): number {
  const expiresAtMs = keyspace.expiryOf(key)
  if (expiresAtMs === undefined) return -2
  return expiresAtMs === null ? -1 : Math.max(0, expiresAtMs - keyspace.nowMs)
}
