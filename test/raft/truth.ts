/**
 * What an all-seeing observer knows of a group: the safety properties of Raft (figure 3), each checked at the moment it
 * could break.
 */
import assert from 'node:assert/strict'
import { crc32 } from 'node:zlib'
import type { MemoryStorage } from '../../src/raft/memory-storage.ts'
import type { Entry, Snapshot } from '../../src/raft/types.ts'

export class Truth {
  reads = 0
  elections = 0
  snapshots = 0
  confChanges = 0
  private readonly leaders = new Map<number, number>()
  /** (term, index) → what stands there and the term before it. */
  private readonly entries = new Map<string, { readonly data: string; readonly before: number }>()
  /** index → its entry's term, and the lowest term in which somebody knew that it was committed. */
  private readonly log: { readonly term: number; readonly knownIn: number }[] = []
  private readonly states: Uint8Array[] = []
  private readonly first: number

  constructor(first: Snapshot) {
    this.first = first.meta.index
    this.log.push({ term: first.meta.term, knownIn: first.meta.term })
    this.states.push(first.data)
  }

  get commitIndex(): number {
    return this.first + this.log.length - 1
  }

  get appliedIndex(): number {
    return this.first + this.states.length - 1
  }

  termOf(index: number): number {
    return this.log[index - this.first]!.term
  }

  stateAt(index: number): Uint8Array {
    return this.states[index - this.first]!
  }

  /** Election Safety, Leader Completeness. */
  leads(id: number, term: number, storage: MemoryStorage): void {
    const leader = this.leaders.get(term)
    if (leader === undefined) {
      this.leaders.set(term, id)
      this.elections++
      for (let index = storage.firstIndex(); index <= this.commitIndex; index++) {
        const { term: entryTerm, knownIn } = this.log[index - this.first]!
        if (knownIn >= term) continue
        assert.equal(storage.term(index), entryTerm, `leader ${id} of term ${term} lacks entry ${index}`)
      }
    } else {
      assert.equal(leader, id, `two leaders in term ${term}`)
    }
  }

  /** Log Matching: a term and an index name one entry, and (by induction) all entries before it. */
  appended(storage: MemoryStorage, entries: readonly Entry[]): void {
    for (const { term, index, data } of entries) {
      const before = storage.term(index - 1)
      assert.ok(before !== undefined && before <= term, `entry ${index} of term ${term} after ${before}`)
      const known = this.entries.get(`${term}/${index}`)
      const entry = { data: Buffer.from(data).toString('hex'), before }
      if (known === undefined) this.entries.set(`${term}/${index}`, entry)
      else assert.deepEqual(entry, known, `two entries (${term}, ${index})`)
    }
  }

  /** What is committed stays: whoever learns of a commit has the same entries up to it. */
  committed(knownIn: number, commit: number, storage: MemoryStorage): void {
    for (let index = storage.firstIndex(); index <= commit; index++) {
      const term = storage.term(index)
      assert.ok(term !== undefined, `commit ${commit} beyond the log`)
      const at = index - this.first
      assert.ok(at <= this.log.length, 'a committed entry that nobody has seen before')
      const known = this.log[at]
      assert.ok(known === undefined || known.term === term, `entry ${index} was committed with another term`)
      if (known === undefined || knownIn < known.knownIn) this.log[at] = { term, knownIn }
    }
  }

  /** State Machine Safety. */
  applied(entry: Entry): void {
    const at = entry.index - this.first
    assert.ok(at <= this.states.length, 'applied before anything was applied there')
    const state = Buffer.alloc(4)
    state.writeUInt32BE(crc32(entry.data, crc32(`${entry.term}`, crc32(this.states[at - 1]!))))
    const known = this.states[at]
    if (known !== undefined) assert.deepEqual(state, known, `two states after entry ${entry.index}`)
    else this.states.push(state)
    if (known === undefined && entry.kind !== 'normal') this.confChanges++
    assert.equal(this.log[at]?.term, entry.term, 'applied, but not committed')
  }

  installed(snapshot: Snapshot): void {
    assert.deepEqual(snapshot.data, this.stateAt(snapshot.meta.index), 'a snapshot of another state')
    this.snapshots++
  }
}
