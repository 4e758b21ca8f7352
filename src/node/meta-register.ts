import type { Member } from '../shard/configuration.ts'

/**
 * What the meta shard holds: who the members are, the settings of the cluster, what each shard's replicas were when its
 * last operation closed, and the operations under way. It is replicated like any shard, as rows of its keyspace; every
 * node follows it as a learner, so each has the register at hand and needs no protocol of its own to read it.
 */
export const metaGroup = 4096

export interface ClusterSettings {
  readonly shardCount: number
  readonly replicationFactor: number
  readonly vNodeCount: number
}

const settingNames: Readonly<Record<keyof ClusterSettings, string>> = {
  shardCount: 'shard_count',
  replicationFactor: 'replication_factor',
  vNodeCount: 'v_node_count',
}

/** Names every setting that a person gave a node and that its cluster does not have; null when there is none. */
export function differencesOf(expected: Partial<ClusterSettings>, actual: ClusterSettings): string | null {
  const found: string[] = []
  for (const [name, text] of Object.entries(settingNames) as [keyof ClusterSettings, string][]) {
    const value = expected[name]
    if (value === undefined || value === actual[name]) continue
    found.push(`${text} is ${value} here and ${actual[name]} in the cluster`)
  }
  return found.length === 0 ? null : found.join('; ')
}

/** What another node says that it was given: numbers under known names, whatever else there is. */
export function expectedOf(value: unknown): Partial<ClusterSettings> {
  if (typeof value !== 'object' || value === null) return {}
  const numbers = Object.entries(value).filter(
    ([name, each]) => Object.hasOwn(settingNames, name) && typeof each === 'number',
  )
  return Object.fromEntries(numbers)
}

/** joining: registered, its meta replica is on its way · member · leaving: being drained · left: gone for good. */
export type RegisteredState = 'joining' | 'member' | 'leaving' | 'left'

/** Stands for the store of a node whose directory is lost (`replace`). No store is named so: theirs are random. */
export const storeExpected = 'expected'

export interface RegisteredNode {
  readonly nodeId: string
  /** The data directory that the node was registered with; `storeExpected`: the next one that comes is taken. */
  readonly storeId: string
  /** The directory that was given up for lost, if one was: it is refused should it turn up after all. */
  readonly lostStoreId?: string
  readonly peerAddress: string
  readonly clientAddress: string
  readonly zone: string
  readonly state: RegisteredState
  /** Its replica of the meta shard. */
  readonly metaReplica: number
  /** Feature level that its release supports; absent: 1. */
  readonly level?: number
}

/**
 * A wish for one group: whatever its configuration is now, these are to be its voters and learners. The group's leader
 * works towards it step by step; a new leader goes on from the configuration it finds.
 */
export interface Operation {
  /** Rises over all groups: a configuration never takes a step of an older operation than its last. */
  readonly id: number
  readonly voters: readonly Member[]
  readonly learners: readonly Member[]
}

export interface ShardRecord {
  /** The group's first voter. */
  readonly birth: Member
  /** As reported when the last operation closed; the group itself knows better. */
  readonly voters: readonly Member[]
  readonly learners: readonly Member[]
  /** Index of that configuration. */
  readonly index: number
  readonly operation: Operation | null
  /** Whom operations that were replaced meant to bring in: they may have a part in the configuration until the next close. */
  readonly former: readonly Member[]
  /** Members that can't go on (damaged, or their node's disk is lost): each is replaced under a new id, and its id never counts again. */
  readonly unfit: readonly number[]
  /** When an operator last forced its configuration, if ever (shard/forced.ts). */
  readonly forcedAt?: number
}

export interface Register {
  readonly clusterId: string
  readonly settings: ClusterSettings
  /** Rises with every change. */
  readonly epoch: number
  readonly isPaused: boolean
  /** Feature level of the cluster (feature-level.ts): never falls. */
  readonly level: number
  readonly nextReplica: number
  readonly nextOperation: number
  readonly nodes: readonly RegisteredNode[]
  /** By group: the shards, and metaGroup. */
  readonly shards: ReadonlyMap<number, ShardRecord>
  /** Operations that brought a replica in, closed since the cluster was made. */
  readonly movesDone: number
  /** By name. */
  readonly streams: ReadonlyMap<string, StreamRecord>
  /** Ids from here on were never given out: what this register says of them is nothing. */
  readonly nextStream: number
}

/** A stream of the catalogue (meta-streams.ts). */
export interface StreamRecord {
  readonly name: string
  /** Never used again, also when the name is. */
  readonly id: number
  readonly partitions: number
  /** null: by age nothing goes. */
  readonly retentionMs: number | null
  /** Of one partition; null: by size nothing goes. */
  readonly retentionBytes: number | null
  /** By the log clock of the meta shard. */
  readonly createdMs: number
  /** Of the request that made it. */
  readonly nonce: number
}

/** Whether the replica is out of its group for good, so that its data may go. */
export function isOut(register: Register, group: number, replica: number): boolean {
  // An id that this register has not given out yet belongs to an operation that it has not heard of: it says nothing.
  if (replica >= register.nextReplica) return false
  const record = register.shards.get(group)
  if (record === undefined) return false
  const wished = record.operation === null ? [] : [...record.operation.voters, ...record.operation.learners]
  const named = [...record.voters, ...record.learners, ...record.former, ...wished]
  return !named.some(member => member.replica === replica)
}

/** The group whose record names a replica, for one that has lost its own record of that; null: none that is known. */
export function groupNaming(register: Register, replica: number): number | null {
  if (replica >= register.nextReplica) return null
  for (const group of register.shards.keys()) if (!isOut(register, group, replica)) return group
  return null
}

export function membersOf(record: ShardRecord): readonly Member[] {
  return [...record.voters, ...record.learners]
}
