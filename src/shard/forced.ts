/**
 * What an operator may force when a group's majority is lost for good: one surviving replica becomes its only voter, with
 * all that is in its log. That breaks Raft's promise knowingly: what the lost majority had acknowledged and this replica
 * never got is lost, and what it had and nobody acknowledged counts. Pure; the caller writes the result to the journal.
 */
import { RoundhouseError } from '../errors.ts'
import type { Random } from '../lib/prng.ts'
import { productionConfig } from '../raft/raft.ts'
import { RawNode } from '../raft/raw-node.ts'
import type { HardState } from '../raft/types.ts'
import { type Configuration, decodeChange, isJoint, nextConfiguration, noConfState } from './configuration.ts'
import type { Journal } from './ports.ts'
import { RaftStorage } from './raft-storage.ts'

export interface Survivor {
  readonly replica: number
  readonly configuration: Configuration
  /** Where its state ends: its checkpoint, or its birth. */
  readonly applied: { readonly index: number; readonly term: number }
  readonly lastIndex: number
}

/** `configuration` with the changes of it that follow in the log, committed or not: nobody is left to tell. */
export function configurationAtEnd(
  journal: Journal,
  survivor: Survivor & { readonly hardState: HardState },
  random: Random,
): Configuration {
  const { replica: id, hardState, lastIndex } = survivor
  const applied = survivor.applied.index
  let { configuration } = survivor
  const storage = new RaftStorage(
    journal,
    id,
    { hardState, confState: configuration.confState },
    () => null,
    why => {
      throw new RoundhouseError('CORRUPT', { where: `the journal of replica ${id}`, what: why })
    },
  )
  const raft = new RawNode({ ...productionConfig, id, applied, random }, storage)
  for (let index = applied + 1; index <= lastIndex; index++) {
    const entry = storage.entries(index, index + 1, Number.MAX_SAFE_INTEGER)?.[0]
    if (entry?.kind !== 'confChange') continue
    const change = raft.decodeConfChange(entry)
    const context = decodeChange(change.context)
    const isStale = context !== null && context.expectedIndex !== configuration.index
    if (isStale || (context === null && !isJoint(configuration))) continue
    configuration = nextConfiguration(configuration, index, raft.applyConfChange(change), context)
  }
  return configuration
}

export type Verdict =
  /** Enough voters are left: the group elects a leader by itself. */
  | { readonly kind: 'healthy' }
  /** Voters are left on other nodes too: only one of the replicas may be forced, and here is not said which. */
  | { readonly kind: 'others'; readonly nodes: readonly string[] }
  | { readonly kind: 'forced'; readonly configuration: Configuration; readonly lost: readonly string[] }

/**
 * @param lost nodes that will never come back
 * @param wins this replica is taken although voters are left on other nodes
 * @param at a number above that of every earlier force in this directory (the time, ms)
 */
export function forceConfiguration(
  survivor: Survivor,
  lost: ReadonlySet<string>,
  wins: boolean,
  at: number,
): Verdict {
  const { replica, configuration, applied, lastIndex } = survivor
  const { confState, members } = configuration
  const nodeOf = (id: number) => members.find(member => member.replica === id)?.node ?? ''
  const isLeft = (id: number) => id === replica || !lost.has(nodeOf(id))
  const hasQuorum = (voters: readonly number[]) => voters.filter(isLeft).length * 2 > voters.length
  // In a joint configuration both halves must agree (Raft §6).
  const halves = [confState.voters, confState.votersOutgoing].filter(voters => voters.length > 0)
  if (halves.length > 0 && halves.every(hasQuorum)) return { kind: 'healthy' }
  const voters = [...new Set([...confState.voters, ...confState.votersOutgoing])]
  const others = voters.filter(id => id !== replica && isLeft(id)).map(nodeOf)
  if (others.length > 0 && !wins) return { kind: 'others', nodes: others }
  return {
    kind: 'forced',
    lost: voters
      .filter(id => !isLeft(id))
      .map(nodeOf)
      .sort(),
    configuration: {
      group: configuration.group,
      // Past everything in its log: no configuration entry there was made for this configuration, so none is applied.
      index: lastIndex + 1,
      operation: configuration.operation,
      members: [{ replica, node: nodeOf(replica) }],
      confState: { ...noConfState, voters: [replica] },
      forced: { at, applied: { index: applied.index, term: applied.term } },
    },
  }
}
