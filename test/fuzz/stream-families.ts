/** Streams from end to end: their requests, what a node asks another about them, records, groups, and files of records. */
import { parseCall } from '../../src/commands/table.ts'
import { AtomicRequest, AtomicResponse } from '../../src/gen/clusterpb/cluster.ts'
import {
  ConsumeRequest,
  ConsumeResponse,
  type From,
  GetServersRequest,
  ProduceRequest,
} from '../../src/gen/log/v1/log.ts'
import {
  ChangeStreamRequest,
  CopyStreamRequest,
  CreateStreamRequest,
  DeleteStreamRequest,
  DescribeStreamRequest,
  ListStreamsRequest,
  TruncateStreamRequest,
} from '../../src/gen/roundhouse/v1/streams.ts'
import {
  decodeBeat,
  decodeGroup,
  decodeMember,
  decodeOffset,
  encodeBeat,
  encodeGroup,
  encodeMember,
  encodeOffset,
  partitionKey,
} from '../../src/keyspace/group-rows.ts'
import { Keyspace } from '../../src/keyspace/keyspace.ts'
import { MemoryRows } from '../../src/keyspace/memory-rows.ts'
import { decodePartition } from '../../src/keyspace/partitions.ts'
import {
  decodeKept,
  decodeRecord,
  encodeRecord,
  keepRecord,
  recordStamp,
  timestampOf,
} from '../../src/keyspace/record.ts'
import { prefixes } from '../../src/keyspace/rows.ts'
import { BrokenInvariant } from '../../src/lib/assert.ts'
import { Malformed } from '../../src/lib/byte-reader.ts'
import { type Bytes, equalBytes } from '../../src/lib/bytes.ts'
import { crc32 } from '../../src/lib/crc.ts'
import { pack, unpack } from '../../src/lib/packed.ts'
import { Prng } from '../../src/lib/prng.ts'
import { heapMapper } from '../../src/log/mapped-file.ts'
import { WarmSegments } from '../../src/log/warm-segments.ts'
import { encodeBatch, produceLimits } from '../../src/node/stream-batch.ts'
import { readWaitRequest } from '../../src/node/stream-tails.ts'
import { nobodyIsChecked } from '../../src/peer/caller.ts'
import { decodeMessage, encodeMessage } from '../../src/peer/proto-io.ts'
import { openLogs, recordPartPlace } from '../../src/storage/record-logs.ts'
import { scrubRecords } from '../../src/storage/record-scrub.ts'
import { ClusterNodeHandlers, clusterNodeMethods } from '../../src/wire/grpc/cluster-node.ts'
import { LogHandlers, logMethods } from '../../src/wire/grpc/log.ts'
import { encodeBatchResponse, encodeRecordResponse } from '../../src/wire/grpc/log-codec.ts'
import { streamsHandlers, streamsMethods } from '../../src/wire/grpc/streams.ts'
import { SimDisk } from '../lib/sim-disk.ts'
import { SimCluster } from '../sim/sim-cluster.ts'
import { FakeService } from '../wire/grpc/fake-service.ts'
import { decodes, type Family, type Outcome } from './family.ts'
import {
  connections,
  FakeStream,
  gateOptions,
  OneShard,
  type RawMethod,
  throwUnexpected,
  unaryLater,
} from './gate.ts'
import { damagedJson, Mutator } from './mutate.ts'

/** What the cases of a family hold grows with them; a new one every so often keeps that in bounds. */
const inputsOfOneNode = 2_000

// --- Requests -------------------------------------------------------------------------------------------------------

const text = (value: string): Buffer => Buffer.from(value)

type WireRecord = ProduceRequest['records'][number]

function someRecord(random: Prng): WireRecord {
  const headers = Array.from({ length: random.below(3) }, (_, i) => ({
    name: `h${i}`,
    value: Buffer.from(random.bytes(random.below(8))),
  }))
  return {
    value: Buffer.from(random.bytes(random.below(40))),
    offset: 0n,
    term: 0n,
    type: random.below(3),
    headers,
    timestampMs: 0n,
    key: random.below(2) === 0 ? undefined : text(`key${random.below(5)}`),
    crc: undefined,
  }
}

