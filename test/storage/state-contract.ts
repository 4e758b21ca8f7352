import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { isError } from '../../src/errors.ts'
import { BrokenInvariant } from '../../src/lib/assert.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import type { ReplicaState, Snapshot, StagedSnapshot, StateStore } from '../../src/shard/ports.ts'

/** A state store on something that survives it. */
export interface StateHarness {
  open(): StateStore
  /** Frees what the harness holds, after the store was closed. */
  dispose(): Promise<void>
}

/** Parts this small let a snapshot of some thousand rows have several. */
export const contractPartBytes = 100_000

const meta = (index: number, term = 1) => ({ index, term, configuration: fromUtf8(`voters of ${index}`) })
const text = (bytes: Bytes | undefined) => (bytes === undefined ? undefined : toUtf8(bytes))
const rowsOf = (state: ReplicaState, from = '', to = '\xff\xff') =>
  [...state.range(from, to)].map(([key, value]) => `${key}=${toUtf8(value)}`)
const plain = (state: ReplicaState) => {
  const { index, term, configuration } = state.checkpointed!
  return { index, term, configuration: toUtf8(configuration) }
}

/** Fetches chunks from `snapshot` as a receiver does, at most `chunksMax` of them. */
export function transfer(snapshot: Snapshot, staged: StagedSnapshot, chunksMax = Infinity): void {
  for (let i = 0; i < chunksMax; i++) {
    const wanted = staged.next()
    if (wanted === null) return
    staged.write(wanted.part, wanted.position, snapshot.read(wanted.part, wanted.position, wanted.length))
  }
}

function fill(state: ReplicaState, from: number, to: number, note: string): void {
  for (let i = from; i < to; i++)
    state.put(`row-${String(i).padStart(6, '0')}`, fromUtf8(`${note} ${i} ${'x'.repeat(60)}`))
}

