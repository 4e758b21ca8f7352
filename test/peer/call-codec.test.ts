import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { CommandResponse } from '../../src/gen/clusterpb/cluster.ts'
import { fromUtf8 } from '../../src/lib/bytes.ts'
import type { CallResult } from '../../src/node/ports.ts'
import { encodeResponse, readResponse, writeResponse } from '../../src/peer/call-codec.ts'
import { encodeMessage } from '../../src/peer/proto-io.ts'

type Reply = CallResult['reply']

const bytes = fc.uint8Array({ maxLength: 300 })
const safe = fc.oneof(fc.nat(), fc.maxSafeNat(), fc.constantFrom(0, 1, 127, 128, 2 ** 32, 2 ** 53 - 1))
const reply: fc.Arbitrary<Reply> = fc.oneof(
  fc.constant<Reply>({ kind: 'nil' }),
  bytes.map((value): Reply => ({ kind: 'value', value })),
  fc.boolean().map((success): Reply => ({ kind: 'success', success })),
  fc.tuple(fc.boolean(), safe).map(([success, integer]): Reply => ({ kind: 'success', success, integer })),
  safe.map((count): Reply => ({ kind: 'count', count })),
  fc.maxSafeInteger().map((count): Reply => ({ kind: 'count', count })),
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map((count): Reply => ({ kind: 'count', count })),
  fc.array(bytes, { maxLength: 4 }).map(
    (items): Reply => ({
      kind: 'list',
      items: items.map(value => ({ key: fromUtf8('k'), value })),
      cursor: fromUtf8('7'),
    }),
  ),
)

describe('the bytes of an answer', () => {
  it('are those of the generated writer, whichever way they are written', () => {
    const id = fc.oneof(safe.map(BigInt), fc.bigInt(0n, 2n ** 64n - 1n))
    const lag = fc.oneof(safe, fc.constantFrom(0, 0.3, 2 ** 40))
    fc.assert(
      fc.property(reply, safe, lag, id, (given, revision, lagMs, callId) => {
        const result = { reply: given, revision, lagMs }
        const written = encodeResponse(result, callId)
        assert.deepEqual(written, encodeMessage(CommandResponse, writeResponse(result, callId)))
      }),
      { numRuns: 3_000 },
    )
  })

  it('are read as what was answered', () => {
    for (const given of [
      { kind: 'nil' },
      { kind: 'value', value: Buffer.from('v') },
      { kind: 'success', success: false },
      { kind: 'count', count: 0 },
      { kind: 'count', count: 2 ** 53 - 1 },
    ] as const) {
      const response = CommandResponse.decode(encodeResponse({ reply: given, revision: 9, lagMs: 2 }, 5n))
      assert.deepEqual(readResponse(response), { reply: given, revision: 9, lagMs: 2 })
      assert.equal(response.id, 5n)
    }
  })
})
