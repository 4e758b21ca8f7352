import { RoundhouseError } from '../errors.ts'
import { type Bytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { ConfState } from '../raft/types.ts'

/**
 * Who a group's replicas are, as of one index of its log. The group's own configuration is the truth of who votes; the
 * meta register holds only the wish. It travels in checkpoints, snapshots and in the context of configuration entries, so
 * that a replica can reach its peers by nothing but its own log.
 */
export interface Configuration {
  readonly group: number
  /** Index of the entry that made it: what an operation expects, and compares at apply. */
  readonly index: number
  /** The highest operation that made a step here: an older one, driven by a leader with old news, changes nothing. */
  readonly operation: number
  readonly members: readonly Member[]
  readonly confState: ConfState
  /** Why this node's replica may never speak again: it may have lost what it promised. Only ever set in its own journal. */
  readonly quarantined?: string
  /**
   * An operator made this replica the only voter (forced.ts), at this time; its log goes on behind `applied`. In the journal
   * it stands above the configuration of any checkpoint that does not have it yet.
   */
  readonly forced?: {
    readonly at: number
    readonly applied: { readonly index: number; readonly term: number }
  }
}

export interface Member {
  /** Replica id: never reused, so a replica that left and came back is another one. */
  readonly replica: number
  readonly node: string
}

/** The context of a configuration entry: applied only when `expectedIndex` is still the configuration's index. */
export interface ChangeContext {
  readonly operation: number
  readonly expectedIndex: number
  /** Nodes of replicas that the change brings in. */
  readonly added: readonly Member[]
}

export const noConfState: ConfState = {
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
}

/** What a replica knows that was created to be a learner and has heard of nobody yet. */
export function blankConfiguration(group: number): Configuration {
  return { group, index: 0, operation: 0, members: [], confState: noConfState }
}

/** After a change: the members that the new ConfState still names, and those it brings in. */
export function nextConfiguration(
  current: Configuration,
  index: number,
  confState: ConfState,
  context: ChangeContext | null,
): Configuration {
  const named = new Set([
    ...confState.voters,
    ...confState.votersOutgoing,
    ...confState.learners,
    ...confState.learnersNext,
  ])
  const known = new Map(
    [...current.members, ...(context?.added ?? [])].map(member => [member.replica, member]),
  )
  const members = [...named].sort((a, b) => a - b).map(replica => known.get(replica) ?? { replica, node: '' })
  const operation = Math.max(current.operation, context?.operation ?? 0)
  const forced = current.forced === undefined ? {} : { forced: current.forced }
  return { group: current.group, index, operation, members, confState, ...forced }
}

/**
 * Every group is born with one voter, at index 1 of term 1, as if a snapshot without rows had been installed: so nobody
 * who joins can start from a log that does not say who the replicas are.
 */
export function birthConfiguration(group: number, first: Member): Configuration {
  const confState = { ...noConfState, voters: [first.replica] }
  return { group, index: birthIndex, operation: 0, members: [first], confState }
}

const birthIndex = 1

/** Where the log of a replica begins that was made with this configuration and has no checkpoint yet. */
export function bornAt({ index }: Configuration): { readonly index: number; readonly term: number } {
  return index === birthIndex ? { index: birthIndex, term: 1 } : { index: 0, term: 0 }
}

interface Checkpointed {
  readonly index: number
  readonly term: number
  readonly configuration: Bytes
}

interface Start {
  readonly configuration: Configuration
  readonly applied: { readonly index: number; readonly term: number }
}

/**
 * What a replica starts from: the configuration that counts, and where its state ends. That is its checkpoint's, unless an
 * operator forced another one since (`noted`: the journal's); null: nobody knows it. Throws CORRUPT.
 */
export function startOf(noted: Configuration, checkpoint: Checkpointed | null): Start
export function startOf(noted: Configuration | null, checkpoint: Checkpointed | null): Start | null
export function startOf(noted: Configuration | null, checkpoint: Checkpointed | null): Start | null {
  const saved = checkpoint === null ? noted : decodeConfiguration(checkpoint.configuration)
  const isForced = noted?.forced !== undefined && noted.forced.at !== saved?.forced?.at
  const configuration = isForced ? noted : saved
  if (configuration === null) return null
  const { index, term } = checkpoint ?? configuration.forced?.applied ?? bornAt(configuration)
  return { configuration, applied: { index, term } }
}

export function isJoint(configuration: Configuration): boolean {
  return configuration.confState.votersOutgoing.length > 0
}

export function nodesOf(configuration: Configuration, replicas: readonly number[]): string[] {
  return replicas.map(replica => configuration.members.find(member => member.replica === replica)?.node ?? '')
}

/** JSON: it is written once a configuration, and an operator may want to read it. */
export function encodeConfiguration(configuration: Configuration): Bytes {
  return fromUtf8(JSON.stringify(configuration))
}

export function decodeConfiguration(bytes: Bytes): Configuration {
  const value: unknown = parse(bytes, 'configuration')
  if (!isConfiguration(value))
    throw new RoundhouseError('CORRUPT', { where: 'configuration', what: toUtf8(bytes) })
  return value
}

export function encodeChange(context: ChangeContext): Bytes {
  return fromUtf8(JSON.stringify(context))
}

/** null for the empty context of the entry by which Raft leaves a joint configuration by itself. */
export function decodeChange(bytes: Bytes): ChangeContext | null {
  if (bytes.byteLength === 0) return null
  const value = parse(bytes, 'configuration change') as ChangeContext | null
  const fits =
    typeof value === 'object' &&
    value !== null &&
    Number.isSafeInteger(value.operation) &&
    Number.isSafeInteger(value.expectedIndex) &&
    isMembers(value.added)
  if (!fits) throw new RoundhouseError('CORRUPT', { where: 'configuration change', what: toUtf8(bytes) })
  return value
}

function parse(bytes: Bytes, where: string): unknown {
  try {
    return JSON.parse(toUtf8(bytes))
  } catch {
    throw new RoundhouseError('CORRUPT', { where, what: 'no JSON' })
  }
}

function isConfiguration(value: unknown): value is Configuration {
  if (typeof value !== 'object' || value === null) return false
  const { group, index, operation, members, confState, forced, quarantined } = value as Configuration
  return (
    (forced === undefined || isForced(forced)) &&
    (quarantined === undefined || typeof quarantined === 'string') &&
    Number.isSafeInteger(group) &&
    Number.isSafeInteger(index) &&
    Number.isSafeInteger(operation) &&
    isMembers(members) &&
    typeof confState === 'object' &&
    confState !== null &&
    [confState.voters, confState.votersOutgoing, confState.learners, confState.learnersNext].every(isIds)
  )
}

function isForced(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const { at, applied } = value as Partial<NonNullable<Configuration['forced']>>
  return (
    Number.isSafeInteger(at) && Number.isSafeInteger(applied?.index) && Number.isSafeInteger(applied?.term)
  )
}

function isMembers(value: unknown): value is Member[] {
  return (
    Array.isArray(value) &&
    value.every(member => Number.isSafeInteger(member?.replica) && typeof member?.node === 'string')
  )
}

function isIds(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(Number.isSafeInteger)
}
