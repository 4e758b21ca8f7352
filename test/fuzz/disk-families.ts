/** What is read back from a disk, or taken over from another node's. */

import { isError, type RoundhouseError } from '../../src/errors.ts'
import { type Bytes, equalBytes, fromUtf8 } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { type NotedRange, SegmentedLog } from '../../src/log/segmented-log.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { draft } from '../../src/raft/types.ts'
import { birthConfiguration, encodeConfiguration } from '../../src/shard/configuration.ts'
import type { SnapshotManifest } from '../../src/shard/ports.ts'
import type { Replica } from '../../src/shard/replica.ts'
import { Snapshotter } from '../../src/shard/snapshotter.ts'
import { decodeRecord, encodeRecord } from '../../src/storage/checkpoint-record.ts'
import { parseIdentity } from '../../src/storage/data-directory.ts'
import { sealAfterMs } from '../../src/storage/journal.ts'
import { packedBytes, packRow, rowChecksum, unpackRows } from '../../src/storage/row-codec.ts'
import { readPartBlocks, readPartTotals, SnapshotWriter } from '../../src/storage/snapshot-format.ts'
import { StagingProgress } from '../../src/storage/staging.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { applyBatch, Harness, type Models, record } from '../storage/journal-harness.ts'
import { decodes, type Family } from './family.ts'
import { Mutator } from './mutate.ts'

// --- The journal ----------------------------------------------------------------------------------------------------

const journalPath = 'data/journal/segment-000001'
const segmentBytes = 8 * 1024

function smallJournal(random: Prng): { bytes: Uint8Array; written: Set<string>; models: Models } {
  const harness = new Harness(random.uint32(), { segmentBytes })
  harness.open()
  harness.settle()
  const hard = (term: number) => ({ term, vote: 1, commit: 1 })
  const batches = [
    [
      record(1, { hardState: hard(1), entries: harness.entriesOf(1, 3, 1) }),
      record(2, { hardState: hard(1) }),
    ],
    [record(2, { entries: harness.entriesOf(1, 2, 1, 300), configuration: new Uint8Array([7, 7]) })],
    [
      record(1, { entries: harness.entriesOf(3, 2, 2), hardState: hard(2) }),
      record(3, { reset: { index: 9, term: 1 } }),
    ],
    [record(3, { entries: harness.entriesOf(10, 2, 1) })],
    [record(1, { entries: harness.entriesOf(5, 1, 2) }), record(2, { hardState: hard(4) })],
  ]
  const written = new Set<string>()
  let models: Models = new Map()
  for (const batch of batches) {
    harness.write(...batch)
    models = applyBatch(models, batch)
    for (const { replica, entries } of batch) for (const each of entries) written.add(nameOf(replica, each))
  }
  harness.advance(sealAfterMs)
  const file = harness.disk.open(journalPath)
  return { bytes: Uint8Array.from(file.read(0, file.size())), written, models }
}

function nameOf(replica: number, entry: { index: number; term: number; kind: string; data: Bytes }): string {
  return `${replica} ${entry.index} ${entry.term} ${entry.kind} ${Buffer.from(entry.data).toString('hex')}`
}

/** It opens, whatever it finds, and serves no entry that nobody wrote. */
const journal: Family = {
  name: 'journal',
  refuses: 'damage that is told',
  share: 0.05,
  open: async random => {
    const made = Array.from({ length: 3 }, () => smallJournal(random))
    const mutator = new Mutator(made.map(each => each.bytes))
    const written = new Set(made.flatMap(each => [...each.written]))
    return {
      run: each => {
        const harness = new Harness(1, { segmentBytes })
        harness.disk.makeDirectory('data/journal')
        const file = harness.disk.open(journalPath, { create: true })
        file.write(0, mutator.next(each))
        file.sync()
        const { journal: opened, recovered, damage, torn } = harness.open()
        for (const { replica, lastIndex, snapshotPoint, damaged } of recovered) {
          for (let index = snapshotPoint.index + 1; index <= lastIndex; index++) {
            if (damaged !== null && index >= damaged.from && index < damaged.to) continue
            const [entry] = opened.entries(replica, index, index + 1, 1e6)
            if (entry === undefined || entry.index !== index || !written.has(nameOf(replica, entry)))
              throw new Error(`entry ${index} of replica ${replica} is served and was never written`)
          }
        }
        return damage.length > 0 || torn !== null ? 'refused' : 'taken'
      },
    }
  },
}

