import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { isError } from '../../src/errors.ts'
import {
  decodeKept,
  decodeRecord,
  encodeRecord,
  encodeRecords,
  KeptPlaces,
  keepRecord,
  proveRecord,
  recordStamp,
  timestampOf,
} from '../../src/keyspace/record.ts'
import { pack } from '../../src/lib/packed.ts'

const bytes = fc.uint8Array({ maxLength: 30 })
const records = fc.record({
  value: bytes,
  key: fc.option(bytes),
  headers: fc.array(fc.record({ name: fc.string({ maxLength: 10 }), value: bytes }), { maxLength: 3 }),
  type: fc.nat(),
})

describe('a record', () => {
  it('comes back from its bytes as it was, with its time and term', () =>
    fc.assert(
      fc.property(records, fc.maxSafeNat(), fc.nat(), (record, timestampMs, term) => {
        const encoded = encodeRecord(record)
        assert.deepEqual(plain(decodeRecord(encoded)), plain(record))
        const kept = keepRecord(encoded, recordStamp(timestampMs, term))
        assert.deepEqual(plain(decodeKept(kept)), plain({ timestampMs, term, ...record }))
        assert.equal(timestampOf(kept), timestampMs)
      }),
    ))

  it('has its parts where they are said to be', () =>
    fc.assert(
      fc.property(records, fc.maxSafeNat(), fc.nat(), (record, timestampMs, term) => {
        const kept = keepRecord(encodeRecord(record), recordStamp(timestampMs, term))
        const at = new KeptPlaces().of(kept)
        const { value, key, headers, type } = record
        assert.deepEqual([at.timestampMs, at.term, at.type], [timestampMs, term, type])
        assert.deepEqual(plain(kept.subarray(at.value, at.valueEnd)), plain(value))
        assert.deepEqual(at.key < 0 ? null : plain(kept.subarray(at.key, at.keyEnd)), plain({ key }.key!))
        assert.equal(at.headerCount, headers.length)
        assert.throws(
          () => new KeptPlaces().of(kept.subarray(0, at.headers - 1)),
          error => isError(error, 'CORRUPT'),
        )
      }),
    ))

  it('is encoded alone as it is in a batch', () =>
    fc.assert(
      fc.property(fc.array(records, { maxLength: 5 }), batch => {
        const alone = batch.map(encodeRecord)
        assert.deepEqual(plain(encodeRecords(batch)), plain(pack(alone)))
        for (const each of alone) proveRecord(each)
      }),
    ))

  it('is CORRUPT when one of its bits has flipped, or its end is missing', () =>
    fc.assert(
      fc.property(records, fc.nat(), fc.nat(7), (record, at, bit) => {
        const encoded = encodeRecord(record)
        const broken = Uint8Array.from(encoded)
        broken[at % broken.length]! ^= 1 << bit
        for (const wrong of [broken, encoded.subarray(0, at % encoded.length)])
          assert.throws(
            () => decodeRecord(wrong),
            error => isError(error, 'CORRUPT'),
          )
        assert.throws(
          () => proveRecord(broken),
          error => isError(error, 'CORRUPT'),
        )
      }),
    ))
})

function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value, (_, each) => (each instanceof Uint8Array ? [...each] : each)))
}
