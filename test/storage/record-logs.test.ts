import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import fc from 'fast-check'
import { Keys } from '../../src/keyspace/keys.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { Partitions } from '../../src/keyspace/partitions.ts'
import { encodeRecord } from '../../src/keyspace/record.ts'
import type { RowStore } from '../../src/keyspace/row-store.ts'
import { endOf, prefixes } from '../../src/keyspace/rows.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { pack } from '../../src/lib/packed.ts'
import { Prng } from '../../src/lib/prng.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { heapMapper, memoryMapper } from '../../src/log/mapped-file.ts'
import type { Disk } from '../../src/log/ports.ts'
import { timeIntervalBytes } from '../../src/log/time-index.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { openLogs, type RecordHome, type RecordLogs } from '../../src/storage/record-logs.ts'
import { scale } from '../lib/scale.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const roots: string[] = []
after(() => {
  for (const root of roots) rmSync(root, { recursive: true })
})

function realHome(warm: WarmSegments): RecordHome & { readonly disk: FileDisk } {
  const root = mkdtempSync(join(tmpdir(), 'roundhouse-records-'))
  roots.push(root)
  const disk = new FileDisk(root)
  return { disk, map: memoryMapper(root, heapMapper(disk)), random: new Prng(1), warm }
}

function simulatedHome(): RecordHome & { readonly disk: SimDisk } {
  const disk = new SimDisk({ schedule: setImmediate })
  return { disk, map: heapMapper(disk), random: new Prng(1), warm: new WarmSegments() }
}

const directory = 'streams/1/1'

/** A replica's logs and the rows that name them, over checkpoints and ends of the process without any warning. */
class Bench {
  readonly home: RecordHome
  rows = new MemoryRows()
  checkpointed: (readonly [string, Bytes])[] = []
  logs: RecordLogs
  partitions!: Partitions
  private index = 0
  /** The log clock. */
  nowMs = 0

  constructor(home: RecordHome) {
    this.home = home
    this.logs = openLogs(home, directory, [])
    this.resume()
  }

  private resume(): void {
    this.rows = new MemoryRows()
    for (const [key, value] of this.checkpointed) this.rows.put(key, value)
    const { logs, rows } = this
    const keys = new Keys(
      new Proxy(rows, {
        get: (target, name) => (name === 'records' ? logs : bound(target, name)),
      }) as RowStore,
    )
    this.partitions = new Partitions(keys)
    this.begin = () => keys.beginEntry(++this.index, ++this.nowMs, 1)
  }

  private begin: () => void = () => {}

  append(partition: number, records: readonly Bytes[]): number {
    this.begin()
    return this.partitions.append({ stream: 1, partition }, fromUtf8(`s/${partition}`), [pack(records)])
  }

  async checkpoint(): Promise<void> {
    const frozen = this.logs.freeze()
    const rows = [...this.rows.range(prefixes.partition, endOf(prefixes.partition))]
    await this.logs.sync(frozen)
    this.checkpointed = rows
    this.logs.settle(frozen)
  }

  /** As a start behind kill -9 does it: what is in files is there, what was noted is known, nothing was closed. */
  restart(home = this.home): void {
    this.logs = openLogs(home, directory, this.checkpointed)
    this.resume()
  }

  valueAt(partition: number, offset: number): string {
    const { records } = this.partitions.read({ stream: 1, partition }, offset, 1, 1)
    return toUtf8(records[0]!.subarray(-12))
  }
}

function bound(target: object, name: string | symbol): unknown {
  const value = Reflect.get(target, name) as unknown
  return typeof value === 'function' ? value.bind(target) : value
}

const nameOf = (offset: number) => String(offset).padStart(12, '0')
const record = (text: string) => encodeRecord({ value: fromUtf8(text), key: null, headers: [], type: 0 })
const some = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => record(nameOf(from + i)))
/** Of files below the directories made here. */
const descriptors = () => readdirSync('/proc/self/fd').filter(isOurs).length

function isOurs(descriptor: string): boolean {
  try {
    const path = readlinkSync(`/proc/self/fd/${descriptor}`)
    return roots.some(root => path.startsWith(root))
  } catch {
    return false // closed meanwhile
  }
}

