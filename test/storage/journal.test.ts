import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Prng } from '../../src/lib/prng.ts'
import { noSpaceRetryMs, sealAfterMs } from '../../src/storage/journal.ts'
import { applyBatch, assertHolds, Harness, type Models, record } from './journal-harness.ts'

const state = (term: number, vote = 0, commit = 0) => ({ term, vote, commit })

function opened(seed = 1, options: ConstructorParameters<typeof Harness>[1] = {}): Harness {
  const harness = new Harness(seed, options)
  harness.open()
  return harness
}

describe('the journal', () => {
  it('is empty when made', () => {
    const harness = opened()
    assert.deepEqual(harness.opened.recovered, [])
    assert.deepEqual(
      [harness.journal.firstIndex(1), harness.journal.lastIndex(1), harness.journal.term(1, 0)],
      [1, 0, 0],
    )
    assert.deepEqual(harness.restart().recovered, [])
  })

  it('writes a batch of many replicas as one commit of one file', () => {
    const harness = opened()
    const { commits } = harness.disk.counts
    harness.settle()
    const before = harness.disk.counts.commits
    harness.write(...[1, 2, 3].map(replica => record(replica, { entries: harness.entriesOf(1, 2, 1) })))
    assert.equal(harness.disk.counts.commits, before + 1, `after ${commits}`)
  })

  it('shows entries as soon as write returns, and done comes later', () => {
    const harness = opened()
    const [a, b] = harness.entriesOf(1, 2, 7)
    const result = harness.start(record(4, { hardState: state(7, 4, 1), entries: [a!, b!] }))
    assert.equal(result.error, undefined)
    assert.deepEqual(harness.journal.entries(4, 1, 3, 1e6), [a, b])
    assert.deepEqual([harness.journal.term(4, 2), harness.journal.lastIndex(4)], [7, 2])
    assert.equal(harness.journal.term(4, 3), undefined)
    harness.settle()
    assert.equal(result.error, null)
  })

  it('has one batch in flight', () => {
    const harness = opened()
    harness.start(record(1))
    assert.throws(() => harness.start(record(1)), /in flight/)
  })

  it('recovers hard states, configurations, bounds and entries', () => {
    const harness = opened()
    let models: Models = new Map()
    for (const batch of [
      [record(1, { hardState: state(1, 1), configuration: new Uint8Array([1, 2, 3]) }), record(2)],
      [record(1, { entries: harness.entriesOf(1, 5, 1) }), record(2, { reset: { index: 90, term: 4 } })],
      [record(2, { entries: harness.entriesOf(91, 3, 4), hardState: state(4, 0, 92) })],
      [record(1, { entries: harness.entriesOf(4, 1, 2), hardState: state(2, 0, 3) })],
      [record(2, { configuration: new Uint8Array(0) })],
    ]) {
      harness.write(...batch)
      models = applyBatch(models, batch)
    }
    assertHolds(harness.restart(), models)
    assert.equal(harness.journal.lastIndex(1), 4)
    assert.equal(harness.journal.firstIndex(2), 91)
  })

  it('keeps the hard state beside entries that come without one', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(3, 2, 1) }))
    harness.write(record(1, { entries: harness.entriesOf(1, 1, 3) }))
    const [recovery] = harness.restart().recovered
    assert.deepEqual(recovery!.hardState, state(3, 2, 1))
  })

  it('limits what entries gives by bytes, never below one', () => {
    const harness = opened(1, { cacheBytes: 0 })
    const entries = harness.entriesOf(1, 6, 1, 100)
    harness.write(record(1, { entries }))
    for (const restart of [false, true]) {
      if (restart) harness.restart()
      const count = (bytesMax: number) => harness.journal.entries(1, 2, 7, bytesMax).length
      assert.deepEqual([count(0), count(100), count(199), count(200), count(1e9)], [1, 1, 1, 2, 5])
    }
  })

  it('refuses a gap and an append into what is compacted', () => {
    const harness = opened()
    harness.write(record(1, { entries: harness.entriesOf(1, 3, 1) }))
    harness.journal.compact(1, 2, 1)
    assert.throws(() => harness.start(record(1, { entries: harness.entriesOf(5, 1, 1) })), /appends 5/)
    const other = opened()
    other.write(record(1, { entries: other.entriesOf(1, 3, 1) }))
    other.journal.compact(1, 2, 1)
    assert.throws(() => other.start(record(1, { entries: other.entriesOf(2, 1, 1) })), /appends 2/)
  })

  it('begins after a compaction that is past its end', () => {
    const harness = opened()
    harness.write(record(1, { entries: harness.entriesOf(1, 3, 1) }))
    harness.journal.compact(1, 10, 2)
    assert.deepEqual([harness.journal.firstIndex(1), harness.journal.lastIndex(1)], [11, 10])
    harness.write(record(1, { entries: harness.entriesOf(11, 1, 2) }))
    const [recovery] = harness.restart().recovered
    assert.deepEqual([recovery!.snapshotPoint, recovery!.lastIndex], [{ index: 10, term: 2 }, 11])
  })

  it('forgets a removed replica for good, and at once in memory', () => {
    const harness = opened()
    harness.write(record(1, { entries: harness.entriesOf(1, 3, 1) }), record(2, { hardState: state(1) }))
    harness.remove(1)
    assert.equal(harness.journal.lastIndex(1), 0)
    assert.deepEqual(
      harness.crash().recovered.map(recovery => recovery.replica),
      [2],
    )
  })

  it('removes while a batch is in flight', () => {
    const harness = opened()
    const result = harness.start(record(1, { entries: harness.entriesOf(1, 3, 1) }))
    let removed: Error | null | undefined
    harness.journal.remove(1, error => {
      removed = error
    })
    harness.settle()
    assert.deepEqual([result.error, removed], [null, null])
    assert.deepEqual(harness.crash().recovered, [])
  })

  it('takes a batch that is larger than a segment', () => {
    const harness = opened()
    const batch = [record(1, { entries: harness.entriesOf(1, 3, 1, 20_000) })]
    harness.write(...batch)
    harness.write(record(2, { hardState: state(1) }))
    assertHolds(
      harness.crash(),
      applyBatch(applyBatch(new Map(), batch), [record(2, { hardState: state(1) })]),
    )
  })

  it('reads from the cache what is recent and from the disk what is not', () => {
    const harness = opened(1, { cacheBytes: 3000, segmentBytes: 64 * 1024 })
    const entries = harness.entriesOf(1, 40, 1, 200)
    for (const entry of entries) harness.write(record(1, { entries: [entry] }))
    assert.ok(harness.journal.stats().cacheBytes <= 3000)
    const before = harness.disk.counts.reads
    assert.equal(harness.journal.entries(1, 40, 41, 1e6)[0], entries[39])
    assert.equal(harness.disk.counts.reads, before)
    assert.deepEqual(
      harness.journal.entries(1, 1, 41, 1e6).map(entry => Buffer.from(entry.data).toString('hex')),
      entries.map(entry => Buffer.from(entry.data).toString('hex')),
    )
    assert.ok(harness.disk.counts.reads > before)
  })

  it('reads entries of one frame with one read of the disk', () => {
    const harness = opened(1, { cacheBytes: 0 })
    harness.write(
      record(1, { entries: harness.entriesOf(1, 50, 1) }),
      record(2, { entries: harness.entriesOf(1, 9, 1) }),
    )
    const before = harness.disk.counts.reads
    assert.equal(harness.journal.entries(1, 1, 51, 1e6).length, 50)
    assert.equal(harness.disk.counts.reads, before + 1)
  })
})

