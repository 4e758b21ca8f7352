/**
 * Streams under load, and what is never to be seen of them: an offset with two contents, a record at two offsets or that
 * nobody produced, an acknowledged one that is gone, a gap, an end or a start that goes back, an offset or a time that
 * decreases. One partition is written by atomic entries alone, each with a count in a key beside it: they must agree.
 */
import type { Reply } from '../../src/commands/command.ts'
import { decodeKept, encodeRecord } from '../../src/keyspace/record.ts'
import { type Bytes, emptyBytes, fromUtf8, toUtf8 } from '../../src/lib/bytes.ts'
import { pack } from '../../src/lib/packed.ts'
import type { Client, Outcome } from './client.ts'
import type { SimCluster } from './sim-cluster.ts'

/** As the catalogue would have numbered it. */
const streamId = '1'
const readBytesMax = 600
const recordsMax = 4

interface Partition {
  readonly name: string
  readonly number: string
  /** By offset: what anybody has seen there, and when it is said to have come. */
  readonly content: Map<number, { readonly value: string; readonly timestampMs: number }>
  readonly placeOf: Map<string, number>
  /** Acknowledged, or seen by a linearizable read: nothing later may show less. */
  end: number
  start: number
  /** As far as a trim that may have been applied could have come. */
  trimmedTo: number
}

export class Streams {
  private readonly cluster: SimCluster
  private readonly violated: (text: string) => void
  private readonly partitions: readonly Partition[]
  private readonly guarded: Partition
  private readonly begun = new Set<string>()
  private tokens = 0

  constructor(cluster: SimCluster, partitions: number, violated: (text: string) => void) {
    this.cluster = cluster
    this.violated = violated
    this.partitions = Array.from({ length: partitions }, (_, number) => partitionOf(number))
    this.guarded = partitionOf(partitions)
  }

  /** One thing that a client may do. */
  async act(client: Client): Promise<void> {
    const { random } = client
    const partition = this.partitions[random.below(this.partitions.length)]!
    const draw = random.next()
    if (draw < 0.45) await this.produce(client, partition)
    else if (draw < 0.75) await this.read(client, partition, random.next() < 0.5)
    else if (draw < 0.82) await this.trim(client, partition)
    else if (draw < 0.9) await this.seek(client, partition)
    else await this.atomic(client)
  }

  private records(client: Client): { readonly values: string[]; readonly records: Bytes[] } {
    const values = Array.from(
      { length: 1 + client.random.below(recordsMax) },
      () => `${client.name}-${++this.tokens}${'.'.repeat(client.random.below(40))}`,
    )
    for (const value of values) this.begun.add(value)
    const records = values.map(value =>
      encodeRecord({ value: fromUtf8(value), key: null, headers: [], type: 0 }),
    )
    return { values, records }
  }

  private async produce(client: Client, partition: Partition): Promise<void> {
    const { values, records } = this.records(client)
    const endBefore = partition.end
    const [name, added] =
      client.random.next() < 0.3 ? ['STREAM.APPEND', records] : ['STREAM.BATCH', this.packed(client, records)]
    const outcome = await client.write(name, [...placeOf(partition), ...added])
    if (outcome.kind !== 'done') return this.refused(outcome, 'an append')
    this.acknowledged(partition, countIn(outcome.reply), values, endBefore)
  }

  /** Of several producers, as the group commit of a node puts them together. */
  private packed({ random }: Client, records: readonly Bytes[]): Bytes[] {
    const split = random.below(records.length)
    const batches = split === 0 ? [records] : [records.slice(0, split), records.slice(split)]
    return batches.map(each => pack(each).bytes)
  }

  private acknowledged(
    partition: Partition,
    first: number,
    values: readonly string[],
    endBefore: number,
  ): void {
    if (first < endBefore)
      this.violated(
        `${partition.name}: an append got offset ${first}, ${endBefore} were acknowledged before it began`,
      )
    for (const [i, value] of values.entries()) this.seen(partition, first + i, value, null)
    partition.end = Math.max(partition.end, first + values.length)
  }

