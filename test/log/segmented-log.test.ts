import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { RoundhouseError } from '../../src/errors.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { heapMapper, type MapFile, memoryMapper } from '../../src/log/mapped-file.ts'
import { indexHeaderBytes } from '../../src/log/offset-index.ts'
import type { Disk, File } from '../../src/log/ports.ts'
import { RecordBlock, recordHeaderBytes } from '../../src/log/record-block.ts'
import type { DataLoss } from '../../src/log/segment.ts'
import { SegmentedLog, type SegmentedLogOptions } from '../../src/log/segmented-log.ts'
import { storeHeaderBytes } from '../../src/log/store.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { SimDisk } from '../lib/sim-disk.ts'

interface Place {
  readonly disk: Disk
  readonly map: MapFile
}

const roots: string[] = []
after(() => {
  for (const root of roots) rmSync(root, { recursive: true })
})

function realDisk(): { disk: FileDisk; root: string } {
  const root = mkdtempSync(join(tmpdir(), 'roundhouse-log-'))
  roots.push(root)
  return { disk: new FileDisk(root), root }
}

function simulated(): { disk: SimDisk; map: MapFile } {
  const disk = new SimDisk({ schedule: setImmediate })
  return { disk, map: heapMapper(disk) }
}

const places: Record<string, () => Place> = {
  'on a disk, its indexes mapped': () => {
    const { disk, root } = realDisk()
    return { disk, map: memoryMapper(root, heapMapper(disk)) }
  },
  'on a disk, its indexes in the heap': () => {
    const { disk } = realDisk()
    return { disk, map: heapMapper(disk) }
  },
  'on a simulated disk': simulated,
}

/** Ten-byte records, five to a segment: offset → text and back. */
const recordBytes = 10
const segmentBytesMax = storeHeaderBytes + 5 * (recordHeaderBytes + recordBytes)
const textOf = (offset: number) => `record ${String(offset).padStart(3, '0')}`
const dataOf = (offset: number) => fromUtf8(textOf(offset))
const textsOf = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => textOf(from + i))
const fileOf = (base: number, suffix: string) => `streams/1/${String(base).padStart(20, '0')}.${suffix}`

function opening(place: Place, options: Partial<SegmentedLogOptions> = {}) {
  const random = new Prng(1)
  return SegmentedLog.open({
    ...place,
    directory: 'streams/1',
    random,
    timeOf: () => 0,
    noted: null,
    segmentBytesMax,
    ...options,
  })
}

function openLog(place: Place, options: Partial<SegmentedLogOptions> = {}): SegmentedLog {
  const result = opening(place, options)
  assert.equal(result.kind, 'open')
  return (result as { log: SegmentedLog }).log
}

function lossOf(place: Place, options: Partial<SegmentedLogOptions> = {}): Partial<DataLoss> {
  const result = opening(place, options)
  assert.equal(result.kind, 'data_loss')
  const { wantedOffset, foundOffset, path } = result as DataLoss
  return { wantedOffset, foundOffset, path }
}

/** A log with `count` records, one append each. */
function filled(place: Place, count: number, options: Partial<SegmentedLogOptions> = {}): SegmentedLog {
  const log = openLog(place, options)
  for (let offset = log.nextOffset; offset < count; offset++) assert.equal(log.append(dataOf(offset)), offset)
  return log
}

function texts(log: SegmentedLog, from = log.lowestOffset, to = log.nextOffset, bytesMax = 1e9): string[] {
  const result = log.range(from, to, bytesMax)
  assert.equal(result.kind, 'records')
  return (result as { records: readonly Uint8Array[] }).records.map(toUtf8)
}

function text(log: SegmentedLog, offset: number): string {
  const result = log.read(offset)
  assert.equal(result.kind, 'record')
  return toUtf8((result as { data: Uint8Array }).data)
}

/** The files of `disk` that are open from now on. */
function openFilesOf(disk: Disk): ReadonlySet<File> {
  const files = new Set<File>()
  const open = disk.open.bind(disk)
  disk.open = (path, options) => {
    const file = open(path, options)
    const close = file.close.bind(file)
    file.close = () => {
      files.delete(file)
      close()
    }
    files.add(file)
    return file
  }
  return files
}

const synced = (log: SegmentedLog) =>
  new Promise<void>((resolve, reject) => log.sync(error => (error === null ? resolve() : reject(error))))