/** As a careful producer sends it: with the checksum of what the node will store. */
function checked(record: WireRecord): WireRecord {
  const { value, headers, type } = record
  const [stored] = encodeBatch([{ value, headers, type, key: record.key ?? null }])
  return { ...record, crc: new DataView(stored!.buffer, stored!.byteOffset).getUint32(0, true) }
}

function someBatch(random: Prng): ProduceRequest {
  const records = Array.from({ length: 1 + random.below(4) }, () => {
    const record = someRecord(random)
    return random.below(2) === 0 ? record : checked(record)
  })
  const hasSession = random.below(2) === 0
  return ProduceRequest.fromPartial({
    records,
    stream: ['', 'default', 'orders', 'none'][random.below(4)]!,
    ...(random.below(3) === 0 ? {} : { partition: random.below(4) }),
    ...(hasSession
      ? { session: Buffer.from(random.bytes(16)), sequence: BigInt(1 + random.below(3)), ackedBelow: 1n }
      : {}),
  })
}

function someConsumption(random: Prng): ConsumeRequest {
  return ConsumeRequest.fromPartial({
    stream: ['', 'orders'][random.below(2)]!,
    partition: random.below(3),
    offset: BigInt(random.below(6)),
    from: random.below(4) as From,
    timestampMs: BigInt(random.below(3_000)),
    maxBytes: random.below(2) * random.below(2_000),
    maxRecords: BigInt(random.below(4)),
    idleMs: 0,
    linearizable: random.below(2) === 0,
    batches: random.below(2) === 0,
    group: random.below(4) === 0 ? 'g' : '',
  })
}

const batchesOf = (random: Prng): Buffer[] =>
  Array.from({ length: 100 }, () => encodeMessage(ProduceRequest, someBatch(random)))

/** The reader by hand takes nothing that the generated one does not, and reads the same from it. */
const produceRequests: Family = {
  name: 'produce-request',
  refuses: 'INVALID_ARGUMENT',
  share: 1,
  open: async random => {
    const mutator = new Mutator(batchesOf(random))
    return {
      run: each => {
        const bytes = Buffer.from(mutator.next(each))
        const { message } = logMethods.produce.requestDeserialize(bytes)
        if (message === null) return 'refused'
        const plain = decodeMessage(ProduceRequest, bytes)
        const known = plain.records.map(({ value, key, headers, type, crc }) =>
          textOf({ value, key: key ?? null, headers, type, crc }),
        )
        const read = message.records.map(({ value, key, headers, type, crc }) =>
          textOf({ value, key, headers, type, crc }),
        )
        const [ours, theirs] = [message, { ...plain, partition: plain.partition ?? null }].map(
          ({ stream, partition, acks, session, sequence, ackedBelow }) =>
            textOf({ stream, partition, acks, session, sequence, ackedBelow }),
        )
        if (ours !== theirs) throw new Error(`${ours} is read, it says ${theirs}`)
        const wrong = (): never => {
          throw new Error(`${read} are read, it says ${known}`)
        }
        const isCut =
          known.length > produceLimits.recordsMax ||
          plain.records.some(({ headers }) => headers.length > produceLimits.headersMax)
        // A single one and many are two fields, and here one list.
        if (plain.record !== undefined) return known.every(each => read.includes(each)) ? 'taken' : wrong()
        if (!isCut && read.join() !== known.join()) wrong()
        return 'taken'
      },
    }
  },
}

function textOf(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => {
    if (typeof each === 'bigint') return String(each)
    return each instanceof Uint8Array ? Buffer.from(each).toString('hex') : each
  })
}

