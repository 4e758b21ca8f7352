import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { isError } from '../../src/errors.ts'
import { Keyspace } from '../../src/keyspace/keyspace.ts'
import type { PartitionId } from '../../src/keyspace/partitions.ts'
import { decodeKept, encodeRecord } from '../../src/keyspace/record.ts'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { pack } from '../../src/lib/packed.ts'
import type { Disk } from '../../src/log/ports.ts'
import type { ReplicaState, StateStore } from '../../src/shard/ports.ts'
import { type StateHarness, transfer } from './state-contract.ts'

/** What a harness for records shows beside the store: the disk they are on. */
export interface RecordHarness extends StateHarness {
  readonly disk: Disk
}

/** Small enough for a handful of records to fill several files. */
export const contractSegmentBytes = 400

const one: PartitionId = { stream: 3, partition: 0 }
const other: PartitionId = { stream: 3, partition: 1 }
const key = fromUtf8('orders/0')
const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('') })
const record = (value: string) => encodeRecord({ value: fromUtf8(value), key: null, headers: [], type: 0 })
const some = (from: number, to: number, note = '') =>
  Array.from({ length: to - from }, (_, i) => record(`record ${from + i}${note}`))

/** The partitions in a replica's state, as an entry at `index` sees them. */
function at(state: ReplicaState, index: number) {
  const keyspace = new Keyspace(state)
  keyspace.beginEntry(index, 1_000 * index, 1)
  return keyspace.partitions
}

function valuesOf(state: ReplicaState, id = one): string[] {
  const partitions = at(state, 1_000)
  const { start, end } = partitions.find(id) ?? { start: 0, end: 0 }
  const values: string[] = []
  while (start + values.length < end) {
    const { records } = partitions.read(id, start + values.length, 100, 1_000)
    assert.ok(records.length > 0)
    values.push(...records.map(kept => toUtf8(decodeKept(kept).value)))
  }
  return values
}

const named = (from: number, to: number, note = '') =>
  Array.from({ length: to - from }, (_, i) => `record ${from + i}${note}`)

const filesOf = (disk: Disk, directory = 'streams'): string[] =>
  disk
    .list(directory)
    .flatMap(name => (name.includes('.') ? [`${directory}/${name}`] : filesOf(disk, `${directory}/${name}`)))

