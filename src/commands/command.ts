import type { Keyspace } from '../keyspace/keyspace.ts'
import type { Bytes } from '../lib/bytes.ts'
import type { Random } from '../lib/prng.ts'

/**
 * A command is data plus functions. Help, CLI and every wire know a command from this description alone; a new command
 * is one new file and a line in `table.ts`.
 */
export interface Command {
  /** Upper case. */
  readonly name: string
  /** One line for help. */
  readonly summary: string
  /** Arguments as people write them: `key value [EX seconds | …] [NX | XX]`. */
  readonly usage: string
  /** Number of arguments, the key among them. */
  readonly arity: { readonly min: number; readonly max: number }
  /**
   * Which arguments are keys, and so where the command runs.
   * none: anywhere, no state · first: args[0] · pair: args[0] and args[1], in one slot · all: every argument ·
   * alternate: args[0], args[2], … · every-shard: runs once on each shard · shard-by-shard: where `plan` says
   */
  readonly keys: 'none' | 'first' | 'pair' | 'all' | 'alternate' | 'every-shard' | 'shard-by-shard'
  readonly access: 'read' | 'write'
  /** Feature level of the first release that has it (release.ts); absent: 1. */
  readonly since?: number
  /** True for writes that only take rows away: they go on while disks are nearly full. */
  readonly frees?: boolean
  /** True where an argument holds many values: each is within the limits, and the argument as long as a call may be. */
  readonly isPacked?: boolean
  /** True for what only the cluster itself proposes: clients can't call it. */
  readonly isInternal?: boolean
  /** False: never one of several operations, nor a read inside an entry: what it answers is of one node or one moment. */
  readonly mayBeAtomic?: false
  /** Of a call that stands for others: the operations of its entry. `run` is not called. */
  readonly operations?: (args: readonly Bytes[]) => readonly { command: string; args: readonly Bytes[] }[]
  /** Joins the replies of the shards of a command that was scattered, in the order of the call's keys. */
  readonly gather?: (parts: readonly GatherPart[], args: readonly Bytes[]) => Reply
  /** shard-by-shard: whom to ask first. Throws RoundhouseError. */
  readonly plan?: (args: readonly Bytes[], shardCount: number, random: Random) => Plan
  /**
   * Checks the arguments' form as far as it can be seen without state or clock. Runs at the door, on any node, so that
   * a malformed call costs no hop. Throws RoundhouseError.
   */
  readonly check?: (args: readonly Bytes[]) => void
  /**
   * Makes the arguments absolute; runs on the leader only, once, before the entry is made: relative times become
   * absolute, randomness is drawn. `run` sees what this answers. Throws RoundhouseError for what can be refused without
   * the state.
   */
  readonly prepare?: (args: readonly Bytes[], context: PrepareContext) => readonly Bytes[]
  /**
   * Write: changes the keyspace, deterministically: the same rows, arguments, stamp and index give the same rows and
   * reply on every replica. Read: changes nothing. Throws RoundhouseError to refuse: nothing of the entry is applied.
   */
  readonly run: (keyspace: Keyspace, args: readonly Bytes[]) => Reply
}

export interface PrepareContext {
  /** The stamp that the entry will carry, ms since 1970: the leader's wall clock, or the log clock where that is ahead. */
  readonly wallMs: number
  readonly random: Random
}

/** One shard's part of a scattered call. `positions` are the places of its keys among the call's keys. */
export interface GatherPart {
  readonly positions: readonly number[]
  readonly reply: Reply
}

/** Of a read that finds its way from shard to shard: the next to ask, side by side, and what to make of their replies. */
export interface Plan {
  readonly ask: readonly { readonly shard: number; readonly args: readonly Bytes[] }[]
  /** Replies in the order of `ask`. */
  readonly next: (replies: readonly Reply[]) => Plan | Reply
}

export type Reply =
  | { readonly kind: 'nil' }
  | { readonly kind: 'value'; readonly value: Bytes }
  /** `integer` is Redis's integer reply where the seeds' form is a bool (HSET). */
  | { readonly kind: 'success'; readonly success: boolean; readonly integer?: number }
  /** 64 bits, signed, exact: a number where that is safe, a bigint beyond (see integer.ts). */
  | { readonly kind: 'count'; readonly count: number | bigint }
  | { readonly kind: 'list'; readonly items: readonly ListItem[]; readonly cursor?: Bytes }

/** `key` is absent in lists of values (an empty field is a field); `value` is absent for a missing one. */
export interface ListItem {
  readonly key?: Bytes
  readonly value?: Bytes
}