/** All calls of log.v1, on streams in memory: what was taken can be read, by the generated code. */
const logCalls: Family = {
  name: 'log-call',
  refuses: 'a status with one of our codes',
  share: 0.5,
  isStateful: true,
  open: async random => {
    const produce = new Mutator(batchesOf(random))
    const consume = new Mutator(
      Array.from({ length: 60 }, () => encodeMessage(ConsumeRequest, someConsumption(random))),
    )
    const servers = new Mutator([encodeMessage(GetServersRequest, { stream: 'orders', partition: 1 })])
    let inputs = 0
    let service: FakeService
    let handlers: Record<string, unknown>
    const begin = async () => {
      service = new FakeService()
      handlers = new LogHandlers(gateOptions(service), connections).handlers()
      const retention = { retentionMs: null, retentionBytes: null }
      await service.streams.create({ name: 'orders', partitions: 3, ...retention, ifMissing: true })
    }
    const unary = async (name: 'produce' | 'consume' | 'getServers', bytes: Uint8Array) => {
      const answer = await unaryLater(handlers[name], logMethods[name], bytes)
      if (answer !== null && name === 'consume') decodeMessage(ConsumeResponse, answer)
      return answer === null ? ('refused' as const) : ('taken' as const)
    }
    const run = async (each: Prng): Promise<Outcome> => {
      switch (each.below(6)) {
        case 0:
          return unary('getServers', servers.next(each))
        case 1:
          return unary('consume', consume.next(each))
        case 2:
          return consumed(handlers.consumeStream, consume.next(each))
        case 3: {
          const all = Array.from({ length: 1 + each.below(4) }, () => produce.next(each))
          return produced(handlers.produceStream, all)
        }
        default:
          return unary('produce', produce.next(each))
      }
    }
    return {
      run: async each => {
        if (inputs++ % inputsOfOneNode === 0) await begin()
        const outcome = await run(each)
        throwUnexpected()
        service.streams.batches.length = 0
        service.streams.reads.length = 0
        service.calls.length = 0
        return outcome
      },
    }
  },
}

/** A stream ends once: with OK, or with an error that has a status. */
function watched(stream: FakeStream): { error: { code: unknown } | null } {
  const end: { error: { code: unknown } | null } = { error: null }
  stream.on('error', (error: Error & { code: unknown }) => {
    if (end.error !== null || stream.ends > 0) throw new Error(`a second end: ${error.message}`)
    if (typeof error.code !== 'number') throw error
    end.error = error
  })
  return end
}

async function ended(stream: FakeStream, end: { error: unknown }): Promise<void> {
  for (let turns = 0; stream.ends === 0 && end.error === null && turns < 5_000; turns++)
    await Promise.resolve()
  if (stream.ends + Number(end.error !== null) !== 1) throw new Error(`${stream.ends} ends`)
  stream.emit('close')
}

async function produced(handler: unknown, requests: readonly Uint8Array[]): Promise<Outcome> {
  const stream = new FakeStream()
  const end = watched(stream)
  ;(handler as (stream: FakeStream) => void)(stream)
  for (const bytes of requests)
    stream.emit('data', logMethods.produceStream.requestDeserialize(Buffer.from(bytes)))
  stream.emit('end')
  await ended(stream, end)
  if (end.error === null && stream.written.length !== requests.length)
    throw new Error(`${stream.written.length} answers to ${requests.length} batches`)
  return end.error === null ? 'taken' : 'refused'
}

async function consumed(handler: unknown, bytes: Uint8Array): Promise<Outcome> {
  const request = logMethods.consumeStream.requestDeserialize(Buffer.from(bytes))
  const stream = Object.assign(new FakeStream(), { request })
  const end = watched(stream)
  void (handler as (stream: FakeStream) => void)(stream)
  // Who waits at the tail for longer goes.
  for (let turns = 0; turns < 500 && stream.ends === 0 && end.error === null; turns++) await Promise.resolve()
  const isWaiting = stream.ends === 0 && end.error === null
  if (isWaiting) {
    stream.emit('cancelled')
    for (let turns = 0; turns < 50; turns++) await Promise.resolve()
    stream.emit('close')
  } else await ended(stream, end)
  for (const each of stream.written) decodeMessage(ConsumeResponse, each)
  return end.error === null ? 'taken' : 'refused'
}

type Wish = NonNullable<AtomicRequest['operations'][number]['operation']>

function someOperation(random: Prng): Wish {
  const command = (name: string, key: string, ...args: string[]): Wish => ({
    $case: 'command',
    value: {
      ...{
        command: name,
        key: '',
        keyBytes: text(key),
        args: args.map(text),
        id: 0n,
        session: Buffer.alloc(0),
      },
      ...{ sequence: 0n, ackedBelow: 0n, stale: false, noForward: false, hops: 0 },
    } as never,
  })
  switch (random.below(6)) {
    case 0:
      return command('SET', '{u}a', `v${random.below(9)}`, ...(random.below(2) === 0 ? ['NX'] : []))
    case 1:
      return command('HSET', '{u}h', 'f', 'v')
    case 2:
      return command('INCRBY', '{u}n', String(random.below(9)))
    case 3:
      return command('LPUSH', random.below(4) === 0 ? 'elsewhere' : '{u}l', 'x')
    default: {
      const records = [someRecord(random)]
      return { $case: 'append', value: { stream: 'orders{u}', partition: random.below(2), records } }
    }
  }
}