describe('the seal of the journal', () => {
  it('follows a batch after 50 ms, once', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(1) }))
    const { frames } = harness.journal.stats()
    harness.advance(sealAfterMs - 1)
    assert.equal(harness.journal.stats().frames, frames)
    harness.advance(1)
    assert.equal(harness.journal.stats().frames, frames + 1)
    harness.advance(10_000)
    assert.equal(harness.journal.stats().frames, frames + 1)
  })

  it('waits for a pause', () => {
    const harness = opened()
    const { seals } = harness.journal.stats()
    for (let i = 1; i < 10; i++) {
      harness.write(record(1, { hardState: state(i) }))
      harness.advance(sealAfterMs - 1)
    }
    assert.equal(harness.journal.stats().seals, seals)
  })

  it('is written at a clean stop, so that the next start changes nothing', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(1) }))
    harness.close()
    const { bytesWritten } = harness.disk.counts
    harness.restart()
    assert.equal(harness.disk.counts.bytesWritten, 0, `before ${bytesWritten}`)
  })

  it('lets a batch that comes meanwhile follow it', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(1) }))
    harness.disk.stall()
    harness.advance(sealAfterMs)
    const result = harness.start(record(1, { entries: harness.entriesOf(1, 2, 1) }))
    assert.equal(harness.journal.entries(1, 1, 3, 1e6).length, 2)
    harness.disk.unstall()
    harness.settle()
    assert.equal(result.error, null)
    assert.equal(harness.crash().recovered[0]!.lastIndex, 2)
  })
})