// --- The segment log ------------------------------------------------------------------------------------------------

const logDirectory = 'streams/1/0'
/** More than an interval of the time index. */
const segmentBytesMax = 7_000
/** A record begins with its time, a byte. */
const timeOf = (data: Bytes) => data[0]!

interface LogFiles {
  readonly files: ReadonlyMap<string, Uint8Array>
  readonly records: readonly Bytes[]
}

function newDisk(): SimDisk {
  return new SimDisk({ schedule: run => run() })
}

function openLog(disk: SimDisk, noted: NotedRange | null) {
  const warm = new WarmSegments(2)
  const map = heapMapper(disk)
  return SegmentedLog.open({
    disk,
    directory: logDirectory,
    map,
    random: new Prng(1),
    timeOf,
    noted,
    segmentBytesMax,
    warm,
  })
}

function smallLog(random: Prng): LogFiles {
  const disk = newDisk()
  const opening = openLog(disk, { start: 0, end: 0 })
  if (opening.kind !== 'open') throw new Error('a new log does not open')
  const records = Array.from({ length: 40 }, (_, i) =>
    Uint8Array.of(i >> 1, ...random.bytes(random.below(800))),
  )
  for (const each of records) opening.log.append(each)
  opening.log.sync(() => {})
  const files = new Map<string, Uint8Array>()
  for (const name of disk.list(logDirectory)) {
    const file = disk.open(`${logDirectory}/${name}`)
    files.set(name, Uint8Array.from(file.read(0, file.size())))
  }
  return { files, records }
}

/** One of its files is bad: it opens or tells of data loss, serves no record that nobody appended there, and finds times. */
const segmentLog: Family = {
  name: 'segment-log',
  refuses: 'data_loss, CORRUPT at a read',
  share: 0.03,
  open: async random => {
    const { files, records } = smallLog(random)
    const names = [...files.keys()]
    const mutators = new Map(names.map(name => [name, new Mutator([files.get(name)!])]))
    return {
      run: each => {
        const disk = newDisk()
        disk.makeDirectory(logDirectory)
        const bad = names[each.below(names.length)]!
        for (const name of names) {
          const file = disk.open(`${logDirectory}/${name}`, { create: true })
          file.write(0, name === bad ? mutators.get(name)!.next(each) : files.get(name)!)
          file.sync()
        }
        const opening = openLog(disk, each.below(2) === 0 ? null : { start: 0, end: records.length })
        if (opening.kind !== 'open') return 'refused'
        let isWhole = opening.log.nextOffset === records.length
        for (let offset = opening.log.lowestOffset; offset < opening.log.nextOffset; offset++) {
          try {
            const read = opening.log.read(offset)
            if (read.kind !== 'record' || !equalBytes(read.data, records[offset] ?? new Uint8Array(1e4)))
              throw new Error(`record ${offset} is not what was appended`)
          } catch (error) {
            if (!isError(error, 'CORRUPT')) throw error
            isWhole = false
          }
        }
        try {
          const { log } = opening
          const timeMs = each.below(22)
          const wanted = Math.min(2 * timeMs, log.nextOffset)
          if (log.lowestOffset === 0 && log.seek(timeMs) !== wanted)
            throw new Error(`time ${timeMs} is not where it is`)
        } catch (error) {
          if (!isError(error, 'CORRUPT')) throw error
          isWhole = false
        }
        return isWhole ? 'taken' : 'refused'
      },
    }
  },
}

