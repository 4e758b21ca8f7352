import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Prng } from '../../src/lib/prng.ts'
import { type JournalRecord, sealAfterMs } from '../../src/storage/journal.ts'
import type { CrashFate, SectorFate } from '../lib/sim-disk.ts'
import {
  applyBatch,
  assertHolds,
  compactModel,
  emptyModel,
  Harness,
  holds,
  lastIndexOf,
  type Models,
  recompact,
  record,
} from './journal-harness.ts'

const fate = (sector: CrashFate['sector'], seed = 1): CrashFate => ({
  random: new Prng(seed),
  names: (_, pending) => pending,
  sector,
  size: (_, __, last) => last,
})

describe('a crash image of the journal', () => {
  /** A journal with something synced, then one batch in flight; the models before and after it. */
  const midWrite = (batch: (harness: Harness) => JournalRecord[], filled = 0): [Harness, Models, Models] => {
    const harness = new Harness(11, { segmentBytes: 8192 })
    harness.open()
    harness.settle()
    const first = [
      record(1, { hardState: { term: 3, vote: 1, commit: 2 }, entries: harness.entriesOf(1, 4, 3, 100) }),
      record(2, { configuration: new Uint8Array([9]) }),
    ]
    harness.write(...first)
    if (filled > 0) harness.write(record(3, { entries: harness.entriesOf(1, 1, 1, filled) }))
    let before = applyBatch(new Map(), first)
    if (filled > 0)
      before = applyBatch(before, [record(3, { entries: harness.journal.entries(3, 1, 2, 1e6) })])
    const next = batch(harness)
    harness.start(...next)
    return [harness, before, applyBatch(before, next)]
  }
  const batches: Record<string, (harness: Harness) => JournalRecord[]> = {
    'an append': harness => [record(1, { entries: harness.entriesOf(5, 3, 3, 700) })],
    'an append that truncates': harness => [record(1, { entries: harness.entriesOf(2, 3, 4, 600) })],
    'a vote': () => [record(2, { hardState: { term: 9, vote: 2, commit: 0 } })],
    'an installed snapshot': () => [record(1, { reset: { index: 50, term: 4 } })],
    'many replicas': harness =>
      [1, 2, 4, 5, 6].map(replica =>
        record(replica, { entries: harness.entriesOf(replica === 1 ? 5 : 1, 1, 5, 300) }),
      ),
  }
  for (const [name, batch] of Object.entries(batches)) {
    for (const filled of [0, 5800]) {
      const where = filled > 0 ? ', the first of a segment,' : ''
      it(`of ${name}${where} holds it all or nothing of it, whatever sectors arrived`, () => {
        const [harness, before, after] = midWrite(batch, filled)
        const sectors = harness.disk.unsynced()
        assert.ok(sectors.length <= 14, `${sectors.length} sectors`)
        const number = (path: string, sector: number) =>
          sectors.findIndex(at => at.path === path && at.sector === sector)
        for (let kept = 0; kept < 2 ** sectors.length; kept++) {
          const disk = harness.disk.clone()
          disk.crashWith(fate((path, sector) => ((kept >> number(path, sector)) & 1 ? 'kept' : 'lost')))
          const other = new Harness(kept, harness.options)
          const opened = other.restart(disk)
          assertHolds(opened, kept === 2 ** sectors.length - 1 ? after : before)
        }
      })

      it(`of ${name}${where} holds it all or nothing of it, wherever one sector is torn or garbled`, () => {
        const [harness, before, after] = midWrite(batch, filled)
        const sectors = harness.disk.unsynced()
        for (let torn = 0; torn < sectors.length; torn++) {
          for (const bad of ['torn', 'garbled'] satisfies SectorFate[]) {
            for (const rest of ['kept', 'lost'] satisfies SectorFate[]) {
              for (let seed = 0; seed < 8; seed++) {
                const disk = harness.disk.clone()
                const { path, sector } = sectors[torn]!
                disk.crashWith(fate((p, s) => (p === path && s === sector ? bad : rest), seed))
                const other = new Harness(seed, harness.options)
                const opened = other.restart(disk)
                assert.ok(holds(opened, before) || holds(opened, after))
              }
            }
          }
        }
      })
    }
  }

  it('is recovered once: what the first start cut stays cut, whatever happens to the second', () => {
    const [harness, before] = midWrite(batches.vote ?? batches['a vote']!)
    const sectors = harness.disk.unsynced()
    assert.equal(sectors.length, 1)
    const [big, bigBefore] = midWrite(batches['an append']!)
    for (let seed = 0; seed < 300; seed++) {
      const disk = big.disk.clone()
      disk.crashWith(fate((_, sector) => (sector % 2 === seed % 2 ? 'kept' : 'lost'), seed))
      const other = new Harness(seed, big.options)
      assertHolds(other.restart(disk), bigBefore)
      const batch = [record(2, { hardState: { term: 10, vote: 1, commit: 0 } })]
      other.start(...batch)
      const opened = other.crash()
      assert.ok(holds(opened, bigBefore) || holds(opened, applyBatch(bigBefore, batch)))
    }
    assertHolds(harness.crash(), harness.opened.recovered.length === 0 ? before : modelsOf(harness, before))
  })
})