describe('the segments of the journal', () => {
  /** Fills about `count` segments with entries of one replica, `bytes` a batch; returns the last index. */
  const fill = (harness: Harness, replica: number, from: number, batches: number, bytes = 3000): number => {
    for (let i = 0; i < batches; i++) {
      harness.write(record(replica, { entries: [harness.entry(from + i, 1, bytes)] }))
    }
    return from + batches - 1
  }

  it('are used again once nothing in them is wanted', () => {
    const harness = opened()
    let last = 0
    for (let round = 0; round < 30; round++) {
      last = fill(harness, 1, last + 1, 4)
      harness.journal.compact(1, last - 1, 1)
    }
    assert.ok(harness.journal.stats().segments <= 3)
    assert.ok(harness.paths().length <= 4, `${harness.paths().length} files`)
    const { recovered, damage } = harness.crash()
    assert.deepEqual([recovered[0]!.lastIndex, recovered[0]!.damaged, damage], [last, null, []])
  })

  it('are read whatever their size, which another setting may have made', () => {
    const harness = opened()
    let last = 0
    for (const segmentBytes of [64, 8, 32].map(each => each * 1024)) {
      harness.options.segmentBytes = segmentBytes
      const { recovered, damage } = harness.crash()
      assert.deepEqual(
        [recovered[0]?.lastIndex ?? 0, recovered[0]?.damaged ?? null, damage],
        [last, null, []],
      )
      for (let round = 0; round < 4; round++) {
        last = fill(harness, 1, last + 1, 6)
        harness.journal.compact(1, last - 1, 1)
      }
    }
    assert.equal(harness.restart().recovered[0]!.lastIndex, last)
  })

  it('grow past the budget rather than lose what is wanted', () => {
    const harness = opened()
    const last = fill(harness, 1, 1, 40)
    const { usedBytes, budgetBytes } = harness.journal.stats()
    assert.ok(usedBytes > budgetBytes)
    assert.deepEqual(harness.journal.pinnedBy(), [1])
    const { recovered } = harness.crash()
    assert.deepEqual([recovered[0]!.lastIndex, recovered[0]!.damaged], [last, null])
    harness.journal.compact(1, last, 1)
    harness.write(record(1))
    harness.write(record(1))
    assert.ok(harness.journal.stats().usedBytes <= budgetBytes)
    assert.ok(harness.paths().length * harness.options.segmentBytes <= budgetBytes)
  })

  it('name who pins the oldest only when the budget gets short', () => {
    const harness = opened()
    harness.write(record(7, { entries: harness.entriesOf(1, 3, 1) }))
    assert.deepEqual(harness.journal.pinnedBy(), [])
    fill(harness, 1, 1, 12)
    assert.deepEqual(harness.journal.pinnedBy(), [7, 1])
    harness.journal.compact(1, 12, 1)
    assert.deepEqual(harness.journal.pinnedBy(), [7])
  })

  it('go on without the few old entries that pin them: copies carry those forward', () => {
    const harness = opened()
    const pinned = harness.entriesOf(1, 3, 5)
    harness.write(record(7, { entries: pinned, hardState: state(5, 1, 1) }))
    let last = 0
    for (let round = 0; round < 40; round++) {
      last = fill(harness, 1, last + 1, 1)
      harness.journal.compact(1, last - 1, 1)
    }
    assert.ok(harness.journal.stats().bytesCopied > 0)
    assert.ok(harness.journal.stats().usedBytes <= harness.options.budgetBytes)
    const check = () => {
      assert.deepEqual(
        harness.journal.entries(7, 1, 4, 1e6).map(entry => Buffer.from(entry.data).toString('hex')),
        pinned.map(entry => Buffer.from(entry.data).toString('hex')),
      )
      assert.deepEqual(harness.journal.term(7, 3), 5)
    }
    check()
    const { recovered, damage } = harness.crash()
    assert.deepEqual(damage, [])
    assert.ok(recovered.every(recovery => recovery.damaged === null))
    check()
  })

  it('copies never truncate on replay what was appended since', () => {
    const harness = opened()
    harness.write(record(7, { entries: harness.entriesOf(1, 5, 1) }))
    let last = 0
    for (let round = 0; round < 40; round++) {
      last = fill(harness, 1, last + 1, 1)
      harness.journal.compact(1, last - 1, 1)
      if (round % 5 === 0) {
        const next = harness.journal.lastIndex(7) + 1
        harness.write(record(7, { entries: harness.entriesOf(next, 2, 1) }))
      }
    }
    const { bytesCopied } = harness.journal.stats()
    assert.ok(bytesCopied > 0)
    const before = harness.journal.lastIndex(7)
    const recovery = harness.crash().recovered.find(found => found.replica === 7)!
    assert.deepEqual([recovery.lastIndex, recovery.damaged], [before, null])
  })

  it('make a spare ahead, so that a batch seldom writes into a file that grows', () => {
    const harness = opened()
    harness.settle()
    assert.equal(harness.journal.stats().freeSegments, 1)
    fill(harness, 1, 1, 20)
    const sizes = harness.paths().map(path => harness.disk.open(path).size())
    assert.ok(sizes.every(size => size === harness.options.segmentBytes))
  })

  it('do without a spare on a full disk', () => {
    const harness = new Harness(1)
    harness.disk.capacityBytes = 2.5 * harness.options.segmentBytes
    harness.open()
    let last = 0
    for (let round = 0; round < 40; round++) {
      last = fill(harness, 1, last + 1, 1)
      harness.journal.compact(1, last, 1)
    }
    assert.equal(harness.journal.lastIndex(1), last)
  })
})

