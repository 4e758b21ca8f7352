import type { Command } from '../commands/command.ts'
import type { CommandTable } from '../commands/machine.ts'
import { RoundhouseError } from '../errors.ts'
import { type Bytes, equalBytes, fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Member } from '../shard/configuration.ts'
import { commonLevel, levelOfNode } from './feature-level.ts'
import {
  type ClusterSettings,
  differencesOf,
  metaGroup,
  type Operation,
  type Register,
  type RegisteredNode,
  type RegisteredState,
  type ShardRecord,
  type StreamRecord,
  storeExpected,
} from './meta-register.ts'
import {
  type ClusterRow,
  clusterKey,
  define,
  fits,
  flag,
  id,
  json,
  list,
  load,
  loadCluster,
  loadNodes,
  nodesKey,
  optional,
  type Shape,
  shardKey,
  store,
  storeCluster,
  streamsKey,
  text,
} from './meta-rows.ts'
import { nextStreamOf, streamCommands } from './meta-streams.ts'

/**
 * The commands of the meta shard: its state machine is the same as any shard's, with this table instead of the clients'.
 * Each takes one JSON argument and answers JSON. They are decided where they are applied, on every replica alike, so two
 * that were proposed at once can't both get the same replica id or both open an operation on one shard.
 */

export interface FoundRequest {
  readonly clusterId: string
  readonly settings: ClusterSettings
  readonly node: Omit<RegisteredNode, 'state'>
  /** First replicas: shard i is replica firstReplica + i. */
  readonly firstReplica: number
}

export interface JoinRequest {
  readonly nodeId: string
  readonly storeId: string
  readonly peerAddress: string
  readonly clientAddress: string
  readonly zone: string
  /** Feature level that its release supports; absent: 1. */
  readonly level?: number
  /** Settings that the node was given by a person: they must be the cluster's. */
  readonly expected?: Partial<ClusterSettings>
}

export interface OpenRequest {
  readonly group: number
  /** The operation that this one replaces, 0 for none: another one meanwhile and nothing is opened. */
  readonly replaces: number
  /** A member without replica id gets a new one. */
  readonly voters: readonly { readonly node: string; readonly replica: number | null }[]
  readonly learners: readonly { readonly node: string; readonly replica: number | null }[]
}

export interface UnfitRequest {
  readonly group: number
  readonly replica: number
}

export interface UnfitAnswer {
  /** The replica of the meta shard that the node has now; null when the group knows nothing of the unfit one. */
  readonly metaReplica: number | null
}

export interface ReplaceRequest {
  readonly nodeId: string
}

export interface ReportRequest extends Omit<CloseRequest, 'operation'> {
  readonly forcedAt: number
}

export interface CloseRequest {
  readonly group: number
  readonly operation: number
  readonly voters: readonly Member[]
  readonly learners: readonly Member[]
  readonly index: number
}

const members = list(fits<Member>({ node: text, replica: id }))
const wishes = list(
  fits<OpenRequest['voters'][number]>({ node: text, replica: value => value === null || id(value) }),
)
const settings = fits<ClusterSettings>({ shardCount: id, replicationFactor: id, vNodeCount: id })
const joiner: Shape<JoinRequest> = {
  nodeId: text,
  storeId: text,
  peerAddress: text,
  clientAddress: text,
  zone: text,
  level: optional(id),
  expected: optional(
    fits<Partial<ClusterSettings>>({
      shardCount: optional(id),
      replicationFactor: optional(id),
      vNodeCount: optional(id),
    }),
  ),
}
const foundShape: Shape<FoundRequest> = {
  clusterId: text,
  settings,
  firstReplica: id,
  node: fits<FoundRequest['node']>({ ...joiner, metaReplica: id, lostStoreId: optional(text) }),
}

const found = define<FoundRequest>('META.FOUND', foundShape, (keyspace, request) => {
  if (load(keyspace, clusterKey) !== undefined) return json({})
  const { clusterId, settings, node, firstReplica } = request
  const { shardCount } = settings
  for (let shard = 0; shard < shardCount; shard++) {
    const birth = { replica: firstReplica + shard, node: node.nodeId }
    store(keyspace, shardKey(shard), {
      birth,
      voters: [birth],
      learners: [],
      index: 1,
      operation: null,
      former: [],
      unfit: [],
    } satisfies ShardRecord)
  }
  const birth = { replica: node.metaReplica, node: node.nodeId }
  store(keyspace, shardKey(metaGroup), {
    birth,
    voters: [birth],
    learners: [],
    index: 1,
    operation: null,
    former: [],
    unfit: [],
  } satisfies ShardRecord)
  store(keyspace, nodesKey, [{ ...node, state: 'member' } satisfies RegisteredNode])
  const nextReplica = Math.max(node.metaReplica, firstReplica + shardCount - 1) + 1
  storeCluster(keyspace, {
    clusterId,
    settings,
    epoch: 0,
    isPaused: false,
    level: levelOfNode(node),
    nextReplica,
    nextOperation: 1,
    movesDone: 0,
  })
  return json({})
})

