/** A log is searched by time: the borders, what it reads for that, and what an index that lies can do. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Bytes } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { indexHeaderBytes } from '../../src/log/offset-index.ts'
import type { Disk } from '../../src/log/ports.ts'
import { recordHeaderBytes } from '../../src/log/record-block.ts'
import { type NotedRange, SegmentedLog } from '../../src/log/segmented-log.ts'
import { storeHeaderBytes } from '../../src/log/store.ts'
import { timeEntryBytes, timeIntervalBytes } from '../../src/log/time-index.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { SimDisk } from '../lib/sim-disk.ts'

const directory = 'streams/1'
const dataBytes = timeIntervalBytes / 4 - recordHeaderBytes
/** Every fourth record begins an interval. */
const perInterval = 4
const perSegment = 5 * perInterval
const segmentBytesMax = storeHeaderBytes + perSegment * (dataBytes + recordHeaderBytes)
const timeOf = (data: Bytes) => new DataView(data.buffer, data.byteOffset).getFloat64(0)

function dataOf(timeMs: number): Bytes {
  const data = new Uint8Array(dataBytes)
  new DataView(data.buffer).setFloat64(0, timeMs)
  return data
}

function openLog(disk: Disk, noted: NotedRange | null = null, warm = new WarmSegments()): SegmentedLog {
  const random = new Prng(1)
  const map = heapMapper(disk)
  const opening = SegmentedLog.open({ disk, map, directory, random, timeOf, noted, warm, segmentBytesMax })
  assert.equal(opening.kind, 'open')
  return (opening as { log: SegmentedLog }).log
}

const newDisk = () => new SimDisk({ schedule: setImmediate })

function logOf(timesMs: readonly number[], disk = newDisk(), warm?: WarmSegments): SegmentedLog {
  const log = openLog(disk, null, warm)
  for (const timeMs of timesMs) log.append(dataOf(timeMs))
  return log
}

const firstAt = (timesMs: readonly number[], timeMs: number, start = 0) => {
  const found = timesMs.findIndex((each, offset) => offset >= start && each >= timeMs)
  return found === -1 ? timesMs.length : found
}

/** All times there are, and those between, before and behind them. */
function around(timesMs: readonly number[]): number[] {
  const all = new Set(timesMs.flatMap(timeMs => [timeMs - 1, timeMs, timeMs + 1]))
  return [0, ...all, 1e15]
}

/** What is read from the store at `path` from now on. */
function readsOf(disk: Disk, path: string): { position: number; length: number }[] {
  const reads: { position: number; length: number }[] = []
  const open = disk.open.bind(disk)
  disk.open = (name, options) => {
    const file = open(name, options)
    const read = file.read.bind(file)
    file.read = (position, length) => {
      if (name === path) reads.push({ position, length })
      return read(position, length)
    }
    return file
  }
  return reads
}

const firstFile = (suffix: string) => `${directory}/${'0'.repeat(20)}.${suffix}`
const rising = Array.from({ length: 3 * perSegment + 7 }, (_, i) => 1_000 + 10 * i)

describe('a search by time', () => {
  it('finds the first record of a time or later, in sealed and in active files', () => {
    const log = logOf(rising)
    for (const timeMs of around(rising)) assert.equal(log.seek(timeMs), firstAt(rising, timeMs))
  })

  it('finds the first of many records of one time, over intervals and files', () => {
    for (const equal of [2, perInterval, perInterval + 1, perSegment, 2 * perSegment + 3])
      for (const before of [0, 1, perInterval, perSegment - 1, perSegment]) {
        const timesMs = [...Array(before).fill(5), ...Array(equal).fill(7), ...Array(perSegment).fill(9)]
        const log = logOf(timesMs)
        assert.deepEqual(
          [4, 5, 6, 7, 8, 9, 10].map(timeMs => log.seek(timeMs)),
          [4, 5, 6, 7, 8, 9, 10].map(timeMs => firstAt(timesMs, timeMs)),
        )
      }
  })

  it('finds nothing before the start of a log that was trimmed', () => {
    for (let start = 0; start <= rising.length; start++) {
      const log = logOf(rising)
      log.truncateBefore(start)
      for (const timeMs of around(rising)) assert.equal(log.seek(timeMs), firstAt(rising, timeMs, start))
    }
  })

  it('ends at the end of an empty log, a new one or one that was trimmed or cut to nothing', () => {
    assert.equal(logOf([]).seek(0), 0)
    assert.equal(openLog(newDisk(), { start: 70, end: 70 }).seek(5), 70)
    for (const end of [3, perSegment]) {
      const log = logOf(rising.slice(0, end))
      log.truncateBefore(end)
      assert.deepEqual([log.seek(0), log.seek(1e15)], [end, end])
      log.append(dataOf(9e9))
      assert.deepEqual([log.seek(0), log.seek(9e9), log.seek(1e15)], [end, end, end + 1])
      const cut = logOf(rising.slice(0, end))
      cut.truncateAfter(0)
      cut.append(dataOf(5))
      assert.deepEqual([cut.seek(0), cut.seek(5), cut.seek(6)], [0, 0, 1])
    }
  })

  it('goes on over a reopen, with files of which few stay open', () => {
    const disk = newDisk()
    const warm = new WarmSegments(1)
    logOf(rising, disk, warm).close()
    const log = openLog(disk, { start: 5, end: rising.length - 2 }, warm)
    const left = rising.slice(0, -2)
    for (const timeMs of around(rising)) assert.equal(log.seek(timeMs), firstAt(left, timeMs, 5))
  })

  it('reads one interval of one file, and where the time begins behind it one record more', () => {
    const disk = newDisk()
    const log = logOf(rising, disk)
    log.close()
    const again = openLog(disk)
    for (const timeMs of around(rising)) again.seek(timeMs)
    for (const timeMs of around(rising)) {
      const before = { ...disk.counts }
      again.seek(timeMs)
      assert.ok(disk.counts.reads - before.reads <= 2)
    }
    const one = openLog(disk)
    one.seek(rising[6]!)
    const before = disk.counts.reads
    one.seek(rising[6]!)
    assert.equal(disk.counts.reads - before, 1)
  })
})

