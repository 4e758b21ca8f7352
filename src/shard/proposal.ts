import type { Command, Reply } from '../commands/command.ts'
import type { Operation } from '../commands/envelope.ts'
import type { SessionUse } from '../keyspace/sessions.ts'
import type { Bytes } from '../lib/bytes.ts'

/** What callers bring to a replica. Each is settled exactly once; `settle` must not throw. */

export interface Write {
  readonly operations: readonly Operation[]
  readonly session: SessionUse | null
  /** On the node's monotonic clock. */
  readonly deadline: number
  settle(result: Settled): void
}

export interface Read {
  readonly command: Command
  readonly args: readonly Bytes[]
  readonly deadline: number
  settle(result: Settled): void
}

export type Settled =
  /** One reply an operation. `index`: the entry of the write, or the applied index that the read saw. */
  | { readonly ok: true; readonly replies: readonly Reply[]; readonly index: number }
  /** `isDefinite`: it certainly was not and will not be applied, so it may be tried elsewhere. */
  | { readonly ok: false; readonly error: Error; readonly isDefinite: boolean }
