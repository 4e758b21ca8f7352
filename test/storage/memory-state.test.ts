import { Prng } from '../../src/lib/prng.ts'
import { MemoryStateStore, StatePlatter } from '../../src/storage/memory-state.ts'
import { contractPartBytes, stateContract } from './state-contract.ts'

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