for (const [name, makePlace] of Object.entries(places)) {
  describe(`a segmented log ${name}`, () => {
    it('is empty when it is new, and begins at 0 or where it is told', () => {
      const log = openLog(makePlace())
      assert.deepEqual([log.lowestOffset, log.nextOffset, texts(log)], [0, 0, []])
      const later = openLog(makePlace(), { noted: { start: 70, end: 70 } })
      assert.deepEqual([later.lowestOffset, later.append(dataOf(70)), text(later, 70)], [70, 70, textOf(70)])
    })

    it('gives dense offsets and reads each record back, over segments', () => {
      const log = filled(makePlace(), 23)
      assert.deepEqual([log.lowestOffset, log.nextOffset], [0, 23])
      for (let offset = 0; offset < 23; offset++) assert.equal(text(log, offset), textOf(offset))
    })

    it('names files by the offset of their first record', () => {
      const place = makePlace()
      filled(place, 11)
      const names = ['00.index', '00.store', '05.index', '05.store', '10.store'].map(
        tail => '0'.repeat(18) + tail,
      )
      assert.deepEqual(place.disk.list('streams/1'), names)
    })

    it('keeps a batch in one segment, even one longer than a segment should be', () => {
      const place = makePlace()
      const log = openLog(place)
      log.append(dataOf(0))
      assert.equal(log.appendBlock(RecordBlock.of(Array.from({ length: 8 }, (_, i) => dataOf(i + 1)))), 1)
      assert.equal(log.append(dataOf(9)), 9)
      assert.equal(log.appendBlock(RecordBlock.of([])), 10)
      const files = log.files(0, 10).map(file => [file.from, file.to])
      assert.deepEqual(files.flat(), [0, 1, 1, 9, 9, 10])
      assert.deepEqual(texts(log), textsOf(0, 10))
    })

    it('keeps empty records', () => {
      const log = openLog(makePlace())
      log.appendBlock(RecordBlock.of([fromUtf8(''), fromUtf8(''), fromUtf8('x')]))
      assert.deepEqual(texts(log), ['', '', 'x'])
      assert.deepEqual(texts(log, 0, 3, 0), ['', ''])
    })

    it('reads a range within its ends and its bytes, at least one record', () => {
      const log = filled(makePlace(), 23)
      assert.deepEqual(texts(log, 3, 14), textsOf(3, 14))
      assert.deepEqual(texts(log, 3, 99), textsOf(3, 23))
      assert.deepEqual(texts(log, 3, 20, 0), textsOf(3, 4))
      assert.deepEqual(texts(log, 3, 20, 39), textsOf(3, 6))
      assert.deepEqual(texts(log, 3, 20, 40), textsOf(3, 7))
      assert.deepEqual(texts(log, 3, 20, 20), textsOf(3, 5))
      assert.deepEqual(texts(log, 23, 30), [])
      assert.deepEqual(texts(log, 9, 9), [])
    })

    it('answers an offset outside with the offsets it has', () => {
      const log = filled(makePlace(), 12)
      log.truncateBefore(4)
      const outside = (offset: number) => ({ kind: 'out_of_range', offset, lowest: 4, next: 12 })
      assert.deepEqual(log.read(3), outside(3))
      assert.deepEqual(log.read(12), outside(12))
      assert.deepEqual(log.range(3, 9, 100), outside(3))
      assert.deepEqual(log.range(13, 14, 100), outside(13))
      assert.deepEqual(log.truncateBefore(3), outside(3))
      assert.deepEqual(log.truncateBefore(13), outside(13))
      assert.deepEqual(log.truncateAfter(3), outside(3))
      assert.deepEqual(log.truncateAfter(13), outside(13))
    })

    it('goes on where it was after a reopen', () => {
      const place = makePlace()
      filled(place, 13).close()
      const log = filled(place, 23)
      assert.deepEqual(texts(log), textsOf(0, 23))
    })

    it('hides what is before its start, and gives its files up only when it is told', () => {
      const place = makePlace()
      const log = filled(place, 17)
      const before = place.disk.list('streams/1')
      assert.deepEqual(log.truncateBefore(11), { kind: 'done' })
      assert.deepEqual(texts(log), textsOf(11, 17))
      assert.deepEqual(place.disk.list('streams/1'), before)
      assert.deepEqual(log.unlinkableBefore(9), [fileOf(0, 'store')])
      assert.deepEqual(log.unlinkableBefore(11), [fileOf(0, 'store'), fileOf(5, 'store')])
      assert.deepEqual(log.giveUpBefore(9), [fileOf(0, 'index'), fileOf(0, 'store')])
      assert.deepEqual(log.giveUpBefore(17), [fileOf(5, 'index'), fileOf(5, 'store')])
      assert.deepEqual([log.unlinkableBefore(17), log.giveUpBefore(17)], [[], []])
      assert.deepEqual(place.disk.list('streams/1'), before)
      assert.deepEqual(texts(log), textsOf(11, 17))
    })

    it('can be cut to nothing at the front, and goes on at the same offset', () => {
      const place = makePlace()
      const log = filled(place, 13)
      log.truncateBefore(13)
      assert.deepEqual([log.lowestOffset, log.nextOffset, texts(log)], [13, 13, []])
      assert.equal(log.giveUpBefore(13).length, 6)
      assert.equal(log.append(dataOf(13)), 13)
      log.close()
      assert.deepEqual(texts(openLog(place, { noted: { start: 13, end: 14 } })), textsOf(13, 14))
    })

    it('cuts its end at any offset and goes on there', () => {
      for (const end of [0, 1, 4, 5, 6, 10, 11, 12, 13]) {
        const place = makePlace()
        const log = filled(place, 13)
        assert.deepEqual(log.truncateAfter(end), { kind: 'done' })
        assert.deepEqual([log.nextOffset, texts(log)], [end, textsOf(0, end)])
        for (let offset = end; offset < 18; offset++) assert.equal(log.append(fromUtf8('new')), offset)
        const wanted = [...textsOf(0, end), ...Array(18 - end).fill('new')]
        assert.deepEqual(texts(log), wanted)
        log.close()
        assert.deepEqual(texts(openLog(place)), wanted)
      }
    })

    it('is cut to the noted end at open', () => {
      for (const end of [0, 3, 5, 9, 10, 12]) {
        const place = makePlace()
        filled(place, 13).close()
        const log = openLog(place, { noted: { start: 0, end } })
        assert.deepEqual([log.nextOffset, texts(log)], [end, textsOf(0, end)])
        for (let offset = end; offset < 13; offset++) log.append(dataOf(offset))
        assert.deepEqual(texts(log), textsOf(0, 13))
      }
    })

    it('starts at the noted start and finds the files before it again', () => {
      const place = makePlace()
      filled(place, 13).close()
      const log = openLog(place, { noted: { start: 7, end: 13 } })
      assert.deepEqual([log.lowestOffset, texts(log)], [7, textsOf(7, 13)])
      assert.deepEqual(log.unlinkableBefore(7), [fileOf(0, 'store')])
    })

    it('calls it data loss when it ends before the noted end, and leaves the files alone', () => {
      const place = makePlace()
      filled(place, 13).close()
      const before = place.disk.list('streams/1')
      const loss = { wantedOffset: 14, foundOffset: 13, path: fileOf(10, 'store') }
      assert.deepEqual(lossOf(place, { noted: { start: 0, end: 14 } }), loss)
      assert.deepEqual(place.disk.list('streams/1'), before)
      assert.deepEqual(texts(openLog(place)), textsOf(0, 13))
    })

    it('calls it data loss when a file is missing or short', () => {
      const noted = { start: 2, end: 13 }
      const cases: [(disk: Disk) => void, DataLoss['foundOffset']][] = [
        [disk => disk.unlink(fileOf(0, 'store')), 2],
        [disk => disk.unlink(fileOf(5, 'store')), 5],
        [disk => disk.unlink(fileOf(10, 'store')), 10],
        [disk => disk.open(fileOf(5, 'store')).truncate(storeHeaderBytes + 2 * 18 + 3), 7],
        [disk => disk.open(fileOf(10, 'store')).truncate(storeHeaderBytes + 18 + 3), 11],
        [disk => disk.open(fileOf(5, 'store')).truncate(9), 5],
      ]
      for (const [damage, foundOffset] of cases) {
        const place = makePlace()
        filled(place, 13).close()
        damage(place.disk)
        assert.equal(lossOf(place, { noted }).foundOffset, foundOffset)
      }
    })

    it('makes a missing, short or wrong index again from the store', () => {
      const path = fileOf(0, 'index')
      const damages: ((disk: Disk) => void)[] = [
        disk => disk.unlink(path),
        disk => disk.open(path).truncate(20),
        disk => disk.open(path).truncate(0),
        disk => disk.open(path).write(5, fromUtf8('?')),
        disk => disk.open(path).write(indexHeaderBytes, new Uint8Array(20)),
        disk => disk.open(path).write(indexHeaderBytes, new Uint8Array(20).fill(255)),
        disk => disk.open(path).write(indexHeaderBytes + 4, new Uint8Array(16).fill(255)),
        disk => disk.open(path).write(indexHeaderBytes + 12, Uint8Array.of(storeHeaderBytes + 4 * 18)),
        disk => disk.open(path).write(0, disk.open(fileOf(5, 'index')).read(0, 60)),
      ]
      for (const damage of damages) {
        const place = makePlace()
        filled(place, 13).close()
        const intact = place.disk.open(path).read(0, 100)
        damage(place.disk)
        const log = openLog(place, { noted: { start: 0, end: 13 } })
        assert.deepEqual(texts(log, 0, 3), textsOf(0, 3))
        for (let offset = 0; offset < 5; offset++) assert.equal(text(log, offset), textOf(offset))
        assert.deepEqual(texts(log), textsOf(0, 13))
        assert.deepEqual(place.disk.open(path).read(0, 100), intact)
      }
    })

    it('reads on through the index that it has when that is damaged under it', () => {
      const place = makePlace()
      const log = filled(place, 13, { warm: new WarmSegments(1) })
      for (const base of [0, 5]) {
        place.disk.open(fileOf(base, 'index')).write(indexHeaderBytes + 4, new Uint8Array(8).fill(base))
      }
      assert.deepEqual(texts(log, 1, 12), textsOf(1, 12))
      assert.equal(text(log, 2), textOf(2))
    })

    it('never serves a wrong record, and says where it is', () => {
      const place = makePlace()
      const log = filled(place, 13)
      const at = storeHeaderBytes + 2 * 18 + recordHeaderBytes
      place.disk.open(fileOf(5, 'store')).write(at, fromUtf8('R'))
      const isCorrupt = (error: unknown) =>
        error instanceof RoundhouseError && error.code === 'CORRUPT' && error.message.includes('record 7')
      assert.throws(() => log.read(7), isCorrupt)
      assert.throws(() => log.range(5, 9, 1000), isCorrupt)
      assert.deepEqual([text(log, 6), text(log, 8)], [textOf(6), textOf(8)])
    })

    it('keeps few sealed segments open, and opens any of them again', () => {
      const warm = new WarmSegments(2)
      const place = makePlace()
      filled(place, 53, { warm }).close()
      const log = openLog(place, { warm, noted: { start: 0, end: 53 } })
      for (const offset of [0, 7, 12, 18, 24, 31, 2, 52, 9]) assert.equal(text(log, offset), textOf(offset))
      assert.equal(warm.size, 2)
      log.close()
      assert.equal(warm.size, 0)
    })

    it('keeps few active segments open, those of logs that nobody uses not', async () => {
      const warm = new WarmSegments(2)
      const place = makePlace()
      const open = openFilesOf(place.disk)
      const logs = Array.from({ length: 6 }, (_, i) => openLog(place, { warm, directory: `streams/${i}` }))
      for (let round = 0; round < 3; round++) {
        for (const log of logs) {
          log.append(dataOf(round))
          await synced(log)
          assert.ok(open.size <= 2, `${open.size} files are open`)
        }
        for (const log of logs) assert.deepEqual(texts(log), textsOf(0, round + 1))
      }
      for (const log of logs) log.close()
      assert.equal(open.size, 0)
    })

    it('closes no file whose records are not synced', async () => {
      const warm = new WarmSegments(1, 2)
      const place = makePlace()
      const logs = ['a', 'b', 'c'].map(directory => filled(place, 2, { warm, directory }))
      assert.equal(warm.isCrowded, true)
      for (const log of logs) log.read(0)
      assert.deepEqual([warm.size, logs.map(log => log.needsSync)], [1, [true, true, true]])
      for (const log of logs) await synced(log)
      assert.deepEqual([warm.isCrowded, warm.size], [false, 1])
    })

    it('proposes to cut whole segments by bytes, never the active one', () => {
      const log = filled(makePlace(), 13)
      assert.equal(log.bytes, 2 * segmentBytesMax + storeHeaderBytes + 3 * 18)
      assert.equal(log.proposeStart({ bytesMax: log.bytes }), 0)
      assert.equal(log.proposeStart({ bytesMax: log.bytes - 1 }), 5)
      assert.equal(log.proposeStart({ bytesMax: 0 }), 10)
      assert.equal(log.proposeStart({}), 0)
      log.truncateBefore(5)
      assert.equal(log.proposeStart({ bytesMax: log.bytes }), 5)
      assert.deepEqual(texts(log), textsOf(5, 13))
    })

    it('proposes to cut segments whose newest record is expired, the active one too', () => {
      const log = filled(makePlace(), 13)
      const before = (offset: number) => ({ isExpired: (data: Uint8Array) => toUtf8(data) < textOf(offset) })
      assert.equal(log.proposeStart(before(4)), 0)
      assert.equal(log.proposeStart(before(5)), 5)
      assert.equal(log.proposeStart(before(12)), 10)
      assert.equal(log.proposeStart(before(13)), 13)
      log.truncateBefore(13)
      assert.equal(log.proposeStart(before(99)), 13)
    })

    it('tells which bytes of which files hold a range', () => {
      const place = makePlace()
      const log = filled(place, 13)
      assert.deepEqual(log.files(3, 8), [
        { path: fileOf(0, 'store'), from: 0, to: 5, bytes: segmentBytesMax },
        { path: fileOf(5, 'store'), from: 5, to: 8, bytes: storeHeaderBytes + 3 * 18 },
      ])
      assert.deepEqual(log.files(13, 13), [])
      const copy = makePlace()
      copy.disk.makeDirectory('streams/1')
      for (const { path, bytes } of log.files(3, 8)) {
        copy.disk.open(path, { create: true }).write(0, place.disk.open(path).read(0, bytes))
      }
      assert.deepEqual(texts(openLog(copy, { noted: { start: 3, end: 8 } })), textsOf(3, 8))
    })

    it('syncs aside while appends go on', async () => {
      const log = filled(makePlace(), 7)
      assert.ok(log.needsSync)
      const first = synced(log)
      for (let offset = 7; offset < 20; offset++) log.append(dataOf(offset))
      await first
      assert.ok(log.needsSync)
      await synced(log)
      assert.ok(!log.needsSync)
      await synced(log)
      assert.deepEqual(texts(log), textsOf(0, 20))
    })

    it('ignores and removes what half-done work left behind', () => {
      const place = makePlace()
      filled(place, 7).close()
      for (const name of [`${fileOf(0, 'index')}.draft`, fileOf(99, 'index')]) {
        place.disk.open(name, { create: true }).write(0, fromUtf8('junk'))
      }
      place.disk.open(fileOf(7, 'store'), { create: true }).write(0, fromUtf8('RHS'))
      assert.deepEqual(texts(openLog(place)), textsOf(0, 7))
      assert.equal(place.disk.list('streams/1').length, 4)
    })
  })
}