/** Commands and appends as one entry, on a node of one shard: all of it or nothing. */
const atomicRequests: Family = {
  name: 'atomic-request',
  refuses: 'a status with one of our codes',
  share: 0.5,
  isStateful: true,
  open: async random => {
    const requests = Array.from({ length: 100 }, () =>
      encodeMessage(
        AtomicRequest,
        AtomicRequest.fromPartial({
          operations: Array.from({ length: 1 + random.below(4) }, () => ({
            operation: someOperation(random),
          })),
          ...(random.below(2) === 0 ? {} : { session: Buffer.from(random.bytes(16)), sequence: 1n }),
        }),
      ),
    )
    const mutator = new Mutator(requests)
    let inputs = 0
    let service: OneShard
    let handler: unknown
    const begin = async () => {
      service = new OneShard(random)
      handler = new ClusterNodeHandlers(gateOptions(service), nobodyIsChecked, connections).handlers().atomic
      const retention = { retentionMs: null, retentionBytes: null }
      await service.streams.create({ name: 'orders{u}', partitions: 2, ...retention, ifMissing: true })
    }
    return {
      run: async each => {
        if (inputs++ % inputsOfOneNode === 0) await begin()
        const before = service.stamp
        const answer = await unaryLater(handler, clusterNodeMethods.atomic, mutator.next(each))
        if (answer === null) {
          if (service.stamp !== before) throw new Error('refused, and something of it is applied')
          return 'refused'
        }
        decodeMessage(AtomicResponse, answer)
        return 'taken'
      },
    }
  },
}

const streamRequests: readonly (readonly [name: keyof typeof streamsMethods, bytes: Buffer])[] = [
  [
    'create',
    encodeMessage(
      CreateStreamRequest,
      CreateStreamRequest.fromPartial({
        name: 'orders',
        partitions: 4,
        retentionMs: 60_000n,
        ifMissing: true,
      }),
    ),
  ],
  ['create', encodeMessage(CreateStreamRequest, CreateStreamRequest.fromPartial({ name: 'b' }))],
  ['list', encodeMessage(ListStreamsRequest, {})],
  ['describe', encodeMessage(DescribeStreamRequest, { name: 'orders' })],
  [
    'change',
    encodeMessage(
      ChangeStreamRequest,
      ChangeStreamRequest.fromPartial({ name: 'orders', retentionMs: 0n, retentionBytes: 2n ** 30n }),
    ),
  ],
  ['truncate', encodeMessage(TruncateStreamRequest, { name: 'orders', partition: 1, beforeOffset: 0n })],
  [
    'copy',
    encodeMessage(
      CopyStreamRequest,
      CopyStreamRequest.fromPartial({ name: 'orders', offset: 7n, records: [{ value: Buffer.from('v') }] }),
    ),
  ],
  ['delete', encodeMessage(DeleteStreamRequest, { name: 'b' })],
]

/** The catalogue, and records in it, on a real node of the simulator. */
const streamsCalls: Family = {
  name: 'streams-call',
  refuses: 'a status with one of our codes',
  share: 0.02,
  isStateful: true,
  open: async random => {
    const mutators = streamRequests.map(
      ([name, bytes]) => [name, new Mutator([bytes], { isText: true })] as const,
    )
    const produce = new Mutator(batchesOf(random))
    const cluster = new SimCluster(1, { shardCount: 4 })
    if (!(await cluster.boot(1))) throw new Error('the cluster does not come up')
    const { world } = cluster
    const { node } = cluster.machines[0]!
    const options = gateOptions(node!)
    const handlers = {
      ...streamsHandlers(options, connections),
      ...new LogHandlers(options, connections).handlers(),
    }
    return {
      run: async each => {
        let isSettled = false
        const called = (name: string, method: RawMethod, bytes: Uint8Array) =>
          unaryLater(handlers[name], method, bytes).finally(() => {
            isSettled = true
          })
        const [name, mutator] = mutators[each.below(mutators.length)]!
        const answered =
          each.below(4) === 0
            ? called('produce', logMethods.produce, produce.next(each))
            : called(name, streamsMethods[name], mutator.next(each))
        answered.catch(() => {})
        await world.run(world.nowMs + 60_000, () => isSettled)
        const { ended } = cluster.machines[0]!
        if (ended !== null || cluster.machines[0]!.node !== node) throw new Error(`the node ended: ${ended}`)
        return (await answered) === null ? 'refused' : 'taken'
      },
    }
  },
}

