import type { Clock } from '../lib/clock.ts'

/**
 * The wall clocks of all nodes, as their greetings showed them. Nobody's clock is believed alone; what counts is the
 * median. They are noted against this node's monotonic clock: against its wall clock they would all seem to step when
 * that one does, and until everybody was heard again a stepped clock would pass for the median.
 */
export class WallClocks {
  private readonly nodeId: string
  private readonly clock: Clock
  /** What a wall clock shows when the monotonic one shows 0. */
  private readonly origins = new Map<string, number>()

  constructor(nodeId: string, clock: Clock) {
    this.nodeId = nodeId
    this.clock = clock
  }

  hear(node: string, wallMs: number): void {
    if (node !== this.nodeId) this.origins.set(node, wallMs - this.clock.now())
  }

  forget(node: string): void {
    this.origins.delete(node)
  }

  private get own(): number {
    return this.clock.wall() - this.clock.now()
  }

  /**
   * The median of these nodes' clocks, of those that were heard; this node's own always counts. NaN while fewer than a
   * majority of them are known: right after a start one's own clock would be the median.
   */
  medianWallMs(nodes: readonly string[]): number {
    const origins = [this.own]
    for (const node of nodes) {
      const origin = this.origins.get(node)
      if (origin !== undefined) origins.push(origin)
    }
    return origins.length * 2 > nodes.length ? this.clock.now() + median(origins) : Number.NaN
  }

  /** How far a node's clock is off the median of all; 0 while fewer than three are known: of two nobody can say which. */
  offMs(node: string): number {
    if (this.origins.size < 2) return 0
    const its = node === this.nodeId ? this.own : this.origins.get(node)
    return its === undefined ? 0 : its - median([this.own, ...this.origins.values()])
  }
}

function median(values: number[]): number {
  values.sort((a, b) => a - b)
  return values[(values.length - 1) >> 1]!
}