/** `before`, or with the vote where that arrived. */
function modelsOf(harness: Harness, before: Models): Models {
  const vote = [record(2, { hardState: { term: 9, vote: 2, commit: 0 } })]
  return holds(harness.opened, before) ? before : applyBatch(before, vote)
}

type Step =
  | { kind: 'batch'; parts: Part[] }
  | { kind: 'settle' }
  | { kind: 'step'; count: number }
  | { kind: 'pause' }
  | { kind: 'compact'; slot: number; share: number; beyond: boolean }
  | { kind: 'remove'; slot: number }
  | { kind: 'crash' }
  | { kind: 'reopen' }

interface Part {
  slot: number
  back: number
  count: number
  bytes: number
  raise: boolean
  hard: boolean
  configure: boolean
  reset: boolean
}

const slots = 4
const slot = fc.nat(slots - 1)
const rarely = fc.integer({ min: 0, max: 19 }).map(n => n === 0)
const part: fc.Arbitrary<Part> = fc.record({
  slot,
  back: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(4)),
  count: fc.nat(4),
  bytes: fc.oneof(fc.nat(60), fc.nat(1500), fc.integer({ min: 4090, max: 5000 })),
  raise: fc.boolean(),
  hard: fc.boolean(),
  configure: rarely,
  reset: rarely,
})
const parts = fc.uniqueArray(part, { selector: part => part.slot, minLength: 1, maxLength: slots })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('batch' as const), parts }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('step' as const), count: fc.nat(3) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pause' as const) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('compact' as const),
      slot,
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      beyond: rarely,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), slot }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
)

/** Runs steps against the journal and a line of models: the durable one first, then one for each frame in flight. */
class Run {
  readonly harness: Harness
  private timeline: Models[] = [new Map()]
  private isWriting = false
  private ids = Array.from({ length: slots }, (_, i) => i + 1)

  constructor(seed: number) {
    this.harness = new Harness(seed, { segmentBytes: 8192, budgetBytes: 40 * 1024, cacheBytes: 6000 })
    this.harness.open()
  }

  get newest(): Models {
    return this.timeline.at(-1)!
  }

  take(step: Step): void {
    const { harness } = this
    switch (step.kind) {
      case 'batch':
        if (this.isWriting) harness.settle()
        this.batch(step.parts.map(part => this.record(part)))
        break
      case 'settle':
        harness.settle()
        assert.equal(this.timeline.length, 1)
        break
      case 'step':
        harness.step(step.count)
        break
      case 'pause':
        harness.advance(sealAfterMs)
        break
      case 'compact': {
        const replica = this.ids[step.slot]!
        const model = this.newest.get(replica)
        if (model === undefined) break
        const { index, term } = model.snapshotPoint
        const last = lastIndexOf(model)
        const to = step.beyond ? last + 3 : index + Math.round((last - index) * step.share)
        // Only what is durable here is applied, and so checkpointed: a frame in flight must not replace it.
        if (this.timeline.length > 1 && this.timeline[0]!.get(replica) !== model) break
        const termThere =
          model.entries.find(entry => entry.index === to)?.term ?? model.entries.at(-1)?.term ?? term
        harness.journal.compact(replica, to, termThere)
        const compacted = compactModel(this.newest, replica, to, termThere).get(replica)!
        this.timeline = this.timeline.map(models =>
          models.has(replica) ? new Map(models).set(replica, compacted) : models,
        )
        break
      }
      case 'remove': {
        const replica = this.ids[step.slot]!
        this.ids[step.slot] = Math.max(...this.ids) + 1
        const after = new Map(this.newest)
        after.delete(replica)
        this.timeline.push(after)
        harness.journal.remove(replica, error => this.landed(error))
        break
      }
      case 'crash':
        this.crash()
        break
      case 'reopen': {
        harness.settle()
        harness.close()
        assertHolds(harness.restart(), this.newest)
        recompact(harness.journal, this.newest)
        break
      }
    }
    this.checkMemory()
  }

