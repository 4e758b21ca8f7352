/**
 * Random histories of a log against an array, on a disk that crashes. The model knows what was noted durable; after a
 * crash exactly that must be there again, and after a clean close everything.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { isError } from '../../src/errors.ts'
import { type Bytes, equalBytes } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { RecordBlock } from '../../src/log/record-block.ts'
import { type LogOpening, type NotedRange, SegmentedLog } from '../../src/log/segmented-log.ts'
import { storeHeaderBytes } from '../../src/log/store.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const directory = 'streams/a/0'
/** Of one log all files are small; of another some take several intervals of the time index. */
const segmentBytesMaxOf = [1500, 30_000]

const timeBytes = 4
const timeOf = (data: Bytes) => new DataView(data.buffer, data.byteOffset).getUint32(0)

/** Data of a time, and something. */
function dataAt(timeMs: number, rest: Bytes): Bytes {
  const data = new Uint8Array(timeBytes + rest.byteLength)
  new DataView(data.buffer).setUint32(0, timeMs)
  data.set(rest, timeBytes)
  return data
}

/** A log with its model. `records[offset]` is what was appended there, trimmed ones included. */
class Run {
  readonly waiting: (() => void)[] = []
  readonly disk = new SimDisk({ schedule: run => this.waiting.push(run) })
  readonly random: Prng
  readonly segmentBytesMax: number
  log: SegmentedLog
  records: Bytes[] = []
  start = 0
  noted: NotedRange = { start: 0, end: 0 }
  noting: NotedRange | null = null
  syncing: NotedRange | null = null

  constructor(seed: number) {
    this.random = new Prng(seed)
    this.segmentBytesMax = segmentBytesMaxOf[seed % segmentBytesMaxOf.length]!
    this.log = this.opened(this.noted)
  }

  opening(noted: NotedRange | null, disk = this.disk): LogOpening {
    const warm = new WarmSegments(2)
    const { random, segmentBytesMax } = this
    const map = heapMapper(disk)
    return SegmentedLog.open({ disk, directory, map, random, timeOf, noted, segmentBytesMax, warm })
  }

  opened(noted: NotedRange | null): SegmentedLog {
    const opening = this.opening(noted)
    assert.equal(opening.kind, 'open', JSON.stringify(opening))
    return (opening as { log: SegmentedLog }).log
  }

  append(count: number, lengthMax: number): void {
    const last = this.records.at(-1)
    let timeMs = last === undefined ? 100 : timeOf(last)
    const batch = Array.from({ length: count }, () => {
      timeMs += Math.max(0, this.random.below(8) - 4)
      return dataAt(timeMs, this.random.bytes(this.random.below(lengthMax + 1)))
    })
    assert.equal(this.log.appendBlock(RecordBlock.of(batch)), this.records.length)
    this.records.push(...batch)
  }

  /** What the next sync is to make durable: a checkpoint notes first and syncs when its turn comes. */
  note(): void {
    this.noting = { start: this.start, end: this.records.length }
  }

  beginSync(): void {
    if (this.syncing !== null) return
    if (this.noting === null) this.note()
    const range = this.noting!
    this.noting = null
    this.syncing = range
    this.log.sync(error => {
      assert.equal(error, null)
      this.noted = range
      this.syncing = null
    })
  }

  finishSync(): void {
    while (this.waiting.length > 0) this.waiting.shift()!()
    assert.equal(this.syncing, null)
  }

  trim(share: number): void {
    this.start += Math.floor((this.records.length - this.start) * share)
    assert.deepEqual(this.log.truncateBefore(this.start), { kind: 'done' })
  }

  /** As an owner would: what is cut is noted first. */
  cut(share: number): void {
    this.finishSync()
    const end = this.records.length - Math.floor((this.records.length - this.start) * share)
    this.noting = null
    this.noted = { start: Math.min(this.noted.start, end), end: Math.min(this.noted.end, end) }
    assert.deepEqual(this.log.truncateAfter(end), { kind: 'done' })
    this.records.length = end
  }

  unlink(): void {
    for (const path of this.log.giveUpBefore(this.noted.start))
      if (this.disk.exists(path)) this.disk.unlink(path)
  }

