/** What operations cost the nodes and this process: counters that each keeps, before and after a window. */
import type { StatsResponse } from '../gen/roundhouse/v1/admin.ts'
import type { NodeCost } from './ports.ts'

/** What nodes call the counters, in Admin.Stats. */
const syncsCounter = 'journal_fsyncs'
const forwardedCounter = 'calls_forwarded'

export interface Snapshot {
  readonly clientCpuUs: number
  /** null: the node did not answer. */
  readonly nodes: readonly (StatsResponse | null)[]
}

/** Of one operation each. */
export function costs(first: Snapshot, last: Snapshot, operations: number): NodeCost[] {
  return first.nodes.flatMap((before, place) => {
    const after = last.nodes[place]
    // A node that was restarted in between counts from zero again.
    if (before === null || after === null || after === undefined || after.cpuS < before.cpuS) return []
    const counted = (name: string) => {
      const [from, to] = [before.counters[name], after.counters[name]]
      return from === undefined || to === undefined ? null : each(to - from, operations)
    }
    return {
      nodeId: after.nodeId,
      cpuUsPerOperation: each((after.cpuS - before.cpuS) * 1e6, operations),
      syncsPerOperation: counted(syncsCounter),
      forwardedPerOperation: counted(forwardedCounter),
    }
  })
}

/** µs of processor time. */
export function clientCost(first: Snapshot, last: Snapshot, operations: number): number {
  return each(last.clientCpuUs - first.clientCpuUs, operations)
}

function each(amount: number, operations: number): number {
  return operations === 0 ? 0 : amount / operations
}
