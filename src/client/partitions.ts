/**
 * Into how many partitions streams fall, and where records go. The number of a stream never changes; but one that is made
 * anew under its name may have another, so what is known is looked up again from time to time.
 */
import xxhash from 'xxhash-wasm'
import type { DescribeStreamResponse, ListStreamsResponse } from '../gen/roundhouse/v1/streams.ts'
import { CallError } from './call-error.ts'
import type { Engine } from './engine.ts'
import { ask, once } from './errand.ts'

const ageMsMax = 60_000
/** Streams that are known at one time; beyond it the one that was looked up first goes. */
const knownMax = 10_000
const defaultStream = 'default'

export interface Patience {
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
}

/** A partition lies where this key lies. */
export function partitionKey(stream: string, partition: number): Buffer {
  return Buffer.from(`${nameOf(stream)}/${partition}`, 'utf8')
}

/** Without a name it is `default`. */
export function nameOf(stream: string): string {
  return stream === '' ? defaultStream : stream
}

export class Partitions {
  private readonly engine: Engine
  /** Loading it takes a moment, as asking does. */
  private hash64: ((text: string) => bigint) | null = null
  private readonly known = new Map<string, { readonly count: number; readonly atMs: number }>()

  constructor(engine: Engine) {
    this.engine = engine
  }

  /** null: it has to be asked for. */
  countOf(stream: string): number | null {
    const found = this.known.get(stream)
    return found !== undefined && performance.now() - found.atMs < ageMsMax ? found.count : null
  }

  /** As docs/streams.md says, so that all producers find the same one. Once a number was asked for. */
  ofKey(key: Buffer, count: number): number {
    return Number(this.hash64!(key.toString('utf8')) % BigInt(count))
  }

  forget(stream: string): void {
    this.known.delete(stream)
  }

  /** Rejects with CallError, NO_SUCH_STREAM among them. */
  async ask(stream: string, facts: Patience): Promise<number> {
    const count = (await this.listed(stream, facts)) ?? (await this.described(stream, facts))
    this.hash64 ??= (await xxhash()).h64
    if (this.known.size >= knownMax) this.known.delete(this.known.keys().next().value!)
    this.known.set(stream, { count, atMs: performance.now() })
    return count
  }

  /** What any node knows; null: it may not have heard of it. */
  private async listed(stream: string, facts: Patience): Promise<number | null> {
    const { streams } = await ask(
      this.engine,
      { name: 'STREAMS', access: 'read', isRepeatable: true, ...facts },
      (link, timeoutMs, signal) =>
        once<ListStreamsResponse>(link, timeoutMs, signal, (metadata, options, done) =>
          link.streams.list({}, metadata, options, done),
        ),
    )
    return streams.find(({ name }) => name === nameOf(stream))?.partitions ?? null
  }

  private async described(stream: string, facts: Patience): Promise<number> {
    try {
      const { stream: found } = await ask(
        this.engine,
        { name: 'STREAMS', access: 'read', isRepeatable: true, ...facts },
        (link, timeoutMs, signal) =>
          once<DescribeStreamResponse>(link, timeoutMs, signal, (metadata, options, done) =>
            link.streams.describe({ name: nameOf(stream) }, metadata, options, done),
          ),
      )
      return found?.partitions ?? 1
    } catch (error) {
      // It is made when it is first used.
      if (nameOf(stream) === defaultStream && error instanceof CallError && error.code === 'NO_SUCH_STREAM')
        return 1
      throw error
    }
  }
}