  /** `isNoted`: the owner remembers only what it noted, so the tail is cut and comes again from elsewhere. */
  reopen(isNoted: boolean): void {
    this.finishSync()
    this.log.close()
    if (isNoted) this.resume()
    else {
      // Files before the start may still be there: everything that is there is a record of ours.
      this.log = this.opened(null)
      assert.deepEqual(this.log.truncateBefore(this.start), { kind: 'done' })
    }
  }

  crash(): void {
    this.disk.crash(this.random)
    this.waiting.length = 0
    this.syncing = null
    this.resume()
  }

  resume(): void {
    const lost = this.records.slice(this.noted.end)
    this.noting = null
    this.start = this.noted.start
    this.records.length = this.noted.end
    this.log = this.opened(this.noted)
    this.check()
    // Replay, in batches of another size; or the lost records never come, others do.
    if (this.random.next() < 0.5) {
      for (const data of lost) this.log.append(data)
      this.records.push(...lost)
    }
  }

  check(): void {
    const { log, records, start } = this
    const next = records.length
    assert.deepEqual([log.lowestOffset, log.nextOffset], [start, next])
    assert.deepEqual(log.read(next), { kind: 'out_of_range', offset: next, lowest: start, next })
    assert.equal(log.read(start - 1).kind, 'out_of_range')
    const all = log.range(start, next, Number.POSITIVE_INFINITY)
    assert.ok(all.kind === 'records' && all.records.length === next - start)
    for (const [i, data] of all.records.entries()) assert.ok(equalBytes(data, records[start + i]!))
    this.checkSeek()
    if (next === start) return
    const from = start + this.random.below(next - start)
    const one = log.read(from)
    assert.ok(one.kind === 'record' && equalBytes(one.data, records[from]!))
    const to = from + this.random.below(next - from + 1)
    const bytesMax = this.random.below(3000)
    const some = log.range(from, to, bytesMax)
    assert.ok(some.kind === 'records')
    assert.equal(some.records.length, expectedCount(records.slice(from, to), bytesMax))
    for (const [i, data] of some.records.entries()) assert.ok(equalBytes(data, records[from + i]!))
  }

  /** A time near one that is or was there, by a linear search too. */
  checkSeek(log = this.log): void {
    const { records, start, random } = this
    const some = records[random.below(records.length)]
    const timeMs = some === undefined ? 100 : timeOf(some) + random.below(5) - 2
    assert.equal(log.seek(timeMs), linear(records, start, timeMs), `time ${timeMs}`)
  }
}

function linear(records: readonly Bytes[], start: number, timeMs: number): number {
  const found = records.findIndex((data, offset) => offset >= start && timeOf(data) >= timeMs)
  return found === -1 ? records.length : found
}

/** How many records a range of `bytesMax` bytes takes. */
function expectedCount(records: readonly Bytes[], bytesMax: number): number {
  let sum = 0
  let count = 0
  for (const data of records) {
    sum += data.byteLength
    if (count > 0 && sum > bytesMax) break
    count++
  }
  return count
}

type Step = (run: Run) => void
const share = fc.double({ min: 0, max: 1, noNaN: true })
const named = (name: string, step: Step): Step => Object.assign(step, { toString: () => name })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.integer({ min: 0, max: 12 }), fc.constantFrom(0, 20, 300, 2000))
      .map(([count, lengthMax]) =>
        named(`append ${count} ≤ ${lengthMax}`, run => run.append(count, lengthMax)),
      ),
  },
  { weight: 1, arbitrary: fc.constant(named('note', run => run.note())) },
  { weight: 3, arbitrary: fc.constant(named('beginSync', run => run.beginSync())) },
  { weight: 3, arbitrary: fc.constant(named('finishSync', run => run.finishSync())) },
  { weight: 2, arbitrary: share.map(part => named(`trim ${part}`, run => run.trim(part))) },
  { weight: 1, arbitrary: fc.constant(named('trim all', run => run.trim(1))) },
  { weight: 2, arbitrary: share.map(part => named(`cut ${part}`, run => run.cut(part))) },
  { weight: 2, arbitrary: fc.constant(named('unlink', run => run.unlink())) },
  { weight: 1, arbitrary: fc.boolean().map(noted => named(`reopen ${noted}`, run => run.reopen(noted))) },
  { weight: 3, arbitrary: fc.constant(named('crash', run => run.crash())) },
)