/** Registers a node, or takes its new addresses. The same store may ask again and gets the same replica id. */
const join = define<JoinRequest>('META.JOIN', joiner, (keyspace, { expected, ...request }) => {
  const cluster = loadCluster(keyspace)
  const differences = differencesOf(expected ?? {}, cluster.settings)
  if (differences !== null) throw new RoundhouseError('SETTINGS_DIFFER', { differences })
  const level = cluster.level ?? 1
  const supported = levelOfNode(request)
  // It could not read what the others write.
  if (supported < level)
    throw new RoundhouseError('RELEASE_TOO_OLD', { node: request.nodeId, supported, level })
  const nodes = loadNodes(keyspace)
  const known = nodes.find(node => node.nodeId === request.nodeId)
  if (known !== undefined && known.state !== 'left') {
    const { nodeId: node, storeId: registered } = known
    const isExpected = registered === storeExpected && request.storeId !== known.lostStoreId
    if (registered !== request.storeId && !isExpected)
      throw new RoundhouseError('STORE_MISMATCH', { node, registered, offered: request.storeId })
    const updated = { ...known, ...request }
    if (JSON.stringify(updated) === JSON.stringify(known)) return json(updated)
    store(
      keyspace,
      nodesKey,
      nodes.map(each => (each === known ? updated : each)),
    )
    storeCluster(keyspace, cluster)
    return json(updated)
  }
  if (known !== undefined && known.storeId === request.storeId)
    throw new RoundhouseError('NOT_MEMBER', { node: known.nodeId })
  const node: RegisteredNode = { ...request, state: 'joining', metaReplica: cluster.nextReplica }
  store(keyspace, nodesKey, [...nodes.filter(each => each !== known), node])
  storeCluster(keyspace, { ...cluster, nextReplica: cluster.nextReplica + 1 })
  return json(node)
})

const states: readonly RegisteredState[] = ['joining', 'member', 'leaving', 'left']

const setState = define<{ nodeId: string; state: RegisteredState }>(
  'META.STATE',
  { nodeId: text, state: value => states.includes(value as RegisteredState) },
  (keyspace, { nodeId, state }) => {
    const cluster = loadCluster(keyspace)
    const nodes = loadNodes(keyspace)
    const known = nodes.find(node => node.nodeId === nodeId)
    if (known === undefined)
      throw new RoundhouseError('UNKNOWN_NODE', {
        node: nodeId,
        known: nodes.map(node => node.nodeId).join(' '),
      })
    // joining → member → leaving → left, never back: a command that comes late changes nothing.
    const order = states
    if (order.indexOf(state) <= order.indexOf(known.state)) return json(known)
    store(
      keyspace,
      nodesKey,
      nodes.map(node => (node === known ? { ...node, state } : node)),
    )
    storeCluster(keyspace, cluster)
    return json({ ...known, state })
  },
)

const open = define<OpenRequest>(
  'META.OPEN',
  { group: id, replaces: id, voters: wishes, learners: wishes },
  (keyspace, request) => {
    const cluster = loadCluster(keyspace)
    const record = load<ShardRecord>(keyspace, shardKey(request.group))
    if (record === undefined || (record.operation?.id ?? 0) !== request.replaces)
      return json({ operation: null })
    const nodes = new Set(
      loadNodes(keyspace)
        .filter(node => node.state !== 'left')
        .map(node => node.nodeId),
    )
    // The plan of a meta leader that has been replaced may come late and name a node that was let go meanwhile.
    if (![...request.voters, ...request.learners].every(member => nodes.has(member.node)))
      return json({ operation: null })
    let { nextReplica } = cluster
    const withIds = (members: OpenRequest['voters']): Member[] =>
      members.map(({ node, replica }) => ({ node, replica: replica ?? nextReplica++ }))
    const operation: Operation = {
      id: cluster.nextOperation,
      voters: withIds(request.voters),
      learners: withIds(request.learners),
    }
    const replaced =
      record.operation === null ? [] : [...record.operation.voters, ...record.operation.learners]
    const former = [...record.former, ...replaced]
    store(keyspace, shardKey(request.group), { ...record, operation, former } satisfies ShardRecord)
    storeCluster(keyspace, { ...cluster, nextReplica, nextOperation: cluster.nextOperation + 1 })
    return json({ operation })
  },
)

