import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import type { Bytes } from '../lib/bytes.ts'

/** Of fields of a hash and of members, which are part of a row's key. Throws TOO_LARGE. */
export function checkFields(fields: readonly Bytes[], what: 'field' | 'member' = 'field'): void {
  for (const { byteLength } of fields)
    if (byteLength > limits.fieldBytesMax)
      throw new RoundhouseError('TOO_LARGE', { what, bytes: byteLength, max: limits.fieldBytesMax })
}
