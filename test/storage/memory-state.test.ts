import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { MemoryStateStore, StatePlatter } from '../../src/storage/memory-state.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { contractSegmentBytes, recordContract } from './record-contract.ts'
import { contractPartBytes, stateContract, transfer } from './state-contract.ts'
import { followModel, steps } from './state-model.ts'

stateContract('MemoryStateStore', () => {
  const platter = new StatePlatter()
  const random = new Prng(1)
  return {
    open: () =>
      new MemoryStateStore({
        platter,
        random,
        schedule: run => void setImmediate(run),
        snapshotPartBytes: contractPartBytes,
      }),
    dispose: async () => undefined,
  }
})

recordContract('MemoryStateStore', () => {
  const platter = new StatePlatter()
  const random = new Prng(1)
  const disk = new SimDisk({ schedule: run => void setImmediate(run) })
  const home = { disk, map: heapMapper(disk), random, segmentBytesMax: contractSegmentBytes }
  return {
    disk,
    open: () =>
      new MemoryStateStore({
        ...{ platter, random, schedule: run => void setImmediate(run) },
        recordHome: { ...home, warm: new WarmSegments(2) },
      }),
    dispose: async () => undefined,
  }
})

/** A scheduler that runs when it is told to. */
class Steps {
  readonly queue: (() => void)[] = []
  readonly schedule = (run: () => void) => void this.queue.push(run)

  runOne(): void {
    this.queue.shift()?.()
  }

  async settle(work: Promise<void>): Promise<void> {
    let over = false
    const watched = work.finally(() => {
      over = true
    })
    watched.catch(() => undefined)
    for (let turn = 0; !over; turn++) {
      assert.ok(turn < 10_000, 'the work never ends')
      this.runOne()
      for (let i = 0; i < 10; i++) await Promise.resolve()
    }
    await watched
  }
}

const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('') })

describe('MemoryStateStore, whose process dies', () => {
  it('is at each moment what a model says, over crashes and restarts', async () => {
    await fc.assert(
      fc.asyncProperty(steps, fc.integer(), async (run, seed) => {
        const platter = new StatePlatter()
        const random = new Prng(seed)
        let scheduler = new Steps()
        await followModel(
          {
            open: () => {
              scheduler = new Steps()
              return new MemoryStateStore({
                platter,
                random,
                schedule: scheduler.schedule,
                snapshotPartBytes: 200,
              })
            },
            settle: work => scheduler.settle(work),
            crash: store => (store as MemoryStateStore).crash(),
          },
          run,
        )
      }),
      { numRuns: 120, endOnFailure: true },
    )
  })

  it('shows a checkpoint under way wholly or not at all, and both happen', () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < 40; seed++) {
      const platter = new StatePlatter()
      const scheduler = new Steps()
      const options = { platter, random: new Prng(seed), schedule: scheduler.schedule }
      const store = new MemoryStateStore(options)
      const state = store.open(1)
      state.put('a', fromUtf8('1'))
      state.put('b', fromUtf8('2'))
      void state.checkpoint(meta(1))
      store.crash()
      while (scheduler.queue.length > 0) scheduler.runOne()
      const again = new MemoryStateStore(options).open(1)
      seen.add([...again.range('', '\xff')].map(([key, value]) => key + toUtf8(value)).join())
    }
    assert.deepEqual([...seen].sort(), ['', 'a1,b2'])
  })

  it('keeps of a snapshot being received what was synced', async () => {
    const platter = new StatePlatter()
    const scheduler = new Steps()
    const options = { platter, random: new Prng(3), schedule: scheduler.schedule, snapshotPartBytes: 70_000 }
    const store = new MemoryStateStore(options)
    const source = store.open(1)
    for (let i = 0; i < 400; i++) source.put(`row ${i}`, new Uint8Array(1_000).fill(i))
    await scheduler.settle(source.checkpoint(meta(1)))
    const taking = source.takeSnapshot()
    await scheduler.settle(taking.then(() => undefined))
    const snapshot = await taking
    const staged = store.open(2).stage(snapshot.manifest)
    transfer(snapshot, staged, 1)
    scheduler.runOne()
    const synced = staged.bytesStaged
    transfer(snapshot, staged, 1)
    assert.ok(staged.bytesStaged > synced)
    // The step under way may be lost with the process; which way it goes is this seed's.
    store.crash()
    const again = new MemoryStateStore(options).open(2).stage(snapshot.manifest)
    assert.ok(again.bytesStaged === synced || again.bytesStaged === staged.bytesStaged)
    transfer(snapshot, again)
    await scheduler.settle(again.verify())
    await scheduler.settle(again.install())
  })

  it('is the same run for the same seed', async () => {
    const runOnce = async () => {
      const platter = new StatePlatter()
      const scheduler = new Steps()
      const store = new MemoryStateStore({ platter, random: new Prng(9), schedule: scheduler.schedule })
      store.open(1).put('a', fromUtf8('1'))
      await scheduler.settle(store.open(1).checkpoint(meta(1)))
      const taking = store.open(1).takeSnapshot()
      await scheduler.settle(taking.then(() => undefined))
      return (await taking).manifest
    }
    assert.deepEqual(await runOnce(), await runOnce())
  })
})
