import { RoundhouseError } from '../errors.ts'
import { limits } from '../keyspace/limits.ts'
import type { Command } from './command.ts'
import { count } from './replies.ts'

export const append: Command = {
  name: 'APPEND',
  summary: "Adds to the end of the key's value; answers its new length in bytes",
  usage: 'key value',
  arity: { min: 2, max: 2 },
  keys: 'first',
  access: 'write',
  run(keyspace, [key, tail]) {
    const old = keyspace.getString(key!)
    const length = old?.byteLength ?? 0
    const bytes = length + tail!.byteLength
    if (bytes > limits.valueBytesMax)
      throw new RoundhouseError('TOO_LARGE', { what: 'value', bytes, max: limits.valueBytesMax })
    const value = new Uint8Array(bytes)
    if (old !== undefined) value.set(old)
    value.set(tail!, length)
    keyspace.putString(key!, value, 'keep')
    return count(bytes)
  },
}
