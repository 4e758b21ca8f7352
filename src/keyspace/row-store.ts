import type { Bytes } from '../lib/bytes.ts'

/**
 * The ordered rows that one replica's replicated state is made of: values, hash fields, expiry index, sessions, meta
 * register, all of them. A checkpoint or a snapshot of a replica is a copy of its rows and nothing else, so whatever
 * replicas must agree on is a row here.
 *
 * Keys are latin1 strings (one char a byte, see lib/bytes.ts), at most 1,900 chars, ordered by their bytes. Values are
 * never changed in place by either side.
 */
export interface RowStore {
  get(key: string): Bytes | undefined
  put(key: string, value: Bytes): void
  delete(key: string): void
  /** Rows with from ≤ key < to in key order, read lazily. The store is not written while an iteration is open. */
  range(from: string, to: string): Iterable<readonly [key: string, value: Bytes]>
}