describe('a time index that lies', () => {
  const path = firstFile('index')
  const entriesStart = indexHeaderBytes + 4 * perSegment
  const entries = perSegment / perInterval - 1

  it('by any bit of any entry is found out by the records, with no long reads, and made again', () => {
    const disk = newDisk()
    logOf(rising, disk).close()
    const intact = disk.open(path).read(0, 1e4)
    assert.equal(intact.byteLength, entriesStart + entries * timeEntryBytes)
    const reads = readsOf(disk, firstFile('store'))
    for (let bit = 0; bit < entries * timeEntryBytes * 8; bit++)
      // A lie is made good by the first search that meets it: each of these is the first once.
      for (let offset = 1; offset <= perSegment; offset += perInterval / 2) {
        disk.flipBit(path, entriesStart + (bit >> 3), bit & 7)
        const log = openLog(disk, { start: 0, end: rising.length })
        for (const at of [offset, 1, perSegment - 1, perSegment / 2])
          assert.equal(log.seek(rising[at]! - 1), at, `record ${at}, bit ${bit}`)
        // Those of a scan begin at the first record.
        for (const { position, length } of reads.splice(0))
          assert.ok(
            position === storeHeaderBytes || length <= timeIntervalBytes,
            `${length} bytes, bit ${bit}`,
          )
        disk.open(path).write(0, intact)
      }
  })

  it('is made again where it is missing, short, of another life, or of an older layout', () => {
    const older = (bytes: Bytes) => {
      const header = new Uint8Array(40)
      header.set(bytes.subarray(0, 32))
      const view = new DataView(header.buffer)
      view.setUint32(8, 1, true)
      view.setUint32(32, crc32(bytes.subarray(indexHeaderBytes, entriesStart)), true)
      view.setUint32(36, crc32(header.subarray(0, 36)), true)
      return Buffer.concat([header, bytes.subarray(indexHeaderBytes, entriesStart)])
    }
    const changes: ((bytes: Bytes) => Bytes)[] = [
      () => new Uint8Array(),
      bytes => bytes.subarray(0, entriesStart),
      bytes => bytes.subarray(0, bytes.byteLength - 1),
      bytes => Buffer.concat([bytes, bytes.subarray(-timeEntryBytes)]),
      older,
    ]
    for (const [i, change] of changes.entries())
      for (const name of [
        firstFile('index'),
        `${directory}/${String(3 * perSegment).padStart(20, '0')}.index`,
      ]) {
        const disk = newDisk()
        logOf(rising, disk).close()
        const file = disk.open(name)
        const bytes = change(disk.open(name === path ? name : path).read(0, 1e4))
        file.truncate(0)
        file.write(0, bytes)
        const log = openLog(disk, { start: 0, end: rising.length })
        for (const timeMs of around(rising))
          assert.equal(log.seek(timeMs), firstAt(rising, timeMs), `change ${i} of ${name}`)
      }
  })

  it('of records whose times go back answers something, and calls nothing corrupt', () => {
    const log = logOf([...rising, ...rising])
    for (const timeMs of around(rising)) {
      const found = log.seek(timeMs)
      assert.ok(found >= 0 && found <= 2 * rising.length)
    }
  })
})
