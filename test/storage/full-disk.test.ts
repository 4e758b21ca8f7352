import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import { Prng, systemRandom } from '../../src/lib/prng.ts'
import type { ReplicaState } from '../../src/shard/ports.ts'
import { openDataDirectory } from '../../src/storage/data-directory.ts'
import { LmdbStateStore } from '../../src/storage/lmdb-state.ts'
import { MemoryStateStore, StatePlatter } from '../../src/storage/memory-state.ts'
import type { LayeredStateStore } from '../../src/storage/state.ts'
import { scrubState } from '../../src/storage/state-scrub.ts'
import { SmallDisk } from '../lib/small-disk.ts'

const disk = SmallDisk.make(24 * 2 ** 20)
after(() => disk?.remove())
const skip = disk === null ? 'this process may not mount a small file system' : false

const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('voters') })
const value = (seed: number) => new Uint8Array(4_000).fill(seed)
const rowCount = 500
const key = (row: number) => `row-${String(row).padStart(4, '0')}`

function assertRows(state: ReplicaState, seeds: readonly (number | null)[]): void {
  const expected = seeds.flatMap((seed, row) => (seed === null ? [] : [[key(row), seed]]))
  const seen = [...state.range('', '\xff')].map(([name, bytes]) => [name, bytes[1]])
  assert.deepEqual(seen, expected)
  for (const [row, seed] of seeds.entries()) assert.equal(state.get(key(row))?.[1] ?? null, seed)
}

/** A checkpoint of `store` that finds no room, and what comes after it. */
async function fullAndBack(store: LayeredStateStore, fill: () => void, empty: () => void): Promise<void> {
  const state = store.open(1)
  const seeds: (number | null)[] = Array.from({ length: rowCount }, () => 1)
  for (let row = 0; row < rowCount; row++) state.put(key(row), value(1))
  await state.checkpoint(meta(1))
  fill()
  for (let row = 0; row < rowCount; row += 2) {
    state.put(key(row), value(2))
    seeds[row] = 2
  }
  state.delete(key(10))
  const refused = state.checkpoint(meta(2))
  // Put while the checkpoint is under way: newer than the rows that come back from it.
  state.put(key(0), value(3))
  state.put(key(10), value(3))
  state.delete(key(2))
  Object.assign(seeds, { 0: 3, 2: null, 10: 3 })
  await assert.rejects(refused, { code: 'NO_SPACE' })
  assertRows(state, seeds)
  assert.equal(state.checkpointed?.index, 1)
  await assert.rejects(state.checkpoint(meta(2)), { code: 'NO_SPACE' })
  assertRows(state, seeds)
  assert.equal(store.failure, null)
  empty()
  await state.checkpoint(meta(3))
  assert.equal(state.memtableBytes, 0)
  assertRows(state, seeds)
  assert.equal(state.rowCount, rowCount - 1)
}

describe('a checkpoint on a full disk', () => {
  it('is refused, keeps its rows in memory, and is made once there is room', { skip }, async () => {
    const store = new LmdbStateStore({ directory: disk!.path })
    await fullAndBack(
      store,
      () => disk!.fill(64 * 1024),
      () => disk!.empty(),
    )
    await store.close()
    assert.deepEqual(await scrubState({ directory: disk!.path, replicas: [1] }), [
      { replica: 1, trouble: null },
    ])
    const again = new LmdbStateStore({ directory: disk!.path })
    assert.equal(again.open(1).checkpointed?.index, 3)
    assert.equal(again.open(1).get(key(4))?.[1], 2)
    await again.close()
  })

  it('is refused by the twin in the same way', async () => {
    let hasRoom = true
    const store = new MemoryStateStore({
      platter: new StatePlatter(),
      schedule: setImmediate,
      random: new Prng(1),
      hasRoom: () => hasRoom,
    })
    await fullAndBack(
      store,
      () => {
        hasRoom = false
      },
      () => {
        hasRoom = true
      },
    )
  })

  it('lets a replica be destroyed once there is room', { skip }, async () => {
    const store = new LmdbStateStore({ directory: disk!.path })
    disk!.fill()
    let isGone = false
    const destroying = store.destroy(1).then(() => {
      isGone = true
    })
    const other = store.open(2)
    await assert.rejects(
      async () => {
        for (let row = 0; row < 10 * rowCount; row++) {
          other.put(key(row), value(1))
          if (row % 50 === 49) await other.checkpoint(meta(row))
        }
      },
      { code: 'NO_SPACE' },
    )
    disk!.empty()
    await destroying
    assert.ok(isGone)
    assert.equal(store.replicas().includes(1), false)
    await store.close()
  })
})

describe("a node's directory on a disk that filled up while the node was down", () => {
  it('opens by what was kept in reserve', { skip }, async () => {
    const path = join(disk!.path, 'node')
    const options = { path, nodeId: 'node1', random: systemRandom }
    const first = await openDataDirectory(options)
    writeFileSync(join(path, 'reserve'), new Uint8Array(2 ** 20))
    first.close(true)
    disk!.fill()
    const second = await openDataDirectory(options)
    assert.equal(second.identity.startCount, 2)
    assert.equal(existsSync(join(path, 'reserve')), false)
    second.close()
    disk!.fill()
    await assert.rejects(openDataDirectory(options), { code: 'DATA_DIR' })
    disk!.empty()
    const third = await openDataDirectory(options)
    assert.equal(third.identity.startCount, 3)
    third.close()
  })
})
