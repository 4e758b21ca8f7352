import { RoundhouseError } from '../errors.ts'
import { assert } from '../lib/assert.ts'
import { type Bytes, equalBytes, fromLatin1, quote, toLatin1 } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { absoluteMs, milliseconds, readAbsoluteMs, seconds, type TimeUnit } from './expiry.ts'
import { integerBytes, parseAmount } from './integer.ts'
import { done, notDone, valueOrNil } from './replies.ts'

/**
 * SET replaces whatever the key held, its type and (without KEEPTTL) its expiry. An entry carries the expiry as PXAT,
 * whichever way it was given.
 */
export const set: Command = {
  name: 'SET',
  summary: 'Sets a key; IFEQ only if it holds that value',
  usage:
    'key value [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL] [NX | XX | IFEQ value] [GET]',
  arity: { min: 2, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check(args) {
    parseOptions(args)
  },
  prepare(args, { wallMs }) {
    const { expiry } = parseOptions(args)
    if (expiry === null || expiry === 'keep') return args
    const expiresAtMs = absoluteMs('set', expiry.amount, expiry.unit, wallMs)
    const absolute = [...args]
    absolute.splice(expiry.position, 2, fromLatin1('PXAT'), integerBytes(expiresAtMs))
    return absolute
  },
  run(keyspace, args) {
    const [key, value] = args as [Bytes, Bytes]
    const { expiry, condition, ifEqual, get } = parseOptions(args)
    const old = get || condition === 'IFEQ' ? keyspace.getString(key) : undefined
    if (condition === null || isMet(condition)) {
      keyspace.putString(key, value, expiry === null || expiry === 'keep' ? expiry : expiryIn(args, expiry))
      return get ? valueOrNil(old) : done
    }
    return get ? valueOrNil(old) : notDone

    function isMet(wanted: Condition): boolean {
      if (wanted === 'IFEQ') return old !== undefined && equalBytes(old, ifEqual!)
      return keyspace.has(key) === (wanted === 'XX')
    }
  },
}

const units: Readonly<Record<string, TimeUnit>> = {
  EX: seconds,
  PX: milliseconds,
  EXAT: { ...seconds, isRelative: false },
  PXAT: { ...milliseconds, isRelative: false },
}

type Condition = 'NX' | 'XX' | 'IFEQ'

interface Expiry {
  readonly unit: TimeUnit
  readonly amount: bigint
  /** Of the unit's name among the arguments; the amount is next. */
  readonly position: number
}

interface Options {
  /** null = the key will not expire. */
  expiry: Expiry | 'keep' | null
  condition: Condition | null
  ifEqual: Bytes | undefined
  get: boolean
}

/** Throws SYNTAX, NOT_INTEGER, INVALID_EXPIRE. */
function parseOptions(args: readonly Bytes[]): Options {
  const options: Options = { expiry: null, condition: null, ifEqual: undefined, get: false }
  for (let i = 2; i < args.length; i++) {
    const name = toLatin1(args[i]!).toUpperCase()
    const unit = Object.hasOwn(units, name) ? units[name] : undefined
    if (name === 'GET' && !options.get) options.get = true
    else if (name === 'KEEPTTL' && options.expiry === null) options.expiry = 'keep'
    else if ((name === 'NX' || name === 'XX') && options.condition === null) options.condition = name
    else if (name === 'IFEQ' && options.condition === null && i + 1 < args.length) {
      options.condition = name
      options.ifEqual = args[++i]
    } else if (unit !== undefined && options.expiry === null && i + 1 < args.length) {
      const amount = parseAmount(args[i + 1]!)
      if (amount <= 0n) throw new RoundhouseError('INVALID_EXPIRE', { command: 'set', what: `${amount}` })
      options.expiry = { unit, amount, position: i++ }
    } else throw new RoundhouseError('SYNTAX', { detail: `${quote(args[i]!)} does not fit here` })
  }
  return options
}

function expiryIn(args: readonly Bytes[], { unit, position }: Expiry): number {
  assert(unit === units.PXAT, 'an entry with a relative expiry')
  return readAbsoluteMs(args[position + 1]!)
}