/** What is read from the files of `disk` from now on. */
function readsOf(disk: Disk): { count: number; bytes: number } {
  const reads = { count: 0, bytes: 0 }
  const open = disk.open.bind(disk)
  disk.open = (path, options) => {
    const file = open(path, options)
    const read = file.read.bind(file)
    file.read = (position, length) => {
      const bytes = read(position, length)
      reads.count++
      reads.bytes += bytes.byteLength
      return bytes
    }
    return file
  }
  return reads
}

describe('the logs of many partitions', () => {
  it('take no more descriptors than two limits say, written, synced, read and opened', async () => {
    const limits = { warm: 4, unsynced: 6, atOnce: 16 }
    const max = limits.warm + limits.unsynced + limits.atOnce
    const bench = new Bench(realHome(new WarmSegments(limits.warm, limits.unsynced)))
    const before = descriptors()
    const partitions = 60
    const large = Array.from({ length: 3 }, () => record('x'.repeat(100 * 1024)))
    let most = 0
    const looked = () => {
      most = Math.max(most, descriptors() - before)
    }
    for (let round = 0; round < 3; round++) {
      for (let partition = 0; partition < partitions; partition++) {
        bench.append(partition, [...large, ...some(0, 1)])
        looked()
      }
      const look = setInterval(looked, 1)
      await bench.checkpoint()
      clearInterval(look)
      for (let partition = 0; partition < partitions; partition++) {
        assert.equal(bench.valueAt(partition, 4 * round + 3), nameOf(0))
        looked()
      }
    }
    assert.ok(most <= max, `${most} descriptors`)
    bench.logs.close()
    assert.equal(descriptors(), before)
    bench.restart()
    assert.ok(descriptors() - before <= limits.warm, `${descriptors() - before} descriptors`)
    for (let partition = 0; partition < partitions; partition++) bench.append(partition, some(0, 1))
    bench.logs.close()
  })

  const count = scale(100_000, 1_000_000)
  it(`hold ${count} records in few descriptors, and find any of them with one read of a few bytes`, async () => {
    const home = { ...realHome(new WarmSegments(4)), segmentBytesMax: Math.ceil(count / 20) * 32 }
    const reads = readsOf(home.disk)
    const before = descriptors()
    const bench = new Bench(home)
    const batch = count / 100
    for (let first = 0; first < count; first += batch) {
      bench.append(0, some(first, first + batch))
      await bench.checkpoint()
    }
    assert.ok(home.disk.list(`${directory}/1/0-1`).filter(name => name.endsWith('.store')).length >= 18)
    const random = new Prng(7)
    const lookups = 2_000
    reads.count = reads.bytes = 0
    for (let i = 0; i < lookups; i++) {
      const offset = random.below(count)
      assert.equal(bench.valueAt(0, offset), nameOf(offset))
    }
    // One for the record, one for the header of a file that was closed.
    assert.ok(reads.count <= 2 * lookups, `${reads.count} reads`)
    assert.ok(reads.bytes <= 100 * lookups, `${reads.bytes} bytes`)
    assert.ok(descriptors() - before <= 6, `${descriptors() - before} descriptors`)
    reads.count = reads.bytes = 0
    for (let i = 0; i < lookups; i++) {
      const append = random.below(100)
      assert.equal(bench.partitions.seek({ stream: 1, partition: 0 }, append + 1), append * batch)
    }
    // One for an interval of the time index, now and then one for the record behind it, and one for the header.
    assert.ok(reads.count <= 2.2 * lookups, `${reads.count} reads`)
    assert.ok(reads.bytes <= (timeIntervalBytes + 200) * lookups, `${reads.bytes} bytes`)
    bench.logs.close()
  })
})

/** What a history of one partition makes of its times, beside what they are. */
class TimedBench extends Bench {
  readonly disk: SimDisk
  /** Of the records from offset 0 on. */
  timesMs: number[] = []
  start = 0
  private noted: { readonly timesMs: number[]; readonly start: number } = { timesMs: [], start: 0 }

  constructor(random: Prng) {
    const home = { ...simulatedHome(), random, segmentBytesMax: 20_000, warm: new WarmSegments(2) }
    super(home)
    this.disk = home.disk
  }

  /** `count` records of one time, `laterMs` later than those before. */
  add(count: number, laterMs: number, valueBytes: number): void {
    this.nowMs += laterMs - 1
    const first = this.timesMs.length
    const records = Array.from({ length: count }, () => record('x'.repeat(valueBytes)))
    assert.equal(this.append(0, records), first)
    this.timesMs.push(...records.map(() => this.nowMs))
  }

