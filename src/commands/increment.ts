import { RoundhouseError } from '../errors.ts'
import type { Keyspace } from '../keyspace/keyspace.ts'
import { type Bytes, quote } from '../lib/bytes.ts'
import type { Reply } from './command.ts'
import { addExact, countOf, integerBytes, parseInt64 } from './integer.ts'
import { count } from './replies.ts'

/** Adds to the integer at `key`, 0 if missing; its expiry stays. Throws WRONG_TYPE, NOT_INTEGER, OVERFLOW. */
export function increment(keyspace: Keyspace, key: Bytes, by: bigint): Reply {
  const text = keyspace.getString(key)
  const old = text === undefined ? 0n : parseInt64(text)
  if (old === undefined) throw new RoundhouseError('NOT_INTEGER', { what: quote(text!) })
  const sum = addExact(old, by)
  keyspace.putString(key, integerBytes(sum), 'keep')
  return count(countOf(sum))
}
