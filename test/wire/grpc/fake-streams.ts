/** Streams in memory behind the port that wires see: one replica, which is always right. */
import type { Operation } from '../../../src/commands/envelope.ts'
import { RoundhouseError } from '../../../src/errors.ts'
import { keepRecord, recordStamp, timestampOf } from '../../../src/keyspace/record.ts'
import { type Bytes, fromUtf8 } from '../../../src/lib/bytes.ts'
import type { StreamRecord } from '../../../src/node/meta-register.ts'
import type {
  Batch,
  CopiedRecord,
  LogServer,
  PartitionPlace,
  Produced,
  ProducedRecord,
  ReadOptions,
  ReadRecords,
  StreamDescription,
  StreamService,
  StreamWish,
} from '../../../src/node/ports.ts'
import { encodeBatch } from '../../../src/node/stream-batch.ts'

interface FakeStream {
  record: StreamRecord
  readonly partitions: { start: number; kept: Bytes[] }[]
}

export class FakeStreams implements StreamService {
  readonly batches: Batch[] = []
  readonly reads: { readonly from: number; readonly options: ReadOptions }[] = []
  /** Before a batch is taken; it may take its time, or throw. */
  onProduce: (batch: Batch) => Promise<void> | void = () => {}
  lagMs = 0
  nowMs = 1_000
  waiting = 0
  private readonly streams = new Map<string, FakeStream>()
  private readonly waiters = new Set<() => void>()
  /** By session and sequence: what was answered is answered again. */
  private readonly answered = new Map<string, Produced>()
  private nextId = 1

  async create({
    name,
    partitions,
    retentionMs,
    retentionBytes,
    ifMissing,
  }: StreamWish): Promise<StreamRecord> {
    const known = this.streams.get(name)
    if (known !== undefined && ifMissing) return known.record
    if (known !== undefined) throw new RoundhouseError('STREAM_EXISTS', { stream: name })
    const id = this.nextId++
    const record = { name, id, partitions, retentionMs, retentionBytes, createdMs: this.nowMs, nonce: id }
    const empty = Array.from({ length: partitions }, () => ({ start: 0, kept: [] }))
    this.streams.set(name, { record, partitions: empty })
    return record
  }

  async change(name: string, retention: Partial<StreamWish>): Promise<StreamRecord> {
    const stream = this.of(name)
    stream.record = { ...stream.record, ...retention }
    return stream.record
  }

  async delete(name: string): Promise<void> {
    this.of(name)
    this.streams.delete(name)
    this.wake()
  }

  list(): readonly StreamRecord[] {
    return [...this.streams.values()].map(each => each.record)
  }

  async describe(name: string): Promise<StreamDescription> {
    const { record, partitions } = this.of(name)
    return {
      stream: record,
      partitions: partitions.map(({ start, kept }, partition) => ({
        partition,
        shard: partition,
        leader: 'n1',
        replicas: ['n1', 'n2'],
        start,
        end: kept.length,
        timestampMs: kept.length === 0 ? 0 : timestampOf(kept.at(-1)!),
        bytes: kept.reduce((sum, each) => sum + each.byteLength, 0),
        error: null,
      })),
    }
  }

  async truncate(name: string, partition: number, before: number): Promise<number> {
    const found = this.partition(await this.find(name, partition))
    const [start, end] = [found.start, found.kept.length]
    if (before > end) throw outOfRange(name, partition, before, start, end)
    found.start = Math.max(start, before)
    return found.start
  }

  async copy(
    name: string,
    partition: number,
    offset: number,
    records: readonly CopiedRecord[],
  ): Promise<number> {
    const encoded = encodeBatch(records)
    const found = this.partition(await this.find(name, partition))
    const [start, end] = [found.start, found.kept.length]
    if (offset !== end && (offset < end || start !== end))
      throw outOfRange(name, partition, offset, start, end)
    if (offset > end) {
      found.start = offset
      while (found.kept.length < offset) found.kept.push(fromUtf8('never read'))
    }
    for (const [i, record] of encoded.entries())
      found.kept.push(keepRecord(record, recordStamp(records[i]!.timestampMs, 3)))
    this.wake()
    return found.kept.length
  }