// --- What nodes ask each other --------------------------------------------------------------------------------------

const waitRequests: Family = {
  name: 'stream-wait',
  refuses: 'INVALID_ARGUMENT',
  share: 1,
  open: async () => {
    const good = { shard: 1, id: 7, partition: 0, offset: 40, timeoutMs: 20_000 }
    return {
      run: each => {
        const given = JSON.parse(
          JSON.stringify(each.below(32) === 0 ? good : damagedJson(good, each)) ?? 'null',
        )
        // The node refuses what is no object before it looks who is to answer.
        if (typeof given !== 'object' || given === null) return 'refused'
        return decodes(['INVALID_ARGUMENT'], () => {
          const { shard, id, partition, offset, timeoutMs } = readWaitRequest(given)
          for (const number of [shard, id, partition, offset, timeoutMs])
            if (!Number.isSafeInteger(number) || number < 0) throw new Error(`${number} is taken`)
        })
      },
    }
  },
}

// --- Records and rows -----------------------------------------------------------------------------------------------

function storedOf(random: Prng): Bytes {
  const { value, key, headers, type } = someRecord(random)
  return encodeRecord({ value, key: key ?? null, headers, type })
}

/**
 * Records as they lie in logs and travel. Half of the damaged ones get the checksum of what they are now, as a liar would
 * send them; what is then taken can be given to a consumer.
 */
const records: Family = {
  name: 'stream-record',
  refuses: 'CORRUPT',
  share: 1,
  open: async random => {
    const corpus = Array.from({ length: 50 }, () => storedOf(random))
    const written = new Set(corpus.map(each => Buffer.from(each).toString('hex')))
    const mutator = new Mutator(corpus)
    const around = { streamId: 1, start: 0, end: 1, lagMs: 0 }
    return {
      run: each => {
        const record = mutator.next(each)
        const isForged = each.below(2) === 0 && record.byteLength >= 4
        if (isForged)
          new DataView(record.buffer, record.byteOffset).setUint32(0, crc32(record.subarray(4)), true)
        const kept =
          each.below(4) === 0
            ? mutator.next(each)
            : keepRecord(record, recordStamp(each.below(2 ** 31), each.below(100)))
        decodes(['CORRUPT'], () => timestampOf(kept))
        decodes(['CORRUPT'], () => decodeKept(kept))
        return decodes(['CORRUPT'], () => {
          const { value, key, headers, type } = decodeRecord(record)
          if (!isForged && record.byteLength > 4 && !written.has(Buffer.from(record).toString('hex')))
            throw new Error('a record passes that nobody wrote')
          const whole = keepRecord(record, recordStamp(5, 6))
          const alone = decodeMessage(ConsumeResponse, encodeRecordResponse(whole, 0, around)).record
          const [batched] = decodeMessage(ConsumeResponse, encodeBatchResponse([whole], 0, around)).records
          for (const seen of [alone, batched])
            if (
              seen === undefined ||
              !equalBytes(seen.value, value) ||
              !equalBytes(seen.key ?? new Uint8Array(0), key ?? new Uint8Array(0)) ||
              seen.headers.length !== headers.length ||
              seen.type !== type >>> 0
            )
              throw new Error(`a consumer sees ${textOf(seen)} for ${textOf({ value, key, headers, type })}`)
        })
      },
    }
  },
}

