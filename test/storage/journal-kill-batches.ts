import { Prng } from '../../src/lib/prng.ts'
import type { Entry } from '../../src/raft/types.ts'
import type { JournalRecord } from '../../src/storage/journal.ts'

/** Small segments: the writer comes round many times before it is killed. */
export const killOptions = { directory: 'journal', segmentBytes: 256 * 1024, budgetBytes: 2 * 1024 * 1024 }

/** What batch `number` (from 1) holds: entry `number` of three replicas, made from the number alone. */
export function batchOf(number: number): JournalRecord[] {
  return [1, 2, 3].map(replica => ({
    replica,
    hardState: { term: 1, vote: replica, commit: number - 1 },
    entries: [entryOf(replica, number)],
  }))
}

export function entryOf(replica: number, index: number): Entry {
  const random = new Prng(replica * 1_000_003 + index)
  return { index, term: 1, kind: 'normal', data: random.bytes(random.below(2000)) }
}
