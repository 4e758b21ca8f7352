import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { sealAfterMs } from '../../src/storage/journal.ts'
import {
  applyBatch,
  assertHolds,
  entriesFrom,
  Harness,
  lastIndexOf,
  type Models,
  record,
} from './journal-harness.ts'

const forgotten = Number.MAX_SAFE_INTEGER
const path = 'data/journal/segment-000001'

/** Three replicas, five frames and a seal in one segment; some entries are overwritten later. */
function sealed(seed = 5): { harness: Harness; models: Models; frameEnds: number[] } {
  const harness = new Harness(seed)
  harness.open()
  harness.settle()
  let models: Models = new Map()
  const frameEnds: number[] = []
  const hard = (term: number) => ({ term, vote: 1, commit: 1 })
  for (const batch of [
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
  ]) {
    harness.write(...batch)
    models = applyBatch(models, batch)
    const file = harness.disk.open(path)
    frameEnds.push(lastUsedSector(file.read(0, file.size())))
  }
  harness.advance(sealAfterMs)
  return { harness, models, frameEnds }
}

function lastUsedSector(bytes: Uint8Array): number {
  let end = bytes.byteLength
  while (end > 0 && bytes[end - 1] === 0) end--
  return Math.ceil(end / 512) * 512
}

/** The position of `needle` in the segment. */
function find(harness: Harness, needle: Uint8Array, from = 0): number {
  const file = harness.disk.open(path)
  return Buffer.from(file.read(0, file.size())).indexOf(needle, from)
}

describe('a replica whose last entry is damaged', () => {
  it('takes a note of it, which is there at the next start, as the damage is', () => {
    const harness = new Harness(7)
    harness.open()
    harness.settle()
    const hardState = { term: 1, vote: 1, commit: 3 }
    const entries = harness.entriesOf(1, 3, 1)
    harness.write(record(1, { hardState, entries }))
    harness.advance(sealAfterMs)
    const last = find(harness, entries[2]!.data)
    assert.ok(last > 0)
    harness.close()
    harness.disk.flipBit(path, last)
    const note = new Uint8Array([4, 2])
    for (let start = 0; start < 3; start++) {
      const { recovered } = harness.open()
      const [found] = recovered
      assert.equal(found!.damaged?.from, 3)
      assert.equal(found!.lastIndex >= 3, true)
      if (start > 0) assert.deepEqual(found!.configuration, note)
      harness.settle()
      harness.write(record(1, { configuration: note }))
      harness.close()
    }
  })
})

