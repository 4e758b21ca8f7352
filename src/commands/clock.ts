import type { Command } from './command.ts'

/** Carries a stamp and does nothing: how the log clock catches up with the leader's before a read that needs it. */
export const clock: Command = {
  name: 'CLOCK',
  summary: 'Moves the log clock',
  usage: '',
  arity: { min: 0, max: 0 },
  keys: 'none',
  access: 'write',
  isInternal: true,
  run: () => ({ kind: 'success', success: true }),
}
