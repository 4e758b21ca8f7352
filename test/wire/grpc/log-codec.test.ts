import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ConsumeResponse, ProduceRequest, ProduceResponse } from '../../../src/gen/log/v1/log.ts'
import { encodeRecord, keepRecord, recordStamp } from '../../../src/keyspace/record.ts'
import { crc32 } from '../../../src/lib/crc.ts'
import { produceLimits } from '../../../src/node/stream-batch.ts'
import { decodeMessage } from '../../../src/peer/proto-io.ts'
import {
  encodeBatchResponse,
  encodeProduced,
  encodeRecordResponse,
  produceRequestType,
} from '../../../src/wire/grpc/log-codec.ts'

const plain = { noNullPrototype: true } as const
const bytes = fc.uint8Array({ maxLength: 40 }).map(each => Buffer.from(each))
const text = fc.string({ maxLength: 8, unit: 'binary' }).filter(each => !/[\ud800-\udfff]/.test(each))
const record = fc.record(
  {
    value: bytes,
    key: fc.option(bytes, { nil: undefined }),
    headers: fc.array(fc.record({ name: text, value: bytes }, plain), { maxLength: 3 }),
    type: fc.integer({ min: 0, max: 0xffff_ffff }),
  },
  plain,
)
const amount = fc.maxSafeNat()

describe('an acknowledgement', () => {
  it('has the bytes that the generated code gives it', () => {
    fc.assert(
      fc.property(amount, fc.nat(1024), fc.nat(10_000), (offset, partition, count) => {
        const generated = ProduceResponse.encode({ offset: BigInt(offset), partition, count }).finish()
        assert.deepEqual(encodeProduced({ offset, partition, count }), Buffer.from(generated))
      }),
    )
  })
})

describe('records on the wire of log.v1', () => {
  it('leave as the contract says, by the generated code’s reading', () => {
    const around = fc.record(
      { start: amount, end: amount, lagMs: fc.integer({ min: 0, max: 2 ** 31 }), streamId: amount },
      plain,
    )
    fc.assert(
      fc.property(
        fc.array(record, { maxLength: 5 }),
        amount,
        fc.nat(),
        around,
        (given, timestampMs, term, at) => {
          const encoded = given.map(each => encodeRecord({ ...each, key: each.key ?? null }))
          const kept = encoded.map(each => keepRecord(each, recordStamp(timestampMs, term)))
          const expected = given.map((each, i) => ({
            ...each,
            offset: BigInt(1_000 + i),
            term: BigInt(term),
            timestampMs: BigInt(timestampMs),
            crc: crc32(encoded[i]!.subarray(4)),
          }))
          const head = {
            ...{ startOffset: BigInt(at.start), endOffset: BigInt(at.end), lagMs: at.lagMs },
            streamId: BigInt(at.streamId),
          }
          const read = decodeMessage(ConsumeResponse, encodeBatchResponse(kept, 1_000, at))
          assert.deepEqual(read, { ...head, record: undefined, records: expected })
          if (kept.length === 0) return
          const one = decodeMessage(ConsumeResponse, encodeRecordResponse(kept[0]!, 1_000, at))
          assert.deepEqual(one, { ...head, record: expected[0], records: [] })
        },
      ),
    )
  })

  it('arrive as the generated code writes them', () => {
    const request = fc.record(
      {
        stream: text,
        partition: fc.option(fc.integer({ min: 0, max: 0xffff_ffff }), { nil: undefined }),
        records: fc.array(record, { maxLength: 4 }),
        acks: fc.constantFrom(0, 1, 2) as fc.Arbitrary<0 | 1 | 2>,
        session: bytes,
        sequence: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        ackedBelow: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      },
      plain,
    )
    fc.assert(
      fc.property(request, given => {
        const message = ProduceRequest.fromPartial(given)
        const found = decodeMessage(produceRequestType, Buffer.from(ProduceRequest.encode(message).finish()))
        assert.deepEqual(
          { ...found, session: Buffer.from(found.session) },
          {
            ...given,
            partition: given.partition ?? null,
            records: given.records.map(each => ({ ...each, key: each.key ?? null })),
          },
        )
      }),
    )
  })

  it('are no more in memory than are accepted, and one', () => {
    const { recordsMax, headersMax } = produceLimits
    const records = Buffer.from(Array.from({ length: recordsMax + 500 }, () => [0x92, 0x01, 0x00]).flat())
    assert.equal(decodeMessage(produceRequestType, records).records.length, recordsMax + 1)
    const headers = ProduceRequest.fromPartial({
      records: [{ headers: Array.from({ length: headersMax + 500 }, () => ({ name: '' })) }],
    })
    const [found] = decodeMessage(produceRequestType, ProduceRequest.encode(headers).finish()).records
    assert.equal(found!.headers.length, headersMax + 1)
  })

  it('are refused where they are broken', () => {
    const whole = ProduceRequest.encode(
      ProduceRequest.fromPartial({
        stream: 's',
        records: [{ value: Buffer.from('v'), key: Buffer.from('k'), headers: [{ name: 'h' }] }],
      }),
    ).finish()
    for (let length = 1; length < whole.length; length++) {
      let read: unknown = null
      try {
        read = decodeMessage(produceRequestType, whole.subarray(0, length))
      } catch {}
      // What ends between two fields of the request is a request.
      if (read !== null) assert.ok(length === 4, `${length} of ${whole.length} bytes are taken`)
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), each => {
        try {
          decodeMessage(produceRequestType, each)
        } catch (error) {
          assert.ok(error instanceof Error)
        }
      }),
    )
  })
})
