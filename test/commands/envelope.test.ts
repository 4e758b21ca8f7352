import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { decodeEnvelope, type Envelope, encodeEnvelope } from '../../src/commands/envelope.ts'
import { isError } from '../../src/errors.ts'
import { fromLatin1 } from '../../src/lib/bytes.ts'
import { refusal } from './shard.ts'

const args = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 })
const plain = { noNullPrototype: true }
const id = fc.uint8Array({ minLength: 16, maxLength: 16 })
const session = fc.record({ id, sequence: fc.maxSafeNat(), ackedBelow: fc.maxSafeNat() }, plain)
const operation = fc.record({ command: fc.constantFrom('SET', 'HSET', 'X'), args }, plain)
const envelopes: fc.Arbitrary<Envelope> = fc.record(
  {
    timestampMs: fc.maxSafeNat(),
    session: fc.option(session),
    operations: fc.array(operation, { maxLength: 5 }),
  },
  plain,
)

/** Whether these bytes are an envelope; anything but an expected error is a fault. */
function decodes(bytes: Uint8Array): boolean {
  try {
    decodeEnvelope(bytes)
    return true
  } catch (error) {
    assert.ok(isError(error, 'CORRUPT') || isError(error, 'UNSUPPORTED_ENTRY'), String(error))
    return false
  }
}

describe('an envelope', () => {
  it('comes back as it went in', () =>
    fc.assert(
      fc.property(envelopes, envelope =>
        assert.deepEqual(decodeEnvelope(encodeEnvelope(envelope)), envelope),
      ),
    ))

  it('has the bytes that are drawn', () => {
    const id = Uint8Array.from({ length: 16 }, (_, i) => i)
    const operations = [{ command: 'SET', args: [fromLatin1('k'), fromLatin1('vv')] }]
    const bytes = encodeEnvelope({
      timestampMs: 300,
      session: { id, sequence: 5, ackedBelow: 3 },
      operations,
    })
    assert.equal(
      Buffer.from(bytes).toString('hex'),
      '01' +
        '01' +
        'ac02' +
        '000102030405060708090a0b0c0d0e0f' +
        '05' +
        '03' +
        '01' +
        '03534554' +
        '02' +
        '016b' +
        '027676',
    )
  })

  it('has one spelling: whatever decodes encodes to the same bytes', () =>
    fc.assert(
      fc.property(envelopes, fc.nat(), fc.nat(255), (envelope, at, byte) => {
        const bytes = encodeEnvelope(envelope)
        bytes[at % bytes.byteLength] = byte
        if (decodes(bytes)) assert.deepEqual(encodeEnvelope(decodeEnvelope(bytes)), bytes)
      }),
    ))

  it('is refused when it is cut short or followed by anything', () =>
    fc.assert(
      fc.property(envelopes, fc.nat(), (envelope, at) => {
        const bytes = encodeEnvelope(envelope)
        assert.equal(decodes(bytes.subarray(0, at % bytes.byteLength)), false)
        assert.equal(decodes(Uint8Array.from([...bytes, 0])), false)
      }),
    ))

  it('of a version or with a flag that is not known says so', () => {
    const bytes = encodeEnvelope({ timestampMs: 1, session: null, operations: [] })
    assert.throws(
      () => decodeEnvelope(Uint8Array.from([2, ...bytes.subarray(1)])),
      refusal('UNSUPPORTED_ENTRY'),
    )
    assert.throws(
      () => decodeEnvelope(Uint8Array.from([1, 2, ...bytes.subarray(2)])),
      refusal('UNSUPPORTED_ENTRY'),
    )
  })

  it('that promises more than it holds costs no more than it holds', () =>
    assert.throws(
      () => decodeEnvelope(Uint8Array.from([1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f])),
      refusal('CORRUPT'),
    ))
})
