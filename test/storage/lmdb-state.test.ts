import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LmdbStateStore } from '../../src/storage/lmdb-state.ts'
import { contractPartBytes, stateContract } from './state-contract.ts'

stateContract('LmdbStateStore', () => {
  const directory = mkdtempSync(join(tmpdir(), 'state-'))
  return {
    open: () => new LmdbStateStore({ directory, replicasMax: 64, snapshotPartBytes: contractPartBytes }),
    dispose: async () => rmSync(directory, { recursive: true }),
  }
})
