/**
 * Gossip's member records as clusterpb.Node and back. Load and leaderships are hints and travel as JSON text:
 *
 *   {"load":[replicas, leaders, storedBytes, freeBytes, operationsPerSecond],"leads":[shard, term, shard, term, …],
 *    "disk":"full" where it is not ok, "stops":true where it is about to}
 *
 * Broken hints cost only themselves. A record without a state (the predecessors' heartbeats) or with a broken one is left
 * out; whether the others are well formed and members is gossip's to judge.
 */
import type { Node } from '../gen/clusterpb/cluster.ts'
import {
  diskStates,
  type Leadership,
  leadsMax,
  type MemberDetails,
  type MemberRecord,
  memberStates,
  noLoad,
} from '../gossip/member.ts'

/** Room for every shard of the largest cluster and then some. */
const hintsCharsMax = 256 * 1024

export function writeMember(record: MemberRecord): Node {
  const { load, leads, state, disk = 'ok', isStopping = false } = record
  return {
    nodeId: record.nodeId,
    nodeAddr: record.peerAddress,
    alive: state === 'alive' || state === 'joining' || state === 'leaving',
    lastSeen: 0n,
    storeId: record.storeId,
    clientAddr: record.clientAddress,
    state,
    incarnation: BigInt(record.incarnation),
    heartbeat: BigInt(record.heartbeat),
    zone: record.zone,
    hints: JSON.stringify({
      load: [load.replicas, load.leaders, load.storedBytes, load.freeBytes, load.operationsPerSecond],
      leads: leads.flatMap(({ shard, term }) => [shard, term]),
      ...(disk === 'ok' ? {} : { disk }),
      ...(isStopping ? { stops: true } : {}),
    }),
  }
}

export function readMember(node: Node): MemberRecord | null {
  const state = memberStates.find(each => each === node.state)
  const incarnation = Number(node.incarnation)
  const heartbeat = Number(node.heartbeat)
  if (state === undefined || !Number.isSafeInteger(incarnation) || !Number.isSafeInteger(heartbeat))
    return null
  return {
    nodeId: node.nodeId,
    storeId: node.storeId,
    peerAddress: node.nodeAddr,
    clientAddress: node.clientAddr,
    zone: node.zone,
    incarnation,
    heartbeat,
    state,
    ...readHints(node.hints),
  }
}

/** Records that can be read, the sender's own first. */
export function readMembers(self: Node | undefined, peers: readonly Node[]): MemberRecord[] {
  const nodes = self === undefined ? peers : [self, ...peers]
  return nodes.map(readMember).filter(record => record !== null)
}

function readHints(text: string): Pick<MemberDetails, 'load' | 'leads' | 'disk' | 'isStopping'> {
  const hints = text.length <= hintsCharsMax ? parse(text) : null
  const [replicas, leaders, storedBytes, freeBytes, operationsPerSecond] = numbers(hints?.load, 5, 5) ?? []
  const pairs = numbers(hints?.leads, 0, 2 * leadsMax) ?? []
  const leads: Leadership[] = []
  for (let i = 0; i + 1 < pairs.length; i += 2) leads.push({ shard: pairs[i]!, term: pairs[i + 1]! })
  const load =
    replicas === undefined
      ? noLoad
      : {
          replicas,
          leaders: leaders!,
          storedBytes: storedBytes!,
          freeBytes: freeBytes!,
          operationsPerSecond: operationsPerSecond!,
        }
  const disk = diskStates.find(each => each === hints?.disk && each !== 'ok')
  return {
    load,
    leads,
    ...(disk === undefined ? {} : { disk }),
    ...(hints?.stops === true ? { isStopping: true } : {}),
  }
}

function parse(text: string): { load?: unknown; leads?: unknown; disk?: unknown; stops?: unknown } | null {
  if (text === '') return null
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' ? value : null
  } catch {
    return null
  }
}

/** `value` where it is an array of `min` to `max` finite numbers ≥ 0. */
function numbers(value: unknown, min: number, max: number): number[] | null {
  if (!Array.isArray(value) || value.length < min || value.length > max) return null
  return value.every(each => typeof each === 'number' && Number.isFinite(each) && each >= 0) ? value : null
}