/** What shard/ports.ts says of StateStore, for every implementation. */
export function stateContract(name: string, make: () => StateHarness): void {
  describe(`${name}, as a state store`, () => {
    let harness: StateHarness
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

    it('shows a put at once, the last one of a key', () => {
      const state = store.open(1)
      assert.equal(state.get('a'), undefined)
      state.put('a', fromUtf8('1'))
      state.put('a', fromUtf8('2'))
      assert.equal(text(state.get('a')), '2')
      state.delete('a')
      assert.equal(state.get('a'), undefined)
      assert.equal(state.checkpointed, null)
    })

    it('keeps what was checkpointed and nothing else over a restart', async () => {
      const state = store.open(1)
      state.put('kept', fromUtf8('1'))
      await state.checkpoint(meta(7, 3))
      state.put('lost', fromUtf8('2'))
      state.delete('kept')
      await reopen()
      const again = store.open(1)
      assert.deepEqual(rowsOf(again), ['kept=1'])
      assert.deepEqual(plain(again), { index: 7, term: 3, configuration: 'voters of 7' })
      assert.equal(again.memtableBytes, 0)
    })

    it('takes any key of 1 to 1,900 bytes and any value', async () => {
      const state = store.open(1)
      const rows = new Map<string, Bytes>([
        ['\x00', fromUtf8('zero')],
        ['\x00\x00', new Uint8Array(0)],
        ['a', new Uint8Array(0)],
        ['a\x00', fromUtf8('a, zero')],
        ['aa', fromUtf8('prefix')],
        ['\x7f', fromUtf8('last of ascii')],
        ['\x80', fromUtf8('first above')],
        ['\xff', fromUtf8('ff')],
        ['\xff\xff', fromUtf8('ffff')],
        ['k'.repeat(1_900), fromUtf8('longest key')],
        ['big', new Uint8Array(1_500_000).fill(7)],
        ['page', new Uint8Array(40_000).fill(9)],
      ])
      for (const [key, value] of rows) state.put(key, value)
      await state.checkpoint(meta(1))
      await reopen()
      const again = store.open(1)
      const sorted = [...rows.keys()].sort((a, b) => (a < b ? -1 : 1))
      assert.deepEqual(
        [...again.range('', '\xff\xff\xff')].map(([key]) => key),
        sorted,
      )
      for (const [key, value] of rows) assert.deepEqual(Buffer.from(again.get(key)!), Buffer.from(value))
      assert.equal(again.rowCount, rows.size)
      assert.throws(() => again.put('', fromUtf8('')), BrokenInvariant)
      assert.throws(() => again.put('k'.repeat(1_901), fromUtf8('')), BrokenInvariant)
      assert.equal(again.get('k'.repeat(1_901)), undefined)
      assert.deepEqual(
        [...again.range('k'.repeat(2_500), 'k'.repeat(3_000))].map(([key]) => key),
        [],
      )
      assert.deepEqual(
        [...again.range('k', 'k'.repeat(3_000))].map(([key]) => key.length),
        [1_900],
      )
    })

    it('ranges over memtable and checkpoint as one, half-open', async () => {
      const state = store.open(1)
      for (const key of ['a', 'b', 'c', 'd', 'e']) state.put(key, fromUtf8(`old ${key}`))
      await state.checkpoint(meta(1))
      state.put('b', fromUtf8('new b'))
      state.put('bb', fromUtf8('new bb'))
      state.delete('c')
      state.delete('never there')
      assert.deepEqual(rowsOf(state), ['a=old a', 'b=new b', 'bb=new bb', 'd=old d', 'e=old e'])
      assert.deepEqual(rowsOf(state, 'b', 'd'), ['b=new b', 'bb=new bb'])
      assert.deepEqual(rowsOf(state, 'd', 'd'), [])
      assert.deepEqual(rowsOf(state, 'e', 'a'), [])
      assert.deepEqual(rowsOf(state, 'd', 'zz'), ['d=old d', 'e=old e'])
    })

    it('ranges lazily over many rows, and leaves nothing behind when left half-way', async () => {
      const state = store.open(1)
      fill(state, 0, 3_000, 'old')
      await state.checkpoint(meta(1))
      fill(state, 1_000, 1_010, 'new')
      for (let round = 0; round < 300; round++) {
        const seen: string[] = []
        for (const [key] of state.range('row-000990', 'row-9')) {
          seen.push(key)
          if (seen.length === 30) break
        }
        assert.equal(seen.at(-1), 'row-001019')
      }
      assert.equal(rowsOf(state).length, 3_000)
    })

    it('counts rows as of the checkpoint, however often they were put', async () => {
      const state = store.open(1)
      fill(state, 0, 100, 'first')
      await state.checkpoint(meta(1))
      assert.equal(state.rowCount, 100)
      fill(state, 50, 150, 'second')
      for (let i = 0; i < 10; i++) state.delete(`row-00000${i}`)
      state.delete('never there')
      await state.checkpoint(meta(2))
      assert.equal(state.rowCount, 140)
      assert.equal(rowsOf(state).length, 140)
    })

    it('reads right while a checkpoint is under way, and gives later puts to the next one', async () => {
      const state = store.open(1)
      state.put('a', fromUtf8('base'))
      state.put('b', fromUtf8('base'))
      state.put('c', fromUtf8('base'))
      await state.checkpoint(meta(1))
      state.put('b', fromUtf8('frozen'))
      state.delete('c')
      const done = state.checkpoint(meta(2))
      state.put('d', fromUtf8('after'))
      state.delete('a')
      assert.deepEqual(rowsOf(state), ['b=frozen', 'd=after'])
      assert.equal(state.get('a'), undefined)
      assert.equal(state.get('c'), undefined)
      assert.equal(text(state.get('b')), 'frozen')
      await done
      assert.deepEqual(rowsOf(state), ['b=frozen', 'd=after'])
      await reopen()
      assert.deepEqual(rowsOf(store.open(1)), ['a=base', 'b=frozen'])
    })

    it('checkpoints one at a time and never backwards', async () => {
      const state = store.open(1)
      const done = state.checkpoint(meta(5))
      assert.throws(() => state.checkpoint(meta(6)), BrokenInvariant)
      await done
      assert.throws(() => state.checkpoint(meta(4)), BrokenInvariant)
      await state.checkpoint(meta(5, 2))
      assert.deepEqual(plain(state), { index: 5, term: 2, configuration: 'voters of 5' })
    })

    it('keeps replicas apart, and destroys one without the others', async () => {
      for (const replica of [3, 1, 2 ** 40]) {
        const state = store.open(replica)
        state.put('who', fromUtf8(String(replica)))
        await state.checkpoint(meta(1))
      }
      assert.deepEqual(store.replicas(), [1, 3, 2 ** 40])
      await store.destroy(3)
      assert.deepEqual(store.replicas(), [1, 2 ** 40])
      await reopen()
      assert.deepEqual(store.replicas(), [1, 2 ** 40])
      assert.equal(text(store.open(1).get('who')), '1')
      assert.equal(text(store.open(2 ** 40).get('who')), String(2 ** 40))
      const fresh = store.open(3)
      assert.equal(fresh.checkpointed, null)
      assert.deepEqual(rowsOf(fresh), [])
    })

    it('checkpoints many replicas at the same time', async () => {
      const states = Array.from({ length: 20 }, (_, i) => store.open(i + 1))
      await Promise.all(
        states.map(async (state, i) => {
          fill(state, 0, 20, `of ${i}`)
          await state.checkpoint(meta(1))
          fill(state, 10, 30, `again of ${i}`)
          await state.checkpoint(meta(2))
        }),
      )
      await reopen()
      for (let i = 0; i < 20; i++) {
        assert.equal(store.open(i + 1).rowCount, 30)
        assert.match(text(store.open(i + 1).get('row-000015'))!, new RegExp(`^again of ${i} 15 `))
      }
    })

    it('copies the last checkpoint into parts, whatever is put meanwhile', async () => {
      const state = store.open(1)
      fill(state, 0, 4_000, 'old')
      await state.checkpoint(meta(9, 2))
      const expected = rowsOf(state)
      fill(state, 0, 10, 'not in the copy')
      const copying = state.takeSnapshot()
      fill(state, 10, 20, 'nor this')
      const snapshot = await copying
      assert.match(snapshot.manifest.id, /^[0-9a-f]{32}$/)
      assert.deepEqual([snapshot.manifest.index, snapshot.manifest.term], [9, 2])
      assert.equal(toUtf8(snapshot.manifest.configuration), 'voters of 9')
      assert.ok(snapshot.manifest.parts.length > 2)
      const target = store.open(2)
      const staged = target.stage(snapshot.manifest)
      transfer(snapshot, staged)
      await staged.verify()
      await staged.install()
      assert.deepEqual(rowsOf(target), expected)
      assert.equal(target.rowCount, 4_000)
      snapshot.release()
    })

    it('copies an empty checkpoint', async () => {
      const state = store.open(1)
      await state.checkpoint(meta(1))
      const snapshot = await state.takeSnapshot()
      const target = store.open(2)
      const staged = target.stage(snapshot.manifest)
      transfer(snapshot, staged)
      await staged.verify()
      await staged.install()
      assert.deepEqual(rowsOf(target), [])
      assert.equal(target.checkpointed?.index, 1)
    })

    it('installs over what was there: rows, memtable and checkpoint are the snapshot’s', async () => {
      const source = store.open(1)
      fill(source, 0, 200, 'source')
      await source.checkpoint(meta(50, 4))
      const snapshot = await source.takeSnapshot()
      const target = store.open(2)
      fill(target, 100, 300, 'target')
      await target.checkpoint(meta(20, 3))
      target.put('in the memtable', fromUtf8('gone'))
      const staged = target.stage(snapshot.manifest)
      transfer(snapshot, staged)
      await staged.verify()
      assert.equal(rowsOf(target).length, 201)
      await staged.install()
      assert.deepEqual(rowsOf(target), rowsOf(source))
      assert.deepEqual(plain(target), { index: 50, term: 4, configuration: 'voters of 50' })
      assert.equal(target.memtableBytes, 0)
      target.put('next', fromUtf8('put'))
      await target.checkpoint(meta(51, 4))
      await reopen()
      assert.equal(store.open(2).rowCount, 201)
      assert.equal(text(store.open(2).get('next')), 'put')
      assert.match(text(store.open(2).get('row-000150'))!, /^source 150 /)
    })

    it('resumes the same snapshot where it stopped, and begins another from its start', async () => {
      const source = store.open(1)
      fill(source, 0, 4_000, 'source')
      await source.checkpoint(meta(5))
      const snapshot = await source.takeSnapshot()
      const first = store.open(2).stage(snapshot.manifest)
      transfer(snapshot, first, 2)
      const bytes = first.bytesStaged
      assert.ok(bytes > 0)
      const second = store.open(2).stage(snapshot.manifest)
      assert.equal(second.bytesStaged, bytes)
      transfer(snapshot, second)
      await second.verify()
      const other = await source.takeSnapshot()
      assert.notEqual(other.manifest.id, snapshot.manifest.id)
      const third = store.open(2).stage(other.manifest)
      assert.equal(third.bytesStaged, 0)
      transfer(other, third)
      await third.verify()
      await third.install()
      assert.deepEqual(rowsOf(store.open(2)), rowsOf(source))
    })

    it('refuses parts that are not what the manifest says, and can fetch them again', async () => {
      const source = store.open(1)
      fill(source, 0, 3_000, 'source')
      await source.checkpoint(meta(5))
      const snapshot = await source.takeSnapshot()
      const target = store.open(2)
      const staged = target.stage(snapshot.manifest)
      let flipped = false
      for (let wanted = staged.next(); wanted !== null; wanted = staged.next()) {
        const bytes = snapshot.read(wanted.part, wanted.position, wanted.length).slice()
        if (!flipped) bytes[Math.floor(bytes.byteLength / 2)]! ^= 4
        flipped = true
        staged.write(wanted.part, wanted.position, bytes)
      }
      await assert.rejects(staged.verify(), error => isError(error, 'CORRUPT'))
      assert.equal(staged.bytesStaged, 0)
      assert.equal(target.checkpointed, null)
      transfer(snapshot, staged)
      await staged.verify()
      await staged.install()
      assert.deepEqual(rowsOf(target), rowsOf(source))
    })

    it('refuses a chunk that is not the next one', async () => {
      const source = store.open(1)
      fill(source, 0, 100, 'source')
      await source.checkpoint(meta(5))
      const snapshot = await source.takeSnapshot()
      const staged = store.open(2).stage(snapshot.manifest)
      assert.throws(() => staged.write('rows.0', 5, new Uint8Array(3)), BrokenInvariant)
      assert.throws(() => staged.write('rows.9', 0, new Uint8Array(3)), BrokenInvariant)
      await assert.rejects(staged.install(), BrokenInvariant)
      staged.discard()
    })
  })
}