  /** The same content at the same offset, for ever. */
  private seen(partition: Partition, offset: number, value: string, timestampMs: number | null): void {
    const { content, placeOf: places, name } = partition
    if (!this.begun.has(value)) this.violated(`${name}: ${value} at ${offset}, which nobody produced`)
    const place = places.get(value)
    if (place !== undefined && place !== offset)
      this.violated(`${name}: ${value} is at ${place} and at ${offset}`)
    places.set(value, offset)
    const known = content.get(offset)
    if (known !== undefined && known.value !== value)
      this.violated(`${name}: ${known.value} and ${value} are both at ${offset}`)
    const time = timestampMs ?? known?.timestampMs ?? Number.NaN
    if (
      known !== undefined &&
      timestampMs !== null &&
      known.timestampMs > 0 &&
      known.timestampMs !== timestampMs
    )
      this.violated(`${name}: the record at ${offset} is of ${known.timestampMs} and of ${timestampMs}`)
    content.set(offset, { value, timestampMs: Number.isNaN(time) ? 0 : time })
  }

  private async read(client: Client, partition: Partition, isStale: boolean): Promise<void> {
    const { start, end } = partition
    const from = start + client.random.below(Math.max(1, end - start + 1))
    await this.readFrom(client, partition, from, isStale)
  }

  /** Answers the offset after the last record, and the end that the replica told; null where there was no answer. */
  private async readFrom(
    client: Client,
    partition: Partition,
    from: number,
    isStale: boolean,
  ): Promise<{ readonly next: number; readonly end: number } | null> {
    const { name, end: endBefore, start: startBefore } = partition
    const args = [...placeOf(partition), String(from), String(readBytesMax)]
    const outcome = await client.read('STREAM.READ', args, isStale ? 'stale' : 'linearizable')
    if (outcome.kind !== 'done') {
      if (outcome.kind === 'refused' && outcome.error?.code === 'OFFSET_OUT_OF_RANGE') {
        // Trimmed meanwhile; or a replica that has not come so far yet.
        if (!isStale && from >= partition.trimmedTo)
          this.violated(
            `${name}: ${from} is out of range, ${endBefore} were acknowledged: ${outcome.error.message}`,
          )
      } else this.refused(outcome, 'a read')
      return null
    }
    const { reply } = outcome
    if (reply.kind !== 'list') throw new Error(`a ${reply.kind} for STREAM.READ`)
    const [start = 0, end = 0] = toUtf8(reply.cursor ?? emptyBytes)
      .split(' ')
      .map(Number)
    if (!isStale && (end < endBefore || start < startBefore))
      this.violated(`${name}: [${start}, ${end}) after [${startBefore}, ${endBefore})`)
    if (start > partition.trimmedTo)
      this.violated(`${name}: it begins at ${start}, nobody trimmed beyond ${partition.trimmedTo}`)
    if (from < end && reply.items.length === 0)
      this.violated(`${name}: nothing at ${from}, it ends at ${end}`)
    let last = 0
    for (const [i, { value }] of reply.items.entries()) {
      const kept = decodeKept(value!)
      if (kept.timestampMs < last) this.violated(`${name}: time goes back at ${from + i}`)
      last = kept.timestampMs
      if (from + i >= end) this.violated(`${name}: a record at ${from + i}, past the end ${end}`)
      this.seen(partition, from + i, toUtf8(kept.value), kept.timestampMs)
    }
    if (!isStale) {
      partition.end = Math.max(partition.end, end)
      partition.start = Math.max(partition.start, start)
    }
    if (reply.items.length > 0) this.cluster.sightings.see('recordsRead')
    return { next: from + reply.items.length, end }
  }

