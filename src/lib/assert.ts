/**
 * Invariants. A broken one means that the program is wrong, not its input: going on could lose or invent data, so the
 * process dies with the message. Expected trouble (bad input, a full disk) is a RoundhouseError instead.
 */
export class BrokenInvariant extends Error {
  override readonly name = 'BrokenInvariant'
}

/** Throws BrokenInvariant unless `condition` holds. Nobody catches it but the process's last handler. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new BrokenInvariant(message)
}

/** The default of a switch over a union: the compiler proves that it can't be reached, `assert` catches a liar. */
export function unreachable(value: never): never {
  throw new BrokenInvariant(`unreachable: ${JSON.stringify(value)}`)
}
