/** The stream that a workload is about, and the requests that fill it: in turn to each of its partitions. */
import { randomBytes } from 'node:crypto'
import { ProduceRequest, type Record } from '../gen/log/v1/log.ts'
import type { Random } from '../lib/prng.ts'
import type { BenchCluster } from './ports.ts'
import { ValueBlock } from './value-block.ts'

export class BenchStream {
  readonly name: string
  readonly partitions: number
  /** By partition: what its slot is made of. */
  private readonly keys: readonly string[]

  constructor(name: string, partitions: number) {
    this.name = name
    this.partitions = partitions
    this.keys = Array.from({ length: partitions }, (_, partition) => `${name}/${partition}`)
  }

  static async create(cluster: BenchCluster, partitions: number): Promise<BenchStream> {
    const name = `bench-${randomBytes(4).toString('hex')}`
    await cluster.createStream(name, partitions)
    return new BenchStream(name, partitions)
  }

  keyOf(partition: number): string {
    return this.keys[partition]!
  }
}

export class Batches {
  private readonly stream: BenchStream
  private readonly values: ValueBlock
  private turn = 0

  constructor(stream: BenchStream, valueBytes: number, random: Random) {
    this.stream = stream
    this.values = new ValueBlock(valueBytes, random)
  }

  /** `type`: of the last record. */
  next(records: number, type = 0): ProduceRequest & { readonly partition: number } {
    const all = Array.from({ length: records }, () => recordOf(this.values.next()))
    all[records - 1]!.type = type
    const partition = this.turn
    this.turn = (this.turn + 1) % this.stream.partitions
    // Set field by field: fromPartial would copy every value.
    const request = ProduceRequest.create()
    request.stream = this.stream.name
    request.records = all
    return Object.assign(request, { partition })
  }
}

function recordOf(value: Buffer): Record {
  return { value, offset: 0n, term: 0n, type: 0, headers: [], timestampMs: 0n }
}
