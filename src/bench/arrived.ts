/**
 * A ConsumeResponse as a follower of the bench reads it: every record's offset and type, its value as a view. The rest is
 * stepped over, as the generated reader makes objects and bigints of it that cost more than the bench asks for.
 *
 *   ConsumeResponse { 2 record Record · 16 records repeated Record · 17 … 19 varints }
 *   Record          { 1 value bytes · 2 offset varint · 4 type varint · others }
 */
import { ByteReader, Malformed } from '../lib/byte-reader.ts'
import type { Bytes } from '../lib/bytes.ts'

export interface Arrived {
  readonly records: number
  /** Of their values. */
  readonly valueBytes: number
  /** Offsets, half-open. */
  readonly from: number
  readonly to: number
  /** The types that are not 0, in the order of the records. */
  readonly types: readonly number[]
}

const tag = {
  record: (2 << 3) | 2,
  records: (16 << 3) | 2,
  value: (1 << 3) | 2,
  offset: (2 << 3) | 0,
  type: (4 << 3) | 0,
} as const

/** Throws Malformed, also where offsets leave something out. */
export function readArrived(response: Bytes): Arrived {
  const reader = new ByteReader(response)
  const types: number[] = []
  let records = 0
  let valueBytes = 0
  let from = 0
  let to = 0
  while (!reader.isAtEnd) {
    const next = reader.varint()
    if (next !== tag.records && next !== tag.record) {
      skip(reader, next)
      continue
    }
    const bytes = reader.varint()
    const left = reader.remaining - bytes
    if (left < 0) throw new Malformed('a record that is longer than its response')
    let offset = 0
    while (reader.remaining > left) {
      const field = reader.varint()
      if (field === tag.value) valueBytes += reader.sized().byteLength
      else if (field === tag.offset) offset = reader.varint()
      else if (field === tag.type) types.push(reader.varint())
      else skip(reader, field)
    }
    if (reader.remaining !== left) throw new Malformed('a record that ends in the middle of a field')
    if (records === 0) from = offset
    else if (offset !== to) throw new Malformed(`offset ${offset} where ${to} was due`)
    records += 1
    to = offset + 1
  }
  return { records, valueBytes, from, to, types }
}

function skip(reader: ByteReader, next: number): void {
  switch (next & 7) {
    case 0:
      reader.varint()
      return
    case 1:
      reader.raw(8)
      return
    case 2:
      reader.sized()
      return
    case 5:
      reader.raw(4)
      return
    default:
      throw new Malformed(`wire type ${next & 7}`)
  }
}
