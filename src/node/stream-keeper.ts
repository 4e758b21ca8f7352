import { fromUtf8, toUtf8 } from '../lib/bytes.ts'
import type { Clock } from '../lib/clock.ts'
import type { Logger } from '../lib/logger.ts'
import type { Register, StreamRecord } from './meta-register.ts'
import { type Call, type CallResult, plainCall } from './ports.ts'

/**
 * What the leader of a partition's shard does about its age: proposes to cut what retention gives up, and to drop what
 * belongs to streams that are gone. Both are entries like any other, so all replicas cut at the same offset; a leader that
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

  /** Drops the partitions led here whose stream is gone. */
  sweep(): Promise<void> {
    return this.alone('sweep of streams', async register => {
      const ids = new Set([...register.streams.values()].map(each => each.id))
      for (const place of this.cuts.keys()) if (!ids.has(Number(place.split('/')[0]))) this.cuts.delete(place)
      for (const shard of this.options.led()) {
        const call = plainCall('STREAM.PARTITIONS', [], keeperLimits.callMs)
        const { reply } = await this.options.execute({ ...call, shard, read: 'stale' })
        if (reply.kind !== 'list') continue
        for (const { key, value } of reply.items) {
          const [id, partition] = toUtf8(value ?? new Uint8Array(0))
            .split(' ')
            .map(Number)
          // An id that this register has not seen given out belongs to a stream that it has not heard of.
          if (key === undefined || id === undefined || partition === undefined) continue
          if (ids.has(id) || id >= register.nextStream) continue
          await this.drop(key, id, partition)
        }
      }
    })
  }

  /** Resolves when the partition is gone. */
  async drop(key: Uint8Array, id: number, partition: number): Promise<void> {
    await this.options.execute(
      plainCall('STREAM.DROP', [key, text(id), text(partition)], keeperLimits.callMs),
    )
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
