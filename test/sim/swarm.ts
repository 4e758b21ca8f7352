/**
 * What a seed draws before anything runs: the size of the cluster, its limits, the load, and which kinds of fault come
 * how often. Many are zero in a run (swarm testing, Groce et al. 2012: a run without a kind of fault reaches states that
 * one with all kinds never does), and limits are shrunken so far that a run of seconds meets what production meets in
 * months.
 */
import type { Prng } from '../../src/lib/prng.ts'
import type { SimSettings } from './sim-cluster.ts'

/** Faults that come and go, each at its time. */
export const eventKinds = [
  'crash',
  'crash-in-recovery',
  'long-crash',
  'restart',
  'pause',
  'isolate',
  'crash-leader',
  'isolate-leader',
  'partition',
  'one-way',
  'clog',
  'wall-step',
  'disk-stall',
  'disk-full',
  'disk-error',
  'disk-dead',
  'rot',
  'misdirected',
  'row-rot',
  'read-errors',
  'wipe',
  'join',
  'leave',
  'transfer',
  'hold-moves',
] as const

/** Conditions that last as long as the faults do. */
export const weatherKinds = [
  'loss',
  'duplication',
  'slow-network',
  'in-order',
  'bounded-queues',
  'loss-of-kind',
  'clock-drift',
  'late-ticks',
  'stalls',
  'slow-disk',
  'joint-trouble',
  'slow-apply',
  'copy-trouble',
  'older-release',
  'rolling-upgrade',
] as const

export const faultKinds = [...eventKinds, ...weatherKinds] as const
export type FaultKind = (typeof faultKinds)[number]

export interface Fault {
  /** Its place in the plan: what `--faults 3,8` names. */
  readonly id: number
  readonly kind: FaultKind
  /** From the beginning of trouble. */
  readonly atMs: number
  readonly forMs: number
  /** Whom it hits, and how hard: the executor makes of them what fits then. */
  readonly pick: number
  readonly amount: number
}

export interface Swarm {
  readonly nodes: number
  readonly settings: Partial<SimSettings>
  readonly sessionSequencesMax: number
  /** Of a shard. */
  readonly sessionsMax: number
  /** That a replica keeps for watches. */
  readonly changesMax: number
  readonly clients: number
  readonly keys: number
  /** Mean pause of a client between two calls, ms. */
  readonly thinkMs: number
  readonly chaosMs: number
  readonly faults: readonly Fault[]
  /** Commands that one node's release lacks, where a fault says that there is such a node. */
  readonly newCommand: string
  /** Whether the run ends with two logs that fork (fork.ts). */
  readonly isForked: boolean
}

const stepMs = 250
/** Of a kind that a run has, at most so many a second, and how long one lasts at most. */
const kinds: Readonly<Record<(typeof eventKinds)[number], readonly [perSecond: number, forMsMax: number]>> = {
  crash: [0.8, 4_000],
  'crash-in-recovery': [0.3, 2_000],
  'long-crash': [0.1, 60_000],
  restart: [0.2, 1_000],
  pause: [0.5, 6_000],
  isolate: [0.6, 4_000],
  'crash-leader': [0.5, 3_000],
  'isolate-leader': [0.6, 4_000],
  partition: [0.4, 4_000],
  'one-way': [0.6, 4_000],
  clog: [0.6, 3_000],
  'wall-step': [0.3, 8_000],
  'disk-stall': [0.3, 4_000],
  'disk-full': [0.2, 4_000],
  'disk-error': [0.2, 1_000],
  'disk-dead': [0.05, 6_000],
  rot: [0.4, 1_500],
  misdirected: [0.2, 1_500],
  'row-rot': [0.3, 0],
  'read-errors': [0.2, 2_000],
  wipe: [0.06, 5_000],
  join: [0.2, 0],
  leave: [0.4, 0],
  transfer: [0.5, 0],
  'hold-moves': [0.1, 3_000],
}

export interface SwarmOptions {
  readonly chaosMs: number | null
  /** Only these kinds of fault; null: as drawn. */
  readonly only: readonly FaultKind[] | null
}