describe('a flipped bit in what the journal synced and sealed', () => {
  it('is found wherever it is, never served, never silently cut', () => {
    const { harness, models, frameEnds } = sealed()
    const end = frameEnds.at(-1)!
    let silent = 0
    for (let position = 0; position < end; position++) {
      const disk = harness.disk.clone()
      disk.flipBit(path, position, position % 8)
      const other = new Harness(position, harness.options)
      const { journal, recovered, damage, torn } = other.restart(disk)
      assert.equal(torn, null)
      if (damage.length === 0) {
        // Padding: not a bit of it means anything.
        silent++
        assertHolds(other.opened, models)
        continue
      }
      for (const { replica, hardState, configuration, lastIndex, damaged } of recovered) {
        const model = models.get(replica)!
        if (damaged === null) {
          assert.deepEqual(hardState, model.hardState)
          assert.deepEqual(configuration === null ? null : new Uint8Array(configuration), model.configuration)
          assert.deepEqual(entriesFrom(journal, replica, model.snapshotPoint.index + 1), model.entries)
          continue
        }
        assert.ok(damaged.to === forgotten || lastIndex === lastIndexOf(model))
        for (let index = model.snapshotPoint.index + 1; index <= lastIndex; index++) {
          if (index >= damaged.from && index < damaged.to) continue
          const [entry] = journal.entries(replica, index, index + 1, 1e6)
          const wanted = model.entries.find(entry => entry.index === index)!
          assert.deepEqual({ ...entry, data: new Uint8Array(entry!.data) }, wanted)
        }
      }
      const missing = [...models.keys()].filter(
        replica => !recovered.some(found => found.replica === replica),
      )
      assert.ok(missing.length === 0 || damage.some(({ replica }) => replica === null))
    }
    assert.ok(silent < end / 2, `${silent} of ${end} bytes are padding`)
  })

  it('is found again by every start until later records heal it', () => {
    const { harness, models } = sealed()
    harness.disk.flipBit(path, find(harness, models.get(2)!.entries[1]!.data))
    const first = harness.restart().damage
    assert.equal(first.length, 1)
    assert.deepEqual(harness.crash().damage, first)
  })

  it('in an entry is placed: segment, position, replica, index', () => {
    const { harness, models } = sealed()
    const position = find(harness, models.get(2)!.entries[1]!.data)
    harness.disk.flipBit(path, position + 17)
    const { damage, recovered, journal } = harness.restart()
    assert.deepEqual(damage, [
      { path, segment: 1, position, replica: 2, range: { from: 2, to: 3 }, what: 'entry' },
    ])
    const damaged = new Map(recovered.map(found => [found.replica, found.damaged]))
    assert.deepEqual([damaged.get(1), damaged.get(2), damaged.get(3)], [null, { from: 2, to: 3 }, null])
    assert.throws(() => journal.entries(2, 2, 3, 1e6), { code: 'CORRUPT' })
    assert.equal(journal.entries(2, 1, 2, 1e6).length, 1)
  })

  it('in an entry that was overwritten since is reported and harms nobody', () => {
    const { harness, models } = sealed()
    const gone = find(harness, models.get(1)!.entries[1]!.data) + 20
    harness.disk.flipBit(path, gone)
    const { damage, recovered } = harness.restart()
    assert.deepEqual(
      damage.map(({ replica, range }) => [replica, range]),
      [[1, { from: 3, to: 4 }]],
    )
    assert.ok(recovered.every(found => found.damaged === null))
  })

  it('in an entry is healed by an append over it and by a compaction behind it', () => {
    for (const heal of ['append', 'compact']) {
      const { harness, models } = sealed()
      harness.disk.flipBit(path, find(harness, models.get(2)!.entries[1]!.data))
      harness.restart()
      if (heal === 'append') harness.write(record(2, { entries: harness.entriesOf(2, 1, 5) }))
      else harness.journal.compact(2, 2, 1)
      harness.write(record(2))
      const recovery = harness.crash().recovered.find(found => found.replica === 2)!
      assert.equal(recovery.damaged, null)
    }
  })

  it('in a header or a directory blames only those whose later records do not clear them', () => {
    const { harness, frameEnds } = sealed()
    // The fourth frame holds entries of replica 3 and nothing after it does; 1 and 2 wrote once more.
    const disk = harness.disk.clone()
    disk.flipBit(path, frameEnds[2]! + 30)
    const { recovered, damage } = new Harness(1, harness.options).restart(disk)
    assert.deepEqual(
      damage.map(({ position, replica, what }) => [position, replica, what]),
      [[frameEnds[2], null, 'frame']],
    )
    assert.deepEqual(
      recovered.map(found => [found.replica, found.damaged]),
      [
        [1, null],
        [2, null],
        [3, { from: 10, to: forgotten }],
      ],
    )
  })

  it('in a vote makes the replica damaged for good, until its next record', () => {
    const { harness, frameEnds } = sealed()
    // The head of the last record of the fifth frame: the hard state of replica 2.
    const disk = harness.disk.clone()
    const file = disk.open(path)
    const frame = frameEnds[3]!
    const head = new DataView(file.read(frame + 72 + 40, 40).buffer).getUint32(20, true)
    disk.flipBit(path, frame + head + 1)
    const other = new Harness(1, harness.options)
    const { recovered, damage } = other.restart(disk)
    assert.deepEqual(damage, [
      { path, segment: 1, position: frame + head, replica: 2, range: null, what: 'record' },
    ])
    assert.deepEqual(recovered.find(found => found.replica === 2)!.damaged, { from: 3, to: forgotten })
    other.write(record(2, { hardState: { term: 5, vote: 0, commit: 0 } }))
    assert.equal(other.crash().recovered.find(found => found.replica === 2)!.damaged, null)
  })

  it('that comes while running is met by the read, not served', () => {
    const harness = new Harness(1, { cacheBytes: 0 })
    harness.open()
    const entries = harness.entriesOf(1, 3, 1)
    harness.write(record(1, { entries }))
    harness.write(record(1))
    harness.disk.flipBit(path, find(harness, entries[1]!.data))
    assert.throws(() => harness.journal.entries(1, 1, 4, 1e6), { code: 'CORRUPT' })
    assert.equal(harness.journal.entries(1, 1, 2, 1e6).length, 1)
  })

  it('in the last frame is rot once it is sealed, and a torn tail before', () => {
    for (const isSealed of [true, false]) {
      const harness = new Harness(1)
      harness.open()
      harness.write(record(1, { hardState: { term: 1, vote: 0, commit: 0 } }))
      const entries = harness.entriesOf(1, 1, 1)
      harness.write(record(1, { entries }))
      if (isSealed) harness.advance(sealAfterMs)
      harness.disk.flipBit(path, find(harness, entries[0]!.data))
      const { damage, torn, recovered } = harness.restart()
      assert.deepEqual([damage.length, torn === null], isSealed ? [1, true] : [0, false])
      assert.deepEqual(recovered[0]!.damaged, isSealed ? { from: 1, to: 2 } : null)
    }
  })
})

