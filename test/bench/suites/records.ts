/**
 * A stream that is filled as fast as its node takes records: requests of a mebibyte that are made once and sent as bytes,
 * so that what is measured afterwards does not wait for the client that wrote it.
 */
import { randomBytes } from 'node:crypto'
import { RawClient } from '../../../src/bench/against/raw-client.ts'
import { Batches, BenchStream } from '../../../src/bench/bench-stream.ts'
import type { OwnCluster } from '../../../src/bench/own-cluster.ts'
import { ProduceRequest, ProduceResponse } from '../../../src/gen/log/v1/log.ts'
import { Prng } from '../../../src/lib/prng.ts'
import { telling } from './suite.ts'

export const recordBytes = 1_024
const batchRecords = 1_000
const partitions = 8
/** Different requests of a partition, and those that are under way. */
const requestsOfPartition = 4
const inFlightOfPartition = 2
const callMsMax = 30_000
/** A node that says that it has too much gets time for it. */
const restMs = 100
const refusalsMax = 100

export class Records {
  private readonly cluster: OwnCluster
  private readonly stream: BenchStream
  /** By partition. */
  private readonly requests: readonly (readonly Uint8Array[])[]
  /** By partition: the offset after the last record that was acknowledged. */
  private readonly ends: number[] = Array.from({ length: partitions }, () => 0)

  private constructor(cluster: OwnCluster, stream: BenchStream) {
    this.cluster = cluster
    this.stream = stream
    const batches = new Batches(stream, recordBytes, new Prng(randomBytes(4).readUInt32LE()))
    const made: Uint8Array[][] = Array.from({ length: partitions }, () => [])
    for (let request = 0; request < partitions * requestsOfPartition; request++) {
      const next = batches.next(batchRecords)
      made[next.partition]!.push(ProduceRequest.encode(next).finish())
    }
    this.requests = made
  }

  /** On a cluster of one node, which leads every partition. */
  static async create(cluster: OwnCluster): Promise<Records> {
    return new Records(cluster, await BenchStream.create(cluster.bench, partitions))
  }

  /** Values. */
  get bytes(): number {
    return this.ends.reduce((sum, end) => sum + end, 0) * recordBytes
  }

  /** Until the values are so many bytes. Rejects when the node takes no more. */
  async fill(bytes: number, say: (line: string) => void, signal: AbortSignal): Promise<void> {
    const tell = telling(say)
    const [startedMs, before] = [performance.now(), this.bytes]
    let refusals = 0
    await this.write(async failure => {
      signal.throwIfAborted()
      if (failure === null) refusals = 0
      else {
        if (++refusals > refusalsMax) throw new Error(`records: ${failure}`)
        await new Promise(resolve => setTimeout(resolve, restMs))
      }
      const perSecond = ((this.bytes - before) * 1_000) / (performance.now() - startedMs)
      tell('records', this.bytes / bytes, perSecond / recordBytes)
      return this.bytes < bytes
    })
  }

  /** Until its node does not take them any more. */
  async writeUntilItDies(): Promise<void> {
    await this.write(failure => failure === null)
  }

  /** Whether the node has a record in the middle of this partition. */
  async hasMiddleOf(partition: number): Promise<boolean> {
    const offset = BigInt(Math.floor(this.ends[partition]! / 2))
    return this.cluster.consumes(this.cluster.nodes[0]!, this.stream.name, partition, offset)
  }

  get partitions(): number {
    return partitions
  }

  private async write(goesOn: (failure: string | null) => boolean | Promise<boolean>): Promise<void> {
    const client = new RawClient(this.cluster.nodes[0]!.address, this.cluster.bench.credentials)
    const work = async (partition: number) => {
      let failure: string | null = null
      for (let turn = 0; await goesOn(failure); turn++) {
        const request = this.requests[partition]![turn % requestsOfPartition]!
        try {
          const answer = ProduceResponse.decode(await client.ask('/log.v1.Log/Produce', request, callMsMax))
          this.ends[partition] = Math.max(this.ends[partition]!, Number(answer.offset) + answer.count)
          failure = null
        } catch (error) {
          failure = (error as Error).message
        }
      }
    }
    try {
      const workers = Array.from({ length: partitions * inFlightOfPartition }, (_, i) => work(i % partitions))
      await Promise.all(workers)
    } finally {
      client.close()
    }
  }
}