describe('a segmented log on a failing disk', () => {
  it('appends a batch with one write', () => {
    const place = simulated()
    const log = openLog(place)
    const before = place.disk.counts.writes
    log.appendBlock(RecordBlock.of([dataOf(0), dataOf(1), dataOf(2)]))
    assert.equal(place.disk.counts.writes - before, 1)
  })

  it('reads a range of one segment with one read, a record with one', () => {
    const place = simulated()
    const log = filled(place, 13)
    log.read(6)
    const before = place.disk.counts.reads
    texts(log, 5, 10)
    log.read(6)
    assert.equal(place.disk.counts.reads - before, 2)
  })

  it('opens sealed segments without reading their records', () => {
    const place = simulated()
    filled(place, 13).close()
    const seen: number[] = []
    const disk: Disk = Object.create(place.disk, {
      open: {
        value: (path: string, options?: { create?: boolean }) => {
          const file = place.disk.open(path, options)
          const read = file.read.bind(file)
          file.read = (position, length) => {
            if (path === fileOf(0, 'store')) seen.push(position + length)
            return read(position, length)
          }
          return file
        },
      },
    })
    openLog({ ...place, disk }, { noted: { start: 0, end: 13 } })
    assert.deepEqual(seen, [storeHeaderBytes])
  })

  it('adds nothing when a write fails, and goes on when there is room again', () => {
    const place = simulated()
    const log = filled(place, 7)
    const cases: [records: number, failing: string][] = [
      [1, fileOf(5, 'store')], // an append
      [4, fileOf(7, 'store')], // a roll: the new store
      [4, `${fileOf(5, 'index')}.draft`], // a roll: the index of the old one
    ]
    for (const [records, failing] of cases) {
      place.disk.failOnce('write', failing)
      const batch = Array.from({ length: records }, (_, i) => dataOf(7 + i))
      assert.throws(() => log.appendBlock(RecordBlock.of(batch)), { code: 'EIO' })
      assert.deepEqual([log.nextOffset, texts(log)], [7, textsOf(0, 7)])
      assert.ok(!place.disk.exists(fileOf(7, 'store')))
    }
    for (let offset = 7; offset < 13; offset++) log.append(dataOf(offset))
    log.close()
    assert.deepEqual(texts(openLog(place)), textsOf(0, 13))
  })

  it('lets no record of a batch that failed half-way come back', () => {
    const place = simulated()
    let isFull = false
    const disk: Disk = Object.create(place.disk, {
      open: {
        value: (path: string, options?: { create?: boolean }) => {
          const file = place.disk.open(path, options)
          const write = file.write.bind(file)
          file.write = (position, bytes) => {
            write(position, isFull ? bytes.subarray(0, bytes.byteLength - 1) : bytes)
            if (isFull) throw new Error('no space')
          }
          return file
        },
      },
    })
    const log = openLog({ ...place, disk })
    isFull = true
    assert.throws(
      () => log.appendBlock(RecordBlock.of([fromUtf8('old 0'), fromUtf8('old 1'), fromUtf8('old 2')])),
      /no space/,
    )
    isFull = false
    log.append(fromUtf8('new 0'))
    assert.deepEqual(texts(openLog(place)), ['new 0'])
  })

  it('never finds a file again that it cut off, though a crash undoes what it may', async () => {
    const place = simulated()
    const log = filled(place, 13)
    await synced(log)
    log.truncateAfter(3)
    // Shorter records: the first file now reaches over where the second began.
    log.appendBlock(RecordBlock.of(Array(4).fill(fromUtf8(''))))
    await synced(log)
    place.disk.crashWith({
      names: () => 0,
      sector: () => 'lost',
      size: (_, synced) => synced,
      random: new Prng(1),
    })
    const after = openLog(place, { noted: { start: 0, end: 7 } })
    assert.deepEqual(texts(after), [...textsOf(0, 3), '', '', '', ''])
  })

  it('takes no index for one of other records that came in the place of those it knew', () => {
    for (const isUndone of [false, true]) {
      const place = simulated()
      const log = openLog(place, { noted: { start: 0, end: 0 } })
      const [first, short, long, last] = ['first', 'short', 'much longer', 'last'].map(fromUtf8)
      log.appendBlock(RecordBlock.of([first!, short!, long!, last!]))
      log.close() // leaves an index of the four
      for (const name of ['streams/1', 'streams', '']) place.disk.syncDirectory(name)
      const again = openLog(place, { noted: { start: 0, end: 1 } })
      again.appendBlock(RecordBlock.of([long!, short!, last!]))
      const isKept = isUndone ? 0 : 1
      place.disk.crashWith({
        names: (_, pending) => pending * isKept,
        sector: () => 'kept',
        size: (_, _synced, last) => last,
        random: new Prng(1),
      })
      const after = openLog(place, { noted: { start: 0, end: 2 } })
      assert.deepEqual(texts(after), ['first', 'much longer'])
    }
  })

  it('syncs what is trimmed, too: the start that was noted may lie before it', async () => {
    const place = simulated()
    const log = filled(place, 13)
    const noted = { start: 2, end: 13 }
    log.truncateBefore(11)
    await synced(log)
    place.disk.crashWith({
      names: () => 0,
      sector: () => 'lost',
      size: (_, synced) => synced,
      random: new Prng(1),
    })
    assert.deepEqual(texts(openLog(place, { noted })), textsOf(2, 13))
  })

  it('goes on without index files when there is no room for one', () => {
    const place = simulated()
    filled(place, 13).close()
    place.disk.unlink(fileOf(0, 'index'))
    place.disk.failOnce('write', `${fileOf(0, 'index')}.draft`)
    const log = openLog(place)
    assert.ok(!place.disk.exists(fileOf(0, 'index')))
    assert.deepEqual(texts(log), textsOf(0, 13))
  })

  it('takes no more writes after a failed sync, of a file or of the directory', async () => {
    for (const operation of ['sync', 'syncDirectory'] as const) {
      const place = simulated()
      const log = filled(place, 7)
      place.disk.failOnce(operation)
      await assert.rejects(synced(log), { code: 'EIO' })
      if (operation === 'sync') assert.ok(log.needsSync)
      const refused = (error: unknown) => error instanceof RoundhouseError && error.code === 'STORAGE_FAILED'
      assert.throws(() => log.append(dataOf(7)), refused)
      assert.throws(() => log.sync(() => {}), refused)
      assert.throws(() => log.truncateAfter(3), refused)
      assert.deepEqual(texts(log), textsOf(0, 7))
    }
  })

  it('takes no more writes after a cut whose sync failed', () => {
    for (const [end, operation] of [
      [6, 'sync'],
      [3, 'sync'],
      [3, 'syncDirectory'],
    ] as const) {
      const place = simulated()
      const log = filled(place, 8)
      place.disk.failOnce(operation)
      assert.throws(() => log.truncateAfter(end), { code: 'EIO' })
      assert.throws(() => log.append(dataOf(8)), { code: 'STORAGE_FAILED' })
    }
    const place = simulated()
    const log = filled(place, 2)
    place.disk.failOnce('write')
    assert.throws(() => log.append(dataOf(2)), { code: 'EIO' })
    // As if some of it had reached the file.
    place.disk.open(fileOf(0, 'store')).write(segmentBytesMax - 3 * 18, fromUtf8('???'))
    place.disk.failOnce('sync')
    assert.throws(() => log.append(dataOf(2)), { code: 'EIO' })
    assert.throws(() => log.append(dataOf(2)), { code: 'STORAGE_FAILED' })
  })

  it('keeps no file open of a segment that can not be opened', () => {
    const place = simulated()
    const log = filled(place, 13, { warm: new WarmSegments(1) })
    log.close()
    const again = openLog(place, { warm: new WarmSegments(1), noted: { start: 0, end: 13 } })
    place.disk.flipBit(fileOf(0, 'store'), 3)
    assert.throws(() => again.read(2), { code: 'CORRUPT' })
    assert.throws(() => again.read(2), { code: 'CORRUPT' })
    place.disk.flipBit(fileOf(0, 'store'), 3)
    assert.equal(text(again, 2), textOf(2))
  })

  it('syncs the names of its directory and of those above, once', async () => {
    const place = simulated()
    const log = filled(place, 3)
    await synced(log)
    assert.equal(place.disk.counts.directorySyncs, 3) // streams/1, streams, the root
    log.append(dataOf(3))
    await synced(log)
    assert.equal(place.disk.counts.directorySyncs, 3)
    for (let offset = 4; offset < 7; offset++) log.append(dataOf(offset))
    await synced(log)
    assert.equal(place.disk.counts.directorySyncs, 4)
    log.close()
    await synced(openLog(place, { noted: { start: 0, end: 7 } }))
    assert.equal(place.disk.counts.directorySyncs, 4)
    // The second file goes at open: a name has changed.
    await synced(openLog(place, { noted: { start: 0, end: 5 } }))
    assert.equal(place.disk.counts.directorySyncs, 5)
  })

  it('keeps a file that is being synced until the next time', async () => {
    const place = simulated()
    const log = filled(place, 7)
    const first = synced(log)
    log.truncateBefore(7)
    assert.equal(log.giveUpBefore(7).length, 0)
    await first
    assert.equal(log.giveUpBefore(7).length, 4)
  })
})

describe('a mapped index', () => {
  it('is the file itself, not a copy: damage to it is met by a read, and mended', () => {
    const { disk, root } = realDisk()
    const place = { disk, map: memoryMapper(root, heapMapper(disk)) }
    filled(place, 13).close()
    const path = join(root, fileOf(0, 'index'))
    const intact = readFileSync(path)
    const log = openLog(place, { noted: { start: 0, end: 13 } })
    assert.equal(text(log, 4), textOf(4))
    disk.open(fileOf(0, 'index')).write(indexHeaderBytes, new Uint8Array(20).fill(1))
    assert.equal(text(log, 4), textOf(4))
    assert.deepEqual(readFileSync(path), intact)
  })
})
