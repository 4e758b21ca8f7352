/**
 * A journal on a simulated disk and clock, beside a model of what it must hold. Nothing happens by itself: `settle`
 * runs the device, `advance` the clock.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Clock } from '../../src/lib/clock.ts'
import { Prng } from '../../src/lib/prng.ts'
import type { Entry, HardState } from '../../src/raft/types.ts'
import {
  Journal,
  type JournalRecord,
  type OpenedJournal,
  type ReplicaRecovery,
} from '../../src/storage/journal.ts'
import { SimDisk } from '../lib/sim-disk.ts'

export interface Model {
  hardState: HardState
  configuration: Uint8Array | null
  snapshotPoint: { index: number; term: number }
  /** Of the last snapshot that was installed: the journal is durable about that one. */
  resetIndex: number
  entries: Entry[]
}

export type Models = Map<number, Model>

export class Harness {
  readonly random: Prng
  disk: SimDisk
  readonly options: {
    segmentBytes: number
    budgetBytes: number
    cacheBytes: number
    onNoSpace?: (error: Error) => void
  }
  journal!: Journal
  opened!: OpenedJournal
  private tasks: (() => void)[] = []
  private timers: { at: number; run: () => void }[] = []
  private now = 0

  constructor(seed: number, options: Partial<Harness['options']> = {}) {
    this.random = new Prng(seed)
    this.options = { segmentBytes: 16 * 1024, budgetBytes: 64 * 1024, cacheBytes: 4096, ...options }
    this.disk = new SimDisk({ schedule: run => this.tasks.push(run) })
  }

  readonly clock: Clock = {
    now: () => this.now,
    wall: () => this.now,
    after: (ms, run) => {
      const timer = { at: this.now + ms, run }
      this.timers.push(timer)
      return () => {
        this.timers = this.timers.filter(other => other !== timer)
      }
    },
  }

  open(): OpenedJournal {
    const { disk, clock, random } = this
    this.opened = Journal.open({ disk, directory: 'data/journal', clock, random, ...this.options })
    this.journal = this.opened.journal
    return this.opened
  }

  /** What power loss leaves is the caller's choice on `disk`; here the process and its timers go. */
  restart(disk = this.disk): OpenedJournal {
    this.tasks = []
    this.timers = []
    this.disk = disk.clone(run => this.tasks.push(run))
    return this.open()
  }

  crash(): OpenedJournal {
    this.disk.crash(this.random)
    return this.restart()
  }

  /** Runs the device until nothing is left to do. */
  settle(): void {
    for (let steps = 0; this.tasks.length > 0; steps++) {
      assert.ok(steps < 100_000, 'the device never comes to rest')
      this.tasks.shift()!()
    }
  }

  /** Completes at most `count` operations of the device. */
  step(count: number): void {
    for (let i = 0; i < count && this.tasks.length > 0; i++) this.tasks.shift()!()
  }

  advance(ms: number): void {
    this.now += ms
    for (;;) {
      const due = this.timers.filter(timer => timer.at <= this.now).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) return
      this.timers = this.timers.filter(timer => timer !== due)
      due.run()
      this.settle()
    }
  }

  /** Writes and waits; throws what `done` got. */
  write(...batch: JournalRecord[]): void {
    const result = this.start(...batch)
    this.settle()
    this.advance(0)
    assert.notEqual(result.error, undefined, 'the batch never completed')
    if (result.error instanceof Error) throw result.error
  }

  start(...batch: JournalRecord[]): { error: Error | null | undefined } {
    const result: { error: Error | null | undefined } = { error: undefined }
    this.journal.write(batch, error => {
      result.error = error
    })
    return result
  }

  remove(replica: number): void {
    let isDone = false
    this.journal.remove(replica, error => {
      if (error !== null) throw error
      isDone = true
    })
    this.settle()
    this.advance(0)
    assert.ok(isDone)
  }

  close(): void {
    let isDone = false
    this.journal.close(error => {
      if (error !== null) throw error
      isDone = true
    })
    this.settle()
    this.advance(0)
    assert.ok(isDone)
  }

  entry(index: number, term: number, bytes = 20): Entry {
    return {
      index,
      term,
      kind: this.random.below(5) === 0 ? 'confChange' : 'normal',
      data: this.random.bytes(bytes),
    }
  }

  entriesOf(from: number, count: number, term: number, bytes = 20): Entry[] {
    return Array.from({ length: count }, (_, i) => this.entry(from + i, term, bytes))
  }

  paths(): string[] {
    return this.disk.list('data/journal').map(name => `data/journal/${name}`)
  }
}