describe('a failed sync of the journal', () => {
  it('is final: every later call reports the same, and nothing is tried again', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(1) }))
    harness.disk.failOnce('sync')
    const errors: unknown[] = []
    const attempt = () => {
      try {
        harness.write(record(1, { hardState: state(2) }))
      } catch (error) {
        errors.push(error)
      }
    }
    attempt()
    const { writes } = harness.disk.counts
    attempt()
    harness.journal.remove(1, error => errors.push(error))
    harness.advance(1000)
    harness.journal.close(error => errors.push(error))
    harness.settle()
    harness.advance(1)
    assert.equal(errors.length, 4)
    assert.equal((errors[0] as { code: string }).code, 'STORAGE_FAILED')
    assert.ok(errors.every(error => error === errors[0]))
    assert.equal(harness.disk.counts.writes, writes)
  })

  it('of a seal or of the spare is final too', () => {
    const harness = opened()
    harness.write(record(1, { hardState: state(1) }))
    harness.disk.failOnce('sync')
    harness.advance(sealAfterMs)
    assert.throws(() => harness.write(record(1)), { code: 'STORAGE_FAILED' })
    const other = new Harness(2)
    other.open()
    other.disk.failOnce('sync')
    other.settle()
    assert.throws(() => other.write(record(1)), { code: 'STORAGE_FAILED' })
  })

  it('reaches a removal that waits behind it', () => {
    const harness = opened()
    harness.settle()
    harness.disk.failOnce('sync')
    const result = harness.start(record(1, { hardState: state(1) }))
    let removed: Error | null | undefined
    harness.journal.remove(1, error => {
      removed = error
    })
    harness.settle()
    harness.advance(0)
    assert.ok(result.error instanceof Error)
    assert.equal(removed, result.error)
  })
})

