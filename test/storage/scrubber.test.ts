import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { silentLogger } from '../../src/lib/logger.ts'
import { Scrubber, type ScrubberOptions } from '../../src/storage/scrubber.ts'
import { ProcessClock, World } from '../sim/world.ts'
import { Harness, record } from './journal-harness.ts'

/** A journal of replicas 1 and 2 over several segments, all of it in the cache. */
function written(): Harness {
  const harness = new Harness(5, { budgetBytes: 2 ** 30, cacheBytes: 2 ** 30 })
  harness.open()
  harness.settle()
  for (let index = 1; index <= 20; index++)
    harness.write(
      record(1, { entries: [harness.entry(index, 1, 2000)], hardState: { term: 1, vote: 0, commit: index } }),
      record(2, { entries: [harness.entry(index, 1, 100)], hardState: { term: 1, vote: 0, commit: index } }),
    )
  return harness
}

/** Every entry of a replica that the journal finds broken, a piece at a time. */
function brokenOf(
  harness: Harness,
  replica: number,
  pieceBytes: number,
): { broken: number[]; bytes: number } {
  const broken: number[] = []
  let bytes = 0
  for (let from: number | null = 0; from !== null; ) {
    const found = harness.journal.check(replica, from, pieceBytes)
    if (found.broken !== null) broken.push(found.broken.index)
    bytes += found.bytes
    assert.ok(found.next === null || found.next > from, 'it goes on')
    from = found.next
  }
  return { broken, bytes }
}

/** Flips a bit of the entry's data wherever it lies. */
function flipEntry(harness: Harness, replica: number, index: number): string {
  const [entry] = harness.journal.entries(replica, index, index + 1, 1)
  for (const name of harness.disk.list('data/journal')) {
    const file = harness.disk.open(`data/journal/${name}`)
    const position = Buffer.from(file.read(0, file.size())).indexOf(entry!.data)
    if (position >= 0) {
      harness.disk.flipBit(`data/journal/${name}`, position + 50, 3)
      return name
    }
  }
  throw new Error('the entry is nowhere')
}

describe('a check of the journal', () => {
  it('finds nothing where nothing is broken, and reads what the cache has from the disk', () => {
    const harness = written()
    for (const pieceBytes of [1, 3000, 2 ** 20]) {
      assert.deepEqual(brokenOf(harness, 1, pieceBytes).broken, [])
      assert.ok(brokenOf(harness, 1, pieceBytes).bytes > 20_000)
    }
    assert.deepEqual(harness.journal.check(9, 0, 1000), { next: null, bytes: 0, broken: null })
  })

  it('finds each broken entry of a closed segment, and of no other replica', () => {
    for (const index of [1, 5, 9]) {
      const harness = written()
      flipEntry(harness, 1, index)
      for (const pieceBytes of [1, 3000, 2 ** 20])
        assert.deepEqual(brokenOf(harness, 1, pieceBytes).broken, [index])
      assert.deepEqual(brokenOf(harness, 2, 3000).broken, [])
    }
    const harness = written()
    for (const index of [2, 3, 7]) flipEntry(harness, 2, index)
    assert.deepEqual(brokenOf(harness, 2, 1000).broken, [2, 3, 7])
  })

  it('leaves alone what is being written', () => {
    const harness = written()
    flipEntry(harness, 1, 20)
    assert.deepEqual(brokenOf(harness, 1, 1000).broken, [])
    harness.start(record(1, { entries: [harness.entry(21, 1, 2000)] }))
    assert.deepEqual(brokenOf(harness, 1, 1000).broken, [])
  })
})

describe('the scrub', () => {
  const make = (more: Partial<ScrubberOptions> = {}) => {
    const world = new World(1)
    const rounds: { atMs: number; bytesPerSecond: number | null }[] = []
    const told: unknown[] = []
    const journal = {
      replicas: () => [1, 2],
      check: (replica: number, from: number) => ({
        next: from < 3 ? from + 1 : null,
        bytes: 1000,
        broken: replica === 2 && from === 1 ? { index: 7, why: 'a wrong checksum' } : null,
      }),
    }
    const scrubber = new Scrubber({
      directory: '/nowhere',
      clock: new ProcessClock(world),
      log: silentLogger,
      intervalMs: 3_600_000,
      bytesPerSecond: 1_000,
      isSuspect: false,
      replicas: () => [1, 2],
      journal,
      onBrokenState: (replica, why) => told.push(['state', replica, why]),
      onBrokenEntry: (replica, index, why) => told.push(['entry', replica, index, why]),
      onReaderGone: () => told.push(['reader gone']),
      scrub: async ({ bytesPerSecond = null, onFinding, replicas }) => {
        rounds.push({ atMs: world.nowMs, bytesPerSecond })
        const findings = replicas.map(replica => ({ replica, trouble: replica === 1 ? 'rows' : null }))
        for (const finding of findings) onFinding?.(finding)
        return findings
      },
      ...more,
    })
    const run = async (ms: number) => {
      // What was begun outside of an event has no timer yet.
      await new Promise(resolve => setImmediate(resolve))
      return world.run(world.nowMs + ms)
    }
    return { scrubber, rounds, told, run, world }
  }

  it('begins at once after an unclean stop, as fast as it can, and then once an interval at its rate', async () => {
    const { scrubber, rounds, run } = make({ isSuspect: true })
    scrubber.start()
    await run(2.5 * 3_600_000)
    assert.equal(rounds.length, 3)
    assert.deepEqual(
      rounds.map(({ bytesPerSecond }) => bytesPerSecond),
      [null, 1_000, 1_000],
    )
    assert.equal(rounds[0]!.atMs, 0)
    // Eight pieces of 1,000 bytes at 1,000 bytes a second are a part of each round.
    assert.ok(Math.abs(rounds[1]!.atMs - 3_608_000) < 1_000)
    await scrubber.close()
  })

  it('waits for an interval after a clean stop, and for ever without one', async () => {
    const { scrubber, rounds, run } = make()
    scrubber.start()
    await run(3_599_000)
    assert.equal(rounds.length, 0)
    await run(2_000)
    assert.equal(rounds.length, 1)
    await scrubber.close()
    const never = make({ intervalMs: 0 })
    never.scrubber.start()
    await never.run(1e9)
    assert.equal(never.rounds.length, 0)
  })

  it('tells what it found, and forgets the readers that its child left', async () => {
    const { scrubber, told, run } = make({ isSuspect: true })
    scrubber.start()
    await run(60_000)
    assert.deepEqual(told, [
      ['state', 1, 'scrub: rows'],
      ['reader gone'],
      ['entry', 2, 7, 'scrub: a wrong checksum'],
    ])
    assert.deepEqual(scrubber.counters, { rounds: 1, statesRead: 2, entriesBroken: 1, statesBroken: 1 })
    await scrubber.close()
  })

  it('ends in the middle of a round when it is closed', async () => {
    const { scrubber, told, run } = make({ isSuspect: true })
    scrubber.start()
    await run(2_000)
    await scrubber.close()
    await run(60_000)
    assert.equal(scrubber.counters.rounds, 0)
    assert.ok(told.length <= 3)
  })

  it('goes on after a round that failed', async () => {
    let failures = 0
    const { scrubber, run } = make({
      isSuspect: true,
      scrub: () => {
        failures++
        return Promise.reject(new Error('no memory'))
      },
    })
    scrubber.start()
    await run(2.5 * 3_600_000)
    assert.equal(failures, 3)
    await scrubber.close()
  })
})
