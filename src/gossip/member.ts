/**
 * What gossip knows of one member, and how two reports of it are merged.
 *
 * A record is written by its owner, who raises `heartbeat` once an interval and `incarnation` when it starts or is
 * accused falsely; others may only copy it and worsen its `state` to suspect or dead (SWIM §4.2). The newer of two
 * reports wins: higher incarnation, then higher heartbeat, then the worse state. So an accusation says "silent since this
 * heartbeat", and a later heartbeat answers it even before the accused does: without that a node that comes back from
 * isolation would have everybody believed dead until each had refuted. `left` outlasts everything: the store is gone.
 *
 * Merging is the maximum of a total order, therefore commutative, associative and idempotent: reports may arrive late,
 * twice and by any way.
 */

/** From best to worst; at equal incarnation and heartbeat the later one here wins. */
export const memberStates = ['joining', 'alive', 'leaving', 'suspect', 'dead', 'left'] as const
export type MemberState = (typeof memberStates)[number]

export interface Load {
  /** Replicas held and, of these, led. */
  readonly replicas: number
  readonly leaders: number
  readonly storedBytes: number
  readonly freeBytes: number
  readonly operationsPerSecond: number
}

/** How a node's disk is: what it says when it is not well. */
export const diskStates = ['ok', 'nearly_full', 'full', 'hung'] as const
export type DiskState = (typeof diskStates)[number]

export interface Leadership {
  readonly shard: number
  readonly term: number
}

/** What a node says of itself. All but ids may change while it runs. */
export interface MemberDetails {
  /** host:port for peers, and for clients from outside. */
  readonly peerAddress: string
  readonly clientAddress: string
  readonly zone: string
  readonly load: Load
  /** Shards it leads. Hints: the shard itself knows better. */
  readonly leads: readonly Leadership[]
  /** Absent: ok. */
  readonly disk?: DiskState
  /** It is about to stop: nobody should let it lead. Absent: no. */
  readonly isStopping?: boolean
}

export interface MemberRecord extends MemberDetails {
  readonly nodeId: string
  readonly storeId: string
  readonly incarnation: number
  /** Raised by the owner once an interval, going on through incarnations of one process. */
  readonly heartbeat: number
  readonly state: MemberState
}

export const noLoad: Load = { replicas: 0, leaders: 0, storedBytes: 0, freeBytes: 0, operationsPerSecond: 0 }

/** Limits of a record; what exceeds them is ignored. */
export const textCharsMax = 300
export const leadsMax = 4096
/** Leaves room to refute for ever. */
export const incarnationMax = 2 ** 52

/** The newer of two reports of one node and store. */
export function mergeRecords(a: MemberRecord, b: MemberRecord): MemberRecord {
  return compareRecords(a, b) >= 0 ? a : b
}

/** >0 where `a` is newer than `b`; 0 only for equal ones. */
export function compareRecords(a: MemberRecord, b: MemberRecord): number {
  return (
    Number(a.state === 'left') - Number(b.state === 'left') ||
    compareVersions(a, b) ||
    memberStates.indexOf(a.state) - memberStates.indexOf(b.state) ||
    compareDetails(a, b)
  )
}

/** >0 where `a` is of a later moment of its owner's life than `b`. */
export function compareVersions(a: MemberRecord, b: MemberRecord): number {
  return a.incarnation - b.incarnation || a.heartbeat - b.heartbeat
}

/** Whether others say that the node is not there; it may refute that. */
export function isAccused(state: MemberState): boolean {
  return state === 'suspect' || state === 'dead'
}

export function isWellFormed(record: MemberRecord): boolean {
  const { load, leads } = record
  return (
    [record.nodeId, record.storeId].every(text => text.length > 0) &&
    [record.nodeId, record.storeId, record.peerAddress, record.clientAddress, record.zone].every(
      text => text.length <= textCharsMax,
    ) &&
    memberStates.includes(record.state) &&
    isCount(record.incarnation) &&
    record.incarnation <= incarnationMax &&
    isCount(record.heartbeat) &&
    [load.replicas, load.leaders, load.storedBytes, load.freeBytes, load.operationsPerSecond].every(
      each => Number.isFinite(each) && each >= 0,
    ) &&
    (record.disk === undefined || diskStates.includes(record.disk)) &&
    leads.length <= leadsMax &&
    leads.every(({ shard, term }) => isCount(shard) && isCount(term))
  )
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

/**
 * An owner that changes its details between two heartbeats makes two reports of one version. Any order would do that is
 * the same everywhere; the next heartbeat settles it.
 */
function compareDetails(a: MemberRecord, b: MemberRecord): number {
  if (a === b) return 0
  return (
    compareTexts(a.peerAddress, b.peerAddress) ||
    compareTexts(a.clientAddress, b.clientAddress) ||
    compareTexts(a.zone, b.zone) ||
    a.load.replicas - b.load.replicas ||
    a.load.leaders - b.load.leaders ||
    a.load.storedBytes - b.load.storedBytes ||
    a.load.freeBytes - b.load.freeBytes ||
    a.load.operationsPerSecond - b.load.operationsPerSecond ||
    compareLeads(a.leads, b.leads) ||
    diskStates.indexOf(a.disk ?? 'ok') - diskStates.indexOf(b.disk ?? 'ok') ||
    Number(a.isStopping ?? false) - Number(b.isStopping ?? false)
  )
}

export function compareLeads(a: readonly Leadership[], b: readonly Leadership[]): number {
  if (a === b) return 0
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const order = a[i]!.shard - b[i]!.shard || a[i]!.term - b[i]!.term
    if (order !== 0) return order
  }
  return a.length - b.length
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