describe('a segment of the journal that is gone or whose first frame is rotten', () => {
  const many = () => {
    const harness = new Harness(3)
    harness.open()
    let models: Models = new Map()
    const batches = [[record(2, { hardState: { term: 3, vote: 1, commit: 0 } })]]
    for (let i = 1; i <= 20; i++) batches.push([record(1, { entries: [harness.entry(i, 1, 3000)] })])
    for (const batch of batches) {
      harness.write(...batch)
      models = applyBatch(models, batch)
    }
    harness.close()
    return { harness, models }
  }

  it('is reported, and those are blamed who have entries there', () => {
    const { harness, models } = many()
    const paths = harness.paths()
    const disk = harness.disk.clone()
    disk.unlink(paths[1]!)
    const { damage, recovered, journal } = new Harness(1, harness.options).restart(disk)
    assert.deepEqual(
      damage.map(({ segment, what }) => [segment, what]),
      [[3, 'segment']],
    )
    const [one, two] = recovered.toSorted((a, b) => a.replica - b.replica)
    assert.ok(one!.damaged !== null && one!.damaged.to !== forgotten && one!.lastIndex === 20)
    assert.equal(two!.damaged, null)
    assert.deepEqual(two!.hardState, models.get(2)!.hardState)
    assert.equal(journal.entries(1, one!.damaged.to, 21, 1e9).length, 21 - one!.damaged.to)
  })

  it('is reported when it was the oldest that is wanted', () => {
    const { harness } = many()
    const disk = harness.disk.clone()
    disk.unlink(harness.paths()[0]!)
    const { damage, recovered } = new Harness(1, harness.options).restart(disk)
    assert.deepEqual(
      damage.map(({ segment, what }) => [segment, what]),
      [[2, 'segment']],
    )
    const one = recovered.find(found => found.replica === 1)!
    assert.deepEqual([one.lastIndex, one.damaged!.from], [20, 1])
  })

  it('still says its later entries', () => {
    const { harness } = many()
    const disk = harness.disk.clone()
    disk.flipBit(harness.paths()[1]!, 20)
    const { damage, recovered } = new Harness(1, harness.options).restart(disk)
    assert.ok(damage.length >= 1 && damage.every(({ segment }) => segment === 2))
    const one = recovered.find(found => found.replica === 1)!
    assert.deepEqual([one.lastIndex, one.damaged === null], [20, false])
    assert.ok(one.damaged!.to - one.damaged!.from < 20)
    assert.equal(recovered.find(found => found.replica === 2)!.damaged, null)
  })
})