export function record(replica: number, change: Partial<JournalRecord> = {}): JournalRecord {
  return { replica, hardState: null, entries: [], ...change }
}

export function emptyModel(): Model {
  return {
    hardState: { term: 0, vote: 0, commit: 0 },
    configuration: null,
    snapshotPoint: { index: 0, term: 0 },
    resetIndex: 0,
    entries: [],
  }
}

export function lastIndexOf(model: Model): number {
  return model.entries.at(-1)?.index ?? model.snapshotPoint.index
}

/** `models` after `batch`; what was passed in stays as it was. */
export function applyBatch(models: Models, batch: readonly JournalRecord[]): Models {
  const after = new Map(models)
  for (const { replica, hardState, entries, configuration, reset } of batch) {
    const model = { ...(after.get(replica) ?? emptyModel()) }
    if (hardState !== null) model.hardState = hardState
    if (configuration !== undefined) model.configuration = configuration
    if (reset !== undefined) {
      model.snapshotPoint = reset
      model.resetIndex = reset.index
      model.entries = []
    }
    const first = entries[0]?.index
    if (first !== undefined) {
      model.entries = [...model.entries.filter(entry => entry.index < first), ...entries]
    }
    after.set(replica, model)
  }
  return after
}

export function compactModel(models: Models, replica: number, index: number, term: number): Models {
  const before = models.get(replica)
  if (before === undefined || before.snapshotPoint.index >= index) return models
  const after = new Map(models)
  const model = { ...before, snapshotPoint: { index, term } }
  const differs = before.entries.some(entry => entry.index === index && entry.term !== term)
  model.entries = differs ? [] : before.entries.filter(entry => entry.index > index)
  after.set(replica, model)
  return after
}

/** Everything of one replica from `from` on that the journal serves. Reads the entries in pieces. */
export function entriesFrom(journal: Journal, replica: number, from: number): Entry[] {
  const last = journal.lastIndex(replica)
  const entries: Entry[] = []
  while (from + entries.length <= last)
    entries.push(...journal.entries(replica, from + entries.length, last + 1, 1000))
  for (const entry of entries) assert.equal(journal.term(replica, entry.index), entry.term)
  return entries.map(entry => ({ ...entry, data: new Uint8Array(entry.data) }))
}

/**
 * One recovered replica is what `model` says. The journal may remember more than what was compacted: what the last
 * durable frame did not know of. It may be damaged there too; a host has it in its checkpoint.
 */
function assertReplica(journal: Journal, recovery: ReplicaRecovery, model: Model): void {
  const { replica, hardState, configuration, snapshotPoint, lastIndex, damaged } = recovery
  assert.deepEqual(hardState, model.hardState)
  assert.deepEqual(configuration === null ? null : new Uint8Array(configuration), model.configuration)
  // With a message of its own: to make one, node:assert parses the whole file.
  const isBetween =
    snapshotPoint.index >= model.resetIndex && snapshotPoint.index <= model.snapshotPoint.index
  assert.ok(isBetween, `replica ${replica} begins after ${snapshotPoint.index}`)
  assert.ok(damaged === null || damaged.to <= model.snapshotPoint.index + 1, JSON.stringify(damaged))
  assert.equal(Math.max(lastIndex, model.snapshotPoint.index), lastIndexOf(model))
  const found = entriesFrom(journal, replica, model.snapshotPoint.index + 1)
  assert.deepEqual(found.map(summaryOf), model.entries.map(summaryOf))
}

/** Short: node:assert takes minutes to show how two long arrays differ. */
function summaryOf({ index, term, kind, data }: Entry): string {
  return `${index} ${term} ${kind} ${createHash('sha1').update(data).digest('hex')}`
}

/** The journal, just opened, holds exactly `models`, undamaged. */
export function assertHolds({ journal, recovered, damage }: OpenedJournal, models: Models): void {
  assert.deepEqual(damage, [])
  assert.deepEqual(
    recovered.map(recovery => recovery.replica).sort((a, b) => a - b),
    [...models.keys()].sort((a, b) => a - b),
  )
  for (const recovery of recovered) assertReplica(journal, recovery, models.get(recovery.replica)!)
}

/** Whether `assertHolds` passes. */
export function holds(opened: OpenedJournal, models: Models): boolean {
  try {
    assertHolds(opened, models)
    return true
  } catch {
    return false
  }
}

/** What a restarted host does: it knows from its checkpoints what may go, whatever the journal still remembers. */
export function recompact(journal: Journal, models: Models): void {
  for (const [replica, { snapshotPoint }] of models) {
    journal.compact(replica, snapshotPoint.index, snapshotPoint.term)
  }
}
