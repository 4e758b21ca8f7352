import { fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Register, StreamRecord } from './meta-register.ts'
import { type Call, type CallResult, plainCall } from './ports.ts'

/**
 * What the leader of a partition's shard does about its age: proposes to cut what retention gives up, and tells the shard
 * which streams are gone. Both are entries like any other, so all replicas cut at the same offset; a leader that
 * proposes what another one has proposed before changes nothing.
 */
export interface KeeperOptions {
  readonly clock: Clock
  readonly log: Logger
  readonly register: () => Register | null
  /** Shards that this node leads. */
  readonly led: () => readonly number[]
  readonly shardOf: (key: Uint8Array) => number
  readonly execute: (call: Call) => Promise<CallResult>
}

export const keeperLimits = {
  /** Between two looks at what retention would cut. */
  retainMs: 10_000,
  /** Between two looks for partitions of streams that are gone; and at once when one goes. */
  sweepMs: 60_000,
  callMs: 5_000,
} as const

export function partitionKey(stream: string, partition: number): Uint8Array {
  return fromUtf8(`${stream}/${partition}`)
}

/** All streams below `next` but for `alive`. An id from `next` on may be of a stream that this register has not heard of. */
export interface GoneStreams {
  readonly next: number
  /** Rising. */
  readonly alive: readonly number[]
}

/** In one form for one set: `next - 1` is gone, or nothing is. A stream that was made changes nothing. */
export function goneOf({ streams, nextStream }: Pick<Register, 'streams' | 'nextStream'>): GoneStreams {
  const alive = [...streams.values()].map(each => each.id).sort((a, b) => a - b)
  let next = nextStream
  while (alive.at(-1) === next - 1) next = alive.pop()!
  return { next, alive }
}

function isGone({ next, alive }: GoneStreams, id: number): boolean {
  return id < next && !alive.includes(id)
}

export class StreamKeeper {
  private readonly options: KeeperOptions
  private readonly busy = new Set<string>()
  /** What each partition's last proposal was: the same one is not made again. */
  private readonly cuts = new Map<string, number>()

  constructor(options: KeeperOptions) {
    this.options = options
  }

  /** Cuts the partitions led here to what their streams keep. */
  retain(): Promise<void> {
    return this.alone('retention', async register => {
      const kept = [...register.streams.values()].filter(
        each => each.retentionMs !== null || each.retentionBytes !== null,
      )
      if (kept.length === 0) return
      const led = new Set(this.options.led())
      for (const stream of kept) {
        for (let partition = 0; partition < stream.partitions; partition++) {
          const key = partitionKey(stream.name, partition)
          if (led.has(this.options.shardOf(key))) await this.cut(stream, partition, key)
        }
      }
    })
  }

  private async cut(stream: StreamRecord, partition: number, key: Uint8Array): Promise<void> {
    const { id, name, retentionMs, retentionBytes } = stream
    const before =
      retentionMs === null ? '-' : Math.max(0, Math.floor(this.options.clock.wall() - retentionMs))
    const args = [key, ...[id, partition].map(text)]
    const start = await this.count(
      'STREAM.RETAIN',
      [...args, text(retentionBytes ?? '-'), text(before)],
      'stale',
    )
    const place = `${id}/${partition}`
    if (start <= (this.cuts.get(place) ?? 0)) return
    await this.count('STREAM.TRIM', [...args, text(start)], 'linearizable')
    this.cuts.set(place, start)
    this.options.log.debug('retention cut a partition', { stream: name, partition, start })
  }

  /** Tells the shards led here which streams are gone, those that do not know it: their partitions go. */
  sweep(): Promise<void> {
    return this.alone('sweep of streams', async register => {
      const gone = goneOf(register)
      for (const place of this.cuts.keys())
        if (isGone(gone, Number(place.split('/')[0]))) this.cuts.delete(place)
      for (const shard of this.options.led()) {
        const call = plainCall('STREAM.GONE', [], keeperLimits.callMs)
        const { reply } = await this.options.execute({ ...call, shard, read: 'stale' })
        if (reply.kind !== 'list') continue
        const [next = 1, ...alive] = reply.items.map(({ value }) => Number(toUtf8(value!)))
        // What it knows already, perhaps from a node that knows more, is not told again.
        const isNews = gone.next > next || alive.some(id => isGone(gone, id))
        if (isNews) await this.drop(shard, gone)
      }
    })
  }

  /** Resolves when the shard knows that these are gone, and takes nothing for them any more. */
  async drop(shard: number, { next, alive }: GoneStreams): Promise<void> {
    const call = plainCall('STREAM.DROP', [next, ...alive].map(text), keeperLimits.callMs)
    await this.options.execute({ ...call, shard })
  }

  private async count(command: string, args: Uint8Array[], read: Call['read']): Promise<number> {
    const { reply } = await this.options.execute({ ...plainCall(command, args, keeperLimits.callMs), read })
    return reply.kind === 'count' ? Number(reply.count) : 0
  }

  /** One round at a time. What fails is tried again by the next. */
  private async alone(name: string, work: (register: Register) => Promise<void>): Promise<void> {
    const register = this.options.register()
    if (register === null || this.busy.has(name)) return
    this.busy.add(name)
    try {
      await work(register)
    } catch (error) {
      this.options.log.debug(`${name} interrupted`, { error: (error as Error).message })
    } finally {
      this.busy.delete(name)
    }
  }
}

function text(value: number | string): Uint8Array {
  return fromUtf8(String(value))
}