describe('a journal whose disk is full', () => {
  /** A journal on a full disk, up to the first batch that does not complete. */
  const full = () => {
    const told: Error[] = []
    const harness = new Harness(4, { budgetBytes: 2 ** 30, onNoSpace: error => void told.push(error) })
    harness.open()
    harness.settle()
    let last = 0
    const next = () => record(1, { entries: [harness.entry(++last, 1, 3000)], hardState: state(1, 0, last) })
    const give = harness.disk.fill()
    for (let batches = 0; ; batches++) {
      assert.ok(batches < 50, 'the journal never needs room')
      const waiting = harness.start(next())
      harness.settle()
      if (waiting.error === undefined) return { harness, told, next, give, waiting, last: () => last }
      assert.equal(waiting.error, null)
    }
  }

  it('goes on in what was filled with zeroes before, holds what needs more, and tells', () => {
    const { harness, told, next, give, waiting, last } = full()
    assert.ok(last() > 4, 'the spare was used')
    for (let tries = 0; tries < 10; tries++) harness.advance(noSpaceRetryMs)
    assert.equal(waiting.error, undefined)
    assert.ok(told.length >= 10)
    give()
    harness.advance(noSpaceRetryMs)
    assert.equal(waiting.error, null)
    for (let more = 0; more < 5; more++) harness.write(next())
    assert.deepEqual(harness.crash().damage, [])
    assert.equal(harness.journal.lastIndex(1), last())
  })

  it('loses nothing that was acknowledged when the power fails while a batch waits', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { harness, give, last } = full()
      harness.advance(seed * 37)
      harness.disk.crash(new Prng(seed))
      give()
      harness.restart()
      assert.deepEqual(harness.opened.damage, [])
      assert.ok(harness.journal.lastIndex(1) >= last() - 1)
    }
  })

  it('tells a removal that waits for room when it is closed', () => {
    const { harness, give, waiting } = full()
    give()
    harness.advance(noSpaceRetryMs)
    assert.equal(waiting.error, null)
    harness.disk.fault = operation =>
      operation === 'write' ? Object.assign(new Error('no room'), { code: 'ENOSPC' }) : null
    const removed: unknown[] = []
    harness.journal.remove(1, error => removed.push(error))
    harness.settle()
    harness.advance(noSpaceRetryMs)
    assert.equal(removed.length, 0)
    const closed: unknown[] = []
    harness.journal.close(error => closed.push(error))
    harness.advance(noSpaceRetryMs)
    harness.advance(0)
    assert.equal((removed[0] as { code: string }).code, 'STORAGE_FAILED')
    assert.equal(closed.length, 1)
  })

  it('dies of a sync that finds no room: what it should have kept was accepted before', () => {
    const { harness, give, waiting } = full()
    give()
    harness.disk.fault = (operation, path) =>
      operation === 'sync'
        ? Object.assign(new Error(`no space: ${path}`), { code: 'ENOSPC', syscall: 'fdatasync' })
        : null
    harness.advance(noSpaceRetryMs)
    harness.advance(0)
    const failed: unknown = waiting.error
    assert.equal((failed as { code: string }).code, 'STORAGE_FAILED')
  })
})

describe('a file of the journal in a second life', () => {
  it('never brings back a frame of its first', () => {
    // Frames of one size in both lives: each frame of the second ends where one of the first begins.
    const harness = opened(3, { budgetBytes: 48 * 1024 })
    let last = 0
    for (let round = 0; round < 200; round++) {
      last++
      harness.write(record(1, { entries: [harness.entry(last, 1, 700)], hardState: state(1, 0, last) }))
      harness.journal.compact(1, last, 1)
      const copy = harness.disk.clone()
      copy.crash(new Prng(round))
      const other = new Harness(round, harness.options)
      other.disk = copy
      other.restart()
      assert.deepEqual(other.opened.damage, [])
      assert.deepEqual(
        other.opened.recovered.map(({ lastIndex, hardState }) => [lastIndex, hardState.commit]),
        [[last, last]],
      )
    }
  })
})