/** Files go by and by. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000
  while (!condition()) {
    assert.ok(performance.now() < deadline, 'not within 5 s')
    await new Promise(resolve => setImmediate(resolve))
  }
}

async function moved(from: ReplicaState, to: ReplicaState): Promise<void> {
  const snapshot = await from.takeSnapshot()
  const staged = to.stage(snapshot.manifest)
  transfer(snapshot, staged)
  await staged.verify()
  await staged.install()
  snapshot.release()
}

/** What rows say of records and the files hold, over checkpoints, restarts and snapshots. */
export function recordContract(name: string, make: () => RecordHarness): void {
  describe(`${name}, with streams in it`, () => {
    let harness: RecordHarness
    let store: StateStore
    const reopen = async () => {
      await store.close()
      store = harness.open()
    }
    beforeEach(() => {
      harness = make()
      store = harness.open()
    })
    afterEach(async () => {
      await store.close()
      await harness.dispose()
    })

    it('answers records at once, in and behind its files', async () => {
      const state = store.open(1)
      assert.equal(at(state, 5).append(one, key, [pack(some(0, 10))]), 0)
      assert.equal(at(state, 6).append(one, key, [pack(some(10, 12))]), 10)
      assert.deepEqual(valuesOf(state), named(0, 12))
      await state.checkpoint(meta(6))
      assert.equal(at(state, 7).append(one, key, [pack(some(12, 15))]), 12)
      assert.deepEqual(valuesOf(state), named(0, 15))
      assert.throws(
        () => at(state, 8).read(one, 16, 1, 1),
        error => isError(error, 'OFFSET_OUT_OF_RANGE') && error.facts.start === 0 && error.facts.end === 15,
      )
    })

    it('goes back to its last checkpoint at a start: what the journal has is appended again', async () => {
      at(store.open(1), 5).append(one, key, [pack(some(0, 20))])
      await store.open(1).checkpoint(meta(5))
      at(store.open(1), 6).append(one, key, [pack(some(20, 30, ' lost'))])
      at(store.open(1), 6).append(other, key, [pack(some(0, 3))])
      await reopen()
      const state = store.open(1)
      assert.deepEqual([valuesOf(state), valuesOf(state, other)], [named(0, 20), []])
      assert.equal(at(state, 6).append(one, key, [pack(some(20, 22))]), 20)
      await state.checkpoint(meta(6))
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(0, 22))
    })

    it('finds times in and behind its files, over a restart and a trim', async () => {
      const state = store.open(1)
      for (let index = 1; index <= 30; index++)
        at(state, index).append(one, key, [pack(some(index, index + 2))])
      await state.checkpoint(meta(30))
      const partitions = at(state, 31)
      assert.equal(partitions.seek(one, 0), 0)
      assert.equal(partitions.seek(one, 7_000), 12)
      assert.equal(partitions.seek(one, 7_001), 14)
      assert.equal(partitions.seek(one, 30_001), 60)
      await reopen()
      const again = store.open(1)
      for (let index = 31; index <= 33; index++)
        at(again, index).append(one, key, [pack(some(2 * index, 2 * index + 2))])
      at(again, 34).trim(one, 5)
      const found = [0, 3_000, 3_001, 30_000, 30_001, 32_000, 33_000, 33_001]
      assert.deepEqual(
        found.map(timeMs => at(again, 34).seek(one, timeMs)),
        [5, 5, 6, 58, 60, 62, 64, 66],
      )
      assert.equal(at(again, 34).seek(other, 0), 0)
    })

    it('gives back the room of what was trimmed once a checkpoint says so, and not before', async () => {
      const state = store.open(1)
      for (let index = 1; index <= 5; index++) {
        at(state, index).append(one, key, [pack(some(8 * (index - 1), 8 * index))])
        await state.checkpoint(meta(index))
      }
      const before = filesOf(harness.disk).length
      assert.equal(at(state, 6).trim(one, 35), 35)
      assert.equal(at(state, 6).trim(one, 10), 35)
      assert.equal(filesOf(harness.disk).length, before)
      assert.throws(() => at(state, 7).trim(one, 41), { code: 'OFFSET_OUT_OF_RANGE' })
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(0, 40))
      at(store.open(1), 6).trim(one, 35)
      await store.open(1).checkpoint(meta(6))
      await until(() => filesOf(harness.disk).length < before)
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(35, 40))
      at(store.open(1), 7).trim(one, 40)
      await store.open(1).checkpoint(meta(7))
      await reopen()
      assert.equal(at(store.open(1), 8).append(one, key, [pack(some(40, 41))]), 40)
      assert.deepEqual(valuesOf(store.open(1)), named(40, 41))
    })

    it('gives back the files of a stream that is gone once a checkpoint says so, and not before', async () => {
      const state = store.open(1)
      at(state, 5).append(one, key, [pack(some(0, 20))])
      await state.checkpoint(meta(5))
      assert.equal(at(state, 6).drop(4, []), 1)
      assert.throws(() => at(state, 7).append(one, key, [pack(some(0, 2))]), { code: 'NO_SUCH_STREAM' })
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(0, 20))
      at(store.open(1), 6).drop(4, [])
      await store.open(1).checkpoint(meta(6))
      await until(() => filesOf(harness.disk).length === 0)
      await reopen()
      assert.throws(() => at(store.open(1), 7).append(one, key, [pack(some(0, 2))]), {
        code: 'NO_SUCH_STREAM',
      })
    })

    it('begins where a copy begins, over checkpoints, restarts and snapshots', async () => {
      const copied = (state: ReplicaState, index: number, from: number, to: number) =>
        at(state, index).copy(one, key, from, Array(to - from).fill(index), some(from, to))
      copied(store.open(1), 5, 500, 520)
      await store.open(1).checkpoint(meta(5))
      copied(store.open(1), 6, 520, 525)
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(500, 520))
      copied(store.open(1), 6, 520, 530)
      // It holds nothing any more, and begins anew: the files that it had go.
      at(store.open(1), 7).trim(one, 530)
      copied(store.open(1), 8, 900, 910)
      await store.open(1).checkpoint(meta(8))
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(900, 910))
      await moved(store.open(1), store.open(2))
      copied(store.open(2), 9, 910, 915)
      await store.open(2).checkpoint(meta(9))
      await reopen()
      assert.deepEqual(valuesOf(store.open(2)), named(900, 915))
      await until(() => filesOf(harness.disk, 'streams/1').every(path => path.includes('-8/')))
    })

    it('sends the records of its checkpoint along in a snapshot, whatever happened since', async () => {
      const source = store.open(1)
      at(source, 5).append(one, key, [pack(some(0, 40))])
      at(source, 5).append(other, key, [pack(some(0, 3))])
      await source.checkpoint(meta(5))
      at(source, 6).trim(one, 30)
      at(source, 6).append(one, key, [pack(some(40, 50))])
      at(source, 6).drop(4, [])
      const target = store.open(2)
      at(target, 3).append(one, key, [pack(some(0, 7, ' of another history'))])
      await moved(source, target)
      assert.deepEqual([valuesOf(target), valuesOf(target, other)], [named(0, 40), named(0, 3)])
      assert.equal(at(target, 6).append(one, key, [pack(some(40, 42))]), 40)
      await target.checkpoint(meta(6))
      await reopen()
      assert.deepEqual(valuesOf(store.open(2)), named(0, 42))
      // Again over what is there: the files of the generation before go.
      at(store.open(1), 7).append(one, key, [pack(some(40, 60))])
      await store.open(1).checkpoint(meta(7))
      await moved(store.open(1), store.open(2))
      assert.deepEqual(valuesOf(store.open(2)), named(0, 60))
      await until(() => harness.disk.list('streams/2').length === 1)
      await store.destroy(2)
      assert.deepEqual(filesOf(harness.disk, 'streams/2'), [])
    })

    it('keeps what a checkpoint under way names, though its stream goes meanwhile', async () => {
      const state = store.open(1)
      at(state, 5).append(one, key, [pack(some(0, 20))])
      const durable = state.checkpoint(meta(5))
      at(state, 6).drop(4, [])
      await durable
      await reopen()
      assert.deepEqual(valuesOf(store.open(1)), named(0, 20))
    })

    it('says so when records that a checkpoint names are missing', async () => {
      at(store.open(1), 5).append(one, key, [pack(some(0, 40))])
      await store.open(1).checkpoint(meta(5))
      await store.close()
      const last = filesOf(harness.disk)
        .filter(path => path.endsWith('.store'))
        .at(-1)!
      harness.disk.unlink(last)
      store = harness.open()
      assert.throws(
        () => store.open(1).openRecords(),
        error => isError(error, 'CORRUPT') && /are missing/.test(error.message),
      )
    })
  })
}
