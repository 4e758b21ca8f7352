import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  decodeField,
  decodeHeader,
  dueKey,
  encodeField,
  encodeHeader,
  encodeScore,
  endOf,
  generationOf,
  numberKey,
  parseDueKey,
  readNumber,
  readNumberKey,
  writeNumber,
} from '../../src/keyspace/rows.ts'
import { fromLatin1 } from '../../src/lib/bytes.ts'

const safe = fc.maxSafeNat()
const latin1 = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map(code => String.fromCharCode(code)) })
const expiry = fc.option(safe)

describe('numbers in rows', () => {
  it('come back as they went in', () =>
    fc.assert(
      fc.property(safe, number => {
        const bytes = new Uint8Array(8)
        writeNumber(bytes, 0, number)
        assert.equal(readNumber(bytes, 0), number)
        assert.equal(readNumberKey(numberKey(number), 0), number)
      }),
    ))

  it('order row keys as numbers', () =>
    fc.assert(fc.property(safe, safe, (a, b) => assert.equal(numberKey(a) < numberKey(b), a < b))))

  it('are big-endian', () => assert.equal(numberKey(0x0102_0304_0506), '\0\0\x01\x02\x03\x04\x05\x06'))
})

describe('row keys', () => {
  it('of one prefix end before endOf, and nothing else does', () =>
    fc.assert(
      fc.property(latin1, latin1, latin1, (tail, more, other) => {
        const prefix = `x${tail}`
        assert.ok(prefix + more < endOf(prefix))
        const row = `x${other}`
        assert.equal(row >= prefix && row < endOf(prefix), row.startsWith(prefix))
      }),
    ))

  it('of what is due tell when, what kind and whose', () =>
    fc.assert(
      fc.property(safe, fc.constantFrom('fields', 'key', 'session'), latin1, (dueMs, kind, name) =>
        assert.deepEqual(parseDueKey(dueKey(dueMs, kind, name)), { dueMs, kind, name }),
      ),
    ))
})

describe('headers and fields', () => {
  it('of strings come back as they went in', () =>
    fc.assert(
      fc.property(safe, expiry, fc.uint8Array(), (revision, expiresAtMs, value) => {
        const header = { type: 'string' as const, revision, expiresAtMs, value }
        assert.deepEqual(decodeHeader(encodeHeader(header)), header)
      }),
    ))

  it('of hashes come back as they went in', () =>
    fc.assert(
      fc.property(
        safe,
        expiry,
        fc.nat(),
        fc.nat(),
        safe,
        (revision, expiresAtMs, fields, birth, fieldsDueMs) => {
          const generation = generationOf(revision, birth)
          const counts = { fields: fields + 2 ** 31, expiringFields: fields, fieldsDueMs }
          const header = { type: 'hash' as const, revision, expiresAtMs, generation, ...counts }
          assert.deepEqual(decodeHeader(encodeHeader(header)), header)
        },
      ),
    ))

  it('of lists, sets and sorted sets come back as they went in', () =>
    fc.assert(
      fc.property(safe, expiry, fc.nat(), safe, safe, (revision, expiresAtMs, members, head, tail) => {
        const common = { revision, expiresAtMs, generation: generationOf(revision, members) }
        for (const header of [
          { type: 'list' as const, ...common, head, tail },
          { type: 'set' as const, ...common, members: members + 2 ** 31 },
          { type: 'zset' as const, ...common, members, root: head, nextNode: tail },
        ])
          assert.deepEqual(decodeHeader(encodeHeader(header)), header)
      }),
    ))

  it('of a type that is none, or of another length, are refused', () => {
    const bytes = encodeHeader({
      type: 'set',
      revision: 1,
      expiresAtMs: null,
      generation: generationOf(1, 0),
      members: 1,
    })
    assert.throws(() => decodeHeader(Uint8Array.from([...bytes, 0])), { name: 'BrokenInvariant' })
    assert.throws(() => decodeHeader(Uint8Array.from([9, ...bytes.subarray(1)])), { name: 'BrokenInvariant' })
  })

  it('of fields come back as they went in', () =>
    fc.assert(
      fc.property(expiry, fc.uint8Array(), (expiresAtMs, value) =>
        assert.deepEqual(decodeField(encodeField(value, expiresAtMs)), { value, expiresAtMs }),
      ),
    ))

  it('stand on disk as drawn', () => {
    const value = fromLatin1('v')
    const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
    assert.equal(
      hex(encodeHeader({ type: 'string', revision: 7, expiresAtMs: null, value })),
      '0100' + '0000000000000007' + '76',
    )
    assert.equal(
      hex(encodeHeader({ type: 'string', revision: 7, expiresAtMs: 258, value })),
      '0101' + '0000000000000007' + '0000000000000102' + '76',
    )
    const generation = generationOf(9, 1)
    const counts = { fields: 2, expiringFields: 1, fieldsDueMs: 5 }
    assert.equal(
      hex(encodeHeader({ type: 'hash', revision: 9, expiresAtMs: null, generation, ...counts })),
      '0200' + '0000000000000009' + '000000000000000900000001' + '00000002' + '00000001' + '0000000000000005',
    )
    const common = { revision: 9, expiresAtMs: null, generation }
    const prefix = '0000000000000009' + '000000000000000900000001'
    assert.equal(
      hex(encodeHeader({ type: 'list', ...common, head: 1, tail: 2 })),
      `0300${prefix}` + '0000000000000001' + '0000000000000002',
    )
    assert.equal(hex(encodeHeader({ type: 'set', ...common, members: 3 })), `0400${prefix}` + '00000003')
    assert.equal(
      hex(encodeHeader({ type: 'zset', ...common, members: 3, root: 4, nextNode: 5 })),
      `0500${prefix}` + '00000003' + '0000000000000004' + '0000000000000005',
    )
    assert.equal(hex(encodeScore(-2)), 'c000000000000000')
    assert.equal(hex(encodeField(value, 3)), '01' + '0000000000000003' + '76')
  })
})
