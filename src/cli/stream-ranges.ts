/**
 * What all partitions of a stream hold, for many who ask about one each: `describe` answers for the whole stream, so whoever
 * asks while nobody has been asked yet shares one call. One that is under way already is too old: what the asker has seen
 * happen since may not be in it.
 */
import type { StreamPartition } from '../gen/roundhouse/v1/streams.ts'
import type { Nodes } from './connection.ts'

export class StreamRanges {
  private readonly nodes: Nodes
  private readonly stream: string
  /** Settles with the call that is under way; never rejects. */
  private last: Promise<unknown> = Promise.resolve()
  /** Begins when that one has ended. */
  private next: Promise<readonly StreamPartition[]> | null = null

  constructor(nodes: Nodes, stream: string) {
    this.nodes = nodes
    this.stream = stream
  }

  /** Of all partitions, as they are later than now. */
  all(): Promise<readonly StreamPartition[]> {
    if (this.next !== null) return this.next
    const next = this.last.then(() => {
      this.next = null
      return this.describe()
    })
    this.last = next.catch(() => {})
    this.next = next
    return next
  }

  private async describe(): Promise<readonly StreamPartition[]> {
    const { partitions } = await this.nodes.call('read', (call, { streams }) =>
      call(streams.describe.bind(streams), { name: this.stream }),
    )
    return partitions
  }
}
