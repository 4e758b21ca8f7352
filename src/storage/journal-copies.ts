/**
 * Carries forward what pins the oldest segment: when the budget is spent and its owners can't be checkpointed in time,
 * the few entries that are left in it are written again, as `copy` records, and the segment goes. Copies say what is,
 * so on replay they never truncate.
 */
import type { Entry } from '../raft/types.ts'
import type { FrameRecord } from './frame.ts'
import type { Pins } from './journal-index.ts'
import { segmentKey } from './journal-index.ts'
import type { ReplicaLog } from './journal-log.ts'

/** How much a batch may carry beside its own: what it costs the latency of the clients behind it. */
export const copyBytesMax = 512 * 1024

type CopyRecord = Extract<FrameRecord<Entry>, { kind: 'copy' }>

/** Where a copied entry was: when it has not moved by the time the copy is durable, it lies in the copy's place. */
export interface Relocation {
  readonly log: ReplicaLog
  readonly index: number
  readonly oldSegment: number
  readonly oldPosition: number
  readonly entry: Entry
}

export class Copier {
  private readonly pins: Pins
  private readonly segmentBytes: number
  /** The segment that was found too full to be worth it, and how many entries pinned it then. */
  private refused = { segment: 0, count: 0 }

  constructor(pins: Pins, segmentBytes: number) {
    this.pins = pins
    this.segmentBytes = segmentBytes
  }

  /**
   * The next copies of what pins `segment`; none when it still holds so much that copying would win nothing. `read`
   * throws CORRUPT for an entry that has rotted: its replica's entries stay where they are.
   */
  next(
    segment: number,
    logs: Iterable<ReplicaLog>,
    read: (log: ReplicaLog, from: number, to: number) => Entry[],
  ): { records: CopyRecord[]; relocations: Relocation[] } {
    const key = segmentKey(segment)
    const count = this.pins.count(key)
    const records: CopyRecord[] = []
    const relocations: Relocation[] = []
    if (count === 0) return { records, relocations }
    if (this.refused.segment === segment && count > this.refused.count / 2) return { records, relocations }
    const pinning = [...logs].filter(log => log.index.pins.count(key) > 0)
    if (pinning.reduce((sum, log) => sum + bytesIn(log, key), 0) > this.segmentBytes / 2) {
      this.refused = { segment, count }
      return { records, relocations }
    }
    let bytes = 0
    for (const log of pinning) {
      for (const run of runsIn(log, key)) {
        let to = run.from
        while (to < run.to && bytes < copyBytesMax) bytes += log.index.lengthAt(to++)
        if (to === run.from) return { records, relocations }
        let entries: Entry[]
        try {
          entries = read(log, run.from, to)
        } catch {
          break
        }
        records.push({ kind: 'copy', replica: log.replica, first: run.from, entries })
        for (const entry of entries) {
          const oldPosition = log.index.positionAt(entry.index)
          relocations.push({ log, index: entry.index, oldSegment: segment, oldPosition, entry })
        }
      }
    }
    return { records, relocations }
  }
}

function bytesIn(log: ReplicaLog, key: number): number {
  let bytes = 0
  for (const { from, to } of runsIn(log, key)) {
    for (let index = from; index < to; index++) bytes += log.index.lengthAt(index)
  }
  return bytes
}

/** Stretches [from, to) of `log` that lie in the segment of `key`. */
function* runsIn(log: ReplicaLog, key: number): Generator<{ from: number; to: number }> {
  let left = log.index.pins.count(key)
  for (let index = log.index.first; left > 0; index++) {
    if (log.index.keyAt(index) !== key) continue
    const from = index
    while (index <= log.lastIndex && log.index.keyAt(index) === key) index++
    left -= index - from
    yield { from, to: index }
  }
}