  async note(): Promise<void> {
    const noted = { timesMs: [...this.timesMs], start: this.start }
    await this.checkpoint()
    this.noted = noted
  }

  trim(share: number): void {
    this.start += Math.floor((this.timesMs.length - this.start) * share)
    if (this.timesMs.length > 0) this.partitions.trim({ stream: 1, partition: 0 }, this.start)
  }

  /** The process ends; with `isPowerCut` what was not synced goes with it, indexes torn. */
  end(isPowerCut: boolean, random: Prng): void {
    if (isPowerCut) this.disk.crash(random)
    this.timesMs = [...this.noted.timesMs]
    this.start = this.noted.start
    this.restart({ ...this.home, warm: new WarmSegments(2) })
  }

  check(): void {
    const { timesMs, start } = this
    for (const timeMs of new Set([0, 1e15, ...timesMs.flatMap(each => [each - 1, each, each + 1])])) {
      const linear = timesMs.findIndex((each, offset) => offset >= start && each >= timeMs)
      const found = this.partitions.seek({ stream: 1, partition: 0 }, Math.max(0, timeMs))
      assert.equal(found, linear === -1 ? timesMs.length : linear, `time ${timeMs}`)
    }
  }
}

describe('a time', () => {
  type Step = (bench: TimedBench, random: Prng) => void | Promise<void>
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 5,
      arbitrary: fc
        .tuple(
          fc.integer({ min: 1, max: 40 }),
          fc.integer({ min: 0, max: 3 }),
          fc.constantFrom(1, 100, 1_000, 9_000),
        )
        .map(
          ([count, laterMs, bytes]): Step =>
            bench =>
              bench.add(count, laterMs, bytes),
        ),
    },
    { weight: 3, arbitrary: fc.constant<Step>(bench => bench.note()) },
    {
      weight: 1,
      arbitrary: fc.double({ min: 0, max: 1, noNaN: true }).map(
        (share): Step =>
          bench =>
            bench.trim(share),
      ),
    },
    {
      weight: 1,
      arbitrary: fc.boolean().map(
        (isPowerCut): Step =>
          (bench, random) =>
            bench.end(isPowerCut, random),
      ),
    },
  )

  it('is found where a linear search finds it, in files and in memory, over trims, ends and power cuts', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.array(step, { minLength: 3, maxLength: 20 }), async (seed, steps) => {
        const random = new Prng(seed)
        const bench = new TimedBench(random)
        for (const next of steps) {
          await next(bench, random)
          bench.check()
        }
      }),
      { numRuns: scale(150, 1_500), endOnFailure: true },
    )
  })
})

describe('a start behind kill -9', () => {
  it('reads the end of each log only, and cuts off what no checkpoint names', async () => {
    const home = simulatedHome()
    const bench = new Bench(home)
    const batch = 1_000
    const rounds = 100
    for (let round = 0; round < rounds; round++) {
      bench.append(0, some(round * batch, (round + 1) * batch))
      await bench.checkpoint()
    }
    const bytes = bench.partitions.bytesOf({ stream: 1, partition: 0 })
    for (let round = rounds; round < rounds + 20; round++)
      bench.append(0, some(round * batch, (round + 1) * batch))
    const reads = readsOf(home.disk)
    bench.restart()
    const indexBytes = rounds * batch * 4
    assert.ok(reads.bytes < indexBytes + bytes / 4, `${reads.bytes} read of ${bytes}`)
    const end = rounds * batch
    assert.equal(bench.append(0, some(end, end + 5)), end)
    await bench.checkpoint()
    bench.restart()
    for (const offset of [0, end - 1, end, end + 4]) assert.equal(bench.valueAt(0, offset), nameOf(offset))
    assert.equal(bench.partitions.find({ stream: 1, partition: 0 })?.end, end + 5)
  })

  it('brings back what was synced after a power cut, wherever it finds the index that was not', async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const home = simulatedHome()
      const bench = new Bench({ ...home, segmentBytesMax: 2 ** 20 })
      for (let round = 0; round < 12; round++) {
        bench.append(0, some(round * 1_000, (round + 1) * 1_000))
        await bench.checkpoint()
      }
      bench.append(0, some(12_000, 24_000))
      home.disk.crash(new Prng(seed))
      bench.restart({ ...home, warm: new WarmSegments(), segmentBytesMax: 2 ** 20 })
      for (let offset = 0; offset < 12_000; offset += 499)
        assert.equal(bench.valueAt(0, offset), nameOf(offset))
      // Each append was of a time of its own.
      for (let round = 0; round < 12; round++)
        assert.equal(bench.partitions.seek({ stream: 1, partition: 0 }, round + 1), round * 1_000)
      assert.equal(bench.append(0, some(12_000, 12_001)), 12_000)
      await bench.checkpoint()
      bench.restart()
      assert.equal(bench.valueAt(0, 12_000), nameOf(12_000))
    }
  })

  for (const operation of ['open', 'read'] as const)
    it(`gives no verdict on a log whose file fails an ${operation}: it is all there a moment later`, async () => {
      const home = simulatedHome()
      const bench = new Bench(home)
      for (const partition of [0, 1]) bench.append(partition, some(0, 10))
      await bench.checkpoint()
      home.disk.failOnce(operation, `${directory}/1/1-2/${'0'.repeat(20)}.store`)
      assert.throws(() => bench.restart(), { code: 'STORAGE_FAILED' })
      bench.restart()
      assert.equal(bench.valueAt(1, 9), nameOf(9))
    })
})