/** A row has a checksum of its own: bad bytes in it are a fault of the one who wrote them, and end a replica, never a loop. */
const groupRows: Family = {
  name: 'group-row',
  refuses: 'Malformed, or a broken invariant',
  share: 1,
  open: async () => {
    const streams = [
      { stream: 3, partitions: 4 },
      { stream: 900, partitions: 1_024 },
    ]
    const holds = new Map(
      [0, 1, 2].map(partition => {
        const holding = { stream: 3, partition, from: 5 + partition, to: partition === 1 ? 9 : null }
        return [partitionKey(holding), holding]
      }),
    )
    const awaited = { stream: 900, partition: 1_000 }
    const group = {
      ...{
        life: 'a'.repeat(12),
        strategy: 'sticky' as const,
        generation: 7,
        filedMs: 2 ** 40,
        isGraced: true,
      },
      ...{ members: 2, offsets: 3, emptySinceMs: null, streams },
    }
    const member = {
      ...{ generation: 7, joinedMs: 2 ** 40, revokedMs: null, reads: streams, holds },
      awaits: new Map([[partitionKey(awaited), awaited]]),
    }
    const kinds: readonly (readonly [decode: (bytes: Bytes) => unknown, corpus: readonly Bytes[]])[] = [
      [decodeGroup, [encodeGroup(group), encodeGroup({ ...group, emptySinceMs: 5, streams: [] })]],
      [decodeMember, [encodeMember(member), encodeMember({ ...member, revokedMs: 8, awaits: new Map() })]],
      [decodeBeat, [encodeBeat({ lastMs: 2 ** 40, timeoutMs: 10_000 })]],
      [decodeOffset, [encodeOffset({ offset: 2 ** 33, generation: 7, committedMs: 2 ** 40 })]],
    ]
    const all = kinds.map(([decode, corpus]) => ({ decode, mutator: new Mutator(corpus) }))
    return {
      run: each => {
        const { decode, mutator } = all[each.below(all.length)]!
        try {
          decode(mutator.next(each))
          return 'taken'
        } catch (error) {
          if (error instanceof Malformed || error instanceof BrokenInvariant) return 'refused'
          throw error
        }
      },
    }
  },
}

// --- Files of records -----------------------------------------------------------------------------------------------

const generation = 'streams/7/1'
const segmentBytesMax = 600
const homeOf = (disk: SimDisk) => ({
  ...{ disk, map: heapMapper(disk), random: new Prng(1), warm: new WarmSegments(2), segmentBytesMax },
})

/** The row of a partition to which `records` were appended, as a checkpoint has it. */
function rowOf(records: readonly Bytes[], revision: number): readonly [row: string, value: Bytes] {
  const rows = new MemoryRows()
  const keyspace = new Keyspace(rows)
  keyspace.beginEntry(revision, 1_000, 1)
  keyspace.partitions.append({ stream: 3, partition: 1 }, text('orders/1'), [pack(records)])
  const [row] = rows.range(prefixes.partition, `${prefixes.partition}\uffff`)
  if (row === undefined) throw new Error('no row is written')
  return row
}

/**
 * Calls with packed records, as anybody may send them. What passes the door is applied, and what lies in the log afterwards
 * can be read, each record as it was sent.
 */
const packedCalls: Family = {
  name: 'stream-batch',
  refuses: 'INVALID_ARGUMENT or TOO_LARGE',
  share: 0.5,
  open: async random => {
    const corpus = Array.from(
      { length: 30 },
      () => pack(Array.from({ length: 1 + random.below(5) }, () => storedOf(random))).bytes,
    )
    const mutator = new Mutator(corpus)
    return {
      run: each => {
        const packed = Array.from({ length: 1 + each.below(3) }, () =>
          each.below(2) === 0 ? mutator.next(each) : corpus[each.below(corpus.length)]!,
        )
        const args = [...['orders/1', '3', '1'].map(text), ...packed]
        return decodes(['INVALID_ARGUMENT', 'TOO_LARGE'], () => {
          const { command } = parseCall('STREAM.BATCH', args)
          const keyspace = new Keyspace(new MemoryRows())
          keyspace.beginEntry(1, 1_000, 1)
          command.run(keyspace, args)
          const sent = packed.flatMap(unpack)
          const { records: kept } = keyspace.partitions.read({ stream: 3, partition: 1 }, 0, 1e6, 1e9)
          if (kept.length !== sent.length)
            throw new Error(`${sent.length} were sent, ${kept.length} are kept`)
          for (const [i, record] of kept.entries()) {
            decodeKept(record)
            if (!equalBytes(record, keepRecord(sent[i]!, recordStamp(1_000, 1))))
              throw new Error(`record ${i} is not what was sent`)
          }
        })
      },
    }
  },
}

/**
 * A partition's files, one of them bad, under the row of a checkpoint: a start opens them or says that records are
 * missing, the scrub reads the same files, and neither takes a record that nobody wrote. Where the scrub finds nothing,
 * all that the row names can be read. Half of the rows name another range: they have checksums, so none that is no range.
 */
