import { RoundhouseError } from '../errors.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Command } from './command.ts'
import { absoluteMs, readAbsoluteMs, seconds } from './expiry.ts'
import { checkFields } from './fields.ts'
import { integerBytes, parseAmount } from './integer.ts'

const usage = 'key field value [ttl in seconds], or key field value [field value …]'

/**
 * The odd last argument after one field and value is that field's time to live, as in GOKV: seconds, 0 for none. In an
 * entry it is the moment in ms since 1970. A field set without one loses the expiry it had; the key keeps its own.
 */
export const hset: Command = {
  name: 'HSET',
  summary: 'Sets fields of a hash; one field may have a time to live',
  usage,
  arity: { min: 3, max: Number.POSITIVE_INFINITY },
  keys: 'first',
  access: 'write',
  check(args) {
    if (args.length === 4) parseTtl(args[3]!)
    else if (args.length % 2 === 0) throw new RoundhouseError('WRONG_ARITY', { command: 'HSET', usage })
    checkFields(args.filter((_, i) => i % 2 === 1 && i + 1 < args.length))
  },
  prepare(args, { wallMs }) {
    if (args.length !== 4) return args
    const ttl = parseTtl(args[3]!)
    if (ttl === 0n) return args.slice(0, 3)
    return [...args.slice(0, 3), integerBytes(absoluteMs('hset', ttl, seconds, wallMs))]
  },
  run(keyspace, args) {
    const pairs: [Bytes, Bytes][] = []
    for (let i = 1; i + 1 < args.length; i += 2) pairs.push([args[i]!, args[i + 1]!])
    const expiresAtMs = args.length === 4 ? readAbsoluteMs(args[3]!) : null
    return { kind: 'success', success: true, integer: keyspace.hashes.put(args[0]!, pairs, expiresAtMs) }
  },
}

/** Throws NOT_INTEGER, INVALID_EXPIRE. */
function parseTtl(text: Bytes): bigint {
  const ttl = parseAmount(text)
  if (ttl < 0n) throw new RoundhouseError('INVALID_EXPIRE', { command: 'hset', what: `${ttl}` })
  return ttl
}