// --- Rows, checkpoints, snapshots -----------------------------------------------------------------------------------

function someRows(random: Prng): { key: string; value: Bytes }[] {
  return Array.from({ length: 12 }, (_, i) => ({
    key: `\u0003key${i}${'x'.repeat(random.below(60))}`,
    value: random.bytes(random.below(120)),
  }))
}

const broken = (what: string): Error => Object.assign(new Error(what), { isPromised: true })

const rows: Family = {
  name: 'rows',
  refuses: 'what the caller names',
  share: 1,
  open: async random => {
    const all = someRows(random)
    const packed = Buffer.alloc(all.reduce((sum, { key, value }) => sum + packedBytes(key, value), 0) + 64)
    let end = 0
    for (const { key, value } of all) end = packRow(packed, end, key, value)
    end = packRow(packed, end, 'gone', null)
    const mutator = new Mutator([packed.subarray(0, end)])
    const known = new Set(all.map(({ key, value }) => `${key} ${Buffer.from(value).toString('hex')}`))
    return {
      run: each => {
        try {
          for (const row of unpackRows(mutator.next(each), broken)) {
            if (row.deleted || row.checksum !== rowChecksum(row.key, row.value)) continue
            const name = `${row.key} ${Buffer.from(row.value).toString('hex')}`
            // CRC-32 of nothing and of little: noise may hit it, a length of noise that long may not.
            if (!known.has(name) && row.value.byteLength + row.key.length > 0)
              throw new Error(`a row passes for whole that nobody wrote: ${JSON.stringify(name)}`)
          }
          return 'taken'
        } catch (error) {
          if ((error as { isPromised?: boolean }).isPromised === true) return 'refused'
          throw error
        }
      },
    }
  },
}

const checkpointRecords: Family = {
  name: 'checkpoint',
  refuses: 'CORRUPT',
  share: 1,
  open: async () => {
    const configuration = encodeConfiguration(birthConfiguration(3, { replica: 7, node: 'node1' }))
    const meta = { generation: 4, index: 1_000, term: 3, count: 12, sum: 77, mixed: 78, configuration }
    const corpus = encodeRecord(7, meta)
    const mutator = new Mutator([corpus])
    return {
      run: each =>
        decodes(['CORRUPT'], () => {
          const bytes = mutator.next(each)
          decodeRecord(7, bytes)
          if (!equalBytes(bytes, corpus)) throw new Error('a record passes that nobody wrote')
        }),
    }
  },
}

const snapshotParts: Family = {
  name: 'snapshot-part',
  refuses: 'CORRUPT',
  share: 0.5,
  open: async random => {
    const parts = new Map<string, Buffer[]>()
    let current: Buffer[] = []
    const sink = {
      begin: (name: string) => {
        current = []
        parts.set(name, current)
      },
      write: (bytes: Bytes) => void current.push(Buffer.from(bytes)),
    }
    const all = someRows(random)
    const writer = new SnapshotWriter(sink, { count: all.length, sum: 1, mixed: 2 }, 1024 * 1024)
    for (const { key, value } of all) writer.add(key, value, rowChecksum(key, value))
    writer.end()
    const mutator = new Mutator([...parts.values()].map(each => Buffer.concat(each)))
    const fail = (what: string): RoundhouseError => {
      throw new Error(`a block with a right checksum has wrong rows: ${what}`)
    }
    return {
      run: each => {
        const bytes = mutator.next(each)
        const read = (position: number, length: number) => bytes.subarray(position, position + length)
        return decodes(['CORRUPT'], () => {
          readPartTotals('rows.0', read)
          for (const block of readPartBlocks('rows.0', read))
            for (const row of unpackRows(block, fail)) void row
        })
      },
    }
  },
}

