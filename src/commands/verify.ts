import type { Command } from './command.ts'

/** Changes nothing: all replicas of a shard note a digest of their rows as they are at this entry, to be compared. */
export const verify: Command = {
  name: 'VERIFY',
  summary: 'Marks an entry at which replicas compare their rows',
  usage: '',
  arity: { min: 0, max: 0 },
  keys: 'none',
  access: 'write',
  isInternal: true,
  run: () => ({ kind: 'success', success: true }),
}