describe('a full disk', () => {
  it('is freed by a trim, though what waits in memory finds no room', async () => {
    const home = simulatedHome()
    const bench = new Bench({ ...home, segmentBytesMax: 4_000 })
    const id = { stream: 1, partition: 0 }
    for (let round = 0; round < 4; round++) {
      bench.append(0, some(100 * round, 100 * round + 100))
      await bench.checkpoint()
    }
    // What a reserve that was given up leaves: less than what waits, enough for what is kept of it.
    home.disk.fill(1_000)
    bench.append(0, some(400, 600))
    await assert.rejects(bench.checkpoint(), { code: 'NO_SPACE' })
    assert.equal(bench.valueAt(0, 599), nameOf(599))
    // Behind what is in files, among what waits.
    assert.equal(bench.partitions.trim(id, 590), 590)
    // The files still begin before it, and so does what waits.
    assert.deepEqual([bench.partitions.seek(id, 1), bench.partitions.seek(id, 5)], [590, 590])
    const before = home.disk.freeBytes()
    await bench.checkpoint()
    for (let i = 0; i < 40; i++) await new Promise(resolve => setImmediate(resolve))
    assert.ok(home.disk.freeBytes() > before + 8_000, `${home.disk.freeBytes()} of ${before}`)
    bench.restart()
    assert.deepEqual([bench.valueAt(0, 590), bench.valueAt(0, 599)], [nameOf(590), nameOf(599)])
    assert.equal(bench.append(0, some(600, 700)), 600)
    await bench.checkpoint()
    bench.restart()
    assert.equal(bench.valueAt(0, 699), nameOf(699))
  })

  it('loses nothing that a checkpoint under way names to a trim behind it', async () => {
    const bench = new Bench(simulatedHome())
    bench.append(0, some(0, 10))
    await bench.checkpoint()
    bench.append(0, some(10, 20))
    const under = bench.checkpoint()
    bench.partitions.trim({ stream: 1, partition: 0 }, 15)
    await under
    bench.restart()
    assert.deepEqual(
      [0, 19].map(offset => bench.valueAt(0, offset)),
      [nameOf(0), nameOf(19)],
    )
  })
})

describe('the main thread', () => {
  it('unlinks nothing and syncs no directory while the node runs', async () => {
    const home = simulatedHome()
    const bench = new Bench({ ...home, segmentBytesMax: 400 })
    for (let round = 0; round < 5; round++) {
      bench.append(0, some(8 * round, 8 * round + 8))
      bench.append(round, some(0, 20))
      await bench.checkpoint()
    }
    const never = (name: string) => (path: string) => assert.fail(`${name} ${path}`)
    home.disk.removeTree = never('removeTree')
    home.disk.syncDirectory = never('syncDirectory')
    const before = home.disk.list(`${directory}/1/0-1`).length
    bench.partitions.trim({ stream: 1, partition: 0 }, 30)
    bench.append(7, some(0, 20))
    await bench.checkpoint()
    bench.partitions.drop(2, [])
    await bench.checkpoint()
    await bench.checkpoint()
    assert.ok(before > 5)
    for (let i = 0; i < 10; i++) await new Promise(resolve => setImmediate(resolve))
    assert.equal(home.disk.list(`${directory}/1`).length, 0)
  })
})
