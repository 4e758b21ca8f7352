/**
 * The few messages of etcd's gRPC API (etcdserverpb, v3) that a comparison needs, by hand:
 *
 *   PutRequest      1 key  2 value
 *   RangeRequest    1 key                      (serializable = false: linearizable, the default)
 *   RangeResponse   1 header  2 kvs { 1 key  5 value }*  4 count
 *   StatusResponse  1 header { 2 member_id }  2 version  4 leader
 */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire'

export const etcdPaths = {
  set: '/etcdserverpb.KV/Put',
  get: '/etcdserverpb.KV/Range',
  status: '/etcdserverpb.Maintenance/Status',
} as const

const bytesField = (number: number) => (number << 3) | 2

export function putRequest(key: Uint8Array, value: Uint8Array): Uint8Array {
  return new BinaryWriter().uint32(bytesField(1)).bytes(key).uint32(bytesField(2)).bytes(value).finish()
}

export function rangeRequest(key: Uint8Array): Uint8Array {
  return new BinaryWriter().uint32(bytesField(1)).bytes(key).finish()
}

/** Of the first key that was found; null: none. */
export function rangeValue(response: Uint8Array): Uint8Array | null {
  const pair = fieldOf(response, 2)
  if (pair === null) return null
  return fieldOf(pair, 5) ?? new Uint8Array()
}

export interface EtcdStatus {
  readonly memberId: bigint
  /** 0n: none is known. */
  readonly leaderId: bigint
  readonly version: string
}

export function statusOf(response: Uint8Array): EtcdStatus {
  const header = fieldOf(response, 1)
  const version = fieldOf(response, 2)
  return {
    memberId: header === null ? 0n : numberOf(header, 2),
    leaderId: numberOf(response, 4),
    version: version === null ? '' : new TextDecoder().decode(version),
  }
}

/** The first field of this number that holds bytes. */
function fieldOf(message: Uint8Array, number: number): Uint8Array | null {
  const reader = new BinaryReader(message)
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag === bytesField(number)) return reader.bytes()
    reader.skip(tag & 7)
  }
  return null
}

/** Of a uint64; what is not there is 0. */
function numberOf(message: Uint8Array, number: number): bigint {
  const reader = new BinaryReader(message)
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag === number << 3) return BigInt(reader.uint64())
    reader.skip(tag & 7)
  }
  return 0n
}
