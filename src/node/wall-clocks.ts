import type { Clock } from '../lib/clock.ts'

/**
 * The wall clocks of all nodes, as their greetings showed them: offsets to this node's own, ms. Nobody's clock is believed
 * alone; what counts is the median.
 */
export class WallClocks {
  private readonly nodeId: string
  private readonly clock: Clock
  private readonly offsets = new Map<string, number>()

  constructor(nodeId: string, clock: Clock) {
    this.nodeId = nodeId
    this.clock = clock
  }

  hear(node: string, wallMs: number): void {
    if (node !== this.nodeId) this.offsets.set(node, wallMs - this.clock.wall())
  }

  forget(node: string): void {
    this.offsets.delete(node)
  }

  /** The median of these nodes' clocks, of those that were heard; this node's own always counts. */
  medianWallMs(nodes: Iterable<string>): number {
    const offsets = [0]
    for (const node of nodes) {
      const offset = this.offsets.get(node)
      if (offset !== undefined) offsets.push(offset)
    }
    return this.clock.wall() + median(offsets)
  }

  /** How far a node's clock is off the median of all; 0 while fewer than three are known: of two nobody can say which. */
  offMs(node: string): number {
    if (this.offsets.size < 2) return 0
    const own = node === this.nodeId ? 0 : this.offsets.get(node)
    return own === undefined ? 0 : own - median([0, ...this.offsets.values()])
  }
}

function median(values: number[]): number {
  values.sort((a, b) => a - b)
  return values[(values.length - 1) >> 1]!
}
