/** Storage in an array: for tests, simulations, and as the shortest description of what the port means. */
import { assert } from '../lib/assert.ts'
import { emptyBytes } from '../lib/bytes.ts'
import type { Storage } from './storage.ts'
import {
  type ConfState,
  type Entry,
  emptyConfState,
  emptyHardState,
  type HardState,
  limitBytes,
  type Snapshot,
} from './types.ts'

export class MemoryStorage implements Storage {
  hardState: HardState = emptyHardState
  private latest: Snapshot = { meta: { index: 0, term: 0, confState: emptyConfState }, data: emptyBytes }
  /** Of the entry before the first one: what compaction or a snapshot left behind. */
  private dummy = { index: 0, term: 0 }
  private log: Entry[] = []

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.hardState, confState: this.latest.meta.confState }
  }

  entries(from: number, to: number, bytesMax: number): readonly Entry[] | null {
    if (from <= this.dummy.index) return null
    assert(to <= this.lastIndex() + 1, `entries to ${to}, but the last is ${this.lastIndex()}`)
    return limitBytes(this.log.slice(from - this.firstIndex(), to - this.firstIndex()), bytesMax)
  }

  term(index: number): number | undefined {
    if (index === this.dummy.index) return this.dummy.term
    return this.log[index - this.firstIndex()]?.term
  }

  firstIndex(): number {
    return this.dummy.index + 1
  }

  lastIndex(): number {
    return this.dummy.index + this.log.length
  }

  /** What a restart begins with. */
  get saved(): Snapshot {
    return this.latest
  }

  snapshot(_to: number): Snapshot | null {
    return this.latest
  }

  /** Writes entries over whatever stood at their indexes and behind. */
  append(entries: readonly Entry[]): void {
    const first = entries[0]
    if (first === undefined) return
    assert(first.index <= this.lastIndex() + 1, `a hole before entry ${first.index}`)
    assert(first.index > this.dummy.index, `entry ${first.index} is compacted`)
    this.log.length = first.index - this.firstIndex()
    for (const entry of entries) this.log.push(entry)
  }

  /** The snapshot takes the place of the whole log. */
  applySnapshot(snapshot: Snapshot): void {
    this.latest = snapshot
    this.dummy = { index: snapshot.meta.index, term: snapshot.meta.term }
    this.log = []
  }

  /** Makes `snapshot` the one to hand out; the log stays. */
  saveSnapshot(snapshot: Snapshot): void {
    this.latest = snapshot
  }

  /** Drops the entries up to `index`, itself included. */
  compact(index: number): void {
    const term = this.term(index)
    assert(term !== undefined && index <= this.lastIndex(), `compaction at ${index}, which is not there`)
    this.log = this.log.slice(index - this.dummy.index)
    this.dummy = { index, term }
  }
}