describe('any history of a segmented log', () => {
  it('leaves what an array would hold, and after a crash exactly what was noted durable', () => {
    fc.assert(
      fc.property(fc.nat(), fc.array(step, { minLength: 5, maxLength: 40 }), (seed, steps) => {
        const run = new Run(seed)
        for (const next of steps) {
          next(run)
          run.check()
        }
      }),
      { numRuns: 1000, endOnFailure: true },
    )
  })
})

/** A log of some segments, all of it noted and synced. */
function settled(seed: number): Run {
  const run = new Run(seed)
  while (run.disk.list(directory).length < 7) run.append(1 + run.random.below(8), run.segmentBytesMax / 8)
  run.beginSync()
  run.finishSync()
  return run
}

/** Each record by itself and all at once: right, or refused as corrupt. Returns the offsets that were refused. */
function refused(log: SegmentedLog, records: readonly Bytes[]): number[] {
  const found: number[] = []
  const orRefused = (offset: number, read: () => boolean) => {
    try {
      assert.ok(read(), `record ${offset} is wrong`)
    } catch (error) {
      if (!isError(error, 'CORRUPT')) throw error
      found.push(offset)
    }
  }
  for (const [offset, data] of records.entries()) {
    orRefused(offset, () => {
      const result = log.read(offset)
      return result.kind === 'record' && equalBytes(result.data, data)
    })
  }
  const single = [...found]
  orRefused(-1, () => {
    const result = log.range(0, records.length, Number.POSITIVE_INFINITY)
    return result.kind === 'records' && result.records.every((data, i) => equalBytes(data, records[i]!))
  })
  assert.equal(
    found.length > single.length,
    single.length > 0,
    'a range refuses when one of its records is refused',
  )
  return single
}

describe('a flipped bit', () => {
  const rot = fc.tuple(fc.nat(), fc.nat(), fc.nat(7))

  it('in any byte of an index costs nothing but a scan', () => {
    fc.assert(
      fc.property(rot, fc.boolean(), ([seed, where, bit], isReopened) => {
        const run = settled(seed)
        if (isReopened) run.log.close()
        const indexes = run.disk.list(directory).filter(name => name.endsWith('.index'))
        const path = `${directory}/${indexes[where % indexes.length]!}`
        run.disk.flipBit(path, where % run.disk.open(path).size(), bit)
        const log = isReopened ? run.opened(run.noted) : run.log
        for (let i = 0; i < 20; i++) run.checkSeek(log)
        assert.deepEqual(refused(log, run.records), [])
        for (let i = 0; i < 20; i++) run.checkSeek(log)
      }),
      { numRuns: 600 },
    )
  })

  it('in any byte of a record is found, and what is refused is that record alone; of a header, its file', () => {
    fc.assert(
      fc.property(rot, fc.boolean(), ([seed, where, bit], isReopened) => {
        const run = settled(seed)
        if (isReopened) run.log.close()
        const stores = run.disk.list(directory).filter(name => name.endsWith('.store'))
        const path = `${directory}/${stores[where % stores.length]!}`
        const position = where % run.disk.open(path).size()
        run.disk.flipBit(path, position, bit)
        const opening: LogOpening = isReopened ? run.opening(run.noted) : { kind: 'open', log: run.log }
        if (opening.kind === 'data_loss') {
          assert.equal(opening.path, path)
          return
        }
        const lost = refused(opening.log, run.records)
        if (position >= storeHeaderBytes) assert.equal(lost.length, 1)
        else {
          // The header is read when a file is opened: a warm segment has it in memory, a cold one is refused whole.
          assert.ok(!isReopened)
          const [file] = run.log.files(0, run.records.length).filter(other => other.path === path)
          assert.ok(lost.length === 0 || lost.length === file!.to - file!.from)
        }
      }),
      { numRuns: 300 },
    )
  })
})