const recordFiles: Family = {
  name: 'record-files',
  refuses: 'CORRUPT',
  share: 0.03,
  open: async random => {
    const stored = Array.from({ length: 30 }, () => storedOf(random))
    const stamp = recordStamp(1_000, 2)
    const written = stored.map(each => keepRecord(each, stamp))
    const [partitionRow, whole] = rowOf(stored, 9)
    const log = `3/1-${decodePartition(whole).birth}`
    const files = new Map<string, Uint8Array>()
    const source = new SimDisk({ schedule: run => run() })
    const logs = openLogs(homeOf(source), generation, [])
    const directory = `${generation}/${log}`
    for (const [offset, each] of stored.entries()) {
      logs.append(log, offset, [pack([each])], stamp)
      await logs.sync(logs.freeze())
    }
    for (const name of source.list(directory)) {
      const file = source.open(`${directory}/${name}`)
      files.set(name, Uint8Array.from(file.read(0, file.size())))
    }
    const names = [...files.keys()]
    if (names.length < 4) throw new Error(`too few files: ${names}`)
    const mutators = new Map(names.map(name => [name, new Mutator([files.get(name)!])]))
    return {
      run: each => {
        const disk = new SimDisk({ schedule: run => run() })
        disk.makeDirectory(directory)
        const bad = names[each.below(names.length)]!
        for (const name of names) {
          if (name === bad && each.below(16) === 0) continue
          const file = disk.open(`${directory}/${name}`, { create: true })
          file.write(0, name === bad ? mutators.get(name)!.next(each) : files.get(name)!)
          file.sync()
        }
        const given = each.below(2) === 0 ? whole : otherRange(whole, each)
        const scrubbed = scrubOutcome(disk, partitionRow, given)
        const read = decodes(['CORRUPT'], () => {
          const partition = decodePartition(given)
          const opened = openLogs(homeOf(disk), generation, [[partitionRow, given]])
          const log = `3/1-${partition.birth}`
          try {
            for (let at = partition.start; at < partition.end; ) {
              const found = opened.read(log, at, partition.end, 500)
              if (found.length === 0) throw new Error(`nothing at ${at}`)
              for (const each of found)
                if (!equalBytes(each, written[at++] ?? new Uint8Array(0)))
                  throw new Error(`record ${at - 1} is not what was appended`)
            }
          } finally {
            opened.close()
          }
        })
        if (scrubbed === 'taken' && read === 'refused' && bad.endsWith('.store'))
          throw new Error('the scrub finds nothing, and a record can not be read')
        return read
      },
    }
  },
}

/** The row with another beginning and end, which may lie behind all that was written. */
function otherRange(row: Bytes, random: Prng): Uint8Array {
  const changed = Uint8Array.from(row)
  const view = new DataView(changed.buffer)
  const start = random.below(34)
  view.setBigUint64(0, BigInt(start))
  view.setBigUint64(8, BigInt(start + random.below(34)))
  return changed
}

function scrubOutcome(disk: SimDisk, row: string, value: Bytes): Outcome {
  return decodes(['CORRUPT'], () => scrubRecords(disk, generation, row, value, () => value))
}

/** Names of a snapshot's parts come from another node: a file of records lies in its generation's directory, or nowhere. */
const recordParts: Family = {
  name: 'record-part',
  refuses: 'null: a part of another kind',
  share: 1,
  open: async () => {
    const mutator = new Mutator(['log.3.1-9.0', 'log.12.0-77.4096', 'rows.0', 'log.3.1-9.'].map(text), {
      isText: true,
    })
    return {
      run: each => {
        const place = recordPartPlace(Buffer.from(mutator.next(each)).toString('latin1'))
        if (place === null) return 'refused'
        if (!/^\d+\/\d+-\d+$/.test(place.log) || !(place.baseOffset >= 0))
          throw new Error(`a place that is none: ${textOf(place)}`)
        return 'taken'
      },
    }
  },
}

export const streamFamilies: readonly Family[] = [
  produceRequests,
  logCalls,
  atomicRequests,
  streamsCalls,
  waitRequests,
  records,
  packedCalls,
  groupRows,
  recordFiles,
  recordParts,
]
