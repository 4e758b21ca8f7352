import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ByteReader, Malformed } from '../../src/lib/byte-reader.ts'
import { ByteWriter } from '../../src/lib/byte-writer.ts'

const item = fc.oneof(
  fc.record({ kind: fc.constant('varint' as const), value: fc.maxSafeNat() }),
  fc.record({ kind: fc.constant('byte' as const), value: fc.nat(255) }),
  fc.record({
    kind: fc.constant('int64' as const),
    value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  }),
  fc.record({ kind: fc.constant('sized' as const), value: fc.uint8Array({ maxLength: 200 }) }),
)

describe('ByteWriter and ByteReader', () => {
  it('give back what was written, in order, to the last byte', () =>
    fc.assert(
      fc.property(fc.array(item), items => {
        const writer = new ByteWriter(1)
        for (const { kind, value } of items) {
          if (kind === 'int64') writer.int64(value)
          else if (kind === 'sized') writer.sized(value)
          else writer[kind](value)
        }
        const reader = new ByteReader(writer.finish())
        for (const { kind, value } of items) assert.deepEqual(reader[kind](), value)
        reader.end()
      }),
    ))

  it('write varints as LEB128, the largest safe integer in eight bytes', () => {
    const hex = (value: number) => {
      const writer = new ByteWriter()
      writer.varint(value)
      return Buffer.from(writer.finish()).toString('hex')
    }
    assert.deepEqual([0, 127, 128, 300, 2 ** 32].map(hex), ['00', '7f', '8001', 'ac02', '8080808010'])
    assert.equal(hex(Number.MAX_SAFE_INTEGER), 'ffffffffffffff0f')
  })

  it('give each writer bytes of its own, also of two at once', () => {
    const [one, two] = [new ByteWriter(), new ByteWriter()]
    one.sizedLatin1('one')
    two.sizedLatin1('two\u00ff')
    const first = one.finish()
    new ByteWriter().raw(new Uint8Array(9))
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1')
    assert.deepEqual([first, two.finish()].map(text), ['\x03one', '\x04two\u00ff'])
  })

  it('refuse padded, overlong, unsafe and cut varints', () => {
    for (const hex of ['8000', 'ff00', 'ffffffffffffff10', 'ffffffffffffffff01', '80', ''])
      assert.throws(() => new ByteReader(Buffer.from(hex, 'hex')).varint(), Malformed, hex)
  })

  it('refuse to read past the end or to leave bytes behind', () => {
    assert.throws(() => new ByteReader(Uint8Array.of(5, 1, 2)).sized(), Malformed)
    assert.throws(() => new ByteReader(Uint8Array.of(1)).end(), Malformed)
  })
})
