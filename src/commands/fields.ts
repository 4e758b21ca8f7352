import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import type { Bytes } from '../lib/bytes.ts'

/** Throws TOO_LARGE. */
export function checkFields(fields: readonly Bytes[]): void {
  for (const { byteLength } of fields)
    if (byteLength > limits.fieldBytesMax)
      throw new RoundhouseError('TOO_LARGE', { what: 'field', bytes: byteLength, max: limits.fieldBytesMax })
}