  private async trim(client: Client, partition: Partition): Promise<void> {
    const to = client.random.below(partition.end + 1)
    partition.trimmedTo = Math.max(partition.trimmedTo, to)
    const outcome = await client.write('STREAM.TRIM', [...placeOf(partition), String(to)])
    if (outcome.kind !== 'done') return this.refused(outcome, 'a trim')
    const start = countIn(outcome.reply)
    if (start < to || start > partition.trimmedTo)
      this.violated(`${partition.name}: trimmed to ${to}, it begins at ${start}`)
    partition.start = Math.max(partition.start, start)
    this.cluster.sightings.see('streamTrimmed')
  }

  private async seek(client: Client, partition: Partition): Promise<void> {
    const known = [...partition.content].filter(([, { timestampMs }]) => timestampMs > 0)
    const [offset, { timestampMs }] = known[client.random.below(known.length)] ?? [0, { timestampMs: 0 }]
    const outcome = await client.read('STREAM.SEEK', [...placeOf(partition), String(timestampMs)])
    if (outcome.kind !== 'done') return this.refused(outcome, 'a search by time')
    const found = countIn(outcome.reply)
    const at = partition.content.get(found)?.timestampMs ?? 0
    if (found > Math.max(offset, partition.trimmedTo) || (at > 0 && at < timestampMs))
      this.violated(`${partition.name}: ${timestampMs} is at ${offset}, and was looked for at ${found}`)
  }

  /** A record and the count of records in a key beside it, in one entry. */
  private async atomic(client: Client): Promise<void> {
    const { values, records } = this.records(client)
    const one = records.slice(0, 1)
    const append = [...placeOf(this.guarded), ...one]
    const key = `{${this.guarded.name}}n`
    const args = [this.guarded.name, 'INCR', '1', key, 'STREAM.APPEND', String(append.length), ...append]
    // Now and then a guard that is not met: then neither of the others is to be seen.
    const isGuarded = client.random.next() < 0.3
    if (isGuarded) args.push('SET', '3', key, 'never', 'NX')
    const outcome = await client.write('ATOMIC', args)
    if (outcome.kind === 'done') {
      if (isGuarded) this.violated('an atomic entry was applied, and its guard was not met')
      this.cluster.sightings.see('atomicApplied')
    } else if (outcome.kind === 'refused' && outcome.error?.code === 'CONDITION_NOT_MET') {
      this.cluster.sightings.see('atomicRefused')
      this.begun.delete(values[0]!)
    } else this.refused(outcome, 'an atomic entry')
  }

  private refused(outcome: Outcome, what: string): void {
    if (outcome.kind !== 'refused' || outcome.error === null) return
    const { code, message } = outcome.error
    if (!code.startsWith('SESSION_') && code !== 'UNKNOWN_COMMAND') this.violated(`${what}: ${message}`)
  }

  /** When all is quiet: everything that was acknowledged and not trimmed is there, through this client's node. */
  async finish(client: Client): Promise<void> {
    for (const partition of [...this.partitions, this.guarded]) {
      for (let next = partition.trimmedTo, end = partition.end; next < end; ) {
        const read = await this.readFrom(client, partition, next, false)
        if (read === null) {
          this.violated(`${partition.name} can't be read at ${next} at the end: ${client.lastTrouble}`)
          break
        }
        next = read.next
        end = read.end
      }
    }
    const info = await client.read('STREAM.INFO', placeOf(this.guarded))
    const count = await client.read('GET', [`{${this.guarded.name}}n`])
    if (info.kind !== 'done' || count.kind !== 'done' || info.reply.kind !== 'list') return
    const end = toUtf8(info.reply.items[1]!.value!)
    if (end !== (count.text ?? '0'))
      this.violated(`${end} records of atomic entries, and a count of ${count.text} beside them`)
  }
}

function partitionOf(number: number): Partition {
  return {
    ...{ name: `s/${number}`, number: String(number), content: new Map(), placeOf: new Map() },
    ...{ end: 0, start: 0, trimmedTo: 0 },
  }
}

function placeOf({ name, number }: Partition): (string | Bytes)[] {
  return [name, streamId, number]
}

function countIn(reply: Reply): number {
  if (reply.kind !== 'count') throw new Error(`a ${reply.kind} where a count should be`)
  return Number(reply.count)
}
