import { assert } from '../lib/assert.ts'
import type { Command } from './command.ts'
import { parseSafeInteger } from './integer.ts'

/**
 * Removes what expired and what deleted hashes left. How many rows it may take travels in the entry: replicas of two
 * releases take the same.
 */
export const sweep: Command = {
  name: 'SWEEP',
  summary: 'Removes expired rows',
  usage: 'rows',
  arity: { min: 1, max: 1 },
  keys: 'none',
  access: 'write',
  isInternal: true,
  run(keyspace, [rows]) {
    const rowsMax = parseSafeInteger(rows!)
    assert(rowsMax !== undefined && rowsMax > 0, 'SWEEP without a number of rows')
    return { kind: 'count', count: keyspace.sweep(rowsMax) }
  },
}
