import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type Answer, decodeAnswer, encodeAnswer } from '../../src/commands/answer.ts'
import type { ListItem, Reply } from '../../src/commands/command.ts'
import { countOf } from '../../src/commands/integer.ts'
import { isError, RoundhouseError } from '../../src/errors.ts'

const bytes = fc.uint8Array({ maxLength: 20 })
const items: fc.Arbitrary<ListItem[]> = fc.array(
  fc.record({ key: bytes, value: bytes }, { requiredKeys: [], noNullPrototype: true }),
)
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const replies: fc.Arbitrary<Reply> = fc.oneof(
  fc.constant<Reply>({ kind: 'nil' }),
  bytes.map((value): Reply => ({ kind: 'value', value })),
  fc.boolean().map((success): Reply => ({ kind: 'success', success })),
  fc
    .tuple(fc.boolean(), fc.nat())
    .map(([success, integer]): Reply => ({ kind: 'success', success, integer })),
  fc.oneof(int64, fc.bigInt(-5n, 5n)).map((value): Reply => ({ kind: 'count', count: countOf(value) })),
  items.map((items): Reply => ({ kind: 'list', items })),
  fc.tuple(items, bytes).map(([items, cursor]): Reply => ({ kind: 'list', items, cursor })),
)

describe('a kept answer', () => {
  it('of replies comes back as it was', () =>
    fc.assert(
      fc.property(fc.array(replies, { maxLength: 4 }), fc.maxSafeNat(), (replies, revision) => {
        const answer: Answer = { kind: 'replies', replies, revision }
        assert.deepEqual(decodeAnswer(encodeAnswer(answer)), answer)
      }),
    ))

  it('is CORRUPT, and nothing worse, when its bytes are not whole', () =>
    fc.assert(
      fc.property(replies, fc.nat(), fc.nat(255), (reply, at, byte) => {
        const whole = encodeAnswer({ kind: 'replies', replies: [reply], revision: 7 })
        const broken = Uint8Array.from(whole)
        broken[at % broken.byteLength] = byte
        try {
          decodeAnswer(broken)
        } catch (error) {
          assert.ok(isError(error, 'CORRUPT'), String(error))
        }
        assert.throws(() => decodeAnswer(whole.subarray(0, at % whole.byteLength)), { code: 'CORRUPT' })
      }),
    ))

  it('of an error comes back with its facts', () => {
    const error = new RoundhouseError('WRONG_TYPE', { actual: 'hash', wanted: 'string' })
    const back = decodeAnswer(encodeAnswer({ kind: 'refused', error, operation: 2, revision: 9 }))
    assert.ok(back.kind === 'refused' && isError(back.error, 'WRONG_TYPE'))
    assert.deepEqual(
      [back.operation, back.revision, back.error.facts, back.error.message],
      [2, 9, error.facts, error.message],
    )
  })

  it('over 4 KiB comes back as success, one a reply', () => {
    const large: Reply = { kind: 'value', value: new Uint8Array(4096) }
    const bytes = encodeAnswer({ kind: 'replies', replies: [large, large], revision: 300 })
    assert.equal(bytes.byteLength, 4)
    const success: Reply = { kind: 'success', success: true }
    assert.deepEqual(decodeAnswer(bytes), { kind: 'replies', replies: [success, success], revision: 300 })
  })
})
