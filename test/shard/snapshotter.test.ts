import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { deferred } from '../../src/lib/deferred.ts'
import { silentLogger } from '../../src/lib/logger.ts'
import { encodeConfiguration, noConfState } from '../../src/shard/configuration.ts'
import type { Room, Snapshot } from '../../src/shard/ports.ts'
import type { Replica } from '../../src/shard/replica.ts'
import { pinnedBytesMax, Snapshotter } from '../../src/shard/snapshotter.ts'

const receiver = 8
const minutes = 60_000

/** A replica that is asked for a snapshot, and a copy that takes as long as the test likes. */
class Bench {
  nowMs = 0
  bytesAfter = 0
  isNearlyFull = false
  retried: number[] = []
  copies: { readonly index: number; finish(): void; isReleased: boolean }[] = []
  checkpointed = { index: 10, term: 1, configuration: configuration() }
  raft = { firstIndex: 5, retry: (to: number) => void this.retried.push(to), progressOf: () => undefined }
  readonly replica = {
    ...{ id: 7, group: 0, raft: this.raft, configuration: { members: [{ replica: receiver, node: 'n2' }] } },
    state: this.state(),
  } as unknown as Replica
  readonly snapshotter = new Snapshotter(
    {
      nodeId: 'n1',
      clock: { now: () => this.nowMs, wall: () => 0, after: () => () => {} },
      log: silentLogger,
      fetch: () => Promise.reject(new Error('nobody pulls here')),
      fetchBytesPerSecond: 1,
      syncMs: () => 0,
      reportFailure: () => {},
      touch: () => {},
      find: () => this.replica,
      journal: { bytesAfter: () => this.bytesAfter },
      room: { isNearlyFull: () => this.isNearlyFull } as unknown as Room,
    },
    work => work(),
  )

  private state() {
    const bench = this
    return {
      get checkpointed() {
        return bench.checkpointed
      },
      takeSnapshot: () => bench.copy(),
    }
  }

  private copy(): Promise<Snapshot> {
    const made = deferred<Snapshot>()
    const { index, term, configuration } = this.checkpointed
    const manifest = { id: `${this.copies.length}`, index, term, configuration, parts: [] }
    const copy = {
      index,
      isReleased: false,
      finish: () =>
        made.resolve({
          manifest,
          read: () => new Uint8Array(0),
          release: () => {
            copy.isReleased = true
          },
        }),
    }
    this.copies.push(copy)
    return made.promise
  }

  ask(): boolean {
    return this.snapshotter.offer(this.replica, receiver) !== null
  }

  get pinned(): number | null {
    return this.snapshotter.pinnedIndex(this.replica)
  }

  /** A second goes by, and what else there was. */
  tick(ms = 1_000): void {
    this.nowMs += ms
    this.snapshotter.tick()
  }
}

function configuration() {
  const members = [
    { replica: 7, node: 'n1' },
    { replica: receiver, node: 'n2' },
  ]
  return encodeConfiguration({ group: 0, index: 1, operation: 0, confState: noConfState, members })
}

const soon = () => new Promise(resolve => setImmediate(resolve))

describe('the journal behind a snapshot that is being made', () => {
  it('is kept, and while its receiver pulls it', async () => {
    const bench = new Bench()
    assert.equal(bench.ask(), false)
    bench.tick()
    assert.equal(bench.pinned, 10)
    bench.copies[0]!.finish()
    await soon()
    assert.deepEqual([bench.retried, bench.ask(), bench.pinned], [[receiver], true, 10])
  })

  const bounds: [string, (bench: Bench) => void][] = [
    ['for ten minutes', bench => bench.tick(11 * minutes)],
    [
      'for a gibibyte',
      bench => {
        bench.bytesAfter = pinnedBytesMax + 1
      },
    ],
    [
      'while there is room on the disk',
      bench => {
        bench.isNearlyFull = true
      },
    ],
  ]
  for (const [what, pass] of bounds)
    it(`is kept ${what} and no longer`, () => {
      const bench = new Bench()
      bench.ask()
      pass(bench)
      bench.tick()
      assert.equal(bench.pinned, null)
    })

  it('is kept for as long as a slow pull gets on', async () => {
    const bench = new Bench()
    bench.ask()
    bench.copies[0]!.finish()
    await soon()
    assert.equal(bench.ask(), true)
    for (let ms = 0; ms < 30 * minutes; ms += 3_000) {
      bench.tick(3_000)
      bench.snapshotter.read('0', 'rows', 0, 1)
    }
    assert.equal(bench.pinned, 10)
    bench.tick(6_000)
    assert.deepEqual([bench.pinned, bench.copies[0]!.isReleased], [null, true])
  })

  it('may be gone when it is made: then it goes, and another is taken', async () => {
    const bench = new Bench()
    bench.ask()
    bench.tick(11 * minutes)
    bench.raft.firstIndex = 500
    bench.checkpointed = { ...bench.checkpointed, index: 600 }
    bench.copies[0]!.finish()
    await soon()
    assert.deepEqual(
      bench.copies.map(({ index, isReleased }) => [index, isReleased]),
      [
        [10, true],
        [600, false],
      ],
    )
    assert.equal(bench.pinned, 600)
    bench.copies[1]!.finish()
    await soon()
    assert.equal(bench.ask(), true)
  })

  it('is of use though it was kept no longer, as long as it is there', async () => {
    const bench = new Bench()
    bench.ask()
    bench.tick(11 * minutes)
    bench.copies[0]!.finish()
    await soon()
    assert.deepEqual([bench.ask(), bench.pinned], [true, null])
  })
})
