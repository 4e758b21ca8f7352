import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { isError } from '../../src/errors.ts'
import { decodeKept, decodeRecord, encodeRecord, keepRecord, timestampOf } from '../../src/keyspace/record.ts'

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
        const kept = keepRecord(encoded, timestampMs, term)
        assert.deepEqual(plain(decodeKept(kept)), plain({ timestampMs, term, ...record }))
        assert.equal(timestampOf(kept), timestampMs)
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
      }),
    ))
})

function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value, (_, each) => (each instanceof Uint8Array ? [...each] : each)))
}
