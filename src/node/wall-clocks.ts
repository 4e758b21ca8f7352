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
   * The median of all clocks that were heard, and this node's own. NaN while fewer than a majority of these nodes are among
   * them: right after a start one's own clock would be the median. More nodes than those only help to tell who is wrong: of
   * two clocks nobody can, and the earlier one counts. One that is behind costs what is given a time meanwhile part of it; a log
   * clock that went ahead never comes back, and everything that had a time would be over at once.
   */
  medianWallMs(nodes: readonly string[]): number {
    const known = nodes.filter(node => node === this.nodeId || this.origins.has(node)).length
    return known * 2 > nodes.length
      ? this.clock.now() + median([this.own, ...this.origins.values()])
      : Number.NaN
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
