/** Commands on keys, each sent to the node that leads its key's shard. */
import { randomBytes } from 'node:crypto'
import type { CommandRequest } from '../gen/clusterpb/cluster.ts'
import type { MapResponse } from '../gen/roundhouse/v1/admin.ts'
import { Prng } from '../lib/prng.ts'
import { shardOfSlot, slotOf } from '../lib/slot.ts'
import type { Done } from './drive.ts'
import { type Lane, openLane } from './lane.ts'
import { type Load, sendAll } from './load.ts'
import type { BenchCluster, BenchPlan, BenchProgress, CallKind, KeyWorkload } from './ports.ts'
import { Router } from './router.ts'
import { Workload } from './workload.ts'
import { WriteSession } from './write-session.ts'

/** Keys a command while keys are filled in or taken away, and bytes of their values together. */
const fillKeys = 500
const fillBytes = 256 * 1024

export function workloadOf(plan: BenchPlan, name: KeyWorkload): Workload {
  return new Workload(name, plan, plan.batch, new Prng(randomBytes(4).readUInt32LE()))
}

export class KeyLoad implements Load {
  private readonly workload: Workload
  private readonly router: Router<Lane<CommandRequest>>
  private readonly sessions: readonly WriteSession[] | null

  constructor(
    plan: BenchPlan,
    cluster: BenchCluster,
    map: MapResponse,
    workload: Workload,
    calls: CallKind,
    inFlight: number,
  ) {
    this.workload = workload
    this.router = routerOf(plan, cluster, map, calls)
    this.sessions = WriteSession.forSlots(plan.hasSessions, inFlight)
  }

  readonly begin = (slot: number, done: Done): void => {
    const { request, isWrite, bytes } = this.workload.next()
    if (isWrite && this.sessions !== null) this.sessions[slot]!.stamp(request)
    this.router.lane(request.key, slot).send(request, failure => done(failure, bytes))
  }

  follow(): void {
    this.router.follow()
  }

  snapshot() {
    return this.router.snapshot()
  }

  close(): void {
    this.router.close()
  }
}

/** Writes all keys, or deletes them. Throws BENCH when the cluster refuses. */
export async function overKeys(
  plan: BenchPlan,
  cluster: BenchCluster,
  phase: 'fill' | 'clean-up',
  onProgress: (progress: BenchProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const map = await cluster.map()
  const router = routerOf(plan, cluster, map, 'unary')
  const workload = workloadOf(plan, 'set')
  const step = Math.max(1, Math.min(fillKeys, Math.floor(fillBytes / Math.max(1, plan.valueBytes))))
  try {
    await sendAll({
      ...{ phase, label: '', total: plan.keys, onProgress, signal },
      parts: partsOf(plan.keys, step, number =>
        shardOfSlot(slotOf(Buffer.from(workload.keyName(number))), map.shardCount),
      ),
      sizeOf: numbers => numbers.length,
      send: (numbers, slot, answer) => {
        const { request } = phase === 'fill' ? workload.fill(numbers) : workload.clear(numbers)
        router.lane(request.key, slot).send(request, answer)
      },
    })
  } finally {
    router.close()
  }
}

/** All numbers, at most `step` of one shard together: a command over many shards is an entry in each of them. */
export function* partsOf(
  keys: number,
  step: number,
  shardOf: (number: number) => number,
): Generator<readonly number[]> {
  const waiting = new Map<number, number[]>()
  for (let number = 0; number < keys; number++) {
    const shard = shardOf(number)
    const part = waiting.get(shard) ?? []
    if (part.length === 0) waiting.set(shard, part)
    part.push(number)
    if (part.length < step) continue
    waiting.delete(shard)
    yield part
  }
  yield* waiting.values()
}

function routerOf(plan: BenchPlan, cluster: BenchCluster, map: MapResponse, calls: CallKind) {
  return new Router(plan, cluster, map, address => openLane(address, calls, cluster.credentials))
}
