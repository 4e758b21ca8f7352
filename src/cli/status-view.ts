/**
 * A cluster's status, for tools (the JSON that the project promises) and for people.
 */
import type { NodeStatus, RebalanceStatus, ShardStatus, StatusResponse } from '../gen/roundhouse/v1/admin.ts'
import type { Colors } from './colors.ts'
import { table } from './print.ts'
import { detailOf } from './progress.ts'

// --- JSON -----------------------------------------------------------------------------------------------------------

export function statusJson(status: StatusResponse): Record<string, unknown> {
  return {
    cluster_id: status.clusterId,
    epoch: Number(status.epoch),
    feature_level: status.featureLevel,
    nodes: status.nodes.map(nodeJson),
    shards: status.shards.map(shardJson),
    meta: status.meta === undefined ? null : shardJson(status.meta),
    rebalance: status.rebalance === undefined ? null : rebalanceJson(status.rebalance),
  }
}

export function nodeJson(node: NodeStatus): Record<string, unknown> {
  return {
    node_id: node.nodeId,
    address: node.address,
    client_address: node.clientAddress,
    state: node.state,
    zone: node.zone,
    replicas: node.replicas,
    leaders: node.leaders,
    disk: node.disk,
    feature_level: node.featureLevel,
  }
}

export function shardJson(shard: ShardStatus): Record<string, unknown> {
  return {
    shard_id: shard.shardId,
    slots: [shard.slotFrom, shard.slotTo],
    term: Number(shard.term),
    leader: shard.leader === '' ? null : shard.leader,
    voters: shard.voters,
    learners: shard.learners,
    applied: Number(shard.applied),
  }
}

export function rebalanceJson(rebalance: RebalanceStatus): Record<string, unknown> {
  return {
    state: rebalance.state,
    moves_done: rebalance.movesDone,
    moves_total: rebalance.movesTotal,
    bytes_done: Number(rebalance.bytesDone),
    bytes_total: Number(rebalance.bytesTotal),
    bytes_per_second: rebalance.bytesPerSecond,
    eta_s: rebalance.etaS ?? null,
    blocked_by: rebalance.blockedBy === '' ? null : rebalance.blockedBy,
  }
}

// --- For people -----------------------------------------------------------------------------------------------------

export function statusText(colors: Colors, status: StatusResponse, showShards: boolean): string {
  const lines = [
    `cluster ${status.clusterId === '' ? '(none yet)' : status.clusterId}, epoch ${status.epoch}${levelText(colors, status)}`,
    '',
    nodesTable(colors, status.nodes),
    '',
    `shards     ${shardsText(colors, status.shards)}`,
    `meta       ${status.meta === undefined ? colors.red('unknown') : metaText(colors, status.meta)}`,
    `rebalance  ${status.rebalance === undefined ? colors.red('unknown') : rebalanceText(colors, status.rebalance)}`,
  ]
  if (showShards) lines.push('', shardsTable(colors, status.shards))
  return lines.join('\n')
}

export function nodesTable(colors: Colors, nodes: readonly NodeStatus[]): string {
  return table(
    colors,
    ['NODE', 'CLIENTS', 'PEERS', 'STATE', 'ZONE', 'REPLICAS', 'LEADERS'],
    nodes.map(node => [
      node.nodeId,
      node.clientAddress,
      node.address,
      stateText(colors, node),
      node.zone === '' ? '-' : node.zone,
      node.replicas,
      node.leaders,
    ]),
  )
}

/** Who holds the level back: nothing newer is written until they run the release of the others. */
function levelText(colors: Colors, { featureLevel, nodes }: StatusResponse): string {
  if (featureLevel === 0) return ''
  const newest = Math.max(featureLevel, ...nodes.map(node => node.featureLevel))
  const behind = nodes.filter(node => node.featureLevel < newest).map(node => node.nodeId)
  const held = `held at ${featureLevel} of ${newest} by ${behind.join(', ')}`
  return `, feature level ${behind.length === 0 ? featureLevel : colors.yellow(held)}`
}

/** With the trouble of its disk, where there is any. */
export function stateText(colors: Colors, { state, disk }: NodeStatus): string {
  const color =
    state === 'alive' ? colors.green : state === 'dead' || state === 'left' ? colors.red : colors.yellow
  return color(state) + diskText(colors, disk)
}

/** What an operator must see to; an older node says nothing. */
function diskText(colors: Colors, disk: string): string {
  return disk === '' || disk === 'ok' ? '' : colors.red(`, disk ${disk.replace('_', ' ')}`)
}

/** `64: all have a leader; 3 voters on 64`, with what is missing in red. */
function shardsText(colors: Colors, shards: readonly ShardStatus[]): string {
  if (shards.length === 0) return '0'
  const leaderless = shards.filter(shard => shard.leader === '')
  const byVoters = new Map<number, number>()
  for (const shard of shards) byVoters.set(shard.voters.length, (byVoters.get(shard.voters.length) ?? 0) + 1)
  const voters = [...byVoters].sort(([a], [b]) => b - a).map(([count, on]) => `${voterWord(count)} on ${on}`)
  const learners = shards.reduce((sum, shard) => sum + shard.learners.length, 0)
  return [
    `${shards.length}: ${leaderless.length === 0 ? 'all have a leader' : colors.red(`${leaderless.length} without a leader (${listOf(leaderless)})`)}`,
    voters.join(', '),
    ...(learners > 0 ? [`${learners} learner${learners === 1 ? '' : 's'}`] : []),
  ].join('; ')
}

function voterWord(count: number): string {
  return `${count} voter${count === 1 ? '' : 's'}`
}

function listOf(shards: readonly ShardStatus[]): string {
  const shownMax = 8
  const ids = shards.slice(0, shownMax).map(shard => shard.shardId)
  return shards.length > shownMax ? `${ids.join(', ')}, …` : ids.join(', ')
}

function metaText(colors: Colors, meta: ShardStatus): string {
  const leader = meta.leader === '' ? colors.red('no leader') : `led by ${meta.leader}`
  return `${leader}; voters ${meta.voters.join(', ')}${meta.learners.length > 0 ? `; learners ${meta.learners.join(', ')}` : ''}`
}

/** One line: `running: 12 of 48 replicas moved, 3.1 of 12.0 MiB, 1.2 MiB/s, 8s left`. */
export function rebalanceText(colors: Colors, rebalance: RebalanceStatus): string {
  const { state, movesDone, movesTotal } = rebalance
  if (state === 'idle') return 'idle: nothing to move'
  const moved = `${movesDone} of ${movesTotal} replicas moved`
  if (state === 'paused') {
    const what = movesTotal === 0 ? 'nothing to move now' : moved
    return `${colors.yellow(state)}: ${what}; "roundhouse rebalance resume" goes on`
  }
  return `${state === 'running' ? state : colors.yellow(state)}: ${moved}, ${detailOf(rebalance)}`
}

export function shardsTable(colors: Colors, shards: readonly ShardStatus[]): string {
  return table(
    colors,
    ['SHARD', 'SLOTS', 'LEADER', 'TERM', 'APPLIED', 'VOTERS', 'LEARNERS'],
    shards.map(shard => [
      shard.shardId,
      `${shard.slotFrom}-${shard.slotTo - 1}`,
      shard.leader === '' ? colors.red('none') : shard.leader,
      String(shard.term),
      String(shard.applied),
      shard.voters.join(' '),
      shard.learners.length === 0 ? '-' : shard.learners.join(' '),
    ]),
  )
}