  crash(): void {
    this.isWriting = false
    const opened = this.harness.crash()
    const found = this.timeline.findIndex(models => holds(opened, models))
    if (found < 0) assertHolds(opened, this.newest)
    this.timeline = [this.timeline[found]!]
    recompact(this.harness.journal, this.newest)
  }

  private batch(batch: JournalRecord[]): void {
    this.isWriting = true
    this.timeline.push(applyBatch(this.newest, batch))
    this.harness.journal.write(batch, error => {
      this.isWriting = false
      this.landed(error)
    })
  }

  private landed(error: Error | null): void {
    assert.equal(error, null)
    this.timeline.shift()
  }

  private record(part: Part): JournalRecord {
    const { harness } = this
    const replica = this.ids[part.slot]!
    const model = this.newest.get(replica) ?? emptyModel()
    const last = lastIndexOf(model)
    const lastTerm = model.entries.at(-1)?.term ?? model.snapshotPoint.term
    const term = Math.max(1, lastTerm) + (part.raise || part.back > 0 ? 1 : 0)
    const reset = part.reset ? { index: last + 5, term } : undefined
    const begins = reset?.index ?? model.snapshotPoint.index
    const first = Math.max(begins + 1, (reset?.index ?? last) + 1 - part.back)
    return {
      replica,
      hardState: part.hard ? { term, vote: harness.random.below(5), commit: first - 1 } : null,
      entries: harness.entriesOf(first, part.count, term, part.bytes),
      ...(part.configure ? { configuration: harness.random.bytes(30) } : {}),
      ...(reset === undefined ? {} : { reset }),
    }
  }

  private checkMemory(): void {
    const { journal } = this.harness
    for (const [replica, model] of this.newest) {
      assert.equal(journal.firstIndex(replica), model.snapshotPoint.index + 1)
      assert.equal(journal.lastIndex(replica), lastIndexOf(model))
      assert.equal(journal.term(replica, model.snapshotPoint.index), model.snapshotPoint.term)
      if (model.entries.length === 0) continue
      const entries = journal.entries(replica, model.snapshotPoint.index + 1, lastIndexOf(model) + 1, 1e9)
      assert.ok(entries.every((entry, i) => Buffer.compare(entry.data, model.entries[i]!.data) === 0))
      assert.deepEqual(
        entries.map(({ index, term, kind }) => [index, term, kind]),
        model.entries.map(({ index, term, kind }) => [index, term, kind]),
      )
    }
  }
}

describe('the journal under random work and crashes', () => {
  it('holds after every crash all that was acknowledged, and nothing that was not written', () => {
    const seen = { copied: 0, frames: 0 }
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 120, size: 'max' }), fc.nat(), (steps, seed) => {
        const run = new Run(seed)
        for (const step of steps) {
          run.take(step)
          const { bytesCopied, frames } = run.harness.journal.stats()
          seen.copied = Math.max(seen.copied, bytesCopied)
          seen.frames = Math.max(seen.frames, frames)
        }
        run.crash()
      }),
      { numRuns: Number(process.env.JOURNAL_RUNS ?? 100), includeErrorInReport: true, endOnFailure: true },
    )
    assert.ok(seen.copied > 0 && seen.frames > 20, JSON.stringify(seen))
  })
})