const asItIs = { group: id, voters: members, learners: members, index: id }

const close = define<CloseRequest>('META.CLOSE', { operation: id, ...asItIs }, (keyspace, request) => {
  const cluster = loadCluster(keyspace)
  const record = load<ShardRecord>(keyspace, shardKey(request.group))
  if (record?.operation?.id !== request.operation) return json({})
  const { voters, learners, index } = request
  const before = new Set([...record.voters, ...record.learners].map(member => member.replica))
  const now = new Set([...voters, ...learners].map(member => member.replica))
  const added = [...now].filter(replica => !before.has(replica)).length
  store(keyspace, shardKey(request.group), {
    birth: record.birth,
    voters,
    learners,
    index,
    operation: null,
    former: [],
    unfit: record.unfit.filter(replica => now.has(replica)),
    ...(record.forcedAt === undefined ? {} : { forcedAt: record.forcedAt }),
  } satisfies ShardRecord)
  const isShard = request.group !== metaGroup
  storeCluster(keyspace, { ...cluster, movesDone: cluster.movesDone + (isShard ? added : 0) })
  return json({})
})

/** Members of a group that a record, its operation and former ones name. */
function named(record: ShardRecord): Member[] {
  const { voters, learners, former, operation } = record
  return [...voters, ...learners, ...former, ...(operation?.voters ?? []), ...(operation?.learners ?? [])]
}

/**
 * The configuration of a group as its leader has it, where no operation explains the difference: an operator forced it.
 * The group itself is the truth of who votes.
 */
const report = define<ReportRequest>(
  'META.REPORT',
  { forcedAt: id, ...asItIs },
  (keyspace, { group, voters, learners, index, forcedAt }) => {
    const cluster = loadCluster(keyspace)
    const record = load<ShardRecord>(keyspace, shardKey(group))
    if (record === undefined || record.operation !== null || (record.forcedAt ?? 0) >= forcedAt)
      return json({})
    const now = new Set([...voters, ...learners].map(member => member.replica))
    store(keyspace, shardKey(group), {
      birth: record.birth,
      voters,
      learners,
      index,
      operation: null,
      former: [],
      unfit: record.unfit.filter(replica => now.has(replica)),
      forcedAt,
    } satisfies ShardRecord)
    storeCluster(keyspace, cluster)
    return json({})
  },
)

/**
 * A replica that can't go on. The register is told by the replica's own node, which keeps it mute for good: marking it
 * here only makes the plan give its node another one. Of the meta shard the new one's id is given at once and answered:
 * the node has no register to find it in.
 */
const unfit = define<UnfitRequest>(
  'META.UNFIT',
  { group: id, replica: id },
  (keyspace, { group, replica }) => {
    const cluster = loadCluster(keyspace)
    const record = load<ShardRecord>(keyspace, shardKey(group))
    const nodes = loadNodes(keyspace)
    const member = record === undefined ? undefined : named(record).find(each => each.replica === replica)
    if (record === undefined || member === undefined) return json({ metaReplica: null })
    const isMarked = record.unfit.includes(replica)
    const node = nodes.find(each => each.nodeId === member.node)
    const isMeta = group === metaGroup && node?.metaReplica === replica
    if (!isMarked) {
      store(keyspace, shardKey(group), { ...record, unfit: [...record.unfit, replica] } satisfies ShardRecord)
      storeCluster(keyspace, { ...cluster, nextReplica: cluster.nextReplica + (isMeta ? 1 : 0) })
    }
    if (!isMeta || isMarked) return json({ metaReplica: node?.metaReplica ?? null })
    store(
      keyspace,
      nodesKey,
      nodes.map(each => (each === node ? { ...each, metaReplica: cluster.nextReplica } : each)),
    )
    return json({ metaReplica: cluster.nextReplica })
  },
)