function someManifest(random: Prng): SnapshotManifest {
  return {
    id: Buffer.from(random.bytes(16)).toString('hex'),
    index: 500,
    term: 3,
    configuration: encodeConfiguration(birthConfiguration(3, { replica: 7, node: 'node1' })),
    parts: [
      { name: 'rows.0', bytes: 4_000, crc: 1 },
      { name: 'rows.1', bytes: 100, crc: crc32(new Uint8Array(3)) },
    ],
  }
}

/** What MsgSnap carries: an offer that is followed names files that may exist, and every chunk to fetch lies in one. */
const snapshotOffers: Family = {
  name: 'snapshot-offer',
  refuses: 'a line in the log',
  share: 0.5,
  open: async random => {
    const corpus = [1, 2].map(() => {
      const manifest = someManifest(random)
      const configuration = Buffer.from(manifest.configuration).toString('utf8')
      return fromUtf8(JSON.stringify({ node: 'node2', manifest: { ...manifest, configuration } }))
    })
    const mutator = new Mutator(corpus, { isText: true })
    return {
      run: each => {
        let manifest: SnapshotManifest | null = null
        const snapshotter = new Snapshotter(
          {
            nodeId: 'node1',
            clock: { now: () => 0, wall: () => 0, after: () => () => {} },
            log: silentLogger,
            fetch: () => new Promise(() => {}),
            fetchBytesPerSecond: 1e9,
            syncMs: () => 0,
            reportFailure: () => {},
            touch: () => {},
            find: () => undefined,
            journal: { bytesAfter: () => 0 },
          },
          () => {},
        )
        const stage = (given: SnapshotManifest) => {
          manifest = given
          const progress = new StagingProgress(given)
          const next = progress.next()
          if (next !== null && !(next.length > 0 && Number.isSafeInteger(next.position + next.length)))
            throw new Error(`asks for ${JSON.stringify(next)}`)
          for (const { name } of given.parts)
            if (name.includes('/') || name.startsWith('..') || name === '.') throw new Error(`a file ${name}`)
          return { manifest: given, next: () => next, write: () => {} }
        }
        const replica = { id: 7, group: 3, appliedIndex: 1, state: { stage } } as unknown as Replica
        const confState = {
          voters: [7],
          votersOutgoing: [],
          learners: [],
          learnersNext: [],
          autoLeave: false,
        }
        const snapshot = { meta: { index: 500, term: 3, confState }, data: mutator.next(each) }
        snapshotter.receive(replica, { ...draft('MsgSnap', 7, 8, 3), snapshot, responses: [] })
        return manifest === null ? 'refused' : 'taken'
      },
    }
  },
}

const identities: Family = {
  name: 'node-json',
  refuses: 'a text that says what is wrong',
  share: 1,
  open: async () => {
    const facts = {
      format: 1,
      clusterId: 'c'.repeat(32),
      nodeId: 'node1',
      storeId: 'f'.repeat(32),
      startCount: 3,
    }
    const checksum = crc32(fromUtf8(JSON.stringify(facts)))
      .toString(16)
      .padStart(8, '0')
    const whole = fromUtf8(`${JSON.stringify({ ...facts, crc32: checksum }, null, 2)}\n`)
    if (typeof parseIdentity(whole) === 'string') throw new Error('the corpus is refused')
    const mutator = new Mutator([whole], { isText: true })
    return {
      run: each => {
        const parsed = parseIdentity(mutator.next(each))
        if (typeof parsed === 'string') return 'refused'
        // Blanks and the order of keys are free.
        const { format, clusterId, nodeId, storeId, startCount } = parsed
        if (JSON.stringify({ format, clusterId, nodeId, storeId, startCount }) !== JSON.stringify(facts))
          throw new Error(`another identity: ${JSON.stringify(parsed)}`)
        return 'taken'
      },
    }
  },
}

export const diskFamilies: readonly Family[] = [
  journal,
  segmentLog,
  rows,
  checkpointRecords,
  snapshotParts,
  snapshotOffers,
  identities,
]