  async produce(batch: Batch): Promise<Produced> {
    const encoded = encodeBatch(batch.records)
    this.batches.push(batch)
    await this.onProduce(batch)
    const { session } = batch
    const once = session === null ? '' : `${Buffer.from(session.id).toString('hex')} ${session.sequence}`
    const known = this.answered.get(once)
    if (known !== undefined) return known
    const partition = batch.partition ?? 0
    const found = this.partition(await this.find(batch.stream, partition))
    const offset = found.kept.length
    for (const record of encoded) found.kept.push(keepRecord(record, recordStamp(this.nowMs++, 3)))
    this.wake()
    const produced = { partition, offset, count: batch.records.length }
    if (session !== null) this.answered.set(once, produced)
    return produced
  }

  async operationOf(name: string, partition: number, records: readonly ProducedRecord[]): Promise<Operation> {
    const { key, id } = await this.find(name, partition)
    const places = [key, fromUtf8(String(id)), fromUtf8(String(partition))]
    return { command: 'STREAM.APPEND', args: [...places, ...encodeBatch(records)] }
  }

  async find(name: string, partition: number, id = 0): Promise<PartitionPlace> {
    if ((name === '' || name === 'default') && !this.streams.has('default'))
      await this.create({
        name: 'default',
        partitions: 1,
        retentionMs: null,
        retentionBytes: null,
        ifMissing: true,
      })
    const { record, partitions } = this.of(name)
    if (id !== 0 && id !== record.id)
      throw new RoundhouseError('STREAM_REMADE', { stream: record.name, asked: id, id: record.id })
    if (partition >= partitions.length)
      throw new RoundhouseError('NO_SUCH_PARTITION', {
        stream: name,
        partition,
        partitions: partitions.length,
      })
    const key = fromUtf8(`${record.name}/${partition}`)
    return { stream: record.name, id: record.id, partition, shard: partition, key }
  }

  async read(place: PartitionPlace, from: number, options: ReadOptions): Promise<ReadRecords> {
    this.reads.push({ from, options })
    const { start, kept } = this.partition(place)
    if (from < start || from > kept.length)
      throw outOfRange(place.stream, place.partition, from, start, kept.length)
    const found: Bytes[] = []
    let bytes = 0
    for (const each of kept.slice(from)) {
      bytes += each.byteLength
      if (found.length > 0 && bytes > options.bytesMax) break
      found.push(each)
    }
    return { kept: found, start, end: kept.length, lagMs: this.lagMs }
  }

  async seek(place: PartitionPlace, timestampMs: number): Promise<number> {
    const { start, kept } = this.partition(place)
    const found = kept.findIndex((each, offset) => offset >= start && timestampOf(each) >= timestampMs)
    return found === -1 ? kept.length : found
  }

  async rangeOf(place: PartitionPlace): Promise<{ start: number; end: number }> {
    const { start, kept } = this.partition(place)
    return { start, end: kept.length }
  }

  wait(place: PartitionPlace, offset: number, _timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    this.waiting++
    return new Promise(resolve => {
      const look = () => {
        const isMore = !this.streams.has(place.stream) || this.partition(place).kept.length > offset
        if (!isMore && !signal.aborted) return
        this.waiters.delete(look)
        signal.removeEventListener('abort', look)
        this.waiting--
        resolve(isMore)
      }
      this.waiters.add(look)
      signal.addEventListener('abort', look)
      look()
    })
  }

  servers(_name: string, partition: number): readonly LogServer[] {
    return ['n1', 'n2'].map((nodeId, i) => ({
      nodeId,
      clientAddress: `${nodeId}.example:8080`,
      isLeader: i === partition % 2,
    }))
  }

  private of(name: string): FakeStream {
    const stream = this.streams.get(name === '' ? 'default' : name)
    if (stream === undefined) throw new RoundhouseError('NO_SUCH_STREAM', { stream: name })
    return stream
  }

  private partition({ stream, id, partition }: PartitionPlace): FakeStream['partitions'][number] {
    const found = this.of(stream)
    if (found.record.id !== id) throw new RoundhouseError('NO_SUCH_STREAM', { stream })
    return found.partitions[partition]!
  }

  private wake(): void {
    for (const look of [...this.waiters]) look()
  }
}

function outOfRange(
  name: string,
  partition: number,
  offset: number,
  start: number,
  end: number,
): RoundhouseError {
  return new RoundhouseError('OFFSET_OUT_OF_RANGE', { what: `${name}/${partition}`, offset, start, end })
}