/** A node whose directory is lost comes back with an empty one: none of its replicas counts any more, its name does. */
const replace = define<ReplaceRequest>('META.REPLACE', { nodeId: text }, (keyspace, { nodeId }) => {
  const cluster = loadCluster(keyspace)
  const nodes = loadNodes(keyspace)
  const known = nodes.find(node => node.nodeId === nodeId && node.state !== 'left')
  if (known === undefined)
    throw new RoundhouseError('UNKNOWN_NODE', {
      node: nodeId,
      known: nodes.map(node => node.nodeId).join(' '),
    })
  if (known.storeId === storeExpected) return json(known)
  for (const group of [...Array(cluster.settings.shardCount).keys(), metaGroup]) {
    const record = load<ShardRecord>(keyspace, shardKey(group))
    if (record === undefined) continue
    const lost = named(record).filter(each => each.node === nodeId && !record.unfit.includes(each.replica))
    if (lost.length === 0) continue
    const all = [...new Set([...record.unfit, ...lost.map(each => each.replica)])]
    store(keyspace, shardKey(group), { ...record, unfit: all } satisfies ShardRecord)
  }
  const updated: RegisteredNode = {
    ...known,
    storeId: storeExpected,
    lostStoreId: known.storeId,
    metaReplica: cluster.nextReplica,
  }
  store(
    keyspace,
    nodesKey,
    nodes.map(node => (node === known ? updated : node)),
  )
  storeCluster(keyspace, { ...cluster, nextReplica: cluster.nextReplica + 1 })
  return json(updated)
})

const pause = define<{ isPaused: boolean }>('META.PAUSE', { isPaused: flag }, (keyspace, { isPaused }) => {
  const cluster = loadCluster(keyspace)
  if (cluster.isPaused !== isPaused) storeCluster(keyspace, { ...cluster, isPaused })
  return json({})
})

/**
 * Raises the level of the cluster to what all members support, as the register says where this is applied: a node that
 * registers itself with an older release at the same moment is refused, or this changes nothing.
 */
const raiseLevel = define<object>('META.LEVEL', {}, keyspace => {
  const cluster = loadCluster(keyspace)
  const level = commonLevel(loadNodes(keyspace))
  if (level > (cluster.level ?? 1)) storeCluster(keyspace, { ...cluster, level })
  return json({})
})

/** Answers the whole register; what each node's copy of it is made from. */
const read: Command = {
  name: 'META.READ',
  summary: 'Of the meta shard',
  usage: 'row',
  arity: { min: 1, max: 1 },
  keys: 'none',
  access: 'read',
  isInternal: true,
  run: (keyspace, args) => {
    const value = keyspace.getString(args[0]!)
    return value === undefined ? { kind: 'nil' } : { kind: 'value', value }
  },
}

export const metaCommands: CommandTable = new Map(
  [
    ...[found, join, setState, open, close, report, unfit, replace, pause, raiseLevel],
    ...[...streamCommands, read],
  ].map(command => [command.name, command]),
)

/** Reads the register through `get`, which answers the bytes of a row. What stands in the same bytes as before keeps its object. */
export class RegisterReader {
  private readonly seen = new Map<number, { readonly bytes: Bytes; readonly record: ShardRecord }>()
  private streams: { readonly bytes: Bytes | undefined; readonly byName: Register['streams'] } = {
    bytes: undefined,
    byName: new Map(),
  }
  private last: Register | null = null

  read(get: (key: Bytes) => Bytes | undefined): Register | null {
    const bytes = get(clusterKey)
    if (bytes === undefined) return null
    const cluster = JSON.parse(toUtf8(bytes)) as ClusterRow
    if (this.last?.epoch === cluster.epoch) return this.last
    const nodes = JSON.parse(toUtf8(get(nodesKey) ?? fromUtf8('[]'))) as RegisteredNode[]
    const groups = [...Array.from({ length: cluster.settings.shardCount }, (_, shard) => shard), metaGroup]
    const shards = new Map<number, ShardRecord>()
    for (const group of groups) {
      const row = get(shardKey(group))
      if (row === undefined) continue
      const seen = this.seen.get(group)
      const record =
        seen !== undefined && equalBytes(seen.bytes, row)
          ? seen.record
          : (JSON.parse(toUtf8(row)) as ShardRecord)
      this.seen.set(group, { bytes: row, record })
      shards.set(group, record)
    }
    const streams = this.readStreams(get(streamsKey))
    const level = cluster.level ?? 1
    this.last = { ...cluster, level, nextStream: nextStreamOf(cluster), nodes, shards, streams }
    return this.last
  }

  private readStreams(bytes: Bytes | undefined): Register['streams'] {
    if (bytes === undefined) return this.streams.byName
    if (this.streams.bytes !== undefined && equalBytes(bytes, this.streams.bytes)) return this.streams.byName
    const records = JSON.parse(toUtf8(bytes)) as StreamRecord[]
    this.streams = { bytes, byName: new Map(records.map(each => [each.name, each])) }
    return this.streams.byName
  }
}
