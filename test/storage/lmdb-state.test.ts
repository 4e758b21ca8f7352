import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { FileDisk } from '../../src/log/file-disk.ts'
import { LmdbStateStore } from '../../src/storage/lmdb-state.ts'
import { contractSegmentBytes, recordContract } from './record-contract.ts'
import { contractPartBytes, stateContract, transfer } from './state-contract.ts'
import { followModel, steps } from './state-model.ts'

stateContract('LmdbStateStore', () => {
  const directory = mkdtempSync(join(tmpdir(), 'state-'))
  return {
    open: () => new LmdbStateStore({ directory, replicasMax: 64, snapshotPartBytes: contractPartBytes }),
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})

recordContract('LmdbStateStore', () => {
  const directory = mkdtempSync(join(tmpdir(), 'state-'))
  return {
    disk: new FileDisk(directory),
    open: () => new LmdbStateStore({ directory, replicasMax: 8, streamSegmentBytes: contractSegmentBytes }),
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})

describe('LmdbStateStore, over a long life', () => {
  it('gives the room of destroyed replicas and replaced generations to later ones', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'state-long-'))
    const store = new LmdbStateStore({ directory, replicasMax: 2 })
    const meta = (index: number) => ({ index, term: 1, configuration: fromUtf8('') })
    const source = store.open(1)
    // More than the environment has room for: 2 replicas and some spare databases.
    for (let id = 2; id < 100; id++) {
      source.put('id', fromUtf8(`source ${id}`))
      await source.checkpoint(meta(id))
      const snapshot = await source.takeSnapshot()
      const state = store.open(id)
      state.put('id', fromUtf8(String(id)))
      await state.checkpoint(meta(1))
      assert.equal(toUtf8(state.get('id')!), String(id))
      const staged = state.stage(snapshot.manifest)
      transfer(snapshot, staged)
      await staged.verify()
      await staged.install()
      snapshot.release()
      assert.equal(toUtf8(state.get('id')!), `source ${id}`)
      assert.equal(toUtf8(source.get('id')!), `source ${id}`)
      await store.destroy(id)
    }
    const bytes = statSync(join(directory, 'state', 'data.mdb')).size
    assert.ok(bytes < 1_000_000, `${bytes} bytes for one row`)
    await store.close()
    for (const left of ['snapshots', 'staging']) assert.deepEqual(readdirSync(join(directory, left)), [])
    rmSync(directory, { recursive: true })
  })
})

describe('LmdbStateStore, closed and opened again', () => {
  it('is at each moment what a model says', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async run => {
        const directory = mkdtempSync(join(tmpdir(), 'state-model-'))
        try {
          await followModel(
            {
              open: () => new LmdbStateStore({ directory, replicasMax: 64, snapshotPartBytes: 200 }),
              settle: work => work,
              crash: null,
            },
            run,
          )
        } finally {
          rmSync(directory, { recursive: true })
        }
      }),
      { numRuns: 4, endOnFailure: true },
    )
  })
})
