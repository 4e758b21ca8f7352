/** roundhouse.v1.Streams: the catalogue of streams. */
import type { ServerUnaryCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js'
import {
  ChangeStreamRequest,
  ChangeStreamResponse,
  CopyStreamRequest,
  CopyStreamResponse,
  CreateStreamRequest,
  CreateStreamResponse,
  DeleteStreamRequest,
  DeleteStreamResponse,
  DescribeStreamRequest,
  DescribeStreamResponse,
  ListStreamsRequest,
  ListStreamsResponse,
  StreamsService,
  TruncateStreamRequest,
  TruncateStreamResponse,
  type Stream as WireStream,
} from '../../gen/roundhouse/v1/streams.ts'
import type { PartitionStatus, StreamService } from '../../node/ports.ts'
import { encodeMessage, toSafeInteger } from '../../peer/proto-io.ts'
import type { Connections } from './connections.ts'
import { type Arrived, rawMethod, respond } from './method.ts'
import type { GrpcServerOptions } from './options.ts'

type StreamRecord = ReturnType<StreamService['list']>[number]

export const streamsMethods = {
  create: rawMethod(StreamsService.create, CreateStreamRequest),
  list: rawMethod(StreamsService.list, ListStreamsRequest),
  describe: rawMethod(StreamsService.describe, DescribeStreamRequest),
  change: rawMethod(StreamsService.change, ChangeStreamRequest),
  delete: rawMethod(StreamsService.delete, DeleteStreamRequest),
  truncate: rawMethod(StreamsService.truncate, TruncateStreamRequest),
  copy: rawMethod(StreamsService.copy, CopyStreamRequest),
}

export function streamsHandlers(
  { service: { streams }, onUnexpected }: GrpcServerOptions,
  connections: Connections,
): UntypedServiceImplementation {
  const unary =
    <Message>(answer: (message: Message) => Promise<Buffer> | Buffer) =>
    (call: ServerUnaryCall<Arrived<Message>, Buffer>, callback: sendUnaryData<Buffer>) =>
      respond(callback, connections.memoryOf(call), onUnexpected, () => {
        const { request } = call
        if (request.message === null) throw request.error
        return answer(request.message)
      })

  return {
    create: unary<CreateStreamRequest>(async ({ name, partitions, ifMissing, ...retention }) => {
      const stream = await streams.create({
        name,
        partitions: partitions || 1,
        retentionMs: amountOf(retention.retentionMs, 'retention_ms') ?? null,
        retentionBytes: amountOf(retention.retentionBytes, 'retention_bytes') ?? null,
        ifMissing,
      })
      return encodeMessage(CreateStreamResponse, { stream: writeStream(stream) })
    }),
    list: unary<ListStreamsRequest>(() =>
      encodeMessage(ListStreamsResponse, { streams: streams.list().map(writeStream) }),
    ),
    describe: unary<DescribeStreamRequest>(async ({ name }) => {
      const { stream, partitions } = await streams.describe(name)
      return encodeMessage(DescribeStreamResponse, {
        stream: writeStream(stream),
        partitions: partitions.map(writePartition),
      })
    }),
    change: unary<ChangeStreamRequest>(async ({ name, ...retention }) => {
      const retentionMs = amountOf(retention.retentionMs, 'retention_ms')
      const retentionBytes = amountOf(retention.retentionBytes, 'retention_bytes')
      const stream = await streams.change(name, {
        ...(retentionMs === undefined ? {} : { retentionMs }),
        ...(retentionBytes === undefined ? {} : { retentionBytes }),
      })
      return encodeMessage(ChangeStreamResponse, { stream: writeStream(stream) })
    }),
    delete: unary<DeleteStreamRequest>(({ name }) =>
      streams.delete(name).then(() => encodeMessage(DeleteStreamResponse, {})),
    ),
    truncate: unary<TruncateStreamRequest>(async ({ name, partition, beforeOffset }) => {
      const before = toSafeInteger(beforeOffset, 'before_offset')
      const start = await streams.truncate(name, partition, before)
      return encodeMessage(TruncateStreamResponse, { startOffset: BigInt(start) })
    }),
    copy: unary<CopyStreamRequest>(async ({ name, partition, offset, records }) => {
      const copied = records.map(({ value, key, headers, type, crc, timestampMs }) => ({
        ...{ value, key: key ?? null, headers, type },
        ...(crc === undefined ? {} : { crc }),
        timestampMs: toSafeInteger(timestampMs, 'timestamp_ms'),
      }))
      const end = await streams.copy(name, partition, toSafeInteger(offset, 'offset'), copied)
      return encodeMessage(CopyStreamResponse, { endOffset: BigInt(end) })
    }),
  }
}

/** 0 stands for "no limit", null here. */
function amountOf(value: bigint | undefined, what: string): number | null | undefined {
  if (value === undefined) return undefined
  return value === 0n ? null : toSafeInteger(value, what)
}

function writeStream({ name, id, partitions, createdMs, ...retention }: StreamRecord): WireStream {
  const { retentionMs, retentionBytes } = retention
  return {
    name,
    id: BigInt(id),
    partitions,
    createdMs: BigInt(Math.round(createdMs)),
    ...(retentionMs === null ? {} : { retentionMs: BigInt(retentionMs) }),
    ...(retentionBytes === null ? {} : { retentionBytes: BigInt(retentionBytes) }),
  }
}

function writePartition({ partition, shard, leader, replicas, ...rest }: PartitionStatus) {
  return {
    partition,
    shardId: shard,
    leader: leader ?? '',
    replicas: [...replicas],
    startOffset: BigInt(rest.start),
    endOffset: BigInt(rest.end),
    timestampMs: BigInt(rest.timestampMs),
    bytes: BigInt(rest.bytes),
    error: rest.error ?? '',
  }
}