export function drawSwarm(random: Prng, { chaosMs, only }: SwarmOptions): Swarm {
  const oneOf = <T>(...from: readonly T[]): T => from[random.below(from.length)]!
  const chance = (rate: number) => random.next() < rate
  // Draws come in one order whatever they decide, so that an option changes nothing but what it says.
  const nodes = oneOf(3, 3, 3, 3, 3, 3, 3, 5, 5, 4, 2, 1, 7)
  const shardCount = oneOf(1, 1, 2, 2, 4)
  const segmentBytes = oneOf(4, 8, 32, 64, 256) * 1024
  const isTight = chance(0.5)
  const few = (rate: number) => isTight && chance(rate)
  const settings: Partial<SimSettings> = {
    shardCount: nodes > 5 ? Math.min(2, shardCount) : shardCount,
    replicationFactor: nodes >= 5 && chance(0.3) ? 5 : 3,
    journalSegmentBytes: segmentBytes,
    journalBudgetBytes: Math.max(256 * 1024, segmentBytes * oneOf(6, 16)),
    nodeDownAfterMs: chance(0.4) ? oneOf(4_000, 8_000) : 0,
    snapshotPartBytes: oneOf(512, 4096, 64 * 1024 * 1024),
    streamSegmentBytes: 4096,
    rebalanceBytesPerSecond: chance(0.3) ? oneOf(4, 64) * 1024 : 64 * 1024 * 1024,
    raftLimits: {
      ...(few(0.5) ? { maxInflightMsgs: oneOf(1, 1, 2, 4) } : {}),
      ...(few(0.5) ? { maxSizePerMsg: oneOf(1, 1, 512) } : {}),
      ...(few(0.4) ? { maxCommittedSizePerReady: oneOf(1, 300) } : {}),
      ...(few(0.3) ? { maxUncommittedEntriesSize: oneOf(300, 1_000) } : {}),
      ...(few(0.3) ? { maxInflightBytes: oneOf(500, 2_000) } : {}),
    },
    hostLimits: {
      ...(few(0.6) ? { entriesBetweenCheckpointsMax: oneOf(3, 3, 20, 100) } : {}),
      ...(few(0.6) ? { entriesKept: oneOf(0, 3, 50) } : {}),
      ...(few(0.3) ? { memtableBytesMax: oneOf(500, 5_000) } : {}),
      ...(few(0.3) ? { checkpointAgeMsMax: oneOf(300, 3_000) } : {}),
      ...(few(0.2) ? { inboxMax: oneOf(20, 100) } : {}),
    },
  }
  const sessionSequencesMax = few(0.4) ? 4 : 1_024
  const clients = oneOf(2, 4, 6, 8)
  const keys = oneOf(1, 2, 4)
  const thinkMs = oneOf(15, 30, 80)
  const drawnMs = oneOf(6_000, 10_000, 15_000)
  const lengthMs = chaosMs ?? (nodes > 4 ? Math.min(10_000, drawnMs) : drawnMs)
  const faults = drawFaults(random.fork(), lengthMs, only)
  // Where elections are counted they must not be made frequent.
  const isCramped = chance(0.2) || faults.some(({ kind }) => kind === 'copy-trouble')
  const isQuick = chance(0.5) && !faults.every(({ kind }) => kind === 'one-way')
  return {
    nodes,
    settings: {
      ...settings,
      ...(isQuick ? { raftTicks: quickTicks } : {}),
      ...(isCramped ? crampedJournal : {}),
      ...(chance(0.4) ? { journalCacheBytes: oneOf(0, 0, 4_000) } : {}),
      ...(few(0.2) ? { uncommittedBytesMax: oneOf(400, 2_000) } : {}),
    },
    sessionSequencesMax,
    clients,
    keys,
    thinkMs,
    chaosMs: lengthMs,
    faults,
    isForked: chance(0.5),
    newCommand: oneOf('INCR', 'APPEND', 'SADD', 'HINCRBY', 'RPUSH', 'DEL'),
    sessionsMax: few(0.2) ? oneOf(12, 40) : 10_000,
    changesMax: few(0.3) ? oneOf(16, 64) : 16_384,
  }
}

/** So small that entries are carried forward before a checkpoint lets them go. */
const crampedJournal = { journalSegmentBytes: 8_192, journalBudgetBytes: 56 * 1024 }

/** Elections within a third of a second: as many in a run as production has in weeks. */
const quickTicks = { electionTicks: 6, heartbeatTicks: 2 }

function drawFaults(random: Prng, chaosMs: number, only: readonly FaultKind[] | null): Fault[] {
  const isWanted = (kind: FaultKind) => only === null || only.includes(kind)
  const faults: Fault[] = []
  const add = (kind: FaultKind, atMs: number, forMsMax: number) => {
    const fault = {
      id: faults.length + 1,
      kind,
      atMs,
      forMs: random.next() * forMsMax,
      pick: random.uint32(),
      amount: random.next(),
    }
    if (isWanted(kind)) faults.push({ ...fault, id: faults.length + 1 })
  }
  for (const kind of weatherKinds) {
    const isDrawn = random.next() < 0.2
    if (isDrawn || only?.includes(kind)) add(kind, 0, chaosMs)
  }
  // A calm run is worth having, too: moves, load and limits by themselves.
  const share = random.next() < 0.1 ? 0 : 0.1 + 0.4 * random.next()
  const rates = eventKinds.map(kind => {
    const isDrawn = random.next() < share
    return isDrawn || only?.includes(kind) ? kinds[kind][0] * (0.2 + 0.8 * random.next()) : 0
  })
  for (let atMs = 0; atMs < chaosMs; atMs += stepMs) {
    for (const [i, kind] of eventKinds.entries())
      if (random.next() < (rates[i]! * stepMs) / 1000) add(kind, atMs, kinds[kind][1])
  }
  return faults
}
